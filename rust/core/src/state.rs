//! The state of an instance and how it is written down.
//!
//! An instance is a tree of *strands*: the root strand walks the flow; a fork or a map parks its
//! strand on a *region* of child strands, one per branch or item. A strand's position is one small
//! *cell*; outputs live in append-only step rows and a cell only refers to them ([`Ref`]), so the
//! cost of a checkpoint does not depend on what is already done. Strand ids grow and are never used
//! again: all strands that matter have ids from the commit's `cells_from` on.
//!
//! This module knows shapes and bytes; [`crate::advance`] knows the rules.

use std::sync::Arc;

use crate::definition::{Definition, MAX_DEFINITION_DEPTH, MAX_FAN_OUT};
use crate::envelope::{self, Bytes, Reader, kind, put_int, put_uint};
use crate::error::{Error, Result};
use crate::policy::Tags;

/// Number of a strand in its instance; the root is 0.
pub type StrandId = u32;
/// Number of a step row in its instance.
pub type Seq = u32;

/// The strand every instance begins with.
pub const ROOT: StrandId = 0;
/// In [`Family::over`]: whatever groups there are.
pub const EVERY_GROUP: StrandId = u32::MAX;
/// `cells_from` when no child strand matters.
pub const NO_CELLS: u32 = u32::MAX;

/// Where a value is, without holding it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ref {
    /// The instance's input.
    Input,
    /// The output of a step row.
    Step(Seq),
    /// The value inside the `LoopResult` that another reference leads to.
    Inner(Box<Ref>),
    /// One item of a list.
    Item {
        /// The list.
        of: Box<Ref>,
        /// Which item.
        index: u32,
    },
    /// The outputs of all strands of a finished region.
    Region {
        /// The fork or map node.
        node: u32,
        /// First strand.
        base: StrandId,
        /// How many strands.
        count: u32,
        /// Lowest strand that resolving this may need.
        low: StrandId,
    },
    /// What a route passes on.
    Arm {
        /// The step that returned the key.
        key: Seq,
        /// The arm's output.
        inner: Box<Ref>,
    },
}

impl Ref {
    /// The lowest strand whose cell is needed to resolve this.
    #[must_use]
    pub fn low(&self) -> StrandId {
        match self {
            Self::Input | Self::Step(_) => NO_CELLS,
            Self::Inner(of) | Self::Item { of, .. } | Self::Arm { inner: of, .. } => of.low(),
            Self::Region { low, .. } => *low,
        }
    }

    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Input => out.push(0),
            Self::Step(seq) => {
                out.push(1);
                put_uint(out, u64::from(*seq));
            }
            Self::Inner(of) => {
                out.push(2);
                of.put(out);
            }
            Self::Item { of, index } => {
                out.push(3);
                put_uint(out, u64::from(*index));
                of.put(out);
            }
            Self::Region {
                node,
                base,
                count,
                low,
            } => {
                out.push(4);
                for n in [node, base, count, low] {
                    put_uint(out, u64::from(*n));
                }
            }
            Self::Arm { key, inner } => {
                out.push(5);
                put_uint(out, u64::from(*key));
                inner.put(out);
            }
        }
    }

    fn read(reader: &mut Reader<'_>, depth: usize) -> Result<Self> {
        if depth > 4 * MAX_DEFINITION_DEPTH + 64 {
            return Err(Error::format("a position refers too deep"));
        }
        Ok(match reader.byte()? {
            0 => Self::Input,
            1 => Self::Step(reader.uint32()?),
            2 => Self::Inner(Box::new(Self::read(reader, depth + 1)?)),
            3 => {
                let index = reader.uint32()?;
                Self::Item {
                    of: Box::new(Self::read(reader, depth + 1)?),
                    index,
                }
            }
            4 => {
                let (node, base) = (reader.uint32()?, reader.uint32()?);
                let (count, low) = (reader.uint32()?, reader.uint32()?);
                if count as usize > MAX_FAN_OUT || base.checked_add(count).is_none() {
                    return Err(Error::format("a position refers to too many strands"));
                }
                Self::Region {
                    node,
                    base,
                    count,
                    low,
                }
            }
            5 => {
                let key = reader.uint32()?;
                Self::Arm {
                    key,
                    inner: Box::new(Self::read(reader, depth + 1)?),
                }
            }
            tag => {
                return Err(Error::format(format!(
                    "a position has the unknown reference {tag}"
                )));
            }
        })
    }
}

/// One level of a strand's position: the node inside a block, and what that node adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Frame {
    /// Index of the current node in its block.
    pub at: u32,
    /// For a loop: the turn. For a route: the chosen arm (the default arm comes after the others).
    pub extra: u32,
    /// For a route: the step that returned the key.
    pub key: Seq,
}

/// What a strand is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// The node at the position is next. A running step is stored like this too: after a crash it
    /// is simply next again.
    Ready,
    /// A failed attempt waits for the next one.
    Backoff {
        /// When, µs since the epoch.
        until_us: i64,
    },
    /// In a delay.
    Sleeping {
        /// When it ends.
        until_us: i64,
    },
    /// Waiting for an event.
    Awaiting {
        /// When the wait ends by itself.
        until_us: Option<i64>,
    },
    /// Parked on a region of child strands.
    Joining {
        /// First strand of the region.
        base: StrandId,
        /// How many strands it has in all.
        count: u32,
    },
    /// At a spread map, whose items are instances of their own.
    Spread {
        /// The number of this use of the map, taken from those of strands.
        group: StrandId,
        /// How many of its items exist.
        made: u32,
        /// How many there are to be.
        count: u32,
    },
    /// Ended with a value.
    Done,
    /// Ended with the failure in this step row (only under a map that collects).
    Failed(Seq),
}

/// The stored form of a strand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// Position, outermost first.
    pub frames: Vec<Frame>,
    /// What it is doing.
    pub phase: Phase,
    /// Failed attempts of the current step so far.
    pub attempt: u32,
    /// The value that flows into the current node, or the strand's output when it is done.
    pub value: Ref,
}

impl Cell {
    /// Appends the stored form; the caller may reuse `out`.
    pub fn encode_into(
        out: &mut Vec<u8>,
        frames: impl ExactSizeIterator<Item = Frame>,
        phase: &Phase,
        attempt: u32,
        value: &Ref,
    ) {
        let start = envelope::begin(out, kind::CELL, envelope::codec::NONE);
        put_uint(out, frames.len() as u64);
        for frame in frames {
            put_uint(out, u64::from(frame.at));
            put_uint(out, u64::from(frame.extra));
            put_uint(out, u64::from(frame.key));
        }
        match phase {
            Phase::Ready => out.push(0),
            Phase::Backoff { until_us } => {
                out.push(1);
                put_int(out, *until_us);
            }
            Phase::Sleeping { until_us } => {
                out.push(2);
                put_int(out, *until_us);
            }
            Phase::Awaiting { until_us: None } => out.push(3),
            Phase::Awaiting {
                until_us: Some(until_us),
            } => {
                out.push(4);
                put_int(out, *until_us);
            }
            Phase::Joining { base, count } => {
                out.push(5);
                put_uint(out, u64::from(*base));
                put_uint(out, u64::from(*count));
            }
            Phase::Spread { group, made, count } => {
                out.push(8);
                for n in [group, made, count] {
                    put_uint(out, u64::from(*n));
                }
            }
            Phase::Done => out.push(6),
            Phase::Failed(seq) => {
                out.push(7);
                put_uint(out, u64::from(*seq));
            }
        }
        put_uint(out, u64::from(attempt));
        value.put(out);
        envelope::seal(out, start);
    }

    /// The stored form.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(48);
        Self::encode_into(
            &mut out,
            self.frames.iter().copied(),
            &self.phase,
            self.attempt,
            &self.value,
        );
        out.into()
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`Error::Format`] for anything that [`Cell::encode`] did not write.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(envelope::open_as(bytes, kind::CELL, "a position")?);
        let depth = reader.count_of(3)?;
        // One for each block that it is inside of.
        if depth > MAX_DEFINITION_DEPTH + 1 {
            return Err(Error::format("a position is nested too deep"));
        }
        let mut frames = Vec::with_capacity(depth);
        for _ in 0..depth {
            frames.push(Frame {
                at: reader.uint32()?,
                extra: reader.uint32()?,
                key: reader.uint32()?,
            });
        }
        let phase = match reader.byte()? {
            0 => Phase::Ready,
            1 => Phase::Backoff {
                until_us: reader.int()?,
            },
            2 => Phase::Sleeping {
                until_us: reader.int()?,
            },
            3 => Phase::Awaiting { until_us: None },
            4 => Phase::Awaiting {
                until_us: Some(reader.int()?),
            },
            5 => Phase::Joining {
                base: reader.uint32()?,
                count: reader.uint32()?,
            },
            6 => Phase::Done,
            7 => Phase::Failed(reader.uint32()?),
            8 => Phase::Spread {
                group: reader.uint32()?,
                made: reader.uint32()?,
                count: reader.uint32()?,
            },
            tag => {
                return Err(Error::format(format!(
                    "a position has the unknown phase {tag}"
                )));
            }
        };
        let attempt = reader.uint32()?;
        let value = Ref::read(&mut reader, 0)?;
        reader.end()?;
        Ok(Self {
            frames,
            phase,
            attempt,
            value,
        })
    }
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It returned; the row holds its output.
    Completed,
    /// It failed and will be tried again.
    Retried,
    /// It failed for good.
    Failed,
    /// A delay or a wait was over.
    Elapsed,
}

impl Outcome {
    /// The word for it in history, SQL and logs.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Retried => "retried",
            Self::Failed => "failed",
            Self::Elapsed => "elapsed",
        }
    }
}

/// Where an instance stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Status {
    /// Ready or running.
    InProgress = 0,
    /// In a delay, a backoff, or before its start time.
    Waiting = 1,
    /// Waiting for an event.
    AwaitingSignal = 2,
    /// Paused by somebody.
    Paused = 3,
    /// Finished.
    Completed = 4,
    /// Finished with an error.
    Failed = 5,
    /// Cancelled by somebody.
    Cancelled = 6,
}

impl Status {
    /// The public word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::InProgress => "in_progress",
            Self::Waiting => "waiting",
            Self::AwaitingSignal => "awaiting_signal",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The status with this number, which is what is stored.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::InProgress,
            1 => Self::Waiting,
            2 => Self::AwaitingSignal,
            3 => Self::Paused,
            4 => Self::Completed,
            5 => Self::Failed,
            6 => Self::Cancelled,
            _ => return None,
        })
    }

    /// The status with this public word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [
            Self::InProgress,
            Self::Waiting,
            Self::AwaitingSignal,
            Self::Paused,
            Self::Completed,
            Self::Failed,
            Self::Cancelled,
        ]
        .into_iter()
        .find(|status| status.word() == word)
    }

    /// Whether nothing ever happens to the instance again.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

/// One line of an instance's history, written once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepRow {
    /// Position in the history.
    pub seq: Seq,
    /// The step's path.
    pub path: Arc<str>,
    /// The task's (or node's) name.
    pub name: Arc<str>,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// The sealed output, if it returned one.
    pub output: Option<Bytes>,
    /// The error record, if it failed.
    pub error: Option<Bytes>,
    /// Start, µs since the epoch.
    pub started_us: i64,
    /// End, µs since the epoch.
    pub ended_us: i64,
}

/// One history row with the worker that wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryRow {
    /// The step.
    pub step: StepRow,
    /// The worker that ran it.
    pub worker: Arc<str>,
}

/// Why nothing runs and nobody needs to hold the instance.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Parked {
    /// An event is awaited somewhere (else only timers are).
    pub awaiting: bool,
    /// When to look again, if ever by itself.
    pub wake_at_us: Option<i64>,
    /// Names of awaited events.
    pub awaits: Vec<Arc<str>>,
    /// Path of the delay, when one is the reason.
    pub delay_id: Option<Arc<str>>,
    /// Path of the wait, when one is the reason.
    pub signal_id: Option<Arc<str>>,
    /// Name of the awaited event, when one is the reason.
    pub signal_name: Option<Arc<str>>,
}

/// What becomes of the instance and of its lease with a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Work goes on; the lease is kept.
    Hold,
    /// Nothing to do before a timer or an event; the lease is given back.
    Park(Box<Parked>),
    /// Ready, but for somebody else (other tags, or the holder is stopping); the lease is given back.
    HandOver,
    /// Finished with this output.
    Completed(Bytes),
    /// Finished with this error record.
    Failed(Bytes),
}

/// Some of the items of a spread map, to become instances of their own.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Which use of which map.
    pub group: StrandId,
    /// What they run.
    pub items: Arc<Definition>,
    /// Index of the first of them.
    pub first: u32,
    /// How many items the group has in all.
    pub count: u32,
    /// Whether the first failure among them is told at once, instead of the end of all.
    pub fail_fast: bool,
    /// Their sealed inputs.
    pub inputs: Vec<Bytes>,
}

/// What a checkpoint changes about the items of spread maps.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Family {
    /// New items.
    pub batch: Option<Batch>,
    /// Groups that nobody waits for any more; those of their items that have not ended are cancelled.
    pub over: Vec<StrandId>,
}

/// How an item of a spread map ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ItemEnd {
    /// With this sealed output.
    Completed(Bytes),
    /// With this error record.
    Failed(Bytes),
    /// Somebody cancelled it.
    Cancelled,
    /// Not yet.
    Unended,
}

/// The name of the event by which a parked parent learns that a group of items is over. It has a
/// character that no event sent by a user can have.
#[must_use]
pub fn group_event(group: StrandId) -> Arc<str> {
    format!("\u{1}{group}").into()
}

/// Everything one checkpoint changes, applied atomically and only under a valid fence.
#[derive(Debug, Clone, PartialEq)]
pub struct Commit {
    /// New history rows.
    pub steps: Vec<StepRow>,
    /// The root strand's cell, when it changed. A vector, so that its buffer can go round.
    pub cursor: Option<Vec<u8>>,
    /// Child strands' cells that changed.
    pub cells: Vec<(StrandId, Bytes)>,
    /// Next free step and strand numbers that it builds on. A store that was set back to an older
    /// state has others, and must not take it.
    pub from: (Seq, StrandId),
    /// Next free step number.
    pub next_seq: Seq,
    /// Next free strand number.
    pub next_strand: StrandId,
    /// Lowest strand whose cell a later holder needs.
    pub cells_from: StrandId,
    /// Events taken out of the buffer.
    pub consumed: Vec<u64>,
    /// Tags and priority of what runs next, when they changed.
    pub needs: Option<(Tags, u8)>,
    /// Whether no step is running, so that a pending pause may take effect.
    pub quiescent: bool,
    /// What becomes of the instance.
    pub next: Next,
    /// Whether the instance is an item of a spread map, whose end its parent is to learn of.
    pub item: bool,
    /// What changes about items of its own; rare.
    pub family: Option<Box<Family>>,
}

/// A store's answer to a commit. Everything but `LeaseLost` means that the commit is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Go on as the commit said.
    Ok,
    /// Go on, but a pause is pending: start nothing new, commit when quiescent.
    PausePending,
    /// The commit wanted to park, but awaited events are already there; the lease is kept.
    Events(Vec<crate::event::Event>),
    /// A pending cancel took effect with this commit; the lease is gone.
    Cancelled,
    /// A pending pause took effect with this commit; the lease is gone.
    Paused,
    /// Somebody else holds the instance now; nothing was written.
    LeaseLost,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_come_back() {
        let phases = [
            Phase::Ready,
            Phase::Backoff { until_us: -5 },
            Phase::Sleeping { until_us: i64::MAX },
            Phase::Awaiting { until_us: None },
            Phase::Awaiting { until_us: Some(7) },
            Phase::Joining {
                base: 3,
                count: u32::MAX,
            },
            Phase::Done,
            Phase::Failed(9),
        ];
        let value = Ref::Arm {
            key: 4,
            inner: Box::new(Ref::Inner(Box::new(Ref::Item {
                of: Box::new(Ref::Region {
                    node: 1,
                    base: 2,
                    count: 3,
                    low: 2,
                }),
                index: 300,
            }))),
        };
        for phase in phases {
            let cell = Cell {
                frames: vec![
                    Frame {
                        at: 1,
                        extra: 200,
                        key: 3,
                    },
                    Frame::default(),
                ],
                phase,
                attempt: 2,
                value: value.clone(),
            };
            assert_eq!(Cell::decode(&cell.encode()), Ok(cell));
        }
        assert_eq!(value.low(), 2);
    }

    #[test]
    fn damaged_cells_are_refused() {
        let cell = Cell {
            frames: vec![Frame::default()],
            phase: Phase::Ready,
            attempt: 0,
            value: Ref::Input,
        };
        let good = cell.encode();
        for at in 0..good.len() {
            let mut bad = good.to_vec();
            bad[at] ^= 0x41;
            assert!(Cell::decode(&bad).is_err(), "flip at {at}");
            assert!(Cell::decode(&good[..at]).is_err(), "cut at {at}");
        }
    }
}
