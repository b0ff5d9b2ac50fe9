//! The frozen bytes of `tests/golden`, as the core reads and writes them.
//!
//! Positions and definitions are reachable from here only; composites, error records and the values
//! that the engine writes itself are made here from the same parts as there. What a value means to
//! Python, and the worked examples of `docs/format.md`, are checked by `tests/test_golden.py`.

#![allow(clippy::unwrap_used, clippy::panic)] // a test may stop anywhere

mod definitions;
mod positions;
mod snapshots;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use sayiir_core::envelope::{self, Bytes, Items, codec, kind};
use sayiir_core::state::Cell;
use sayiir_core::wire::decode_definition;
use sayiir_core::{Error, ErrorRecord};

/// What was frozen first, what came with spread maps, and whole instances.
fn folders() -> [PathBuf; 3] {
    ["v1", "v1-spread", "v1-snapshot"].map(|folder| {
        PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("../../tests/golden")
            .join(folder)
    })
}

fn golden(name: &str) -> Bytes {
    folders()
        .iter()
        .find_map(|folder| fs::read(folder.join(format!("{name}.bin"))).ok())
        .unwrap_or_else(|| panic!("no frozen file is called {name}.bin"))
        .into()
}

/// The names of the frozen files that begin like this, without their endings.
fn frozen(prefix: &str) -> BTreeSet<String> {
    folders()
        .iter()
        .flat_map(|folder| fs::read_dir(folder).unwrap())
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| Some(name.strip_suffix(".bin")?.to_owned()))
        .filter(|name| name.starts_with(prefix))
        .collect()
}

fn value(body: &[u8]) -> Bytes {
    envelope::sealed(kind::VALUE, codec::MSGPACK, body)
}

#[test]
fn composites_are_what_they_were() {
    let (one, two) = (value(&[1]), value(&[2]));
    let named = |items: Vec<(&'static str, Bytes)>| envelope::named(items.into_iter());
    let both = vec![("left", one.clone()), ("größe", two.clone())];
    assert_eq!(named(both), golden("named"));
    assert_eq!(envelope::list(&[one.clone(), two.clone()]), golden("list"));
    assert_eq!(envelope::list(&[]), golden("list-empty"));
    assert_eq!(envelope::branch("a/b", &one), golden("branch"));
    let inside = envelope::list(&[
        envelope::branch("k", &one),
        named(vec![("n", two.clone())]),
        value(b"\xa6SYRS\x01\x01"),
    ]);
    assert_eq!(named(vec![("all", inside)]), golden("composite-nested"));

    let bytes = golden("named");
    let items = envelope::named_items(envelope::open_as(&bytes, kind::NAMED, "").unwrap()).unwrap();
    assert_eq!(items, [("left", &one[..]), ("größe", &two[..])]);
    let items = Items::of(&golden("list")).unwrap().unwrap();
    assert_eq!((items.len(), items.get(1)), (2, Ok(two)));
    assert!(
        Items::of(&golden("list-empty"))
            .unwrap()
            .unwrap()
            .is_empty()
    );
    let bytes = golden("branch");
    let parts = envelope::branch_parts(envelope::open_as(&bytes, kind::BRANCH, "").unwrap());
    assert_eq!(parts, Ok(("a/b", &one[..])));
}

#[test]
fn error_records_are_what_they_were() {
    let pairs = |causes: &[(&str, &str)]| {
        causes
            .iter()
            .map(|(kind, text)| ((*kind).to_owned(), (*text).to_owned()))
            .collect()
    };
    let task = ErrorRecord {
        error_type: "PaymentError".into(),
        message: "no funds: 12 €".into(),
        traceback: "Traceback (most recent call last):\n  File \"pay.py\", line 3\n".into(),
        task: "charge".into(),
        path: "fork/left/charge".into(),
        retryable: true,
        causes: pairs(&[("OSError", "connection reset"), ("TimeoutError", "")]),
    };
    let engine = ErrorRecord {
        error_type: "LoopLimit".into(),
        message: "m".repeat(200),
        path: "again".into(),
        ..ErrorRecord::default()
    };
    for (name, record) in [("error", task), ("error-of-the-engine", engine)] {
        let bytes = golden(name);
        assert_eq!(ErrorRecord::decode(&bytes), Ok(record.clone()), "{name}");
        assert_eq!(record.encode(), bytes, "{name}");
    }
}

#[test]
fn values_of_the_engine_are_what_they_were() {
    assert_eq!(
        envelope::event_timeout("paid"),
        golden("engine-event-timeout")
    );
    let record = ErrorRecord {
        error_type: "E".into(),
        message: "no such file".into(),
        ..ErrorRecord::default()
    };
    assert_eq!(
        envelope::map_error(17, &record, "path"),
        golden("engine-map-error")
    );
}

#[test]
fn the_engine_sees_in_values_what_it_saw() {
    let (is_done, inside) = envelope::loop_result(&golden("value-loop-result"))
        .unwrap()
        .unwrap();
    assert!(is_done);
    let items = Items::of(&inside).unwrap().unwrap();
    assert_eq!((items.len(), items.get(0)), (2, Ok(value(&[1]))));
    let again = envelope::loop_result(&items.get(1).unwrap());
    assert_eq!(again, Ok(Some((false, value(&[0xc0])))));

    for (name, count) in [
        ("value-bool", 2),
        ("value-tuple", 4),
        ("value-wide", 4),
        ("foreign-forms", 9),
    ] {
        let items = Items::of(&golden(name)).unwrap().unwrap();
        assert_eq!(items.len(), count, "{name}");
    }
    assert!(Items::of(&golden("value-dict")).unwrap().is_none());
    let texts = Items::of(&golden("value-str")).unwrap().unwrap();
    assert_eq!(envelope::as_text(&texts.get(2).unwrap()), Ok(Some("é🎉\0")));
    assert_eq!(
        envelope::as_text(&texts.get(6).unwrap()),
        Ok(Some("x".repeat(256).as_str()))
    );
    assert_eq!(envelope::describe(&golden("named")), "a dict");
}

#[test]
fn the_header_is_frozen() {
    let kinds: [(&str, u8, u8); 7] = [
        ("value-none", 1, 1),
        ("named", 2, 0),
        ("list", 3, 0),
        ("branch", 4, 0),
        ("error", 5, 0),
        ("cell-ready", 6, 0),
        ("definition-task", 7, 0),
    ];
    for (name, kind, codec) in kinds {
        let bytes = golden(name);
        assert_eq!(
            bytes[..8],
            [b'S', b'Y', b'R', b'S', 1, kind, codec, 0],
            "{name}"
        );
        let view = envelope::open(&bytes).unwrap();
        assert_eq!(
            (view.kind, view.codec, view.body),
            (kind, codec, &bytes[12..])
        );
        assert_eq!(envelope::sealed(kind, codec, view.body), bytes);
    }
}

#[test]
fn bytes_of_another_version_are_refused_by_its_number() {
    for name in frozen("") {
        let mut newer = golden(&name).to_vec();
        newer[4] = 2;
        envelope::seal(&mut newer, 0);
        let newer: Bytes = newer.into();
        for refusal in [
            envelope::open(&newer).map(drop),
            Items::of(&newer).map(drop),
            Cell::decode(&newer).map(drop),
            ErrorRecord::decode(&newer).map(drop),
            decode_definition(&newer).map(drop),
        ] {
            match refusal {
                Err(Error::Newer(text)) => assert!(text.contains("version 2"), "{name}: {text}"),
                other => panic!("{name}: {other:?}"),
            }
        }
    }
}
