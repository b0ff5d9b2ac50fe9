//! One connection and what is true of its current transaction.
//!
//! Everything the contract's calls have in common: running statements, the counters, leases that run
//! out, and the ways an instance changes when nobody holds it. A call checks everything before it
//! writes anything, so a refused call leaves no trace in the transaction it shares with others; when
//! the database itself is in trouble, the transaction is rolled back as a whole by whoever began it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::types::ToSql;
use rusqlite::{Connection, Params, Row};
use sayiir_core::Bytes;
use sayiir_core::state::{EVERY_GROUP, StrandId};

use super::statements::{self as sql, Statement};
use super::trouble::Trouble;
use super::{Settings, seal};
use crate::contract::{AGEING_US, Hash, Status, StoreError, StoreResult};
use crate::fail::FailPoint;
use crate::listed::{read_list, status_of};
use crate::port::Hint;

/// Numbers that are never used again.
#[derive(Debug, Clone, Copy, Default)]
struct Counters {
    instance: i64,
    fence: i64,
}

/// What one transaction knows.
#[derive(Debug, Default)]
pub(super) struct Now {
    counters: Option<Counters>,
    counters_changed: bool,
    pub(super) earliest_look_us: Option<i64>,
    /// Definitions that this transaction wrote; they are known for good once it is committed.
    definitions: Vec<(Hash, i64)>,
}

/// See the module's opening.
pub struct Books {
    pub(super) conn: Connection,
    pub(super) trouble: Trouble,
    pub(super) settings: Settings,
    fail: FailPoint,
    pub(super) now: RefCell<Now>,
    definitions: RefCell<HashMap<Hash, i64>>,
    /// Instances that ended with this transaction, for whoever keeps caches.
    pub(super) ended: RefCell<Vec<Arc<str>>>,
    /// Others that have to hear of this transaction, for hints.
    pub(super) told: RefCell<Vec<(Hint, Arc<str>)>>,
    pub(super) swept_us: Cell<i64>,
    busy: Cell<bool>,
    pub(super) reads_only: bool,
}

/// What decides how a free instance goes on.
pub(super) struct Control {
    pub instance: i64,
    pub id: Arc<str>,
    pub status: Status,
    pub fence: u64,
    pub held: bool,
    pub asked: Option<Asked>,
    pub resume: Option<Status>,
    pub wake_us: Option<i64>,
    pub awaits: Option<String>,
}

/// A request and how far it got; the numbers are the column's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    PausePending = 1,
    CancelPending = 2,
    Paused = 3,
    Cancelled = 4,
}

impl Asked {
    pub fn read(number: Option<i64>) -> Option<Self> {
        match number {
            Some(1) => Some(Self::PausePending),
            Some(2) => Some(Self::CancelPending),
            Some(3) => Some(Self::Paused),
            Some(4) => Some(Self::Cancelled),
            _ => None,
        }
    }

    /// `Some(true)`: a cancel is pending; `Some(false)`: a pause is.
    pub fn pending(asked: Option<Self>) -> Option<bool> {
        match asked {
            Some(Self::PausePending) => Some(false),
            Some(Self::CancelPending) => Some(true),
            _ => None,
        }
    }
}

/// How an instance ends.
pub(super) struct End<'a> {
    pub definition: i64,
    pub status: Status,
    pub fence: u64,
    pub result_seq: Option<i64>,
    pub result: Option<&'a [u8]>,
    pub next_seq: i64,
    pub next_strand: i64,
    pub steps: usize,
    /// Whether there may be rows of its cells, and of events for it.
    pub cells: bool,
    pub events: bool,
    /// Which item it is, if it is one.
    pub kin: Option<(i64, StrandId)>,
}

impl Books {
    pub fn new(conn: Connection, path: &str, settings: Settings, reads_only: bool) -> Self {
        conn.set_prepared_statement_cache_capacity(256);
        Self {
            conn,
            trouble: Trouble::of(path),
            settings,
            fail: FailPoint::from_environment(),
            now: RefCell::default(),
            definitions: RefCell::default(),
            ended: RefCell::default(),
            told: RefCell::default(),
            swept_us: Cell::new(i64::MIN),
            busy: Cell::new(false),
            reads_only,
        }
    }

    // Statements.

    fn of(&self, error: rusqlite::Error) -> StoreError {
        self.busy.set(Trouble::is_busy(&error));
        self.trouble.of_error(&error)
    }

    /// Whether the last error was a lock that another process held.
    pub fn was_busy(&self) -> bool {
        self.busy.get()
    }

    /// Syncs the log. A checkpoint would only do so where no reader is in its way.
    pub fn sync_log(&self) -> std::io::Result<()> {
        // No lock is kept on this file, so closing a descriptor of it gives none up.
        match std::fs::File::open(format!("{}-wal", self.trouble.path())) {
            Ok(log) => log.sync_data(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Executes a statement; how many rows it changed.
    pub(super) fn run(&self, statement: &Statement, params: impl Params) -> StoreResult<usize> {
        self.fail.pass(statement.name, "before");
        let changed = self
            .conn
            .prepare_cached(statement.sql)
            .and_then(|mut prepared| prepared.execute(params))
            .map_err(|e| self.of(e))?;
        self.fail.pass(statement.name, "after");
        Ok(changed)
    }

    /// The first row of a query, if there is one.
    pub(super) fn one<T>(
        &self,
        statement: &Statement,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> StoreResult<Option<T>> {
        self.fail.pass(statement.name, "before");
        let mut prepared = self
            .conn
            .prepare_cached(statement.sql)
            .map_err(|e| self.of(e))?;
        let mut rows = prepared.query(params).map_err(|e| self.of(e))?;
        let found = match rows.next().map_err(|e| self.of(e))? {
            Some(row) => Some(read(row).map_err(|e| self.of(e))?),
            None => None,
        };
        drop(rows);
        self.fail.pass(statement.name, "after");
        Ok(found)
    }

    /// All rows of a query.
    pub(super) fn all<T>(
        &self,
        statement: &Statement,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> StoreResult<Vec<T>> {
        self.fail.pass(statement.name, "before");
        let found = self
            .conn
            .prepare_cached(statement.sql)
            .and_then(|mut prepared| prepared.query_map(params, read)?.collect())
            .map_err(|e| self.of(e))?;
        self.fail.pass(statement.name, "after");
        Ok(found)
    }

    // Transactions.

    /// Begins; a writing one waits its turn among all processes.
    pub fn begin(&self, write: bool) -> StoreResult<()> {
        *self.now.borrow_mut() = Now::default();
        self.ended.borrow_mut().clear();
        self.told.borrow_mut().clear();
        let statement = if write {
            &sql::BEGIN_WRITE
        } else {
            &sql::BEGIN_READ
        };
        self.run(statement, []).map(drop)
    }

    /// Makes everything since `begin` durable.
    pub fn commit(&self) -> StoreResult<()> {
        let (changed, counters) = {
            let now = self.now.borrow();
            (now.counters_changed, now.counters)
        };
        if let (true, Some(counters)) = (changed, counters) {
            self.run(&sql::COUNTERS_SAVE, [counters.instance, counters.fence])?;
        }
        self.run(&sql::COMMIT, [])?;
        let fresh = std::mem::take(&mut self.now.borrow_mut().definitions);
        self.definitions.borrow_mut().extend(fresh);
        Ok(())
    }

    /// Undoes everything since `begin`.
    pub fn rollback(&self) {
        if !self.conn.is_autocommit() {
            // Where this fails too, closing the connection or the file's recovery does it.
            let _ = self.run(&sql::ROLLBACK, []);
        }
        *self.now.borrow_mut() = Now::default();
        self.ended.borrow_mut().clear();
        self.told.borrow_mut().clear();
    }

    fn counter(&self, step: impl FnOnce(&mut Counters) -> i64) -> StoreResult<i64> {
        if self.now.borrow().counters.is_none() {
            let read = self.one(&sql::COUNTERS, [], |row| {
                Ok(Counters {
                    instance: row.get(0)?,
                    fence: row.get(1)?,
                })
            })?;
            self.now.borrow_mut().counters = Some(read.ok_or_else(|| {
                StoreError::Format(self.trouble.say("its table of counters is empty"))
            })?);
        }
        let mut now = self.now.borrow_mut();
        now.counters_changed = true;
        Ok(now.counters.as_mut().map_or(0, step))
    }

    pub(super) fn next_instance(&self) -> StoreResult<i64> {
        self.counter(|counters| {
            counters.instance += 1;
            counters.instance
        })
    }

    pub(super) fn next_fence(&self) -> StoreResult<u64> {
        let fence = self.counter(|counters| {
            counters.fence += 1;
            counters.fence
        })?;
        Ok(fence as u64)
    }

    // Definitions.

    pub(super) fn definition(&self, hash: &Hash) -> StoreResult<Option<i64>> {
        if let Some(known) = self.definitions.borrow().get(hash) {
            return Ok(Some(*known));
        }
        let found: Option<i64> = self.one(&sql::DEFINITION, [&hash[..]], |row| row.get(0))?;
        if let Some(found) = found {
            // Rows of definitions are never deleted, but this one may be of this transaction.
            self.now.borrow_mut().definitions.push((*hash, found));
        }
        Ok(found)
    }

    pub(super) fn definition_or_new(
        &self,
        hash: &Hash,
        workflow: &str,
        tree: &[u8],
        now_us: i64,
    ) -> StoreResult<i64> {
        if let Some(known) = self.definition(hash)? {
            return Ok(known);
        }
        let params: [&dyn ToSql; 4] = [&&hash[..], &workflow, &tree, &now_us];
        let fresh: i64 = self
            .one(&sql::DEFINITION_NEW, params, |row| row.get(0))?
            .unwrap_or_default();
        self.now.borrow_mut().definitions.push((*hash, fresh));
        Ok(fresh)
    }

    // Instances that nobody holds.

    pub(super) fn control(&self, instance: i64) -> StoreResult<Option<Control>> {
        self.one(&sql::CONTROL, [instance], |row| {
            Ok(Control {
                instance: row.get(0)?,
                id: row.get::<_, Arc<str>>(1)?,
                status: status_of(row.get(2)?),
                fence: row.get::<_, i64>(3)? as u64,
                held: row.get::<_, Option<i64>>(4)?.is_some(),
                asked: Asked::read(row.get(5)?),
                resume: row.get::<_, Option<i64>>(6)?.map(status_of),
                wake_us: row.get(7)?,
                awaits: row.get(8)?,
            })
        })
    }

    /// Gives a lease back and lets a pending request take effect.
    pub(super) fn let_go(&self, instance: i64, now_us: i64) -> StoreResult<()> {
        self.run(&sql::LET_GO, [instance])?;
        let Some(control) = self.control(instance)? else {
            return Ok(());
        };
        if self.settle(&control, now_us)? {
            return Ok(());
        }
        self.place(&control, control.status, now_us)
    }

    /// A pending cancel or pause of an instance that nobody holds takes effect; whether there was
    /// one.
    pub(super) fn settle(&self, control: &Control, now_us: i64) -> StoreResult<bool> {
        let Some(cancel) = Asked::pending(control.asked) else {
            return Ok(false);
        };
        let fence = self.next_fence()?;
        if cancel {
            let (definition, next_seq, next_strand) = self.numbers(control.instance)?;
            let end = End {
                definition,
                status: Status::Cancelled,
                fence,
                result_seq: None,
                result: None,
                next_seq,
                next_strand,
                steps: 0,
                cells: true,
                events: true,
                kin: self.kin(control.instance)?,
            };
            self.finish(control.instance, &control.id, &end, now_us)?;
            self.give_up(control.instance, &control.id, EVERY_GROUP, now_us)?;
        } else {
            let params: [&dyn ToSql; 4] = [
                &control.instance,
                &(fence as i64),
                &now_us,
                &(control.status as u8),
            ];
            self.run(&sql::PAUSED, params)?;
        }
        Ok(true)
    }

    /// Puts an instance that nobody holds where its status says: a parked one whose time or event
    /// has come is ready.
    pub(super) fn place(&self, control: &Control, status: Status, now_us: i64) -> StoreResult<()> {
        if !matches!(status, Status::Waiting | Status::AwaitingSignal) {
            return Ok(());
        }
        let due = control.wake_us.filter(|at| *at <= now_us);
        if due.is_some() || self.has_awaited_event(&control.id, control.awaits.as_deref())? {
            self.run(
                &sql::PLACE,
                [
                    control.instance,
                    i64::from(Status::InProgress as u8),
                    due.unwrap_or(now_us),
                ],
            )?;
        }
        Ok(())
    }

    fn has_awaited_event(&self, id: &str, awaits: Option<&str>) -> StoreResult<bool> {
        for name in awaits.map(read_list).unwrap_or_default().iter() {
            if self
                .one(&sql::EVENT_BUFFERED, [id, name], |_| Ok(()))?
                .is_some()
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Definition, and next free numbers.
    fn numbers(&self, instance: i64) -> StoreResult<(i64, i64, i64)> {
        let found = self.one(&sql::NUMBERS, [instance], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?;
        Ok(found.unwrap_or_default())
    }

    /// The end of an instance, however it came.
    pub(super) fn finish(
        &self,
        instance: i64,
        id: &Arc<str>,
        end: &End<'_>,
        now_us: i64,
    ) -> StoreResult<()> {
        let asked = (end.status == Status::Cancelled).then_some(Asked::Cancelled as u8);
        let check = seal::Position {
            instance,
            id,
            definition: end.definition,
            next_seq: end.next_seq,
            next_strand: end.next_strand,
            cells_from: None,
            result_seq: end.result_seq,
        }
        .seal();
        // What ended long ago goes by this time; an item goes when its parent does.
        let ended_us = end.kin.is_none().then_some(now_us);
        let params: [&dyn ToSql; 12] = [
            &instance,
            &(end.status as u8),
            &(end.fence as i64),
            &now_us,
            &asked,
            &end.result_seq,
            &end.result,
            &end.next_seq,
            &end.next_strand,
            &(end.steps as i64),
            &check,
            &ended_us,
        ];
        self.run(&sql::FINISH, params)?;
        if end.cells {
            self.run(&sql::DELETE_CELLS, [instance])?;
        }
        if end.events {
            self.run(&sql::DELETE_EVENTS, [id])?;
        }
        self.ended.borrow_mut().push(Arc::clone(id));
        if let Some(kin) = end.kin {
            self.item_ended(kin, end.status != Status::Completed, now_us)?;
        }
        Ok(())
    }
}

/// Bytes of a column.
pub(super) fn bytes(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Bytes>> {
    Ok(row
        .get_ref(column)?
        .as_blob_or_null()
        .map_err(|_| rusqlite::Error::InvalidQuery)?
        .map(Bytes::from))
}

/// The place in the ready queue that a priority is worth.
pub(super) fn priority_us(priority: u8) -> i64 {
    i64::from(priority.saturating_sub(1)) * AGEING_US
}
