//! The one table from Rust errors to Python exceptions, and the one from seconds to microseconds.

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;
use sayiir_core::Error;
use sayiir_store::StoreError;

use crate::value::{DecodeFailure, EncodeFailure};

static ERRORS: PyOnceLock<Py<PyModule>> = PyOnceLock::new();

/// An exception of `sayiir._errors` with a message and attributes.
fn exception(py: Python<'_>, class: &str, message: String, attributes: &[(&str, String)]) -> PyErr {
    let build = || -> PyResult<PyErr> {
        let module =
            ERRORS.get_or_try_init(py, || py.import("sayiir._errors").map(Bound::unbind))?;
        let keywords = PyDict::new(py);
        for (name, value) in attributes {
            keywords.set_item(name, value)?;
        }
        let error = module
            .bind(py)
            .getattr(class)?
            .call((message.clone(),), Some(&keywords))?;
        Ok(PyErr::from_value(error))
    };
    build().unwrap_or_else(|failure| {
        PyRuntimeError::new_err(format!(
            "{message} (and its exception could not be made: {failure})"
        ))
    })
}

/// Errors of the core.
pub fn core(py: Python<'_>, error: &Error) -> PyErr {
    match error {
        Error::Invalid(text) => PyValueError::new_err(text.clone()),
        Error::Format(text) | Error::Newer(text) | Error::Missing(text) => {
            exception(py, "SnapshotFormatError", text.clone(), &[])
        }
    }
}

/// Refusals of a store.
pub fn store(py: Python<'_>, error: &StoreError) -> PyErr {
    let text = error.to_string();
    match error {
        StoreError::NotFound { id } => exception(
            py,
            "InstanceNotFoundError",
            text,
            &[("instance_id", id.to_string())],
        ),
        StoreError::AlreadyExists { id, .. } => exception(
            py,
            "InstanceAlreadyExistsError",
            text,
            &[("instance_id", id.to_string())],
        ),
        StoreError::DefinitionMismatch {
            id,
            expected,
            found,
        } => exception(
            py,
            "DefinitionMismatchError",
            text,
            &[
                ("instance_id", id.to_string()),
                ("expected", hex(expected)),
                ("found", hex(found)),
            ],
        ),
        StoreError::InvalidState { id, status, .. } => exception(
            py,
            "InvalidStateError",
            text,
            &[
                ("instance_id", id.to_string()),
                ("state", status.word().to_owned()),
            ],
        ),
        StoreError::Unavailable(_) => exception(py, "BackendUnavailableError", text, &[]),
        StoreError::Format(_) => exception(py, "SnapshotFormatError", text, &[]),
    }
}

/// A value that cannot be encoded, in the caller's words.
pub fn encode_text(py: Python<'_>, text: String) -> PyErr {
    exception(py, "EncodeError", text, &[])
}

/// A value that cannot be encoded.
pub fn encode(py: Python<'_>, failure: &EncodeFailure) -> PyErr {
    exception(py, "EncodeError", failure.to_string(), &[])
}

/// Bytes that cannot be decoded.
pub fn decode(py: Python<'_>, failure: &DecodeFailure) -> PyErr {
    exception(py, "DecodeError", failure.to_string(), &[])
}

/// Envelope bytes that cannot be opened.
pub fn decode_text(py: Python<'_>, text: String) -> PyErr {
    exception(py, "DecodeError", text, &[])
}

/// 64 hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|nibble| char::from(DIGITS[usize::from(nibble)]))
        .collect()
}

/// The 32 bytes behind 64 hexadecimal digits.
pub fn unhex(text: &str) -> PyResult<[u8; 32]> {
    let bad = || PyValueError::new_err("a definition hash is 64 hexadecimal digits");
    if text.len() != 64 || !text.is_ascii() {
        return Err(bad());
    }
    let mut out = [0u8; 32];
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| bad())?;
    }
    Ok(out)
}

/// Seconds since the epoch, as Python has them, in µs.
pub fn us(seconds: f64) -> i64 {
    (seconds * 1e6).round() as i64
}

/// µs in seconds, as Python has them.
pub fn seconds(us: i64) -> f64 {
    us as f64 / 1e6
}
