//! `Program`: a definition together with the Python functions that its tasks stand for.
//!
//! The tree arrives as plain tuples and lists (see `_flow.py`); everything that is wrong with it is a
//! `ValueError` or `TypeError` that names flow and node.

use std::sync::{Arc, OnceLock};

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyList, PyTuple};
use sayiir_core::Bytes;
use sayiir_core::definition::{
    Definition, NodeKind, NodeSpec, OnError, OnMax, OnTimeout, TaskSpec,
};
use sayiir_core::policy::{self, Retry, TaskPolicy};

use crate::error;

/// Deepest nesting read from Python; deeper definitions are refused by the core anyway.
const MAX_DEPTH: usize = sayiir_core::definition::MAX_DEFINITION_DEPTH + 2;

/// One task of a program, as a step needs it.
#[derive(Debug)]
pub struct Callee {
    /// Takes the input, gives the output.
    pub function: Py<PyAny>,
    /// The `TaskDef`.
    pub task: Py<PyAny>,
    /// Where it runs: 0 loop, 1 inline, 2 thread, 3 process.
    pub mode: u8,
    /// Whether it is simply awaited: mode 0 and no timeout.
    pub plain: Py<PyAny>,
    /// Bound of one attempt, seconds.
    pub timeout: Option<f64>,
}

/// Path, kind, predecessor's path, task index, timeout in seconds.
type NodeFields = (
    String,
    &'static str,
    Option<String>,
    Option<u32>,
    Option<f64>,
);

/// A definition and its functions.
#[pyclass(frozen, module = "sayiir._core")]
#[derive(Debug)]
pub struct Program {
    pub def: Arc<Definition>,
    pub callees: Arc<[Callee]>,
    #[pyo3(get)]
    pub name: Py<PyAny>,
    #[pyo3(get)]
    pub metadata: Option<Py<PyDict>>,
    /// What the items of its spread maps run.
    #[pyo3(get)]
    pub items: Vec<Py<Program>>,
    tree: OnceLock<Bytes>,
}

impl Program {
    fn of(
        py: Python<'_>,
        def: &Arc<Definition>,
        callees: &Arc<[Callee]>,
        metadata: Option<&Py<PyDict>>,
    ) -> PyResult<Self> {
        let items = def
            .all_items()
            .map(|items| Py::new(py, Self::of(py, items, callees, metadata)?))
            .collect::<PyResult<_>>()?;
        Ok(Self {
            name: pyo3::types::PyString::new(py, &def.name)
                .into_any()
                .unbind(),
            def: Arc::clone(def),
            callees: Arc::clone(callees),
            metadata: metadata.map(|metadata| metadata.clone_ref(py)),
            items,
            tree: OnceLock::new(),
        })
    }

    /// The definition as data, made when it is first needed.
    pub fn tree(&self) -> Bytes {
        Bytes::clone(
            self.tree
                .get_or_init(|| sayiir_core::wire::encode_definition(&self.def)),
        )
    }
}

#[pymethods]
impl Program {
    #[new]
    #[pyo3(signature = (name, block, tasks, metadata=None))]
    fn new(
        py: Python<'_>,
        name: &str,
        block: &Bound<'_, PyAny>,
        tasks: &Bound<'_, PyList>,
        metadata: Option<Py<PyDict>>,
    ) -> PyResult<Self> {
        let mut specs = Vec::with_capacity(tasks.len());
        let mut callees = Vec::with_capacity(tasks.len());
        for task in tasks {
            specs.push(read_task(py, &task)?);
            let mode = task.getattr("mode")?.extract()?;
            let timeout: Option<f64> = task.getattr("timeout")?.extract()?;
            callees.push(Callee {
                function: task.getattr("fn")?.unbind(),
                mode,
                plain: PyBool::new(py, mode == 0 && timeout.is_none())
                    .to_owned()
                    .into_any()
                    .unbind(),
                timeout,
                task: task.unbind(),
            });
        }
        let block = read_block(py, block, 0)?;
        let def = Definition::build(name, specs, &block).map_err(|e| error::core(py, &e))?;
        Self::of(py, &Arc::new(def), &callees.into(), metadata.as_ref())
    }

    #[getter]
    fn definition_hash(&self) -> String {
        self.def.hash_hex()
    }

    /// The definition as data, sealed.
    #[getter(tree)]
    fn sealed_tree<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.tree())
    }

    /// Tags and priority of what a fresh instance does first.
    #[getter]
    fn entry(&self) -> (Vec<String>, u8) {
        let (tags, priority) = self.def.entry();
        (crate::record::tags_to_py(&tags), priority)
    }

    /// `(path, kind, predecessor path, task index, timeout in seconds)` in execution order.
    fn nodes(&self) -> Vec<NodeFields> {
        self.def
            .listing()
            .into_iter()
            .map(|listed| {
                let kind = &self.def.node(listed.node).kind;
                let (task, timeout) = match kind {
                    NodeKind::Task { task } | NodeKind::Route { key: task, .. } => (
                        Some(*task),
                        self.callees
                            .get(*task as usize)
                            .and_then(|callee| callee.timeout),
                    ),
                    NodeKind::Delay { duration_us } => (None, Some(error::seconds(*duration_us))),
                    NodeKind::Wait { timeout_us, .. } => (None, timeout_us.map(error::seconds)),
                    _ => (None, None),
                };
                (listed.path, kind.word(), listed.predecessor, task, timeout)
            })
            .collect()
    }

    fn __repr__(&self) -> String {
        format!(
            "<Program {:?} {}>",
            self.def.name,
            &self.def.hash_hex()[..12]
        )
    }
}

fn read_task(py: Python<'_>, task: &Bound<'_, PyAny>) -> PyResult<TaskSpec> {
    let name: String = task.getattr("name")?.extract()?;
    let what = format!("task '{name}'");
    let refuse = |e: sayiir_core::Error| error::core(py, &e);
    let timeout: Option<f64> = task.getattr("timeout")?.extract()?;
    let retry = Retry {
        max_retries: task.getattr("max_retries")?.extract().map_err(|_| {
            PyValueError::new_err(format!(
                "{what}: retries must be between 0 and {}",
                u32::MAX
            ))
        })?,
        initial_delay_s: task.getattr("initial_delay")?.extract()?,
        multiplier: task.getattr("multiplier")?.extract()?,
        max_delay_s: task.getattr("max_delay")?.extract()?,
        jitter: task.getattr("jitter")?.extract()?,
    };
    let tags: Vec<String> = task.getattr("tags")?.extract()?;
    let priority: i64 = task.getattr("priority")?.extract()?;
    let policy = TaskPolicy {
        retry,
        timeout_us: timeout
            .map(|t| policy::duration_us(&format!("{what}: timeout"), t, false))
            .transpose()
            .map_err(refuse)?,
        tags: policy::tags(&what, tags).map_err(refuse)?,
        priority: u8::try_from(priority).unwrap_or(0),
    };
    Ok(TaskSpec {
        name: name.into(),
        policy,
    })
}

fn malformed(what: &str) -> PyErr {
    PyTypeError::new_err(format!("a definition is malformed: {what}"))
}

fn read_block(py: Python<'_>, block: &Bound<'_, PyAny>, depth: usize) -> PyResult<Vec<NodeSpec>> {
    if depth > MAX_DEPTH {
        return Err(PyValueError::new_err(format!(
            "a flow is nested deeper than {MAX_DEPTH} levels"
        )));
    }
    let mut nodes = Vec::new();
    for node in block.try_iter()? {
        let node = node?;
        let node = node
            .cast::<PyTuple>()
            .map_err(|_| malformed("a node is not a tuple"))?;
        nodes.push(read_node(py, node, depth)?);
    }
    Ok(nodes)
}

fn on_error(name: &str, word: &str) -> PyResult<OnError> {
    match word {
        "fail" => Ok(OnError::Fail),
        "collect" => Ok(OnError::Collect),
        other => Err(PyValueError::new_err(format!(
            "map '{name}': unknown on_error {other:?}"
        ))),
    }
}

fn read_named(
    py: Python<'_>,
    blocks: &Bound<'_, PyAny>,
    depth: usize,
) -> PyResult<Vec<(String, Vec<NodeSpec>)>> {
    let mut out = Vec::new();
    for pair in blocks.try_iter()? {
        let (name, block): (String, Bound<'_, PyAny>) = pair?.extract()?;
        out.push((name, read_block(py, &block, depth + 1)?));
    }
    Ok(out)
}

fn read_node(py: Python<'_>, node: &Bound<'_, PyTuple>, depth: usize) -> PyResult<NodeSpec> {
    let refuse = |e: sayiir_core::Error| error::core(py, &e);
    let kind: String = node.get_item(0)?.extract()?;
    let name: String = node.get_item(1)?.extract()?;
    let at = |index: usize| node.get_item(index);
    let word = |index: usize| -> PyResult<String> { at(index)?.extract() };
    Ok(match kind.as_str() {
        "task" => NodeSpec::Task {
            name,
            task: at(2)?.extract()?,
        },
        "fork" => NodeSpec::Fork {
            name,
            branches: read_named(py, &at(2)?, depth)?,
        },
        "map" => NodeSpec::Map {
            body: read_block(py, &at(2)?, depth + 1)?,
            concurrency: at(3)?.extract()?,
            on_error: on_error(&name, &word(4)?)?,
            name,
        },
        "spread" => NodeSpec::Spread {
            body: read_block(py, &at(2)?, depth + 1)?,
            on_error: on_error(&name, &word(3)?)?,
            name,
        },
        "route" => NodeSpec::Route {
            key: at(2)?.extract()?,
            arms: read_named(py, &at(3)?, depth)?,
            default: match at(4)? {
                none if none.is_none() => None,
                block => Some(read_block(py, &block, depth + 1)?),
            },
            name,
        },
        "loop" => NodeSpec::Loop {
            body: read_block(py, &at(2)?, depth + 1)?,
            max_iterations: at(3)?.extract().map_err(|_| {
                PyValueError::new_err(format!("loop '{name}': max_iterations is out of range"))
            })?,
            on_max: match word(4)?.as_str() {
                "fail" => OnMax::Fail,
                "exit_with_last" => OnMax::ExitWithLast,
                other => {
                    return Err(PyValueError::new_err(format!(
                        "loop '{name}': unknown on_max {other:?}"
                    )));
                }
            },
            name,
        },
        "delay" => NodeSpec::Delay {
            duration_us: policy::duration_us(&format!("delay '{name}'"), at(2)?.extract()?, true)
                .map_err(refuse)?,
            name,
        },
        "delay_until" => {
            let at: f64 = at(2)?.extract()?;
            if !at.is_finite() || at.abs() > 1e12 {
                return Err(PyValueError::new_err(format!(
                    "delay_until '{name}': the moment is out of range"
                )));
            }
            NodeSpec::DelayUntil {
                at_us: error::us(at),
                name,
            }
        }
        "wait" => NodeSpec::Wait {
            event: word(2)?,
            timeout_us: at(3)?
                .extract::<Option<f64>>()?
                .map(|t| policy::duration_us(&format!("wait '{name}': timeout"), t, true))
                .transpose()
                .map_err(refuse)?,
            on_timeout: match word(4)?.as_str() {
                "fail" => OnTimeout::Fail,
                "continue" => OnTimeout::Continue,
                other => {
                    return Err(PyValueError::new_err(format!(
                        "wait '{name}': unknown on_timeout {other:?}"
                    )));
                }
            },
            name,
        },
        "child" => NodeSpec::Child {
            workflow: word(2)?,
            body: read_block(py, &at(3)?, depth + 1)?,
            name,
        },
        other => return Err(malformed(&format!("unknown node kind {other:?}"))),
    })
}
