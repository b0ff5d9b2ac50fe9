//! Every decoder of the core under random damage: no panic, no hang, no memory beyond measure.
//!
//! Begins with the frozen files of `tests/golden`, changes them in a few places, seals most of them
//! again so that the damage gets past the checksum, and reads. Each change does some thousands of
//! executions of each target; `SAYIIR_FUZZ_EXECUTIONS` says another number, and `SAYIIR_FUZZ_SECONDS`
//! after how long to stop before it, as `make soak` does; `SAYIIR_FUZZ_SEED` brings a run back. With `SAYIIR_RESULTS` the counts are written there.
//!
//! The property tests of `wire` begin with trees and shrink what they find; here the number counts.
//! The value decoder needs Python and has the same in `tests/test_value_fuzz.py`.

#![allow(clippy::unwrap_used, clippy::panic)] // a test may stop where it stands

mod counting;

use std::fmt::Write;
use std::fs;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use counting::peak;
use sayiir_core::envelope::{self, HEADER, Items, kind, seal};
use sayiir_core::state::Cell;
use sayiir_core::wire::{decode_definition, encode_definition};
use sayiir_core::{Error, ErrorRecord};

/// Executions of each target where nobody says another number.
const EACH_CHANGE: u64 = 20_000;
/// Bytes held beside what is in proportion to the input: a tree's tables, the text of a refusal.
const FLOOR: usize = 64 << 10;

/// xorshift64*: the same numbers from the same seed, everywhere.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize) % n.max(1)
    }
}

/// The frozen files whose kind is one of these; damage may turn each of them into another.
fn corpus(kinds: &[u8]) -> Vec<Vec<u8>> {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    let mut found: Vec<Vec<u8>> = ["v1", "v1-spread"]
        .iter()
        .flat_map(|folder| fs::read_dir(golden.join(folder)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "bin"))
        .map(|path| fs::read(path).unwrap())
        .filter(|bytes| envelope::open(bytes).is_ok_and(|view| kinds.contains(&view.kind)))
        .collect();
    found.sort();
    assert!(
        !found.is_empty(),
        "nothing frozen is of the kinds {kinds:?}"
    );
    found
}

/// Numbers at which lengths, counts and choices change their meaning.
const ODD: [u8; 12] = [
    0, 1, 2, 0x7f, 0x80, 0x81, 0xc1, 0xc7, 0xdd, 0xdf, 0xfe, 0xff,
];

fn damage(chance: &mut Chance, good: &[Vec<u8>], out: &mut Vec<u8>) {
    let first = &good[chance.below(good.len())];
    out.clear();
    out.extend_from_slice(first);
    for _ in 0..=chance.below(4) {
        let at = HEADER + chance.below(out.len().saturating_sub(HEADER));
        if at >= out.len() {
            out.push(chance.below(256) as u8);
            continue;
        }
        match chance.below(8) {
            0 | 1 => out[at] ^= 1 << chance.below(8),
            2 => out[at] = ODD[chance.below(ODD.len())],
            3 => out[at] = chance.below(256) as u8,
            4 => out.insert(at, ODD[chance.below(ODD.len())]),
            5 => drop(out.drain(at..(at + 1 + chance.below(4)).min(out.len()))),
            6 => {
                // A part again, so that counts may come true.
                let end = (at + 1 + chance.below(40)).min(out.len());
                out.extend_from_within(at..end);
            }
            _ => {
                // The rest from another file.
                let other = &good[chance.below(good.len())];
                let from = HEADER + chance.below(other.len() - HEADER + 1);
                out.truncate(at);
                out.extend_from_slice(&other[from.min(other.len())..]);
            }
        }
    }
    match chance.below(16) {
        // As it came: the checksum finds it.
        0 => {}
        // The header itself.
        1 => {
            let at = chance.below(HEADER);
            out[at] = chance.below(256) as u8;
        }
        2 => {
            out[5] = chance.below(11) as u8;
            seal(out, 0);
        }
        _ => seal(out, 0),
    }
}

fn executions() -> u64 {
    match std::env::var("SAYIIR_FUZZ_EXECUTIONS") {
        Ok(number) => number.parse().unwrap(),
        Err(_) => EACH_CHANGE,
    }
}

/// After how long to stop, however many are left.
fn patience() -> Duration {
    match std::env::var("SAYIIR_FUZZ_SECONDS") {
        Ok(number) => Duration::from_secs(number.parse().unwrap()),
        Err(_) => Duration::MAX,
    }
}

fn seed() -> u64 {
    match std::env::var("SAYIIR_FUZZ_SEED") {
        Ok(number) => number.parse().unwrap(),
        Err(_) => std::process::id().into(),
    }
}

/// Feeds damaged files to `read`, which says whether they were read; bounds what it may hold.
fn fuzz(target: &str, kinds: &[u8], most: usize, read: impl Fn(&[u8]) -> bool) {
    let (good, seed, most_executions) = (corpus(kinds), seed(), executions());
    let mut bytes = Vec::with_capacity(1 << 16);
    let (mut taken, mut worst, mut count) = (0u64, 0usize, 0u64);
    let (began, patience) = (Instant::now(), patience());
    for number in 0..most_executions {
        if number >= EACH_CHANGE && number % 1_000 == 0 && began.elapsed() > patience {
            break;
        }
        count += 1;
        // Each execution has a seed of its own, so that one alone can be brought back.
        let own = (seed << 32 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        damage(&mut Chance(own), &good, &mut bytes);
        let (held, read) = peak(|| std::panic::catch_unwind(AssertUnwindSafe(|| read(&bytes))));
        let Ok(was_read) = read else {
            panic!(
                "{target}: execution {number} of SAYIIR_FUZZ_SEED={seed} panicked on {bytes:02x?}"
            );
        };
        assert!(
            held <= FLOOR + most * bytes.len(),
            "{target}: execution {number} of SAYIIR_FUZZ_SEED={seed} held {held} bytes for {}",
            bytes.len()
        );
        taken += u64::from(was_read);
        worst = worst.max(held);
    }
    // Damage that never gets in, or always, would show nothing.
    assert!(
        0 < taken && taken < count,
        "{target}: {taken} of {count} were read"
    );
    if let Ok(folder) = std::env::var("SAYIIR_RESULTS") {
        let mut text = String::new();
        writeln!(
            text,
            "{{\"target\": \"{target}\", \"executions\": {count}, \"read\": {taken},"
        )
        .unwrap();
        writeln!(
            text,
            " \"most_bytes_held\": {worst}, \"panics\": 0, \"seed\": {seed},"
        )
        .unwrap();
        writeln!(text, " \"seconds\": {:.1}}}", began.elapsed().as_secs_f64()).unwrap();
        fs::create_dir_all(&folder).unwrap();
        fs::write(
            PathBuf::from(folder).join(format!("fuzz-{target}.json")),
            text,
        )
        .unwrap();
    }
}

fn refused<T>(result: &Result<T, Error>) -> bool {
    match result {
        Ok(_) => false,
        Err(Error::Format(_) | Error::Newer(_)) => true,
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn envelopes_and_composites() {
    let kinds = [kind::VALUE, kind::NAMED, kind::LIST, kind::BRANCH];
    fuzz("envelope", &kinds, 8, |bytes| {
        let opened = envelope::open(bytes);
        if refused(&opened) {
            return false;
        }
        let body = opened.unwrap().body;
        // Every reader, whatever the header says.
        let named = envelope::named_items(body);
        let list = envelope::list_items(body);
        let branch = envelope::branch_parts(body);
        let _ = (envelope::loop_result(bytes), envelope::as_text(bytes));
        let _ = envelope::describe(bytes);
        let items = Items::of(&bytes.into());
        if let Ok(Some(items)) = &items {
            for at in 0..items.len().min(100) {
                let _ = items.get(at);
            }
        }
        !(refused(&named) && refused(&list) && refused(&branch) && refused(&items))
    });
}

#[test]
fn positions() {
    // A position of few bytes is nested boxes: 40 bytes for one of input.
    fuzz("position", &[kind::CELL], 40, |bytes| {
        let read = Cell::decode(bytes);
        if let Ok(cell) = &read {
            assert_eq!(Cell::decode(&cell.encode()).as_ref(), Ok(cell));
        }
        !refused(&read)
    });
}

#[test]
fn definitions_and_items() {
    fuzz(
        "definition",
        &[kind::DEFINITION, kind::ITEMS],
        160,
        |bytes| {
            let read = decode_definition(bytes);
            if let Ok(def) = &read {
                assert_eq!(decode_definition(&encode_definition(def)).as_ref(), Ok(def));
            }
            !refused(&read)
        },
    );
}

#[test]
fn error_records() {
    fuzz("error-record", &[kind::ERROR], 16, |bytes| {
        let read = ErrorRecord::decode(bytes);
        if let Ok(record) = &read {
            assert_eq!(ErrorRecord::decode(&record.encode()).as_ref(), Ok(record));
        }
        !refused(&read)
    });
}
