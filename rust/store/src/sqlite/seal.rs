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

/// What the check of an instance row covers: whose row it is, its position, and where its result is.
#[derive(Debug, Clone, Copy)]
pub struct Position<'a> {
    pub instance: i64,
    pub id: &'a str,
    pub definition: i64,
    pub next_seq: i64,
    pub next_strand: i64,
    pub cells_from: Option<i64>,
    pub result_seq: Option<i64>,
}

impl Position<'_> {
    /// The check.
    pub fn seal(&self) -> i64 {
        let or_none = |number: Option<i64>| number.unwrap_or(i64::MIN) as u64;
        crc(
            &[
                self.instance as u64,
                self.definition as u64,
                self.next_seq as u64,
                self.next_strand as u64,
                or_none(self.cells_from),
                or_none(self.result_seq),
            ],
            &[self.id],
        )
    }
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
            row.started_us as u64,
            row.ended_us as u64,
            u64::from(row.output.is_some()),
        ],
        &[&row.path, &row.name],
    )
}
