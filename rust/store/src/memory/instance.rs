//! One instance as the memory store keeps it, small enough to park a million of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use sayiir_core::Bytes;
use sayiir_core::policy::Tags;
use sayiir_core::state::{NO_CELLS, Parked, StrandId};

use super::events::EventBox;
use crate::contract::{AGEING_US, HistoryRow, Request, Status};

/// Where an instance is indexed; the key is made of its fields, which change only while it is nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Nowhere: held, paused, ended, or waiting for an event alone.
    None,
    /// In its group's ready queue, under [`Instance::order_us`].
    Ready,
    /// Among the timers, at `wake_us`.
    Timer,
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

/// The events a parked instance waits for.
#[derive(Debug)]
pub struct Awaiting {
    pub names: Box<[Arc<str>]>,
    /// Path of the first wait.
    pub signal_id: Option<Arc<str>>,
    /// Name of the event it is for.
    pub signal_name: Option<Arc<str>>,
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
    /// When it goes on by itself while parked, or the start time of a fresh one; 0: never.
    pub wake_us: i64,
    /// Path of the delay that it is in.
    pub delay_id: Option<Arc<str>>,
    /// What it waits for, if it waits for events.
    pub awaiting: Option<Box<Awaiting>>,
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
            wake_us: 0,
            delay_id: None,
            awaiting: None,
            events: None,
            asked: None,
            result: None,
        }
    }

    /// Its place among the ready: by age, a level of priority being worth some waiting.
    pub fn order_us(&self) -> i64 {
        self.created_us.max(self.start_at_us)
            + i64::from(self.priority.saturating_sub(1)) * AGEING_US
    }

    /// Takes note of why nothing runs.
    pub fn park(&mut self, parked: Parked) {
        self.status = if parked.awaiting {
            Status::AwaitingSignal
        } else {
            Status::Waiting
        };
        self.wake_us = parked.wake_at_us.unwrap_or(0);
        self.delay_id = parked.delay_id;
        self.awaiting = (!parked.awaits.is_empty()).then(|| {
            Box::new(Awaiting {
                names: parked.awaits.into(),
                signal_id: parked.signal_id,
                signal_name: parked.signal_name,
            })
        });
        // It may stay like this for long, and there may be a million of them.
        self.steps.shrink_to_fit();
        self.cursor.shrink_to_fit();
    }

    /// Forgets why nothing ran.
    pub fn unpark(&mut self) {
        self.wake_us = 0;
        self.delay_id = None;
        self.awaiting = None;
    }

    /// When the parked instance wakes by itself.
    pub fn wake_at_us(&self) -> Option<i64> {
        (self.wake_us != 0).then_some(self.wake_us)
    }

    /// Whether an event it waits for is buffered.
    pub fn has_awaited_event(&self) -> bool {
        match (&self.awaiting, &self.events) {
            (Some(awaiting), Some(events)) => awaiting.names.iter().any(|name| events.has(name)),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_stays_small() {
        assert!(size_of::<Instance>() <= 264, "{}", size_of::<Instance>());
    }
}
