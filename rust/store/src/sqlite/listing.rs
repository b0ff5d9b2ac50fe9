//! Listings, alerts and the state of the file: what is read over many instances.

use rusqlite::types::ToSql;
use sayiir_core::ErrorRecord;
use sayiir_core::policy::DEFAULT_PRIORITY;

use super::reading::full_row;
use super::statements::{self as sql, row_of};
use super::*;
use crate::contract::{Filter, InstanceRow, Page, StoreError, StoreResult};
use crate::listed::after_prefix;
use crate::storage::{Fact, Report};

/// A held instance whose holder has something to attend to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// The instance.
    pub id: Arc<str>,
    /// Grows with every request and event.
    pub count: i64,
    /// A cancel or pause is pending.
    pub request: bool,
}

impl Books {
    /// Instances that this worker holds and should attend to.
    pub fn alerted(&self, worker: &str) -> StoreResult<Vec<Alert>> {
        self.all(&sql::ALERTED, [worker], |row| {
            Ok(Alert {
                id: row.get(0)?,
                count: row.get(1)?,
                request: row.get::<_, Option<bool>>(2)?.unwrap_or(false),
            })
        })
    }

    /// The status of an instance, if it exists.
    pub fn status_of(&self, id: &str) -> StoreResult<Option<Status>> {
        self.one(&sql::STATUS, [id], |row| {
            Ok(crate::listed::status_of(row.get(0)?))
        })
    }

    /// A page, newest first.
    pub(super) fn list(
        &self,
        filter: &Filter,
        limit: usize,
        before: Option<u64>,
    ) -> StoreResult<Page> {
        let mut text = String::from(row_of!("WHERE 1"));
        let mut params: Vec<Box<dyn ToSql>> = Vec::new();
        let mut add = |clause: &str, value: Box<dyn ToSql>| {
            text.push_str(" AND ");
            text.push_str(clause);
            params.push(value);
        };
        if let Some(before) = before {
            add(
                "i.instance < ?",
                Box::new(i64::try_from(before).unwrap_or(i64::MAX)),
            );
        }
        if let Some(status) = filter.status {
            add("i.status = ?", Box::new(status as u8));
            if status != Status::Completed {
                // Lets the partial index be used, whose condition the planner must see.
                add("i.status <> ?", Box::new(Status::Completed as u8));
            }
        }
        if let Some(workflow) = &filter.workflow {
            add("d.workflow = ?", Box::new(workflow.clone()));
        }
        if let Some(prefix) = filter.id_prefix.as_deref().filter(|p| !p.is_empty()) {
            add("i.id >= ?", Box::new(prefix.to_owned()));
            if let Some(end) = after_prefix(prefix) {
                add("i.id < ?", Box::new(end));
            }
        }
        if let Some(at) = filter.created_after_us {
            add("i.created_us > ?", Box::new(at));
        }
        if let Some(at) = filter.created_before_us {
            add("i.created_us < ?", Box::new(at));
        }
        add(
            "1 ORDER BY i.instance DESC LIMIT ?",
            Box::new(limit as i64 + 1),
        );
        let mut prepared = self
            .conn
            .prepare_cached(&text)
            .map_err(|e| self.trouble.of_error(&e))?;
        let found: Vec<_> = prepared
            .query_map(rusqlite::params_from_iter(params.iter()), |row| {
                // A damaged row must not hide the others.
                Ok((
                    row.get::<_, i64>(0)?,
                    row.get::<_, Arc<str>>(1)?,
                    full_row(row),
                ))
            })
            .and_then(Iterator::collect)
            .map_err(|e: rusqlite::Error| self.trouble.of_error(&e))?;
        let more = found.len() > limit;
        let mut page = Page::default();
        for (instance, id, row) in found.into_iter().take(limit) {
            page.next = Some(instance as u64);
            let row = row
                .map_err(|e| self.trouble.of_error(&e))
                .and_then(|row| row.checked(&self.trouble));
            page.rows.push(match row {
                Ok(row) => row,
                Err(StoreError::Format(text)) => damaged(id, text),
                Err(error) => return Err(error),
            });
        }
        page.next = page.next.filter(|_| more);
        Ok(page)
    }

    /// What an operator wants to know of the file; reads all of it.
    pub fn report(&self) -> StoreResult<Report> {
        let pragma = |name: &str| -> StoreResult<String> {
            self.conn
                .query_row(&format!("PRAGMA {name}"), [], |row| {
                    Ok(match row.get_ref(0)? {
                        rusqlite::types::ValueRef::Integer(number) => number.to_string(),
                        other => other.as_str().unwrap_or_default().to_owned(),
                    })
                })
                .map_err(|e| self.trouble.of_error(&e))
        };
        let listed = |sql: &str| -> StoreResult<Vec<(i64, i64)>> {
            let mut prepared = self
                .conn
                .prepare(sql)
                .map_err(|e| self.trouble.of_error(&e))?;
            prepared
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
                .and_then(Iterator::collect)
                .map_err(|e| self.trouble.of_error(&e))
        };
        let size = |suffix: &str| {
            std::fs::metadata(format!("{}{suffix}", self.trouble.path()))
                .map_or(0, |meta| meta.len())
        };
        let held: HashMap<i64, i64> = listed(
            "SELECT holder, count(*) FROM instances WHERE holder IS NOT NULL GROUP BY holder",
        )?
        .into_iter()
        .collect();
        let by_definition: HashMap<i64, i64> =
            listed("SELECT definition, count(*) FROM instances GROUP BY definition")?
                .into_iter()
                .collect();
        let workers = self
            .conn
            .prepare("SELECT worker, name, expires_us FROM workers ORDER BY name")
            .and_then(|mut prepared| {
                prepared
                    .query_map([], |row| {
                        let worker: i64 = row.get(0)?;
                        let held = held.get(&worker).copied().unwrap_or(0);
                        Ok((row.get(1)?, row.get(2)?, held))
                    })?
                    .collect()
            })
            .map_err(|e| self.trouble.of_error(&e))?;
        let definitions = self
            .conn
            .prepare("SELECT definition, hash, workflow FROM definitions ORDER BY definition")
            .and_then(|mut prepared| {
                prepared
                    .query_map([], |row| {
                        let definition: i64 = row.get(0)?;
                        let count = by_definition.get(&definition).copied().unwrap_or(0);
                        Ok((row.get(1)?, row.get(2)?, count))
                    })?
                    .collect()
            })
            .map_err(|e| self.trouble.of_error(&e))?;
        let text = Fact::Text;
        let number = |value: u64| Fact::Number(i64::try_from(value).unwrap_or(i64::MAX));
        Ok(Report {
            facts: vec![
                ("path", text(self.trouble.path().to_owned())),
                ("bytes", number(size(""))),
                ("wal_bytes", number(size("-wal"))),
                ("journal_mode", text(pragma("journal_mode")?)),
                (
                    "synchronous",
                    text(
                        match self.settings.synchronous {
                            Synchronous::Full => "full",
                            Synchronous::Normal => "normal",
                        }
                        .to_owned(),
                    ),
                ),
                (
                    "schema_version",
                    Fact::Number(pragma("user_version")?.parse().unwrap_or(0)),
                ),
                ("sqlite_version", text(rusqlite::version().to_owned())),
                ("integrity", text(pragma("integrity_check")?)),
            ],
            instances: listed("SELECT status, count(*) FROM instances GROUP BY status")?
                .into_iter()
                .map(|(number, count)| (crate::listed::status_of(number).word(), count))
                .collect(),
            workers,
            definitions,
        })
    }
}

/// What a listing shows of a row that cannot be read.
fn damaged(id: Arc<str>, text: String) -> InstanceRow {
    let record = ErrorRecord {
        error_type: "SnapshotFormatError".to_owned(),
        message: text,
        ..ErrorRecord::default()
    };
    InstanceRow {
        id,
        workflow: "".into(),
        hash: [0; 32],
        status: Status::Failed,
        created_us: 0,
        updated_us: 0,
        ended_us: None,
        start_at_us: None,
        wake_at_us: None,
        delay_id: None,
        signal_id: None,
        signal_name: None,
        reason: None,
        by: None,
        output: None,
        error: Some(record.encode()),
        needs: (Arc::new([]), DEFAULT_PRIORITY),
        worker: None,
        fence: 0,
        steps: 0,
    }
}
