//! A definition as bytes: the whole tree as data, so that any instance can be drawn without its code.
//!
//! [`encode_definition`] writes the name, the task table with every policy, and the nodes with all
//! their parameters. [`decode_definition`] builds the definition anew through [`Definition::build`],
//! so whatever comes out has passed every check a fresh one passes, and its hash is computed, never
//! believed: it equals the hash of what was encoded. Whoever keeps definitions by their hash compares
//! the two.
//!
//! The bytes may be anything. A cut, a flipped bit, a length that lies, a tree without bottom, a task
//! that is not there: all are [`Error::Format`]. Nothing is allocated for a claim, the recursion ends
//! at [`MAX_DEFINITION_DEPTH`], the tree at [`MAX_NODES`]. This module refuses to know functions,
//! values, instances, and where the bytes are kept.
//!
//! # Layout
//!
//! Behind the header (kind 7, or 9 where the instances are the items of a spread map; codec 0): a
//! record with the workflow's name · the number of tasks, a record each · the root block. A block is
//! a number of nodes, then the nodes. A node is a record and behind it the blocks it contains; a
//! branch is a record and its block. A *record* is its length in
//! bytes and that many bytes of fields. `docs/format.md` has the fields of each, byte by byte.
//!
//! # How it may grow
//!
//! * **A further field** is appended to its record, with a default that means "as before". A reader
//!   takes the fields it knows and steps over the rest of the record, so old programs read new bytes;
//!   a reader that knows the field uses the default where the record ends too early. Only what may be
//!   tuned may come in this way: an appended field must never take part in the hash.
//! * **Whatever is structure** comes as a new kind of node, **a new rule** (`on_error`, …) as a new
//!   number. Both are refused by older programs, which cannot know what they mean.
//! * Nothing is ever removed, reordered or given a second meaning. Should that be needed, it takes a
//!   new format version in the header.

use crate::definition::{
    BlockId, Definition, MAX_DEFINITION_DEPTH, MAX_NODES, NodeId, NodeKind, NodeSpec, OnError,
    OnMax, OnTimeout, TaskSpec,
};
use crate::envelope::{self, Bytes, Reader, codec, kind, put_bytes, put_int, put_uint};
use crate::error::{Error, Result};
use crate::policy::{self, MAX_DURATION_S, MAX_TAGS, Retry, TaskPolicy};

/// Kinds of nodes. Frozen for ever.
mod node {
    pub(super) const TASK: u8 = 1;
    pub(super) const FORK: u8 = 2;
    pub(super) const MAP: u8 = 3;
    pub(super) const ROUTE: u8 = 4;
    pub(super) const LOOP: u8 = 5;
    pub(super) const DELAY: u8 = 6;
    pub(super) const DELAY_UNTIL: u8 = 7;
    pub(super) const WAIT: u8 = 8;
    pub(super) const CHILD: u8 = 9;
    pub(super) const SPREAD: u8 = 10;
}

/// The longest duration, in microseconds.
const MAX_DURATION_US: i64 = (MAX_DURATION_S * 1e6) as i64;
/// How far from 1970 a moment may lie, in microseconds: some 31,700 years.
const MAX_MOMENT_US: i64 = 1_000_000_000_000_000_000;
/// How many items a claimed count makes room for at once.
const TRUSTED: usize = 64;

/// The stored form of a definition. Equal definitions have equal bytes.
///
/// Every definition whose tags and durations were checked (see [`policy::tags`] and
/// [`policy::duration_us`]) is read back equal by [`decode_definition`].
///
/// ```
/// use sayiir_core::policy::TaskPolicy;
/// use sayiir_core::wire::{decode_definition, encode_definition};
/// use sayiir_core::{Definition, NodeSpec, TaskSpec};
///
/// let tasks = vec![TaskSpec { name: "pack".into(), policy: TaskPolicy::default() }];
/// let nodes = [NodeSpec::Task { name: "pack".into(), task: 0 }];
/// let order = Definition::build("order", tasks, &nodes)?;
/// assert_eq!(decode_definition(&encode_definition(&order))?, order);
/// # Ok::<(), sayiir_core::Error>(())
/// ```
#[must_use]
pub fn encode_definition(def: &Definition) -> Bytes {
    let mut out = Vec::with_capacity(64 + 64 * def.tasks.len() + 32 * def.nodes.len());
    let kind = if def.item {
        kind::ITEMS
    } else {
        kind::DEFINITION
    };
    let start = envelope::begin(&mut out, kind, codec::NONE);
    let mut writer = Writer {
        def,
        out,
        fields: Vec::new(),
    };
    writer.record(|fields| put_text(fields, &def.name));
    put_uint(&mut writer.out, def.tasks.len() as u64);
    for task in &*def.tasks {
        writer.record(|fields| put_task(fields, task));
    }
    writer.block(def.root);
    envelope::seal(&mut writer.out, start);
    writer.out.into()
}

/// Reads the stored form of a definition.
///
/// # Errors
/// [`Error::Format`] for bytes that are damaged, cut or foreign, and for a tree that could not have
/// been built; [`Error::Newer`] for a newer format.
pub fn decode_definition(bytes: &[u8]) -> Result<Definition> {
    let item = envelope::open(bytes)?.kind == kind::ITEMS;
    let kind = if item { kind::ITEMS } else { kind::DEFINITION };
    let body = envelope::open_as(bytes, kind, "a definition")?;
    read_definition(body, item).map_err(|error| {
        Error::format(format!(
            "a stored definition is damaged, or written by a newer sayiir than this one: {error}"
        ))
    })
}

struct Writer<'a> {
    def: &'a Definition,
    out: Vec<u8>,
    /// The fields of the record being written; kept for its buffer.
    fields: Vec<u8>,
}

impl Writer<'_> {
    fn record(&mut self, fill: impl FnOnce(&mut Vec<u8>)) {
        self.fields.clear();
        fill(&mut self.fields);
        put_bytes(&mut self.out, &self.fields);
    }

    fn block(&mut self, block: BlockId) {
        let nodes = &self.def.block(block).nodes;
        put_uint(&mut self.out, nodes.len() as u64);
        for &id in nodes {
            self.node(id);
        }
    }

    fn branch(&mut self, name: &str, body: BlockId) {
        self.record(|fields| put_text(fields, name));
        self.block(body);
    }

    fn node(&mut self, id: NodeId) {
        let node = self.def.node(id);
        self.record(|fields| put_node(fields, &node.name, &node.kind));
        match &node.kind {
            NodeKind::Task { .. }
            | NodeKind::Delay { .. }
            | NodeKind::DelayUntil { .. }
            | NodeKind::Wait { .. } => {}
            NodeKind::Map { body, .. }
            | NodeKind::Spread { body, .. }
            | NodeKind::Loop { body, .. }
            | NodeKind::Child { body, .. } => self.block(*body),
            NodeKind::Fork { branches } => {
                for (name, body) in branches {
                    self.branch(name, *body);
                }
            }
            NodeKind::Route { arms, default, .. } => {
                for (key, body) in arms {
                    self.branch(key, *body);
                }
                if let Some(body) = default {
                    self.block(*body);
                }
            }
        }
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_bytes(out, text.as_bytes());
}

fn put_float(out: &mut Vec<u8>, number: f64) {
    out.extend_from_slice(&number.to_bits().to_le_bytes());
}

/// Whether there is one, then the thing itself.
fn put_option<T>(out: &mut Vec<u8>, value: Option<T>, put: impl FnOnce(&mut Vec<u8>, T)) {
    out.push(u8::from(value.is_some()));
    if let Some(value) = value {
        put(out, value);
    }
}

fn put_task(out: &mut Vec<u8>, task: &TaskSpec) {
    let TaskPolicy {
        retry,
        timeout_us,
        tags,
        priority,
    } = &task.policy;
    put_text(out, &task.name);
    put_uint(out, u64::from(retry.max_retries));
    put_float(out, retry.initial_delay_s);
    put_float(out, retry.multiplier);
    put_option(out, retry.max_delay_s, put_float);
    put_float(out, retry.jitter);
    put_option(out, *timeout_us, put_int);
    put_uint(out, tags.len() as u64);
    for tag in tags.iter() {
        put_text(out, tag);
    }
    out.push(*priority);
}

fn put_node(out: &mut Vec<u8>, name: &str, kind: &NodeKind) {
    out.push(match kind {
        NodeKind::Task { .. } => node::TASK,
        NodeKind::Fork { .. } => node::FORK,
        NodeKind::Map { .. } => node::MAP,
        NodeKind::Spread { .. } => node::SPREAD,
        NodeKind::Route { .. } => node::ROUTE,
        NodeKind::Loop { .. } => node::LOOP,
        NodeKind::Delay { .. } => node::DELAY,
        NodeKind::DelayUntil { .. } => node::DELAY_UNTIL,
        NodeKind::Wait { .. } => node::WAIT,
        NodeKind::Child { .. } => node::CHILD,
    });
    put_text(out, name);
    match kind {
        NodeKind::Task { task } => put_uint(out, u64::from(*task)),
        NodeKind::Fork { branches } => put_uint(out, branches.len() as u64),
        NodeKind::Map {
            concurrency,
            on_error,
            ..
        } => {
            put_option(out, *concurrency, |out, n| put_uint(out, u64::from(n)));
            put_on_error(out, *on_error);
        }
        NodeKind::Spread { on_error, .. } => put_on_error(out, *on_error),
        NodeKind::Route { key, arms, default } => {
            put_uint(out, u64::from(*key));
            put_uint(out, arms.len() as u64);
            out.push(u8::from(default.is_some()));
        }
        NodeKind::Loop {
            max_iterations,
            on_max,
            ..
        } => {
            put_uint(out, u64::from(*max_iterations));
            out.push(match on_max {
                OnMax::Fail => 0,
                OnMax::ExitWithLast => 1,
            });
        }
        NodeKind::Delay { duration_us } => put_int(out, *duration_us),
        NodeKind::DelayUntil { at_us } => put_int(out, *at_us),
        NodeKind::Wait {
            event,
            timeout_us,
            on_timeout,
        } => {
            put_text(out, event);
            put_option(out, *timeout_us, put_int);
            out.push(match on_timeout {
                OnTimeout::Fail => 0,
                OnTimeout::Continue => 1,
            });
        }
        NodeKind::Child { workflow, .. } => put_text(out, workflow),
    }
}

fn put_on_error(out: &mut Vec<u8>, on_error: OnError) {
    out.push(match on_error {
        OnError::Fail => 0,
        OnError::Collect => 1,
    });
}

fn read_definition(body: &[u8], item: bool) -> Result<Definition> {
    let mut tree = Tree {
        reader: Reader::new(body),
        nodes: 0,
    };
    let name = tree.record()?.text()?;
    let count = tree.reader.count()?;
    let mut tasks = Vec::with_capacity(count.min(TRUSTED));
    for _ in 0..count {
        tasks.push(read_task(&mut tree.record()?)?);
    }
    let root = tree.block(0)?;
    tree.reader.end()?;
    if item {
        Definition::build_item(name, tasks, &root)
    } else {
        Definition::build(name, tasks, &root)
    }
}

/// The reader of the tree, and how many nodes it has been promised so far.
struct Tree<'a> {
    reader: Reader<'a>,
    nodes: usize,
}

impl<'a> Tree<'a> {
    /// A reader of one record's fields. What it leaves unread is a newer version's.
    fn record(&mut self) -> Result<Reader<'a>> {
        Ok(Reader::new(self.reader.bytes()?))
    }

    fn block(&mut self, depth: usize) -> Result<Vec<NodeSpec>> {
        if depth > MAX_DEFINITION_DEPTH {
            return Err(Error::format(format!(
                "blocks are nested deeper than {MAX_DEFINITION_DEPTH} levels"
            )));
        }
        let count = self.reader.count()?;
        self.nodes = self.nodes.saturating_add(count);
        if self.nodes > MAX_NODES {
            return Err(Error::format(format!("more than {MAX_NODES} nodes")));
        }
        let mut nodes = Vec::with_capacity(count.min(TRUSTED));
        for _ in 0..count {
            nodes.push(self.node(depth)?);
        }
        Ok(nodes)
    }

    fn branches(&mut self, count: usize, depth: usize) -> Result<Vec<(String, Vec<NodeSpec>)>> {
        let mut out = Vec::with_capacity(count.min(TRUSTED));
        for _ in 0..count {
            let name = self.record()?.text()?.to_owned();
            out.push((name, self.block(depth)?));
        }
        Ok(out)
    }

    fn node(&mut self, depth: usize) -> Result<NodeSpec> {
        let fields = &mut self.record()?;
        let kind = fields.byte()?;
        let name = fields.text()?.to_owned();
        let inner = depth + 1;
        Ok(match kind {
            node::TASK => NodeSpec::Task {
                name,
                task: fields.uint32()?,
            },
            node::FORK => NodeSpec::Fork {
                name,
                branches: self.branches(fields.uint32()? as usize, inner)?,
            },
            node::MAP => NodeSpec::Map {
                name,
                concurrency: option(fields, Reader::uint32)?,
                on_error: choice(fields, [OnError::Fail, OnError::Collect])?,
                body: self.block(inner)?,
            },
            node::SPREAD => NodeSpec::Spread {
                name,
                on_error: choice(fields, [OnError::Fail, OnError::Collect])?,
                body: self.block(inner)?,
            },
            node::ROUTE => {
                let key = fields.uint32()?;
                let arms = fields.uint32()? as usize;
                let has_default = choice(fields, [false, true])?;
                NodeSpec::Route {
                    name,
                    key,
                    arms: self.branches(arms, inner)?,
                    default: has_default.then(|| self.block(inner)).transpose()?,
                }
            }
            node::LOOP => NodeSpec::Loop {
                name,
                max_iterations: fields.uint32()?,
                on_max: choice(fields, [OnMax::Fail, OnMax::ExitWithLast])?,
                body: self.block(inner)?,
            },
            node::DELAY => NodeSpec::Delay {
                name,
                duration_us: duration(fields)?,
            },
            node::DELAY_UNTIL => NodeSpec::DelayUntil {
                name,
                at_us: time(fields, -MAX_MOMENT_US, MAX_MOMENT_US)?,
            },
            node::WAIT => NodeSpec::Wait {
                name,
                event: fields.text()?.to_owned(),
                timeout_us: option(fields, duration)?,
                on_timeout: choice(fields, [OnTimeout::Fail, OnTimeout::Continue])?,
            },
            node::CHILD => NodeSpec::Child {
                name,
                workflow: fields.text()?.to_owned(),
                body: self.block(inner)?,
            },
            unknown => {
                return Err(Error::format(format!(
                    "a node is of the unknown kind {unknown}"
                )));
            }
        })
    }
}

fn read_task(fields: &mut Reader<'_>) -> Result<TaskSpec> {
    let name = fields.text()?;
    let retry = Retry {
        max_retries: fields.uint32()?,
        initial_delay_s: float(fields)?,
        multiplier: float(fields)?,
        max_delay_s: option(fields, float)?,
        jitter: float(fields)?,
    };
    let timeout_us = option(fields, duration)?;
    let count = fields.count()?;
    if count > MAX_TAGS {
        return Err(Error::format(format!("a task has {count} tags")));
    }
    let mut tags = Vec::with_capacity(count);
    for _ in 0..count {
        tags.push(fields.text()?.to_owned());
    }
    Ok(TaskSpec {
        name: name.into(),
        policy: TaskPolicy {
            retry,
            timeout_us,
            tags: policy::tags("a task", tags)?,
            priority: fields.byte()?,
        },
    })
}

fn float(fields: &mut Reader<'_>) -> Result<f64> {
    let mut bits = [0; 8];
    bits.copy_from_slice(fields.take(8)?);
    Ok(f64::from_bits(u64::from_le_bytes(bits)))
}

fn option<'a, T>(
    fields: &mut Reader<'a>,
    read: impl FnOnce(&mut Reader<'a>) -> Result<T>,
) -> Result<Option<T>> {
    choice(fields, [false, true])?
        .then(|| read(fields))
        .transpose()
}

/// One byte that stands for one of two things.
fn choice<T: Copy>(fields: &mut Reader<'_>, known: [T; 2]) -> Result<T> {
    let number = fields.byte()?;
    known
        .get(usize::from(number))
        .copied()
        .ok_or_else(|| Error::format(format!("a choice of two has the unknown number {number}")))
}

fn duration(fields: &mut Reader<'_>) -> Result<i64> {
    time(fields, 0, MAX_DURATION_US)
}

fn time(fields: &mut Reader<'_>, least: i64, most: i64) -> Result<i64> {
    let micros = fields.int()?;
    if (least..=most).contains(&micros) {
        Ok(micros)
    } else {
        Err(Error::format("a time is out of range"))
    }
}
