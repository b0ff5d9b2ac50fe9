//! The parts of a snapshot on their way to and from Python. Of its steps there are many, so they are
//! objects of their own here; its events and what was asked are plain classes of `sayiir._snapshot`.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::sync::PyOnceLock;
use sayiir_core::Error;
use sayiir_core::snapshot::{Asked, KeptEvent};
use sayiir_core::state::{self, HistoryRow, Status};

use super::owned;
use crate::error::{self, seconds, us};
use crate::record::{StepRow, outcome_of, to_py};

static PYTHON: PyOnceLock<Py<PyModule>> = PyOnceLock::new();

/// Something of the module that has the classes.
pub fn of_python<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    let module = PYTHON.get_or_try_init(py, || py.import("sayiir._snapshot").map(Bound::unbind))?;
    module.bind(py).getattr(name)
}

pub fn shared(text: Option<String>) -> Option<Arc<str>> {
    text.map(Into::into)
}

/// The status that this word is for.
pub fn status_of(py: Python<'_>, word: &str) -> PyResult<Status> {
    Status::from_word(word)
        .ok_or_else(|| error::core(py, &Error::invalid(format!("unknown status {word:?}"))))
}

/// A `SnapshotRequest`.
#[derive(FromPyObject)]
pub struct RequestIn {
    cancel: bool,
    pending: bool,
    resume: PyBackedStr,
    reason: Option<String>,
    by: Option<String>,
}

impl RequestIn {
    pub fn read(self, py: Python<'_>) -> PyResult<Asked> {
        Ok(Asked {
            cancel: self.cancel,
            pending: self.pending,
            resume: status_of(py, &self.resume)?,
            reason: shared(self.reason),
            by: shared(self.by),
        })
    }
}

pub fn request<'py>(py: Python<'py>, asked: &Asked) -> PyResult<Bound<'py, PyAny>> {
    of_python(py, "SnapshotRequest")?.call1((
        asked.cancel,
        asked.pending,
        asked.resume.word(),
        asked.reason.as_deref(),
        asked.by.as_deref(),
    ))
}

/// One line of the history of an instance, with whose it is. Times are seconds since 1970 UTC.
#[pyclass(frozen, extends = StepRow, module = "sayiir.codec")]
pub struct SnapshotStep {
    worker: Arc<str>,
}

impl SnapshotStep {
    pub fn of(row: &HistoryRow) -> PyClassInitializer<Self> {
        let worker = Arc::clone(&row.worker);
        PyClassInitializer::from(StepRow::from(row.step.clone())).add_subclass(Self { worker })
    }

    pub fn read(slf: &Bound<'_, Self>) -> HistoryRow {
        HistoryRow {
            step: slf.as_super().get().inner.clone(),
            worker: Arc::clone(&slf.get().worker),
        }
    }
}

#[pymethods]
impl SnapshotStep {
    #[new]
    #[pyo3(signature = (seq, path, name, attempt, outcome, worker_id, started_at, ended_at, output=None, error=None))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        seq: u32,
        path: &str,
        name: &str,
        attempt: u32,
        outcome: &str,
        worker_id: &str,
        started_at: f64,
        ended_at: f64,
        output: Option<PyBackedBytes>,
        error: Option<PyBackedBytes>,
    ) -> PyResult<PyClassInitializer<Self>> {
        let step = state::StepRow {
            seq,
            path: path.into(),
            name: name.into(),
            attempt,
            outcome: outcome_of(outcome)?,
            output: owned(output),
            error: owned(error),
            started_us: us(started_at),
            ended_us: us(ended_at),
        };
        let worker = worker_id.into();
        Ok(PyClassInitializer::from(StepRow::from(step)).add_subclass(Self { worker }))
    }

    /// The worker that ran it.
    #[getter]
    fn worker_id(&self) -> &str {
        &self.worker
    }

    fn __eq__(slf: &Bound<'_, Self>, other: &Bound<'_, PyAny>) -> bool {
        other
            .cast::<Self>()
            .is_ok_and(|other| Self::read(slf) == Self::read(other))
    }
}

/// A `SnapshotEvent`.
#[derive(FromPyObject)]
pub struct EventIn {
    name: String,
    key: Option<String>,
    came_at: f64,
    payload: Option<PyBackedBytes>,
}

impl EventIn {
    pub fn read(self) -> KeptEvent {
        KeptEvent {
            name: self.name.into(),
            key: shared(self.key),
            came_us: us(self.came_at),
            payload: owned(self.payload),
        }
    }
}

pub fn event<'py>(py: Python<'py>, event: &KeptEvent) -> PyResult<Bound<'py, PyAny>> {
    of_python(py, "SnapshotEvent")?.call1((
        &*event.name,
        event.key.as_deref(),
        seconds(event.came_us),
        to_py(py, event.payload.as_ref()),
    ))
}
