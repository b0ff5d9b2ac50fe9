//! Rows of the storage contract on their way to and from Python, the same for every store.
//!
//! What Python gets are dicts, tuples and texts that the dataclasses of `sayiir.backends` are made of.

use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use sayiir_core::state::Reply;
use sayiir_store::{
    Backlog, ConflictPolicy, Filter, HistoryRow, InstanceRow, NewInstance, News, Page, Request,
    Status, Submitted,
};

use crate::definition::Program;
use crate::error::{self, seconds, us};
use crate::record::{StepRow, tags_to_py};

/// An instance row as the arguments of `sayiir.backends.InstanceRow`, by name.
#[derive(IntoPyObject)]
pub struct Fields {
    instance_id: String,
    workflow_id: String,
    definition_hash: String,
    status: &'static str,
    created_at: f64,
    updated_at: f64,
    ended_at: Option<f64>,
    start_at: Option<f64>,
    wake_at: Option<f64>,
    delay_id: Option<String>,
    signal_id: Option<String>,
    signal_name: Option<String>,
    reason: Option<String>,
    by: Option<String>,
    output: Option<Py<PyBytes>>,
    error: Option<Py<PyBytes>>,
    tags: Vec<String>,
    priority: u8,
    worker_id: Option<String>,
    fence: u64,
    steps: u32,
}

pub fn fields(py: Python<'_>, row: &InstanceRow) -> Fields {
    let text = |value: &Option<Arc<str>>| value.as_ref().map(|text| text.to_string());
    let bytes =
        |value: &Option<sayiir_core::Bytes>| value.as_ref().map(|b| PyBytes::new(py, b).unbind());
    Fields {
        instance_id: row.id.to_string(),
        workflow_id: row.workflow.to_string(),
        definition_hash: error::hex(&row.hash),
        status: row.status.word(),
        created_at: seconds(row.created_us),
        updated_at: seconds(row.updated_us),
        ended_at: row.ended_us.map(seconds),
        start_at: row.start_at_us.map(seconds),
        wake_at: row.wake_at_us.map(seconds),
        delay_id: text(&row.delay_id),
        signal_id: text(&row.signal_id),
        signal_name: text(&row.signal_name),
        reason: text(&row.reason),
        by: text(&row.by),
        output: bytes(&row.output),
        error: bytes(&row.error),
        tags: tags_to_py(&row.needs.0),
        priority: row.needs.1,
        worker_id: text(&row.worker),
        fence: row.fence,
        steps: row.steps,
    }
}

pub fn policy_of(word: &str) -> PyResult<ConflictPolicy> {
    match word {
        "fail" => Ok(ConflictPolicy::Fail),
        "use_existing" => Ok(ConflictPolicy::UseExisting),
        "terminate_existing" => Ok(ConflictPolicy::TerminateExisting),
        other => Err(PyValueError::new_err(format!(
            "unknown conflict policy {other:?}; use 'fail', 'use_existing' or 'terminate_existing'"
        ))),
    }
}

/// Id, program, sealed input and start time of a new instance.
pub type NewFields = (String, Py<Program>, Vec<u8>, Option<f64>);

/// Number, name and payload of an event.
pub type EventFields<'py> = (u64, String, Bound<'py, PyBytes>);

/// The kind of a reply, and its events.
pub fn reply_to_py<'py>(py: Python<'py>, reply: &Reply) -> ReplyFields<'py> {
    match reply {
        Reply::Ok => ("ok", Vec::new()),
        Reply::PausePending => ("pause_pending", Vec::new()),
        Reply::Cancelled => ("cancelled", Vec::new()),
        Reply::Paused => ("paused", Vec::new()),
        Reply::LeaseLost => ("lease_lost", Vec::new()),
        Reply::Events(events) => ("events", events_to_py(py, events)),
    }
}

pub fn events_to_py<'py>(py: Python<'py>, events: &[sayiir_core::Event]) -> Vec<EventFields<'py>> {
    events
        .iter()
        .map(|e| (e.seq, e.name.to_string(), PyBytes::new(py, &e.payload)))
        .collect()
}

/// The kind of a reply, and its events.
pub type ReplyFields<'py> = (&'static str, Vec<EventFields<'py>>);

/// `(lost, cancel pending, pause pending, events)`.
pub type NewsFields<'py> = (bool, bool, bool, Vec<EventFields<'py>>);

/// For the holder of an instance.
pub fn news_to_py<'py>(py: Python<'py>, news: &News) -> NewsFields<'py> {
    (
        news.lost,
        news.cancel,
        news.pause,
        events_to_py(py, &news.events),
    )
}

/// Rows, newest first, and where the next page begins.
pub type PageFields = (Vec<Fields>, Option<u64>);

/// A page of instances.
pub fn page_to_py(py: Python<'_>, page: &Page) -> PageFields {
    (
        page.rows.iter().map(|row| fields(py, row)).collect(),
        page.next,
    )
}

/// `(definition hash, workflow, tags, how many, for how long the next one)` of what is ready.
pub type BacklogFields = (String, String, Vec<String>, usize, f64);

/// Ready work of one kind.
pub fn backlog_to_py(backlog: &Backlog) -> BacklogFields {
    (
        error::hex(&backlog.hash),
        backlog.workflow.to_string(),
        tags_to_py(&backlog.tags),
        backlog.ready,
        error::seconds(backlog.age_us),
    )
}

/// `(step row, worker id)` in the order they were written.
pub fn history_to_py(rows: Vec<HistoryRow>) -> Vec<(StepRow, String)> {
    rows.into_iter()
        .map(|row| (row.step.into(), row.worker.to_string()))
        .collect()
}

/// For each `None`, or the existing instance.
pub fn submitted_to_py(py: Python<'_>, outcomes: &[Submitted]) -> Vec<Option<Fields>> {
    outcomes
        .iter()
        .map(|outcome| match outcome {
            Submitted::Created => None,
            Submitted::Existing(row) => Some(fields(py, row)),
        })
        .collect()
}

/// The rows to be submitted.
pub fn batch_of(instances: Vec<NewFields>) -> Vec<NewInstance> {
    instances
        .into_iter()
        .map(|(id, program, input, start_at)| {
            let program = program.get();
            let def = &program.def;
            NewInstance {
                id: id.into(),
                workflow: Arc::clone(&def.name),
                hash: *def.hash(),
                tree: program.tree(),
                input: input.into(),
                needs: def.entry(),
                start_at_us: start_at.map(us),
            }
        })
        .collect()
}

/// A request with its reason and author.
pub fn request_of(reason: Option<&str>, by: Option<&str>) -> Request {
    Request {
        reason: reason.map(Into::into),
        by: by.map(Into::into),
    }
}

/// A filter from Python's arguments.
pub fn filter_of(
    status: Option<&str>,
    workflow: Option<String>,
    id_prefix: Option<String>,
    created_after: Option<f64>,
    created_before: Option<f64>,
) -> PyResult<Filter> {
    let status = status
        .map(|word| {
            Status::from_word(word)
                .ok_or_else(|| PyValueError::new_err(format!("unknown status {word:?}")))
        })
        .transpose()?;
    Ok(Filter {
        status,
        workflow,
        id_prefix,
        created_after_us: created_after.map(us),
        created_before_us: created_before.map(us),
    })
}
