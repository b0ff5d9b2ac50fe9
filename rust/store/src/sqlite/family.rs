//! Items of spread maps: how they are made, what their ends mean to their parent, and how they go.
//!
//! All of it happens in the transaction of the call that gives the reason, so a count is never wrong
//! by an end that was undone. Whoever else has to hear of it is noted in `told`.

use rusqlite::types::ToSql;
use sayiir_core::state::{Batch, EVERY_GROUP, Family, ItemEnd, StrandId, group_event};
use sayiir_core::{envelope, wire};

use super::books::Control;
use super::reading::full_row;
use super::statements as sql;
use super::*;
use crate::contract::{NewInstance, item_id, unwanted};
use crate::port::Hint;

/// So many items are removed by the call that removes their parent; the rest goes as garbage does.
pub(super) const ERASE_ITEMS: i64 = 1_000;
/// More hints than this are not given for one call; polling finds the rest.
const MOST_TOLD: usize = 1_000;

impl Books {
    pub(super) fn tell(&self, hint: Hint, id: &Arc<str>) {
        let mut told = self.told.borrow_mut();
        if told.len() < MOST_TOLD {
            told.push((hint, Arc::clone(id)));
        }
    }

    /// What a checkpoint changes about the items of its instance.
    pub(super) fn change_family(
        &self,
        parent: i64,
        id: &Arc<str>,
        fence: u64,
        family: &Family,
        now_us: i64,
    ) -> StoreResult<()> {
        for group in &family.over {
            self.give_up(parent, id, *group, now_us)?;
        }
        match &family.batch {
            Some(batch) => self.make_items(parent, id, fence, batch, now_us),
            None => Ok(()),
        }
    }

    fn make_items(
        &self,
        parent: i64,
        id: &Arc<str>,
        fence: u64,
        batch: &Batch,
        now_us: i64,
    ) -> StoreResult<()> {
        if batch.first == 0 {
            let params: [&dyn ToSql; 4] = [&parent, &batch.group, &batch.count, &batch.fail_fast];
            self.run(&sql::GROUP_NEW, params)?;
        }
        let tree = wire::encode_definition(&batch.items);
        for (index, input) in (batch.first..).zip(&batch.inputs) {
            let item = self.create(
                &NewInstance {
                    id: item_id(id, fence, batch.group, index),
                    workflow: Arc::clone(&batch.items.name),
                    hash: *batch.items.hash(),
                    tree: Bytes::clone(&tree),
                    input: Bytes::clone(input),
                    needs: batch.items.entry(),
                    start_at_us: None,
                },
                now_us,
            )?;
            let params: [&dyn ToSql; 4] = [&item, &parent, &batch.group, &index];
            self.run(&sql::ITEM_NEW, params)?;
        }
        self.tell(Hint::Work, id);
        Ok(())
    }

    /// Parent and group of an item; none for any other instance.
    pub(super) fn kin(&self, instance: i64) -> StoreResult<Option<(i64, StrandId)>> {
        self.one(&sql::ITEM_KIN, [instance], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
    }

    /// An item has ended; its parent may have to know.
    pub(super) fn item_ended(
        &self,
        (parent, group): (i64, StrandId),
        failed: bool,
        now_us: i64,
    ) -> StoreResult<()> {
        let params: [&dyn ToSql; 3] = [&parent, &group, &failed];
        let remaining = self.one(&sql::GROUP_LESS, params, |row| row.get::<_, i64>(0))?;
        if remaining.is_none_or(|left| left > 0) {
            return Ok(());
        }
        let Some(control) = self.control(parent)? else {
            return Ok(());
        };
        if control.status.is_terminal() {
            return Ok(());
        }
        let (name, payload) = (group_event(group), envelope::list(&[]));
        let params: [&dyn ToSql; 6] = [
            &control.id,
            &&*name,
            &None::<&str>,
            &&payload[..],
            &now_us,
            &0,
        ];
        self.run(&sql::EVENT_NEW, params)?;
        self.run(&sql::HAS_EVENTS, [parent])?;
        if control.held {
            self.run(&sql::ALERT, [parent])?;
            self.tell(Hint::News, &control.id);
        } else {
            self.place(&control, control.status, now_us)?;
            self.tell(Hint::Work, &control.id);
        }
        Ok(())
    }

    /// Nobody awaits a group any more: what has not ended of it is cancelled.
    pub(super) fn give_up(
        &self,
        parent: i64,
        id: &Arc<str>,
        group: StrandId,
        now_us: i64,
    ) -> StoreResult<()> {
        let groups: Vec<StrandId> = if group == EVERY_GROUP {
            self.all(&sql::GROUPS_OVER, [parent], |row| row.get(0))?
        } else {
            self.all(&sql::GROUP_OVER, [parent, i64::from(group)], |row| {
                row.get(0)
            })?
        };
        for group in groups {
            let unended: Vec<Arc<str>> =
                self.all(&sql::ITEMS_UNENDED, [parent, i64::from(group)], |row| {
                    row.get(0)
                })?;
            for item in unended {
                let status = self.request(&item, &unwanted(id), true, now_us)?;
                let hint = if status.is_terminal() {
                    Hint::Ended
                } else {
                    Hint::News
                };
                self.tell(hint, &item);
            }
        }
        Ok(())
    }

    /// An instance is about to be removed: its parent does not wait for it, and its items go too, at
    /// once if they are not more than `most`. Whether some of them are left for later.
    pub(super) fn leave_family(
        &self,
        control: &Control,
        most: i64,
        now_us: i64,
    ) -> StoreResult<bool> {
        let instance = control.instance;
        if let Some(kin) = self.kin(instance)? {
            if !control.status.is_terminal() {
                self.item_ended(kin, true, now_us)?;
            }
            self.run(&sql::ITEM_GONE, [instance])?;
        }
        self.give_up(instance, &control.id, EVERY_GROUP, now_us)?;
        self.run(&sql::GROUPS_GONE, [instance])?;
        self.erase_items(instance, most, now_us)
    }

    /// Removes some of the items of an instance that is gone, and leaves theirs for later; whether
    /// there are more.
    pub(super) fn erase_items(&self, parent: i64, most: i64, now_us: i64) -> StoreResult<bool> {
        let items: Vec<i64> = self.all(&sql::ITEMS_SOME, [parent, most + 1], |row| row.get(0))?;
        let more = items.len() as i64 > most;
        for item in items.into_iter().take(most as usize) {
            match self.control(item)? {
                Some(control) => self.erase(&control, 0, now_us)?,
                None => drop(self.run(&sql::ITEM_GONE, [item])?),
            }
        }
        Ok(more)
    }

    /// How the items of a group ended.
    pub(super) fn ends(&self, parent: i64, group: StrandId) -> StoreResult<Vec<ItemEnd>> {
        let params = [parent, i64::from(group)];
        let total: Option<u32> = self.one(&sql::GROUP_TOTAL, params, |row| row.get(0))?;
        let mut ends = vec![ItemEnd::Cancelled; total.unwrap_or_default() as usize];
        let items: Vec<(u32, i64)> =
            self.all(&sql::ITEMS_OF, params, |row| Ok((row.get(0)?, row.get(1)?)))?;
        for (position, item) in items {
            let Some(row) = self.one(&sql::ROW_OF_ITEM, [item], full_row)? else {
                continue;
            };
            let row = row.checked(&self.trouble)?;
            if let Some(end) = ends.get_mut(position as usize) {
                *end = match (row.status, row.output, row.error) {
                    (Status::Completed, Some(output), _) => ItemEnd::Completed(output),
                    (Status::Failed, _, Some(error)) => ItemEnd::Failed(error),
                    (Status::Cancelled, ..) => ItemEnd::Cancelled,
                    _ => ItemEnd::Unended,
                };
            }
        }
        Ok(ends)
    }
}
