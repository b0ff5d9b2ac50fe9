//! Removing what is no longer kept, a transaction's worth at a time.

use std::sync::Arc;

use super::connection::Tried;
use super::single::Single;
use super::statements as sql;

/// So many ended instances go with one transaction; as the statement says.
const ENDED: usize = 256;
/// So many step rows of deleted instances.
const STEPS: u64 = 5_000;
/// So many items whose parent is gone.
const ITEMS: i64 = 256;
/// So many early events are looked at.
const PIECE: i64 = 1_000;

impl Single<'_> {
    /// Removes a little of what is no longer kept, and looks after events that came early. Every piece
    /// is a transaction's worth, and a crash between two of them costs nothing. Whether there is more
    /// to do.
    pub async fn sweep(&mut self) -> Tried<bool> {
        let mut more = false;
        if let Some(keep_us) = self.place.settings.keep_completed_us {
            let rows = self
                .link
                .rows(&sql::ENDED_LONG_AGO, &[&self.now, &keep_us])
                .await?;
            let old: Vec<(i64, Arc<str>)> = rows
                .iter()
                .map(|row| (row.get(0), Arc::from(row.get::<_, &str>(1))))
                .collect();
            more |= old.len() == ENDED;
            self.erase(&old).await?;
        }
        let garbage: Vec<i64> = self
            .link
            .rows(&sql::GARBAGE, &[])
            .await?
            .iter()
            .map(|row| row.get(0))
            .collect();
        if !garbage.is_empty() {
            let gone = self.link.run(&sql::GARBAGE_STEPS, &[&garbage]).await?;
            let items = self.items_of(&garbage, ITEMS).await?;
            self.erase(&items).await?;
            self.link.run(&sql::GARBAGE_DONE, &[&garbage]).await?;
            more |= gone == STEPS || garbage.len() == 64 || items.len() as i64 == ITEMS;
        }
        let keep_us = self.place.settings.keep_orphans_us;
        self.link
            .run(&sql::EVENTS_FORGET, &[&self.now, &keep_us])
            .await?;
        self.link.run(&sql::EVENTS_SETTLE, &[&self.now]).await?;
        self.link.run(&sql::EVENTS_IN_VAIN, &[]).await?;
        // Those that came early and whose instance was made at the very same moment; a piece each time.
        let since = self.place.early_from.get();
        if let Some(row) = self.link.row(&sql::EVENTS_FOUND, &[&since]).await? {
            let whole = row.get::<_, i64>(0) == PIECE;
            let last: Option<i64> = row.get(1);
            self.place
                .early_from
                .set(last.filter(|_| whole).map_or(i64::MIN, |last| last + 1));
            self.effects.work |= row.get::<_, i64>(2) > 0;
        }
        self.free_orphans().await?;
        Ok(more)
    }
}
