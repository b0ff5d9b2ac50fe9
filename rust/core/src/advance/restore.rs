//! Taking an instance up from what is stored, or setting it aside when that cannot be done.

use super::*;
use crate::state::EVERY_GROUP;

impl Machine {
    /// Takes up an instance from its stored state.
    ///
    /// `offered` are the holder's tags (none: everything), `width` the most steps it runs at once,
    /// `needs` the tags and priority stored with the instance.
    ///
    /// # Errors
    /// [`Error::Format`] when the state does not fit the definition; [`Error::Missing`] when a value
    /// that the state refers to is gone.
    pub fn restore(
        def: Arc<Definition>,
        offered: Option<Tags>,
        width: u32,
        stored: &Stored,
        needs: (Tags, u8),
        values: &impl Values,
        now_us: i64,
    ) -> Result<Self> {
        let mut machine = Self {
            offered,
            width: width.max(1),
            root: Strand::default(),
            children: HashMap::new(),
            ends: HashMap::new(),
            from: (stored.next_seq, stored.next_strand),
            next_seq: stored.next_seq,
            next_strand: stored.next_strand.max(1),
            next_ticket: 0,
            running: 0,
            ready: VecDeque::new(),
            unserved: Vec::new(),
            parked: Vec::new(),
            soonest: None,
            work: Vec::new(),
            starts: Vec::new(),
            staged: Vec::new(),
            issued: Vec::new(),
            abandoned: Vec::new(),
            steps: Vec::new(),
            cells: Vec::new(),
            dirty: Vec::new(),
            consumed: Vec::new(),
            taken: HashSet::new(),
            must_commit: false,
            family: None,
            spreading: VecDeque::new(),
            gathering: Vec::new(),
            ended: None,
            drain: false,
            release: false,
            needs,
            wanted: None,
            awaiting_reply: None,
            held: Held::Yes,
            items: None,
            scratch: Vec::new(),
            def,
        };
        let root = match &stored.cursor {
            Some(bytes) => Cell::decode(bytes)?,
            None => Cell {
                frames: vec![Frame::default()],
                phase: Phase::Ready,
                attempt: 0,
                value: Ref::Input,
            },
        };
        let mut cells: HashMap<StrandId, Cell> = HashMap::with_capacity(stored.cells.len());
        for (id, bytes) in &stored.cells {
            let cell = Cell::decode(bytes)?;
            match cell.phase {
                Phase::Done => {
                    machine.ends.insert(*id, End::Value(cell.value));
                }
                Phase::Failed(seq) => {
                    machine.ends.insert(*id, End::Failed(seq));
                }
                _ => {
                    cells.insert(*id, cell);
                }
            }
        }
        let block = machine.def.root;
        machine.revive(
            ROOT,
            ROOT,
            0,
            root,
            block,
            Arc::from(""),
            &mut cells,
            values,
        )?;
        machine.run(now_us, values)?;
        Ok(machine)
    }

    /// Rebuilds one strand, and the strands below it, from their cells.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn revive(
        &mut self,
        id: StrandId,
        parent: StrandId,
        index: u32,
        cell: Cell,
        block: u32,
        prefix: Arc<str>,
        cells: &mut HashMap<StrandId, Cell>,
        values: &impl Values,
    ) -> Result<()> {
        let def = Arc::clone(&self.def);
        let mut levels: Vec<Level> = Vec::with_capacity(cell.frames.len());
        let (mut block, mut prefix) = (block, prefix);
        for (depth, frame) in cell.frames.iter().enumerate() {
            let nodes = &def.block(block).nodes;
            let last = depth + 1 == cell.frames.len();
            if frame.at as usize > nodes.len() || (!last && frame.at as usize == nodes.len()) {
                return Err(misfit());
            }
            levels.push(Level {
                frame: *frame,
                block,
                prefix: Arc::clone(&prefix),
            });
            if !last {
                let node = def.node(nodes[frame.at as usize]);
                let path = self.path_at(levels.last().ok_or_else(misfit)?);
                (block, prefix) = inner_block(&node.kind, frame, &path).ok_or_else(misfit)?;
            }
        }
        if levels.is_empty() {
            return Err(misfit());
        }
        let mut strand = Strand {
            parent,
            index,
            levels,
            phase: cell.phase,
            attempt: cell.attempt,
            value: cell.value,
            ..Strand::default()
        };
        let level = strand.levels.last().ok_or_else(misfit)?;
        let kind = def
            .block(level.block)
            .nodes
            .get(level.frame.at as usize)
            .map(|node| &def.node(*node).kind);
        let fits = match (&strand.phase, kind) {
            (Phase::Ready, _) => true,
            (Phase::Backoff { .. }, Some(kind)) => {
                matches!(kind, NodeKind::Task { .. } | NodeKind::Route { .. })
            }
            (Phase::Sleeping { .. }, Some(kind)) => {
                matches!(kind, NodeKind::Delay { .. } | NodeKind::DelayUntil { .. })
            }
            (Phase::Awaiting { .. }, Some(kind)) => matches!(kind, NodeKind::Wait { .. }),
            (Phase::Spread { made, count, .. }, Some(kind)) => {
                matches!(kind, NodeKind::Spread { .. })
                    && made <= count
                    && *count as usize <= MAX_FAN_OUT
            }
            (Phase::Joining { .. }, Some(kind)) => {
                matches!(kind, NodeKind::Fork { .. } | NodeKind::Map { .. })
            }
            _ => false,
        };
        if !fits {
            return Err(misfit());
        }
        match strand.phase {
            Phase::Ready => self.work.push(id),
            Phase::Backoff { .. } | Phase::Sleeping { .. } | Phase::Awaiting { .. } => {
                self.parked.push(id);
                self.soonest = [self.soonest, until(&strand.phase)]
                    .into_iter()
                    .flatten()
                    .min();
            }
            Phase::Spread { made, count, .. } if made < count => self.spreading.push_back(id),
            Phase::Spread { .. } => self.parked.push(id),
            Phase::Joining { base, count } => {
                let level = strand.levels.last().ok_or_else(misfit)?;
                let block = def.block(level.block);
                let node = *block
                    .nodes
                    .get(level.frame.at as usize)
                    .ok_or_else(misfit)?;
                let mut region = Region {
                    node,
                    base,
                    count,
                    next: 0,
                    left: count,
                    active: 0,
                    low: base.min(strand.value.low()),
                    items: None,
                };
                if count as usize > MAX_FAN_OUT || base.checked_add(count).is_none() {
                    return Err(misfit());
                }
                if matches!(def.node(node).kind, NodeKind::Map { .. }) {
                    region.items = self.list(&strand.value, values)?;
                    if region.items.as_ref().map(Items::len) != Some(count as usize) {
                        return Err(misfit());
                    }
                }
                let path = self.path_at(level);
                for i in 0..count {
                    let child = base + i;
                    if let Some(end) = self.ends.get(&child) {
                        region.left -= 1;
                        if let End::Value(value) = end {
                            region.low = region.low.min(value.low());
                        }
                    } else if let Some(cell) = cells.remove(&child) {
                        let (block, prefix) =
                            region_block(&def, node, i, &path).ok_or_else(misfit)?;
                        region.active += 1;
                        self.revive(child, id, i, cell, block, prefix, cells, values)?;
                    }
                }
                if region.left == 0 {
                    return Err(misfit());
                }
                strand.region = Some(Box::new(region));
                self.put(id, strand);
                self.spawn(id)?;
                return Ok(());
            }
            Phase::Done | Phase::Failed(_) => return Err(misfit()),
        }
        self.put(id, strand);
        Ok(())
    }

    /// The commit that ends an instance whose stored state cannot even be taken up.
    #[must_use]
    pub fn set_aside(stored: &Stored, reason: &Error) -> Commit {
        Commit {
            steps: Vec::new(),
            cursor: None,
            cells: Vec::new(),
            from: (stored.next_seq, stored.next_strand),
            next_seq: stored.next_seq,
            next_strand: stored.next_strand,
            cells_from: crate::state::NO_CELLS,
            consumed: Vec::new(),
            needs: None,
            quiescent: true,
            next: Next::Failed(damaged(reason)),
            item: false,
            family: Some(Box::new(Family {
                batch: None,
                over: vec![EVERY_GROUP],
            })),
        }
    }

    /// Outputs of step rows that resolving any current value may need.
    pub fn referenced(stored: &Stored) -> Result<Vec<Seq>> {
        let mut seqs = Vec::new();
        let cells = stored
            .cursor
            .iter()
            .chain(stored.cells.iter().map(|(_, bytes)| bytes));
        for bytes in cells {
            let cell = Cell::decode(bytes)?;
            if let Phase::Failed(seq) = cell.phase {
                seqs.push(seq);
            }
            seqs.extend(cell.frames.iter().map(|frame| frame.key));
            collect_refs(&cell.value, &mut seqs);
        }
        seqs.sort_unstable();
        seqs.dedup();
        Ok(seqs)
    }
}

/// The error record of an instance whose stored state cannot be used.
pub(super) fn damaged(reason: &Error) -> Bytes {
    ErrorRecord {
        error_type: "SnapshotFormatError".to_owned(),
        message: format!("the stored state of this instance cannot be used: {reason}"),
        ..ErrorRecord::default()
    }
    .encode()
}
