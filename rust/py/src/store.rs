//! `MemoryStore`: the memory backend's storage, as Python sees it.
//!
//! Every method is a short call. Times are seconds since the epoch and always given by the caller.
//! `claim_run` is the fast way in: claim and take-up in one call, and checkpoints that never leave
//! Rust. The other methods are the storage contract, the same that a backend written in Python has.

use std::sync::{Arc, Mutex, PoisonError};

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use sayiir_core::policy;
use sayiir_store::memory::Settings;
use sayiir_store::{Status, Store, StoreError};

use crate::definition::Program;
use crate::error::{self, seconds, us};
use crate::record::{Claim, Claimant, Commit, EndFields, StepRow, end_to_py};
use crate::rows::{
    BacklogFields, Fields, NewFields, NewsFields, PageFields, ReplyFields, backlog_to_py, batch_of,
    fields, filter_of, history_to_py, news_to_py, page_to_py, policy_of, reply_to_py, request_of,
    submitted_to_py,
};
use crate::run::Run;

/// See the module's opening.
#[pyclass(frozen, module = "sayiir._core")]
#[derive(Debug, Default)]
pub struct MemoryStore {
    pub inner: Arc<sayiir_store::MemoryStore>,
}

impl MemoryStore {
    fn call<T>(&self, py: Python<'_>, result: Result<T, StoreError>) -> PyResult<T> {
        result.map_err(|e| error::store(py, &e))
    }
}

#[pymethods]
impl MemoryStore {
    #[new]
    #[pyo3(signature = (*, keep_completed=None, keep_events=None))]
    fn new(
        py: Python<'_>,
        keep_completed: Option<f64>,
        keep_events: Option<f64>,
    ) -> PyResult<Self> {
        let mut settings = Settings::default();
        let refuse = |e: sayiir_core::Error| error::core(py, &e);
        if let Some(keep) = keep_completed {
            settings.keep_completed_us =
                Some(policy::duration_us("keep_completed", keep, true).map_err(refuse)?);
        }
        if let Some(keep) = keep_events {
            settings.keep_orphans_us =
                policy::duration_us("keep_events", keep, true).map_err(refuse)?;
        }
        Ok(Self {
            inner: Arc::new(sayiir_store::MemoryStore::new(settings)),
        })
    }

    /// The existing instance under `use_existing`, `None` when the submit may go on.
    fn check_submit(
        &self,
        py: Python<'_>,
        instance_id: &str,
        program: &Program,
        policy: &str,
        now: f64,
    ) -> PyResult<Option<Fields>> {
        let found = self.call(
            py,
            self.inner
                .check_submit(instance_id, program.def.hash(), policy_of(policy)?, us(now)),
        )?;
        Ok(found.map(|row| fields(py, &row)))
    }

    /// Creates instances, all or none, from `(id, program, sealed input, start_at)`; for each `None`,
    /// or the existing one under `use_existing`.
    fn submit(
        &self,
        py: Python<'_>,
        instances: Vec<NewFields>,
        policy: &str,
        now: f64,
    ) -> PyResult<Vec<Option<Fields>>> {
        let policy = policy_of(policy)?;
        let batch = batch_of(instances);
        let outcomes = self.call(py, self.inner.submit(batch, policy, us(now)))?;
        Ok(submitted_to_py(py, &outcomes))
    }

    /// Claims up to `limit` ready instances, best first.
    fn claim(
        &self,
        py: Python<'_>,
        claimant: &Claimant,
        limit: usize,
        now: f64,
    ) -> PyResult<Vec<Claim>> {
        let claims = self
            .inner
            .claim(&claimant.inner, &claimant.hashes, limit, us(now));
        Ok(self
            .call(py, claims)?
            .into_iter()
            .map(|inner| Claim { inner })
            .collect())
    }

    /// Claims one instance, if it is ready and free.
    fn claim_one(
        &self,
        py: Python<'_>,
        claimant: &Claimant,
        instance_id: &str,
        now: f64,
    ) -> PyResult<Option<Claim>> {
        let claim = self.call(
            py,
            self.inner
                .claim_one(&claimant.inner, &claimant.hashes, instance_id, us(now)),
        )?;
        Ok(claim.map(|inner| Claim { inner }))
    }

    /// Claims the best ready instance and takes it up.
    fn claim_run(&self, py: Python<'_>, claimant: &Claimant, now: f64) -> PyResult<Option<Run>> {
        loop {
            let claims = self
                .inner
                .claim(&claimant.inner, &claimant.hashes, 1, us(now));
            let Some(claim) = self.call(py, claims)?.pop() else {
                return Ok(None);
            };
            if let Some(run) = Run::native(py, &self.inner, claimant, claim, us(now))? {
                return Ok(Some(run));
            }
        }
    }

    /// Claims this instance, if it is ready and free, and takes it up.
    fn claim_run_one(
        &self,
        py: Python<'_>,
        claimant: &Claimant,
        instance_id: &str,
        now: f64,
    ) -> PyResult<Option<Run>> {
        match self.call(
            py,
            self.inner
                .claim_one(&claimant.inner, &claimant.hashes, instance_id, us(now)),
        )? {
            Some(claim) => Run::native(py, &self.inner, claimant, claim, us(now)),
            None => Ok(None),
        }
    }

    /// Prolongs all leases of a worker; the ids of held instances with a pending cancel or pause.
    fn renew(
        &self,
        py: Python<'_>,
        worker_id: &str,
        lease_ttl: f64,
        now: f64,
    ) -> PyResult<Vec<String>> {
        let ids = self.inner.renew(worker_id, us(lease_ttl), us(now));
        Ok(self
            .call(py, ids)?
            .iter()
            .map(|id| id.to_string())
            .collect())
    }

    /// Gives back all leases of a worker.
    fn release(&self, py: Python<'_>, worker_id: &str, now: f64) -> PyResult<usize> {
        self.call(py, self.inner.release(worker_id, us(now)))
    }

    /// Gives one lease back, if this fence still holds it.
    fn give_back(&self, py: Python<'_>, instance_id: &str, fence: u64, now: f64) -> PyResult<bool> {
        self.call(py, self.inner.give_back(instance_id, fence, us(now)))
    }

    /// Applies one checkpoint; the kind of the reply, and its events.
    fn commit<'py>(
        &self,
        py: Python<'py>,
        commit: &Commit,
        now: f64,
    ) -> PyResult<ReplyFields<'py>> {
        let reply = self.inner.commit(
            commit.slot,
            &commit.id,
            commit.fence,
            &commit.inner,
            us(now),
        );
        Ok(reply_to_py(py, &self.call(py, reply)?))
    }

    /// `(lost, cancel pending, pause pending, events)` for the holder.
    fn news<'py>(
        &self,
        py: Python<'py>,
        instance_id: &str,
        fence: u64,
        names: Vec<String>,
        now: f64,
    ) -> PyResult<NewsFields<'py>> {
        let names: Vec<Arc<str>> = names.into_iter().map(Into::into).collect();
        let news = self.inner.news(instance_id, fence, &names, us(now));
        Ok(news_to_py(py, &self.call(py, news)?))
    }

    /// Buffers an event; `False` when its key was known.
    #[pyo3(signature = (instance_id, name, payload, key, now))]
    fn send_event(
        &self,
        py: Python<'_>,
        instance_id: &str,
        name: &str,
        payload: &[u8],
        key: Option<&str>,
        now: f64,
    ) -> PyResult<bool> {
        self.call(
            py,
            self.inner
                .send_event(instance_id, name, payload.into(), key, us(now)),
        )
    }

    #[pyo3(signature = (instance_id, reason, by, now))]
    fn cancel(
        &self,
        py: Python<'_>,
        instance_id: &str,
        reason: Option<&str>,
        by: Option<&str>,
        now: f64,
    ) -> PyResult<&'static str> {
        let request = request_of(reason, by);
        self.call(py, self.inner.cancel(instance_id, request, us(now)))
            .map(Status::word)
    }

    #[pyo3(signature = (instance_id, reason, by, now))]
    fn pause(
        &self,
        py: Python<'_>,
        instance_id: &str,
        reason: Option<&str>,
        by: Option<&str>,
        now: f64,
    ) -> PyResult<&'static str> {
        let request = request_of(reason, by);
        self.call(py, self.inner.pause(instance_id, request, us(now)))
            .map(Status::word)
    }

    fn unpause(&self, py: Python<'_>, instance_id: &str, now: f64) -> PyResult<&'static str> {
        self.call(py, self.inner.unpause(instance_id, us(now)))
            .map(Status::word)
    }

    fn get(&self, py: Python<'_>, instance_id: &str, now: f64) -> PyResult<Fields> {
        let row = self.call(py, self.inner.get(instance_id, us(now)))?;
        Ok(fields(py, &row))
    }

    /// A page, newest first, and where the next one begins.
    #[pyo3(signature = (limit, before, now, *, status=None, workflow=None, id_prefix=None, created_after=None,
                        created_before=None))]
    #[allow(clippy::too_many_arguments)]
    fn find(
        &self,
        py: Python<'_>,
        limit: usize,
        before: Option<u64>,
        now: f64,
        status: Option<&str>,
        workflow: Option<String>,
        id_prefix: Option<String>,
        created_after: Option<f64>,
        created_before: Option<f64>,
    ) -> PyResult<PageFields> {
        let filter = filter_of(status, workflow, id_prefix, created_after, created_before)?;
        let page = self.call(py, self.inner.find(&filter, limit, before, us(now)))?;
        Ok(page_to_py(py, &page))
    }

    /// `(step row, worker id)` in the order they were written.
    fn history(&self, py: Python<'_>, instance_id: &str) -> PyResult<Vec<(StepRow, String)>> {
        let rows = self.call(py, self.inner.history(instance_id))?;
        Ok(history_to_py(rows))
    }

    fn step(
        &self,
        py: Python<'_>,
        instance_id: &str,
        path_or_name: &str,
    ) -> PyResult<Option<StepRow>> {
        Ok(self
            .call(py, self.inner.step(instance_id, path_or_name))?
            .map(Into::into))
    }

    fn input<'py>(&self, py: Python<'py>, instance_id: &str) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(
            py,
            &self.call(py, self.inner.input(instance_id))?,
        ))
    }

    fn rows(&self, py: Python<'_>, instance_id: &str, seqs: Vec<u32>) -> PyResult<Vec<StepRow>> {
        Ok(self
            .call(py, self.inner.rows(instance_id, &seqs))?
            .into_iter()
            .map(Into::into)
            .collect())
    }

    /// Word and bytes of the end of each item of a group.
    fn items<'py>(
        &self,
        py: Python<'py>,
        instance_id: &str,
        group: u32,
    ) -> PyResult<Vec<EndFields<'py>>> {
        let ends = self.call(py, self.inner.items(instance_id, group))?;
        Ok(ends.iter().map(|end| end_to_py(py, end)).collect())
    }

    /// Hints about other instances than those of the calls so far: kind and id.
    fn told(&self) -> Vec<(&'static str, String)> {
        self.inner
            .told()
            .into_iter()
            .map(|(hint, id)| (hint.word(), id.to_string()))
            .collect()
    }

    /// A sealed snapshot.
    fn export<'py>(
        &self,
        py: Python<'py>,
        instance_id: &str,
        now: f64,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let snapshot = self.call(py, self.inner.export(instance_id, us(now)))?;
        Ok(PyBytes::new(py, &snapshot.encode()))
    }

    /// Creates an instance from a sealed snapshot, under this id.
    fn import_(
        &self,
        py: Python<'_>,
        snapshot: &[u8],
        instance_id: &str,
        now: f64,
    ) -> PyResult<()> {
        let snapshot = crate::snapshot::read_for(py, snapshot, instance_id)?;
        self.call(py, self.inner.import(&snapshot, us(now)))
    }

    fn delete(&self, py: Python<'_>, instance_id: &str, force: bool, now: f64) -> PyResult<()> {
        self.call(py, self.inner.delete(instance_id, force, us(now)))
    }

    /// `(definition hash, workflow, tags, how many, for how long the next one)` of what is ready.
    fn backlog(&self, py: Python<'_>, now: f64) -> PyResult<Vec<BacklogFields>> {
        let backlog = self.call(py, self.inner.backlog(us(now)))?;
        Ok(backlog.iter().map(backlog_to_py).collect())
    }

    /// The earliest timer of a parked instance.
    fn next_wake(&self, py: Python<'_>) -> PyResult<Option<f64>> {
        Ok(self.call(py, self.inner.next_wake_us())?.map(seconds))
    }

    fn __len__(&self) -> usize {
        self.inner.len()
    }
}

/// Keeps a worker's leases alive until it is closed, on a thread that never needs the interpreter.
#[pyclass(frozen, module = "sayiir._core")]
pub struct Keeper {
    inner: Mutex<Option<sayiir_store::Keeper>>,
}

#[pymethods]
impl Keeper {
    #[new]
    fn new(store: &MemoryStore, claimant: &Claimant) -> PyResult<Self> {
        let store: Arc<dyn Store + Send + Sync> = Arc::clone(&store.inner) as _;
        let keeper = sayiir_store::Keeper::start(
            store,
            Arc::clone(&claimant.inner.worker),
            claimant.inner.lease_us,
        )
        .map_err(|e| {
            PyOSError::new_err(format!("cannot start the thread that renews leases: {e}"))
        })?;
        Ok(Self {
            inner: Mutex::new(Some(keeper)),
        })
    }

    /// Stops renewing; the leases last as long as they were last renewed for.
    fn close(&self, py: Python<'_>) {
        let keeper = self
            .inner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        py.detach(|| drop(keeper));
    }
}
