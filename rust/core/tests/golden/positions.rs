//! Positions: one file for each phase and each reference.

use std::collections::BTreeSet;

use sayiir_core::state::{Cell, Frame, Phase, Ref};

use super::{frozen, golden};

const NOON_US: i64 = 1_893_499_200_000_000;

fn frame(at: u32, extra: u32, key: u32) -> Frame {
    Frame { at, extra, key }
}

fn cells() -> Vec<(&'static str, Cell)> {
    let first = vec![Frame::default()];
    let deep = vec![frame(2, 0, 0), frame(1, 300, 0), frame(0, 1, 70_000)];
    let cell = |frames: &[Frame], phase: Phase, attempt: u32, value: Ref| Cell {
        frames: frames.to_vec(),
        phase,
        attempt,
        value,
    };
    let far = Ref::Region {
        node: 3,
        base: 200,
        count: 100_000,
        low: 200,
    };
    let item = |of: Ref, index: u32| Ref::Item {
        of: Box::new(of),
        index,
    };
    let inner = |of: Ref| Ref::Inner(Box::new(of));
    let arm = |key: u32, of: Ref| Ref::Arm {
        key,
        inner: Box::new(of),
    };
    let at = |until_us: i64| Phase::Awaiting {
        until_us: Some(until_us),
    };
    let many = Phase::Joining {
        base: 1,
        count: 100_000,
    };
    let due = Phase::Backoff { until_us: NOON_US };
    let nap = Phase::Sleeping { until_us: -1 };
    let open = Phase::Awaiting { until_us: None };
    let (ready, nested) = (Phase::Ready, arm(4, inner(item(far.clone(), 0))));
    vec![
        ("cell-ready", cell(&first, ready.clone(), 0, Ref::Input)),
        ("cell-backoff", cell(&deep, due, 2, Ref::Step(299))),
        ("cell-sleeping", cell(&first, nap, 0, Ref::Step(0))),
        ("cell-awaiting", cell(&first, open, 0, Ref::Step(5))),
        (
            "cell-awaiting-until",
            cell(&first, at(NOON_US), 0, Ref::Step(5)),
        ),
        ("cell-joining", cell(&first, many, 0, Ref::Input)),
        (
            "cell-spread",
            cell(
                &first,
                Phase::Spread {
                    group: 7,
                    made: 2_000,
                    count: 10_000,
                },
                0,
                Ref::Step(3),
            ),
        ),
        ("cell-done", cell(&[], Phase::Done, 0, Ref::Step(127))),
        (
            "cell-failed",
            cell(&first, Phase::Failed(128), 0, Ref::Input),
        ),
        (
            "cell-ref-inner",
            cell(&first, ready.clone(), 0, inner(Ref::Step(1))),
        ),
        (
            "cell-ref-item",
            cell(&first, ready.clone(), 0, item(Ref::Input, 300)),
        ),
        ("cell-ref-region", cell(&first, ready.clone(), 0, far)),
        (
            "cell-ref-arm",
            cell(&first, ready.clone(), 0, arm(4, Ref::Step(9))),
        ),
        ("cell-ref-nested", cell(&deep, ready, 1, nested)),
    ]
}

#[test]
fn positions_are_what_they_were() {
    let cells = cells();
    let known: BTreeSet<String> = cells.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(known, frozen("cell-"));
    for (name, cell) in cells {
        let bytes = golden(name);
        assert_eq!(Cell::decode(&bytes), Ok(cell.clone()), "{name}");
        assert_eq!(cell.encode(), bytes, "{name}");
    }
}
