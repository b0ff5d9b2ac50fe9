//! The records that cross the storage contract: what a worker is, what it claims, what it writes.
//!
//! They are plain frozen data with attributes. A backend written in Python keeps them and hands them
//! back; it never needs to look inside `cursor` and `cells`.

use std::collections::HashMap;
use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use sayiir_core::advance::{Machine, Stored};
use sayiir_core::policy::{self, Tags};
use sayiir_core::state::{self, Next, Outcome};
use sayiir_core::{Bytes, id};
use sayiir_store::{self as contract, Hash};

use crate::definition::Program;
use crate::error;

/// Python bytes or none from shared bytes or none.
pub fn to_py<'py>(py: Python<'py>, bytes: Option<&Bytes>) -> Option<Bound<'py, PyBytes>> {
    bytes.map(|bytes| PyBytes::new(py, bytes))
}

/// Tags as Python has them.
pub fn tags_to_py(tags: &Tags) -> Vec<String> {
    tags.iter().map(|tag| tag.to_string()).collect()
}

/// Who claims: a worker's id, its tags, the programs it has, the length of its leases.
#[pyclass(frozen, module = "sayiir._core")]
#[derive(Debug)]
pub struct Claimant {
    pub inner: contract::Claimant,
    pub programs: HashMap<Hash, Py<Program>>,
    pub hashes: Arc<[Hash]>,
    pub width: u32,
}

#[pymethods]
impl Claimant {
    #[new]
    #[pyo3(signature = (worker_id, programs, *, tags=None, lease_ttl=30.0, width=64))]
    fn new(
        py: Python<'_>,
        worker_id: &str,
        programs: Vec<Py<Program>>,
        tags: Option<Vec<String>>,
        lease_ttl: f64,
        width: u32,
    ) -> PyResult<Self> {
        let refuse = |e: sayiir_core::Error| error::core(py, &e);
        id::check_name("worker_id", worker_id).map_err(refuse)?;
        let tags = tags.filter(|tags| !tags.is_empty());
        let inner = contract::Claimant {
            worker: worker_id.into(),
            tags: tags
                .map(|tags| policy::tags("tags", tags))
                .transpose()
                .map_err(refuse)?,
            lease_us: policy::duration_us("lease_ttl", lease_ttl, false).map_err(refuse)?,
        };
        if width == 0 {
            return Err(PyValueError::new_err("width must be 1 or more, got 0"));
        }
        let mut given = programs;
        let mut programs: HashMap<Hash, Py<Program>> = HashMap::new();
        // Whoever has a workflow can also do the items of its spread maps.
        while let Some(program) = given.pop() {
            given.extend(program.get().items.iter().map(|items| items.clone_ref(py)));
            programs.insert(*program.get().def.hash(), program);
        }
        let hashes = programs.keys().copied().collect();
        Ok(Self {
            inner,
            programs,
            hashes,
            width,
        })
    }

    #[getter]
    fn worker_id(&self) -> &str {
        &self.inner.worker
    }

    #[getter]
    fn tags(&self) -> Option<Vec<String>> {
        self.inner.tags.as_ref().map(tags_to_py)
    }

    #[getter]
    fn lease_ttl(&self) -> f64 {
        error::seconds(self.inner.lease_us)
    }

    #[getter]
    fn definition_hashes(&self) -> Vec<String> {
        self.hashes.iter().map(|hash| error::hex(hash)).collect()
    }

    /// Whether it may run a step that needs these tags.
    fn covers(&self, py: Python<'_>, tags: Vec<String>) -> PyResult<bool> {
        let needed = policy::tags("tags", tags).map_err(|e| error::core(py, &e))?;
        Ok(policy::covers(self.inner.tags.as_ref(), &needed))
    }
}

/// A claimed instance as a backend hands it out.
#[pyclass(frozen, module = "sayiir._core")]
#[derive(Debug)]
pub struct Claim {
    pub inner: contract::Claim,
}

#[pymethods]
impl Claim {
    #[new]
    #[pyo3(signature = (instance_id, fence, definition_hash, *, cursor=None, cells=Vec::new(), next_seq=0,
                        next_strand=1, tags=Vec::new(), priority=3))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        instance_id: &str,
        fence: u64,
        definition_hash: &str,
        cursor: Option<Vec<u8>>,
        cells: Vec<(u32, Vec<u8>)>,
        next_seq: u32,
        next_strand: u32,
        tags: Vec<String>,
        priority: u8,
    ) -> PyResult<Self> {
        let tags = policy::tags("tags", tags).map_err(|e| error::core(py, &e))?;
        Ok(Self {
            inner: contract::Claim {
                id: instance_id.into(),
                slot: 0,
                fence,
                hash: error::unhex(definition_hash)?,
                stored: Stored {
                    cursor: cursor.map(Into::into),
                    cells: cells
                        .into_iter()
                        .map(|(strand, bytes)| (strand, bytes.into()))
                        .collect(),
                    next_seq,
                    next_strand,
                },
                needs: (tags, priority),
                carried: None,
                damage: None,
            },
        })
    }

    #[getter]
    fn instance_id(&self) -> &str {
        &self.inner.id
    }

    #[getter]
    fn fence(&self) -> u64 {
        self.inner.fence
    }

    #[getter]
    fn definition_hash(&self) -> String {
        error::hex(&self.inner.hash)
    }

    #[getter]
    fn cursor<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        to_py(py, self.inner.stored.cursor.as_ref())
    }

    #[getter]
    fn cells<'py>(&self, py: Python<'py>) -> Vec<(u32, Bound<'py, PyBytes>)> {
        self.inner
            .stored
            .cells
            .iter()
            .map(|(strand, bytes)| (*strand, PyBytes::new(py, bytes)))
            .collect()
    }

    #[getter]
    fn next_seq(&self) -> u32 {
        self.inner.stored.next_seq
    }

    #[getter]
    fn next_strand(&self) -> u32 {
        self.inner.stored.next_strand
    }

    #[getter]
    fn tags(&self) -> Vec<String> {
        tags_to_py(&self.inner.needs.0)
    }

    #[getter]
    fn priority(&self) -> u8 {
        self.inner.needs.1
    }

    /// Whether it brought along what its holder needs, so that nothing has to be looked up.
    #[getter]
    fn complete(&self) -> bool {
        self.inner.carried.is_some()
    }

    /// Why what is stored of it cannot be trusted, if so; `set_aside` then.
    #[getter]
    fn damage(&self) -> Option<&str> {
        self.inner.damage.as_deref()
    }

    /// The commit that ends a damaged instance as failed, with this reason.
    fn set_aside(&self, reason: &str) -> Commit {
        let reason = sayiir_core::Error::format(reason);
        Commit {
            slot: self.inner.slot,
            id: Arc::clone(&self.inner.id),
            fence: self.inner.fence,
            inner: Arc::new(Machine::set_aside(&self.inner.stored, &reason)),
        }
    }

    /// Numbers of the step rows whose outputs the holder needs before it goes on.
    fn referenced(&self) -> Vec<u32> {
        // Damaged cells are met, and reported, when the instance is taken up.
        Machine::referenced(&self.inner.stored).unwrap_or_default()
    }

    fn __repr__(&self) -> String {
        format!("<Claim {:?} fence {}>", self.inner.id, self.inner.fence)
    }
}

/// The outcome that this word is for.
pub fn outcome_of(word: &str) -> PyResult<Outcome> {
    [
        Outcome::Completed,
        Outcome::Retried,
        Outcome::Failed,
        Outcome::Elapsed,
    ]
    .into_iter()
    .find(|known| known.word() == word)
    .ok_or_else(|| PyValueError::new_err(format!("unknown outcome {word:?}")))
}

/// One line of an instance's history.
#[pyclass(frozen, subclass, module = "sayiir._core")]
#[derive(Debug, Clone)]
pub struct StepRow {
    pub inner: state::StepRow,
}

impl From<state::StepRow> for StepRow {
    fn from(inner: state::StepRow) -> Self {
        Self { inner }
    }
}

#[pymethods]
impl StepRow {
    #[new]
    #[pyo3(signature = (seq, path, name, attempt, outcome, *, output=None, error=None, started_at, ended_at))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        seq: u32,
        path: &str,
        name: &str,
        attempt: u32,
        outcome: &str,
        output: Option<Vec<u8>>,
        error: Option<Vec<u8>>,
        started_at: f64,
        ended_at: f64,
    ) -> PyResult<Self> {
        Ok(Self {
            inner: state::StepRow {
                seq,
                path: path.into(),
                name: name.into(),
                attempt,
                outcome: outcome_of(outcome)?,
                output: output.map(Into::into),
                error: error.map(Into::into),
                started_us: error::us(started_at),
                ended_us: error::us(ended_at),
            },
        })
    }

    #[getter]
    fn seq(&self) -> u32 {
        self.inner.seq
    }

    #[getter]
    fn path(&self) -> &str {
        &self.inner.path
    }

    #[getter]
    fn name(&self) -> &str {
        &self.inner.name
    }

    #[getter]
    fn attempt(&self) -> u32 {
        self.inner.attempt
    }

    #[getter]
    fn outcome(&self) -> &'static str {
        self.inner.outcome.word()
    }

    #[getter]
    fn output<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        to_py(py, self.inner.output.as_ref())
    }

    #[getter]
    fn error<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        to_py(py, self.inner.error.as_ref())
    }

    #[getter]
    fn started_at(&self) -> f64 {
        error::seconds(self.inner.started_us)
    }

    #[getter]
    fn ended_at(&self) -> f64 {
        error::seconds(self.inner.ended_us)
    }

    fn __repr__(&self) -> String {
        format!(
            "<StepRow {} {:?} {}>",
            self.inner.seq,
            self.inner.path,
            self.inner.outcome.word()
        )
    }
}

/// One checkpoint, to be applied atomically and only under a valid fence.
#[pyclass(frozen, module = "sayiir._core")]
#[derive(Debug)]
pub struct Commit {
    pub slot: u64,
    pub id: Arc<str>,
    pub fence: u64,
    pub inner: Arc<state::Commit>,
}

/// New items of a spread map, as a commit brings them.
#[pyclass(frozen, module = "sayiir._core")]
#[derive(Debug)]
pub struct Batch {
    inner: state::Batch,
    parent: Arc<str>,
    fence: u64,
}

#[pymethods]
impl Batch {
    /// Which use of which map: a number, unique within the parent.
    #[getter]
    fn group(&self) -> u32 {
        self.inner.group
    }

    /// Index of the first item.
    #[getter]
    fn first(&self) -> u32 {
        self.inner.first
    }

    /// How many items the group has in all.
    #[getter]
    fn count(&self) -> u32 {
        self.inner.count
    }

    #[getter]
    fn fail_fast(&self) -> bool {
        self.inner.fail_fast
    }

    #[getter]
    fn workflow(&self) -> &str {
        &self.inner.items.name
    }

    #[getter]
    fn definition_hash(&self) -> String {
        self.inner.items.hash_hex()
    }

    /// Tags and priority of what an item does first.
    #[getter]
    fn entry(&self) -> (Vec<String>, u8) {
        let (tags, priority) = self.inner.items.entry();
        (tags_to_py(&tags), priority)
    }

    /// `(instance id, sealed input)` of each item.
    #[getter]
    fn items<'py>(&self, py: Python<'py>) -> Vec<(String, Bound<'py, PyBytes>)> {
        let Self {
            inner,
            parent,
            fence,
        } = self;
        (inner.first..)
            .zip(&inner.inputs)
            .map(|(index, input)| {
                let id = contract::item_id(parent, *fence, inner.group, index);
                (id.to_string(), PyBytes::new(py, input))
            })
            .collect()
    }
}

/// The word for the end of an item, and the sealed output or error record.
pub type EndFields<'py> = (&'static str, Option<Bound<'py, PyBytes>>);

/// How an item ended, as Python has it.
pub fn end_to_py<'py>(py: Python<'py>, end: &state::ItemEnd) -> EndFields<'py> {
    match end {
        state::ItemEnd::Completed(output) => ("completed", Some(PyBytes::new(py, output))),
        state::ItemEnd::Failed(error) => ("failed", Some(PyBytes::new(py, error))),
        state::ItemEnd::Cancelled => ("cancelled", None),
        state::ItemEnd::Unended => ("unended", None),
    }
}

/// How an item ended, from Python.
pub fn end_of(word: &str, bytes: Option<Vec<u8>>) -> PyResult<state::ItemEnd> {
    match (word, bytes) {
        ("completed", Some(output)) => Ok(state::ItemEnd::Completed(output.into())),
        ("failed", Some(error)) => Ok(state::ItemEnd::Failed(error.into())),
        ("cancelled", _) => Ok(state::ItemEnd::Cancelled),
        ("unended", _) => Ok(state::ItemEnd::Unended),
        (other, _) => Err(PyValueError::new_err(format!(
            "an item cannot have ended as {other:?}, or it lacks its bytes"
        ))),
    }
}

impl Commit {
    fn parked(&self) -> Option<&state::Parked> {
        match &self.inner.next {
            Next::Park(parked) => Some(parked),
            _ => None,
        }
    }
}

#[pymethods]
impl Commit {
    #[getter]
    fn instance_id(&self) -> &str {
        &self.id
    }

    #[getter]
    fn fence(&self) -> u64 {
        self.fence
    }

    #[getter]
    fn steps(&self) -> Vec<StepRow> {
        self.inner.steps.iter().cloned().map(Into::into).collect()
    }

    #[getter]
    fn cursor<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.inner
            .cursor
            .as_ref()
            .map(|cursor| PyBytes::new(py, cursor))
    }

    #[getter]
    fn cells<'py>(&self, py: Python<'py>) -> Vec<(u32, Bound<'py, PyBytes>)> {
        self.inner
            .cells
            .iter()
            .map(|(strand, bytes)| (*strand, PyBytes::new(py, bytes)))
            .collect()
    }

    #[getter]
    fn next_seq(&self) -> u32 {
        self.inner.next_seq
    }

    #[getter]
    fn next_strand(&self) -> u32 {
        self.inner.next_strand
    }

    #[getter]
    fn cells_from(&self) -> u32 {
        self.inner.cells_from
    }

    #[getter]
    fn consumed(&self) -> Vec<u64> {
        self.inner.consumed.clone()
    }

    /// `(tags, priority)` of what runs next, when they changed.
    #[getter]
    fn needs(&self) -> Option<(Vec<String>, u8)> {
        self.inner
            .needs
            .as_ref()
            .map(|(tags, priority)| (tags_to_py(tags), *priority))
    }

    #[getter]
    fn quiescent(&self) -> bool {
        self.inner.quiescent
    }

    /// `hold`, `park`, `hand_over`, `completed` or `failed`.
    #[getter]
    fn next(&self) -> &'static str {
        match self.inner.next {
            Next::Hold => "hold",
            Next::Park(_) => "park",
            Next::HandOver => "hand_over",
            Next::Completed(_) => "completed",
            Next::Failed(_) => "failed",
        }
    }

    /// The output of a completed instance, the error record of a failed one.
    #[getter]
    fn result<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        match &self.inner.next {
            Next::Completed(bytes) | Next::Failed(bytes) => Some(PyBytes::new(py, bytes)),
            _ => None,
        }
    }

    /// Whether the instance is an item of a spread map.
    #[getter]
    fn item(&self) -> bool {
        self.inner.item
    }

    /// New items of a spread map of its own, if any.
    #[getter]
    fn batch(&self) -> Option<Batch> {
        let batch = self.inner.family.as_ref()?.batch.as_ref()?;
        Some(Batch {
            inner: batch.clone(),
            parent: Arc::clone(&self.id),
            fence: self.fence,
        })
    }

    /// Groups of items that nobody awaits any more; `None` stands for all there are.
    #[getter]
    fn over(&self) -> Option<Vec<u32>> {
        let over = self.inner.family.as_ref().map(|family| &family.over);
        if over.is_some_and(|over| over.contains(&state::EVERY_GROUP)) {
            return None;
        }
        Some(over.cloned().unwrap_or_default())
    }

    /// For `park`: whether an event from outside is awaited, else only time or items.
    #[getter]
    fn awaiting(&self) -> bool {
        self.parked().is_some_and(|parked| parked.awaiting)
    }

    /// For `park`: when it wakes by itself.
    #[getter]
    fn wake_at(&self) -> Option<f64> {
        self.parked()
            .and_then(|parked| parked.wake_at_us)
            .map(error::seconds)
    }

    /// For `park`: names of awaited events, one for each waiting strand.
    #[getter]
    fn awaits(&self) -> Vec<String> {
        self.parked()
            .map(|parked| parked.awaits.iter().map(|name| name.to_string()).collect())
            .unwrap_or_default()
    }

    #[getter]
    fn delay_id(&self) -> Option<&str> {
        self.parked().and_then(|parked| parked.delay_id.as_deref())
    }

    #[getter]
    fn signal_id(&self) -> Option<&str> {
        self.parked().and_then(|parked| parked.signal_id.as_deref())
    }

    #[getter]
    fn signal_name(&self) -> Option<&str> {
        self.parked()
            .and_then(|parked| parked.signal_name.as_deref())
    }

    fn __repr__(&self) -> String {
        format!(
            "<Commit {:?} fence {} {}>",
            self.id,
            self.fence,
            self.next()
        )
    }
}
