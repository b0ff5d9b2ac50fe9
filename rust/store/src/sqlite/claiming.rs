//! Leasing an instance, with everything its holder needs before it goes on.
//!
//! What is wrong with one instance is its own damage: its claim says so, the holder sets it aside, and
//! the others of the batch are not touched by it.

use rusqlite::Row;
use rusqlite::types::ToSql;
use sayiir_core::event::Event;
use sayiir_core::policy::Tags;
use sayiir_core::state::StrandId;

use super::books::bytes;
use super::reading::hash_of;
use super::statements as sql;
use super::*;
use crate::contract::{Claim, Claimant};
use crate::listed::read_list;

/// What a claim reads of its row, if the row's check holds.
struct ClaimView {
    cursor: Option<Bytes>,
    next_seq: u32,
    next_strand: u32,
    cells_from: Option<u32>,
    needs: (Tags, u8),
    has_events: bool,
}

fn claim_view(instance: i64, id: &str, row: &Row<'_>) -> rusqlite::Result<Option<ClaimView>> {
    let position = seal::Position {
        instance,
        id,
        definition: row.get(10)?,
        next_seq: row.get(3)?,
        next_strand: row.get(4)?,
        cells_from: row.get(5)?,
        result_seq: None,
    };
    if position.seal() != row.get::<_, i64>(8)? {
        return Ok(None);
    }
    Ok(Some(ClaimView {
        cursor: bytes(row, 2)?,
        next_seq: row.get(3)?,
        next_strand: row.get(4)?,
        cells_from: row.get(5)?,
        needs: (read_list(row.get_ref(6)?.as_str()?), row.get(7)?),
        has_events: row.get(9)?,
    }))
}

impl Books {
    /// The worker's row, made or prolonged.
    pub(super) fn lease_worker(&self, claimant: &Claimant, now_us: i64) -> StoreResult<i64> {
        let expires = now_us.saturating_add(claimant.lease_us);
        let params: [&dyn ToSql; 4] = [
            &&*claimant.worker,
            &claimant.lease_us,
            &expires,
            &self.look_us(expires, claimant.lease_us),
        ];
        self.leases_changed();
        let worker = self.one(&sql::WORKER_LEASE, params, |row| row.get(0))?;
        Ok(worker.unwrap_or_default())
    }

    pub(super) fn lease(&self, instance: i64, worker: i64) -> StoreResult<Option<Claim>> {
        let view = self.one(&sql::CLAIM_VIEW, [instance], |row| {
            let id: Arc<str> = row.get(0)?;
            let hash = hash_of(row, 1)?;
            // Whatever else is wrong with the row is the damage of this instance alone.
            let rest = claim_view(instance, &id, row);
            Ok((id, hash, rest))
        })?;
        let Some((id, hash, rest)) = view else {
            return Ok(None);
        };
        let fence = self.next_fence()?;
        self.run(&sql::LEASE, [instance, fence as i64, worker])?;
        let mut claim = Claim {
            id,
            slot: instance as u64,
            fence,
            hash,
            stored: sayiir_core::advance::Stored {
                cursor: None,
                cells: Vec::new(),
                next_seq: 0,
                next_strand: 1,
            },
            needs: (Arc::new([]), sayiir_core::policy::DEFAULT_PRIORITY),
            carried: None,
            damage: None,
        };
        let loaded = match rest.unwrap_or_default() {
            Some(view) => {
                claim.stored.cursor = view.cursor;
                claim.stored.next_seq = view.next_seq;
                claim.stored.next_strand = view.next_strand;
                claim.needs = view.needs;
                self.load(instance, view.cells_from, view.has_events, &mut claim)
            }
            None => Err(StoreError::Format(
                self.trouble
                    .say("the position of this instance does not fit its row"),
            )),
        };
        match loaded {
            Ok(()) => {}
            // One instance is damaged, not the file: its holder sets it aside.
            Err(StoreError::Format(text)) => claim.damage = Some(text),
            Err(error) => return Err(error),
        }
        Ok(Some(claim))
    }

    /// The cells of child strands, from this one on.
    pub(super) fn read_cells(
        &self,
        instance: i64,
        from: u32,
    ) -> StoreResult<Vec<(StrandId, Bytes)>> {
        let params: [&dyn ToSql; 2] = [&instance, &from];
        let cells = self.all(&sql::CELLS, params, |row| {
            let strand: u32 = row.get(0)?;
            let sealed = seal::cell(instance, strand) == row.get::<_, i64>(2)?;
            Ok((strand, bytes(row, 1)?.unwrap_or_default(), sealed))
        })?;
        let checked = cells.into_iter().map(|(strand, cell, sealed)| {
            let damage = "a row of its cells is damaged";
            sealed
                .then_some((strand, cell))
                .ok_or_else(|| StoreError::Format(self.trouble.say(damage)))
        });
        checked.collect()
    }

    /// Reads what the holder of a claim needs before it goes on.
    pub(super) fn load(
        &self,
        instance: i64,
        cells_from: Option<u32>,
        has_events: bool,
        claim: &mut Claim,
    ) -> StoreResult<()> {
        let damaged = |what: &str| Err(StoreError::Format(self.trouble.say(what)));
        if let Some(from) = cells_from {
            claim.stored.cells = self.read_cells(instance, from)?;
        }
        let input = self.read_input(instance)?;
        let Some(input) = input else {
            return damaged("its input is missing or damaged");
        };
        let mut rows = Vec::new();
        // Damaged cells are met, and reported, when the instance is taken up.
        for seq in sayiir_core::advance::Machine::referenced(&claim.stored).unwrap_or_default() {
            rows.extend(self.read_step(instance, &claim.id, seq)?);
        }
        let params: [&dyn ToSql; 2] = [&&*claim.id, &(CARRIED_EVENTS + 1)];
        let events = if !has_events {
            Vec::new()
        } else {
            self.all(&sql::BUFFERED, params, |row| {
                Ok(Event {
                    seq: row.get::<_, i64>(0)? as u64,
                    name: row.get(1)?,
                    payload: bytes(row, 2)?.unwrap_or_default(),
                })
            })?
        };
        if events.len() as i64 <= CARRIED_EVENTS {
            claim.carried = Some(Box::new(crate::contract::Carried {
                input,
                rows,
                events,
            }));
        }
        Ok(())
    }
}
