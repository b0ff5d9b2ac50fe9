//! Instances on their way out of the file and into it, as snapshots.

use rusqlite::types::ToSql;
use sayiir_core::advance::Stored;
use sayiir_core::snapshot::{self, KeptEvent, Snapshot};
use sayiir_core::state::NO_CELLS;

use super::books::{Asked, bytes, priority_us};
use super::reading::{full_row, step_of};
use super::statements as sql;
use super::*;
use crate::contract::{HistoryRow, entry_of, movable};
use crate::listed::{read_list, status_of, write_list};

/// What an export reads of a row beside what everybody does.
struct View {
    instance: i64,
    stored: Stored,
    cells_from: Option<u32>,
    asked: Option<Asked>,
    resume: Status,
    awaits: Vec<Arc<str>>,
    tree: Bytes,
}

impl Books {
    /// Everything about an instance, as of this transaction.
    pub(super) fn picture(&self, id: &str) -> StoreResult<Box<Snapshot>> {
        let absent = || StoreError::NotFound { id: id.into() };
        let row = self
            .one(&sql::ROW, [id], full_row)?
            .ok_or_else(absent)?
            .checked(&self.trouble)?;
        let view = self.one(&sql::EXPORT_VIEW, [id], |row| {
            let resume: Option<i64> = row.get(6)?;
            let awaits: Option<String> = row.get(7)?;
            Ok(View {
                instance: row.get(0)?,
                stored: Stored {
                    cursor: bytes(row, 1)?,
                    cells: Vec::new(),
                    next_seq: row.get(2)?,
                    next_strand: row.get(3)?,
                },
                cells_from: row.get(4)?,
                asked: Asked::read(row.get(5)?),
                resume: resume.map_or(Status::InProgress, status_of),
                awaits: awaits.map_or_else(Vec::new, |names| read_list(&names).to_vec()),
                tree: bytes(row, 8)?.unwrap_or_default(),
            })
        })?;
        let mut view = view.ok_or_else(absent)?;
        let instance = view.instance;
        if let Some(from) = view.cells_from {
            view.stored.cells = self.read_cells(instance, from)?;
        }
        let asked = view.asked.map(|asked| snapshot::Asked {
            cancel: matches!(asked, Asked::CancelPending | Asked::Cancelled),
            pending: Asked::pending(Some(asked)).is_some(),
            resume: view.resume,
            reason: row.reason.clone(),
            by: row.by.clone(),
        });
        let steps: Vec<HistoryRow> = self
            .all(&sql::HISTORY, [instance], |row| step_of(instance, row))?
            .into_iter()
            .map(|row| self.sealed_step(id, row))
            .collect::<StoreResult<_>>()?;
        let events = self.all(&sql::EXPORT_EVENTS, [id], |row| {
            Ok(KeptEvent {
                name: row.get(0)?,
                key: row.get(1)?,
                came_us: row.get(2)?,
                payload: bytes(row, 3)?,
            })
        })?;
        let input = self.read_input(instance)?.ok_or_else(|| {
            StoreError::Format(
                self.trouble
                    .say(&format!("the input of instance '{id}' is damaged")),
            )
        })?;
        let entry = entry_of(row, &view.tree, view.awaits, asked)?;
        movable(Snapshot {
            stored: view.stored,
            cells_from: view.cells_from.unwrap_or(NO_CELLS),
            input,
            steps,
            events,
            ..entry
        })
    }

    /// A new instance that is what the snapshot says; its id is free.
    pub(super) fn take_in(&self, snapshot: Snapshot, now_us: i64) -> StoreResult<()> {
        let def = &snapshot.definition;
        let definition = self.definition_or_new(def.hash(), &def.name, &snapshot.tree, now_us)?;
        let instance = self.next_instance()?;
        self.insert(instance, definition, &snapshot)?;
        let params: [&dyn ToSql; 3] = [&instance, &&snapshot.input[..], &seal::input(instance)];
        self.run(&sql::INPUT_NEW, params)?;
        for row in &snapshot.steps {
            self.write_step(instance, &row.step, &row.worker)?;
        }
        for (strand, cell) in &snapshot.stored.cells {
            let check = seal::cell(instance, *strand);
            let params: [&dyn ToSql; 4] = [&instance, strand, &&cell[..], &check];
            self.run(&sql::CELL_PUT, params)?;
        }
        for event in &snapshot.events {
            if let Some(key) = &event.key {
                self.run(&sql::IMPORT_KEY, [&snapshot.id, &event.name, key])?;
            }
        }
        self.adopt_early(instance, &snapshot.id, now_us)?;
        for event in &snapshot.events {
            let params: [&dyn ToSql; 6] = [
                &snapshot.id,
                &event.name,
                &event.key,
                &event.payload.as_deref(),
                &event.came_us,
                &event.payload.is_none(),
            ];
            self.run(&sql::IMPORT_EVENT, params)?;
        }
        if snapshot.status.is_terminal() {
            // What came early comes too late.
            self.run(&sql::DELETE_EVENTS, [&snapshot.id])?;
        }
        match self.control(instance)? {
            Some(control) => self.place(&control, control.status, now_us),
            None => Ok(()),
        }
    }

    fn insert(&self, instance: i64, definition: i64, snapshot: &Snapshot) -> StoreResult<()> {
        let Snapshot { stored, needs, .. } = snapshot;
        let cells_from = (snapshot.cells_from != NO_CELLS).then_some(snapshot.cells_from);
        let check = seal::Position {
            instance,
            id: &snapshot.id,
            definition,
            next_seq: i64::from(stored.next_seq),
            next_strand: i64::from(stored.next_strand),
            cells_from: cells_from.map(i64::from),
            result_seq: None,
        }
        .seal();
        let since = snapshot.start_at_us.unwrap_or(0).max(snapshot.created_us);
        let ended_us = snapshot.status.is_terminal().then_some(snapshot.updated_us);
        let asked = snapshot.asked.as_ref();
        let effect = asked.map(|asked| match (asked.pending, asked.cancel) {
            (true, false) => Asked::PausePending as u8,
            (true, true) => Asked::CancelPending as u8,
            (false, false) => Asked::Paused as u8,
            (false, true) => Asked::Cancelled as u8,
        });
        let awaits = (!snapshot.awaits.is_empty()).then(|| write_list(&snapshot.awaits));
        let params: [&dyn ToSql; 28] = [
            &instance,
            &&*snapshot.id,
            &definition,
            &(snapshot.status as u8),
            &needs.1,
            &write_list(&needs.0),
            &(since + priority_us(needs.1)),
            &!snapshot.events.is_empty(),
            &snapshot.created_us,
            &snapshot.updated_us,
            &ended_us,
            &snapshot.start_at_us,
            &stored.cursor.as_deref(),
            &stored.next_seq,
            &stored.next_strand,
            &cells_from,
            &(snapshot.steps.len() as i64),
            &check,
            &snapshot.wake_at_us,
            &awaits,
            &snapshot.delay_id,
            &snapshot.signal_id,
            &snapshot.signal_name,
            &effect,
            &asked.map(|asked| asked.resume as u8),
            &asked.and_then(|asked| asked.reason.as_deref()),
            &asked.and_then(|asked| asked.by.as_deref()),
            &snapshot.result.as_deref(),
        ];
        self.run(&sql::IMPORT, params).map(drop)
    }
}
