//! Leases: when they are looked at, when they are suspected, and how they are taken back.

use super::statements as sql;
use super::*;

impl Books {
    /// When the first lease should be looked at.
    pub(super) fn earliest_look_us(&self) -> StoreResult<i64> {
        if let Some(known) = self.now.borrow().earliest_look_us {
            return Ok(known);
        }
        let earliest = self
            .one(&sql::EARLIEST, [], |row| row.get::<_, Option<i64>>(0))?
            .flatten()
            .unwrap_or(i64::MAX);
        self.now.borrow_mut().earliest_look_us = Some(earliest);
        Ok(earliest)
    }

    /// A lease was begun, prolonged or ended.
    pub(super) fn leases_changed(&self) {
        self.now.borrow_mut().earliest_look_us = None;
    }

    /// When a lease that was just given or prolonged has to be looked at: early enough for it to be
    /// taken back when it runs out. Where time stands with the caller, nobody is late by accident.
    pub(super) fn look_us(&self, expires_us: i64, lease_us: i64) -> i64 {
        if self.settings.own_clock {
            expires_us - lease_us / 3
        } else {
            expires_us
        }
    }

    /// Takes leases back from workers that were not renewed in time.
    ///
    /// A worker whose renewal is overdue is suspected first. It may only have waited for the lock, as
    /// whoever looks has not: so it has a third of its lease to come forward.
    pub(super) fn expire(&self, now_us: i64) -> StoreResult<()> {
        // The read lane only comes here when there is nothing to do.
        if self.reads_only || self.earliest_look_us()? > now_us {
            return Ok(());
        }
        if !self.settings.own_clock {
            for worker in self.all(&sql::RUN_OUT, [now_us], |row| row.get(0))? {
                self.drop_worker(worker, now_us)?;
            }
            return Ok(());
        }
        type Due = (i64, i64, i64, Option<i64>);
        let due: Vec<Due> = self.all(&sql::DUE, [now_us], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })?;
        for (worker, lease_us, expires_us, suspect_us) in due {
            if suspect_us.is_some() && expires_us <= now_us {
                self.drop_worker(worker, now_us)?;
            } else {
                let look_us = expires_us.max(now_us.saturating_add(lease_us / 3));
                self.run(&sql::SUSPECT, [worker, now_us, look_us])?;
            }
        }
        self.leases_changed();
        Ok(())
    }

    /// Gives back everything a worker holds; how much it was.
    pub(super) fn drop_worker(&self, worker: i64, now_us: i64) -> StoreResult<usize> {
        let held: Vec<i64> = self.all(&sql::HELD, [worker], |row| row.get(0))?;
        for instance in &held {
            self.let_go(*instance, now_us)?;
        }
        self.run(&sql::WORKER_DELETE, [worker])?;
        self.leases_changed();
        Ok(held.len())
    }

    /// Frees instances whose holder is no worker that is known: a row was damaged, since the two go
    /// together.
    pub fn free_orphans(&self, now_us: i64) -> StoreResult<()> {
        for instance in self.all(&sql::ORPHANS, [], |row| row.get::<_, i64>(0))? {
            self.let_go(instance, now_us)?;
        }
        Ok(())
    }
}
