//! The memory store: one map of instances and four indexes under one short lock.
//!
//! It promises what the contract promises, except that everything is gone with the process. Each
//! call costs what it touches: a checkpoint does not look at what is already done, and parked
//! instances are only an entry in the timers. The lock is held for microseconds, never while
//! anything of the caller's runs.
//!
//! Fences come from one counter, so a slot that is used again never accepts an old holder's commit.

mod contract_impl;
mod events;
mod family;
mod instance;
mod moving;
mod queue;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sayiir_core::Bytes;
use sayiir_core::advance::{Stored, Values};
use sayiir_core::policy::covers;
use sayiir_core::state::{
    Commit, EVERY_GROUP, ItemEnd, NO_CELLS, Next, Outcome, Reply, Seq, StepRow, StrandId,
};

use self::events::EventBox;
use self::family::{Group, Kin};
use self::instance::{Asked, Instance, Place};
use self::queue::Queue;
use crate::contract::{
    Backlog, Claim, Claimant, ConflictPolicy, Filter, Hash, HistoryRow, InstanceRow, NewInstance,
    News, Page, Request, Status, Store, StoreError, StoreResult, Submitted,
};
use crate::port::Hint;

/// Index of an instance.
type Slot = u32;

/// How long events wait for an instance that never comes, µs (7 days).
pub const KEEP_ORPHANS_US: i64 = 7 * 86_400 * 1_000_000;

/// What may be set about a memory store.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// How long ended instances are kept; none: until they are deleted.
    pub keep_completed_us: Option<i64>,
    /// How long events wait for an instance that does not exist yet.
    pub keep_orphans_us: i64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            keep_completed_us: None,
            keep_orphans_us: KEEP_ORPHANS_US,
        }
    }
}

#[derive(Debug)]
struct Worker {
    expires_us: i64,
    held: HashSet<Slot>,
}

#[derive(Debug, Default)]
struct Inner {
    slots: Vec<Option<Box<Instance>>>,
    free: Vec<Slot>,
    by_id: HashMap<Arc<str>, Slot>,
    created: BTreeMap<u64, Slot>,
    queue: Queue,
    timers: BTreeSet<(i64, Slot)>,
    workers: HashMap<Arc<str>, Worker>,
    orphans: HashMap<Arc<str>, Box<EventBox>>,
    orphans_by_age: VecDeque<(i64, Arc<str>)>,
    ended: BTreeSet<(i64, Slot)>,
    /// Which instances are items of spread maps.
    kin: HashMap<Slot, Kin>,
    groups: BTreeMap<(Slot, StrandId), Group>,
    /// What other instances than the one of the call have to hear of.
    told: Vec<(Hint, Arc<str>)>,
    next_created: u64,
    next_fence: u64,
    settings: Settings,
}

/// See the module's opening.
#[derive(Debug, Default)]
pub struct MemoryStore {
    inner: Mutex<Inner>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            inner: Mutex::new(Inner {
                settings,
                ..Inner::default()
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here panics half-way through a change, so a poisoned lock is still consistent.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What calls for one instance did to others since this was last asked for; for hints.
    pub fn told(&self) -> Vec<(Hint, Arc<str>)> {
        std::mem::take(&mut self.lock().told)
    }

    /// How many instances there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().by_id.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Looks values of one instance up in the store.
#[derive(Debug)]
pub struct StoredValues<'a> {
    /// The store.
    pub store: &'a MemoryStore,
    /// The instance, as its claim names it.
    pub slot: u32,
    /// The fence of the lease; another holder's values are nobody else's.
    pub fence: u64,
}

impl StoredValues<'_> {
    fn look<T>(&self, pick: impl FnOnce(&Instance) -> Option<T>) -> Option<T> {
        let inner = self.store.lock();
        pick(
            inner
                .at(self.slot)
                .filter(|instance| instance.fence == self.fence)?,
        )
    }

    fn row<T>(&self, seq: Seq, pick: impl Fn(&StepRow) -> Option<T>) -> Option<T> {
        self.look(|instance| pick(&instance.row(seq)?.step))
    }
}

impl Values for StoredValues<'_> {
    fn input(&self) -> Option<Bytes> {
        self.look(|instance| Some(Bytes::clone(&instance.input)))
    }

    fn output(&self, seq: Seq) -> Option<Bytes> {
        self.row(seq, |row| row.output.clone())
    }

    fn error(&self, seq: Seq) -> Option<Bytes> {
        self.row(seq, |row| row.error.clone())
    }

    fn items(&self, group: StrandId) -> Option<Vec<ItemEnd>> {
        let inner = self.store.lock();
        inner.at(self.slot).filter(|i| i.fence == self.fence)?;
        // A group without a trace ended before anything of it was made.
        Some(inner.ends(self.slot, group).unwrap_or_default())
    }
}

impl Instance {
    fn row(&self, seq: Seq) -> Option<&HistoryRow> {
        // Rows are appended in order; a gap only arises when a damaged instance was set aside.
        match self.steps.get(seq as usize) {
            Some(row) if row.step.seq == seq => Some(row),
            _ => self
                .steps
                .binary_search_by_key(&seq, |row| row.step.seq)
                .ok()
                .map(|at| &self.steps[at]),
        }
    }
}

impl Inner {
    fn slot(&self, id: &str) -> StoreResult<Slot> {
        self.by_id
            .get(id)
            .copied()
            .ok_or_else(|| StoreError::NotFound { id: id.into() })
    }

    fn get(&self, id: &str) -> Option<&Instance> {
        self.at(*self.by_id.get(id)?)
    }

    fn at(&self, slot: Slot) -> Option<&Instance> {
        self.slots.get(slot as usize)?.as_deref()
    }

    fn at_mut(&mut self, slot: Slot) -> Option<&mut Instance> {
        self.slots.get_mut(slot as usize)?.as_deref_mut()
    }

    /// Takes an instance out of whatever index it is in.
    fn unplace(&mut self, slot: Slot) {
        let Some(instance) = self.slots[slot as usize].as_deref_mut() else {
            return;
        };
        match std::mem::replace(&mut instance.place, Place::None) {
            Place::None => {}
            Place::Ready => {
                self.queue.remove(
                    instance.definition,
                    &instance.tags,
                    instance.order_us(),
                    instance.created_seq,
                    slot,
                );
            }
            Place::Timer => {
                self.timers.remove(&(instance.wake_us, slot));
            }
        }
    }

    /// Puts an instance that nobody holds where its status says.
    fn place(&mut self, slot: Slot, now_us: i64) {
        self.unplace(slot);
        let Some(instance) = self.slots[slot as usize].as_deref_mut() else {
            return;
        };
        let wake = instance.wake_at_us();
        let ready = match instance.status {
            Status::InProgress => true,
            Status::Waiting | Status::AwaitingSignal => {
                wake.is_some_and(|at| at <= now_us) || instance.has_awaited_event()
            }
            _ => return,
        };
        if ready {
            if instance.status != Status::InProgress {
                let due = wake.filter(|at| *at <= now_us);
                instance.updated_us = due.map_or(now_us, |at| at.max(instance.updated_us));
            }
            instance.status = Status::InProgress;
            instance.place = Place::Ready;
            self.queue.insert(
                instance.definition,
                &instance.tags,
                instance.order_us(),
                instance.created_seq,
                slot,
            );
        } else if let Some(at) = wake {
            instance.place = Place::Timer;
            self.timers.insert((at, slot));
        }
    }

    /// Gives a lease back and lets a pending request take effect.
    fn let_go(&mut self, slot: Slot, now_us: i64) {
        let Some(instance) = self.slots[slot as usize].as_deref_mut() else {
            return;
        };
        if let Some(worker) = instance.holder.take()
            && let Some(worker) = self.workers.get_mut(&worker)
        {
            worker.held.remove(&slot);
        }
        self.settle_request(slot, now_us);
        self.place(slot, now_us);
    }

    /// A pending cancel or pause of an instance that nobody holds takes effect.
    fn settle_request(&mut self, slot: Slot, now_us: i64) {
        let next_fence = self.next_fence + 1;
        let Some(instance) = self.at_mut(slot) else {
            return;
        };
        let Some(asked) = instance.asked.as_deref_mut().filter(|asked| asked.pending) else {
            return;
        };
        asked.pending = false;
        if instance.status.is_terminal() {
            // The work ended first; what was asked no longer matters.
            instance.asked = None;
            return;
        }
        instance.fence = next_fence;
        instance.updated_us = now_us;
        if asked.cancel {
            self.next_fence = next_fence;
            self.finish(slot, Status::Cancelled, None, now_us);
        } else {
            asked.resume = instance.status;
            instance.status = Status::Paused;
            self.next_fence = next_fence;
            self.unplace(slot);
        }
    }

    fn finish(&mut self, slot: Slot, status: Status, result: Option<Bytes>, now_us: i64) {
        self.unplace(slot);
        let Some(instance) = self.at_mut(slot) else {
            return;
        };
        instance.status = status;
        instance.result = result;
        instance.updated_us = now_us;
        instance.unpark();
        instance.cells.clear();
        instance.events = None;
        if !self.groups.is_empty() {
            self.give_up(slot, EVERY_GROUP, now_us);
            self.item_ended(slot, status != Status::Completed, now_us);
        }
        if self.settings.keep_completed_us.is_some() && !self.kin.contains_key(&slot) {
            self.ended.insert((now_us, slot));
        }
        self.forget_old(now_us);
    }

    /// Removes what the retention settings no longer keep; a few at a time.
    fn forget_old(&mut self, now_us: i64) {
        if let Some(keep_us) = self.settings.keep_completed_us {
            for _ in 0..8 {
                match self.ended.first().copied() {
                    Some((at, slot)) if at.saturating_add(keep_us) <= now_us => {
                        self.erase(slot, now_us);
                    }
                    _ => break,
                }
            }
        }
        let keep_us = self.settings.keep_orphans_us;
        while let Some((at, _)) = self.orphans_by_age.front() {
            if at.saturating_add(keep_us) > now_us {
                break;
            }
            if let Some((at, id)) = self.orphans_by_age.pop_front()
                && let Some(early) = self.orphans.get_mut(&id)
            {
                // The id may have been used in between; what is younger than this stays.
                early.forget(at);
                if early.is_empty() {
                    self.orphans.remove(&id);
                }
            }
        }
    }

    fn erase(&mut self, slot: Slot, now_us: i64) {
        if !(self.groups.is_empty() && self.kin.is_empty()) {
            self.leave_family(slot, now_us);
        }
        self.unplace(slot);
        let Some(instance) = self.slots[slot as usize].take() else {
            return;
        };
        if let Some(worker) = &instance.holder
            && let Some(worker) = self.workers.get_mut(worker)
        {
            worker.held.remove(&slot);
        }
        self.by_id.remove(&instance.id);
        self.created.remove(&instance.created_seq);
        if instance.status.is_terminal() {
            self.ended.remove(&(instance.updated_us, slot));
        }
        self.free.push(slot);
    }

    /// Takes leases back from workers that were not renewed in time.
    fn expire(&mut self, now_us: i64) {
        if self
            .workers
            .values()
            .all(|worker| worker.expires_us > now_us)
        {
            return;
        }
        let mut free = Vec::new();
        self.workers.retain(|_, worker| {
            let alive = worker.expires_us > now_us;
            if !alive {
                free.extend(worker.held.iter().copied());
            }
            alive
        });
        for slot in free {
            self.let_go(slot, now_us);
        }
    }

    fn wake_due(&mut self, now_us: i64) {
        while let Some(&(at, slot)) = self.timers.first() {
            if at > now_us {
                break;
            }
            self.place(slot, now_us);
        }
    }

    fn lease(&mut self, slot: Slot, claimant: &Claimant, now_us: i64) -> Option<Claim> {
        self.next_fence += 1;
        let fence = self.next_fence;
        self.unplace(slot);
        let worker = self
            .workers
            .entry(Arc::clone(&claimant.worker))
            .or_insert_with(|| Worker {
                expires_us: i64::MIN,
                held: HashSet::new(),
            });
        worker.expires_us = worker
            .expires_us
            .max(now_us.saturating_add(claimant.lease_us));
        worker.held.insert(slot);
        let instance = self.slots[slot as usize].as_deref_mut()?;
        instance.fence = fence;
        instance.holder = Some(Arc::clone(&claimant.worker));
        instance.unpark();
        let cells = instance
            .cells
            .range(instance.cells_from..)
            .map(|(id, bytes)| (*id, Bytes::clone(bytes)))
            .collect();
        Some(Claim {
            id: Arc::clone(&instance.id),
            slot: u64::from(slot),
            fence,
            hash: *self.queue.hash(instance.definition),
            stored: Stored {
                cursor: (!instance.cursor.is_empty()).then(|| Bytes::from(&instance.cursor[..])),
                cells,
                next_seq: instance.next_seq,
                next_strand: instance.next_strand,
            },
            needs: (Arc::clone(&instance.tags), instance.priority),
            carried: None,
            damage: None,
        })
    }

    fn describe(&self, instance: &Instance) -> InstanceRow {
        let awaiting = instance.awaiting.as_deref();
        let stopped = instance.asked.as_deref().filter(|_| {
            matches!(instance.status, Status::Paused | Status::Cancelled)
                || instance.pending().is_some()
        });
        let (output, error) = match instance.status {
            Status::Completed => (instance.result.clone(), None),
            Status::Failed => (None, instance.result.clone()),
            _ => (None, None),
        };
        let shows_parking = matches!(
            instance.status,
            Status::Waiting | Status::AwaitingSignal | Status::Paused
        );
        InstanceRow {
            id: Arc::clone(&instance.id),
            workflow: Arc::clone(self.queue.workflow(instance.definition)),
            hash: *self.queue.hash(instance.definition),
            status: instance.status,
            created_us: instance.created_us,
            updated_us: instance.updated_us,
            ended_us: instance.status.is_terminal().then_some(instance.updated_us),
            start_at_us: (instance.start_at_us > 0).then_some(instance.start_at_us),
            wake_at_us: if shows_parking {
                instance.wake_at_us()
            } else {
                None
            },
            delay_id: instance.delay_id.clone().filter(|_| shows_parking),
            signal_id: awaiting
                .filter(|_| shows_parking)
                .and_then(|a| a.signal_id.clone()),
            signal_name: awaiting
                .filter(|_| shows_parking)
                .and_then(|a| a.signal_name.clone()),
            reason: stopped.and_then(|asked| asked.request.reason.clone()),
            by: stopped.and_then(|asked| asked.request.by.clone()),
            output,
            error,
            needs: (Arc::clone(&instance.tags), instance.priority),
            worker: instance.holder.clone(),
            fence: instance.fence,
            steps: instance.steps.len() as u32,
        }
    }

    fn refuse<T>(&self, slot: Slot, verb: &'static str, hint: &'static str) -> StoreResult<T> {
        match self.at(slot) {
            Some(instance) => Err(StoreError::InvalidState {
                id: Arc::clone(&instance.id),
                status: instance.status,
                verb,
                hint,
            }),
            None => Err(StoreError::NotFound { id: Arc::from("") }),
        }
    }

    fn conflict(
        &self,
        slot: Slot,
        hash: &Hash,
        policy: ConflictPolicy,
    ) -> StoreResult<Option<Box<InstanceRow>>> {
        let Some(existing) = self.at(slot) else {
            return Ok(None);
        };
        if policy == ConflictPolicy::TerminateExisting {
            return Ok(None);
        }
        let found = self.queue.hash(existing.definition);
        if found != hash {
            return Err(StoreError::DefinitionMismatch {
                id: Arc::clone(&existing.id),
                expected: *hash,
                found: *found,
            });
        }
        match policy {
            ConflictPolicy::UseExisting => Ok(Some(Box::new(self.describe(existing)))),
            _ => Err(StoreError::AlreadyExists {
                id: Arc::clone(&existing.id),
                status: existing.status,
            }),
        }
    }

    /// Creates an instance in the place of whatever has its id.
    fn create(&mut self, new: NewInstance, now_us: i64) -> Slot {
        if let Some(&slot) = self.by_id.get(&new.id) {
            self.erase(slot, now_us);
        }
        let definition = self.queue.definition(&new.hash, &new.workflow, &new.tree);
        let mut instance = Box::new(Instance::fresh(
            Arc::clone(&new.id),
            definition,
            new.input,
            new.needs,
        ));
        self.next_created += 1;
        instance.created_seq = self.next_created;
        instance.created_us = now_us;
        instance.updated_us = now_us;
        if let Some(at) = new.start_at_us.filter(|at| *at > now_us) {
            instance.start_at_us = at;
            instance.wake_us = at;
            instance.status = Status::Waiting;
        }
        instance.events = self.orphans.remove(&new.id);
        self.settle_in(instance, now_us)
    }

    /// Gives a new instance a slot, and the place that its status says.
    fn settle_in(&mut self, instance: Box<Instance>, now_us: i64) -> Slot {
        let (id, seq) = (Arc::clone(&instance.id), instance.created_seq);
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(instance);
                slot
            }
            None => {
                self.slots.push(Some(instance));
                (self.slots.len() - 1) as Slot
            }
        };
        self.by_id.insert(id, slot);
        self.created.insert(seq, slot);
        self.place(slot, now_us);
        slot
    }

    fn request(
        &mut self,
        id: &str,
        request: Request,
        cancel: bool,
        now_us: i64,
    ) -> StoreResult<Status> {
        self.expire(now_us);
        let slot = self.slot(id)?;
        let verb = if cancel { "cancel" } else { "pause" };
        let Some(instance) = self.at_mut(slot) else {
            return Err(StoreError::NotFound { id: id.into() });
        };
        match instance.status {
            Status::Cancelled if cancel => return Ok(Status::Cancelled),
            Status::Paused if !cancel => return Ok(Status::Paused),
            status if status.is_terminal() => return self.refuse(slot, verb, "; it has ended"),
            _ => {}
        }
        if instance
            .pending()
            .is_some_and(|pending_cancel| pending_cancel || !cancel)
        {
            // The same was asked before, or a cancel is pending, which beats a pause.
            return Ok(instance.status);
        }
        let resume = instance
            .asked
            .as_ref()
            .map_or(instance.status, |asked| asked.resume);
        instance.asked = Some(Box::new(Asked {
            request,
            cancel,
            pending: true,
            resume,
        }));
        if instance.holder.is_none() {
            self.settle_request(slot, now_us);
        }
        Ok(self
            .at(slot)
            .map_or(Status::Cancelled, |instance| instance.status))
    }
}
