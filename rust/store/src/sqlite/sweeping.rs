//! Removing instances, and what is no longer kept, a transaction's worth at a time.

use super::books::Control;
use super::statements as sql;
use super::*;

/// A step row's history is deleted in pieces of this many.
pub(super) const SWEEP_STEPS: i64 = 1_000;
/// Busy writers sweep this often, µs.
const SWEEP_PAUSE_US: i64 = 10_000;
/// So many ended instances, pieces of garbage or early events go with one transaction.
const SWEEP_ROWS: i64 = 64;

impl Books {
    /// Removes an instance and all that belongs to it. A long history goes a piece at a time, and so do
    /// more than `items` items.
    pub(super) fn erase(&self, control: &Control, items: i64, now_us: i64) -> StoreResult<()> {
        let instance = control.instance;
        let items_left = self.leave_family(control, items, now_us)?;
        self.run(&sql::DELETE_INSTANCE, [instance])?;
        self.run(&sql::DELETE_INPUT, [instance])?;
        self.run(&sql::DELETE_CELLS, [instance])?;
        self.run(&sql::DELETE_EVENTS, [&control.id])?;
        if !self.sweep_steps(instance)? || items_left {
            self.run(&sql::GARBAGE_NEW, [instance])?;
        }
        Ok(())
    }

    /// Deletes a piece of the history of a deleted instance; whether that was all.
    fn sweep_steps(&self, instance: i64) -> StoreResult<bool> {
        let gone = self.run(&sql::GARBAGE_STEPS, [instance, SWEEP_STEPS])?;
        Ok((gone as i64) < SWEEP_STEPS)
    }

    /// As [`Books::sweep`], but not with every one of many transactions in a row.
    pub fn sweep_sometimes(&self, now_us: i64) -> StoreResult<()> {
        let since = now_us.saturating_sub(self.swept_us.get());
        if (0..SWEEP_PAUSE_US).contains(&since) {
            return Ok(());
        }
        self.swept_us.set(now_us);
        self.sweep(now_us).map(drop)
    }

    /// Removes a little of what is no longer kept. Every piece is a transaction's worth, and a crash
    /// between two of them costs nothing. Whether there is more to do.
    pub fn sweep(&self, now_us: i64) -> StoreResult<bool> {
        let mut more = false;
        if let Some(keep_us) = self.settings.keep_completed_us {
            let old: Vec<i64> = self.all(
                &sql::ENDED_LONG_AGO,
                [now_us.saturating_sub(keep_us), SWEEP_ROWS],
                |row| row.get(0),
            )?;
            more |= old.len() as i64 == SWEEP_ROWS;
            for instance in old {
                if let Some(control) = self.control(instance)? {
                    self.erase(&control, 0, now_us)?;
                }
            }
        }
        if let Some(instance) = self.one(&sql::GARBAGE, [], |row| row.get(0))? {
            let items_left = self.erase_items(instance, SWEEP_ROWS, now_us)?;
            if self.sweep_steps(instance)? && !items_left {
                self.run(&sql::GARBAGE_DONE, [instance])?;
            }
            more = true;
        }
        let forget_us = now_us.saturating_sub(self.settings.keep_orphans_us);
        let forgotten = self.run(&sql::EVENTS_FORGET, [forget_us, SWEEP_ROWS])?;
        Ok(more || forgotten as i64 == SWEEP_ROWS)
    }
}
