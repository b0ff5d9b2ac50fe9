//! The storage contract, call by call, inside the transaction that the caller began.

use std::collections::HashMap;

use rusqlite::types::ToSql;
use sayiir_core::event::Event;
use sayiir_core::policy::covers;
use sayiir_core::snapshot::Snapshot;
use sayiir_core::state::{Commit, ItemEnd, Reply, StepRow, StrandId};

use super::books::{Asked, Control, bytes, priority_us};
use super::family::ERASE_ITEMS;
use super::reading::{full_row, hash_of, step_of};
use super::statements as sql;
use super::*;
use crate::contract::{
    Backlog, Claim, Claimant, ConflictPolicy, Filter, Hash, HistoryRow, InstanceRow, NewInstance,
    News, Page, Request, Status, Store, StoreError, StoreResult, Submitted,
};
use crate::listed::{read_list, status_of, write_list};

impl Books {
    fn not_found(id: &str) -> StoreError {
        StoreError::NotFound { id: id.into() }
    }

    pub(super) fn find_id(&self, id: &str) -> StoreResult<i64> {
        self.one(&sql::FIND_ID, [id], |row| row.get(0))?
            .ok_or_else(|| Self::not_found(id))
    }

    fn known(&self, id: &str) -> StoreResult<Control> {
        self.control(self.find_id(id)?)?
            .ok_or_else(|| Self::not_found(id))
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
            Ok((
                row.get::<_, i64>(0)?,
                hash_of(row, 1)?,
                status_of(row.get(2)?),
            ))
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

    pub(super) fn create(&self, new: &NewInstance, now_us: i64) -> StoreResult<i64> {
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
        self.adopt_early(instance, &new.id, now_us)?;
        Ok(instance)
    }

    /// Events that came before their instance are its own from now on.
    pub(super) fn adopt_early(&self, instance: i64, id: &str, now_us: i64) -> StoreResult<()> {
        if self.one(&sql::EVENTS_EARLY, [id], |_| Ok(()))?.is_some() {
            self.forget_early(id, now_us)?;
            self.run(&sql::EVENTS_ADOPT, [id])?;
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

    /// The oldest events for these names, as many per name as it is asked for.
    pub(super) fn oldest(&self, id: &str, names: &[Arc<str>]) -> StoreResult<Vec<Event>> {
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

    pub(super) fn request(
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
                    Some((former, None)) => {
                        if let Some(control) = self.control(former)? {
                            self.erase(&control, ERASE_ITEMS, now_us)?;
                        }
                    }
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

    fn items(&self, id: &str, group: StrandId) -> StoreResult<Vec<ItemEnd>> {
        self.ends(self.find_id(id)?, group)
    }

    fn export(&self, id: &str, now_us: i64) -> StoreResult<Box<Snapshot>> {
        self.expire(now_us)?;
        self.picture(id)
    }

    fn import(&self, snapshot: &Snapshot, now_us: i64) -> StoreResult<()> {
        self.expire(now_us)?;
        let taken = self.one(&sql::STATUS, [&snapshot.id], |row| {
            Ok(status_of(row.get(0)?))
        })?;
        if let Some(status) = taken {
            return Err(StoreError::AlreadyExists {
                id: Arc::clone(&snapshot.id),
                status,
            });
        }
        self.take_in(snapshot.clone().at_rest(now_us), now_us)
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
        self.erase(&control, ERASE_ITEMS, now_us)
    }

    fn backlog(&self, now_us: i64) -> StoreResult<Vec<Backlog>> {
        self.all(&sql::BACKLOG, [now_us], |row| {
            Ok(Backlog {
                hash: hash_of(row, 0)?,
                workflow: row.get(1)?,
                tags: read_list(row.get_ref(2)?.as_str()?),
                ready: row.get::<_, i64>(3)? as usize,
                age_us: row.get(4)?,
            })
        })
    }

    fn next_wake_us(&self) -> StoreResult<Option<i64>> {
        Ok(self.one(&sql::NEXT_WAKE, [], |row| row.get(0))?.flatten())
    }
}
