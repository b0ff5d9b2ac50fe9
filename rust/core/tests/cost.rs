//! What reading may cost: memory in proportion to the bytes that are there, never to what they claim.
//!
//! An allocator that counts stands in for the usual one, see [`counting`]. The inputs are the worst
//! that the layouts allow: as many items as possible from as few bytes as possible, well sealed, and
//! mostly failing at their very end.

mod counting;

use counting::peak;
use sayiir_core::Error;
use sayiir_core::envelope::{self, Bytes, HEADER, codec, kind, put_bytes, put_uint};
use sayiir_core::snapshot::Snapshot;
use sayiir_core::state;
use sayiir_core::wire::decode_definition;

/// Allowed beside what is in proportion to the input.
const FLOOR: usize = 1 << 20;
/// Bytes held for one byte read. A node of five bytes becomes a few hundred, because it is kept as
/// it was read, as it was built, and in the table of its block's names; with the limit on nodes
/// that makes some 30 MB at most.
const MOST: usize = 80;

fn sealed(kind: u8, body: &[u8]) -> Bytes {
    envelope::sealed(kind, codec::NONE, body)
}

fn record(fields: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(&mut out, fields);
    out
}

fn uint(n: u64) -> Vec<u8> {
    let mut out = Vec::new();
    put_uint(&mut out, n);
    out
}

/// A count, and that many times the same.
fn many(count: usize, item: &[u8]) -> Vec<u8> {
    [uint(count as u64), item.repeat(count)].concat()
}

/// A definition of one workflow `w`, with these tasks and this root block.
fn definition(tasks: &[u8], root: &[u8]) -> Bytes {
    sealed(
        kind::DEFINITION,
        &[&record(&[1, b'w']), tasks, root].concat(),
    )
}

#[test]
fn a_claim_alone_costs_nothing() {
    for claim in [1 << 20, 1 << 32, u64::MAX] {
        let mut lie = uint(claim);
        lie.extend([0; 100]);
        let fork = [uint(1), record(&[&[2, 1, b'f'], &uint(claim)[..]].concat())].concat();
        for bytes in [
            definition(&lie, &[]),
            definition(&[0], &lie),
            definition(&[0], &fork),
            sealed(kind::CELL, &lie),
        ] {
            let (cost, read) = peak(|| (decode_definition(&bytes), state::Cell::decode(&bytes)));
            assert!(matches!(
                read,
                (Err(Error::Format(_)), Err(Error::Format(_)))
            ));
            assert!(cost < 64 << 10, "{cost} bytes held for a claim of {claim}");
        }
    }
}

#[test]
fn what_passes_a_limit_is_refused_before_it_is_kept() {
    let delay = record(&[6, 1, b'd', 0]);
    let zeros = vec![0; 1_000_000];
    let tagged = [
        &[1, b't', 0],
        &[0; 16][..],
        &[0],
        &[0; 8],
        &[0],
        &many(1_000_000, &[0]),
    ]
    .concat();
    for bytes in [
        // A million nodes, tasks and tags that are there; then nodes and tasks that are there only
        // by their number of bytes, since each of those is too short.
        definition(&[0], &many(1_000_000, &delay)),
        definition(&many(1, &record(&tagged)), &[]),
        definition(&[0], &[uint(90_000), zeros.clone()].concat()),
        definition(&[uint(900_000), zeros].concat(), &[]),
    ] {
        let (cost, read) = peak(|| decode_definition(&bytes));
        assert!(matches!(read, Err(Error::Format(_))));
        assert!(cost < 64 << 10, "{cost} bytes held");
    }
}

#[test]
fn a_definition_costs_in_proportion_to_its_bytes() {
    // 90,000 nodes are near the limit of 100,000; more are refused before they are read.
    let delay = record(&[6, 1, b'd', 0]);
    let fork_of_one = [
        record(&[2, 1, b'f', 1]),
        record(&[1, b'b']),
        many(1, &delay),
    ]
    .concat();
    let task = record(&[&[1, b't', 0], &[0; 16][..], &[0], &[0; 8], &[0, 0, 3]].concat());
    let branches = [
        uint(1),
        record(&[&[2, 1, b'f'], &uint(45_000)[..]].concat()),
        (0..45_000u32)
            .flat_map(|n| {
                let name = format!("{n:x}");
                [record(&record(name.as_bytes())), many(1, &delay)].concat()
            })
            .collect(),
    ]
    .concat();
    let whole = [
        definition(&[0], &many(90_000, &delay)),
        definition(&[0], &many(45_000, &fork_of_one)),
        definition(&[0], &branches),
        definition(&many(90_000, &task), &many(1, &delay)),
    ];
    for bytes in whole {
        let (cost, read) = peak(|| decode_definition(&bytes));
        assert!(read.is_ok(), "{:?}", read.err());
        assert!(cost <= FLOOR + MOST * bytes.len(), "{cost} bytes held");
        // The same, but for its last byte.
        let cut = sealed(kind::DEFINITION, &bytes[HEADER..bytes.len() - 1]);
        let (cost, read) = peak(|| decode_definition(&cut));
        assert!(matches!(read, Err(Error::Format(_))));
        assert!(cost <= FLOOR + MOST * cut.len(), "{cost} bytes held");
    }
}

/// Bytes held for one byte read, of everything that is not a definition.
const FEW: usize = 8;

#[test]
fn composites_lists_positions_and_errors_cost_in_proportion_to_their_bytes() {
    let empty = envelope::sealed(kind::VALUE, codec::MSGPACK, &[]);
    let payload = record(&empty);
    let named = [&[0], &payload[..]].concat();
    let pairs = sealed(kind::NAMED, &many(100_000, &named));
    let list = sealed(kind::LIST, &many(100_000, &payload));
    let bare = [&[0xdd, 0, 0x0f, 0x42, 0x40][..], &[0xc0; 1_000_000]].concat();
    let bare = envelope::sealed(kind::VALUE, codec::MSGPACK, &bare);
    let small = |bytes: &Bytes, cost: usize| {
        assert!(
            cost <= FEW * bytes.len(),
            "{cost} bytes held for {}",
            bytes.len()
        );
    };
    let (cost, read) = peak(|| envelope::named_items(&pairs[HEADER..]));
    assert_eq!(read.unwrap().len(), 100_000);
    small(&pairs, cost);
    let (cost, read) = peak(|| envelope::list_items(&list[HEADER..]));
    assert_eq!(read.unwrap().len(), 100_000);
    small(&list, cost);
    for (bytes, count) in [(&list, 100_000), (&bare, 1_000_000)] {
        let (cost, items) = peak(|| envelope::Items::of(bytes));
        assert_eq!(items.unwrap().unwrap().len(), count);
        small(bytes, cost);
    }
    // More than there may be of it is refused before it is kept.
    let frames = sealed(kind::CELL, &[many(66, &[0, 0, 0]), vec![0, 0, 0]].concat());
    let causes = [&[0; 6][..], &many(65, &[0, 0])].concat();
    let causes = sealed(kind::ERROR, &causes);
    for (bytes, (cost, refused)) in [
        (&frames, peak(|| state::Cell::decode(&frames).map(drop))),
        (
            &causes,
            peak(|| envelope::ErrorRecord::decode(&causes).map(drop)),
        ),
    ] {
        assert!(matches!(refused, Err(Error::Format(_))), "{refused:?}");
        assert!(cost <= 1_024, "{cost} bytes held for {}", bytes.len());
    }
}

/// A snapshot of an instance of a workflow of one wait, with these steps and events.
fn snapshot(cells: &[u8], steps: &[u8], events: &[u8]) -> Bytes {
    // A wait for the event "e".
    let wait = record(&[8, 1, b'w', 1, b'e', 0, 0]);
    let tree = definition(&[0], &many(1, &wait));
    let head = [
        &[1, b'i', 0, 0, 0, 0, 3, 0],
        &uint(0x7fff_ffff)[..],
        &uint(0x7fff_ffff),
        &[0, 0, 0, 0, 0, 0, 0],
    ]
    .concat();
    let input = envelope::sealed(kind::VALUE, codec::MSGPACK, &[0xc0]);
    sealed(
        kind::SNAPSHOT,
        &[
            &record(&head)[..],
            &record(&tree),
            &record(&input),
            &[0, 0],
            cells,
            steps,
            events,
        ]
        .concat(),
    )
}

#[test]
fn a_snapshot_costs_in_proportion_to_its_bytes() {
    let step = |seq: u32| {
        let (path, worker) = ([b'a' + (seq % 2) as u8], [b'v' + (seq % 2) as u8]);
        let fields = [
            &uint(u64::from(seq))[..],
            &record(&path),
            &record(&path.map(|byte| byte + 2)),
            &[1, 3],
            &record(&worker),
            &[0; 16],
            &[0, 0],
        ];
        record(&fields.concat())
    };
    let event = |seq: u32| {
        let (name, key) = ([b'a' + (seq % 2) as u8], [b'k']);
        record(&[&record(&name)[..], &[1], &record(&key), &[0; 8], &[0]].concat())
    };
    let cell = |strand: u32| {
        let bytes = sealed(kind::CELL, &[0, 6, 0, 0]);
        [uint(u64::from(strand)), record(&bytes)].concat()
    };
    let rows = |row: &dyn Fn(u32) -> Vec<u8>| -> Vec<u8> {
        let rows: Vec<u8> = (1..=100_000).flat_map(row).collect();
        [uint(100_000), rows].concat()
    };
    let none = [0];
    for bytes in [
        snapshot(&none, &rows(&step), &none),
        snapshot(&none, &none, &rows(&event)),
        snapshot(&rows(&cell), &none, &none),
    ] {
        let (cost, read) = peak(|| Snapshot::decode(&bytes));
        assert!(read.is_ok(), "{:?}", read.err());
        assert!(
            cost <= FLOOR + FEW * bytes.len(),
            "{cost} bytes held for {}",
            bytes.len()
        );
        // The same, but for its last byte.
        let cut = sealed(kind::SNAPSHOT, &bytes[HEADER..bytes.len() - 1]);
        let (cost, read) = peak(|| Snapshot::decode(&cut));
        assert!(matches!(read, Err(Error::Format(_))));
        assert!(cost <= FLOOR + FEW * cut.len(), "{cost} bytes held");
    }
    for claim in [1 << 20, 1 << 32, u64::MAX] {
        let mut lie = uint(claim);
        lie.extend([0; 100]);
        for bytes in [
            snapshot(&lie, &none, &none),
            snapshot(&none, &lie, &none),
            snapshot(&none, &none, &lie),
            sealed(kind::SNAPSHOT, &lie),
        ] {
            let (cost, read) = peak(|| Snapshot::decode(&bytes));
            assert!(matches!(read, Err(Error::Format(_))));
            assert!(cost < 64 << 10, "{cost} bytes held for a claim of {claim}");
        }
    }
}
