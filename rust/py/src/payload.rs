//! Payloads: a Python value in its envelope, and back.

use std::cell::Cell;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyType};
use sayiir_core::envelope::{self, Bytes, View, codec, kind};

use crate::error;
use crate::value::{self, EncodeFailure};

thread_local! {
    /// One buffer a thread, taken while in use: encoding may run Python code, which may encode.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Buffers above this are not kept.
const KEEP_SCRATCH: usize = 1 << 20;

/// A value as a sealed payload; with pickles of what cannot be carried, if that is asked for.
pub fn seal(obj: &Bound<'_, PyAny>, pickles: bool) -> Result<Bytes, EncodeFailure> {
    let mut scratch = SCRATCH.take();
    scratch.clear();
    let start = envelope::begin(&mut scratch, kind::VALUE, codec::MSGPACK);
    let result = value::encode_with(obj, &mut scratch, pickles).map(|pickled| {
        if pickled {
            scratch[start + 6] = codec::PICKLED;
        }
        envelope::seal(&mut scratch, start);
        Bytes::from(&scratch[..])
    });
    if scratch.capacity() <= KEEP_SCRATCH {
        SCRATCH.set(scratch);
    }
    result
}

/// The value of a sealed payload or composite; pickles in it are read only if that is asked for.
pub fn open<'py>(py: Python<'py>, bytes: &[u8], pickles: bool) -> PyResult<Bound<'py, PyAny>> {
    let opener = Opener {
        open: envelope::open,
        pickles,
    };
    read(py, bytes, &opener, 0)
}

/// The same for bytes that never left this process's memory: without the checksum.
pub fn open_own<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    let opener = Opener {
        open: envelope::open_own,
        pickles: false,
    };
    read(py, bytes, &opener, 0)
}

/// How the parts of a payload are opened.
struct Opener {
    open: fn(&[u8]) -> sayiir_core::Result<View<'_>>,
    pickles: bool,
}

fn read<'py>(
    py: Python<'py>,
    bytes: &[u8],
    opener: &Opener,
    depth: usize,
) -> PyResult<Bound<'py, PyAny>> {
    if depth > value::MAX_DEPTH {
        return Err(error::decode_text(
            py,
            format!("payloads are nested deeper than {}", value::MAX_DEPTH),
        ));
    }
    let damaged = |e: sayiir_core::Error| error::decode_text(py, e.to_string());
    let view = (opener.open)(bytes).map_err(damaged)?;
    match (view.kind, view.codec) {
        (kind::VALUE, codec::MSGPACK) => {
            value::decode(py, view.body).map_err(|f| error::decode(py, &f))
        }
        (kind::VALUE, codec::PICKLED) => {
            value::decode_with(py, view.body, opener.pickles).map_err(|f| error::decode(py, &f))
        }
        (kind::VALUE, codec::UNREADABLE) => Err(error::decode_text(
            py,
            String::from_utf8_lossy(view.body).into_owned(),
        )),
        (kind::NAMED, _) => {
            let dict = PyDict::new(py);
            for (name, payload) in envelope::named_items(view.body).map_err(damaged)? {
                dict.set_item(name, read(py, payload, opener, depth + 1)?)?;
            }
            Ok(dict.into_any())
        }
        (kind::LIST, _) => {
            let list = PyList::empty(py);
            for range in envelope::list_items(view.body).map_err(damaged)? {
                list.append(read(py, &view.body[range], opener, depth + 1)?)?;
            }
            Ok(list.into_any())
        }
        (kind::BRANCH, _) => {
            let (key, payload) = envelope::branch_parts(view.body).map_err(damaged)?;
            let dict = PyDict::new(py);
            dict.set_item("branch", key)?;
            dict.set_item("result", read(py, payload, opener, depth + 1)?)?;
            Ok(dict.into_any())
        }
        (kind, codec) => Err(error::decode_text(
            py,
            format!(
                "these bytes hold no value that this program can read (kind {kind}, codec {codec})"
            ),
        )),
    }
}

/// The value codec alone, without an envelope.
#[pyfunction]
pub fn encode_value<'py>(
    py: Python<'py>,
    value: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyBytes>> {
    let mut out = Vec::with_capacity(512);
    value::encode(value, &mut out).map_err(|f| error::encode(py, &f))?;
    Ok(PyBytes::new(py, &out))
}

/// The other way round.
#[pyfunction]
pub fn decode_value<'py>(
    py: Python<'py>,
    data: &Bound<'py, PyBytes>,
) -> PyResult<Bound<'py, PyAny>> {
    value::decode(py, data.as_bytes()).map_err(|f| error::decode(py, &f))
}

/// A value in its envelope; with pickles of what cannot be carried, if that is asked for.
#[pyfunction]
#[pyo3(signature = (value, *, pickles=false))]
pub fn encode_payload<'py>(
    py: Python<'py>,
    value: &Bound<'py, PyAny>,
    pickles: bool,
) -> PyResult<Bound<'py, PyBytes>> {
    let sealed = seal(value, pickles).map_err(|f| error::encode(py, &f))?;
    Ok(PyBytes::new(py, &sealed))
}

/// The other way round; composites become dicts and lists.
#[pyfunction]
#[pyo3(signature = (data, *, pickles=false))]
pub fn decode_payload<'py>(
    py: Python<'py>,
    data: &Bound<'py, PyBytes>,
    pickles: bool,
) -> PyResult<Bound<'py, PyAny>> {
    open(py, data.as_bytes(), pickles)
}

/// What an error record says.
#[derive(IntoPyObject)]
pub struct ErrorFields {
    error_type: String,
    message: String,
    traceback: String,
    task: String,
    path: String,
    retryable: bool,
    causes: Vec<(String, String)>,
}

/// The parts of an error record, as a dict.
#[pyfunction]
pub fn decode_error_record(py: Python<'_>, data: &Bound<'_, PyBytes>) -> PyResult<ErrorFields> {
    let record = envelope::ErrorRecord::decode(data.as_bytes())
        .map_err(|e| error::decode_text(py, e.to_string()))?;
    Ok(ErrorFields {
        error_type: record.error_type,
        message: record.message,
        traceback: record.traceback,
        task: record.task,
        path: record.path,
        retryable: record.retryable,
        causes: record.causes,
    })
}

/// Makes the value classes of the package known to the codec.
#[pyfunction]
pub fn register_values(
    py: Python<'_>,
    loop_result: &Bound<'_, PyType>,
    loop_dict: &Bound<'_, PyType>,
    event_timeout: &Bound<'_, PyType>,
    map_error: &Bound<'_, PyType>,
) -> PyResult<()> {
    value::register(py, loop_result, loop_dict, event_timeout, map_error)
}

/// Makes known whom the codec asks for the plain form of a value that it does not know.
#[pyfunction]
pub fn register_plain_form(py: Python<'_>, plain_form: &Bound<'_, PyAny>) -> PyResult<()> {
    value::register_plain_form(py, plain_form)
}

/// Checks an id or a name; `what` names the argument in the `ValueError`.
#[pyfunction]
pub fn check_name(py: Python<'_>, what: &str, name: &str) -> PyResult<()> {
    sayiir_core::id::check_name(what, name).map_err(|e| error::core(py, &e))
}
