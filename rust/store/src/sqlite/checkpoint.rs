//! One checkpoint: its steps, cells and consumed events, the new position, and what becomes of the
//! instance and of its lease, all under the fence.

use rusqlite::types::ToSql;
use sayiir_core::state::{Commit, NO_CELLS, Next, Parked, Reply, StepRow};

use super::books::{Asked, End, priority_us};
use super::statements as sql;
use super::*;
use crate::listed::write_list;

impl Books {
    fn park(&self, instance: i64, parked: &Parked) -> StoreResult<()> {
        let status = if parked.awaiting {
            Status::AwaitingSignal
        } else {
            Status::Waiting
        };
        let awaits = (!parked.awaits.is_empty()).then(|| write_list(&parked.awaits));
        let params: [&dyn ToSql; 7] = [
            &instance,
            &(status as u8),
            &parked.wake_at_us,
            &awaits,
            &parked.delay_id.as_deref(),
            &parked.signal_id.as_deref(),
            &parked.signal_name.as_deref(),
        ];
        self.run(&sql::PARK, params).map(drop)
    }

    pub(super) fn write_step(&self, instance: i64, row: &StepRow, worker: &str) -> StoreResult<()> {
        let params: [&dyn ToSql; 12] = [
            &instance,
            &row.seq,
            &&*row.path,
            &&*row.name,
            &row.attempt,
            &(row.outcome as u8),
            &worker,
            &row.started_us,
            &row.ended_us,
            &row.output.as_deref(),
            &row.error.as_deref(),
            &seal::step(instance, row),
        ];
        self.run(&sql::STEP_NEW, params).map(drop)
    }

    /// The steps, cells and events of a checkpoint.
    fn write_facts(
        &self,
        instance: i64,
        id: &str,
        worker: &str,
        before: Option<i64>,
        commit: &Commit,
    ) -> StoreResult<()> {
        for row in &commit.steps {
            self.write_step(instance, row, worker)?;
        }
        for (strand, cell) in &commit.cells {
            let params: [&dyn ToSql; 4] = [
                &instance,
                strand,
                &&cell[..],
                &seal::cell(instance, *strand),
            ];
            self.run(&sql::CELL_PUT, params)?;
        }
        if let Some(before) = before
            && i64::from(commit.cells_from) > before
        {
            // No later holder can refer to the ones below any more.
            self.run(&sql::CELLS_DROP, [instance, i64::from(commit.cells_from)])?;
        }
        for event in &commit.consumed {
            let params: [&dyn ToSql; 2] = [&(*event as i64), &id];
            if self.run(&sql::CONSUME, params)? == 0 {
                self.run(&sql::CONSUME_BARE, params)?;
            }
        }
        Ok(())
    }

    fn write_position(
        &self,
        (instance, definition): (i64, i64),
        id: &str,
        commit: &Commit,
        now_us: i64,
    ) -> StoreResult<()> {
        let cells_from = (commit.cells_from != NO_CELLS).then_some(commit.cells_from);
        let check = seal::Position {
            instance,
            id,
            definition,
            next_seq: i64::from(commit.next_seq),
            next_strand: i64::from(commit.next_strand),
            cells_from: cells_from.map(i64::from),
            result_seq: None,
        }
        .seal();
        let params: [&dyn ToSql; 8] = [
            &instance,
            &commit.cursor.as_deref(),
            &commit.next_seq,
            &commit.next_strand,
            &cells_from,
            &(commit.steps.len() as i64),
            &check,
            &now_us,
        ];
        self.run(&sql::POSITION, params)?;
        if let Some((tags, priority)) = &commit.needs {
            let tags = write_list(tags);
            let params: [&dyn ToSql; 4] = [&instance, &tags, priority, &priority_us(*priority)];
            self.run(&sql::NEEDS, params)?;
        }
        Ok(())
    }

    /// Ends an instance with its last checkpoint, which may leave cells and events over; `false` when
    /// this one is not the last. A result that a step row holds is not stored twice.
    fn end(
        &self,
        (instance, definition): (i64, i64),
        id: &Arc<str>,
        fence: u64,
        commit: &Commit,
        leftovers: (bool, bool),
        now_us: i64,
    ) -> StoreResult<bool> {
        let (status, result) = match &commit.next {
            Next::Completed(output) => (Status::Completed, output),
            Next::Failed(error) => (Status::Failed, error),
            _ => return Ok(false),
        };
        let same = commit
            .steps
            .iter()
            .rev()
            .find(|row| row.output.as_ref().or(row.error.as_ref()) == Some(result));
        let end = End {
            definition,
            status,
            fence,
            result_seq: same.map(|row| i64::from(row.seq)),
            result: same.is_none().then_some(&result[..]),
            next_seq: i64::from(commit.next_seq),
            next_strand: i64::from(commit.next_strand),
            steps: commit.steps.len(),
            cells: leftovers.0,
            events: leftovers.1,
            kin: if commit.item {
                self.kin(instance)?
            } else {
                None
            },
        };
        self.finish(instance, id, &end, now_us)?;
        Ok(true)
    }

    /// Applies one checkpoint; `slot` comes from the claim, 0 when it is not known.
    pub fn apply(
        &self,
        slot: u64,
        id: &Arc<str>,
        fence: u64,
        commit: &Commit,
        now_us: i64,
    ) -> StoreResult<Reply> {
        self.expire(now_us)?;
        let instance = match slot {
            0 => match self.find_id(id) {
                Ok(instance) => instance,
                Err(StoreError::NotFound { .. }) => return Ok(Reply::LeaseLost),
                Err(error) => return Err(error),
            },
            slot => slot as i64,
        };
        let view = self.one(&sql::COMMIT_VIEW, [instance], |row| {
            Ok((
                row.get::<_, i64>(1)? as u64,
                row.get::<_, Arc<str>>(2)?,
                Asked::read(row.get(3)?),
                row.get::<_, Option<i64>>(4)?,
                row.get::<_, i64>(5)? != 0,
                row.get::<_, i64>(6)?,
            ))
        })?;
        let Some((_, worker, asked, before, has_events, definition)) =
            view.filter(|(current, ..)| *current == fence)
        else {
            return Ok(Reply::LeaseLost);
        };
        let pending = Asked::pending(asked);
        self.write_facts(instance, id, &worker, before, commit)?;
        if let Some(family) = &commit.family {
            self.change_family(instance, id, fence, family, now_us)?;
        }
        let leftovers = (before.is_some() || !commit.cells.is_empty(), has_events);
        if self.end((instance, definition), id, fence, commit, leftovers, now_us)? {
            return Ok(Reply::Ok);
        }
        self.write_position((instance, definition), id, commit, now_us)?;
        match &commit.next {
            Next::Park(parked) => {
                if pending.is_none() {
                    let events = self.oldest(id, &parked.awaits)?;
                    if !events.is_empty() {
                        return Ok(Reply::Events(events));
                    }
                }
                self.park(instance, parked)?;
                if pending.is_none() {
                    if parked.wake_at_us.is_some_and(|at| at <= now_us) {
                        self.run(
                            &sql::PLACE,
                            [instance, i64::from(Status::InProgress as u8), now_us],
                        )?;
                    }
                    return Ok(Reply::Ok);
                }
            }
            Next::Hold if pending.is_none() => return Ok(Reply::Ok),
            Next::Hold if pending == Some(false) && !commit.quiescent => {
                return Ok(Reply::PausePending);
            }
            _ => {}
        }
        self.let_go(instance, now_us)?;
        Ok(match pending {
            None => Reply::Ok,
            Some(true) => Reply::Cancelled,
            Some(false) => Reply::Paused,
        })
    }
}
