//! Instances on their way out of the database and into it, as snapshots.
//!
//! An export locks the row, as everything does that changes the instance, so what it reads is of one
//! moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use sayiir_core::Bytes;
use sayiir_core::advance::Stored;
use sayiir_core::snapshot::{Asked, KeptEvent, Snapshot};
use sayiir_core::state::NO_CELLS;
use tokio_postgres::types::ToSql;

use super::connection::Tried;
use super::group::Lanes;
use super::lane::Work;
use super::reading::{self, bytes, step_of};
use super::single::Single;
use super::statements as sql;
use crate::contract::{
    AGEING_US, HistoryRow, NewInstance, Status, StoreError, StoreResult, entry_of, movable,
};
use crate::listed::status_of;

type Param<'a> = &'a (dyn ToSql + Sync);

/// An instance of the snapshot's definition with its needs, so that there is a lane for it.
pub fn example(snapshot: &Snapshot) -> NewInstance {
    NewInstance {
        id: Arc::clone(&snapshot.id),
        workflow: Arc::clone(&snapshot.definition.name),
        hash: *snapshot.definition.hash(),
        tree: Bytes::clone(&snapshot.tree),
        input: Bytes::default(),
        needs: snapshot.needs.clone(),
        start_at_us: None,
    }
}

fn asked_of(
    number: i16,
    resume: Status,
    (reason, by): (Option<Arc<str>>, Option<Arc<str>>),
) -> Asked {
    Asked {
        cancel: number % 2 == 0,
        pending: number < 3,
        resume,
        reason,
        by,
    }
}

impl Single<'_> {
    pub(super) async fn export(&mut self, id: &str) -> Tried<StoreResult<Box<Snapshot>>> {
        let absent = || Ok(Err(StoreError::NotFound { id: id.into() }));
        let Some(control) = self.control(id).await? else {
            return absent();
        };
        let Some(row) = reading::get(self.link, self.place, id).await? else {
            return absent();
        };
        let Some(view) = self
            .link
            .row(&sql::EXPORT_VIEW, &[&control.instance])
            .await?
        else {
            return absent();
        };
        let cells_from: Option<i32> = view.get(3);
        let mut cells = Vec::new();
        if let Some(from) = cells_from {
            let params: [Param<'_>; 2] = [&&[control.instance][..], &&[from][..]];
            for row in self.link.rows(&sql::CELLS, &params).await? {
                let cell = bytes(&row, 2).unwrap_or_default();
                cells.push((row.get::<_, i32>(1) as u32, cell));
            }
        }
        let history = self.link.rows(&sql::HISTORY, &[&id]).await?;
        let events = self.link.rows(&sql::EXPORT_EVENTS, &[&id]).await?;
        let Some(input) = bytes(&view, 8) else {
            return Ok(Err(StoreError::Format(format!(
                "PostgreSQL at {}: the input of instance '{id}' is missing",
                self.place.address.shown
            ))));
        };
        let resume = view
            .get::<_, Option<i16>>(5)
            .map_or(Status::InProgress, |number| status_of(number.into()));
        let asked = view
            .get::<_, Option<i16>>(4)
            .map(|number| asked_of(number, resume, (row.reason.clone(), row.by.clone())));
        let awaits: Option<Vec<&str>> = view.get(6);
        let awaits = awaits.into_iter().flatten().map(Arc::from).collect();
        let tree = bytes(&view, 7).unwrap_or_default();
        let entry = match entry_of(row, &tree, awaits, asked) {
            Ok(entry) => entry,
            Err(error) => return Ok(Err(error)),
        };
        Ok(movable(Snapshot {
            stored: Stored {
                cursor: bytes(&view, 0),
                cells,
                next_seq: view.get::<_, i32>(1) as u32,
                next_strand: view.get::<_, i32>(2) as u32,
            },
            cells_from: cells_from.map_or(NO_CELLS, |from| from as u32),
            input,
            steps: history.iter().map(|row| step_of(row).1).collect(),
            events: events
                .iter()
                .map(|row| KeptEvent {
                    name: row.get::<_, &str>(0).into(),
                    key: row.get::<_, Option<&str>>(1).map(Into::into),
                    came_us: row.get(2),
                    payload: bytes(row, 3),
                })
                .collect(),
            ..entry
        }))
    }

    pub(super) async fn import(
        &mut self,
        snapshot: &Snapshot,
        work: &Work,
        lanes: &Lanes,
    ) -> Tried<StoreResult<()>> {
        let taken = |status| {
            let id = Arc::clone(&snapshot.id);
            Ok(Err(StoreError::AlreadyExists { id, status }))
        };
        if let Some(control) = self.control(&snapshot.id).await? {
            if work.again && self.is_ours(&snapshot.id, work.token).await? {
                return Ok(Ok(()));
            }
            return taken(control.status);
        }
        let clock = match self.now {
            Some(now) => now,
            None => self.place.clock.now_us(),
        };
        let resting = snapshot.clone().at_rest(clock);
        let Some(instance) = self.insert(&resting, work.token, lanes).await? else {
            // Somebody else made it in this moment.
            return taken(Status::InProgress);
        };
        self.write_history(instance, &resting.steps).await?;
        if !resting.stored.cells.is_empty() {
            let cells = &resting.stored.cells;
            let strands: Vec<i32> = cells.iter().map(|(strand, _)| *strand as i32).collect();
            let cells: Vec<&[u8]> = cells.iter().map(|(_, cell)| &cell[..]).collect();
            let params: [Param<'_>; 3] = [&instance, &strands, &cells];
            self.link.run(&sql::CELLS_PUT, &params).await?;
        }
        self.take_events(instance, &resting, work.token).await?;
        if resting.status.is_terminal() {
            self.effects.ended.push(Arc::clone(&resting.id));
        } else {
            self.place(instance).await?;
            self.effects.work = true;
        }
        Ok(Ok(()))
    }

    async fn insert(&self, snapshot: &Snapshot, token: i64, lanes: &Lanes) -> Tried<Option<i64>> {
        let Snapshot { stored, needs, .. } = snapshot;
        let hash = snapshot.definition.hash();
        let (definition, lane) = lanes.numbers(hash, &needs.0).unwrap_or_default();
        let since = snapshot.start_at_us.unwrap_or(0).max(snapshot.created_us);
        let order_us = since + i64::from(needs.1.saturating_sub(1)) * AGEING_US;
        let ended_us = snapshot.status.is_terminal().then_some(snapshot.updated_us);
        let cells_from = (snapshot.cells_from != NO_CELLS).then_some(snapshot.cells_from as i32);
        let awaits: Option<Vec<&str>> = (!snapshot.awaits.is_empty())
            .then(|| snapshot.awaits.iter().map(|name| &**name).collect());
        let asked = snapshot.asked.as_ref();
        let effect = asked.map(|asked| match (asked.pending, asked.cancel) {
            (true, false) => 1_i16,
            (true, true) => 2,
            (false, false) => 3,
            (false, true) => 4,
        });
        let params: [Param<'_>; 28] = [
            &&*snapshot.id,
            &definition,
            &lane,
            &(snapshot.status as i16),
            &i16::from(needs.1),
            &order_us,
            &snapshot.created_us,
            &snapshot.updated_us,
            &ended_us,
            &snapshot.start_at_us,
            &snapshot.wake_at_us,
            &(stored.next_seq as i32),
            &(stored.next_strand as i32),
            &cells_from,
            &(snapshot.steps.len() as i32),
            &stored.cursor.as_deref(),
            &awaits,
            &snapshot.delay_id.as_deref(),
            &snapshot.signal_id.as_deref(),
            &snapshot.signal_name.as_deref(),
            &effect,
            &asked.map(|asked| asked.resume as i16),
            &asked.and_then(|asked| asked.reason.as_deref()),
            &asked.and_then(|asked| asked.by.as_deref()),
            &snapshot.result.as_deref(),
            &!snapshot.events.is_empty(),
            &token,
            &&snapshot.input[..],
        ];
        let made = self.link.row(&sql::IMPORT, &params).await?;
        Ok(made.map(|row| row.get(0)))
    }

    async fn write_history(&self, instance: i64, steps: &[HistoryRow]) -> Tried<()> {
        // In one order everywhere, since names that are new are locked until the commit.
        let mut by_worker: BTreeMap<&str, Vec<&HistoryRow>> = BTreeMap::new();
        for row in steps {
            by_worker.entry(&row.worker).or_default().push(row);
        }
        for (worker, rows) in by_worker {
            self.link.run(&sql::WORKER_NAME, &[&worker]).await?;
            let known = self.link.row(&sql::IMPORT_WORKER, &[&worker]).await?;
            let number = known.map_or(0, |row| row.get(0));
            let steps = rows.iter().map(|row| &row.step);
            self.write_steps(instance, number, steps).await?;
        }
        Ok(())
    }

    /// The snapshot's events behind those that came early for its id; about a key it knows better.
    async fn take_events(&self, instance: i64, snapshot: &Snapshot, token: i64) -> Tried<()> {
        let id = &*snapshot.id;
        if snapshot.status.is_terminal() {
            let params: [Param<'_>; 1] = [&&[id][..]];
            return self.link.run(&sql::DELETE_EVENTS, &params).await.map(drop);
        }
        let keep = self.place.settings.keep_orphans_us;
        self.link
            .run(&sql::EVENTS_LATE, &[&id, &self.now, &keep])
            .await?;
        let events = &snapshot.events;
        let keyed = events
            .iter()
            .filter_map(|e| Some((&*e.name, e.key.as_deref()?)));
        let (named, keys): (Vec<&str>, Vec<&str>) = keyed.unzip();
        if !keys.is_empty() {
            self.link
                .run(&sql::IMPORT_KEYS, &[&id, &named, &keys])
                .await?;
        }
        if self.link.run(&sql::IMPORT_EARLY, &[&id]).await? > 0 {
            self.link.run(&sql::EVENT_CAME, &[&instance]).await?;
        }
        if events.is_empty() {
            return Ok(());
        }
        let params: [Param<'_>; 6] = [
            &id,
            &token,
            &events.iter().map(|e| &*e.name).collect::<Vec<_>>(),
            &events.iter().map(|e| e.key.as_deref()).collect::<Vec<_>>(),
            &events.iter().map(|e| e.came_us).collect::<Vec<_>>(),
            &events
                .iter()
                .map(|e| e.payload.as_deref())
                .collect::<Vec<_>>(),
        ];
        self.link.run(&sql::IMPORT_EVENTS, &params).await.map(drop)
    }
}
