//! Rows on their way out of the file, each with its check: what is damaged is said, never shown.

use rusqlite::Row;
use rusqlite::types::ToSql;
use sayiir_core::state::{Outcome, StepRow};

use super::books::{Asked, bytes};
use super::statements as sql;
use super::*;
use crate::contract::{HistoryRow, InstanceRow};
use crate::listed::{read_list, status_of};

/// An instance row as the statement `row_of!` reads it.
pub(super) struct FullRow {
    instance: i64,
    row: InstanceRow,
    sealed: bool,
    result: Option<Bytes>,
    result_seq: Option<i64>,
}

pub(super) fn hash_of(row: &Row<'_>, column: usize) -> rusqlite::Result<Hash> {
    row.get(column)
}

pub(super) fn full_row(row: &Row<'_>) -> rusqlite::Result<FullRow> {
    let text = |column: usize| row.get::<_, Option<Arc<str>>>(column);
    let instance: i64 = row.get(0)?;
    let now = status_of(row.get(4)?);
    let asked = Asked::read(row.get(12)?);
    let shows_parking = matches!(
        now,
        Status::Waiting | Status::AwaitingSignal | Status::Paused
    );
    let updated_us = row.get(6)?;
    let id: Arc<str> = row.get(1)?;
    let result_seq: Option<i64> = row.get(23)?;
    let check = seal::Position {
        instance,
        id: &id,
        definition: row.get(26)?,
        next_seq: row.get(20)?,
        next_strand: row.get(21)?,
        cells_from: row.get(22)?,
        result_seq,
    }
    .seal();
    let number: i64 = row.get(4)?;
    let steps: i64 = row.get(19)?;
    let priority: i64 = row.get(16)?;
    let fits = (0..=6).contains(&number)
        && (number == Status::Cancelled as i64) == (asked == Some(Asked::Cancelled))
        && (number == Status::Paused as i64) == (asked == Some(Asked::Paused))
        && steps >= 0
        && (1..=5).contains(&priority);
    let parked = |value: Option<Arc<str>>| value.filter(|_| shows_parking);
    Ok(FullRow {
        instance,
        sealed: fits && check == row.get::<_, i64>(24)?,
        result: bytes(row, 25)?,
        result_seq,
        row: InstanceRow {
            id,
            workflow: row.get(2)?,
            hash: hash_of(row, 3)?,
            status: now,
            created_us: row.get(5)?,
            updated_us,
            ended_us: now.is_terminal().then_some(updated_us),
            start_at_us: row.get(7)?,
            wake_at_us: row.get::<_, Option<i64>>(8)?.filter(|_| shows_parking),
            delay_id: parked(text(9)?),
            signal_id: parked(text(10)?),
            signal_name: parked(text(11)?),
            reason: text(13)?.filter(|_| asked.is_some()),
            by: text(14)?.filter(|_| asked.is_some()),
            output: None,
            error: None,
            needs: (
                read_list(row.get_ref(15)?.as_str()?),
                u8::try_from(priority).unwrap_or(u8::MAX),
            ),
            worker: text(17)?,
            fence: row.get::<_, i64>(18)? as u64,
            steps: u32::try_from(steps).unwrap_or(u32::MAX),
        },
    })
}

impl FullRow {
    /// The row, or what is wrong with it.
    pub(super) fn checked(mut self, trouble: &Trouble) -> StoreResult<InstanceRow> {
        let id = &self.row.id;
        let has_result = matches!(self.row.status, Status::Completed | Status::Failed);
        let lost = (has_result || self.result_seq.is_some()) && self.result.is_none();
        if !self.sealed || lost {
            return Err(StoreError::Format(trouble.say(&format!(
                "the row of instance '{id}' ({}) is damaged; restore a copy of the file, or delete the instance",
                self.instance
            ))));
        }
        match self.row.status {
            Status::Completed => self.row.output = self.result,
            Status::Failed => self.row.error = self.result,
            _ => {}
        }
        Ok(self.row)
    }
}

/// A step row with its worker, and whether its check holds.
pub(super) fn step_of(instance: i64, row: &Row<'_>) -> rusqlite::Result<(HistoryRow, bool)> {
    let outcome = match row.get::<_, i64>(4)? {
        0 => Outcome::Completed,
        1 => Outcome::Retried,
        3 => Outcome::Elapsed,
        _ => Outcome::Failed,
    };
    let step = StepRow {
        seq: row.get(0)?,
        path: row.get(1)?,
        name: row.get(2)?,
        attempt: row.get(3)?,
        outcome,
        output: bytes(row, 5)?,
        error: bytes(row, 6)?,
        started_us: row.get(7)?,
        ended_us: row.get(8)?,
    };
    let sealed = seal::step(instance, &step) == row.get::<_, i64>(10)?;
    let worker = row.get(9)?;
    Ok((HistoryRow { step, worker }, sealed))
}

impl Books {
    pub(super) fn sealed_step(
        &self,
        id: &str,
        (row, sealed): (HistoryRow, bool),
    ) -> StoreResult<HistoryRow> {
        if sealed {
            return Ok(row);
        }
        Err(StoreError::Format(self.trouble.say(&format!(
            "step row {} of instance '{id}' is damaged; restore a copy of the file, or delete the instance",
            row.step.seq
        ))))
    }

    pub(super) fn read_input(&self, instance: i64) -> StoreResult<Option<Bytes>> {
        let found = self.one(&sql::INPUT, [instance], |row| {
            let sealed = seal::input(instance) == row.get::<_, i64>(1)?;
            Ok(bytes(row, 0)?.filter(|_| sealed))
        })?;
        Ok(found.flatten())
    }

    pub(super) fn read_step(
        &self,
        instance: i64,
        id: &str,
        seq: u32,
    ) -> StoreResult<Option<StepRow>> {
        let params: [&dyn ToSql; 2] = [&instance, &seq];
        match self.one(&sql::CLAIM_ROW, params, |row| step_of(instance, row))? {
            Some(found) => Ok(Some(self.sealed_step(id, found)?.step)),
            None => Ok(None),
        }
    }
}
