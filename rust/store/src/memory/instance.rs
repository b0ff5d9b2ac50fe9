//! One instance as the memory store keeps it, small enough to park a million of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use sayiir_core::Bytes;
use sayiir_core::policy::Tags;
use sayiir_core::state::{NO_CELLS, Parked, StrandId};

use super::events::EventBox;
use crate::contract::{HistoryRow, Request, Status};

/// Where an instance is indexed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Nowhere: held, paused, ended, or waiting for an event alone.
    None,
    /// In its group's ready queue, under this order.
    Ready(i64),
    /// Among the timers, at this time.
    Timer(i64),
}

/// What was asked of a held instance, or done to a stopped one.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Reason and author.
    pub request: Request,
    /// A cancel, else a pause.
    pub cancel: bool,
    /// Not yet in effect.
    pub pending: bool,
    /// For a pause in effect: the status to go back to.
    pub resume: Status,
}

#[derive(Debug)]
pub struct Instance {
    pub id: Arc<str>,
    /// Index of its definition.
    pub definition: u32,
    pub status: Status,
    pub priority: u8,
    pub place: Place,
    pub tags: Tags,
    pub created_seq: u64,
    pub created_us: i64,
    pub updated_us: i64,
    pub start_at_us: i64,
    pub fence: u64,
    pub holder: Option<Arc<str>>,
    pub input: Bytes,
    /// Empty as long as nothing was committed.
    pub cursor: Vec<u8>,
    pub next_seq: u32,
    pub next_strand: u32,
    pub cells_from: u32,
    pub cells: BTreeMap<StrandId, Bytes>,
    pub steps: Vec<HistoryRow>,
    pub parked: Option<Box<Parked>>,
    pub events: Option<Box<EventBox>>,
    pub asked: Option<Box<Asked>>,
    /// The output of a completed instance, the error record of a failed one.
    pub result: Option<Bytes>,
}

impl Instance {
    pub fn fresh(id: Arc<str>, definition: u32, input: Bytes, needs: (Tags, u8)) -> Self {
        Self {
            id,
            definition,
            status: Status::InProgress,
            priority: needs.1,
            place: Place::None,
            tags: needs.0,
            created_seq: 0,
            created_us: 0,
            updated_us: 0,
            start_at_us: 0,
            fence: 0,
            holder: None,
            input,
            cursor: Vec::new(),
            next_seq: 0,
            next_strand: 1,
            cells_from: NO_CELLS,
            cells: BTreeMap::new(),
            steps: Vec::new(),
            parked: None,
            events: None,
            asked: None,
            result: None,
        }
    }

    /// When the parked instance wakes by itself.
    pub fn wake_at_us(&self) -> Option<i64> {
        match &self.parked {
            Some(parked) => parked.wake_at_us,
            None => (self.start_at_us > 0 && self.cursor.is_empty()).then_some(self.start_at_us),
        }
    }

    /// Whether an event it waits for is buffered.
    pub fn has_awaited_event(&self) -> bool {
        match (&self.parked, &self.events) {
            (Some(parked), Some(events)) => parked.awaits.iter().any(|name| events.has(name)),
            _ => false,
        }
    }

    /// Whether a cancel or pause waits for the holder; `true` in the option: a cancel.
    pub fn pending(&self) -> Option<bool> {
        self.asked
            .as_ref()
            .filter(|asked| asked.pending)
            .map(|asked| asked.cancel)
    }
}
