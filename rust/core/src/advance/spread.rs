//! Spread maps: items that become instances of their own, and the strand that waits for them.
//!
//! The strand takes a *group* number, of those that strands take, so it is never used again. It then
//! goes through three states, all kept in its cell:
//!
//! 1. *Making.* Each commit makes the next [`BATCH`] items, or [`BATCH_BYTES`] of them, together with
//!    the number of those made. A crash between two commits goes on behind the last one.
//! 2. *Parked*, on the event of its group, which the store sends when its count of unended items
//!    reaches zero (or at the first failure, when one is enough to fail the map). From here on the
//!    parent costs as little as any parked instance.
//! 3. *Gathering.* Woken by the event, it needs to know how the items ended. The event is not
//!    consumed before that is known, so a crash in between only wakes it again. The outputs become
//!    one step row, under the path of the map.
//!
//! A group of which nothing is awaited any more, because it is gathered or because its strand was
//! dropped, is named in the commit's `over`, once: the store cancels what is left of its items.

use super::*;

/// The most items that one commit makes.
const BATCH: usize = 1_000;
/// No more items are made by a commit once their inputs have this many bytes.
const BATCH_BYTES: usize = 4 << 20;

impl Machine {
    /// A strand has reached a spread map with this many items. `true`: it is behind it already.
    pub(super) fn begin_spread(
        &mut self,
        id: StrandId,
        node: &Node,
        count: u32,
        now_us: i64,
    ) -> Result<bool> {
        if count == 0 {
            let level = self.peek(id).and_then(|s| s.levels.last());
            let path = path_of(&Arc::clone(&self.def), level.ok_or_else(misfit)?);
            self.record_map(id, node, path, Some(&Vec::new()), None, now_us);
            return Ok(true);
        }
        let group = self.next_strand;
        self.next_strand = group
            .checked_add(1)
            .ok_or_else(|| Error::invalid("the instance has too many strands"))?;
        let Some(strand) = self.strand(id) else {
            return Err(misfit());
        };
        strand.phase = Phase::Spread {
            group,
            made: 0,
            count,
        };
        self.mark(id);
        self.spreading.push_back(id);
        Ok(false)
    }

    /// Prepares the next batch of items for the next commit, if there are any to make and none wait.
    pub(super) fn make_items(&mut self, values: &impl Values) -> Result<()> {
        if self.drain || self.family.as_ref().is_some_and(|f| f.batch.is_some()) {
            return Ok(());
        }
        let Some(&id) = self.spreading.front() else {
            return Ok(());
        };
        let def = Arc::clone(&self.def);
        let strand = self.peek(id).ok_or_else(misfit)?;
        let Phase::Spread { group, made, count } = strand.phase else {
            return Err(misfit());
        };
        let value = strand.value.clone();
        let level = strand.levels.last().ok_or_else(misfit)?;
        let node = def.block(level.block).nodes[level.frame.at as usize];
        let NodeKind::Spread { on_error, .. } = &def.node(node).kind else {
            return Err(misfit());
        };
        let items = def.items(node).ok_or_else(misfit)?;
        if self.items.as_ref().is_none_or(|(of, _)| *of != value) {
            let list = self.list(&value, values)?.ok_or_else(misfit)?;
            self.items = Some((value, list));
        }
        let Some((_, list)) = &self.items else {
            return Err(misfit());
        };
        if list.len() != count as usize {
            return Err(misfit());
        }
        let (mut inputs, mut bytes) = (Vec::new(), 0);
        while made as usize + inputs.len() < list.len()
            && inputs.len() < BATCH
            && bytes < BATCH_BYTES
        {
            let input = list.get(made as usize + inputs.len())?;
            bytes += input.len();
            inputs.push(input);
        }
        let now_made = made + inputs.len() as u32;
        self.family.get_or_insert_default().batch = Some(Batch {
            group,
            items: Arc::clone(items),
            first: made,
            count,
            fail_fast: *on_error == OnError::Fail,
            inputs,
        });
        if let Some(strand) = self.strand(id) {
            strand.phase = Phase::Spread {
                group,
                made: now_made,
                count,
            };
        }
        self.mark(id);
        if now_made == count {
            self.spreading.pop_front();
            self.items = None;
            self.park_strand(id);
        }
        Ok(())
    }

    /// Groups that are over and of which [`Machine::gathered`] wants to know how.
    #[must_use]
    pub fn wanted_groups(&self) -> Vec<StrandId> {
        self.gathering.iter().map(|(_, group, _)| *group).collect()
    }

    /// How the items of a wanted group ended is known to `values` now.
    ///
    /// # Errors
    /// As [`Machine::tick`].
    pub fn gathered(&mut self, now_us: i64, values: &impl Values) -> Result<()> {
        if self.held != Held::Yes {
            return Ok(());
        }
        for (id, group, event) in std::mem::take(&mut self.gathering) {
            self.gather(id, group, event, now_us, values)?;
        }
        self.run(now_us, values)
    }

    /// The event of a group has come.
    pub(super) fn gather(
        &mut self,
        id: StrandId,
        group: StrandId,
        event: u64,
        now_us: i64,
        values: &impl Values,
    ) -> Result<()> {
        // Another group that was over at the same moment may have failed and taken this strand along.
        let waits =
            |phase: &Phase| matches!(phase, Phase::Spread { group: of, .. } if *of == group);
        if !self.peek(id).is_some_and(|strand| waits(&strand.phase)) {
            return Ok(());
        }
        let Some(ends) = values.items(group) else {
            self.gathering.push((id, group, event));
            return Ok(());
        };
        self.consumed.push(event);
        self.taken.insert(event);
        self.family.get_or_insert_default().over.push(group);
        let def = Arc::clone(&self.def);
        let strand = self.peek(id).ok_or_else(misfit)?;
        let level = strand.levels.last().ok_or_else(misfit)?;
        let path = path_of(&def, level);
        let node = def.node(def.block(level.block).nodes[level.frame.at as usize]);
        let NodeKind::Spread { on_error, .. } = &node.kind else {
            return Err(misfit());
        };
        let mut outputs = Vec::with_capacity(ends.len());
        let mut failure = None;
        for (index, end) in ends.into_iter().enumerate() {
            let record = match end {
                ItemEnd::Completed(output) => {
                    outputs.push(output);
                    continue;
                }
                ItemEnd::Failed(record) => {
                    let mut record = ErrorRecord::decode(&record)?;
                    let inner = if record.path.is_empty() { "" } else { "/" };
                    record.path = format!("{path}[{index}]{inner}{}", record.path);
                    record
                }
                // Under way when another one failed.
                ItemEnd::Unended => continue,
                ItemEnd::Cancelled => ErrorRecord {
                    error_type: "WorkflowCancelled".to_owned(),
                    message: format!("item {index} of map '{}' was cancelled", node.name),
                    task: node.name.to_string(),
                    path: format!("{path}[{index}]"),
                    ..ErrorRecord::default()
                },
            };
            if *on_error == OnError::Fail {
                failure = Some(record);
                break;
            }
            outputs.push(envelope::map_error(index as u32, &record, &record.path));
        }
        let Phase::Spread { count, .. } = strand.phase else {
            return Err(misfit());
        };
        if failure.is_none() && outputs.len() != count as usize {
            return Err(Error::missing(format!(
                "items of map '{}' are gone",
                node.name
            )));
        }
        let failed = failure.is_some();
        let seq = self.record_map(
            id,
            node,
            path,
            (!failed).then_some(&outputs),
            failure,
            now_us,
        );
        if let Some(strand) = self.strand(id) {
            strand.phase = Phase::Ready;
        }
        if failed {
            return self.fail(id, seq);
        }
        self.work.push(id);
        Ok(())
    }

    /// Writes down what a spread map came to.
    fn record_map(
        &mut self,
        id: StrandId,
        node: &Node,
        path: Arc<str>,
        outputs: Option<&Vec<Bytes>>,
        failure: Option<ErrorRecord>,
        now_us: i64,
    ) -> Seq {
        let seq = self.record(StepRow {
            seq: 0,
            path,
            name: Arc::clone(&node.name),
            attempt: 1,
            outcome: if outputs.is_some() {
                Outcome::Completed
            } else {
                Outcome::Failed
            },
            output: outputs.map(|outputs| envelope::list(outputs)),
            error: failure.map(|record| record.encode()),
            started_us: now_us,
            ended_us: now_us,
        });
        if outputs.is_some()
            && let Some(strand) = self.strand(id)
        {
            strand.value = Ref::Step(seq);
            if let Some(level) = strand.levels.last_mut() {
                level.frame.at += 1;
            }
        }
        self.mark(id);
        seq
    }

    /// A strand is dropped, and with it the group it waits for, if it does.
    pub(super) fn leave_group(&mut self, phase: &Phase) {
        if let Phase::Spread { group, made, .. } = phase {
            let family = self.family.get_or_insert_default();
            if family.batch.as_ref().is_some_and(|b| b.group == *group) {
                let batch = family.batch.take();
                if batch.is_some_and(|b| b.first == 0) {
                    return;
                }
            }
            if *made > 0 {
                family.over.push(*group);
            }
        }
    }
}
