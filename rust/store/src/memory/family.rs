//! Spread maps in memory: which instance is an item of which, and how many have not ended.
//!
//! A group lives as long as its parent, so that the items go when the parent does; `left` is zero
//! once its parent was told or does not await it any more, and then nothing about it changes.

use sayiir_core::envelope;
use sayiir_core::state::{Batch, EVERY_GROUP, Family, ItemEnd, StrandId, group_event};

use super::*;
use crate::contract::{Hash, item_id, unwanted};

/// Which item an instance is.
#[derive(Debug, Clone, Copy)]
pub struct Kin {
    parent: Slot,
    group: StrandId,
    index: u32,
}

/// The items of one use of a spread map.
#[derive(Debug)]
pub struct Group {
    /// Those that were made; none where one is gone.
    items: Vec<Option<Slot>>,
    /// How many have not ended, those not yet made included.
    left: u32,
    fail_fast: bool,
}

impl Inner {
    pub fn change_family(&mut self, parent: Slot, fence: u64, family: Family, now_us: i64) {
        for group in family.over {
            self.give_up(parent, group, now_us);
        }
        if let Some(batch) = family.batch {
            self.make_items(parent, fence, batch, now_us);
        }
    }

    fn make_items(&mut self, parent: Slot, fence: u64, batch: Batch, now_us: i64) {
        let Some(id) = self.at(parent).map(|instance| Arc::clone(&instance.id)) else {
            return;
        };
        let group = batch.group;
        let hash: Hash = *batch.items.hash();
        for (index, input) in (batch.first..).zip(batch.inputs) {
            let new = NewInstance {
                id: item_id(&id, fence, group, index),
                workflow: Arc::clone(&batch.items.name),
                hash,
                tree: Bytes::from([]),
                input,
                needs: batch.items.entry(),
                start_at_us: None,
            };
            let slot = self.create(new, now_us);
            let kin = Kin {
                parent,
                group,
                index,
            };
            self.kin.insert(slot, kin);
            self.groups
                .entry((parent, group))
                .or_insert_with(|| Group {
                    items: Vec::with_capacity(batch.count as usize),
                    left: batch.count,
                    fail_fast: batch.fail_fast,
                })
                .items
                .push(Some(slot));
        }
        self.told.push((Hint::Work, id));
    }

    /// An instance has ended; if it is an item, its parent may have to know.
    pub fn item_ended(&mut self, slot: Slot, failed: bool, now_us: i64) {
        let Some(kin) = self.kin.get(&slot).copied() else {
            return;
        };
        let Some(group) = self.groups.get_mut(&(kin.parent, kin.group)) else {
            return;
        };
        if group.left == 0 {
            return;
        }
        group.left = if failed && group.fail_fast {
            0
        } else {
            group.left - 1
        };
        if group.left > 0 {
            return;
        }
        let Some(parent) = self.at_mut(kin.parent) else {
            return;
        };
        parent.events.get_or_insert_default().push(
            &group_event(kin.group),
            envelope::list(&[]),
            None,
            now_us,
        );
        let (id, held) = (Arc::clone(&parent.id), parent.holder.is_some());
        if held {
            self.told.push((Hint::News, id));
        } else {
            self.place(kin.parent, now_us);
            self.told.push((Hint::Work, id));
        }
    }

    /// Nobody awaits a group any more: what has not ended of it is cancelled.
    pub fn give_up(&mut self, parent: Slot, group: StrandId, now_us: i64) {
        if group == EVERY_GROUP {
            let all = self.groups.range((parent, 0)..=(parent, EVERY_GROUP));
            let groups: Vec<StrandId> = all.map(|((_, group), _)| *group).collect();
            for group in groups {
                self.give_up(parent, group, now_us);
            }
            return;
        }
        let Some(group) = self.groups.get_mut(&(parent, group)) else {
            return;
        };
        group.left = 0;
        let items: Vec<Slot> = group.items.iter().copied().flatten().collect();
        let Some(id) = self.at(parent).map(|instance| Arc::clone(&instance.id)) else {
            return;
        };
        for slot in items {
            let Some(item) = self.at(slot).filter(|item| !item.status.is_terminal()) else {
                continue;
            };
            let item = Arc::clone(&item.id);
            if let Ok(status) = self.request(&item, unwanted(&id), true, now_us) {
                let kind = if status.is_terminal() {
                    Hint::Ended
                } else {
                    Hint::News
                };
                self.told.push((kind, item));
            }
        }
    }

    /// A slot is about to be empty: its items go too, and its parent does not wait for it.
    pub fn leave_family(&mut self, slot: Slot, now_us: i64) {
        let ended = self.at(slot).is_none_or(|i| i.status.is_terminal());
        if !ended {
            self.item_ended(slot, true, now_us);
        }
        if let Some(kin) = self.kin.remove(&slot)
            && let Some(group) = self.groups.get_mut(&(kin.parent, kin.group))
            && let Some(place) = group.items.get_mut(kin.index as usize)
        {
            *place = None;
        }
        let all = self.groups.range((slot, 0)..=(slot, EVERY_GROUP));
        let groups: Vec<StrandId> = all.map(|((_, group), _)| *group).collect();
        for group in groups {
            for item in self
                .groups
                .remove(&(slot, group))
                .map(|group| group.items)
                .unwrap_or_default()
                .into_iter()
                .flatten()
            {
                if let Some(instance) = self.at(item) {
                    let kind = if instance.status.is_terminal() {
                        Hint::Ended
                    } else {
                        Hint::News
                    };
                    self.told.push((kind, Arc::clone(&instance.id)));
                }
                self.erase(item, now_us);
            }
        }
    }

    /// How the items of a group ended.
    pub fn ends(&self, parent: Slot, group: StrandId) -> Option<Vec<ItemEnd>> {
        let group = self.groups.get(&(parent, group))?;
        let end = |slot: &Option<Slot>| {
            let Some(item) = slot.and_then(|slot| self.at(slot)) else {
                return ItemEnd::Cancelled;
            };
            match (item.status, &item.result) {
                (Status::Completed, Some(output)) => ItemEnd::Completed(Bytes::clone(output)),
                (Status::Failed, Some(error)) => ItemEnd::Failed(Bytes::clone(error)),
                (Status::Cancelled, _) => ItemEnd::Cancelled,
                _ => ItemEnd::Unended,
            }
        };
        Some(group.items.iter().map(end).collect())
    }
}
