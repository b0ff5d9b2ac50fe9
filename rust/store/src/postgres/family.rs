//! Items of spread maps: how they are made, what their ends mean to their parent, and how they go.
//!
//! The count of a group is one row. It is touched once for all ends of a batch, last in the
//! transaction, so that workers that share the items of one parent hardly ever wait for each other
//! there; the order of locks is items, group, parent.

use std::sync::Arc;

use sayiir_core::envelope;
use sayiir_core::state::{Batch, EVERY_GROUP, Family, ItemEnd};
use sayiir_core::wire;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::connection::{Link, Tried};
use super::group;
use super::making::{Grants, create};
use super::reading::bytes;
use super::single::{Control, Single};
use super::statements as sql;
use crate::contract::{NewInstance, Status, item_id, unwanted};
use crate::listed::status_of;

type Param<'a> = &'a (dyn ToSql + Sync);

/// So many items are removed together with their parent; the rest goes as garbage does.
const ERASE_ITEMS: i64 = 1_000;

/// What the items of a batch run, as far as a lane for them is concerned.
pub fn example(batch: &Batch) -> NewInstance {
    NewInstance {
        id: "".into(),
        workflow: Arc::clone(&batch.items.name),
        hash: *batch.items.hash(),
        tree: wire::encode_definition(&batch.items),
        input: [].into(),
        needs: batch.items.entry(),
        start_at_us: None,
    }
}

/// Items among these instances that ended under these fences (none: whichever they have) count as
/// ended; answers the parents that were told, and whether they are held.
pub async fn items_ended(
    link: &Link,
    instances: &[i64],
    fences: &[Option<i64>],
    now: Option<i64>,
) -> Tried<Vec<Row>> {
    let nothing = envelope::list(&[]);
    let params: [Param<'_>; 4] = [&instances, &fences, &&nothing[..], &now];
    link.rows(&sql::ITEMS_ENDED, &params).await
}

impl Single<'_> {
    fn told(&mut self, rows: &[Row]) {
        for row in rows {
            self.effects.family = true;
            self.effects.work = true;
            self.effects.news |= row.get::<_, Option<i32>>(0).is_some();
        }
    }

    /// An instance has ended; if it is an item, its parent may have to know.
    pub(super) async fn item_ended(&mut self, instance: i64) -> Tried<()> {
        let rows = items_ended(self.link, &[instance], &[None], self.now).await?;
        self.told(&rows);
        Ok(())
    }

    /// What a checkpoint changes about the items of its instance.
    pub(super) async fn change_family(
        &mut self,
        parent: &Control,
        fence: u64,
        family: &Family,
        token: i64,
        lanes: &group::Lanes,
    ) -> Tried<()> {
        let over: Vec<i32> = family.over.iter().map(|group| *group as i32).collect();
        if family.over.contains(&EVERY_GROUP) {
            self.give_up(&[parent.instance], None).await?;
        } else if !over.is_empty() {
            self.give_up(&[parent.instance], Some(&over)).await?;
        }
        match &family.batch {
            Some(batch) => self.make_items(parent, fence, batch, token, lanes).await,
            None => Ok(()),
        }
    }

    async fn make_items(
        &mut self,
        parent: &Control,
        fence: u64,
        batch: &Batch,
        token: i64,
        lanes: &group::Lanes,
    ) -> Tried<()> {
        let item_group = batch.group as i32;
        let params: [Param<'_>; 4] = [
            &parent.instance,
            &item_group,
            &(batch.count as i32),
            &batch.fail_fast,
        ];
        self.link.run(&sql::GROUP_NEW, &params).await?;
        let like = example(batch);
        let news: Vec<NewInstance> = (batch.first..)
            .zip(&batch.inputs)
            .map(|(index, input)| NewInstance {
                id: item_id(&parent.id, fence, batch.group, index),
                input: Arc::clone(input),
                ..like.clone()
            })
            .collect();
        let fresh: Vec<(&NewInstance, i64)> = news.iter().map(|new| (new, token)).collect();
        // Where the commit is made again, some or all of them may be there.
        create(
            self.link,
            self.place,
            &fresh,
            self.now,
            lanes,
            &Grants::default(),
        )
        .await?;
        let ids: Vec<&str> = news.iter().map(|new| &*new.id).collect();
        let positions: Vec<i32> = (batch.first..)
            .take(ids.len())
            .map(|position| position as i32)
            .collect();
        let params: [Param<'_>; 4] = [&parent.instance, &item_group, &ids, &positions];
        self.link.run(&sql::ITEMS_NEW, &params).await?;
        self.effects.family = true;
        self.effects.work = true;
        Ok(())
    }

    /// Nobody awaits these groups (none: all) of these instances any more: what has not ended of them
    /// is cancelled, and so on below.
    pub(super) async fn give_up(&mut self, parents: &[i64], groups: Option<&[i32]>) -> Tried<()> {
        // The statement puts the id of each item's parent in its place.
        let words = unwanted("\0").reason.unwrap_or_default();
        let (before, after) = words.split_once('\0').unwrap_or_default();
        let mut parents = parents.to_vec();
        let mut groups = groups.map(<[i32]>::to_vec);
        while !parents.is_empty() {
            let over = self
                .link
                .rows(&sql::GROUPS_OVER, &[&parents, &groups])
                .await?;
            let of: Vec<i64> = over.iter().map(|row| row.get(0)).collect();
            let which: Vec<i32> = over.iter().map(|row| row.get(1)).collect();
            if of.is_empty() {
                return Ok(());
            }
            let params: [Param<'_>; 5] = [&of, &which, &before, &self.now, &after];
            let cancelled = self.link.rows(&sql::ITEMS_CANCEL, &params).await?;
            let (mut instances, mut ids) = (Vec::new(), Vec::new());
            for row in &cancelled {
                self.effects.family = true;
                if row.get::<_, i16>(2) == Status::Cancelled as i16 {
                    let id: Arc<str> = Arc::from(row.get::<_, &str>(1));
                    instances.push(row.get::<_, i64>(0));
                    self.effects.ended.push(Arc::clone(&id));
                    ids.push(id);
                } else {
                    self.effects.news = true;
                }
            }
            if !instances.is_empty() {
                let ids: Vec<&str> = ids.iter().map(|id| &**id).collect();
                self.link.run(&sql::DELETE_CELLS, &[&instances]).await?;
                self.link.run(&sql::DELETE_EVENTS, &[&ids]).await?;
            }
            (parents, groups) = (instances, None);
        }
        Ok(())
    }

    /// These instances are about to be removed: their parents do not wait for them, and their items go
    /// too, the last of many a little later. Answers the items to remove now.
    pub(super) async fn leave_family(&mut self, gone: &[i64]) -> Tried<Vec<(i64, Arc<str>)>> {
        for row in self.link.rows(&sql::ITEMS_AMONG, &[&gone]).await? {
            let instance: i64 = row.get(0);
            if row.get::<_, bool>(1)
                && let Some(control) = self.control_by(instance).await?
            {
                self.cancelled(&control).await?;
            }
        }
        self.link.run(&sql::ITEMS_GONE, &[&gone]).await?;
        self.give_up(gone, None).await?;
        self.link.run(&sql::GROUPS_GONE, &[&gone]).await?;
        let items = self.items_of(gone, ERASE_ITEMS).await?;
        self.effects.leftovers |= items.len() as i64 == ERASE_ITEMS;
        Ok(items)
    }

    /// Some of the items of instances that are gone.
    pub(super) async fn items_of(&self, parents: &[i64], most: i64) -> Tried<Vec<(i64, Arc<str>)>> {
        let rows = self.link.rows(&sql::ITEMS_SOME, &[&parents, &most]).await?;
        Ok(rows
            .iter()
            .map(|row| (row.get(0), Arc::from(row.get::<_, &str>(1))))
            .collect())
    }
}

/// How the items of a group ended; none when there is no such instance.
pub async fn ends(link: &Link, id: &str, group: u32) -> Tried<Option<Vec<ItemEnd>>> {
    let group = group as i32;
    let Some(row) = link.row(&sql::GROUP_TOTAL, &[&id, &group]).await? else {
        return Ok(None);
    };
    let total: Option<i32> = row.get(0);
    let mut ends = vec![ItemEnd::Cancelled; total.unwrap_or_default() as usize];
    for row in link.rows(&sql::ITEMS_ENDS, &[&id, &group]).await? {
        let position: i32 = row.get(0);
        let Some(end) = ends.get_mut(position as usize) else {
            continue;
        };
        *end = match (status_of(row.get::<_, i16>(1).into()), bytes(&row, 2)) {
            (Status::Completed, Some(output)) => ItemEnd::Completed(output),
            (Status::Failed, Some(error)) => ItemEnd::Failed(error),
            (Status::Cancelled, _) => ItemEnd::Cancelled,
            _ => ItemEnd::Unended,
        };
    }
    Ok(Some(ends))
}
