//! Checks that tie a row to its key, so that a flipped bit in a page is met and never believed.
//!
//! The blobs carry checksums of their own; these cover what stands beside them: numbers, and for a
//! step its path. A damaged number could otherwise lend one step's result to another.

use sayiir_core::state::StepRow;

fn crc(numbers: &[u64], texts: &[&str]) -> i64 {
    let mut hasher = crc32fast::Hasher::new();
    for number in numbers {
        hasher.update(&number.to_le_bytes());
    }
    for text in texts {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    i64::from(hasher.finalize())
}

/// Of an instance row: its position, and where its result is.
pub fn position(
    instance: i64,
    next_seq: u32,
    next_strand: u32,
    cells_from: Option<u32>,
    result_seq: Option<u32>,
) -> i64 {
    let or_none = |number: Option<u32>| number.map_or(u64::MAX, u64::from);
    crc(
        &[
            instance as u64,
            u64::from(next_seq),
            u64::from(next_strand),
            or_none(cells_from),
            or_none(result_seq),
        ],
        &[],
    )
}

/// Of the input of an instance.
pub fn input(instance: i64) -> i64 {
    crc(&[instance as u64], &["input"])
}

/// Of a child strand's cell.
pub fn cell(instance: i64, strand: u32) -> i64 {
    crc(&[instance as u64, u64::from(strand)], &["cell"])
}

/// Of a step row.
pub fn step(instance: i64, row: &StepRow) -> i64 {
    crc(
        &[
            instance as u64,
            u64::from(row.seq),
            u64::from(row.attempt),
            row.outcome as u64,
            u64::from(row.output.is_some()),
        ],
        &[&row.path, &row.name],
    )
}
