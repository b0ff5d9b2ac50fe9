//! The storage contract, call by call, over the maps and indexes of the parent module.

use sayiir_core::snapshot::Snapshot;

use super::*;

impl MemoryStore {
    /// Applies one checkpoint, as [`Store::commit`], and leaves the commit's buffers to the caller.
    ///
    /// `slot` comes from the claim. A slot that was used again in between has another fence.
    pub fn apply(&self, slot: u32, fence: u64, commit: &mut Commit, now_us: i64) -> Reply {
        let mut inner = self.lock();
        let inner = &mut *inner;
        inner.expire(now_us);
        let Some(instance) = inner.at_mut(slot) else {
            return Reply::LeaseLost;
        };
        if instance.fence != fence {
            return Reply::LeaseLost;
        }
        let Some(worker) = &instance.holder else {
            return Reply::LeaseLost;
        };
        instance.updated_us = now_us;
        instance
            .steps
            .extend(commit.steps.drain(..).map(|step| HistoryRow {
                step,
                worker: Arc::clone(worker),
            }));
        if let Some(cursor) = &mut commit.cursor {
            std::mem::swap(&mut instance.cursor, cursor);
        }
        instance.cells.extend(commit.cells.drain(..));
        if commit.cells_from != instance.cells_from {
            instance.cells_from = commit.cells_from;
            if commit.cells_from == NO_CELLS {
                // No later holder can refer to them any more.
                instance.cells.clear();
            }
        }
        instance.next_seq = commit.next_seq;
        instance.next_strand = commit.next_strand;
        if !commit.consumed.is_empty()
            && let Some(events) = instance.events.as_deref_mut()
        {
            events.remove(&commit.consumed);
        }
        if let Some((tags, priority)) = commit.needs.take() {
            (instance.tags, instance.priority) = (tags, priority);
        }
        if let Some(family) = commit.family.take() {
            inner.change_family(slot, fence, *family, now_us);
        }
        let Some(instance) = inner.at_mut(slot) else {
            return Reply::LeaseLost;
        };
        let pending = instance.pending();
        match std::mem::replace(&mut commit.next, Next::Hold) {
            Next::Completed(output) => {
                instance.asked = None;
                inner.finish(slot, Status::Completed, Some(output), now_us);
                inner.let_go(slot, now_us);
                Reply::Ok
            }
            Next::Failed(error) => {
                instance.asked = None;
                inner.finish(slot, Status::Failed, Some(error), now_us);
                inner.let_go(slot, now_us);
                Reply::Ok
            }
            Next::Park(parked) => {
                if pending.is_none()
                    && let Some(events) = &instance.events
                {
                    let events = events.oldest(&parked.awaits);
                    if !events.is_empty() {
                        return Reply::Events(events);
                    }
                }
                instance.park(*parked);
                inner.let_go(slot, now_us);
                stopped(pending)
            }
            Next::HandOver => {
                inner.let_go(slot, now_us);
                stopped(pending)
            }
            Next::Hold => match pending {
                None => Reply::Ok,
                Some(false) if !commit.quiescent => Reply::PausePending,
                Some(_) => {
                    inner.let_go(slot, now_us);
                    stopped(pending)
                }
            },
        }
    }
}

impl Store for MemoryStore {
    fn submit(
        &self,
        batch: Vec<NewInstance>,
        policy: ConflictPolicy,
        now_us: i64,
    ) -> StoreResult<Vec<Submitted>> {
        let mut inner = self.lock();
        inner.expire(now_us);
        inner.forget_old(now_us);
        let mut existing = Vec::with_capacity(batch.len());
        for new in &batch {
            existing.push(match inner.by_id.get(&new.id) {
                Some(&slot) => inner.conflict(slot, &new.hash, policy)?,
                None => None,
            });
        }
        Ok(batch
            .into_iter()
            .zip(existing)
            .map(|(new, existing)| match existing {
                Some(row) => Submitted::Existing(row),
                None => {
                    inner.create(new, now_us);
                    Submitted::Created
                }
            })
            .collect())
    }

    fn check_submit(
        &self,
        id: &str,
        hash: &Hash,
        policy: ConflictPolicy,
        now_us: i64,
    ) -> StoreResult<Option<Box<InstanceRow>>> {
        let mut inner = self.lock();
        inner.expire(now_us);
        match inner.by_id.get(id) {
            Some(&slot) => inner.conflict(slot, hash, policy),
            None => Ok(None),
        }
    }

    fn claim(
        &self,
        claimant: &Claimant,
        hashes: &[Hash],
        limit: usize,
        now_us: i64,
    ) -> StoreResult<Vec<Claim>> {
        let mut inner = self.lock();
        inner.expire(now_us);
        inner.wake_due(now_us);
        let mut claims = Vec::new();
        while claims.len() < limit {
            let Some(slot) = inner.queue.pop(claimant, hashes) else {
                break;
            };
            if let Some(instance) = inner.at_mut(slot) {
                instance.place = Place::None;
            }
            claims.extend(inner.lease(slot, claimant, now_us));
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
        let mut inner = self.lock();
        inner.expire(now_us);
        inner.wake_due(now_us);
        let slot = inner.slot(id)?;
        let free = inner.at(slot).is_some_and(|instance| {
            instance.place == Place::Ready
                && covers(claimant.tags.as_ref(), &instance.tags)
                && hashes.contains(inner.queue.hash(instance.definition))
        });
        Ok(if free {
            inner.lease(slot, claimant, now_us)
        } else {
            None
        })
    }

    fn renew(&self, worker: &str, lease_us: i64, now_us: i64) -> StoreResult<Vec<Arc<str>>> {
        let mut inner = self.lock();
        inner.expire(now_us);
        let Some(held) = inner.workers.get_mut(worker) else {
            return Ok(Vec::new());
        };
        held.expires_us = held.expires_us.max(now_us.saturating_add(lease_us));
        let slots: Vec<Slot> = held.held.iter().copied().collect();
        Ok(slots
            .into_iter()
            .filter_map(|slot| inner.at(slot))
            .filter(|instance| instance.pending().is_some())
            .map(|instance| Arc::clone(&instance.id))
            .collect())
    }

    fn release(&self, worker: &str, now_us: i64) -> StoreResult<usize> {
        let mut inner = self.lock();
        let Some(worker) = inner.workers.remove(worker) else {
            return Ok(0);
        };
        for slot in &worker.held {
            inner.let_go(*slot, now_us);
        }
        Ok(worker.held.len())
    }

    fn give_back(&self, id: &str, fence: u64, now_us: i64) -> StoreResult<bool> {
        let mut inner = self.lock();
        let Some(&slot) = inner.by_id.get(id) else {
            return Ok(false);
        };
        let held = inner
            .at(slot)
            .is_some_and(|instance| instance.fence == fence && instance.holder.is_some());
        if held {
            inner.let_go(slot, now_us);
        }
        Ok(held)
    }

    fn commit(
        &self,
        _slot: u64,
        id: &Arc<str>,
        fence: u64,
        commit: &Commit,
        now_us: i64,
    ) -> StoreResult<Reply> {
        let slot = self.lock().by_id.get(id).copied();
        // Between the two locks the slot may change hands; then its fence is another one.
        Ok(slot.map_or(Reply::LeaseLost, |slot| {
            self.apply(slot, fence, &mut commit.clone(), now_us)
        }))
    }

    fn news(&self, id: &str, fence: u64, names: &[Arc<str>], now_us: i64) -> StoreResult<News> {
        let mut inner = self.lock();
        inner.expire(now_us);
        let Some(instance) = inner
            .get(id)
            .filter(|instance| instance.fence == fence && instance.holder.is_some())
        else {
            return Ok(News {
                lost: true,
                ..News::default()
            });
        };
        let pending = instance.pending();
        Ok(News {
            lost: false,
            cancel: pending == Some(true),
            pause: pending == Some(false),
            events: instance
                .events
                .as_ref()
                .map(|events| events.oldest(names))
                .unwrap_or_default(),
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
        let mut inner = self.lock();
        let inner = &mut *inner;
        inner.expire(now_us);
        inner.forget_old(now_us);
        let Some(&slot) = inner.by_id.get(id) else {
            let id: Arc<str> = id.into();
            inner.orphans_by_age.push_back((now_us, Arc::clone(&id)));
            let early = inner.orphans.entry(id).or_default();
            return Ok(early.push(name, payload, key, now_us));
        };
        let Some(instance) = inner.at_mut(slot) else {
            return Err(StoreError::NotFound { id: id.into() });
        };
        if instance.status.is_terminal() {
            return inner.refuse(slot, "send an event to", "; it has ended");
        }
        let fresh = instance
            .events
            .get_or_insert_default()
            .push(name, payload, key, now_us);
        if instance.status == Status::AwaitingSignal && instance.holder.is_none() {
            inner.place(slot, now_us);
        }
        Ok(fresh)
    }

    fn cancel(&self, id: &str, request: Request, now_us: i64) -> StoreResult<Status> {
        self.lock().request(id, request, true, now_us)
    }

    fn pause(&self, id: &str, request: Request, now_us: i64) -> StoreResult<Status> {
        self.lock().request(id, request, false, now_us)
    }

    fn unpause(&self, id: &str, now_us: i64) -> StoreResult<Status> {
        let mut inner = self.lock();
        inner.expire(now_us);
        let slot = inner.slot(id)?;
        let Some(instance) = inner.at_mut(slot) else {
            return Err(StoreError::NotFound { id: id.into() });
        };
        if instance.status == Status::Paused {
            instance.status = instance
                .asked
                .take()
                .map_or(Status::InProgress, |asked| asked.resume);
            instance.updated_us = now_us;
            inner.place(slot, now_us);
        } else if instance.pending() == Some(false) {
            // The pause has not taken effect yet: it is simply taken back.
            instance.asked = None;
        } else {
            return inner.refuse(
                slot,
                "unpause",
                ", not paused; only a paused instance can be unpaused",
            );
        }
        Ok(inner
            .at(slot)
            .map_or(Status::InProgress, |instance| instance.status))
    }

    fn get(&self, id: &str, now_us: i64) -> StoreResult<InstanceRow> {
        let mut inner = self.lock();
        inner.expire(now_us);
        let slot = inner.slot(id)?;
        match inner.at(slot) {
            Some(instance) => Ok(inner.describe(instance)),
            None => Err(StoreError::NotFound { id: id.into() }),
        }
    }

    fn find(
        &self,
        filter: &Filter,
        limit: usize,
        before: Option<u64>,
        now_us: i64,
    ) -> StoreResult<Page> {
        let mut inner = self.lock();
        inner.expire(now_us);
        let mut page = Page::default();
        for (_, &slot) in inner.created.range(..before.unwrap_or(u64::MAX)).rev() {
            let Some(instance) = inner.at(slot) else {
                continue;
            };
            let fits = filter.status.is_none_or(|status| status == instance.status)
                && filter.workflow.as_ref().is_none_or(|workflow| {
                    **workflow == **inner.queue.workflow(instance.definition)
                })
                && filter
                    .id_prefix
                    .as_ref()
                    .is_none_or(|prefix| instance.id.starts_with(prefix.as_str()))
                && filter
                    .created_after_us
                    .is_none_or(|at| instance.created_us > at)
                && filter
                    .created_before_us
                    .is_none_or(|at| instance.created_us < at);
            if !fits {
                continue;
            }
            if page.rows.len() == limit {
                // One more matches: the next page begins below the last row that is on this one.
                page.next = page
                    .rows
                    .last()
                    .and_then(|row| inner.get(&row.id))
                    .map(|last| last.created_seq);
                break;
            }
            page.rows.push(inner.describe(instance));
        }
        Ok(page)
    }

    fn history(&self, id: &str) -> StoreResult<Vec<HistoryRow>> {
        let inner = self.lock();
        let slot = inner.slot(id)?;
        Ok(inner
            .at(slot)
            .map(|instance| instance.steps.clone())
            .unwrap_or_default())
    }

    fn step(&self, id: &str, path_or_name: &str) -> StoreResult<Option<StepRow>> {
        let inner = self.lock();
        let slot = inner.slot(id)?;
        let Some(instance) = inner.at(slot) else {
            return Ok(None);
        };
        let done = |row: &&HistoryRow| {
            matches!(row.step.outcome, Outcome::Completed | Outcome::Elapsed)
                && row.step.output.is_some()
        };
        let newest = |fits: &dyn Fn(&StepRow) -> bool| {
            instance
                .steps
                .iter()
                .rev()
                .filter(done)
                .find(|row| fits(&row.step))
                .map(|row| row.step.clone())
        };
        Ok(newest(&|row| *row.path == *path_or_name)
            .or_else(|| newest(&|row| *row.name == *path_or_name)))
    }

    fn input(&self, id: &str) -> StoreResult<Bytes> {
        let inner = self.lock();
        inner
            .get(id)
            .map(|instance| Bytes::clone(&instance.input))
            .ok_or_else(|| StoreError::NotFound { id: id.into() })
    }

    fn rows(&self, id: &str, seqs: &[u32]) -> StoreResult<Vec<StepRow>> {
        let inner = self.lock();
        let instance = inner
            .get(id)
            .ok_or_else(|| StoreError::NotFound { id: id.into() })?;
        Ok(seqs
            .iter()
            .filter_map(|seq| instance.row(*seq))
            .map(|row| row.step.clone())
            .collect())
    }

    fn items(&self, id: &str, group: StrandId) -> StoreResult<Vec<ItemEnd>> {
        let inner = self.lock();
        let slot = inner.slot(id)?;
        Ok(inner.ends(slot, group).unwrap_or_default())
    }

    fn export(&self, id: &str, now_us: i64) -> StoreResult<Box<Snapshot>> {
        let mut inner = self.lock();
        inner.expire(now_us);
        let slot = inner.slot(id)?;
        inner.picture(slot)
    }

    fn import(&self, snapshot: &Snapshot, now_us: i64) -> StoreResult<()> {
        let mut inner = self.lock();
        inner.expire(now_us);
        inner.forget_old(now_us);
        inner.take_in(snapshot, now_us)
    }

    fn delete(&self, id: &str, force: bool, now_us: i64) -> StoreResult<()> {
        let mut inner = self.lock();
        inner.expire(now_us);
        let slot = inner.slot(id)?;
        let running = inner
            .at(slot)
            .is_some_and(|instance| !instance.status.is_terminal());
        if running && !force {
            return inner.refuse(
                slot,
                "delete",
                "; cancel it first, or delete it with force=True",
            );
        }
        inner.erase(slot, now_us);
        Ok(())
    }

    fn backlog(&self, now_us: i64) -> StoreResult<Vec<Backlog>> {
        let inner = self.lock();
        let age = |slot| {
            let since = inner.at(slot).map_or(now_us, |one| one.updated_us);
            now_us.saturating_sub(since).max(0)
        };
        Ok(inner.queue.backlog(age))
    }

    fn next_wake_us(&self) -> StoreResult<Option<i64>> {
        Ok(self.lock().timers.first().map(|(at, _)| *at))
    }
}

fn stopped(pending: Option<bool>) -> Reply {
    match pending {
        None => Reply::Ok,
        Some(true) => Reply::Cancelled,
        Some(false) => Reply::Paused,
    }
}
