//! Payloads of an instance that is moved: plain in a snapshot, in the backend's own form in a store.
//!
//! Error records are kept as they are wherever they are.

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use sayiir_core::Bytes;
use sayiir_core::snapshot::Snapshot;

use super::{is_completed, read};

use crate::at_rest::{self, AtRest, Place, Refusal, Role};
use crate::error;

/// Puts what `change` gives, if it gives something, in the place of each payload; whether it ever did.
fn each_payload(
    snapshot: &mut Snapshot,
    mut change: impl FnMut(&Bytes, Role, &str) -> PyResult<Option<Bytes>>,
) -> PyResult<bool> {
    let mut changed = false;
    let mut put = |bytes: &mut Bytes, role, name: &str| -> PyResult<()> {
        if let Some(other) = change(bytes, role, name)? {
            *bytes = other;
            changed = true;
        }
        Ok(())
    };
    put(&mut snapshot.input, Role::Input, "")?;
    if is_completed(snapshot)
        && let Some(result) = &mut snapshot.result
    {
        put(result, Role::Output, "")?;
    }
    for row in &mut snapshot.steps {
        if let Some(output) = &mut row.step.output {
            put(output, Role::Step, &row.step.path)?;
        }
    }
    for event in &mut snapshot.events {
        if let Some(payload) = &mut event.payload {
            put(payload, Role::Event, &event.name)?;
        }
    }
    Ok(changed)
}

/// Makes the payloads plain; whether any was not.
fn make_plain(py: Python<'_>, codec: Option<&AtRest>, snapshot: &mut Snapshot) -> PyResult<bool> {
    let owner = std::sync::Arc::clone(&snapshot.id);
    each_payload(snapshot, |bytes, role, name| {
        let place = Place {
            id: &owner,
            role,
            name,
        };
        at_rest::open(py, codec, bytes, &place).map_err(|refusal| match refusal {
            Refusal::Unprepared(failure) => failure,
            Refusal::Damaged(reason) => error::decode_text(py, reason),
        })
    })
}

/// A snapshot with plain payloads, of one with payloads as a backend keeps them.
#[pyfunction]
pub fn opened_snapshot<'py>(
    py: Python<'py>,
    codec: Option<&AtRest>,
    stored: &Bound<'py, PyBytes>,
) -> PyResult<Bound<'py, PyBytes>> {
    let mut found = read(stored.as_bytes()).map_err(|e| error::core(py, &e))?;
    if make_plain(py, codec, &mut found)? {
        Ok(PyBytes::new(py, &found.written()))
    } else {
        Ok(stored.clone())
    }
}

/// The id that an instance is to have, and its snapshot with payloads as the backend keeps them.
#[pyfunction]
#[pyo3(signature = (codec, data, new_id))]
pub fn stored_snapshot<'py>(
    py: Python<'py>,
    codec: Option<&AtRest>,
    data: &Bound<'py, PyBytes>,
    new_id: Option<&str>,
) -> PyResult<(String, Bound<'py, PyBytes>)> {
    let mut found = read(data.as_bytes()).map_err(|e| error::core(py, &e))?;
    let instance_id = new_id.unwrap_or(&found.id).to_owned();
    let mut changed = make_plain(py, codec, &mut found)?;
    if let Some(codec) = codec {
        let key = codec.current(py)?;
        changed |= each_payload(&mut found, |bytes, role, name| {
            let place = Place {
                id: &instance_id,
                role,
                name,
            };
            codec.seal(py, key.as_deref(), bytes, &place).map(Some)
        })?;
    }
    let stored = if changed {
        PyBytes::new(py, &found.written())
    } else {
        data.clone()
    };
    Ok((instance_id, stored))
}
