//! What comes out: checkpoints, the steps that may start behind them, and who is no longer wanted.

use super::*;

impl Machine {
    /// The next checkpoint, if anything must be written. Answer it with [`Machine::reply`].
    pub fn commit(&mut self) -> Option<Commit> {
        if self.held != Held::Yes || self.awaiting_reply.is_some() {
            return None;
        }
        // What was issued may run while this commit is on its way.
        let quiescent = self.running as usize == self.starts.len();
        let idle = self.running == 0;
        // Items are made commit by commit, and a map is not over before it is known how.
        let making = !self.spreading.is_empty();
        let (next, after) = if let Some(next) = self.ended.take() {
            let after = if matches!(next, Next::Completed(_)) {
                Held::Completed
            } else {
                Held::Failed
            };
            (next, after)
        } else if !idle || !self.gathering.is_empty() {
            (Next::Hold, Held::Yes)
        } else if self.release && (making || !(self.ready.is_empty() && self.unserved.is_empty())) {
            (Next::HandOver, Held::HandedOver)
        } else if self.drain && (making || !self.ready.is_empty()) {
            self.must_commit = true;
            (Next::Hold, Held::Yes)
        } else if making {
            (Next::Hold, Held::Yes)
        } else if let Some(id) = self.unserved.first().copied() {
            self.wanted = self.task_of(id);
            (Next::HandOver, Held::HandedOver)
        } else if self.parked.is_empty() {
            (Next::Hold, Held::Yes)
        } else {
            (Next::Park(Box::new(self.park())), Held::Parked)
        };
        if next == Next::Hold && !self.must_commit {
            return None;
        }
        let mut cursor = None;
        for at in 0..self.dirty.len() {
            let id = self.dirty[at];
            let mut scratch = std::mem::take(&mut self.scratch);
            let Some(strand) = self.strand(id).filter(|strand| strand.dirty) else {
                self.scratch = scratch;
                continue;
            };
            strand.dirty = false;
            scratch.clear();
            Cell::encode_into(
                &mut scratch,
                strand.levels.iter().map(|level| level.frame),
                &strand.phase,
                strand.attempt,
                &strand.value,
            );
            if id == ROOT {
                cursor = Some(scratch);
            } else {
                self.cells.push((id, Bytes::from(&scratch[..])));
                self.scratch = scratch;
            }
        }
        self.dirty.clear();
        let cells_from = match &self.root.region {
            Some(region) => region.low,
            None => self.root.value.low(),
        };
        if self.children.is_empty() && !self.ends.is_empty() {
            self.ends.retain(|id, _| *id >= cells_from);
        }
        let needs = self.current_needs(&next);
        self.must_commit = false;
        self.awaiting_reply = Some(after);
        std::mem::swap(&mut self.staged, &mut self.starts);
        let now = (self.next_seq, self.next_strand);
        let from = std::mem::replace(&mut self.from, now);
        Some(Commit {
            steps: std::mem::take(&mut self.steps),
            cursor,
            cells: std::mem::take(&mut self.cells),
            from,
            next_seq: self.next_seq,
            next_strand: self.next_strand,
            cells_from,
            consumed: std::mem::take(&mut self.consumed),
            needs,
            quiescent,
            next,
            item: self.def.item,
            family: self.family.take(),
        })
    }

    /// Takes the emptied buffers of a commit back, so that a steady run of steps allocates none.
    pub fn reuse(&mut self, commit: Commit) {
        let Commit {
            mut steps,
            mut cells,
            cursor,
            ..
        } = commit;
        if self.steps.is_empty() {
            steps.clear();
            self.steps = steps;
        }
        if self.cells.is_empty() {
            cells.clear();
            self.cells = cells;
        }
        if let Some(cursor) = cursor {
            self.scratch = cursor;
        }
    }

    /// Steps that may begin now: everything that leads to them is durable. Call it after
    /// [`Machine::commit`] answered with nothing more to write.
    pub fn take_starts(&mut self) -> Vec<Start> {
        self.issue();
        std::mem::take(&mut self.issued)
    }

    /// The startable step if there is exactly one, without a vector.
    pub fn take_lone_start(&mut self) -> Option<Start> {
        self.issue();
        if self.issued.len() == 1 {
            self.issued.pop()
        } else {
            None
        }
    }

    /// What was started since the last commit needs none if nothing else asks for one.
    pub(super) fn issue(&mut self) {
        if self.awaiting_reply.is_none() && !self.must_commit {
            self.issued.append(&mut self.starts);
        }
    }

    /// Tickets of running steps whose results nobody wants any more.
    pub fn take_abandoned(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.abandoned)
    }

    pub(super) fn park(&self) -> Parked {
        let mut parked = Parked {
            wake_at_us: self.wake_at_us(),
            awaits: self.awaits(),
            ..Parked::default()
        };
        let mut ids = self.parked.clone();
        ids.sort_unstable();
        let mut soonest = i64::MAX;
        for id in ids {
            let Some(strand) = self.peek(id) else {
                continue;
            };
            let Some(level) = strand.levels.last() else {
                continue;
            };
            match strand.phase {
                Phase::Sleeping { until_us } if until_us < soonest => {
                    soonest = until_us;
                    parked.delay_id = Some(self.path_at(level));
                }
                Phase::Awaiting { .. } if parked.signal_id.is_none() => {
                    parked.awaiting = true;
                    parked.signal_id = Some(self.path_at(level));
                    parked.signal_name = self.awaited(id);
                }
                _ => {}
            }
        }
        parked
    }

    /// Tags and priority for the instance row, if they differ from what is stored.
    pub(super) fn current_needs(&mut self, next: &Next) -> Option<(Tags, u8)> {
        let task = match next {
            Next::Completed(_) | Next::Failed(_) => return None,
            Next::Park(_) if self.children.is_empty() => {
                let level = self.root.levels.last()?;
                let behind = u32::from(!matches!(self.root.phase, Phase::Backoff { .. }));
                self.task_at(level.block, level.frame.at + behind)
            }
            Next::Park(_) => None,
            Next::HandOver if self.unserved.is_empty() => self
                .ready
                .front()
                .copied()
                .and_then(|id| self.task_of(id))
                .or(self.wanted),
            Next::Hold | Next::HandOver => self.wanted,
        };
        let needs = match task {
            Some(task) => {
                let policy = &self.def.tasks[task as usize].policy;
                if policy.priority == self.needs.1 && policy.tags == self.needs.0 {
                    return None;
                }
                (policy.tags.clone(), policy.priority)
            }
            None if self.needs.0.is_empty() => return None,
            None => (Tags::from([]), self.needs.1),
        };
        self.needs = needs.clone();
        Some(needs)
    }

    pub(super) fn dispatch(&mut self, now_us: i64) {
        if self.drain || self.ended.is_some() {
            return;
        }
        let def = Arc::clone(&self.def);
        while self.running < self.width {
            let Some(id) = self.ready.pop_front() else {
                return;
            };
            let ticket = self.next_ticket;
            let Some(strand) = self.strand(id) else {
                continue;
            };
            let Some(level) = strand.levels.last() else {
                continue;
            };
            let node = def.node(def.block(level.block).nodes[level.frame.at as usize]);
            let (NodeKind::Task { task } | NodeKind::Route { key: task, .. }) = &node.kind else {
                continue;
            };
            let start = Start {
                strand: id,
                ticket,
                task: *task,
                path: path_of(&def, level),
                attempt: strand.attempt + 1,
            };
            strand.running = Some((ticket, now_us));
            self.next_ticket += 1;
            self.running += 1;
            self.starts.push(start);
        }
    }

    /// Takes back starts that were not handed out.
    pub(super) fn withdraw(&mut self) {
        let mut unstarted = std::mem::take(&mut self.issued);
        unstarted.append(&mut self.staged);
        unstarted.append(&mut self.starts);
        for start in unstarted.into_iter().rev() {
            if let Some(strand) = self.strand(start.strand) {
                strand.running = None;
            }
            self.running -= 1;
            self.ready.push_front(start.strand);
        }
    }

    pub(super) fn leave(&mut self, held: Held) {
        self.held = held;
        self.issued.clear();
        self.staged.clear();
        self.starts.clear();
        let root = self.root.running.take();
        let children = self.children.values_mut().filter_map(|s| s.running.take());
        self.abandoned
            .extend(root.into_iter().chain(children).map(|(ticket, _)| ticket));
        self.running = 0;
    }

    /// Takes a running step out of the running ones, if this handle is the current one.
    pub(super) fn finish(&mut self, id: StrandId, ticket: u32) -> Option<(Strand, i64)> {
        if !self.is_running(id, ticket) {
            return None;
        }
        let mut strand = if id == ROOT {
            std::mem::take(&mut self.root)
        } else {
            self.children.remove(&id)?
        };
        let (_, started_us) = strand.running.take()?;
        self.running -= 1;
        Some((strand, started_us))
    }
}
