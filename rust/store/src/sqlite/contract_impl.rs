//! The storage contract, call by call, inside the transaction that the caller began.

use std::collections::HashMap;

use rusqlite::Row;
use rusqlite::types::ToSql;
use sayiir_core::event::Event;
use sayiir_core::policy::{Tags, covers};
use sayiir_core::state::{Commit, NO_CELLS, Next, Outcome, Parked, Reply, StepRow};

use super::books::{Asked, Control, End, bytes, priority_us, read_list, status, write_list};
use super::statements as sql;
use super::*;
use crate::contract::{
    Backlog, Claim, Claimant, ConflictPolicy, Filter, Hash, HistoryRow, InstanceRow, NewInstance,
    News, Page, Request, Status, Store, StoreError, StoreResult, Submitted,
};

/// An instance row as the statement `row_of!` reads it.
pub(super) struct FullRow {
    instance: i64,
    row: InstanceRow,
    sealed: bool,
    result: Option<Bytes>,
    result_seq: Option<i64>,
}

fn hash_of(row: &Row<'_>, column: usize) -> rusqlite::Result<Hash> {
    row.get(column)
}

pub(super) fn full_row(row: &Row<'_>) -> rusqlite::Result<FullRow> {
    let text = |column: usize| row.get::<_, Option<Arc<str>>>(column);
    let instance: i64 = row.get(0)?;
    let now = status(row.get(4)?);
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
fn step_of(instance: i64, row: &Row<'_>) -> rusqlite::Result<(HistoryRow, bool)> {
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

/// What a claim reads of its row, if the row's check holds.
struct ClaimView {
    cursor: Option<Bytes>,
    next_seq: u32,
    next_strand: u32,
    cells_from: Option<u32>,
    needs: (Tags, u8),
    has_events: bool,
}

fn claim_view(instance: i64, id: &str, row: &Row<'_>) -> rusqlite::Result<Option<ClaimView>> {
    let position = seal::Position {
        instance,
        id,
        definition: row.get(10)?,
        next_seq: row.get(3)?,
        next_strand: row.get(4)?,
        cells_from: row.get(5)?,
        result_seq: None,
    };
    if position.seal() != row.get::<_, i64>(8)? {
        return Ok(None);
    }
    Ok(Some(ClaimView {
        cursor: bytes(row, 2)?,
        next_seq: row.get(3)?,
        next_strand: row.get(4)?,
        cells_from: row.get(5)?,
        needs: (read_list(row.get_ref(6)?.as_str()?), row.get(7)?),
        has_events: row.get(9)?,
    }))
}

impl Books {
    fn not_found(id: &str) -> StoreError {
        StoreError::NotFound { id: id.into() }
    }

    fn find_id(&self, id: &str) -> StoreResult<i64> {
        self.one(&sql::FIND_ID, [id], |row| row.get(0))?
            .ok_or_else(|| Self::not_found(id))
    }

    fn known(&self, id: &str) -> StoreResult<Control> {
        self.control(self.find_id(id)?)?
            .ok_or_else(|| Self::not_found(id))
    }

    fn sealed_step(&self, id: &str, (row, sealed): (HistoryRow, bool)) -> StoreResult<HistoryRow> {
        if sealed {
            return Ok(row);
        }
        Err(StoreError::Format(self.trouble.say(&format!(
            "step row {} of instance '{id}' is damaged; restore a copy of the file, or delete the instance",
            row.step.seq
        ))))
    }

    fn refuse<T>(control: &Control, verb: &'static str, hint: &'static str) -> StoreResult<T> {
        Err(StoreError::InvalidState {
            id: Arc::clone(&control.id),
            status: control.status,
            verb,
            hint,
        })
    }

    fn conflict(
        &self,
        id: &Arc<str>,
        hash: &Hash,
        policy: ConflictPolicy,
    ) -> StoreResult<Option<(i64, Option<Box<InstanceRow>>)>> {
        let found = self.one(&sql::CONFLICT, [id], |row| {
            Ok((row.get::<_, i64>(0)?, hash_of(row, 1)?, status(row.get(2)?)))
        })?;
        let Some((instance, found, status)) = found else {
            return Ok(None);
        };
        if policy == ConflictPolicy::TerminateExisting {
            return Ok(Some((instance, None)));
        }
        if found != *hash {
            return Err(StoreError::DefinitionMismatch {
                id: Arc::clone(id),
                expected: *hash,
                found,
            });
        }
        match policy {
            ConflictPolicy::UseExisting => {
                let row = self
                    .one(&sql::ROW, [id], full_row)?
                    .ok_or_else(|| Self::not_found(id))?;
                Ok(Some((
                    instance,
                    Some(Box::new(row.checked(&self.trouble)?)),
                )))
            }
            _ => Err(StoreError::AlreadyExists {
                id: Arc::clone(id),
                status,
            }),
        }
    }

    fn create(&self, new: &NewInstance, now_us: i64) -> StoreResult<()> {
        let definition = self.definition_or_new(&new.hash, &new.workflow, &new.tree, now_us)?;
        let instance = self.next_instance()?;
        let start_at = new.start_at_us.filter(|at| *at > now_us);
        let status = if start_at.is_some() {
            Status::Waiting
        } else {
            Status::InProgress
        };
        let (tags, priority) = &new.needs;
        let tags = write_list(tags);
        let order = now_us.max(start_at.unwrap_or(0)) + priority_us(*priority);
        let check = seal::Position {
            instance,
            id: &new.id,
            definition,
            next_seq: 0,
            next_strand: 1,
            cells_from: None,
            result_seq: None,
        }
        .seal();
        let params: [&dyn ToSql; 10] = [
            &instance,
            &&*new.id,
            &definition,
            &(status as u8),
            priority,
            &tags,
            &order,
            &now_us,
            &start_at,
            &check,
        ];
        self.run(&sql::CREATE, params)?;
        let params: [&dyn ToSql; 3] = [&instance, &&new.input[..], &seal::input(instance)];
        self.run(&sql::INPUT_NEW, params)?;
        if self
            .one(&sql::EVENTS_EARLY, [&new.id], |_| Ok(()))?
            .is_some()
        {
            self.forget_early(&new.id, now_us)?;
            self.run(&sql::EVENTS_ADOPT, [&new.id])?;
            self.run(&sql::HAS_EVENTS, [instance])?;
        }
        Ok(())
    }

    /// Events that waited too long for this id are gone, even if nothing has swept them yet.
    fn forget_early(&self, id: &str, now_us: i64) -> StoreResult<()> {
        let forget_us = now_us.saturating_sub(self.settings.keep_orphans_us);
        let params: [&dyn ToSql; 2] = [&id, &forget_us];
        self.run(&sql::EVENTS_LATE, params).map(drop)
    }

    // Claiming.

    /// The worker's row, made or prolonged.
    fn lease_worker(&self, claimant: &Claimant, now_us: i64) -> StoreResult<i64> {
        let expires = now_us.saturating_add(claimant.lease_us);
        let params: [&dyn ToSql; 4] = [
            &&*claimant.worker,
            &claimant.lease_us,
            &expires,
            &self.look_us(expires, claimant.lease_us),
        ];
        self.leases_changed();
        let worker = self.one(&sql::WORKER_LEASE, params, |row| row.get(0))?;
        Ok(worker.unwrap_or_default())
    }

    fn lease(&self, instance: i64, worker: i64) -> StoreResult<Option<Claim>> {
        let view = self.one(&sql::CLAIM_VIEW, [instance], |row| {
            let id: Arc<str> = row.get(0)?;
            let hash = hash_of(row, 1)?;
            // Whatever else is wrong with the row is the damage of this instance alone.
            let rest = claim_view(instance, &id, row);
            Ok((id, hash, rest))
        })?;
        let Some((id, hash, rest)) = view else {
            return Ok(None);
        };
        let fence = self.next_fence()?;
        self.run(&sql::LEASE, [instance, fence as i64, worker])?;
        let mut claim = Claim {
            id,
            slot: instance as u64,
            fence,
            hash,
            stored: sayiir_core::advance::Stored {
                cursor: None,
                cells: Vec::new(),
                next_seq: 0,
                next_strand: 1,
            },
            needs: (Arc::new([]), sayiir_core::policy::DEFAULT_PRIORITY),
            carried: None,
            damage: None,
        };
        let loaded = match rest.unwrap_or_default() {
            Some(view) => {
                claim.stored.cursor = view.cursor;
                claim.stored.next_seq = view.next_seq;
                claim.stored.next_strand = view.next_strand;
                claim.needs = view.needs;
                self.load(instance, view.cells_from, view.has_events, &mut claim)
            }
            None => Err(StoreError::Format(
                self.trouble
                    .say("the position of this instance does not fit its row"),
            )),
        };
        match loaded {
            Ok(()) => {}
            // One instance is damaged, not the file: its holder sets it aside.
            Err(StoreError::Format(text)) => claim.damage = Some(text),
            Err(error) => return Err(error),
        }
        Ok(Some(claim))
    }

    /// Reads what the holder of a claim needs before it goes on.
    fn load(
        &self,
        instance: i64,
        cells_from: Option<u32>,
        has_events: bool,
        claim: &mut Claim,
    ) -> StoreResult<()> {
        let damaged = |what: &str| Err(StoreError::Format(self.trouble.say(what)));
        if let Some(from) = cells_from {
            let params: [&dyn ToSql; 2] = [&instance, &from];
            let cells = self.all(&sql::CELLS, params, |row| {
                let strand: u32 = row.get(0)?;
                let sealed = seal::cell(instance, strand) == row.get::<_, i64>(2)?;
                Ok((strand, bytes(row, 1)?.unwrap_or_default(), sealed))
            })?;
            for (strand, cell, sealed) in cells {
                if !sealed {
                    return damaged("a row of its cells is damaged");
                }
                claim.stored.cells.push((strand, cell));
            }
        }
        let input = self.read_input(instance)?;
        let Some(input) = input else {
            return damaged("its input is missing or damaged");
        };
        let mut rows = Vec::new();
        // Damaged cells are met, and reported, when the instance is taken up.
        for seq in sayiir_core::advance::Machine::referenced(&claim.stored).unwrap_or_default() {
            rows.extend(self.read_step(instance, &claim.id, seq)?);
        }
        let params: [&dyn ToSql; 2] = [&&*claim.id, &(CARRIED_EVENTS + 1)];
        let events = if !has_events {
            Vec::new()
        } else {
            self.all(&sql::BUFFERED, params, |row| {
                Ok(Event {
                    seq: row.get::<_, i64>(0)? as u64,
                    name: row.get(1)?,
                    payload: bytes(row, 2)?.unwrap_or_default(),
                })
            })?
        };
        if events.len() as i64 <= CARRIED_EVENTS {
            claim.carried = Some(Box::new(crate::contract::Carried {
                input,
                rows,
                events,
            }));
        }
        Ok(())
    }

    fn read_input(&self, instance: i64) -> StoreResult<Option<Bytes>> {
        let found = self.one(&sql::INPUT, [instance], |row| {
            let sealed = seal::input(instance) == row.get::<_, i64>(1)?;
            Ok(bytes(row, 0)?.filter(|_| sealed))
        })?;
        Ok(found.flatten())
    }

    fn read_step(&self, instance: i64, id: &str, seq: u32) -> StoreResult<Option<StepRow>> {
        let params: [&dyn ToSql; 2] = [&instance, &seq];
        match self.one(&sql::CLAIM_ROW, params, |row| step_of(instance, row))? {
            Some(found) => Ok(Some(self.sealed_step(id, found)?.step)),
            None => Ok(None),
        }
    }

    // Events.

    /// The oldest events for these names, as many per name as it is asked for.
    fn oldest(&self, id: &str, names: &[Arc<str>]) -> StoreResult<Vec<Event>> {
        let mut wanted: HashMap<&Arc<str>, i64> = HashMap::new();
        for name in names {
            *wanted.entry(name).or_default() += 1;
        }
        let mut events = Vec::new();
        for (name, count) in wanted {
            let params: [&dyn ToSql; 3] = [&id, &&**name, &count];
            events.extend(self.all(&sql::EVENTS_OLDEST, params, |row| {
                Ok(Event {
                    seq: row.get::<_, i64>(0)? as u64,
                    name: Arc::clone(name),
                    payload: bytes(row, 1)?.unwrap_or_default(),
                })
            })?);
        }
        events.sort_by_key(|event| event.seq);
        Ok(events)
    }

    // Requests.

    fn request(
        &self,
        id: &str,
        request: &Request,
        cancel: bool,
        now_us: i64,
    ) -> StoreResult<Status> {
        self.expire(now_us)?;
        let control = self.known(id)?;
        match control.status {
            Status::Cancelled if cancel => return Ok(Status::Cancelled),
            Status::Paused if !cancel => return Ok(Status::Paused),
            status if status.is_terminal() => {
                let verb = if cancel { "cancel" } else { "pause" };
                return Self::refuse(&control, verb, "; it has ended");
            }
            _ => {}
        }
        if Asked::pending(control.asked).is_some_and(|pending_cancel| pending_cancel || !cancel) {
            // The same was asked before, or a cancel is pending, which beats a pause.
            return Ok(control.status);
        }
        let asked = if cancel {
            Asked::CancelPending
        } else {
            Asked::PausePending
        };
        let resume = control.resume.unwrap_or(control.status);
        let params: [&dyn ToSql; 5] = [
            &control.instance,
            &(asked as u8),
            &(resume as u8),
            &request.reason.as_deref(),
            &request.by.as_deref(),
        ];
        self.run(&sql::ASK, params)?;
        if control.held {
            return Ok(control.status);
        }
        let asking = Control {
            asked: Some(asked),
            ..control
        };
        self.settle(&asking, now_us)?;
        Ok(if cancel {
            Status::Cancelled
        } else {
            Status::Paused
        })
    }

    // Checkpoints.

    fn park(&self, instance: i64, parked: &Parked) -> StoreResult<()> {
        let status = if parked.awaiting {
            Status::AwaitingSignal
        } else {
            Status::Waiting
        };
        let awaits = parked.awaiting.then(|| write_list(&parked.awaits));
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
            self.run(&sql::STEP_NEW, params)?;
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

    /// Ends an instance with its last checkpoint, which may leave cells and events over; `false` when this one is not the last. A result that
    /// a step row holds is not stored twice.
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
                        self.run(&sql::PLACE, [instance, i64::from(Status::InProgress as u8)])?;
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

impl Store for Books {
    fn submit(
        &self,
        batch: Vec<NewInstance>,
        policy: ConflictPolicy,
        now_us: i64,
    ) -> StoreResult<Vec<Submitted>> {
        self.expire(now_us)?;
        let mut found = Vec::with_capacity(batch.len());
        for new in &batch {
            found.push(self.conflict(&new.id, &new.hash, policy)?);
        }
        batch
            .iter()
            .zip(found)
            .map(|(new, found)| {
                match found {
                    Some((_, Some(row))) => return Ok(Submitted::Existing(row)),
                    Some((former, None)) => self.erase(former, &new.id)?,
                    None => {}
                }
                self.create(new, now_us)?;
                Ok(Submitted::Created)
            })
            .collect()
    }

    fn check_submit(
        &self,
        id: &str,
        hash: &Hash,
        policy: ConflictPolicy,
        now_us: i64,
    ) -> StoreResult<Option<Box<InstanceRow>>> {
        self.expire(now_us)?;
        Ok(self
            .conflict(&Arc::from(id), hash, policy)?
            .and_then(|(_, row)| row))
    }

    fn claim(
        &self,
        claimant: &Claimant,
        hashes: &[Hash],
        limit: usize,
        now_us: i64,
    ) -> StoreResult<Vec<Claim>> {
        self.expire(now_us)?;
        self.run(&sql::WAKE, [now_us])?;
        let mut heads: Vec<(i64, i64)> = Vec::new();
        for hash in hashes {
            let Some(definition) = self.definition(hash)? else {
                continue;
            };
            let mut group = String::new();
            loop {
                let params: [&dyn ToSql; 2] = [&definition, &group];
                let Some(next) = self.one(&sql::NEXT_GROUP, params, |row| row.get(0))? else {
                    break;
                };
                group = next;
                if !covers(claimant.tags.as_ref(), &read_list(&group)) {
                    continue;
                }
                let params: [&dyn ToSql; 3] = [&definition, &group, &(limit as i64)];
                heads.extend(self.all(&sql::HEADS, params, |row| Ok((row.get(0)?, row.get(1)?)))?);
            }
        }
        if heads.is_empty() {
            return Ok(Vec::new());
        }
        heads.sort_unstable();
        heads.truncate(limit);
        let worker = self.lease_worker(claimant, now_us)?;
        let mut claims = Vec::with_capacity(heads.len());
        for (_, instance) in heads {
            claims.extend(self.lease(instance, worker)?);
        }
        Ok(claims)
    }

    fn claim_one(
        &self,
        claimant: &Claimant,
        hashes: &[Hash],
        id: &str,
        now_us: i64,
    ) -> StoreResult<Option<Claim>> {
        self.expire(now_us)?;
        self.run(&sql::WAKE, [now_us])?;
        let free = self.one(&sql::FREE, [id], |row| {
            Ok((
                row.get::<_, i64>(0)?,
                read_list(row.get_ref(1)?.as_str()?),
                hash_of(row, 2)?,
            ))
        })?;
        let Some((instance, tags, hash)) = free else {
            self.find_id(id)?;
            return Ok(None);
        };
        if !covers(claimant.tags.as_ref(), &tags) || !hashes.contains(&hash) {
            return Ok(None);
        }
        let worker = self.lease_worker(claimant, now_us)?;
        self.lease(instance, worker)
    }

    fn renew(&self, worker: &str, lease_us: i64, now_us: i64) -> StoreResult<Vec<Arc<str>>> {
        self.expire(now_us)?;
        let expires = now_us.saturating_add(lease_us);
        let look = self.look_us(expires, lease_us);
        let params: [&dyn ToSql; 4] = [&worker, &lease_us, &expires, &look];
        self.run(&sql::RENEW, params)?;
        self.leases_changed();
        Ok(self
            .alerted(worker)?
            .into_iter()
            .filter(|alert| alert.request)
            .map(|alert| alert.id)
            .collect())
    }

    fn release(&self, worker: &str, now_us: i64) -> StoreResult<usize> {
        match self.one(&sql::WORKER_FIND, [worker], |row| row.get(0))? {
            Some(worker) => self.drop_worker(worker, now_us),
            None => Ok(0),
        }
    }

    fn give_back(&self, id: &str, fence: u64, now_us: i64) -> StoreResult<bool> {
        let held = match self.known(id) {
            Ok(control) => (control.fence == fence && control.held).then_some(control.instance),
            Err(StoreError::NotFound { .. }) => None,
            Err(error) => return Err(error),
        };
        match held {
            Some(instance) => {
                self.let_go(instance, now_us)?;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    fn commit(
        &self,
        slot: u64,
        id: &Arc<str>,
        fence: u64,
        commit: &Commit,
        now_us: i64,
    ) -> StoreResult<Reply> {
        self.apply(slot, id, fence, commit, now_us)
    }

    fn news(&self, id: &str, fence: u64, names: &[Arc<str>], now_us: i64) -> StoreResult<News> {
        self.expire(now_us)?;
        let params: [&dyn ToSql; 2] = [&id, &(fence as i64)];
        let asked = self.one(&sql::HOLDING, params, |row| Ok(Asked::read(row.get(0)?)))?;
        let Some(asked) = asked else {
            return Ok(News {
                lost: true,
                ..News::default()
            });
        };
        let pending = Asked::pending(asked);
        Ok(News {
            lost: false,
            cancel: pending == Some(true),
            pause: pending == Some(false),
            events: self.oldest(id, names)?,
        })
    }

    fn send_event(
        &self,
        id: &str,
        name: &str,
        payload: Bytes,
        key: Option<&str>,
        now_us: i64,
    ) -> StoreResult<bool> {
        self.expire(now_us)?;
        let control = match self.known(id) {
            Ok(control) => Some(control),
            Err(StoreError::NotFound { .. }) => None,
            Err(error) => return Err(error),
        };
        if let Some(control) = &control
            && control.status.is_terminal()
        {
            return Self::refuse(control, "send an event to", "; it has ended");
        }
        if control.is_none() {
            self.forget_early(id, now_us)?;
        }
        if let Some(key) = key
            && self
                .one(&sql::EVENT_KEY, [id, name, key], |_| Ok(()))?
                .is_some()
        {
            return Ok(false);
        }
        let early = i64::from(control.is_none());
        let params: [&dyn ToSql; 6] = [&id, &name, &key, &&payload[..], &now_us, &early];
        self.run(&sql::EVENT_NEW, params)?;
        if let Some(control) = control {
            self.run(&sql::HAS_EVENTS, [control.instance])?;
            if control.held {
                self.run(&sql::ALERT, [control.instance])?;
            } else if control.status == Status::AwaitingSignal {
                self.place(&control, control.status, now_us)?;
            }
        }
        Ok(true)
    }

    fn cancel(&self, id: &str, request: Request, now_us: i64) -> StoreResult<Status> {
        self.request(id, &request, true, now_us)
    }

    fn pause(&self, id: &str, request: Request, now_us: i64) -> StoreResult<Status> {
        self.request(id, &request, false, now_us)
    }

    fn unpause(&self, id: &str, now_us: i64) -> StoreResult<Status> {
        self.expire(now_us)?;
        let control = self.known(id)?;
        if control.status == Status::Paused {
            let resume = control.resume.unwrap_or(Status::InProgress);
            let params: [&dyn ToSql; 3] = [&control.instance, &(resume as u8), &now_us];
            self.run(&sql::UNPAUSE, params)?;
            self.place(&control, resume, now_us)?;
        } else if Asked::pending(control.asked) == Some(false) {
            // The pause has not taken effect yet: it is simply taken back.
            self.run(&sql::UNASK, [control.instance])?;
        } else {
            return Self::refuse(
                &control,
                "unpause",
                ", not paused; only a paused instance can be unpaused",
            );
        }
        Ok(self
            .control(control.instance)?
            .map_or(Status::InProgress, |control| control.status))
    }

    fn get(&self, id: &str, now_us: i64) -> StoreResult<InstanceRow> {
        self.expire(now_us)?;
        self.one(&sql::ROW, [id], full_row)?
            .ok_or_else(|| Self::not_found(id))?
            .checked(&self.trouble)
    }

    fn find(
        &self,
        filter: &Filter,
        limit: usize,
        before: Option<u64>,
        now_us: i64,
    ) -> StoreResult<Page> {
        self.expire(now_us)?;
        self.list(filter, limit, before)
    }

    fn history(&self, id: &str) -> StoreResult<Vec<HistoryRow>> {
        let instance = self.find_id(id)?;
        self.all(&sql::HISTORY, [instance], |row| step_of(instance, row))?
            .into_iter()
            .map(|row| self.sealed_step(id, row))
            .collect()
    }

    fn step(&self, id: &str, path_or_name: &str) -> StoreResult<Option<StepRow>> {
        let instance = self.find_id(id)?;
        let params: [&dyn ToSql; 2] = [&instance, &path_or_name];
        for by in [&sql::STEP_BY_PATH, &sql::STEP_BY_NAME] {
            if let Some(found) = self.one(by, params, |row| step_of(instance, row))? {
                return Ok(Some(self.sealed_step(id, found)?.step));
            }
        }
        Ok(None)
    }

    fn input(&self, id: &str) -> StoreResult<Bytes> {
        let instance = self.find_id(id)?;
        self.read_input(instance)?.ok_or_else(|| {
            StoreError::Format(
                self.trouble
                    .say(&format!("the input of instance '{id}' is damaged")),
            )
        })
    }

    fn rows(&self, id: &str, seqs: &[u32]) -> StoreResult<Vec<StepRow>> {
        let instance = self.find_id(id)?;
        let mut rows = Vec::with_capacity(seqs.len());
        for seq in seqs {
            rows.extend(self.read_step(instance, id, *seq)?);
        }
        Ok(rows)
    }

    fn delete(&self, id: &str, force: bool, now_us: i64) -> StoreResult<()> {
        self.expire(now_us)?;
        let control = self.known(id)?;
        if !control.status.is_terminal() && !force {
            return Self::refuse(
                &control,
                "delete",
                "; cancel it first, or delete it with force=True",
            );
        }
        self.erase(control.instance, id)
    }

    fn backlog(&self) -> StoreResult<Vec<Backlog>> {
        self.all(&sql::BACKLOG, [], |row| {
            Ok(Backlog {
                hash: hash_of(row, 0)?,
                workflow: row.get(1)?,
                tags: read_list(row.get_ref(2)?.as_str()?),
                ready: row.get::<_, i64>(3)? as usize,
            })
        })
    }

    fn next_wake_us(&self) -> StoreResult<Option<i64>> {
        Ok(self.one(&sql::NEXT_WAKE, [], |row| row.get(0))?.flatten())
    }
}
