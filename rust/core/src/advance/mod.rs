//! The one interpreter: *definition + state + fact + now → what to write down + what to run*.
//!
//! A [`Machine`] is one held instance. Facts go in (`completed`, `failed`, `interrupted`, `tick`);
//! out come at most one [`Commit`] and the [`Start`]s that may begin **after** that commit is
//! durable. The rules it keeps:
//!
//! * A step's output, the position behind it, consumed events and timers are one commit.
//! * Nothing starts before the commit that leads to it; a start that a reply withdraws never ran.
//! * A failure without attempts left ends its strand; a collecting map keeps it as an item, anything
//!   else passes it up to the root and drops every strand beside it.
//! * With nothing running and nothing startable, the instance is parked or handed over, never held.
//! * A tick may be early, late or repeated; it only does what is due.
//!
//! It does not know stores, workers, clocks or Python. Values are looked up through [`Values`] only
//! where the flow depends on them (a list to map over, a route key, a `LoopResult`).

mod commit;
mod facts;
mod region;
mod resolve;
mod restore;
mod spread;
mod walk;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use self::resolve::{NoValues, collect_refs};
use self::restore::damaged;
use crate::definition::{
    Definition, MAX_FAN_OUT, Node, NodeId, NodeKind, OnError, OnMax, OnTimeout,
};
use crate::envelope::{self, Bytes, ErrorRecord, Items};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::id::path_segment;
use crate::policy::{self, Tags};
use crate::state::{
    Batch, Cell, Commit, Family, Frame, ItemEnd, Next, Outcome, Parked, Phase, ROOT, Ref, Reply,
    Seq, StepRow, StrandId, group_event,
};

/// Turns of a loop without any step in between before it is taken for a mistake.
const IDLE_TURNS: u32 = 100_000;

/// Read access to what is already written.
pub trait Values {
    /// The instance's sealed input.
    fn input(&self) -> Option<Bytes>;
    /// The sealed output of a step row.
    fn output(&self, seq: Seq) -> Option<Bytes>;
    /// The error record of a step row.
    fn error(&self, seq: Seq) -> Option<Bytes>;
    /// How the items of a group ended, by their indexes; `None` when this has to be fetched first
    /// (see [`Machine::wanted_groups`]).
    fn items(&self, group: StrandId) -> Option<Vec<ItemEnd>>;
}

/// A step that may run now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// Its strand; with `ticket` the handle under which its end is reported.
    pub strand: StrandId,
    /// Distinguishes this start from earlier ones of the strand.
    pub ticket: u32,
    /// Index into the definition's tasks.
    pub task: u32,
    /// The step's path.
    pub path: Arc<str>,
    /// From 1.
    pub attempt: u32,
}

/// A failed attempt, as reported.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// What happened; `task` and `path` are filled in here.
    pub record: ErrorRecord,
    /// Whether the policy's exception filters allow another attempt.
    pub retryable: bool,
    /// A wait asked for by the task itself.
    pub retry_after_us: Option<i64>,
    /// A random number in 0..1 for the jitter.
    pub unit: f64,
}

/// How a child strand ended.
#[derive(Debug, Clone)]
enum End {
    Value(Ref),
    Failed(Seq),
}

#[derive(Debug, Clone)]
struct Level {
    frame: Frame,
    block: u32,
    prefix: Arc<str>,
}

#[derive(Debug)]
struct Region {
    node: NodeId,
    base: StrandId,
    count: u32,
    /// Next index that may need spawning.
    next: u32,
    /// Strands that have not ended.
    left: u32,
    /// Spawned and not ended.
    active: u32,
    low: StrandId,
    items: Option<Items>,
}

#[derive(Debug)]
struct Strand {
    parent: StrandId,
    index: u32,
    levels: Vec<Level>,
    phase: Phase,
    attempt: u32,
    value: Ref,
    running: Option<(u32, i64)>,
    region: Option<Box<Region>>,
    dirty: bool,
}

impl Default for Strand {
    fn default() -> Self {
        Self {
            parent: ROOT,
            index: 0,
            levels: Vec::new(),
            phase: Phase::Ready,
            attempt: 0,
            value: Ref::Input,
            running: None,
            region: None,
            dirty: false,
        }
    }
}

/// Where a held instance stands after its last commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// This holder goes on.
    Yes,
    /// Parked; the lease was given back.
    Parked,
    /// Ready for another holder; the lease was given back.
    HandedOver,
    /// Finished.
    Completed,
    /// Finished with an error.
    Failed,
    /// A pending cancel took effect.
    Cancelled,
    /// A pending pause took effect.
    Paused,
    /// The lease had gone to somebody else.
    Lost,
}

/// What a claim hands over: the stored state of one instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stored {
    /// The root cell; none for a fresh instance.
    pub cursor: Option<Bytes>,
    /// Child cells from `cells_from` on.
    pub cells: Vec<(StrandId, Bytes)>,
    /// Next free step number.
    pub next_seq: Seq,
    /// Next free strand number.
    pub next_strand: StrandId,
}

/// One held instance. See the module's opening for the rules.
#[derive(Debug)]
pub struct Machine {
    def: Arc<Definition>,
    offered: Option<Tags>,
    width: u32,
    root: Strand,
    children: HashMap<StrandId, Strand>,
    ends: HashMap<StrandId, End>,
    /// Next free step and strand numbers of the last commit.
    from: (Seq, StrandId),
    next_seq: Seq,
    next_strand: StrandId,
    next_ticket: u32,
    running: u32,
    ready: VecDeque<StrandId>,
    unserved: Vec<StrandId>,
    parked: Vec<StrandId>,
    /// The earliest timer of a parked strand; may be too early, never too late.
    soonest: Option<i64>,
    work: Vec<StrandId>,
    /// Not yet covered by a commit.
    starts: Vec<Start>,
    /// Covered by the commit that is on its way.
    staged: Vec<Start>,
    /// May be handed out.
    issued: Vec<Start>,
    abandoned: Vec<u32>,
    steps: Vec<StepRow>,
    cells: Vec<(StrandId, Bytes)>,
    dirty: Vec<StrandId>,
    consumed: Vec<u64>,
    /// Everything consumed under this lease: news may be older than a commit on its way.
    taken: HashSet<u64>,
    must_commit: bool,
    /// What the next commit changes about items of spread maps.
    family: Option<Box<Family>>,
    /// Strands at spread maps of which items are still to be made.
    spreading: VecDeque<StrandId>,
    /// Groups that are over, whose strand needs to know how; with the event that said so.
    gathering: Vec<(StrandId, StrandId, u64)>,
    ended: Option<Next>,
    drain: bool,
    release: bool,
    needs: (Tags, u8),
    wanted: Option<u32>,
    awaiting_reply: Option<Held>,
    held: Held,
    items: Option<(Ref, Items)>,
    scratch: Vec<u8>,
}

impl Machine {
    /// The definition this machine runs.
    #[must_use]
    pub fn definition(&self) -> &Arc<Definition> {
        &self.def
    }

    /// Where the instance stands after its last commit.
    #[must_use]
    pub fn held(&self) -> Held {
        self.held
    }

    /// Whether the step with this handle is still wanted.
    #[must_use]
    pub fn is_running(&self, strand: StrandId, ticket: u32) -> bool {
        self.held == Held::Yes
            && self
                .peek(strand)
                .and_then(|s| s.running)
                .is_some_and(|(current, _)| current == ticket)
    }

    /// Names of the events that strands wait for, oldest strand first.
    #[must_use]
    pub fn awaits(&self) -> Vec<Arc<str>> {
        let mut ids = self.parked.clone();
        ids.sort_unstable();
        ids.into_iter().filter_map(|id| self.awaited(id)).collect()
    }

    /// When a parked strand wants to be looked at, if ever.
    #[must_use]
    pub fn wake_at_us(&self) -> Option<i64> {
        self.soonest
    }

    /// From now on nothing new starts; with `release`, the instance is handed over once quiet.
    pub fn drain(&mut self, release: bool) {
        self.drain = true;
        self.release |= release;
        self.withdraw();
    }

    /// The number that the next step row gets.
    #[must_use]
    pub fn next_seq(&self) -> Seq {
        self.next_seq
    }

    /// What a commit that sets the instance aside builds on.
    #[must_use]
    pub fn stands(&self) -> Stored {
        Stored {
            cursor: None,
            cells: Vec::new(),
            next_seq: self.from.0,
            next_strand: self.from.1,
        }
    }

    /// Whether the root strand is the only one.
    #[must_use]
    pub fn is_linear(&self) -> bool {
        self.children.is_empty()
    }

    fn record(&mut self, mut row: StepRow) -> Seq {
        row.seq = self.next_seq;
        self.next_seq += 1;
        self.must_commit = true;
        self.steps.push(row);
        self.next_seq - 1
    }

    fn park_strand(&mut self, id: StrandId) {
        let at = self.peek(id).and_then(|s| until(&s.phase));
        self.soonest = [self.soonest, at].into_iter().flatten().min();
        self.parked.push(id);
    }

    fn wake(&mut self, id: StrandId) {
        if let Some(strand) = self.strand(id) {
            strand.phase = Phase::Ready;
        }
        self.mark_quietly(id);
    }

    fn mark(&mut self, id: StrandId) {
        self.mark_quietly(id);
        self.must_commit = true;
    }

    fn mark_quietly(&mut self, id: StrandId) {
        let Some(strand) = self.strand(id) else {
            return;
        };
        if !strand.dirty {
            strand.dirty = true;
            self.dirty.push(id);
        }
    }

    fn peek(&self, id: StrandId) -> Option<&Strand> {
        if id == ROOT {
            Some(&self.root)
        } else {
            self.children.get(&id)
        }
    }

    fn strand(&mut self, id: StrandId) -> Option<&mut Strand> {
        if id == ROOT {
            Some(&mut self.root)
        } else {
            self.children.get_mut(&id)
        }
    }

    fn put(&mut self, id: StrandId, strand: Strand) {
        if id == ROOT {
            self.root = strand;
        } else {
            self.children.insert(id, strand);
        }
    }

    fn path_at(&self, level: &Level) -> Arc<str> {
        path_of(&self.def, level)
    }

    fn task_name<'a>(&'a self, kind: &NodeKind, otherwise: &'a Arc<str>) -> &'a Arc<str> {
        match kind {
            NodeKind::Task { task } | NodeKind::Route { key: task, .. } => {
                &self.def.tasks[*task as usize].name
            }
            _ => otherwise,
        }
    }

    fn task_of(&self, id: StrandId) -> Option<u32> {
        let level = self.peek(id)?.levels.last()?;
        self.task_at(level.block, level.frame.at)
    }

    fn task_at(&self, block: u32, at: u32) -> Option<u32> {
        match &self
            .def
            .node(*self.def.block(block).nodes.get(at as usize)?)
            .kind
        {
            NodeKind::Task { task } | NodeKind::Route { key: task, .. } => Some(*task),
            _ => None,
        }
    }

    fn awaited(&self, id: StrandId) -> Option<Arc<str>> {
        let strand = self.peek(id)?;
        match strand.phase {
            Phase::Awaiting { .. } => {}
            Phase::Spread { group, .. } => return Some(group_event(group)),
            _ => return None,
        }
        let level = strand.levels.last()?;
        match &self
            .def
            .node(
                *self
                    .def
                    .block(level.block)
                    .nodes
                    .get(level.frame.at as usize)?,
            )
            .kind
        {
            NodeKind::Wait { event, .. } => Some(Arc::clone(event)),
            _ => None,
        }
    }
}

fn misfit() -> Error {
    Error::format("the stored position does not fit the workflow's definition")
}

fn until(phase: &Phase) -> Option<i64> {
    match phase {
        Phase::Backoff { until_us } | Phase::Sleeping { until_us } => Some(*until_us),
        Phase::Awaiting { until_us } => *until_us,
        _ => None,
    }
}

/// The path of the node at a level.
fn path_of(def: &Definition, level: &Level) -> Arc<str> {
    let block = def.block(level.block);
    let Some(node) = block.nodes.get(level.frame.at as usize) else {
        return Arc::clone(&level.prefix);
    };
    if block.lone {
        return Arc::clone(&level.prefix);
    }
    let segment = &def.node(*node).segment;
    if level.prefix.is_empty() {
        Arc::clone(segment)
    } else {
        format!("{}/{segment}", level.prefix).into()
    }
}

/// The block inside a node that does not fork, and the path it lives under.
fn inner_block(kind: &NodeKind, frame: &Frame, path: &Arc<str>) -> Option<(u32, Arc<str>)> {
    match kind {
        NodeKind::Child { body, .. } => Some((*body, Arc::clone(path))),
        NodeKind::Loop { body, .. } => Some((*body, format!("{path}#{}", frame.extra).into())),
        NodeKind::Route { arms, default, .. } => match arms.get(frame.extra as usize) {
            Some((name, body)) => Some((*body, format!("{path}/{}", path_segment(name)).into())),
            None if frame.extra as usize == arms.len() => {
                default.map(|body| (body, format!("{path}/~default").into()))
            }
            None => None,
        },
        _ => None,
    }
}

/// The block that strand `index` of a region runs, and the path it lives under.
fn region_block(
    def: &Definition,
    node: NodeId,
    index: u32,
    path: &Arc<str>,
) -> Option<(u32, Arc<str>)> {
    match &def.node(node).kind {
        NodeKind::Fork { branches } => {
            let (name, body) = branches.get(index as usize)?;
            Some((*body, format!("{path}/{}", path_segment(name)).into()))
        }
        NodeKind::Map { body, .. } => Some((*body, format!("{path}[{index}]").into())),
        _ => None,
    }
}
