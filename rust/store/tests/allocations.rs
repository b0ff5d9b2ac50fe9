//! How often the hot path asks for memory: one step after the other, in core and memory store.
//!
//! The output that a body returns exists before it is counted, as the payload it is. Beyond that, a
//! linear step in steady state asks for nothing but the growth of its instance's history, which
//! doubles; the other shapes have a figure each, which may fall but not rise.

#![allow(clippy::unwrap_used)] // a test may stop where it stands

#[path = "../../core/tests/counting/mod.rs"]
mod counting;
mod driving;

use counting::allocated;
use driving::{Bytes, Definition, Keep, Play, Shop, alone, fork, linear, map, numbers, plain};
use driving::{repeat, turn};
use std::sync::Arc;

/// Steps before counting: buffers come to their sizes.
const BEFORE: usize = 140;
/// Steps that are counted, none of which doubles a history: 128 rows to 256.
const COUNTED: usize = 100;

/// Calls and bytes of each counted step.
fn counted<K: Keep>(mut play: Play<K>, output: &Bytes) -> Vec<(usize, usize)> {
    for _ in 0..BEFORE {
        play.next(output);
    }
    let mut each = Vec::with_capacity(COUNTED);
    for _ in 0..COUNTED {
        each.push(allocated(|| drop(play.next(output))).0);
    }
    each
}

fn in_memory(def: &Arc<Definition>, input: &Bytes, output: &Bytes) -> Vec<(usize, usize)> {
    let shop = Shop::new(def);
    shop.submit(&"one".into(), input);
    counted(shop.claim(), output)
}

/// The most calls of any step, and the mean of calls and of bytes.
fn most(each: &[(usize, usize)]) -> (usize, f64, f64) {
    let mean = |pick: fn(&(usize, usize)) -> usize| {
        each.iter().map(pick).sum::<usize>() as f64 / each.len() as f64
    };
    let calls = each.iter().map(|one| one.0).max().unwrap();
    (calls, mean(|one| one.0), mean(|one| one.1))
}

#[test]
fn a_step_in_a_row_asks_for_nothing() {
    let (def, payload) = (linear(300), plain());
    for each in [
        counted(alone(&def, &payload), &payload),
        in_memory(&def, &payload, &payload),
    ] {
        assert_eq!(most(&each), (0, 0.0, 0.0), "{each:?}");
    }
}

#[test]
fn a_history_grows_by_doubling() {
    let (def, payload) = (linear(1_000), plain());
    let shop = Shop::new(&def);
    shop.submit(&"one".into(), &payload);
    let mut play = shop.claim();
    let ((calls, _), ()) = allocated(|| {
        for _ in 0..900 {
            play.next(&payload);
        }
    });
    assert!(calls <= 18, "{calls} in 900 steps");
}

#[test]
fn turns_branches_and_items_ask_for_no_more_than_they_did() {
    let payload = plain();
    let found = [
        in_memory(&repeat(), &payload, &turn(false)),
        in_memory(&fork(300), &payload, &payload),
        in_memory(&map(), &numbers(300), &payload),
    ]
    .map(|each| most(&each));
    // What asks, in calls: of a turn the value inside its `LoopResult`, sealed (4: `loop_result`), its
    // path (3: `run`) and what it refers to (1: `Ref::clone`); of a branch its path, made twice (4: `path_of`), its
    // position (2: `Cell::encode`); of an item its payload sealed out of the list (2: `Items::get`),
    // its position (2); of both, now and then, a node of the store's map of positions.
    let held = [(8, 8.0, 170.0), (7, 5.2, 360.0), (6, 4.2, 350.0)];
    for (found, held) in found.iter().zip(held) {
        assert!(
            found.0 <= held.0 && found.1 <= held.1 && found.2 <= held.2,
            "turns, branches, items: {found:?}, held to {held:?}"
        );
    }
}
