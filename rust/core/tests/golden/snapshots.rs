//! Snapshots: whole instances in every state, which are read, checked and written again.

use sayiir_core::envelope::{self, HEADER, codec, kind};
use sayiir_core::snapshot::Snapshot;
use sayiir_core::state::{Outcome, Status};
use sayiir_core::{Error, wire};

use super::{frozen, golden};

const NOON_US: i64 = 1_893_499_200_000_000;

fn read(name: &str) -> Snapshot {
    Snapshot::decode(&golden(name)).unwrap()
}

#[test]
fn snapshots_are_what_they_were() {
    let names = frozen("snapshot-");
    assert_eq!(names.len(), 6);
    for name in names {
        let found = read(&name);
        assert_eq!(found.encode(), golden(&name), "{name}");
        assert_eq!(found.check_position(), Ok(()), "{name}");
        assert_eq!((&*found.id, found.created_us), ("i-1", NOON_US), "{name}");
        let def = wire::decode_definition(&found.tree);
        assert_eq!(def.as_ref(), Ok(&*found.definition), "{name}");
    }
}

#[test]
fn whoever_knows_a_definition_reads_the_same() {
    for name in frozen("snapshot-") {
        let found = read(&name);
        for other in frozen("snapshot-") {
            let known = read(&other).known();
            let again = Snapshot::decode_knowing(&golden(&name), Some(&known)).unwrap();
            assert_eq!(again, found, "{name}, knowing that of {other}");
            let shared = std::sync::Arc::ptr_eq(&again.definition, known.definition());
            assert_eq!(shared, *found.tree == **known.tree(), "{name}, {other}");
        }
    }
}

#[test]
fn their_fields_are_where_they_were() {
    let paused = read("snapshot-paused");
    assert_eq!(paused.status, Status::Paused);
    let asked = paused.asked.as_ref().unwrap();
    assert_eq!((asked.cancel, asked.pending), (false, false));
    assert_eq!(asked.resume, Status::AwaitingSignal);
    assert_eq!(asked.reason.as_deref(), Some("too early"));
    assert_eq!(paused.steps[0].step.outcome, Outcome::Elapsed);
    assert_eq!(paused.awaits, ["paid".into()]);
    assert_eq!(paused.needs.1, 2);
    let keys: Vec<_> = paused
        .events
        .iter()
        .map(|event| event.key.as_deref())
        .collect();
    assert_eq!(keys, [Some("seen"), None]);
    let forked = read("snapshot-forked");
    let strands: Vec<_> = forked
        .stored
        .cells
        .iter()
        .map(|(strand, _)| *strand)
        .collect();
    assert_eq!((strands, forked.cells_from), (vec![1, 2], 1));
    assert_eq!(&*forked.steps[1].worker, "w-2");
    assert_eq!(
        read("snapshot-cancelled").asked.unwrap().by.as_deref(),
        Some("ops")
    );
}

#[test]
fn every_cut_and_every_flipped_byte_is_refused_or_read_anew() {
    for name in frozen("snapshot-") {
        let good = golden(&name);
        for at in 0..good.len() {
            let mut bad = good.to_vec();
            bad[at] ^= 0x41;
            assert!(Snapshot::decode(&bad).is_err(), "{name}: flip at {at}");
            assert!(
                Snapshot::decode(&good[..at]).is_err(),
                "{name}: cut at {at}"
            );
            let cut = &good[HEADER.min(at)..at];
            let cut = envelope::sealed(kind::SNAPSHOT, codec::NONE, cut);
            assert!(
                Snapshot::decode(&cut).is_err(),
                "{name}: sealed cut at {at}"
            );
        }
        for at in HEADER..good.len() {
            for byte in [0, 1, 2, 3, 4, 0x7f, 0x80, 0xff] {
                let mut body = good[HEADER..].to_vec();
                body[at - HEADER] = byte;
                let changed = envelope::sealed(kind::SNAPSHOT, codec::NONE, &body);
                match Snapshot::decode(&changed) {
                    Ok(found) => {
                        assert_eq!(Snapshot::decode(&found.encode()).as_ref(), Ok(&found));
                        let _ = found.check_position();
                    }
                    Err(Error::Format(_)) => {}
                    Err(other) => panic!("{name}: {other:?}"),
                }
            }
        }
    }
}

#[test]
fn a_position_that_does_not_fit_is_told() {
    let mut misfit = read("snapshot-forked");
    misfit.stored.cursor = read("snapshot-paused").stored.cursor;
    assert!(matches!(misfit.check_position(), Err(Error::Format(_))));
}

#[test]
fn a_pending_request_takes_effect_at_rest() {
    use sayiir_core::snapshot::Asked;
    for (cancel, status) in [(true, Status::Cancelled), (false, Status::Paused)] {
        let mut asking = read("snapshot-forked");
        asking.asked = Some(Asked {
            cancel,
            pending: true,
            resume: Status::InProgress,
            reason: None,
            by: None,
        });
        let pending = Snapshot::decode(&asking.encode());
        assert_eq!(pending.as_ref(), Ok(&asking));
        let resting = asking.at_rest(NOON_US + 9);
        assert_eq!((resting.status, resting.updated_us), (status, NOON_US + 9));
        assert_eq!(resting.stored.cursor.is_none(), cancel);
        assert_eq!(Snapshot::decode(&resting.encode()).as_ref(), Ok(&resting));
    }
}
