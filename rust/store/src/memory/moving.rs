//! Instances on their way out of memory and into it, as snapshots.

use sayiir_core::snapshot::{self, Snapshot};
use sayiir_core::state::Parked;

use super::*;
use crate::contract::{entry_of, movable};

impl Inner {
    /// Everything about an instance.
    pub fn picture(&self, slot: Slot) -> StoreResult<Box<Snapshot>> {
        let Some(instance) = self.at(slot) else {
            return Err(StoreError::NotFound { id: Arc::from("") });
        };
        let row = self.describe(instance);
        let tree = self.queue.tree(instance.definition);
        let awaits = match instance.awaiting.as_deref() {
            Some(awaiting) => awaiting.names.to_vec(),
            None => Vec::new(),
        };
        let cells = instance.cells.range(instance.cells_from..);
        let asked = instance.asked.as_deref().map(|asked| snapshot::Asked {
            cancel: asked.cancel,
            pending: asked.pending,
            resume: asked.resume,
            reason: asked.request.reason.clone(),
            by: asked.request.by.clone(),
        });
        let entry = entry_of(row, tree, awaits, asked)?;
        movable(Snapshot {
            stored: Stored {
                cursor: (!instance.cursor.is_empty()).then(|| Bytes::from(&instance.cursor[..])),
                cells: cells
                    .map(|(strand, cell)| (*strand, Bytes::clone(cell)))
                    .collect(),
                next_seq: instance.next_seq,
                next_strand: instance.next_strand,
            },
            cells_from: instance.cells_from,
            input: Bytes::clone(&instance.input),
            steps: instance.steps.clone(),
            events: instance
                .events
                .as_deref()
                .map(EventBox::kept)
                .unwrap_or_default(),
            ..entry
        })
    }

    /// A new instance that is what the snapshot says.
    pub fn take_in(&mut self, snapshot: &Snapshot, now_us: i64) -> StoreResult<()> {
        if let Some(existing) = self.get(&snapshot.id) {
            return Err(StoreError::AlreadyExists {
                id: Arc::clone(&snapshot.id),
                status: existing.status,
            });
        }
        let resting = snapshot.clone().at_rest(now_us);
        let def = &resting.definition;
        let definition = self.queue.definition(def.hash(), &def.name, &resting.tree);
        let mut instance = Box::new(Instance::fresh(
            Arc::clone(&resting.id),
            definition,
            resting.input,
            resting.needs,
        ));
        self.next_created += 1;
        instance.created_seq = self.next_created;
        instance.created_us = resting.created_us;
        instance.updated_us = resting.updated_us;
        instance.start_at_us = resting.start_at_us.unwrap_or(0);
        instance.park(Parked {
            wake_at_us: resting.wake_at_us,
            delay_id: resting.delay_id,
            signal_id: resting.signal_id,
            signal_name: resting.signal_name,
            awaits: resting.awaits,
            ..Parked::default()
        });
        instance.status = resting.status;
        instance.cursor = resting
            .stored
            .cursor
            .map(|c| c.to_vec())
            .unwrap_or_default();
        instance.next_seq = resting.stored.next_seq;
        instance.next_strand = resting.stored.next_strand;
        instance.cells_from = resting.cells_from;
        instance.cells = resting.stored.cells.into_iter().collect();
        instance.steps = resting.steps;
        instance.result = resting.result;
        instance.asked = resting.asked.map(|asked| {
            Box::new(Asked {
                request: Request {
                    reason: asked.reason,
                    by: asked.by,
                },
                cancel: asked.cancel,
                pending: asked.pending,
                resume: asked.resume,
            })
        });
        let mut events = self.orphans.remove(&resting.id).unwrap_or_default();
        for event in &resting.events {
            events.adopt(event);
        }
        let ended = instance.status.is_terminal();
        instance.events = Some(events).filter(|_| !ended);
        let updated_us = instance.updated_us;
        let slot = self.settle_in(instance, now_us);
        if ended && self.settings.keep_completed_us.is_some() {
            self.ended.insert((updated_us, slot));
        }
        Ok(())
    }
}
