//! The Python classes that the codec knows without being able to name them statically: three of the
//! standard library, fetched when first met, and those of this package, handed in once when the
//! module is set up; beside them whom to ask about the others.
//!
//! Promises that a class is compared by identity and never looked up by a stored name. Refuses to
//! know what the classes mean; it only keeps them.

use pyo3::exceptions::{PyKeyboardInterrupt, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyNotImplemented, PyType};

/// What the package registers.
pub(super) struct Registered {
    pub(super) loop_result: Py<PyType>,
    pub(super) event_timeout: Py<PyType>,
    pub(super) map_error: Py<PyType>,
    pub(super) loop_dict: Py<PyType>,
}

static REGISTERED: PyOnceLock<Registered> = PyOnceLock::new();
static PLAIN_FORM: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static DECIMAL: PyOnceLock<Py<PyType>> = PyOnceLock::new();
static UUID: PyOnceLock<Py<PyType>> = PyOnceLock::new();
static ZONE_INFO: PyOnceLock<Py<PyType>> = PyOnceLock::new();
static TIMEZONE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
static DUMPS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
/// The newest that every supported Python reads.
const PICKLE_PROTOCOL: u8 = 5;

/// Tells the codec this package's own classes. Until then their instances are unknown types.
///
/// `loop_result` has `.is_done`, `.value` and the constructors `done(v)` and `again(v)`;
/// `loop_dict` is the dict that stands for a loop result and gives it as `.loop_result`;
/// `event_timeout` has `.name`; `map_error` has `.index`, `.error_type`, `.message`, `.path`, and
/// both are constructed from these in this order.
///
/// # Errors
/// `RuntimeError` when other classes were registered before: bytes already written with those
/// would come back as something else.
pub fn register(
    py: Python<'_>,
    loop_result: &Bound<'_, PyType>,
    loop_dict: &Bound<'_, PyType>,
    event_timeout: &Bound<'_, PyType>,
    map_error: &Bound<'_, PyType>,
) -> PyResult<()> {
    let known = REGISTERED.get_or_init(py, || Registered {
        loop_result: loop_result.clone().unbind(),
        event_timeout: event_timeout.clone().unbind(),
        map_error: map_error.clone().unbind(),
        loop_dict: loop_dict.clone().unbind(),
    });
    let same = known.loop_result.is(loop_result)
        && known.event_timeout.is(event_timeout)
        && known.map_error.is(map_error)
        && known.loop_dict.is(loop_dict);
    if same {
        return Ok(());
    }
    Err(imported_twice())
}

/// Tells the codec whom to ask for the plain form of a value that it does not know.
///
/// `plain_form(value)` returns an equal meaning in values nearer to those of the table, such as the
/// dict of a dataclass's fields (it is not asked to go further down), or `NotImplemented`.
///
/// # Errors
/// `RuntimeError` when another one was registered before, as for [`register`].
pub fn register_plain_form(py: Python<'_>, plain_form: &Bound<'_, PyAny>) -> PyResult<()> {
    let known = PLAIN_FORM.get_or_init(py, || plain_form.clone().unbind());
    if known.is(plain_form) {
        return Ok(());
    }
    Err(imported_twice())
}

/// The plain form of a value that the codec does not know; `None` when there is none.
pub(super) fn plain_form<'py>(obj: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = obj.py();
    let Some(known) = PLAIN_FORM.get(py) else {
        return Ok(None);
    };
    let plain = uninterrupted(py, || known.bind(py).call1((obj,)))?;
    Ok((!plain.is(PyNotImplemented::get(py))).then_some(plain))
}

fn imported_twice() -> PyErr {
    PyRuntimeError::new_err(
        "the value codec already has its classes: sayiir was imported twice in this process; \
         remove the second copy, or do not reload the package",
    )
}

/// Runs a call into Python code that has no effect but its result. An interrupt that arrives in the
/// middle says nothing about the value: the call is made again, and the interrupt is handed back to
/// the interpreter, which raises it as soon as the codec has returned.
pub(super) fn uninterrupted<T>(py: Python<'_>, call: impl Fn() -> PyResult<T>) -> PyResult<T> {
    match call() {
        Err(error) if error.is_instance_of::<PyKeyboardInterrupt>(py) => {
            let result = call();
            py.import("_thread")?.call_method0("interrupt_main")?;
            result
        }
        result => result,
    }
}

/// The registered classes, once there are any.
pub(super) fn registered(py: Python<'_>) -> Option<&Registered> {
    REGISTERED.get(py)
}

/// `decimal.Decimal`.
pub(super) fn decimal(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    DECIMAL.import(py, "decimal", "Decimal")
}

/// `uuid.UUID`.
pub(super) fn uuid(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    UUID.import(py, "uuid", "UUID")
}

/// `zoneinfo.ZoneInfo`.
pub(super) fn zone_info(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    ZONE_INFO.import(py, "zoneinfo", "ZoneInfo")
}

/// `datetime.timezone`.
pub(super) fn timezone(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    TIMEZONE.import(py, "datetime", "timezone")
}

/// The pickle of a value. Only called for those who asked for pickles by name.
pub(super) fn pickled<'py>(obj: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    let py = obj.py();
    let dumps = DUMPS.import(py, "pickle", "dumps")?;
    Ok(dumps
        .call1((obj, PICKLE_PROTOCOL))?
        .cast_into::<PyBytes>()?)
}

/// What a pickle stands for, which may be anything at all, also a call of any function. Only called for
/// those who asked for pickles by name.
pub(super) fn unpickled<'py>(py: Python<'py>, body: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    let loads = LOADS.import(py, "pickle", "loads")?;
    loads.call1((PyBytes::new(py, body),))
}
