//! From references to sealed values, by copying bytes and without decoding them.

use super::*;

impl Machine {
    /// Step rows that the root strand, alone, may still need.
    #[must_use]
    pub fn root_refs(&self) -> Vec<Seq> {
        let mut seqs: Vec<Seq> = self
            .root
            .levels
            .iter()
            .map(|level| level.frame.key)
            .collect();
        collect_refs(&self.root.value, &mut seqs);
        for end in self.ends.values() {
            match end {
                End::Value(value) => collect_refs(value, &mut seqs),
                End::Failed(seq) => seqs.push(*seq),
            }
        }
        seqs
    }

    /// The sealed input of a started step.
    pub fn input(&mut self, strand: StrandId, values: &impl Values) -> Result<Bytes> {
        let live = self
            .peek(strand)
            .ok_or_else(|| Error::missing("the step was abandoned"))?;
        if let (Ref::Item { index, .. }, parent) = (&live.value, live.parent)
            && strand != ROOT
            && let Some(items) = self
                .peek(parent)
                .and_then(|p| p.region.as_ref())
                .and_then(|r| r.items.as_ref())
            && *index == live.index
        {
            return items.get(*index as usize);
        }
        let value = live.value.clone();
        self.resolve(&value, values)
    }

    /// The sealed value behind a reference.
    pub(super) fn resolve(&mut self, value: &Ref, values: &impl Values) -> Result<Bytes> {
        match value {
            Ref::Input => values
                .input()
                .ok_or_else(|| Error::missing("the input of the instance is gone")),
            Ref::Step(seq) => self
                .unwritten(*seq)
                .and_then(|row| row.output.clone())
                .or_else(|| values.output(*seq))
                .ok_or_else(|| Error::missing(format!("the output of step {seq} is gone"))),
            Ref::Inner(of) => {
                let payload = self.resolve(of, values)?;
                envelope::loop_result(&payload)?
                    .map(|(_, inner)| inner)
                    .ok_or_else(|| Error::format("a LoopResult was expected"))
            }
            Ref::Item { of, index } => {
                if let Ref::Region { base, count, .. } = **of
                    && *index < count
                {
                    return self.resolve_end(base + index, *index, values);
                }
                if self
                    .items
                    .as_ref()
                    .is_none_or(|(cached, _)| cached != &**of)
                {
                    let items = self
                        .list(of, values)?
                        .ok_or_else(|| Error::format("a list was expected"))?;
                    self.items = Some(((**of).clone(), items));
                }
                match &self.items {
                    Some((_, items)) => items.get(*index as usize),
                    None => Err(Error::missing("a list is gone")),
                }
            }
            Ref::Region {
                node, base, count, ..
            } => {
                let mut outputs = Vec::with_capacity(*count as usize);
                for i in 0..*count {
                    outputs.push(self.resolve_end(base + i, i, values)?);
                }
                let def = Arc::clone(&self.def);
                match &def.nodes.get(*node as usize).ok_or_else(misfit)?.kind {
                    NodeKind::Fork { branches } if branches.len() == outputs.len() => Ok(
                        envelope::named(branches.iter().map(|(name, _)| &**name).zip(outputs)),
                    ),
                    NodeKind::Map { .. } => Ok(envelope::list(&outputs)),
                    _ => Err(misfit()),
                }
            }
            Ref::Arm { key, inner } => {
                let payload = self.resolve(&Ref::Step(*key), values)?;
                let result = self.resolve(inner, values)?;
                let key = envelope::as_text(&payload)?
                    .ok_or_else(|| Error::format("a route key was expected"))?;
                Ok(envelope::branch(key, &result))
            }
        }
    }

    pub(super) fn resolve_end(
        &mut self,
        strand: StrandId,
        index: u32,
        values: &impl Values,
    ) -> Result<Bytes> {
        match self.ends.get(&strand) {
            Some(End::Value(value)) => {
                let value = value.clone();
                self.resolve(&value, values)
            }
            Some(End::Failed(seq)) => {
                let seq = *seq;
                let record = self
                    .unwritten(seq)
                    .and_then(|row| row.error.clone())
                    .or_else(|| values.error(seq))
                    .ok_or_else(|| Error::missing(format!("the error of step {seq} is gone")))?;
                let record = ErrorRecord::decode(&record)?;
                Ok(envelope::map_error(index, &record, &record.path))
            }
            None => Err(Error::missing(format!(
                "the result of strand {strand} is gone"
            ))),
        }
    }

    pub(super) fn list(&mut self, value: &Ref, values: &impl Values) -> Result<Option<Items>> {
        let source = self.resolve(value, values)?;
        Items::of(&source)
    }

    pub(super) fn unwritten(&self, seq: Seq) -> Option<&StepRow> {
        let first = self.steps.first()?.seq;
        self.steps.get(seq.checked_sub(first)? as usize)
    }
}

/// For places that never look a value up.
pub(super) struct NoValues;

impl Values for NoValues {
    fn input(&self) -> Option<Bytes> {
        None
    }
    fn output(&self, _: Seq) -> Option<Bytes> {
        None
    }
    fn error(&self, _: Seq) -> Option<Bytes> {
        None
    }
    fn items(&self, _: StrandId) -> Option<Vec<ItemEnd>> {
        None
    }
}

/// Step rows that a reference leads to directly; regions lead on through the cells of their strands.
pub(super) fn collect_refs(value: &Ref, seqs: &mut Vec<Seq>) {
    let mut at = value;
    loop {
        at = match at {
            Ref::Input | Ref::Region { .. } => return,
            Ref::Step(seq) => {
                seqs.push(*seq);
                return;
            }
            Ref::Inner(of) | Ref::Item { of, .. } => of,
            Ref::Arm { key, inner } => {
                seqs.push(*key);
                inner
            }
        };
    }
}
