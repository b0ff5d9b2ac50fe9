//! The binding: `sayiir._core`.
//!
//! Thin glue between Python and the pure crates. Calls are short; values are walked in place; no
//! lock of ours is held while Python code may run, and no panic leaves this crate (PyO3 turns one
//! into an exception, and the lints forbid the usual ways to cause one).

#![forbid(unsafe_code)]

mod at_rest;
mod definition;
mod error;
mod explain;
mod payload;
mod record;
mod rows;
mod run;
mod snapshot;
mod storage;
mod store;
mod value;

use pyo3::prelude::*;

/// `sayiir._core`
#[pymodule(gil_used = false)]
fn _core(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<definition::Program>()?;
    m.add_class::<at_rest::AtRest>()?;
    m.add_function(wrap_pyfunction!(at_rest::decode_stored, m)?)?;
    m.add_class::<record::Claim>()?;
    m.add_class::<record::Claimant>()?;
    m.add_class::<record::Batch>()?;
    m.add_class::<record::Commit>()?;
    m.add_class::<record::StepRow>()?;
    m.add_class::<run::Run>()?;
    m.add_class::<snapshot::Snapshot>()?;
    m.add_class::<snapshot::SnapshotStep>()?;
    m.add_class::<run::Step>()?;
    m.add_class::<run::Turn>()?;
    m.add_class::<store::MemoryStore>()?;
    m.add_class::<store::Keeper>()?;
    m.add_class::<storage::Port>()?;
    m.add_class::<storage::Storage>()?;
    m.add_function(wrap_pyfunction!(storage::fail_points, m)?)?;
    m.add_function(wrap_pyfunction!(storage::postgres_migrations, m)?)?;
    m.add_function(wrap_pyfunction!(storage::postgres_statements, m)?)?;
    m.add_function(wrap_pyfunction!(payload::encode_value, m)?)?;
    m.add_function(wrap_pyfunction!(payload::decode_value, m)?)?;
    m.add_function(wrap_pyfunction!(payload::encode_payload, m)?)?;
    m.add_function(wrap_pyfunction!(payload::decode_payload, m)?)?;
    m.add_function(wrap_pyfunction!(payload::decode_error_record, m)?)?;
    m.add_function(wrap_pyfunction!(snapshot::encode_snapshot, m)?)?;
    m.add_function(wrap_pyfunction!(snapshot::decode_snapshot, m)?)?;
    m.add_function(wrap_pyfunction!(snapshot::check_snapshot, m)?)?;
    m.add_function(wrap_pyfunction!(snapshot::opened_snapshot, m)?)?;
    m.add_function(wrap_pyfunction!(snapshot::stored_snapshot, m)?)?;
    m.add_function(wrap_pyfunction!(explain::explain_cell, m)?)?;
    m.add_function(wrap_pyfunction!(explain::explain_definition, m)?)?;
    m.add_function(wrap_pyfunction!(payload::register_values, m)?)?;
    m.add_function(wrap_pyfunction!(payload::register_plain_form, m)?)?;
    m.add_function(wrap_pyfunction!(payload::check_name, m)?)?;
    m.add("MAX_VALUE_DEPTH", value::MAX_DEPTH)?;
    m.add("MAX_PAYLOAD_BYTES", value::MAX_PAYLOAD_BYTES)?;
    m.add("MAX_FAN_OUT", sayiir_core::definition::MAX_FAN_OUT)?;
    m.add("AGEING_SECONDS", sayiir_store::AGEING_US as f64 / 1e6)?;
    m.add("__version__", env!("CARGO_PKG_VERSION"))?;
    Ok(())
}
