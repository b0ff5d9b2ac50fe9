//! The work that is counted in instructions: `instructions CASE ROUNDS` does one case so many times.
//!
//! `benches/guard.py` runs it under callgrind, twice with different rounds; the difference is what a
//! round costs, without the start of the program. It measures nothing itself. Called without a case,
//! as `cargo bench` does, it does one round of each, which shows that they work.

#![allow(clippy::unwrap_used, clippy::panic)] // a measurement may stop where it stands

#[path = "../tests/driving/mod.rs"]
mod driving;

use std::hint::black_box;
use std::sync::Arc;

use driving::{NOW, Shop, alone, fork, linear, map, numbers, plain, repeat, turn};
use sayiir_core::envelope::{self, Bytes};
use sayiir_core::state::{Cell, Frame, Phase, Ref};
use sayiir_core::wire::{decode_definition, encode_definition};
use sayiir_core::{Definition, ErrorRecord};
use sayiir_store::Store;

/// A case by its name, ready to be done any number of times.
type Case = (&'static str, fn() -> Box<dyn FnMut()>);

const CASES: [Case; 13] = [
    ("advance, 3 steps in a row", || advance(linear(3), plain())),
    ("advance, fork of 10", || advance(fork(10), plain())),
    ("advance, map of 100", || advance(map(), numbers(100))),
    ("advance, loop of 20 turns", turns),
    ("definition, encode", || {
        let def = linear(20);
        Box::new(move || drop(black_box(encode_definition(black_box(&def)))))
    }),
    ("definition, decode", || {
        let bytes = encode_definition(&linear(20));
        Box::new(move || drop(black_box(decode_definition(black_box(&bytes)).unwrap())))
    }),
    ("position, encode", || {
        let cell = position();
        Box::new(move || drop(black_box(black_box(&cell).encode())))
    }),
    ("position, decode", || {
        let bytes = position().encode();
        Box::new(move || drop(black_box(Cell::decode(black_box(&bytes)).unwrap())))
    }),
    ("envelope, 10 named payloads, seal", || {
        let (names, payload) = (names(), plain());
        Box::new(move || drop(black_box(named(&names, black_box(&payload)))))
    }),
    ("envelope, 10 named payloads, open", || {
        let bytes = named(&names(), &plain());
        Box::new(move || {
            let view = envelope::open(black_box(&bytes)).unwrap();
            drop(black_box(envelope::named_items(view.body).unwrap()));
        })
    }),
    ("error record, encode + decode", || {
        let record = ErrorRecord::decode(&failure().encode()).unwrap();
        Box::new(move || {
            let bytes = black_box(&record).encode();
            drop(black_box(ErrorRecord::decode(&bytes).unwrap()));
        })
    }),
    ("memory, instance of 3 steps, submit to end", instances),
    ("memory, 1,000 steps of one instance", steps),
];

fn advance(def: Arc<Definition>, input: Bytes) -> Box<dyn FnMut()> {
    let output = plain();
    Box::new(move || drop(black_box(alone(&def, &input).finish(&output))))
}

fn turns() -> Box<dyn FnMut()> {
    let (def, input) = (repeat(), plain());
    let (again, done) = (turn(false), turn(true));
    Box::new(move || {
        let mut play = alone(&def, &input);
        for _ in 1..20 {
            play.next(&again);
        }
        drop(black_box(play.finish(&done)));
    })
}

fn instances() -> Box<dyn FnMut()> {
    let (shop, id, payload) = (Shop::new(&linear(3)), Arc::from("one"), plain());
    Box::new(move || {
        shop.submit(&id, &payload);
        drop(black_box(shop.claim().finish(&payload)));
        shop.store.delete(&id, false, NOW).unwrap();
    })
}

/// An instance is given up and begun anew after a thousand steps, so that no case grows for ever.
fn steps() -> Box<dyn FnMut()> {
    let (shop, id, payload) = (Shop::new(&linear(1_000)), Arc::from("one"), plain());
    Box::new(move || {
        shop.submit(&id, &payload);
        drop(black_box(shop.claim().finish(&payload)));
        shop.store.delete(&id, false, NOW).unwrap();
    })
}

fn names() -> Vec<String> {
    (0..10).map(|at| format!("branch-{at}")).collect()
}

fn named(names: &[String], payload: &Bytes) -> Bytes {
    envelope::named(names.iter().map(|name| (&**name, Bytes::clone(payload))))
}

fn position() -> Cell {
    let at = |at| Frame {
        at,
        extra: 200,
        key: 3,
    };
    Cell {
        frames: vec![at(1), at(70_000)],
        phase: Phase::Backoff { until_us: NOW },
        attempt: 2,
        value: Ref::Item {
            of: Box::new(Ref::Step(12)),
            index: 4,
        },
    }
}

fn failure() -> ErrorRecord {
    ErrorRecord {
        error_type: "ValueError".into(),
        message: "the amount is negative".into(),
        traceback: "  File \"shop.py\", line 12, in charge\n".repeat(8),
        task: "charge".into(),
        path: "fork/left/charge".into(),
        retryable: true,
        causes: vec![("KeyError".into(), "'amount'".into())],
    }
}

fn main() {
    let mut words = std::env::args().skip(1);
    match (words.next().as_deref(), words.next()) {
        (Some("--list"), None) => CASES.iter().for_each(|(name, _)| println!("{name}")),
        (Some(name), Some(rounds)) => {
            let case = CASES.iter().find(|(known, _)| *known == name);
            let (_, make) = case.unwrap_or_else(|| panic!("there is no case {name:?}; see --list"));
            let mut work = make();
            for _ in 0..rounds.parse::<u32>().unwrap() {
                work();
            }
        }
        _ => {
            CASES.iter().for_each(|(_, make)| make()());
            println!(
                "{} cases work; `make guard` counts their instructions",
                CASES.len()
            );
        }
    }
}
