//! What stored positions and definitions say, for `sayiir.codec.inspect` and the command line.

use pyo3::prelude::*;
use sayiir_core::definition::Definition;
use sayiir_core::state::{Cell, Phase};
use sayiir_core::wire;

use crate::error;

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
