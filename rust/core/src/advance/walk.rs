//! Moving one strand along the definition until it starts a step, parks, joins or ends.

use super::*;

impl Machine {
    pub(super) fn run(&mut self, now_us: i64, values: &impl Values) -> Result<()> {
        while let Some(id) = self.work.pop() {
            if self.ended.is_some() {
                self.work.clear();
                break;
            }
            self.walk(id, now_us, values)?;
        }
        if self.ended.is_none() {
            self.make_items(values)?;
        }
        self.dispatch(now_us);
        Ok(())
    }

    /// Moves one strand on until it starts a step, parks, joins or ends.
    pub(super) fn walk(&mut self, id: StrandId, now_us: i64, values: &impl Values) -> Result<()> {
        let def = Arc::clone(&self.def);
        let mut turns = 0u32;
        loop {
            let Some(strand) = self.strand(id) else {
                return Ok(());
            };
            let Some(level) = strand.levels.last_mut() else {
                return Err(misfit());
            };
            let block = def.block(level.block);
            let Some(&node_id) = block.nodes.get(level.frame.at as usize) else {
                // The block is finished: go on behind the node that it belongs to.
                strand.levels.pop();
                let Some(outer) = strand.levels.last().cloned() else {
                    let value = strand.value.clone();
                    return self.end(id, End::Value(value), values);
                };
                self.mark(id);
                turns += 1;
                if turns > IDLE_TURNS {
                    return self.fail_node(
                        id,
                        "LoopError",
                        "the loop turns without running any step".into(),
                        now_us,
                    );
                }
                let node = def.node(def.block(outer.block).nodes[outer.frame.at as usize]);
                match &node.kind {
                    NodeKind::Loop {
                        body,
                        max_iterations,
                        on_max,
                    } => {
                        let value = self.peek(id).map(|s| s.value.clone()).ok_or_else(misfit)?;
                        let payload = self.resolve(&value, values)?;
                        let Some((done, _)) = envelope::loop_result(&payload)? else {
                            let message = format!(
                                "the last step of loop '{}' returned {}; it must return LoopResult.again(…) or \
                                 LoopResult.done(…)",
                                node.name,
                                envelope::describe(&payload)
                            );
                            return self.fail_node(id, "TypeError", message, now_us);
                        };
                        let turn = outer.frame.extra + 1;
                        let over = !done && turn >= *max_iterations;
                        if over && *on_max == OnMax::Fail {
                            let message = format!(
                                "loop '{}' reached max_iterations={max_iterations} without LoopResult.done(…)",
                                node.name
                            );
                            return self.fail_node(id, "MaxIterationsExceeded", message, now_us);
                        }
                        let path = path_of(&def, &outer);
                        let Some(strand) = self.strand(id) else {
                            return Err(misfit());
                        };
                        strand.value = Ref::Inner(Box::new(value));
                        let Some(level) = strand.levels.last_mut() else {
                            return Err(misfit());
                        };
                        if done || over {
                            level.frame = Frame {
                                at: level.frame.at + 1,
                                ..Frame::default()
                            };
                        } else {
                            level.frame.extra = turn;
                            strand.levels.push(Level {
                                frame: Frame::default(),
                                block: *body,
                                prefix: format!("{path}#{turn}").into(),
                            });
                        }
                    }
                    NodeKind::Route { .. } => {
                        let Some(strand) = self.strand(id) else {
                            return Err(misfit());
                        };
                        let inner = std::mem::replace(&mut strand.value, Ref::Input);
                        strand.value = Ref::Arm {
                            key: outer.frame.key,
                            inner: Box::new(inner),
                        };
                        let Some(level) = strand.levels.last_mut() else {
                            return Err(misfit());
                        };
                        level.frame = Frame {
                            at: level.frame.at + 1,
                            ..Frame::default()
                        };
                    }
                    _ => {
                        let Some(level) = self.strand(id).and_then(|s| s.levels.last_mut()) else {
                            return Err(misfit());
                        };
                        level.frame.at += 1;
                    }
                }
                continue;
            };
            let node = def.node(node_id);
            match &node.kind {
                NodeKind::Task { task } | NodeKind::Route { key: task, .. } => {
                    self.wanted = Some(*task);
                    if policy::covers(
                        self.offered.as_ref(),
                        &def.tasks[*task as usize].policy.tags,
                    ) {
                        self.ready.push_back(id);
                    } else {
                        self.unserved.push(id);
                    }
                    return Ok(());
                }
                NodeKind::Child { body, .. } => {
                    let prefix = path_of(&def, level);
                    strand.levels.push(Level {
                        frame: Frame::default(),
                        block: *body,
                        prefix,
                    });
                    self.mark(id);
                }
                NodeKind::Loop { body, .. } => {
                    let prefix = format!("{}#0", path_of(&def, level)).into();
                    level.frame.extra = 0;
                    strand.levels.push(Level {
                        frame: Frame::default(),
                        block: *body,
                        prefix,
                    });
                    self.mark(id);
                }
                NodeKind::Delay { duration_us } => {
                    let until_us = now_us.saturating_add(*duration_us);
                    return self.sleep(id, until_us, now_us);
                }
                NodeKind::DelayUntil { at_us } => return self.sleep(id, *at_us, now_us),
                NodeKind::Wait { timeout_us, .. } => {
                    strand.phase = Phase::Awaiting {
                        until_us: timeout_us.map(|t| now_us.saturating_add(t)),
                    };
                    self.mark(id);
                    self.park_strand(id);
                    return Ok(());
                }
                NodeKind::Fork { branches } => {
                    let count = branches.len() as u32;
                    return self.fan_out(id, node_id, count, None);
                }
                NodeKind::Map { .. } | NodeKind::Spread { .. } => {
                    let value = strand.value.clone();
                    let source = self.resolve(&value, values)?;
                    let Some(items) = Items::of(&source)? else {
                        let message = format!(
                            "map '{}' needs a list or a tuple from the step before it, and got {}",
                            node.name,
                            envelope::describe(&source)
                        );
                        return self.fail_node(id, "TypeError", message, now_us);
                    };
                    if items.len() > MAX_FAN_OUT {
                        let message = format!(
                            "map '{}' got {} items; the limit is {MAX_FAN_OUT}",
                            node.name,
                            items.len()
                        );
                        return self.fail_node(id, "ValueError", message, now_us);
                    }
                    let count = items.len() as u32;
                    if matches!(node.kind, NodeKind::Spread { .. }) {
                        if self.begin_spread(id, node, count, now_us)? {
                            continue;
                        }
                        return Ok(());
                    }
                    if count > 0 {
                        return self.fan_out(id, node_id, count, Some(items));
                    }
                    let (base, low) = (self.next_strand, value.low());
                    let Some(strand) = self.strand(id) else {
                        return Err(misfit());
                    };
                    strand.value = Ref::Region {
                        node: node_id,
                        base,
                        count: 0,
                        low,
                    };
                    let Some(level) = strand.levels.last_mut() else {
                        return Err(misfit());
                    };
                    level.frame.at += 1;
                    self.mark(id);
                }
            }
        }
    }

    pub(super) fn sleep(&mut self, id: StrandId, until_us: i64, now_us: i64) -> Result<()> {
        let Some(strand) = self.strand(id) else {
            return Err(misfit());
        };
        strand.phase = Phase::Sleeping { until_us };
        self.mark(id);
        if until_us <= now_us {
            self.slept(id, now_us);
        } else {
            self.park_strand(id);
        }
        Ok(())
    }

    /// A delay is over: note it and go on behind it.
    pub(super) fn slept(&mut self, id: StrandId, now_us: i64) {
        let def = Arc::clone(&self.def);
        let Some(strand) = self.strand(id) else {
            return;
        };
        let Some(level) = strand.levels.last_mut() else {
            return;
        };
        let path = path_of(&def, level);
        let node = def.node(def.block(level.block).nodes[level.frame.at as usize]);
        let started_us = match (&node.kind, &strand.phase) {
            (NodeKind::Delay { duration_us }, Phase::Sleeping { until_us }) => {
                (until_us - duration_us).min(now_us)
            }
            _ => now_us,
        };
        level.frame.at += 1;
        strand.phase = Phase::Ready;
        let (seq, name) = (self.next_seq, Arc::clone(&node.name));
        self.next_seq += 1;
        self.steps.push(StepRow {
            seq,
            path,
            name,
            attempt: 1,
            outcome: Outcome::Elapsed,
            output: None,
            error: None,
            started_us,
            ended_us: now_us,
        });
        // Nothing is lost if this is not written before the next checkpoint, so it does not ask for one.
        self.mark_quietly(id);
        self.work.push(id);
    }

    /// A wait got its value: an event's payload, or the mark of a timeout.
    pub(super) fn received(&mut self, id: StrandId, outcome: Outcome, payload: Bytes, now_us: i64) {
        let def = Arc::clone(&self.def);
        let Some(level) = self.peek(id).and_then(|s| s.levels.last()) else {
            return;
        };
        let path = path_of(&def, level);
        let node = def.node(def.block(level.block).nodes[level.frame.at as usize]);
        let seq = self.record(StepRow {
            seq: 0,
            path,
            name: Arc::clone(&node.name),
            attempt: 1,
            outcome,
            output: Some(payload),
            error: None,
            started_us: now_us,
            ended_us: now_us,
        });
        if let Some(strand) = self.strand(id) {
            strand.phase = Phase::Ready;
            strand.value = Ref::Step(seq);
            if let Some(level) = strand.levels.last_mut() {
                level.frame.at += 1;
            }
        }
        self.mark(id);
        self.work.push(id);
    }

    pub(super) fn timed_out(&mut self, id: StrandId, now_us: i64) -> Result<()> {
        let def = Arc::clone(&self.def);
        let Some(level) = self.peek(id).and_then(|s| s.levels.last()) else {
            return Err(misfit());
        };
        let node = def.node(def.block(level.block).nodes[level.frame.at as usize]);
        let NodeKind::Wait {
            event, on_timeout, ..
        } = &node.kind
        else {
            return Err(misfit());
        };
        match on_timeout {
            OnTimeout::Continue => {
                self.received(id, Outcome::Elapsed, envelope::event_timeout(event), now_us);
                Ok(())
            }
            OnTimeout::Fail => {
                let message = format!(
                    "event '{event}' did not arrive within the timeout of wait '{}'",
                    node.name
                );
                self.fail_node(id, "EventTimeout", message, now_us)
            }
        }
    }
}
