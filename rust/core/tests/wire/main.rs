//! Definitions and snapshots as bytes: random trees come back as they were, and no bytes do any harm.
//!
//! What the bytes are, one by one, is frozen by `golden`; what reading them may cost in memory is the
//! subject of `cost`.

#![allow(clippy::unwrap_used, clippy::panic)] // a test may stop where it stands

mod trees;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::FileFailurePersistence;
use sayiir_core::definition::MAX_DEFINITION_DEPTH;
use sayiir_core::envelope::{self, HEADER, codec, kind, put_bytes, put_uint};
use sayiir_core::policy::TaskPolicy;
use sayiir_core::snapshot::Snapshot;
use sayiir_core::wire::{decode_definition, encode_definition};
use sayiir_core::{Definition, Error, NodeSpec, TaskSpec};
use trees::{CENTURY_US, definition};

/// One change to the bytes behind the header.
#[derive(Debug, Clone)]
enum Change {
    Set(Index, u8),
    Insert(Index, u8),
    Remove(Index),
    Cut(Index),
    Repeat(Index, Index),
}

fn change() -> impl Strategy<Value = Change> {
    let byte = prop_oneof![
        any::<u8>(),
        Just(0),
        Just(1),
        Just(0x7f),
        Just(0x80),
        Just(0xff)
    ];
    let at = any::<Index>;
    prop_oneof![
        4 => (at(), byte.clone()).prop_map(|(at, byte)| Change::Set(at, byte)),
        2 => (at(), byte).prop_map(|(at, byte)| Change::Insert(at, byte)),
        2 => at().prop_map(Change::Remove),
        1 => at().prop_map(Change::Cut),
        1 => (at(), at()).prop_map(|(from, to)| Change::Repeat(from, to)),
    ]
}

fn changed(sealed: &[u8], changes: &[Change]) -> Vec<u8> {
    let mut body = sealed[HEADER..].to_vec();
    for change in changes {
        let len = body.len();
        match change {
            _ if len == 0 => {}
            Change::Set(at, byte) => body[at.index(len)] = *byte,
            Change::Insert(at, byte) => body.insert(at.index(len), *byte),
            Change::Remove(at) => drop(body.remove(at.index(len))),
            Change::Cut(at) => body.truncate(at.index(len)),
            Change::Repeat(from, to) => {
                let (from, to) = (from.index(len), to.index(len));
                let copied = body[from.min(to)..from.max(to)].to_vec();
                body.extend(copied);
            }
        }
    }
    body
}

fn sealed(body: &[u8]) -> envelope::Bytes {
    envelope::sealed(kind::DEFINITION, codec::NONE, body)
}

/// Reads the bytes; the one refusal allowed is a format error, and what is read can be written.
fn read_or_refuse(bytes: &[u8]) -> Option<Definition> {
    match decode_definition(bytes) {
        Ok(read) => {
            assert_eq!(
                decode_definition(&encode_definition(&read)).as_ref(),
                Ok(&read)
            );
            Some(read)
        }
        Err(Error::Format(_)) => None,
        Err(other) => panic!("{other:?}"),
    }
}

fn refusal(body: &[u8]) -> String {
    match decode_definition(&sealed(body)) {
        Err(Error::Format(text)) => text,
        other => panic!("{other:?}"),
    }
}

/// Whole instances in every state, as they are frozen.
fn snapshots() -> Vec<Vec<u8>> {
    [
        "fresh",
        "paused",
        "forked",
        "completed",
        "failed",
        "cancelled",
    ]
    .map(|name| {
        let folder = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/golden/v1-snapshot"
        );
        std::fs::read(format!("{folder}/snapshot-{name}.bin")).unwrap()
    })
    .to_vec()
}

/// What can be read is written again so that it is read the same, and its position is judged.
fn snapshot_or_refuse(bytes: &[u8]) {
    match Snapshot::decode(bytes) {
        Ok(snapshot) => {
            assert_eq!(Snapshot::decode(&snapshot.encode()).as_ref(), Ok(&snapshot));
            let known = snapshot.known();
            assert_eq!(
                Snapshot::decode_knowing(bytes, Some(&known)).as_ref(),
                Ok(&snapshot)
            );
            let judged = snapshot.check_position();
            assert!(
                matches!(judged, Ok(()) | Err(Error::Format(_))),
                "{judged:?}"
            );
            let resting = snapshot.at_rest(0);
            assert_eq!(Snapshot::decode(&resting.encode()), Ok(resting));
        }
        Err(error) => assert!(
            matches!(error, Error::Format(_) | Error::Newer(_)),
            "{error:?}"
        ),
    }
}

proptest! {
    // The seed of a failure is kept beside this file and tried first from then on.
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_definition_comes_back_as_it_was(def in definition()) {
        let bytes = encode_definition(&def);
        let back = decode_definition(&bytes).unwrap();
        prop_assert_eq!(back.hash(), def.hash());
        prop_assert_eq!(encode_definition(&back), bytes);
        prop_assert_eq!(back, def);
    }

    #[test]
    fn a_forged_definition_is_refused_or_read(
        def in definition(),
        changes in vec(change(), 1..6),
    ) {
        read_or_refuse(&sealed(&changed(&encode_definition(&def), &changes)));
    }

    #[test]
    fn a_forged_snapshot_is_refused_or_read(
        which in any::<Index>(),
        changes in vec(change(), 1..6),
    ) {
        let frozen = snapshots();
        let body = changed(&frozen[which.index(frozen.len())], &changes);
        snapshot_or_refuse(&envelope::sealed(kind::SNAPSHOT, codec::NONE, &body));
    }

    #[test]
    fn random_bytes_are_no_snapshot_or_one(body in vec(any::<u8>(), 0..300)) {
        snapshot_or_refuse(&body);
        snapshot_or_refuse(&envelope::sealed(kind::SNAPSHOT, codec::NONE, &body));
    }

    #[test]
    fn random_bytes_are_refused_or_read(body in vec(any::<u8>(), 0..300)) {
        read_or_refuse(&body);
        read_or_refuse(&sealed(&body));
    }

    #[test]
    fn fields_of_a_newer_version_are_stepped_over(def in definition(), more in vec(any::<u8>(), 1..9)) {
        let bytes = encode_definition(&def);
        let newer = with_more_fields(&bytes[HEADER..], &more);
        prop_assert_eq!(decode_definition(&sealed(&newer)).unwrap(), def);
    }
}

/// The same tree as a newer program might write it: every record of the head is longer.
fn with_more_fields(body: &[u8], more: &[u8]) -> Vec<u8> {
    let mut reader = envelope::Reader::new(body);
    let mut out = Vec::new();
    let lengthen = |reader: &mut envelope::Reader<'_>, out: &mut Vec<u8>| {
        put_bytes(out, &[reader.bytes().unwrap(), more].concat());
    };
    lengthen(&mut reader, &mut out);
    let tasks = reader.count().unwrap();
    put_uint(&mut out, tasks as u64);
    for _ in 0..tasks {
        lengthen(&mut reader, &mut out);
    }
    let nodes = reader.count().unwrap();
    put_uint(&mut out, nodes as u64);
    // The first node: its own record is lengthened, what it contains is left as it is.
    lengthen(&mut reader, &mut out);
    out.extend_from_slice(reader.take(reader.left()).unwrap());
    out
}

fn text(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(&mut out, text.as_bytes());
    out
}

fn record(fields: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(&mut out, fields);
    out
}

/// A body with a name, no tasks, and what follows.
fn head(rest: &[u8]) -> Vec<u8> {
    [record(&text("w")), vec![0], rest.to_vec()].concat()
}

fn small() -> Definition {
    let task = TaskSpec {
        name: "t".into(),
        policy: TaskPolicy::default(),
    };
    let step = NodeSpec::Task {
        name: "t".into(),
        task: 0,
    };
    let fork = NodeSpec::Fork {
        name: "f".into(),
        branches: vec![("a".into(), vec![step.clone()])],
    };
    Definition::build("w", vec![task], &[step, fork]).unwrap()
}

#[test]
fn a_flip_or_a_cut_anywhere_is_found() {
    let good = encode_definition(&small());
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.to_vec();
            bad[at] ^= 1 << bit;
            assert!(
                matches!(decode_definition(&bad), Err(Error::Format(_))),
                "bit {bit} of {at}"
            );
        }
        assert!(
            matches!(decode_definition(&good[..at]), Err(Error::Format(_))),
            "cut at {at}"
        );
        // Cut and sealed again: a half tree is no tree.
        if at >= HEADER {
            assert_eq!(
                read_or_refuse(&sealed(&good[HEADER..at])),
                None,
                "short body {at}"
            );
        }
    }
    let longer = [&good[HEADER..], &[0]].concat();
    assert!(refusal(&longer).contains("left over"));
}

#[test]
fn counts_that_lie_are_refused() {
    for claim in [5, 1 << 32, (1 << 32) + 1, u64::MAX] {
        let mut count = Vec::new();
        put_uint(&mut count, claim);
        // As the number of tasks, of nodes, of branches, of tags, and as the length of a record.
        let tasks = [record(&text("w")), count.clone()].concat();
        let nodes = head(&count);
        let fork = record(&[vec![2], text("f"), count.clone()].concat());
        let branches = head(&[vec![1], fork].concat());
        let mut fields = [
            text("t"),
            vec![0],
            vec![0; 16],
            vec![0],
            vec![0; 8],
            vec![0],
        ]
        .concat();
        fields.extend_from_slice(&count);
        let tags = [record(&text("w")), vec![1], record(&fields)].concat();
        for body in [tasks, nodes, branches, tags, count] {
            refusal(&body);
        }
    }
}

#[test]
fn a_tree_without_bottom_ends_at_the_limit() {
    let child = record(&[vec![9], text("c"), text("w")].concat());
    let deep =
        |levels: usize| head(&[[vec![1], child.clone()].concat().repeat(levels), vec![0]].concat());
    assert!(refusal(&deep(100_000)).contains("nested deeper than 64"));
    // One less is read to the end and fails for its empty innermost block alone.
    assert!(refusal(&deep(MAX_DEFINITION_DEPTH)).contains("has no steps"));
    assert!(refusal(&deep(MAX_DEFINITION_DEPTH + 1)).contains("nested deeper"));
}

#[test]
fn the_number_of_nodes_is_limited() {
    let node = record(&[vec![6], text("d"), vec![0]].concat());
    let wide = |count: u64| {
        let mut block = Vec::new();
        put_uint(&mut block, count);
        block.extend(node.repeat(count as usize));
        head(&block)
    };
    assert_eq!(
        decode_definition(&sealed(&wide(100_000)))
            .unwrap()
            .nodes
            .len(),
        100_000
    );
    assert!(refusal(&wide(100_001)).contains("more than 100000 nodes"));
}

#[test]
fn what_could_not_have_been_built_is_refused() {
    let one = |node: Vec<u8>| head(&[vec![1], record(&node)].concat());
    let int = |n: i64| {
        let mut out = Vec::new();
        envelope::put_int(&mut out, n);
        out
    };
    for (body, reason) in [
        (
            one([vec![1], text("t"), vec![0]].concat()),
            "refers to task 0, but there are 0",
        ),
        (
            one([vec![2], text("f"), vec![0]].concat()),
            "has no branches",
        ),
        (
            one([vec![4], text("r"), vec![7, 0, 0]].concat()),
            "has no branches",
        ),
        (one([vec![6], text("d"), int(-1)].concat()), "out of range"),
        (
            one([vec![6], text("d"), int(CENTURY_US + 1)].concat()),
            "out of range",
        ),
        (
            one([vec![7], text("d"), int(i64::MIN)].concat()),
            "out of range",
        ),
        (
            one([vec![8], text("w"), text(""), vec![0, 0]].concat()),
            "event name must not be empty",
        ),
        (
            one([vec![8], text("w"), text("e"), vec![0, 2]].concat()),
            "unknown number 2",
        ),
        (
            one([vec![6], text("\0"), vec![0]].concat()),
            "control characters",
        ),
        (one([vec![6], vec![1, 0xff], vec![0]].concat()), "UTF-8"),
        (
            one([vec![11], text("x"), vec![0]].concat()),
            "unknown kind 11",
        ),
        (one(vec![0]), "end too early"),
        (head(&[0]), "has no steps"),
    ] {
        let found = refusal(&body);
        assert!(found.contains(reason), "{found:?} does not say {reason:?}");
        assert!(found.contains("a stored definition is damaged, or written by a newer sayiir"));
    }
}

#[test]
fn another_kind_and_another_version_are_refused() {
    let other = envelope::sealed(
        kind::CELL,
        codec::NONE,
        &encode_definition(&small())[HEADER..],
    );
    let text = decode_definition(&other).unwrap_err().to_string();
    assert!(
        text.contains("expected a definition, found an envelope of kind 6"),
        "{text}"
    );
    let mut newer = encode_definition(&small()).to_vec();
    newer[4] = 2;
    envelope::seal(&mut newer, 0);
    let text = decode_definition(&newer).unwrap_err().to_string();
    assert!(text.contains("format version 2 is newer"), "{text}");
}
