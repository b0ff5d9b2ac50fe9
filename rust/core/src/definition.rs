//! A workflow as data: the tree of nodes, their names and paths, and the hash of its structure.
//!
//! A definition is built once from [`NodeSpec`]s, checked, and never changes. It knows names and
//! policies; it does not know functions, values, instances or time. What may be tuned on a running
//! system (policies, delays, bounds, concurrency) is here too, but not in the hash.
//!
//! Names are made unique inside their block (`inc`, `inc~2`), so every node has a path of its own
//! and two uses of one function never share anything.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::id::{MAX_NAME_BYTES, check_name, path_segment};
use crate::policy::{DEFAULT_PRIORITY, Tags, TaskPolicy};

/// Deepest nesting of blocks; keeps every recursion over a definition shallow.
pub const MAX_DEFINITION_DEPTH: usize = 64;
/// Most nodes in one definition.
pub const MAX_NODES: usize = 100_000;
/// Most items one map fans out to, and most branches of a fork.
pub const MAX_FAN_OUT: usize = 100_000;
/// Largest loop bound.
pub const MAX_LOOP_TURNS: u32 = 1_000_000_000;

/// Index of a node in its definition.
pub type NodeId = u32;
/// Index of a block in its definition.
pub type BlockId = u32;

/// What a map does when an item fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// The first failure fails the map.
    Fail,
    /// A failure becomes a `MapError` item.
    Collect,
}

/// What a loop does when its bound is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnMax {
    /// The instance fails.
    Fail,
    /// The loop ends with its last value.
    ExitWithLast,
}

/// What a wait does when its time is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnTimeout {
    /// The instance fails.
    Fail,
    /// The flow goes on with an `EventTimeout`.
    Continue,
}

/// One use of a task: its name and what may be tuned about it.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskSpec {
    /// The task's name, as the user gave it.
    pub name: Arc<str>,
    /// Retries, timeout, tags, priority.
    pub policy: TaskPolicy,
}

/// One node as an author describes it; blocks nest.
#[derive(Debug, Clone, PartialEq)]
pub enum NodeSpec {
    /// A task; the number is its index in the task table.
    Task { name: String, task: u32 },
    /// Branches that run concurrently; passes on `{name: output}`.
    Fork {
        name: String,
        branches: Vec<(String, Vec<NodeSpec>)>,
    },
    /// One body over every item of a list.
    Map {
        name: String,
        body: Vec<NodeSpec>,
        concurrency: Option<u32>,
        on_error: OnError,
    },
    /// One body over every item of a list, each item an instance of its own that any worker may take.
    Spread {
        name: String,
        body: Vec<NodeSpec>,
        on_error: OnError,
    },
    /// One of several arms, chosen by a key function.
    Route {
        name: String,
        key: u32,
        arms: Vec<(String, Vec<NodeSpec>)>,
        default: Option<Vec<NodeSpec>>,
    },
    /// A body repeated until it says done.
    Loop {
        name: String,
        body: Vec<NodeSpec>,
        max_iterations: u32,
        on_max: OnMax,
    },
    /// A durable pause of the flow.
    Delay { name: String, duration_us: i64 },
    /// A durable pause until a moment.
    DelayUntil { name: String, at_us: i64 },
    /// A pause until an event arrives.
    Wait {
        name: String,
        event: String,
        timeout_us: Option<i64>,
        on_timeout: OnTimeout,
    },
    /// Another workflow, inline.
    Child {
        name: String,
        workflow: String,
        body: Vec<NodeSpec>,
    },
}

impl NodeSpec {
    fn name(&self) -> &str {
        match self {
            Self::Task { name, .. }
            | Self::Fork { name, .. }
            | Self::Map { name, .. }
            | Self::Spread { name, .. }
            | Self::Route { name, .. }
            | Self::Loop { name, .. }
            | Self::Delay { name, .. }
            | Self::DelayUntil { name, .. }
            | Self::Wait { name, .. }
            | Self::Child { name, .. } => name,
        }
    }
}

/// The kind of a node, with everything the interpreter needs.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum NodeKind {
    Task {
        task: u32,
    },
    Fork {
        branches: Vec<(Arc<str>, BlockId)>,
    },
    Map {
        body: BlockId,
        concurrency: Option<u32>,
        on_error: OnError,
    },
    Spread {
        body: BlockId,
        on_error: OnError,
    },
    Route {
        key: u32,
        arms: Vec<(Arc<str>, BlockId)>,
        default: Option<BlockId>,
    },
    Loop {
        body: BlockId,
        max_iterations: u32,
        on_max: OnMax,
    },
    Delay {
        duration_us: i64,
    },
    DelayUntil {
        at_us: i64,
    },
    Wait {
        event: Arc<str>,
        timeout_us: Option<i64>,
        on_timeout: OnTimeout,
    },
    Child {
        workflow: Arc<str>,
        body: BlockId,
    },
}

impl NodeKind {
    /// The word for this kind, the same in Rust, Python and SQL.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Task { .. } => "task",
            Self::Fork { .. } => "fork",
            Self::Map { .. } => "map",
            Self::Spread { .. } => "spread",
            Self::Route { .. } => "route",
            Self::Loop { .. } => "loop",
            Self::Delay { .. } => "delay",
            Self::DelayUntil { .. } => "delay_until",
            Self::Wait { .. } => "wait",
            Self::Child { .. } => "child",
        }
    }
}

/// One node of a built definition.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The name the author gave (repeats are possible).
    pub name: Arc<str>,
    /// The path segment: the escaped name, unique in its block.
    pub segment: Arc<str>,
    /// What it does.
    pub kind: NodeKind,
}

/// A sequence of nodes.
#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    /// The nodes in order; never empty.
    pub nodes: Vec<NodeId>,
    /// A lone task whose path is the path of its block: `parse[17]` instead of `parse[17]/parse`.
    pub lone: bool,
}

/// A listed node, see [`Definition::listing`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedNode {
    /// Path of the node, with `[]` and `#` standing for every item and turn.
    pub path: String,
    /// The node.
    pub node: NodeId,
    /// Path of the node before it, if any.
    pub predecessor: Option<String>,
}

/// A built, checked, immutable workflow.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// The workflow's name.
    pub name: Arc<str>,
    /// All uses of tasks.
    pub tasks: Arc<[TaskSpec]>,
    /// All nodes; indices are [`NodeId`]s.
    pub nodes: Vec<Node>,
    /// All blocks; indices are [`BlockId`]s.
    pub blocks: Vec<Block>,
    /// Where an instance begins.
    pub root: BlockId,
    /// Whether its instances are the items of a spread map of another definition.
    pub item: bool,
    /// What the items of each spread map run; not of those inside of another one's body.
    spread: Vec<(NodeId, Arc<Self>)>,
    hash: [u8; 32],
}

struct Builder<'a> {
    flow: &'a str,
    task_count: usize,
    nodes: Vec<Node>,
    blocks: Vec<Block>,
    /// The bodies of spread maps, to become definitions of their own.
    spread: Vec<(NodeId, &'a [NodeSpec])>,
    /// How many such bodies this place is inside of.
    inside: u32,
}

impl Definition {
    /// Builds and checks a definition.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the names of the flow and of the node.
    pub fn build(name: &str, tasks: Vec<TaskSpec>, root: &[NodeSpec]) -> Result<Self> {
        check_name("the workflow name", name)?;
        for task in &tasks {
            check_name(&format!("flow '{name}': the task name"), &task.name)?;
            task.policy
                .check(&format!("flow '{name}', task '{}'", task.name))?;
        }
        Self::assemble(name, tasks.into(), root, false)
    }

    /// Builds the definition that the items of a spread map run, from its stored form.
    ///
    /// # Errors
    /// As [`Definition::build`].
    pub fn build_item(name: &str, tasks: Vec<TaskSpec>, root: &[NodeSpec]) -> Result<Self> {
        let mut built = Self::build(name, tasks, root)?;
        built.item = true;
        built.hash = built.fingerprint();
        Ok(built)
    }

    fn assemble(name: &str, tasks: Arc<[TaskSpec]>, root: &[NodeSpec], item: bool) -> Result<Self> {
        let mut builder = Builder {
            flow: name,
            task_count: tasks.len(),
            nodes: Vec::new(),
            blocks: Vec::new(),
            spread: Vec::new(),
            inside: 0,
        };
        let root = builder.block("the flow", root, false, 0)?;
        let bodies = builder.spread;
        let mut built = Self {
            name: name.into(),
            tasks,
            nodes: builder.nodes,
            blocks: builder.blocks,
            root,
            item,
            spread: Vec::with_capacity(bodies.len()),
            hash: [0; 32],
        };
        if !bodies.is_empty() {
            let paths: HashMap<NodeId, String> = built
                .listing()
                .into_iter()
                .map(|listed| (listed.node, listed.path))
                .collect();
            for (node, body) in bodies {
                let name = item_name(name, paths.get(&node).map_or("", String::as_str));
                let items = Self::assemble(&name, Arc::clone(&built.tasks), body, true)?;
                built.spread.push((node, Arc::new(items)));
            }
        }
        built.hash = built.fingerprint();
        Ok(built)
    }

    /// What the items of a spread map run.
    #[must_use]
    pub fn items(&self, node: NodeId) -> Option<&Arc<Self>> {
        self.spread
            .iter()
            .find(|(of, _)| *of == node)
            .map(|(_, items)| items)
    }

    /// What the items of all its spread maps run.
    pub fn all_items(&self) -> impl Iterator<Item = &Arc<Self>> {
        self.spread.iter().map(|(_, items)| items)
    }

    /// The fingerprint of name and structure: SHA-256.
    #[must_use]
    pub fn hash(&self) -> &[u8; 32] {
        &self.hash
    }

    /// The fingerprint as 64 hexadecimal digits.
    #[must_use]
    pub fn hash_hex(&self) -> String {
        self.hash
            .iter()
            .fold(String::with_capacity(64), |mut out, byte| {
                let _ = write!(out, "{byte:02x}");
                out
            })
    }

    /// The node with this index.
    #[must_use]
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id as usize]
    }

    /// The block with this index.
    #[must_use]
    pub fn block(&self, id: BlockId) -> &Block {
        &self.blocks[id as usize]
    }

    /// Tags and priority of what a fresh instance does first.
    ///
    /// A fork asks for no tags, because its branches may need different ones, and has the priority
    /// of its most urgent branch; a delay or a wait has those of what follows it.
    #[must_use]
    pub fn entry(&self) -> (Tags, u8) {
        self.entry_of(self.root)
    }

    fn entry_of(&self, block: BlockId) -> (Tags, u8) {
        for &id in &self.block(block).nodes {
            return match &self.node(id).kind {
                NodeKind::Task { task } | NodeKind::Route { key: task, .. } => {
                    let policy = &self.tasks[*task as usize].policy;
                    (policy.tags.clone(), policy.priority)
                }
                NodeKind::Loop { body, .. }
                | NodeKind::Child { body, .. }
                | NodeKind::Map { body, .. } => self.entry_of(*body),
                // Nothing but the list is made here; what the items need is theirs.
                NodeKind::Spread { body, .. } => (Arc::new([]), self.entry_of(*body).1),
                NodeKind::Fork { branches } => {
                    let most_urgent = branches
                        .iter()
                        .map(|(_, body)| self.entry_of(*body).1)
                        .min();
                    (Arc::new([]), most_urgent.unwrap_or(DEFAULT_PRIORITY))
                }
                NodeKind::Delay { .. } | NodeKind::DelayUntil { .. } | NodeKind::Wait { .. } => {
                    continue;
                }
            };
        }
        (Arc::new([]), DEFAULT_PRIORITY)
    }

    /// All nodes in execution order, each with its path and the path of the node before it.
    #[must_use]
    pub fn listing(&self) -> Vec<ListedNode> {
        let mut out = Vec::new();
        self.list_block(self.root, "", None, &mut out);
        out
    }

    fn list_block(
        &self,
        block: BlockId,
        prefix: &str,
        before: Option<&str>,
        out: &mut Vec<ListedNode>,
    ) {
        let block = self.block(block);
        let mut predecessor = before.map(str::to_owned);
        for &id in &block.nodes {
            let node = self.node(id);
            let path = if block.lone {
                prefix.to_owned()
            } else if prefix.is_empty() {
                node.segment.to_string()
            } else {
                format!("{prefix}/{}", node.segment)
            };
            out.push(ListedNode {
                path: path.clone(),
                node: id,
                predecessor: predecessor.clone(),
            });
            match &node.kind {
                NodeKind::Fork { branches } => {
                    for (name, body) in branches {
                        self.list_block(
                            *body,
                            &format!("{path}/{}", path_segment(name)),
                            Some(&path),
                            out,
                        );
                    }
                }
                NodeKind::Map { body, .. } | NodeKind::Spread { body, .. } => {
                    self.list_block(*body, &format!("{path}[]"), Some(&path), out)
                }
                NodeKind::Loop { body, .. } => {
                    self.list_block(*body, &format!("{path}#"), Some(&path), out)
                }
                NodeKind::Route { arms, default, .. } => {
                    for (key, body) in arms {
                        self.list_block(
                            *body,
                            &format!("{path}/{}", path_segment(key)),
                            Some(&path),
                            out,
                        );
                    }
                    if let Some(body) = default {
                        self.list_block(*body, &format!("{path}/~default"), Some(&path), out);
                    }
                }
                NodeKind::Child { body, .. } => self.list_block(*body, &path, Some(&path), out),
                _ => {}
            }
            predecessor = Some(path);
        }
    }

    fn fingerprint(&self) -> [u8; 32] {
        let mut hasher = Fingerprint(Sha256::new());
        hasher.text(if self.item {
            "sayiir item 1"
        } else {
            "sayiir definition 1"
        });
        hasher.text(&self.name);
        self.hash_block(self.root, &mut hasher);
        hasher.0.finalize().into()
    }

    fn hash_block(&self, block: BlockId, out: &mut Fingerprint) {
        let block = self.block(block);
        out.count(block.nodes.len());
        for &id in &block.nodes {
            let node = self.node(id);
            out.text(node.kind.word());
            out.text(&node.segment);
            match &node.kind {
                NodeKind::Task { task } => out.text(&self.tasks[*task as usize].name),
                NodeKind::Fork { branches } => {
                    out.count(branches.len());
                    for (name, body) in branches {
                        out.text(name);
                        self.hash_block(*body, out);
                    }
                }
                NodeKind::Map { body, .. }
                | NodeKind::Spread { body, .. }
                | NodeKind::Loop { body, .. } => self.hash_block(*body, out),
                NodeKind::Route { key, arms, default } => {
                    out.text(&self.tasks[*key as usize].name);
                    out.count(arms.len());
                    for (name, body) in arms {
                        out.text(name);
                        self.hash_block(*body, out);
                    }
                    out.count(usize::from(default.is_some()));
                    if let Some(body) = default {
                        self.hash_block(*body, out);
                    }
                }
                NodeKind::Delay { .. } | NodeKind::DelayUntil { .. } => {}
                NodeKind::Wait { event, .. } => out.text(event),
                NodeKind::Child { workflow, body } => {
                    out.text(workflow);
                    self.hash_block(*body, out);
                }
            }
        }
    }
}

/// Length-prefixed hashing, so that no two structures share an encoding.
struct Fingerprint(Sha256);

impl Fingerprint {
    fn count(&mut self, n: usize) {
        self.0.update((n as u64).to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.count(text.len());
        self.0.update(text.as_bytes());
    }
}

/// The name of what the items of a spread map run: the flow's, and the path of the map in it.
fn item_name(flow: &str, path: &str) -> String {
    let whole = format!("{flow}/{path}");
    if whole.len() <= MAX_NAME_BYTES {
        return whole;
    }
    let digest = Sha256::digest(whole.as_bytes());
    let mut tail = String::from("~");
    for byte in &digest[..8] {
        let _ = write!(tail, "{byte:02x}");
    }
    let mut short = whole;
    while short.len() + tail.len() > MAX_NAME_BYTES {
        short.pop();
    }
    short + &tail
}

impl<'a> Builder<'a> {
    fn refuse<T>(&self, text: impl std::fmt::Display) -> Result<T> {
        Err(Error::invalid(format!("flow '{}': {text}", self.flow)))
    }

    fn task(&self, node: &str, task: u32) -> Result<u32> {
        if (task as usize) < self.task_count {
            Ok(task)
        } else {
            self.refuse(format!(
                "node '{node}' refers to task {task}, but there are {}",
                self.task_count
            ))
        }
    }

    fn block(
        &mut self,
        place: &str,
        specs: &'a [NodeSpec],
        may_be_lone: bool,
        depth: usize,
    ) -> Result<BlockId> {
        if specs.is_empty() {
            return self.refuse(format!("{place} has no steps; add at least one"));
        }
        if depth > MAX_DEFINITION_DEPTH {
            return self.refuse(format!(
                "{place} is nested deeper than {MAX_DEFINITION_DEPTH} levels"
            ));
        }
        let mut seen: HashMap<String, u32> = HashMap::new();
        let mut nodes = Vec::with_capacity(specs.len());
        for spec in specs {
            let name = spec.name();
            check_name(&format!("flow '{}': the name of a node", self.flow), name)?;
            let base = path_segment(name);
            let uses = seen
                .entry(base.clone())
                .and_modify(|n| *n += 1)
                .or_insert(1);
            let segment = if *uses == 1 {
                base
            } else {
                format!("{base}~{uses}")
            };
            let kind = self.kind(spec, depth)?;
            if self.nodes.len() >= MAX_NODES {
                return self.refuse(format!("more than {MAX_NODES} nodes"));
            }
            if let NodeSpec::Spread { body, .. } = spec
                && self.inside == 0
            {
                self.spread.push((self.nodes.len() as NodeId, body));
            }
            self.nodes.push(Node {
                name: name.into(),
                segment: segment.into(),
                kind,
            });
            nodes.push((self.nodes.len() - 1) as NodeId);
        }
        let lone = may_be_lone && matches!(specs, [NodeSpec::Task { .. }]);
        self.blocks.push(Block { nodes, lone });
        Ok((self.blocks.len() - 1) as BlockId)
    }

    fn named_blocks(
        &mut self,
        what: &str,
        node: &str,
        specs: &'a [(String, Vec<NodeSpec>)],
        depth: usize,
    ) -> Result<Vec<(Arc<str>, BlockId)>> {
        let mut names = HashSet::new();
        let mut out = Vec::with_capacity(specs.len());
        for (name, body) in specs {
            check_name(
                &format!("flow '{}', node '{node}': the {what}", self.flow),
                name,
            )?;
            if !names.insert(name.as_str()) {
                return self.refuse(format!("node '{node}' has the {what} '{name}' twice"));
            }
            let block = self.block(
                &format!("the {what} '{name}' of node '{node}'"),
                body,
                false,
                depth + 1,
            )?;
            out.push((Arc::from(name.as_str()), block));
        }
        Ok(out)
    }

    fn kind(&mut self, spec: &'a NodeSpec, depth: usize) -> Result<NodeKind> {
        Ok(match spec {
            NodeSpec::Task { name, task } => NodeKind::Task {
                task: self.task(name, *task)?,
            },
            NodeSpec::Fork { name, branches } => {
                if branches.is_empty() {
                    return self.refuse(format!(
                        "fork '{name}' has no branches; add .branch(…) before .join(…)"
                    ));
                }
                NodeKind::Fork {
                    branches: self.named_blocks("branch", name, branches, depth)?,
                }
            }
            NodeSpec::Map {
                name,
                body,
                concurrency,
                on_error,
            } => {
                if *concurrency == Some(0) {
                    return self.refuse(format!(
                        "map '{name}': concurrency must be 1 or more, got 0"
                    ));
                }
                let body = self.block(&format!("map '{name}'"), body, true, depth + 1)?;
                NodeKind::Map {
                    body,
                    concurrency: *concurrency,
                    on_error: *on_error,
                }
            }
            NodeSpec::Spread {
                name,
                body,
                on_error,
            } => {
                self.inside += 1;
                let body = self.block(&format!("map '{name}'"), body, false, depth + 1)?;
                self.inside -= 1;
                NodeKind::Spread {
                    body,
                    on_error: *on_error,
                }
            }
            NodeSpec::Route {
                name,
                key,
                arms,
                default,
            } => {
                if arms.is_empty() && default.is_none() {
                    return self.refuse(format!("route '{name}' has no branches"));
                }
                let key = self.task(name, *key)?;
                let arms = self.named_blocks("route key", name, arms, depth)?;
                let default = match default {
                    Some(body) => Some(self.block(
                        &format!("the default branch of route '{name}'"),
                        body,
                        false,
                        depth + 1,
                    )?),
                    None => None,
                };
                NodeKind::Route { key, arms, default }
            }
            NodeSpec::Loop {
                name,
                body,
                max_iterations,
                on_max,
            } => {
                if *max_iterations == 0 || *max_iterations > MAX_LOOP_TURNS {
                    return self.refuse(format!(
                        "loop '{name}': max_iterations must be between 1 and {MAX_LOOP_TURNS}, got {max_iterations}"
                    ));
                }
                let body = self.block(&format!("loop '{name}'"), body, true, depth + 1)?;
                NodeKind::Loop {
                    body,
                    max_iterations: *max_iterations,
                    on_max: *on_max,
                }
            }
            NodeSpec::Delay { duration_us, .. } => NodeKind::Delay {
                duration_us: *duration_us,
            },
            NodeSpec::DelayUntil { at_us, .. } => NodeKind::DelayUntil { at_us: *at_us },
            NodeSpec::Wait {
                name,
                event,
                timeout_us,
                on_timeout,
            } => {
                check_name(
                    &format!("flow '{}', node '{name}': the event name", self.flow),
                    event,
                )?;
                NodeKind::Wait {
                    event: event.as_str().into(),
                    timeout_us: *timeout_us,
                    on_timeout: *on_timeout,
                }
            }
            NodeSpec::Child {
                name,
                workflow,
                body,
            } => {
                check_name(
                    &format!("flow '{}', node '{name}': the workflow name", self.flow),
                    workflow,
                )?;
                let body = self.block(&format!("child '{name}'"), body, false, depth + 1)?;
                NodeKind::Child {
                    workflow: workflow.as_str().into(),
                    body,
                }
            }
        })
    }
}
