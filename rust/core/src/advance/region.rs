//! Strands in the plural: how they come to life, end, fail, and are forgotten.

use super::*;

impl Machine {
    pub(super) fn fan_out(
        &mut self,
        id: StrandId,
        node: NodeId,
        count: u32,
        items: Option<Items>,
    ) -> Result<()> {
        let base = self.next_strand;
        self.next_strand = base
            .checked_add(count)
            .ok_or_else(|| Error::invalid("the instance has too many strands"))?;
        let Some(strand) = self.strand(id) else {
            return Err(misfit());
        };
        let low = base.min(strand.value.low());
        strand.phase = Phase::Joining { base, count };
        strand.region = Some(Box::new(Region {
            node,
            base,
            count,
            next: 0,
            left: count,
            active: 0,
            low,
            items,
        }));
        self.mark_quietly(id);
        self.spawn(id)
    }

    /// Brings the strands of a region to life, as many as its concurrency and the holder's width allow.
    pub(super) fn spawn(&mut self, id: StrandId) -> Result<()> {
        let def = Arc::clone(&self.def);
        let Some(strand) = self.peek(id) else {
            return Err(misfit());
        };
        let Some(region) = strand.region.as_deref() else {
            return Err(misfit());
        };
        let (node, base, count, mut next, mut active) = (
            region.node,
            region.base,
            region.count,
            region.next,
            region.active,
        );
        let limit = match &def.node(node).kind {
            NodeKind::Map { concurrency, .. } => concurrency.unwrap_or(u32::MAX),
            _ => u32::MAX,
        };
        let path = path_of(&def, strand.levels.last().ok_or_else(misfit)?);
        let value = strand.value.clone();
        let is_map = region.items.is_some();
        let first = self.work.len();
        while next < count && active < limit {
            let child = base + next;
            if !self.ends.contains_key(&child) && !self.children.contains_key(&child) {
                let (block, prefix) = region_block(&def, node, next, &path).ok_or_else(misfit)?;
                let value = if is_map {
                    Ref::Item {
                        of: Box::new(value.clone()),
                        index: next,
                    }
                } else {
                    value.clone()
                };
                self.children.insert(
                    child,
                    Strand {
                        parent: id,
                        index: next,
                        levels: vec![Level {
                            frame: Frame::default(),
                            block,
                            prefix,
                        }],
                        value,
                        ..Strand::default()
                    },
                );
                self.work.push(child);
                active += 1;
            }
            next += 1;
        }
        // The worklist is a stack; the first branch should start first.
        self.work[first..].reverse();
        if let Some(region) = self.strand(id).and_then(|s| s.region.as_deref_mut()) {
            region.next = next;
            region.active = active;
        }
        Ok(())
    }

    /// A strand is over: the root ends the instance, a child tells its region.
    pub(super) fn end(&mut self, id: StrandId, end: End, values: &impl Values) -> Result<()> {
        if id == ROOT {
            let value = self.root.value.clone();
            let output = self.resolve(&value, values)?;
            self.ended = Some(Next::Completed(output));
            return Ok(());
        }
        let Some(strand) = self.children.remove(&id) else {
            return Err(misfit());
        };
        let (phase, value) = match &end {
            End::Value(value) => (Phase::Done, value.clone()),
            End::Failed(seq) => (Phase::Failed(*seq), Ref::Input),
        };
        let low = value.low();
        let cell = Cell {
            frames: Vec::new(),
            phase,
            attempt: 0,
            value,
        };
        self.cells.push((id, cell.encode()));
        self.ends.insert(id, end);
        self.must_commit = true;
        let parent = strand.parent;
        let Some(outer) = self.strand(parent) else {
            return Err(misfit());
        };
        let Some(region) = outer.region.as_deref_mut() else {
            return Err(misfit());
        };
        region.left -= 1;
        region.active -= 1;
        region.low = region.low.min(low);
        if region.left > 0 {
            if region.next < region.count {
                return self.spawn(parent);
            }
            return Ok(());
        }
        outer.value = Ref::Region {
            node: region.node,
            base: region.base,
            count: region.count,
            low: region.low,
        };
        outer.region = None;
        outer.phase = Phase::Ready;
        if let Some(level) = outer.levels.last_mut() {
            level.frame.at += 1;
        }
        self.mark(parent);
        self.work.push(parent);
        Ok(())
    }

    /// The engine itself finds that a node cannot go on.
    pub(super) fn fail_node(
        &mut self,
        id: StrandId,
        error_type: &str,
        message: String,
        now_us: i64,
    ) -> Result<()> {
        let def = Arc::clone(&self.def);
        let Some(level) = self.peek(id).and_then(|s| s.levels.last()) else {
            return Err(misfit());
        };
        let path = path_of(&def, level);
        let node = def.node(def.block(level.block).nodes[level.frame.at as usize]);
        let record = ErrorRecord {
            error_type: error_type.to_owned(),
            message,
            task: node.name.to_string(),
            path: path.to_string(),
            ..ErrorRecord::default()
        };
        let seq = self.record(StepRow {
            seq: 0,
            path,
            name: Arc::clone(&node.name),
            attempt: 1,
            outcome: Outcome::Failed,
            output: None,
            error: Some(record.encode()),
            started_us: now_us,
            ended_us: now_us,
        });
        self.fail(id, seq)
    }

    /// Passes a failure up until a collecting map takes it or the instance fails.
    pub(super) fn fail(&mut self, id: StrandId, seq: Seq) -> Result<()> {
        let def = Arc::clone(&self.def);
        let mut at = id;
        loop {
            self.drop_below(at);
            if at == ROOT {
                let record = self
                    .unwritten(seq)
                    .and_then(|row| row.error.clone())
                    .ok_or_else(misfit)?;
                self.ended = Some(Next::Failed(record));
                self.must_commit = true;
                return Ok(());
            }
            let parent = self.peek(at).map(|s| s.parent).ok_or_else(misfit)?;
            let node = self
                .peek(parent)
                .and_then(|s| s.region.as_ref())
                .map(|r| r.node)
                .ok_or_else(misfit)?;
            if matches!(
                def.node(node).kind,
                NodeKind::Map {
                    on_error: OnError::Collect,
                    ..
                }
            ) {
                // `end` never resolves values for a child strand.
                return self.end(at, End::Failed(seq), &NoValues);
            }
            at = parent;
        }
    }

    /// Forgets every strand below `id`, and what it and they were about to do.
    pub(super) fn drop_below(&mut self, id: StrandId) {
        let mut dropped = HashSet::from([id]);
        let mut stack = vec![id];
        while let Some(at) = stack.pop() {
            let Some(region) = self.strand(at).and_then(|s| s.region.take()) else {
                continue;
            };
            stack.extend(
                (region.base..region.base + region.count)
                    .filter(|child| self.children.contains_key(child)),
            );
            dropped.extend(stack.iter().copied());
        }
        let mut tickets = HashSet::new();
        for child in dropped.iter().filter(|child| **child != id) {
            if let Some(strand) = self.children.remove(child) {
                tickets.extend(strand.running.map(|(ticket, _)| ticket));
                self.leave_group(&strand.phase);
            }
        }
        self.running -= tickets.len() as u32;
        for starts in [&mut self.starts, &mut self.staged, &mut self.issued] {
            starts.retain(|start| !tickets.contains(&start.ticket));
        }
        self.abandoned.extend(tickets);
        for queue in [&mut self.ready, &mut self.spreading] {
            queue.retain(|other| !dropped.contains(other));
        }
        self.gathering
            .retain(|(other, ..)| !dropped.contains(other));
        for queue in [&mut self.unserved, &mut self.parked, &mut self.work] {
            queue.retain(|other| !dropped.contains(other));
        }
    }
}
