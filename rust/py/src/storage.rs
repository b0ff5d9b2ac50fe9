//! `Storage` and `Port`: a store with threads of its own, as Python sees it.
//!
//! A method of the storage hands a call over and returns at once, with a number; the answer arrives at the
//! port that was given, under that number. The port's descriptor becomes readable once for a whole
//! batch of answers, which `drain` turns into Python objects on the loop's thread.

use std::os::fd::RawFd;
use std::sync::Arc;

use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};
use sayiir_core::policy;
use sayiir_core::state::Reply;
use sayiir_store::call::{Answer, Call};
use sayiir_store::port::Arrival;
use sayiir_store::sqlite::{Settings, Synchronous};
use sayiir_store::storage::Fact;

use crate::error::{self, seconds, us};
use crate::record::{Claim, Claimant, Commit, StepRow, end_to_py};
use crate::rows::{
    NewFields, backlog_to_py, batch_of, fields, filter_of, history_to_py, news_to_py, page_to_py,
    policy_of, reply_to_py, request_of, submitted_to_py,
};
use crate::snapshot;

/// Names of the places where the environment variable `SAYIIR_FAIL_AT` lets a process die, for the store
/// of this kind: "sqlite" or "postgres".
#[pyfunction]
#[pyo3(signature = (kind="sqlite"))]
pub fn fail_points(kind: &str) -> PyResult<Vec<String>> {
    match kind {
        "sqlite" => Ok(sayiir_store::sqlite::fail_points()),
        "postgres" => Ok(sayiir_store::postgres::fail_points()),
        other => Err(PyValueError::new_err(format!(
            "kind must be 'sqlite' or 'postgres', got {other:?}"
        ))),
    }
}

/// The migrations of the PostgreSQL schema, as number and text with `sayiir.` for the schema.
#[pyfunction]
pub fn postgres_migrations() -> Vec<(i32, &'static str)> {
    sayiir_store::postgres::migrations()
}

/// Every statement of the PostgreSQL store by its name, with `sayiir.` for the schema.
#[pyfunction]
pub fn postgres_statements(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let dict = PyDict::new(py);
    for (name, text) in sayiir_store::postgres::all_statements() {
        dict.set_item(name, text)?;
    }
    Ok(dict)
}

/// Where the answers of a store arrive; one for each event loop.
#[pyclass(frozen, module = "sayiir._core")]
pub struct Port {
    pub inner: Arc<sayiir_store::port::Port>,
}

fn answer_to_py<'py>(py: Python<'py>, answer: Answer) -> PyResult<Bound<'py, PyAny>> {
    let claim = |inner| Claim { inner };
    match answer {
        Answer::Nothing => Ok(py.None().into_bound(py)),
        Answer::Numbers(definition, lane) => Ok((definition, lane).into_pyobject(py)?.into_any()),
        Answer::Submitted(outcomes) => submitted_to_py(py, &outcomes).into_pyobject(py),
        Answer::Existing(row) => row.map(|row| fields(py, &row)).into_pyobject(py),
        Answer::Claims(claims) => claims
            .into_iter()
            .map(claim)
            .collect::<Vec<_>>()
            .into_pyobject(py),
        Answer::Claim(found) => found.map(|found| claim(*found)).into_pyobject(py),
        Answer::Ids(ids) => ids
            .iter()
            .map(|id| &**id)
            .collect::<Vec<&str>>()
            .into_pyobject(py),
        Answer::Count(count) => Ok(count.into_pyobject(py)?.into_any()),
        Answer::Flag(flag) => Ok(flag.into_pyobject(py)?.to_owned().into_any()),
        // Nearly every commit is answered like this.
        Answer::Reply(Reply::Ok) => Ok(py.None().into_bound(py)),
        Answer::Reply(reply) => Ok(reply_to_py(py, &reply).into_pyobject(py)?.into_any()),
        Answer::News(news) => Ok(news_to_py(py, &news).into_pyobject(py)?.into_any()),
        Answer::Status(status) => Ok(status.word().into_pyobject(py)?.into_any()),
        Answer::Row(row) => Ok(fields(py, &row).into_pyobject(py)?.into_any()),
        Answer::Page(page) => Ok(page_to_py(py, &page).into_pyobject(py)?.into_any()),
        Answer::History(rows) => history_to_py(rows).into_pyobject(py),
        Answer::Step(step) => step.map(|step| StepRow::from(*step)).into_pyobject(py),
        Answer::Bytes(bytes) => Ok(PyBytes::new(py, &bytes).into_any()),
        Answer::Rows(rows) => rows
            .into_iter()
            .map(StepRow::from)
            .collect::<Vec<_>>()
            .into_pyobject(py),
        Answer::Items(ends) => ends
            .iter()
            .map(|end| end_to_py(py, end))
            .collect::<Vec<_>>()
            .into_pyobject(py),
        Answer::Snapshot(snapshot) => Ok(PyBytes::new(py, &snapshot.encode()).into_any()),
        Answer::Backlog(backlog) => backlog
            .iter()
            .map(backlog_to_py)
            .collect::<Vec<_>>()
            .into_pyobject(py),
        Answer::Wake(at) => Ok(at.map(seconds).into_pyobject(py)?.into_any()),
    }
}

#[pymethods]
impl Port {
    #[new]
    fn new() -> PyResult<Self> {
        let inner = sayiir_store::port::Port::new().map_err(|e| {
            PyOSError::new_err(format!("cannot make a socket for a backend's answers: {e}"))
        })?;
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Becomes readable when something has arrived.
    fn fileno(&self) -> RawFd {
        self.inner.descriptor()
    }

    /// All that has arrived, as `(number, answer, None)` or `(number, None, exception)`; a hint of
    /// another process is `(0, (kind, instance id), None)`. Calls are then gathered until the store's
    /// `flush`.
    fn drain<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let arrivals = PyList::empty(py);
        self.inner.gather(true);
        for arrival in self.inner.drain() {
            match arrival {
                Arrival::Answer(ticket, Ok(answer)) => match answer_to_py(py, answer) {
                    Ok(answer) => arrivals.append((ticket, answer, py.None()))?,
                    Err(failure) => {
                        arrivals.append((ticket, py.None(), failure.into_value(py)))?;
                    }
                },
                Arrival::Answer(ticket, Err(failure)) => {
                    let failure = error::store(py, &failure);
                    arrivals.append((ticket, py.None(), failure.into_value(py)))?;
                }
                Arrival::Hint(hint, id) => {
                    let kind = hint.word();
                    arrivals.append((0, (kind, &*id), py.None()))?;
                }
            }
        }
        Ok(arrivals)
    }
}

/// See the module's opening.
#[pyclass(frozen, module = "sayiir._core")]
pub struct Storage {
    pub inner: Arc<dyn sayiir_store::Storage>,
    postgres: Option<Arc<sayiir_store::PostgresStore>>,
}

impl Storage {
    fn the_postgres(&self) -> PyResult<&sayiir_store::PostgresStore> {
        self.postgres
            .as_deref()
            .ok_or_else(|| PyValueError::new_err("this storage is not PostgreSQL"))
    }

    fn send(&self, py: Python<'_>, port: &Port, now: Option<f64>, call: Call) -> PyResult<u64> {
        self.inner
            .call(&port.inner, call, now.map(us))
            .map_err(|e| error::store(py, &e))
    }
}

#[pymethods]
#[allow(clippy::too_many_arguments)]
impl Storage {
    /// Opens a SQLite file; `own_clock` says that calls are made at the machine's time.
    #[staticmethod]
    #[pyo3(signature = (path, *, synchronous, keep_completed, keep_events, timeout, own_clock))]
    fn sqlite(
        py: Python<'_>,
        path: &str,
        synchronous: &str,
        keep_completed: Option<f64>,
        keep_events: f64,
        timeout: f64,
        own_clock: bool,
    ) -> PyResult<Self> {
        let duration = |what: &str, given: f64| {
            policy::duration_us(what, given, true).map_err(|e| error::core(py, &e))
        };
        let settings = Settings {
            synchronous: match synchronous {
                "full" => Synchronous::Full,
                "normal" => Synchronous::Normal,
                other => {
                    return Err(PyValueError::new_err(format!(
                        "synchronous must be 'full' or 'normal', got {other:?}"
                    )));
                }
            },
            keep_completed_us: keep_completed
                .map(|keep| duration("keep_completed", keep))
                .transpose()?,
            keep_orphans_us: duration("keep_events", keep_events)?,
            timeout_us: duration("timeout", timeout)?,
            own_clock,
        };
        let inner = py
            .detach(|| sayiir_store::SqliteStore::open(path, settings))
            .map_err(|e| error::store(py, &e))?;
        Ok(Self {
            inner: Arc::new(inner),
            postgres: None,
        })
    }

    /// Begins to connect to a PostgreSQL server; `own_clock` says that the database's clock counts.
    #[staticmethod]
    #[pyo3(signature = (url, *, schema, max_connections, statement_timeout, connect_timeout, timeout,
                        keep_completed, keep_events, notify, migrate, own_clock))]
    fn postgres(
        py: Python<'_>,
        url: &str,
        schema: String,
        max_connections: usize,
        statement_timeout: f64,
        connect_timeout: f64,
        timeout: f64,
        keep_completed: Option<f64>,
        keep_events: f64,
        notify: bool,
        migrate: bool,
        own_clock: bool,
    ) -> PyResult<Self> {
        let duration = |what: &str, given: f64| {
            policy::duration_us(what, given, true).map_err(|e| error::core(py, &e))
        };
        let settings = sayiir_store::postgres::Settings {
            schema,
            max_connections,
            statement_timeout_us: duration("statement_timeout", statement_timeout)?,
            connect_timeout_us: duration("connect_timeout", connect_timeout)?,
            timeout_us: duration("timeout", timeout)?,
            keep_completed_us: keep_completed
                .map(|keep| duration("keep_completed", keep))
                .transpose()?,
            keep_orphans_us: duration("keep_events", keep_events)?,
            notify,
            migrate,
            own_clock,
        };
        let opened = py.detach(|| sayiir_store::PostgresStore::open(url, settings));
        let store = Arc::new(opened.map_err(PyValueError::new_err)?);
        Ok(Self {
            inner: Arc::clone(&store) as Arc<dyn sayiir_store::Storage>,
            postgres: Some(store),
        })
    }

    /// The server and the database, without any secret.
    fn shown(&self) -> PyResult<&str> {
        Ok(self.the_postgres()?.shown())
    }

    /// The version of the schema that is there; 0 when there is none. Blocks.
    fn schema_version(&self, py: Python<'_>) -> PyResult<i32> {
        let store = self.the_postgres()?;
        py.detach(|| store.schema_version())
            .map_err(|e| error::store(py, &e))
    }

    /// Brings the schema to this version; from which to which. Blocks.
    fn migrate(&self, py: Python<'_>) -> PyResult<(i32, i32)> {
        let store = self.the_postgres()?;
        py.detach(|| store.migrate())
            .map_err(|e| error::store(py, &e))
    }

    /// The storage's own time in seconds since 1970, if it has one.
    fn now(&self) -> Option<f64> {
        self.inner.now_us().map(seconds)
    }

    /// Makes sure that a definition is known, for whoever inserts instances of it.
    fn enlist(
        &self,
        py: Python<'_>,
        port: &Port,
        now: Option<f64>,
        program: Py<crate::definition::Program>,
    ) -> PyResult<u64> {
        let new = batch_of(vec![(String::new(), program, Vec::new(), None)]).pop();
        let new = new.ok_or_else(|| PyValueError::new_err("nothing to enlist"))?;
        self.send(py, port, now, Call::Enlist { new: Box::new(new) })
    }

    /// Finishes what was handed over, and lets go of the place.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.inner.close());
    }

    /// Whether hints of other processes should arrive at a port.
    fn listen(&self, port: &Port, wanted: bool) {
        self.inner.listen(&port.inner, wanted);
    }

    /// What was called since the port was drained goes out in one go; to be called after `drain`, when
    /// the loop has dealt with what it took.
    fn flush(&self, port: &Port) {
        self.inner.flush(&port.inner);
    }

    /// Whether somebody waits for the end of an instance.
    fn watch(&self, instance_id: &str, wanted: bool) {
        self.inner.watch(instance_id, wanted);
    }

    /// Keeps a worker's leases alive, by the storage thread.
    fn keep(&self, py: Python<'_>, claimant: &Claimant) -> PyResult<()> {
        self.inner
            .keep(Arc::clone(&claimant.inner.worker), claimant.inner.lease_us)
            .map_err(|e| error::store(py, &e))
    }

    /// Ends `keep`.
    fn unkeep(&self, claimant: &Claimant) {
        self.inner.unkeep(&claimant.inner.worker);
    }

    /// What an operator wants to know; may take long.
    fn report<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let report = py
            .detach(|| self.inner.report())
            .map_err(|e| error::store(py, &e))?;
        let dict = PyDict::new(py);
        for (name, fact) in report.facts {
            match fact {
                Fact::Text(text) => dict.set_item(name, text)?,
                Fact::Number(number) => dict.set_item(name, number)?,
                Fact::Seconds(seconds) => dict.set_item(name, seconds)?,
            }
        }
        let instances = PyDict::new(py);
        for (status, count) in report.instances {
            instances.set_item(status, count)?;
        }
        dict.set_item("instances", instances)?;
        let workers = PyList::empty(py);
        for (name, expires_us, held) in report.workers {
            let worker = PyDict::new(py);
            worker.set_item("worker_id", name)?;
            worker.set_item("expires_at", seconds(expires_us))?;
            worker.set_item("held", held)?;
            workers.append(worker)?;
        }
        dict.set_item("workers", workers)?;
        let definitions = PyList::empty(py);
        for (hash, workflow, count) in report.definitions {
            let definition = PyDict::new(py);
            definition.set_item("definition_hash", error::hex(&hash))?;
            definition.set_item("workflow_id", workflow)?;
            definition.set_item("instances", count)?;
            definitions.append(definition)?;
        }
        dict.set_item("definitions", definitions)?;
        Ok(dict)
    }

    #[pyo3(signature = (port, now, instance_id, program, policy))]
    fn check_submit(
        &self,
        py: Python<'_>,
        port: &Port,
        now: Option<f64>,
        instance_id: &str,
        program: &crate::definition::Program,
        policy: &str,
    ) -> PyResult<u64> {
        let call = Call::CheckSubmit {
            id: instance_id.into(),
            hash: *program.def.hash(),
            policy: policy_of(policy)?,
        };
        self.send(py, port, now, call)
    }

    #[pyo3(signature = (port, now, instances, policy))]
    fn submit(
        &self,
        py: Python<'_>,
        port: &Port,
        now: Option<f64>,
        instances: Vec<NewFields>,
        policy: &str,
    ) -> PyResult<u64> {
        let call = Call::Submit {
            policy: policy_of(policy)?,
            batch: batch_of(instances),
        };
        self.send(py, port, now, call)
    }

    #[pyo3(signature = (port, now, claimant, limit))]
    fn claim(
        &self,
        py: Python<'_>,
        port: &Port,
        now: Option<f64>,
        claimant: &Claimant,
        limit: usize,
    ) -> PyResult<u64> {
        let call = Call::Claim {
            claimant: claimant.inner.clone(),
            hashes: Arc::clone(&claimant.hashes),
            limit,
        };
        self.send(py, port, now, call)
    }

    #[pyo3(signature = (port, now, claimant, instance_id))]
    fn claim_one(
        &self,
        py: Python<'_>,
        port: &Port,
        now: Option<f64>,
        claimant: &Claimant,
        instance_id: &str,
    ) -> PyResult<u64> {
        let call = Call::ClaimOne {
            claimant: claimant.inner.clone(),
            hashes: Arc::clone(&claimant.hashes),
            id: instance_id.into(),
        };
        self.send(py, port, now, call)
    }

    #[pyo3(signature = (port, now, worker_id, lease_ttl))]
    fn renew(
        &self,
        py: Python<'_>,
        port: &Port,
        now: Option<f64>,
        worker_id: &str,
        lease_ttl: f64,
    ) -> PyResult<u64> {
        let call = Call::Renew {
            worker: worker_id.into(),
            lease_us: us(lease_ttl),
        };
        self.send(py, port, now, call)
    }

    #[pyo3(signature = (port, now, worker_id))]
    fn release(
        &self,
        py: Python<'_>,
        port: &Port,
        now: Option<f64>,
        worker_id: &str,
    ) -> PyResult<u64> {
        let call = Call::Release {
            worker: worker_id.into(),
        };
        self.send(py, port, now, call)
    }

    #[pyo3(signature = (port, now, instance_id, fence))]
    fn give_back(
        &self,
        py: Python<'_>,
        port: &Port,
        now: Option<f64>,
        instance_id: &str,
        fence: u64,
    ) -> PyResult<u64> {
        let call = Call::GiveBack {
            id: instance_id.into(),
            fence,
        };
        self.send(py, port, now, call)
    }

    #[pyo3(signature = (port, now, commit))]
    fn commit(
        &self,
        py: Python<'_>,
        port: &Port,
        now: Option<f64>,
        commit: &Commit,
    ) -> PyResult<u64> {
        let call = Call::Commit {
            slot: commit.slot,
            id: Arc::clone(&commit.id),
            fence: commit.fence,
            commit: Arc::clone(&commit.inner),
        };
        self.send(py, port, now, call)
    }

    #[pyo3(signature = (port, now, instance_id, fence, names))]
    fn news(
        &self,
        py: Python<'_>,
        port: &Port,
        now: Option<f64>,
        instance_id: &str,
        fence: u64,
        names: Vec<String>,
    ) -> PyResult<u64> {
        let call = Call::News {
            id: instance_id.into(),
            fence,
            names: names.into_iter().map(Into::into).collect(),
        };
        self.send(py, port, now, call)
    }

    #[pyo3(signature = (port, now, instance_id, name, payload, key))]
    fn send_event(
        &self,
        py: Python<'_>,
        port: &Port,
        now: Option<f64>,
        instance_id: &str,
        name: &str,
        payload: &[u8],
        key: Option<&str>,
    ) -> PyResult<u64> {
        let call = Call::SendEvent {
            id: instance_id.into(),
            name: name.into(),
            payload: payload.into(),
            key: key.map(Into::into),
        };
        self.send(py, port, now, call)
    }

    #[pyo3(signature = (port, now, instance_id, reason, by))]
    fn cancel(
        &self,
        py: Python<'_>,
        port: &Port,
        now: Option<f64>,
        instance_id: &str,
        reason: Option<&str>,
        by: Option<&str>,
    ) -> PyResult<u64> {
        let call = Call::Cancel {
            id: instance_id.into(),
            request: request_of(reason, by),
        };
        self.send(py, port, now, call)
    }

    #[pyo3(signature = (port, now, instance_id, reason, by))]
    fn pause(
        &self,
        py: Python<'_>,
        port: &Port,
        now: Option<f64>,
        instance_id: &str,
        reason: Option<&str>,
        by: Option<&str>,
    ) -> PyResult<u64> {
        let call = Call::Pause {
            id: instance_id.into(),
            request: request_of(reason, by),
        };
        self.send(py, port, now, call)
    }

    #[pyo3(signature = (port, now, instance_id))]
    fn unpause(
        &self,
        py: Python<'_>,
        port: &Port,
        now: Option<f64>,
        instance_id: &str,
    ) -> PyResult<u64> {
        let id = instance_id.into();
        self.send(py, port, now, Call::Unpause { id })
    }

    #[pyo3(signature = (port, now, instance_id))]
    fn get(
        &self,
        py: Python<'_>,
        port: &Port,
        now: Option<f64>,
        instance_id: &str,
    ) -> PyResult<u64> {
        let id = instance_id.into();
        self.send(py, port, now, Call::Get { id })
    }

    #[pyo3(signature = (port, now, limit, before, status, workflow, id_prefix, created_after,
                        created_before))]
    fn find(
        &self,
        py: Python<'_>,
        port: &Port,
        now: Option<f64>,
        limit: usize,
        before: Option<u64>,
        status: Option<&str>,
        workflow: Option<String>,
        id_prefix: Option<String>,
        created_after: Option<f64>,
        created_before: Option<f64>,
    ) -> PyResult<u64> {
        let call = Call::Find {
            filter: filter_of(status, workflow, id_prefix, created_after, created_before)?,
            limit,
            before,
        };
        self.send(py, port, now, call)
    }

    #[pyo3(signature = (port, now, instance_id))]
    fn history(
        &self,
        py: Python<'_>,
        port: &Port,
        now: Option<f64>,
        instance_id: &str,
    ) -> PyResult<u64> {
        let id = instance_id.into();
        self.send(py, port, now, Call::History { id })
    }

    #[pyo3(signature = (port, now, instance_id, path_or_name))]
    fn step(
        &self,
        py: Python<'_>,
        port: &Port,
        now: Option<f64>,
        instance_id: &str,
        path_or_name: &str,
    ) -> PyResult<u64> {
        let call = Call::Step {
            id: instance_id.into(),
            path_or_name: path_or_name.into(),
        };
        self.send(py, port, now, call)
    }

    #[pyo3(signature = (port, now, instance_id))]
    fn input(
        &self,
        py: Python<'_>,
        port: &Port,
        now: Option<f64>,
        instance_id: &str,
    ) -> PyResult<u64> {
        let id = instance_id.into();
        self.send(py, port, now, Call::Input { id })
    }

    #[pyo3(signature = (port, now, instance_id, seqs))]
    fn rows(
        &self,
        py: Python<'_>,
        port: &Port,
        now: Option<f64>,
        instance_id: &str,
        seqs: Vec<u32>,
    ) -> PyResult<u64> {
        let call = Call::Rows {
            id: instance_id.into(),
            seqs,
        };
        self.send(py, port, now, call)
    }

    #[pyo3(signature = (port, now, instance_id, group))]
    fn items(
        &self,
        py: Python<'_>,
        port: &Port,
        now: Option<f64>,
        instance_id: &str,
        group: u32,
    ) -> PyResult<u64> {
        let call = Call::Items {
            id: instance_id.into(),
            group,
        };
        self.send(py, port, now, call)
    }

    fn export(
        &self,
        py: Python<'_>,
        port: &Port,
        now: Option<f64>,
        instance_id: &str,
    ) -> PyResult<u64> {
        let call = Call::Export {
            id: instance_id.into(),
        };
        self.send(py, port, now, call)
    }

    fn import_(
        &self,
        py: Python<'_>,
        port: &Port,
        now: Option<f64>,
        snapshot: &[u8],
        instance_id: &str,
    ) -> PyResult<u64> {
        let snapshot = Arc::new(snapshot::read_for(py, snapshot, instance_id)?);
        self.send(py, port, now, Call::Import { snapshot })
    }

    #[pyo3(signature = (port, now, instance_id, force))]
    fn delete(
        &self,
        py: Python<'_>,
        port: &Port,
        now: Option<f64>,
        instance_id: &str,
        force: bool,
    ) -> PyResult<u64> {
        let call = Call::Delete {
            id: instance_id.into(),
            force,
        };
        self.send(py, port, now, call)
    }

    #[pyo3(signature = (port, now))]
    fn backlog(&self, py: Python<'_>, port: &Port, now: Option<f64>) -> PyResult<u64> {
        self.send(py, port, now, Call::Backlog)
    }

    #[pyo3(signature = (port, now))]
    fn next_wake(&self, py: Python<'_>, port: &Port, now: Option<f64>) -> PyResult<u64> {
        self.send(py, port, now, Call::NextWake)
    }
}
