//! Rows on their way out, and the calls that change nothing.

use std::collections::HashMap;
use std::sync::Arc;

use sayiir_core::Bytes;
use sayiir_core::event::Event;
use sayiir_core::policy::Tags;
use sayiir_core::state::{Outcome, StepRow};
use tokio_postgres::Row;

use super::connection::{Failure, Link, Place, Tried};
use super::statements as sql;
use super::trouble::Trouble;
use crate::call::{Answer, Call};
use crate::contract::{
    Backlog, Filter, Hash, HistoryRow, InstanceRow, News, Page, Status, StoreError, StoreResult,
};
use crate::listed::{after_prefix, read_list, status_of};
use crate::shared::Job;

/// Text of a column.
fn text(row: &Row, column: usize) -> Arc<str> {
    Arc::from(row.get::<_, &str>(column))
}

fn some_text(row: &Row, column: usize) -> Option<Arc<str>> {
    row.get::<_, Option<&str>>(column).map(Arc::from)
}

/// Bytes of a column.
pub fn bytes(row: &Row, column: usize) -> Option<Bytes> {
    row.get::<_, Option<&[u8]>>(column).map(Bytes::from)
}

/// A hash, or what is wrong with it.
pub fn hash_of(place: &Place, row: &Row, column: usize) -> Tried<Hash> {
    Hash::try_from(row.get::<_, &[u8]>(column)).map_err(|_| Failure {
        trouble: Trouble::Other,
        format: true,
        text: format!(
            "PostgreSQL at {}: a definition of schema '{}' has a damaged hash; restore the table 'definitions'",
            place.address.shown, place.settings.schema
        )
        .into(),
    })
}

/// A step row with the instance it belongs to.
pub fn step_of(row: &Row) -> (i64, HistoryRow) {
    let outcome = match row.get::<_, i16>(4) {
        0 => Outcome::Completed,
        1 => Outcome::Retried,
        3 => Outcome::Elapsed,
        _ => Outcome::Failed,
    };
    let step = StepRow {
        seq: row.get::<_, i32>(0) as u32,
        path: text(row, 1),
        name: text(row, 2),
        attempt: row.get::<_, i32>(3) as u32,
        outcome,
        output: bytes(row, 5),
        error: bytes(row, 6),
        started_us: row.get(7),
        ended_us: row.get(8),
    };
    let worker = some_text(row, 9).unwrap_or_default();
    (row.get(10), HistoryRow { step, worker })
}

/// An instance row as the statements of `row_of!` read it, with its number.
fn row_of(place: &Place, row: &Row) -> Tried<(i64, InstanceRow)> {
    let status = status_of(row.get::<_, i16>(4).into());
    let asked: Option<i16> = row.get(12);
    let shows_parking = matches!(
        status,
        Status::Waiting | Status::AwaitingSignal | Status::Paused
    );
    let parked = |column: usize| some_text(row, column).filter(|_| shows_parking);
    let updated_us = row.get(6);
    let result = bytes(row, 20);
    let tags: Tags = read_list(row.get(15));
    let found = InstanceRow {
        id: text(row, 1),
        workflow: text(row, 2),
        hash: hash_of(place, row, 3)?,
        status,
        created_us: row.get(5),
        updated_us,
        ended_us: status.is_terminal().then_some(updated_us),
        start_at_us: row.get(7),
        wake_at_us: row.get::<_, Option<i64>>(8).filter(|_| shows_parking),
        delay_id: parked(9),
        signal_id: parked(10),
        signal_name: parked(11),
        reason: some_text(row, 13).filter(|_| asked.is_some()),
        by: some_text(row, 14).filter(|_| asked.is_some()),
        output: result.clone().filter(|_| status == Status::Completed),
        error: result.filter(|_| status == Status::Failed),
        needs: (tags, row.get::<_, i16>(16) as u8),
        worker: some_text(row, 17),
        fence: row.get::<_, i64>(18) as u64,
        steps: row.get::<_, i32>(19) as u32,
    };
    Ok((row.get(0), found))
}

fn not_found(id: &str) -> StoreError {
    StoreError::NotFound { id: id.into() }
}

/// One instance.
pub async fn get(link: &Link, place: &Place, id: &str) -> Tried<Option<InstanceRow>> {
    match link.row(&sql::ROW, &[&id]).await? {
        Some(row) => Ok(Some(row_of(place, &row)?.1)),
        None => Ok(None),
    }
}

/// The oldest events for these names, as many per name as it is asked for.
pub async fn oldest(link: &Link, id: &str, names: &[Arc<str>]) -> Tried<Vec<Event>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let mut wanted: HashMap<&str, i64> = HashMap::new();
    for name in names {
        *wanted.entry(name).or_default() += 1;
    }
    let (names, most): (Vec<&str>, Vec<i64>) = wanted.into_iter().unzip();
    let rows = link
        .rows(&sql::EVENTS_OLDEST, &[&id, &names, &most])
        .await?;
    Ok(rows
        .iter()
        .map(|row| Event {
            seq: row.get::<_, i64>(0) as u64,
            name: text(row, 1),
            payload: bytes(row, 2).unwrap_or_default(),
        })
        .collect())
}

async fn find(
    link: &Link,
    place: &Place,
    filter: &Filter,
    limit: usize,
    before: Option<u64>,
) -> Tried<Page> {
    let before = before.map_or(i64::MAX, |before| i64::try_from(before).unwrap_or(i64::MAX));
    let status = filter.status.map(|status| i16::from(status as u8));
    let prefix = filter
        .id_prefix
        .as_deref()
        .filter(|prefix| !prefix.is_empty());
    let end = prefix.and_then(after_prefix);
    let statement = match filter.status {
        // No index has them alone, since nearly all end like this.
        None | Some(Status::Completed) => &sql::LIST,
        Some(Status::InProgress) => &sql::LIST_ACTIVE,
        Some(_) => &sql::LIST_STATUS,
    };
    let rows = link
        .rows(
            statement,
            &[
                &before,
                &status,
                &filter.workflow,
                &prefix,
                &end,
                &filter.created_after_us,
                &filter.created_before_us,
                &(limit as i64 + 1),
            ],
        )
        .await?;
    let mut page = Page::default();
    for row in rows.iter().take(limit) {
        let (instance, row) = row_of(place, row)?;
        page.next = Some(instance as u64);
        page.rows.push(row);
    }
    page.next = page.next.filter(|_| rows.len() > limit);
    Ok(page)
}

/// Whether an instance of this id is there; asked only where its absence is an error of its own.
async fn known<T>(link: &Link, id: &str, found: T, absent: bool) -> Tried<StoreResult<T>> {
    if absent && link.row(&sql::EXISTS, &[&id]).await?.is_none() {
        return Ok(Err(not_found(id)));
    }
    Ok(Ok(found))
}

async fn news(link: &Link, id: &str, fence: u64, names: &[Arc<str>]) -> Tried<News> {
    let fence = fence as i64;
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&id, &fence];
    let (holding, events) =
        futures_util::future::join(link.row(&sql::HOLDING, &params), oldest(link, id, names)).await;
    let events = events?;
    let Some(row) = holding? else {
        return Ok(News {
            lost: true,
            ..News::default()
        });
    };
    let asked: Option<i16> = row.get(0);
    Ok(News {
        lost: false,
        cancel: asked == Some(2),
        pause: asked == Some(1),
        events,
    })
}

/// Makes a call that changes nothing; `None` for any other.
pub async fn read(
    link: &Link,
    place: &Place,
    clock_margin_us: i64,
    job: &Job,
) -> Tried<Option<StoreResult<Answer>>> {
    let answer = match &job.call {
        Call::CheckSubmit { id, hash, policy } => {
            super::single::conflict(link, place, id, hash, *policy)
                .await?
                .map(|found| Answer::Existing(found.existing))
        }
        Call::News { id, fence, names } => Ok(Answer::News(news(link, id, *fence, names).await?)),
        Call::Get { id } => get(link, place, id)
            .await?
            .map(|row| Answer::Row(Box::new(row)))
            .ok_or_else(|| not_found(id)),
        Call::Find {
            filter,
            limit,
            before,
        } => Ok(Answer::Page(
            find(link, place, filter, *limit, *before).await?,
        )),
        Call::History { id } => {
            let rows = link.rows(&sql::HISTORY, &[&&**id]).await?;
            let found: Vec<_> = rows.iter().map(|row| step_of(row).1).collect();
            let absent = found.is_empty();
            known(link, id, Answer::History(found), absent).await?
        }
        Call::Step { id, path_or_name } => {
            let row = link
                .row(&sql::STEP_NAMED, &[&&**id, &&**path_or_name])
                .await?;
            let found = row.map(|row| Box::new(step_of(&row).1.step));
            let absent = found.is_none();
            known(link, id, Answer::Step(found), absent).await?
        }
        Call::Input { id } => link
            .row(&sql::INPUT, &[&&**id])
            .await?
            .map(|row| Answer::Bytes(bytes(&row, 0).unwrap_or_default()))
            .ok_or_else(|| not_found(id)),
        Call::Rows { id, seqs } => {
            let wanted: Vec<i32> = seqs.iter().map(|seq| *seq as i32).collect();
            let rows = link.rows(&sql::ROWS, &[&&**id, &wanted]).await?;
            let mut found: HashMap<u32, StepRow> = rows
                .iter()
                .map(|row| step_of(row).1.step)
                .map(|step| (step.seq, step))
                .collect();
            let found: Vec<_> = seqs.iter().filter_map(|seq| found.remove(seq)).collect();
            let absent = found.is_empty();
            known(link, id, Answer::Rows(found), absent).await?
        }
        Call::Items { id, group } => super::family::ends(link, id, *group)
            .await?
            .map(Answer::Items)
            .ok_or_else(|| not_found(id)),
        Call::Backlog => {
            let mut backlog = Vec::new();
            for row in link.rows(&sql::BACKLOG, &[&job.now_us]).await? {
                backlog.push(Backlog {
                    hash: hash_of(place, &row, 0)?,
                    workflow: text(&row, 1),
                    tags: read_list(row.get(2)),
                    ready: row.get::<_, i64>(3) as usize,
                    age_us: row.get(4),
                });
            }
            Ok(Answer::Backlog(backlog))
        }
        Call::NextWake => {
            let row = link.row(&sql::NEXT_WAKE, &[]).await?;
            let at: Option<i64> = row.and_then(|row| row.get(0));
            // So that whoever goes by an estimate of the database's clock does not come too early.
            Ok(Answer::Wake(
                at.map(|at| at.saturating_add(clock_margin_us)),
            ))
        }
        _ => return Ok(None),
    };
    Ok(Some(answer))
}
