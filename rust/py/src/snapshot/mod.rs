//! Snapshots of instances for Python: `sayiir.codec.Snapshot`, and what moves one between backends.
//!
//! A `Snapshot` holds the core's own, which was checked when it was read or made; what Python sees of
//! it is made when it is asked for, so that reading and writing one costs what the bytes cost. What a
//! store is given was read by the core, and its position was held against its definition.

mod moving;
mod parts;

use std::sync::{Arc, Mutex};

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyTuple};
use sayiir_core::advance::Stored;
use sayiir_core::snapshot::{self, Known};
use sayiir_core::state::{NO_CELLS, Status};
use sayiir_core::{Error, id, policy};

use crate::error::{self, seconds, us};
use crate::record::{tags_to_py, to_py};

pub use moving::{opened_snapshot, stored_snapshot};
pub use parts::SnapshotStep;
use parts::{EventIn, RequestIn, shared};

/// The definition that was read last: who moves many instances moves them of few workflows, and to
/// read a definition costs more than the rest of a small snapshot.
static LAST: Mutex<Option<Known>> = Mutex::new(None);

fn last() -> Option<Known> {
    LAST.lock().ok()?.clone()
}

fn remember(before: Option<&Known>, known: Known) {
    let same = before.is_some_and(|before| Arc::ptr_eq(before.tree(), known.tree()));
    if !same && let Ok(mut last) = LAST.lock() {
        *last = Some(known);
    }
}

fn read(data: &[u8]) -> Result<snapshot::Snapshot, Error> {
    let before = last();
    let found = snapshot::Snapshot::decode_knowing(data, before.as_ref())?;
    remember(before.as_ref(), found.known());
    Ok(found)
}

/// The snapshot in these bytes, under this id, with a position that fits its definition.
pub fn read_for(py: Python<'_>, data: &[u8], instance_id: &str) -> PyResult<snapshot::Snapshot> {
    let refuse = |e: Error| error::core(py, &e);
    id::check_name("instance_id", instance_id).map_err(refuse)?;
    let mut found = read(data).map_err(refuse)?;
    found.check_position().map_err(refuse)?;
    found.id = instance_id.into();
    Ok(found)
}

/// What the constructor takes.
const FIELDS: [&str; 23] = [
    "instance_id",
    "definition",
    "status",
    "created_at",
    "updated_at",
    "start_at",
    "wake_at",
    "delay_id",
    "signal_id",
    "signal_name",
    "awaits",
    "asked",
    "tags",
    "priority",
    "cursor",
    "cells",
    "next_seq",
    "next_strand",
    "cells_from",
    "input",
    "result",
    "steps",
    "events",
];

/// Everything that is stored of one instance, but for who holds it.
///
/// Payloads, records and positions in it are sealed bytes. Times are seconds since 1970 UTC. It does not
/// change; `replace` gives another one. Two are equal when they say the same.
#[pyclass(frozen, eq, module = "sayiir.codec")]
pub struct Snapshot {
    inner: snapshot::Snapshot,
    steps: PyOnceLock<Py<PyTuple>>,
}

impl PartialEq for Snapshot {
    fn eq(&self, other: &Self) -> bool {
        self.inner == other.inner
    }
}

impl From<snapshot::Snapshot> for Snapshot {
    fn from(inner: snapshot::Snapshot) -> Self {
        Self {
            inner,
            steps: PyOnceLock::new(),
        }
    }
}

fn owned(bytes: Option<PyBackedBytes>) -> Option<sayiir_core::Bytes> {
    bytes.map(|bytes| (*bytes).into())
}

#[pymethods]
impl Snapshot {
    #[new]
    #[pyo3(signature = (*, instance_id, definition, status, created_at, updated_at, start_at=None, wake_at=None,
                        delay_id=None, signal_id=None, signal_name=None, awaits=Vec::new(), asked=None,
                        tags=Vec::new(), priority=3, cursor=None, cells=Vec::new(), next_seq=0, next_strand=1,
                        cells_from=None, input, result=None, steps=Vec::new(), events=Vec::new()))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        instance_id: String,
        definition: PyBackedBytes,
        status: &str,
        created_at: f64,
        updated_at: f64,
        start_at: Option<f64>,
        wake_at: Option<f64>,
        delay_id: Option<String>,
        signal_id: Option<String>,
        signal_name: Option<String>,
        awaits: Vec<String>,
        asked: Option<RequestIn>,
        tags: Vec<String>,
        priority: u8,
        cursor: Option<PyBackedBytes>,
        cells: Vec<(u32, PyBackedBytes)>,
        next_seq: u32,
        next_strand: u32,
        cells_from: Option<u32>,
        input: PyBackedBytes,
        result: Option<PyBackedBytes>,
        steps: Vec<Bound<'_, SnapshotStep>>,
        events: Vec<EventIn>,
    ) -> PyResult<Self> {
        let refuse = |e: Error| error::core(py, &e);
        let before = last();
        let known = Known::read(&definition, before.as_ref()).map_err(refuse)?;
        remember(before.as_ref(), known.clone());
        let given = snapshot::Snapshot {
            id: instance_id.into(),
            definition: Arc::clone(known.definition()),
            tree: Arc::clone(known.tree()),
            status: parts::status_of(py, status)?,
            created_us: us(created_at),
            updated_us: us(updated_at),
            start_at_us: start_at.map(us),
            wake_at_us: wake_at.map(us),
            delay_id: shared(delay_id),
            signal_id: shared(signal_id),
            signal_name: shared(signal_name),
            awaits: awaits.into_iter().map(Into::into).collect(),
            asked: asked.map(|asked| asked.read(py)).transpose()?,
            needs: (policy::tags("tags", tags).map_err(refuse)?, priority),
            stored: Stored {
                cursor: owned(cursor),
                cells: cells
                    .into_iter()
                    .map(|(strand, cell)| (strand, (*cell).into()))
                    .collect(),
                next_seq,
                next_strand,
            },
            cells_from: cells_from.unwrap_or(NO_CELLS),
            input: (*input).into(),
            result: owned(result),
            steps: steps.iter().map(SnapshotStep::read).collect(),
            events: events.into_iter().map(EventIn::read).collect(),
        };
        // One set of rules for what a snapshot may say: that of its bytes.
        snapshot::Snapshot::decode_knowing(&given.written(), Some(&known))
            .map(Self::from)
            .map_err(refuse)
    }

    /// The same with other fields.
    ///
    /// Raises:
    ///     TypeError: There is no such field, or it is of another kind.
    ///     ValueError, SnapshotFormatError: No backend could have stored it.
    #[pyo3(signature = (**changes))]
    fn replace<'py>(
        slf: &Bound<'py, Self>,
        changes: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let given = PyDict::new(slf.py());
        for field in FIELDS {
            given.set_item(field, slf.getattr(field)?)?;
        }
        if let Some(changes) = changes {
            given.update(changes.as_mapping())?;
        }
        slf.get_type().call((), Some(&given))
    }

    #[pyo3(signature = (**changes))]
    fn __replace__<'py>(
        slf: &Bound<'py, Self>,
        changes: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        Self::replace(slf, changes)
    }

    fn __reduce__<'py>(
        slf: &Bound<'py, Self>,
    ) -> PyResult<(Bound<'py, PyAny>, (Bound<'py, PyBytes>,))> {
        let py = slf.py();
        let read = parts::of_python(py, "decode_snapshot")?;
        Ok((read, (PyBytes::new(py, &slf.get().inner.written()),)))
    }

    fn __repr__(&self) -> String {
        format!(
            "<Snapshot of {:?}, {}, {} steps>",
            self.inner.id,
            self.inner.status.word(),
            self.inner.steps.len()
        )
    }

    /// The instance's id.
    #[getter]
    fn instance_id(&self) -> &str {
        &self.inner.id
    }

    /// The name of the workflow, as its definition says.
    #[getter]
    fn workflow_id(&self) -> &str {
        &self.inner.definition.name
    }

    /// 64 hexadecimal digits, computed from `definition`.
    #[getter]
    fn definition_hash(&self) -> String {
        self.inner.definition.hash_hex()
    }

    /// What it runs, as data.
    #[getter]
    fn definition<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.tree)
    }

    /// A word of `Status`.
    #[getter]
    fn status(&self) -> &'static str {
        self.inner.status.word()
    }

    /// When it was submitted.
    #[getter]
    fn created_at(&self) -> f64 {
        seconds(self.inner.created_us)
    }

    /// When something last happened to it; of an ended instance, when it ended.
    #[getter]
    fn updated_at(&self) -> f64 {
        seconds(self.inner.updated_us)
    }

    /// When it ended, if it did.
    #[getter]
    fn ended_at(&self) -> Option<f64> {
        let ended = self.inner.status.is_terminal();
        ended.then(|| seconds(self.inner.updated_us))
    }

    /// When it may begin, if it was submitted for later.
    #[getter]
    fn start_at(&self) -> Option<f64> {
        self.inner.start_at_us.map(seconds)
    }

    /// When it goes on by itself, if it is parked.
    #[getter]
    fn wake_at(&self) -> Option<f64> {
        self.inner.wake_at_us.map(seconds)
    }

    /// The delay that it is in.
    #[getter]
    fn delay_id(&self) -> Option<&str> {
        self.inner.delay_id.as_deref()
    }

    /// The node of the wait that it is in.
    #[getter]
    fn signal_id(&self) -> Option<&str> {
        self.inner.signal_id.as_deref()
    }

    /// The event that this wait is for.
    #[getter]
    fn signal_name(&self) -> Option<&str> {
        self.inner.signal_name.as_deref()
    }

    /// Names of the events that it waits for.
    #[getter]
    fn awaits<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.inner.awaits.iter().map(|name| &**name))
    }

    /// A cancel or a pause, pending or in effect.
    #[getter]
    fn asked<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let asked = self.inner.asked.as_ref();
        asked.map(|asked| parts::request(py, asked)).transpose()
    }

    /// What the next step needs of a worker.
    #[getter]
    fn tags<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, tags_to_py(&self.inner.needs.0))
    }

    /// From 1, first, to 5.
    #[getter]
    fn priority(&self) -> u8 {
        self.inner.needs.1
    }

    /// The position of its first strand; `None` before the first checkpoint and after the end.
    #[getter]
    fn cursor<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        to_py(py, self.inner.stored.cursor.as_ref())
    }

    /// The positions of its other strands, by their numbers.
    #[getter]
    fn cells<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let cells = self.inner.stored.cells.iter();
        PyTuple::new(
            py,
            cells.map(|(strand, cell)| (*strand, PyBytes::new(py, cell))),
        )
    }

    /// The number that the next step gets.
    #[getter]
    fn next_seq(&self) -> u32 {
        self.inner.stored.next_seq
    }

    /// The number that the next strand gets.
    #[getter]
    fn next_strand(&self) -> u32 {
        self.inner.stored.next_strand
    }

    /// The lowest number of a strand that is still needed.
    #[getter]
    fn cells_from(&self) -> Option<u32> {
        (self.inner.cells_from != NO_CELLS).then_some(self.inner.cells_from)
    }

    /// The sealed input.
    #[getter]
    fn input<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.input)
    }

    /// The output of a completed instance, the error record of a failed one.
    #[getter]
    fn result<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        to_py(py, self.inner.result.as_ref())
    }

    /// The history.
    #[getter]
    fn steps<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let made = self.steps.get_or_try_init(py, || {
            let rows = self.inner.steps.iter();
            let steps: PyResult<Vec<_>> = rows
                .map(|row| Bound::new(py, SnapshotStep::of(row)))
                .collect();
            PyTuple::new(py, steps?).map(Bound::unbind)
        })?;
        Ok(made.bind(py).clone())
    }

    /// Events that wait, and keys that are known.
    #[getter]
    fn events<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let events: PyResult<Vec<_>> = self
            .inner
            .events
            .iter()
            .map(|event| parts::event(py, event))
            .collect();
        PyTuple::new(py, events?)
    }
}

/// The instance in the bytes that `WorkflowClient.export` gave.
#[pyfunction]
pub fn decode_snapshot(py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<Snapshot> {
    let Ok(bytes) = data.cast::<PyBytes>() else {
        return Err(wrong_kind("data must be bytes", data));
    };
    let found = read(bytes.as_bytes()).map_err(|e| error::core(py, &e))?;
    Ok(found.into())
}

/// The bytes that `WorkflowClient.import_` takes.
#[pyfunction]
pub fn encode_snapshot<'py>(
    py: Python<'py>,
    snapshot: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyBytes>> {
    match snapshot.cast::<Snapshot>() {
        Ok(snapshot) => Ok(PyBytes::new(py, &snapshot.get().inner.written())),
        Err(_) => Err(wrong_kind("snapshot must be a Snapshot", snapshot)),
    }
}

fn wrong_kind(what: &str, given: &Bound<'_, PyAny>) -> PyErr {
    let name = given.get_type().name();
    let name = name.map_or_else(|_| "something else".to_owned(), |name| name.to_string());
    PyTypeError::new_err(format!("{what}, got {name}"))
}

/// Whether a store may take these bytes in under this id; raises what is wrong.
#[pyfunction]
pub fn check_snapshot(py: Python<'_>, data: &[u8], instance_id: &str) -> PyResult<()> {
    read_for(py, data, instance_id).map(drop)
}

fn is_completed(snapshot: &snapshot::Snapshot) -> bool {
    snapshot.status == Status::Completed
}
