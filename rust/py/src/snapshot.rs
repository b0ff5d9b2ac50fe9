//! Snapshots of instances on their way to and from Python: as the fields of `sayiir.codec.Snapshot`.
//!
//! What a store is given was read by the core, and its position was held against its definition.
//! Texts that explain a stored thing to a person are made here too, for `sayiir.codec.inspect`.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use sayiir_core::advance::Stored;
use sayiir_core::definition::Definition;
use sayiir_core::snapshot::{Asked, KeptEvent, Snapshot};
use sayiir_core::state::{Cell, HistoryRow, NO_CELLS, Phase, Status};
use sayiir_core::{Error, id, policy, wire};

use crate::error::{self, seconds, us};
use crate::record::{StepRow, tags_to_py, to_py};

/// The snapshot in these bytes, under this id, with a position that fits its definition.
pub fn read_for(py: Python<'_>, data: &[u8], instance_id: &str) -> PyResult<Snapshot> {
    let refuse = |e: Error| error::core(py, &e);
    id::check_name("instance_id", instance_id).map_err(refuse)?;
    let mut snapshot = Snapshot::decode(data).map_err(refuse)?;
    snapshot.check_position().map_err(refuse)?;
    snapshot.id = instance_id.into();
    Ok(snapshot)
}

/// `(cancel, pending, resume, reason, by)`.
type AskedFields = (bool, bool, String, Option<String>, Option<String>);
/// `(name, key, came at, payload)`.
type EventIn = (String, Option<String>, f64, Option<Vec<u8>>);
type EventOut<'py> = (String, Option<String>, f64, Option<Bound<'py, PyBytes>>);
type CellOut<'py> = (u32, Bound<'py, PyBytes>);

/// A snapshot by the names of its fields.
#[derive(IntoPyObject)]
pub struct Fields<'py> {
    instance_id: String,
    workflow_id: String,
    definition_hash: String,
    definition: Bound<'py, PyBytes>,
    status: &'static str,
    created_at: f64,
    updated_at: f64,
    start_at: Option<f64>,
    wake_at: Option<f64>,
    delay_id: Option<String>,
    signal_id: Option<String>,
    signal_name: Option<String>,
    awaits: Vec<String>,
    asked: Option<AskedFields>,
    tags: Vec<String>,
    priority: u8,
    cursor: Option<Bound<'py, PyBytes>>,
    cells: Vec<CellOut<'py>>,
    next_seq: u32,
    next_strand: u32,
    cells_from: Option<u32>,
    input: Bound<'py, PyBytes>,
    result: Option<Bound<'py, PyBytes>>,
    steps: Vec<(StepRow, String)>,
    events: Vec<EventOut<'py>>,
}

fn own(text: Option<&Arc<str>>) -> Option<String> {
    text.map(|text| text.to_string())
}

fn fields(py: Python<'_>, snapshot: Snapshot) -> Fields<'_> {
    let Snapshot { stored, .. } = snapshot;
    Fields {
        instance_id: snapshot.id.to_string(),
        workflow_id: snapshot.definition.name.to_string(),
        definition_hash: snapshot.definition.hash_hex(),
        definition: PyBytes::new(py, &snapshot.tree),
        status: snapshot.status.word(),
        created_at: seconds(snapshot.created_us),
        updated_at: seconds(snapshot.updated_us),
        start_at: snapshot.start_at_us.map(seconds),
        wake_at: snapshot.wake_at_us.map(seconds),
        delay_id: own(snapshot.delay_id.as_ref()),
        signal_id: own(snapshot.signal_id.as_ref()),
        signal_name: own(snapshot.signal_name.as_ref()),
        awaits: snapshot
            .awaits
            .iter()
            .map(|name| name.to_string())
            .collect(),
        asked: snapshot.asked.map(|asked| {
            let resume = asked.resume.word().to_owned();
            let (reason, by) = (own(asked.reason.as_ref()), own(asked.by.as_ref()));
            (asked.cancel, asked.pending, resume, reason, by)
        }),
        tags: tags_to_py(&snapshot.needs.0),
        priority: snapshot.needs.1,
        cursor: to_py(py, stored.cursor.as_ref()),
        cells: stored
            .cells
            .iter()
            .map(|(strand, cell)| (*strand, PyBytes::new(py, cell)))
            .collect(),
        next_seq: stored.next_seq,
        next_strand: stored.next_strand,
        cells_from: (snapshot.cells_from != NO_CELLS).then_some(snapshot.cells_from),
        input: PyBytes::new(py, &snapshot.input),
        result: to_py(py, snapshot.result.as_ref()),
        steps: snapshot
            .steps
            .into_iter()
            .map(|row| (row.step.into(), row.worker.to_string()))
            .collect(),
        events: snapshot
            .events
            .iter()
            .map(|event| {
                (
                    event.name.to_string(),
                    own(event.key.as_ref()),
                    seconds(event.came_us),
                    to_py(py, event.payload.as_ref()),
                )
            })
            .collect(),
    }
}

/// The fields of a sealed snapshot.
#[pyfunction]
pub fn decode_snapshot<'py>(py: Python<'py>, data: &Bound<'py, PyBytes>) -> PyResult<Fields<'py>> {
    let snapshot = Snapshot::decode(data.as_bytes()).map_err(|e| error::core(py, &e))?;
    Ok(fields(py, snapshot))
}

/// Whether a store may take these bytes in under this id; raises what is wrong.
#[pyfunction]
pub fn check_snapshot(py: Python<'_>, data: &[u8], instance_id: &str) -> PyResult<()> {
    read_for(py, data, instance_id).map(drop)
}

fn shared(text: Option<String>) -> Option<Arc<str>> {
    text.map(Into::into)
}

fn status_of(py: Python<'_>, word: &str) -> PyResult<Status> {
    Status::from_word(word)
        .ok_or_else(|| error::core(py, &Error::invalid(format!("unknown status {word:?}"))))
}

/// A sealed snapshot from its fields, as a store may hold it; what cannot be read back is refused.
#[pyfunction]
#[pyo3(signature = (*, instance_id, definition, status, created_at, updated_at, start_at, wake_at, delay_id,
                    signal_id, signal_name, awaits, asked, tags, priority, cursor, cells, next_seq, next_strand,
                    cells_from, input, result, steps, events))]
#[allow(clippy::too_many_arguments)]
pub fn encode_snapshot<'py>(
    py: Python<'py>,
    instance_id: String,
    definition: Vec<u8>,
    status: &str,
    created_at: f64,
    updated_at: f64,
    start_at: Option<f64>,
    wake_at: Option<f64>,
    delay_id: Option<String>,
    signal_id: Option<String>,
    signal_name: Option<String>,
    awaits: Vec<String>,
    asked: Option<AskedFields>,
    tags: Vec<String>,
    priority: u8,
    cursor: Option<Vec<u8>>,
    cells: Vec<(u32, Vec<u8>)>,
    next_seq: u32,
    next_strand: u32,
    cells_from: Option<u32>,
    input: Vec<u8>,
    result: Option<Vec<u8>>,
    steps: Vec<(Py<StepRow>, String)>,
    events: Vec<EventIn>,
) -> PyResult<Bound<'py, PyBytes>> {
    let refuse = |e: Error| error::core(py, &e);
    let tree: sayiir_core::Bytes = definition.into();
    let asked = match asked {
        None => None,
        Some((cancel, pending, resume, reason, by)) => Some(Asked {
            cancel,
            pending,
            resume: status_of(py, &resume)?,
            reason: shared(reason),
            by: shared(by),
        }),
    };
    let snapshot = Snapshot {
        id: instance_id.into(),
        definition: Arc::new(wire::decode_definition(&tree).map_err(refuse)?),
        tree,
        status: status_of(py, status)?,
        created_us: us(created_at),
        updated_us: us(updated_at),
        start_at_us: start_at.map(us),
        wake_at_us: wake_at.map(us),
        delay_id: shared(delay_id),
        signal_id: shared(signal_id),
        signal_name: shared(signal_name),
        awaits: awaits.into_iter().map(Into::into).collect(),
        asked,
        needs: (policy::tags("tags", tags).map_err(refuse)?, priority),
        stored: Stored {
            cursor: cursor.map(Into::into),
            cells: cells
                .into_iter()
                .map(|(strand, cell)| (strand, cell.into()))
                .collect(),
            next_seq,
            next_strand,
        },
        cells_from: cells_from.unwrap_or(NO_CELLS),
        input: input.into(),
        result: result.map(Into::into),
        steps: steps
            .into_iter()
            .map(|(row, worker)| HistoryRow {
                step: row.get().inner.clone(),
                worker: worker.into(),
            })
            .collect(),
        events: events
            .into_iter()
            .map(|(name, key, came_at, payload)| KeptEvent {
                name: name.into(),
                key: shared(key),
                came_us: us(came_at),
                payload: payload.map(Into::into),
            })
            .collect(),
    };
    let sealed = snapshot.encode();
    Snapshot::decode(&sealed).map_err(refuse)?;
    Ok(PyBytes::new(py, &sealed))
}

/// What a position says, for people.
#[pyfunction]
pub fn explain_cell(py: Python<'_>, data: &[u8]) -> PyResult<String> {
    let cell = Cell::decode(data).map_err(|e| error::core(py, &e))?;
    let doing = match cell.phase {
        Phase::Ready => "ready".to_owned(),
        Phase::Backoff { .. } => "waits for its next attempt".to_owned(),
        Phase::Sleeping { .. } => "in a delay".to_owned(),
        Phase::Awaiting { .. } => "awaits an event".to_owned(),
        Phase::Joining { count, .. } => format!("parked on {count} strands"),
        Phase::Spread { made, count, .. } => {
            format!("at a spread map, {made} of {count} items made")
        }
        Phase::Done => "ended with a value".to_owned(),
        Phase::Failed(row) => format!("ended with the failure of step {row}"),
    };
    let place: Vec<String> = cell
        .frames
        .iter()
        .map(|frame| frame.at.to_string())
        .collect();
    Ok(format!("{doing}, at node {}", place.join(" / ")))
}

/// Name, hash, `(path, kind)` of each node, and whether it is a definition of items.
type DefinitionFields = (String, String, Vec<(String, &'static str)>, bool);

/// The name, the hash and the nodes (path and kind) of a definition, and whether it is one of items.
#[pyfunction]
pub fn explain_definition(py: Python<'_>, data: &[u8]) -> PyResult<DefinitionFields> {
    let def: Definition = wire::decode_definition(data).map_err(|e| error::core(py, &e))?;
    let nodes = def
        .listing()
        .into_iter()
        .map(|listed| (listed.path, def.node(listed.node).kind.word()))
        .collect();
    Ok((def.name.to_string(), def.hash_hex(), nodes, def.item))
}
