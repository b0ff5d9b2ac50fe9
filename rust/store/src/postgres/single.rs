//! Calls that are made one at a time, in a transaction that the caller began: those that first look
//! and then decide, and those for which a group had no room.
//!
//! A call locks the row of its instance, checks everything, and only then writes, so a refused call
//! leaves no trace in a transaction that it shares with others. A call that is made again, because the
//! answer to its `COMMIT` was lost, first finds out whether it was done.

use std::sync::Arc;

use futures_util::future::join3;
use sayiir_core::state::{Commit, NO_CELLS, Next, Parked, Reply, StepRow};
use tokio_postgres::types::ToSql;

use super::connection::{Link, Place, Tried};
use super::group::Lanes;
use super::lane::Work;
use super::making::{Grants, create};
use super::reading;
use super::statements as sql;
use crate::call::{Answer, Call};
use crate::contract::{
    ConflictPolicy, Hash, InstanceRow, NewInstance, Request, Status, StoreError, StoreResult,
    Submitted,
};
use crate::listed::{status_of, write_list};

type Param<'a> = &'a (dyn ToSql + Sync);

/// What others should be told of when a transaction is committed.
#[derive(Debug, Default)]
pub struct Effects {
    /// Something may be claimable.
    pub work: bool,
    /// A held instance has something to attend to.
    pub news: bool,
    /// Instances that ended.
    pub ended: Vec<Arc<str>>,
    /// Items that were removed with their parents: whoever runs one has no row that would tell.
    pub removed: Vec<Arc<str>>,
    /// Whether this was about other instances than those of the calls.
    pub family: bool,
    /// Whether more was left to be swept than histories.
    pub leftovers: bool,
}

/// A request and how far it got; the numbers are the column's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    PausePending = 1,
    CancelPending = 2,
    Paused = 3,
    Cancelled = 4,
}

impl Asked {
    fn read(number: Option<i16>) -> Option<Self> {
        match number {
            Some(1) => Some(Self::PausePending),
            Some(2) => Some(Self::CancelPending),
            Some(3) => Some(Self::Paused),
            Some(4) => Some(Self::Cancelled),
            _ => None,
        }
    }

    /// `Some(true)`: a cancel is pending; `Some(false)`: a pause is.
    fn pending(asked: Option<Self>) -> Option<bool> {
        match asked {
            Some(Self::PausePending) => Some(false),
            Some(Self::CancelPending) => Some(true),
            _ => None,
        }
    }
}

/// What decides how an instance goes on; its row is locked.
pub struct Control {
    pub instance: i64,
    pub id: Arc<str>,
    pub status: Status,
    fence: i64,
    held: bool,
    asked: Option<Asked>,
    resume: Option<i16>,
    events: bool,
    cells_from: Option<i32>,
    definition: i32,
    next_seq: i32,
    next_strand: i32,
    /// The number of the worker that holds it, if that is known.
    worker: Option<i32>,
    ended_us: Option<i64>,
}

/// What a submit meets.
pub struct Conflict {
    /// What `use_existing` answers with.
    pub existing: Option<Box<InstanceRow>>,
}

/// Looks for an instance of this id, without locking it.
pub async fn conflict(
    link: &Link,
    place: &Place,
    id: &Arc<str>,
    hash: &Hash,
    policy: ConflictPolicy,
) -> Tried<StoreResult<Conflict>> {
    let row = reading::get(link, place, id).await?;
    Ok(judge(row, id, hash, policy))
}

fn judge(
    row: Option<InstanceRow>,
    id: &Arc<str>,
    hash: &Hash,
    policy: ConflictPolicy,
) -> StoreResult<Conflict> {
    let nothing = Conflict { existing: None };
    let Some(row) = row else {
        return Ok(nothing);
    };
    if policy == ConflictPolicy::TerminateExisting {
        return Ok(nothing);
    }
    if row.hash != *hash {
        return Err(StoreError::DefinitionMismatch {
            id: Arc::clone(id),
            expected: *hash,
            found: row.hash,
        });
    }
    match policy {
        ConflictPolicy::UseExisting => Ok(Conflict {
            existing: Some(Box::new(row)),
        }),
        _ => Err(StoreError::AlreadyExists {
            id: Arc::clone(id),
            status: row.status,
        }),
    }
}

/// One transaction's calls.
pub struct Single<'a> {
    pub link: &'a Link,
    pub place: &'a Place,
    /// Null when the database's clock counts.
    pub now: Option<i64>,
    pub effects: &'a mut Effects,
}

impl Single<'_> {
    async fn control_row(
        &self,
        statement: &sql::Statement,
        key: Param<'_>,
    ) -> Tried<Option<Control>> {
        let Some(row) = self.link.row(statement, &[key]).await? else {
            return Ok(None);
        };
        Ok(Some(Control {
            instance: row.get(0),
            id: Arc::from(row.get::<_, &str>(1)),
            status: status_of(row.get::<_, i16>(2).into()),
            fence: row.get(3),
            held: row.get::<_, Option<i32>>(4).is_some(),
            asked: Asked::read(row.get(5)),
            resume: row.get(6),
            events: row.get(9),
            cells_from: row.get(10),
            definition: row.get(11),
            next_seq: row.get(12),
            next_strand: row.get(13),
            worker: row.get(14),
            ended_us: row.get(15),
        }))
    }

    pub(super) async fn control_by(&self, instance: i64) -> Tried<Option<Control>> {
        self.control_row(&sql::CONTROL_BY, &instance).await
    }

    pub(super) async fn control(&self, id: &str) -> Tried<Option<Control>> {
        self.control_row(&sql::CONTROL, &id).await
    }

    /// Makes a call.
    pub async fn perform(&mut self, work: &Work, lanes: &Lanes) -> Tried<StoreResult<Answer>> {
        Ok(match &work.job.call {
            Call::Submit { batch, policy } => self
                .submit(batch, *policy, work, lanes)
                .await?
                .map(Answer::Submitted),
            Call::Release { worker } => Ok(Answer::Count(self.release(worker).await?)),
            Call::GiveBack { id, fence } => Ok(Answer::Flag(self.give_back(id, *fence).await?)),
            Call::Commit {
                id, fence, commit, ..
            } => {
                let reply = self.apply(id, *fence, commit, work, lanes).await?;
                Ok(Answer::Reply(reply))
            }
            Call::SendEvent {
                id,
                name,
                payload,
                key,
            } => self
                .send_event(id, name, payload, key.as_deref(), work)
                .await?
                .map(Answer::Flag),
            Call::Cancel { id, request } => {
                self.request(id, request, true).await?.map(Answer::Status)
            }
            Call::Pause { id, request } => {
                self.request(id, request, false).await?.map(Answer::Status)
            }
            Call::Unpause { id } => self.unpause(id, work).await?.map(Answer::Status),
            Call::Export { id } => self.export(id).await?.map(Answer::Snapshot),
            Call::Import { snapshot } => self
                .import(snapshot, work, lanes)
                .await?
                .map(|()| Answer::Nothing),
            Call::Delete { id, force } => self
                .delete(id, *force, work.again)
                .await?
                .map(|()| Answer::Nothing),
            Call::Renew { worker, lease_us } => {
                let early = self.place.settings.early_us(*lease_us);
                let workers = [&**worker];
                self.link
                    .run(
                        &sql::RENEW,
                        &[&&workers[..], &&[*lease_us][..], &&[early][..], &self.now],
                    )
                    .await?;
                let rows = self.link.rows(&sql::ALERTED, &[&&workers[..]]).await?;
                let asked = rows
                    .iter()
                    .filter(|row| row.get::<_, Option<bool>>(2) == Some(true));
                Ok(Answer::Ids(
                    asked.map(|row| Arc::from(row.get::<_, &str>(0))).collect(),
                ))
            }
            Call::Enlist { new } => Ok(lanes
                .numbers(&new.hash, &new.needs.0)
                .map_or(Answer::Nothing, |(definition, lane)| {
                    Answer::Numbers(definition, lane)
                })),
            // A group has room for every claim, and reads need no transaction.
            _ => Ok(Answer::Nothing),
        })
    }

    async fn submit(
        &mut self,
        batch: &[NewInstance],
        policy: ConflictPolicy,
        work: &Work,
        lanes: &Lanes,
    ) -> Tried<StoreResult<Vec<Submitted>>> {
        let mut outcomes = Vec::with_capacity(batch.len());
        let mut fresh = Vec::with_capacity(batch.len());
        let mut former = Vec::new();
        let ids: Vec<&str> = batch.iter().map(|new| &*new.id).collect();
        let taken = self.link.rows(&sql::TAKEN, &[&ids]).await?;
        let taken: std::collections::HashSet<&str> = taken.iter().map(|row| row.get(0)).collect();
        for new in batch {
            if !taken.contains(&*new.id) {
                outcomes.push(Submitted::Created);
                fresh.push((new, work.token));
                continue;
            }
            let Some(control) = self.control(&new.id).await? else {
                outcomes.push(Submitted::Created);
                fresh.push((new, work.token));
                continue;
            };
            if work.again && self.is_ours(&new.id, work.token).await? {
                outcomes.push(Submitted::Created);
                continue;
            }
            let row = reading::get(self.link, self.place, &new.id).await?;
            match judge(row, &new.id, &new.hash, policy) {
                Err(error) => return Ok(Err(error)),
                Ok(Conflict {
                    existing: Some(row),
                    ..
                }) => outcomes.push(Submitted::Existing(row)),
                Ok(_) => {
                    former.push((control.instance, Arc::clone(&new.id)));
                    outcomes.push(Submitted::Created);
                    fresh.push((new, work.token));
                }
            }
        }
        self.erase(&former).await?;
        if !fresh.is_empty() {
            let made = create(
                self.link,
                self.place,
                &fresh,
                self.now,
                lanes,
                &Grants::default(),
            )
            .await?;
            if made.len() < fresh.len() {
                // Somebody else made one of them in this moment; the transaction has to see it.
                return Err(super::connection::Failure::said(
                    super::trouble::Trouble::Again,
                    format!(
                        "PostgreSQL at {}: the id of a submitted instance was taken at the same moment",
                        self.place.address.shown
                    ),
                ));
            }
            self.effects.work = true;
        }
        Ok(Ok(outcomes))
    }

    /// Whether a call is made again, and the instance has ended since it was first made.
    ///
    /// An end takes away what would show that the call was done, and as far as anybody can tell it was:
    /// it came before the end.
    fn ended_since(control: &Control, work: &Work) -> bool {
        // An item has no such time.
        work.again
            && control
                .ended_us
                .is_none_or(|ended| Some(ended) >= work.made_us)
    }

    pub(super) async fn is_ours(&self, id: &str, token: i64) -> Tried<bool> {
        let row = self.link.row(&sql::TOKEN, &[&id]).await?;
        Ok(row.is_some_and(|row| row.get::<_, i64>(0) == token))
    }

    async fn send_event(
        &mut self,
        id: &Arc<str>,
        name: &str,
        payload: &[u8],
        key: Option<&str>,
        work: &Work,
    ) -> Tried<StoreResult<bool>> {
        let control = self.control(id).await?;
        if work.again
            && self
                .link
                .row(&sql::EVENT_TOKEN, &[&&**id, &work.token])
                .await?
                .is_some()
        {
            return Ok(Ok(true));
        }
        if let Some(control) = &control
            && control.status.is_terminal()
        {
            if Self::ended_since(control, work) {
                return Ok(Ok(true));
            }
            return Ok(refuse(control, "send an event to", "; it has ended"));
        }
        if control.is_none() {
            let keep = self.place.settings.keep_orphans_us;
            self.link
                .run(&sql::EVENTS_LATE, &[&&**id, &self.now, &keep])
                .await?;
        }
        if let Some(key) = key
            && self
                .link
                .row(&sql::EVENT_KEY, &[&&**id, &name, &key])
                .await?
                .is_some()
        {
            return Ok(Ok(false));
        }
        let early = control.is_none();
        let params: [Param<'_>; 7] = [
            &&**id,
            &name,
            &key,
            &work.token,
            &early,
            &payload,
            &self.now,
        ];
        let (link, now) = (self.link, self.now);
        let making = link.row(&sql::EVENT_NEW, &params);
        let Some(control) = control else {
            return Ok(Ok(making.await?.is_some()));
        };
        // On one way there and back. Where somebody else has used the key in this moment, nothing came,
        // and the others change nothing that matters.
        let parked = !control.held && control.status == Status::AwaitingSignal;
        let instance: [Param<'_>; 1] = [&control.instance];
        let coming = link.run(&sql::EVENT_CAME, &instance);
        let placing = async {
            if !parked {
                return Ok(0);
            }
            link.run(&sql::PLACE, &[&control.instance, &now]).await
        };
        let (made, came, ready) = join3(making, coming, placing).await;
        let made = made?.is_some();
        came?;
        self.effects.work |= ready? > 0;
        self.effects.news |= made && control.held;
        Ok(Ok(made))
    }

    /// A parked instance whose time or event has come is ready.
    pub(super) async fn place(&mut self, instance: i64) -> Tried<bool> {
        let ready = self.link.run(&sql::PLACE, &[&instance, &self.now]).await? > 0;
        self.effects.work |= ready;
        Ok(ready)
    }

    async fn request(
        &mut self,
        id: &str,
        request: &Request,
        cancel: bool,
    ) -> Tried<StoreResult<Status>> {
        let Some(control) = self.control(id).await? else {
            return Ok(Err(StoreError::NotFound { id: id.into() }));
        };
        match control.status {
            Status::Cancelled if cancel => return Ok(Ok(Status::Cancelled)),
            Status::Paused if !cancel => return Ok(Ok(Status::Paused)),
            status if status.is_terminal() => {
                let verb = if cancel { "cancel" } else { "pause" };
                return Ok(refuse(&control, verb, "; it has ended"));
            }
            _ => {}
        }
        if Asked::pending(control.asked).is_some_and(|pending_cancel| pending_cancel || !cancel) {
            // The same was asked before, or a cancel is pending, which beats a pause.
            return Ok(Ok(control.status));
        }
        let asked = if cancel {
            Asked::CancelPending
        } else {
            Asked::PausePending
        };
        let resume = control.resume.unwrap_or(control.status as i16);
        let params: [Param<'_>; 5] = [
            &control.instance,
            &(asked as i16),
            &resume,
            &request.reason.as_deref(),
            &request.by.as_deref(),
        ];
        self.link.run(&sql::ASK, &params).await?;
        if control.held {
            self.effects.news = true;
            return Ok(Ok(control.status));
        }
        let asking = Control {
            asked: Some(asked),
            ..control
        };
        self.settle(&asking).await?;
        Ok(Ok(if cancel {
            Status::Cancelled
        } else {
            Status::Paused
        }))
    }

    /// A pending cancel or pause of an instance that nobody holds takes effect; whether there was
    /// one.
    async fn settle(&mut self, control: &Control) -> Tried<bool> {
        let Some(cancel) = Asked::pending(control.asked) else {
            return Ok(false);
        };
        if cancel {
            self.cancelled(control).await?;
        } else {
            let params: [Param<'_>; 3] = [&control.instance, &(control.status as i16), &self.now];
            self.link.run(&sql::PAUSED, &params).await?;
        }
        Ok(true)
    }

    /// An instance is cancelled, with all that depends on it.
    pub(super) async fn cancelled(&mut self, control: &Control) -> Tried<()> {
        let params: [Param<'_>; 1] = [&&[control.instance][..]];
        let end = End {
            item: self.link.row(&sql::ITEMS_AMONG, &params).await?.is_some(),
            ..End::default()
        };
        self.finish(control, Status::Cancelled, &end).await?;
        self.give_up(&[control.instance], None).await
    }

    async fn unpause(&mut self, id: &str, work: &Work) -> Tried<StoreResult<Status>> {
        let Some(control) = self.control(id).await? else {
            return Ok(Err(StoreError::NotFound { id: id.into() }));
        };
        if control.status == Status::Paused {
            let resume = control.resume.unwrap_or(Status::InProgress as i16);
            let params: [Param<'_>; 3] = [&control.instance, &resume, &self.now];
            self.link.run(&sql::UNPAUSE, &params).await?;
            let ready = self.place(control.instance).await?;
            let status = status_of(resume.into());
            self.effects.work |= status == Status::InProgress;
            return Ok(Ok(if ready { Status::InProgress } else { status }));
        }
        if Asked::pending(control.asked) == Some(false) {
            // The pause has not taken effect yet: it is simply taken back.
            self.link.run(&sql::UNASK, &[&control.instance]).await?;
            return Ok(Ok(control.status));
        }
        if work.again && (!control.status.is_terminal() || Self::ended_since(&control, work)) {
            // The first time it was done, and the answer got lost.
            return Ok(Ok(control.status));
        }
        Ok(refuse(
            &control,
            "unpause",
            ", not paused; only a paused instance can be unpaused",
        ))
    }

    async fn delete(&mut self, id: &str, force: bool, again: bool) -> Tried<StoreResult<()>> {
        let Some(control) = self.control(id).await? else {
            if again {
                return Ok(Ok(()));
            }
            return Ok(Err(StoreError::NotFound { id: id.into() }));
        };
        if !control.status.is_terminal() && !force {
            return Ok(refuse(
                &control,
                "delete",
                "; cancel it first, or delete it with force=True",
            ));
        }
        self.effects.news |= control.held;
        self.effects.ended.push(Arc::clone(&control.id));
        self.erase(&[(control.instance, control.id)]).await?;
        Ok(Ok(()))
    }

    /// Removes instances and all that belongs to them. Their histories go a piece at a time.
    pub async fn erase(&mut self, gone: &[(i64, Arc<str>)]) -> Tried<()> {
        let mut gone = gone.to_vec();
        while !gone.is_empty() {
            let instances: Vec<i64> = gone.iter().map(|(instance, _)| *instance).collect();
            let items = self.leave_family(&instances).await?;
            let ids: Vec<&str> = gone.iter().map(|(_, id)| &**id).collect();
            for statement in [
                &sql::DELETE_INSTANCES,
                &sql::DELETE_CELLS,
                &sql::GARBAGE_NEW,
            ] {
                self.link.run(statement, &[&instances]).await?;
            }
            for statement in [&sql::DELETE_INPUTS, &sql::DELETE_EVENTS] {
                self.link.run(statement, &[&ids]).await?;
            }
            let removed = items.iter().map(|(_, id)| Arc::clone(id));
            self.effects.removed.extend(removed);
            gone = items;
        }
        Ok(())
    }

    async fn release(&mut self, worker: &str) -> Tried<usize> {
        match self.link.row(&sql::WORKER_FIND, &[&worker]).await? {
            Some(row) => self.drop_worker(row.get(0)).await,
            None => Ok(0),
        }
    }

    /// Gives back everything a worker holds; how much it was.
    async fn drop_worker(&mut self, worker: i32) -> Tried<usize> {
        let mut count = self.link.run(&sql::FREE_PLAIN, &[&worker]).await? as usize;
        loop {
            let held = self.link.rows(&sql::HELD, &[&worker]).await?;
            if held.is_empty() {
                break;
            }
            for row in held {
                self.let_go(row.get(0)).await?;
                count += 1;
            }
        }
        self.link.run(&sql::WORKER_DELETE, &[&worker]).await?;
        self.effects.work |= count > 0;
        Ok(count)
    }

    /// Gives a lease back and lets a pending request take effect.
    async fn let_go(&mut self, instance: i64) -> Tried<()> {
        self.link.run(&sql::LET_GO, &[&instance]).await?;
        let Some(control) = self.control_row(&sql::CONTROL_BY, &instance).await? else {
            return Ok(());
        };
        if self.settle(&control).await? {
            return Ok(());
        }
        if control.status == Status::InProgress {
            self.effects.work = true;
        } else {
            self.place(instance).await?;
        }
        Ok(())
    }

    async fn give_back(&mut self, id: &str, fence: u64) -> Tried<bool> {
        match self.control(id).await? {
            Some(control) if control.held && control.fence as u64 == fence => {
                self.let_go(control.instance).await?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Takes leases back from workers that were not renewed in time; see the schema's `workers`.
    pub async fn expire(&mut self) -> Tried<()> {
        let own_clock = self.now.is_none();
        let out = self
            .link
            .rows(&sql::RUN_OUT, &[&self.now, &own_clock])
            .await?;
        for row in out {
            self.drop_worker(row.get(0)).await?;
        }
        if own_clock {
            self.link.run(&sql::SUSPECT, &[&self.now]).await?;
        }
        Ok(())
    }

    /// What claims look at now and then: timers that are due, and events that came in transactions of
    /// their senders'.
    pub async fn look_around(&mut self) -> Tried<()> {
        self.effects.work |= self.link.run(&sql::WAKE, &[&self.now]).await? > 0;
        let adopted = self.link.rows(&sql::ADOPT, &[&self.now]).await?;
        self.effects.work |= !adopted.is_empty();
        self.effects.news |= adopted
            .iter()
            .any(|row| row.get::<_, Option<i32>>(0).is_some());
        Ok(())
    }

    /// Whether something in these lanes is ready.
    pub async fn is_ready(&self, lanes: &[i32]) -> Tried<bool> {
        if lanes.is_empty() {
            return Ok(false);
        }
        Ok(self.link.row(&sql::READY, &[&lanes]).await?.is_some())
    }

    /// Frees instances whose holder is no worker that is known.
    pub async fn free_orphans(&mut self) -> Tried<()> {
        for row in self.link.rows(&sql::ORPHANS, &[]).await? {
            self.let_go(row.get(0)).await?;
        }
        Ok(())
    }

    async fn finish(&mut self, control: &Control, status: Status, end: &End<'_>) -> Tried<()> {
        let asked = (status == Status::Cancelled).then_some(Asked::Cancelled as i16);
        let params: [Param<'_>; 10] = [
            &control.instance,
            &(status as i16),
            &asked,
            &end.result_seq,
            &end.result,
            &end.next.map(|(seq, _)| seq),
            &end.next.map(|(_, strand)| strand),
            &end.steps,
            &self.now,
            &end.item,
        ];
        self.link.run(&sql::FINISH, &params).await?;
        if end.item {
            self.item_ended(control.instance).await?;
        }
        if control.cells_from.is_some() || end.cells {
            self.link
                .run(&sql::DELETE_CELLS, &[&&[control.instance][..]])
                .await?;
        }
        if control.events {
            self.link
                .run(&sql::DELETE_EVENTS, &[&&[&*control.id][..]])
                .await?;
        }
        self.effects.ended.push(Arc::clone(&control.id));
        Ok(())
    }

    /// Applies one checkpoint with all that a group leaves out: pending requests, events that are
    /// there already, lanes that are new.
    async fn apply(
        &mut self,
        id: &str,
        fence: u64,
        commit: &Commit,
        work: &Work,
        lanes: &Lanes,
    ) -> Tried<Reply> {
        let again = work.again;
        let Some(control) = self.control(id).await? else {
            return Ok(Reply::LeaseLost);
        };
        let (Some(worker), true) = (control.worker, control.fence as u64 == fence) else {
            return Ok(Reply::LeaseLost);
        };
        let pending = Asked::pending(control.asked);
        let mut written = false;
        if let (true, Some(step)) = (again, commit.steps.first()) {
            let params: [Param<'_>; 2] = [&control.instance, &(step.seq as i32)];
            written = self.link.row(&sql::DONE_BEFORE, &params).await?.is_some();
        }
        let stands = (control.next_seq, control.next_strand);
        let after = (commit.next_seq as i32, commit.next_strand as i32);
        let from = (commit.from.0 as i32, commit.from.1 as i32);
        if from != stands && !(again && after == stands) {
            // The database was set back to an older state: what this builds on is not there.
            return Ok(Reply::LeaseLost);
        }
        if !written {
            self.write_facts(&control, worker, commit).await?;
        }
        if let Some(family) = &commit.family {
            self.change_family(&control, fence, family, work.token, lanes)
                .await?;
        }
        let steps = if written {
            0
        } else {
            commit.steps.len() as i32
        };
        if let Some((status, result_seq, result)) = ended(commit) {
            let end = End {
                result_seq,
                result,
                next: Some((commit.next_seq as i32, commit.next_strand as i32)),
                steps,
                cells: !commit.cells.is_empty(),
                item: commit.item,
            };
            self.finish(&control, status, &end).await?;
            return Ok(Reply::Ok);
        }
        self.write_position(&control, commit, steps).await?;
        match &commit.next {
            Next::Park(parked) => {
                if pending.is_none() {
                    let events = reading::oldest(self.link, id, &parked.awaits).await?;
                    if !events.is_empty() {
                        return Ok(Reply::Events(events));
                    }
                }
                self.park(control.instance, parked).await?;
                if pending.is_none() {
                    self.place(control.instance).await?;
                    return Ok(Reply::Ok);
                }
            }
            Next::Hold if pending.is_none() => return Ok(Reply::Ok),
            Next::Hold if pending == Some(false) && !commit.quiescent => {
                return Ok(Reply::PausePending);
            }
            _ => {}
        }
        self.let_go(control.instance).await?;
        Ok(match pending {
            None => Reply::Ok,
            Some(true) => Reply::Cancelled,
            Some(false) => Reply::Paused,
        })
    }

    /// Step rows that one worker wrote.
    pub(super) async fn write_steps(
        &self,
        instance: i64,
        worker: i32,
        rows: impl Iterator<Item = &StepRow>,
    ) -> Tried<()> {
        let rows: Vec<&StepRow> = rows.collect();
        let params: [Param<'_>; 11] = [
            &instance,
            &worker,
            &rows.iter().map(|row| row.seq as i32).collect::<Vec<_>>(),
            &rows.iter().map(|row| &*row.path).collect::<Vec<_>>(),
            &rows.iter().map(|row| &*row.name).collect::<Vec<_>>(),
            &rows
                .iter()
                .map(|row| row.attempt as i32)
                .collect::<Vec<_>>(),
            &rows
                .iter()
                .map(|row| row.outcome as i16)
                .collect::<Vec<_>>(),
            &rows.iter().map(|row| row.started_us).collect::<Vec<_>>(),
            &rows.iter().map(|row| row.ended_us).collect::<Vec<_>>(),
            &rows
                .iter()
                .map(|row| row.output.as_deref())
                .collect::<Vec<_>>(),
            &rows
                .iter()
                .map(|row| row.error.as_deref())
                .collect::<Vec<_>>(),
        ];
        self.link.run(&sql::STEPS_NEW, &params).await.map(drop)
    }

    async fn write_facts(&self, control: &Control, worker: i32, commit: &Commit) -> Tried<()> {
        let instance = control.instance;
        if !commit.steps.is_empty() {
            self.write_steps(instance, worker, commit.steps.iter())
                .await?;
        }
        if !commit.cells.is_empty() {
            let strands: Vec<i32> = commit
                .cells
                .iter()
                .map(|(strand, _)| *strand as i32)
                .collect();
            let cells: Vec<&[u8]> = commit.cells.iter().map(|(_, cell)| &cell[..]).collect();
            self.link
                .run(&sql::CELLS_PUT, &[&instance, &strands, &cells])
                .await?;
        }
        if let Some(before) = control.cells_from
            && i64::from(commit.cells_from) > i64::from(before)
        {
            // No later holder can refer to the ones below any more.
            let below = i32::try_from(commit.cells_from).unwrap_or(i32::MAX);
            self.link
                .run(&sql::CELLS_DROP, &[&instance, &below])
                .await?;
        }
        if !commit.consumed.is_empty() {
            let events: Vec<i64> = commit.consumed.iter().map(|event| *event as i64).collect();
            self.link
                .run(&sql::CONSUME, &[&&*control.id, &events])
                .await?;
        }
        Ok(())
    }

    async fn write_position(
        &mut self,
        control: &Control,
        commit: &Commit,
        steps: i32,
    ) -> Tried<()> {
        let (mut lane, mut priority) = (None, None);
        if let Some((tags, level)) = &commit.needs {
            let tags = write_list(tags);
            self.link
                .run(&sql::LANE_NEW, &[&control.definition, &tags])
                .await?;
            let row = self
                .link
                .row(&sql::LANE, &[&control.definition, &tags])
                .await?;
            lane = row.map(|row| row.get::<_, i32>(0));
            priority = Some(i16::from(*level));
        }
        let cells_from = (commit.cells_from != NO_CELLS).then_some(commit.cells_from as i32);
        let params: [Param<'_>; 9] = [
            &control.instance,
            &commit.cursor.as_deref(),
            &(commit.next_seq as i32),
            &(commit.next_strand as i32),
            &cells_from,
            &steps,
            &lane,
            &priority,
            &self.now,
        ];
        self.link.run(&sql::POSITION, &params).await.map(drop)
    }

    async fn park(&self, instance: i64, parked: &Parked) -> Tried<()> {
        let status = if parked.awaiting {
            Status::AwaitingSignal
        } else {
            Status::Waiting
        };
        let awaits: Option<Vec<&str>> =
            (!parked.awaits.is_empty()).then(|| parked.awaits.iter().map(|name| &**name).collect());
        let params: [Param<'_>; 7] = [
            &instance,
            &(status as i16),
            &parked.wake_at_us,
            &awaits,
            &parked.delay_id.as_deref(),
            &parked.signal_id.as_deref(),
            &parked.signal_name.as_deref(),
        ];
        self.link.run(&sql::PARK, &params).await.map(drop)
    }
}

/// What an end leaves in the row.
#[derive(Default)]
struct End<'a> {
    result_seq: Option<i32>,
    result: Option<&'a [u8]>,
    /// Next free step and strand numbers, when they changed.
    next: Option<(i32, i32)>,
    steps: i32,
    cells: bool,
    item: bool,
}

/// A status, and the result as the number of a step row or as bytes.
pub type Ending<'a> = (Status, Option<i32>, Option<&'a [u8]>);

/// How an instance ends with a commit, if it does: the status, and the result by the number of the step
/// row that holds it, or as bytes.
pub fn ended(commit: &Commit) -> Option<Ending<'_>> {
    let (status, result) = match &commit.next {
        Next::Completed(output) => (Status::Completed, output),
        Next::Failed(error) => (Status::Failed, error),
        _ => return None,
    };
    let same = commit
        .steps
        .iter()
        .rev()
        .find(|row| row.output.as_ref().or(row.error.as_ref()) == Some(result));
    Some((
        status,
        same.map(|row| row.seq as i32),
        same.is_none().then_some(&result[..]),
    ))
}

fn refuse<T>(control: &Control, verb: &'static str, hint: &'static str) -> StoreResult<T> {
    Err(StoreError::InvalidState {
        id: Arc::clone(&control.id),
        status: control.status,
        verb,
        hint,
    })
}
