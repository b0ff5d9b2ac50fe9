//! What the interpreter is told: a step ended, time passed, a store answered.

use super::*;

impl Machine {
    /// A step returned `output`. `false`: nobody waits for it any more.
    pub fn completed(
        &mut self,
        strand: StrandId,
        ticket: u32,
        output: Bytes,
        now_us: i64,
        values: &impl Values,
    ) -> Result<bool> {
        let Some((mut live, started_us)) = self.finish(strand, ticket) else {
            return Ok(false);
        };
        let def = Arc::clone(&self.def);
        let Some(level) = live.levels.last_mut() else {
            return Err(misfit());
        };
        let path = path_of(&def, level);
        let node = def.node(def.block(level.block).nodes[level.frame.at as usize]);
        let attempt = live.attempt + 1;
        let seq = self.record(StepRow {
            seq: 0,
            path: Arc::clone(&path),
            name: Arc::clone(self.task_name(&node.kind, &node.name)),
            attempt,
            outcome: Outcome::Completed,
            output: Some(Bytes::clone(&output)),
            error: None,
            started_us,
            ended_us: now_us,
        });
        live.attempt = 0;
        live.phase = Phase::Ready;
        if let NodeKind::Route { arms, default, .. } = &node.kind {
            let arm = match envelope::as_text(&output)? {
                Some(key) => match arms.iter().position(|(name, _)| **name == *key) {
                    Some(arm) => Ok(arm),
                    None if default.is_some() => Ok(arms.len()),
                    None => Err(format!(
                        "the key function of route '{}' returned {key:?}, which is none of its keys and there is \
                         no default branch",
                        node.name
                    )),
                },
                None => Err(format!(
                    "the key function of route '{}' returned {}, not a str",
                    node.name,
                    envelope::describe(&output)
                )),
            };
            match arm {
                Ok(arm) => {
                    level.frame.extra = arm as u32;
                    level.frame.key = seq;
                    let frame = level.frame;
                    let (block, prefix) =
                        inner_block(&node.kind, &frame, &path).ok_or_else(misfit)?;
                    live.levels.push(Level {
                        frame: Frame::default(),
                        block,
                        prefix,
                    });
                }
                Err(message) => {
                    self.put(strand, live);
                    self.fail_node(strand, "RouteKeyError", message, now_us)?;
                    self.run(now_us, values)?;
                    return Ok(true);
                }
            }
        } else {
            live.value = Ref::Step(seq);
            level.frame.at += 1;
        }
        self.put(strand, live);
        self.mark(strand);
        self.work.push(strand);
        self.run(now_us, values)?;
        Ok(true)
    }

    /// An attempt failed. `false`: nobody waits for it any more.
    pub fn failed(
        &mut self,
        strand: StrandId,
        ticket: u32,
        failure: Failure,
        now_us: i64,
        values: &impl Values,
    ) -> Result<bool> {
        let Some((mut live, started_us)) = self.finish(strand, ticket) else {
            return Ok(false);
        };
        let def = Arc::clone(&self.def);
        let Some(level) = live.levels.last() else {
            return Err(misfit());
        };
        let path = path_of(&def, level);
        let node = def.node(def.block(level.block).nodes[level.frame.at as usize]);
        let name = Arc::clone(self.task_name(&node.kind, &node.name));
        let (NodeKind::Task { task } | NodeKind::Route { key: task, .. }) = &node.kind else {
            return Err(misfit());
        };
        let retry = &def.tasks[*task as usize].policy.retry;
        live.attempt += 1;
        let again = failure.retryable && live.attempt <= retry.max_retries;
        let mut record = failure.record;
        record.task = name.to_string();
        record.path = path.to_string();
        record.retryable = failure.retryable;
        let seq = self.record(StepRow {
            seq: 0,
            path,
            name,
            attempt: live.attempt,
            outcome: if again {
                Outcome::Retried
            } else {
                Outcome::Failed
            },
            output: None,
            error: Some(record.encode()),
            started_us,
            ended_us: now_us,
        });
        if again {
            let wait_us = failure
                .retry_after_us
                .unwrap_or_else(|| retry.wait_us(live.attempt, failure.unit))
                .max(0);
            live.phase = Phase::Backoff {
                until_us: now_us.saturating_add(wait_us),
            };
            self.put(strand, live);
            self.mark(strand);
            if wait_us == 0 {
                self.wake(strand);
                self.work.push(strand);
            } else {
                self.park_strand(strand);
            }
        } else {
            self.put(strand, live);
            self.fail(strand, seq)?;
        }
        self.run(now_us, values)?;
        Ok(true)
    }

    /// A step was stopped by its holder before it ended; it is next again.
    pub fn interrupted(
        &mut self,
        strand: StrandId,
        ticket: u32,
        now_us: i64,
        values: &impl Values,
    ) -> Result<bool> {
        let Some((mut live, _)) = self.finish(strand, ticket) else {
            return Ok(false);
        };
        live.phase = Phase::Ready;
        self.put(strand, live);
        self.work.push(strand);
        self.must_commit = true;
        self.run(now_us, values)?;
        Ok(true)
    }

    /// Time has passed and `events` may have come; does whatever is due.
    pub fn tick(&mut self, events: Vec<Event>, now_us: i64, values: &impl Values) -> Result<()> {
        if self.held != Held::Yes {
            return Ok(());
        }
        let mut ids = std::mem::take(&mut self.parked);
        self.soonest = None;
        ids.sort_unstable();
        let mut events: Vec<Option<Event>> = events
            .into_iter()
            .filter(|event| !self.taken.contains(&event.seq))
            .map(Some)
            .collect();
        for id in ids {
            if self.ended.is_some() {
                break;
            }
            let Some(strand) = self.peek(id) else {
                continue;
            };
            let due = until(&strand.phase).is_some_and(|at| at <= now_us);
            let phase = strand.phase.clone();
            match phase {
                Phase::Backoff { .. } if due => {
                    self.wake(id);
                    self.work.push(id);
                }
                Phase::Sleeping { .. } if due => self.slept(id, now_us),
                Phase::Awaiting { .. } | Phase::Spread { .. } => {
                    let name = self.awaited(id);
                    let event = events
                        .iter_mut()
                        .find(|event| {
                            event
                                .as_ref()
                                .is_some_and(|event| Some(&event.name) == name.as_ref())
                        })
                        .and_then(Option::take);
                    match event {
                        Some(event) if let Phase::Spread { group, .. } = phase => {
                            self.gather(id, group, event.seq, now_us, values)?;
                        }
                        Some(event) => {
                            self.consumed.push(event.seq);
                            self.taken.insert(event.seq);
                            self.received(id, Outcome::Completed, event.payload, now_us);
                        }
                        None if due => self.timed_out(id, now_us)?,
                        None => self.park_strand(id),
                    }
                }
                _ => self.park_strand(id),
            }
        }
        self.run(now_us, values)
    }

    /// Takes up a store's answer to the last commit.
    pub fn reply(&mut self, reply: Reply, now_us: i64, values: &impl Values) -> Result<()> {
        if self.held != Held::Yes {
            return Ok(());
        }
        let intended = self.awaiting_reply.take().unwrap_or(Held::Yes);
        self.issued.append(&mut self.staged);
        match reply {
            Reply::Ok => {
                self.held = intended;
                if self.drain && !self.release && self.running == 0 {
                    // The pause was taken back before it took effect.
                    self.drain = false;
                    self.dispatch(now_us);
                }
                if self.held == Held::Yes {
                    self.make_items(values)?;
                }
            }
            Reply::PausePending => {
                self.held = intended;
                self.drain(false);
            }
            Reply::Events(events) => self.tick(events, now_us, values)?,
            Reply::Cancelled => self.leave(Held::Cancelled),
            Reply::Paused => self.leave(Held::Paused),
            Reply::LeaseLost => self.leave(Held::Lost),
        }
        if self.held != Held::Yes {
            self.leave(self.held);
        }
        Ok(())
    }

    /// Gives the instance up as damaged: it ends failed, with `reason`, at the next commit.
    pub fn abort(&mut self, reason: &Error) {
        self.drop_below(ROOT);
        self.issued.clear();
        self.staged.clear();
        if let Some((ticket, _)) = self.root.running.take() {
            self.running -= 1;
            self.abandoned.push(ticket);
        }
        self.starts.clear();
        self.spreading.clear();
        self.gathering.clear();
        self.family = self.def.all_items().next().map(|_| {
            Box::new(Family {
                batch: None,
                over: vec![crate::state::EVERY_GROUP],
            })
        });
        self.steps.clear();
        self.cells.clear();
        self.consumed.clear();
        self.dirty.clear();
        self.ended = Some(Next::Failed(damaged(reason)));
        self.must_commit = true;
    }
}
