//! `Run`: one held instance being advanced, as the Python runner drives it.
//!
//! A run answers every fact with what to do next. With the memory store the whole of it is one call:
//! encode the result, advance, checkpoint, decode the next input. With any other backend the answer
//! carries a `Commit`, which the runner hands to the backend and reports back with `committed`; steps
//! that depend on it are given out only then.
//!
//! Values are encoded and decoded outside of the run's lock; under it there is no Python at all.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString};
use sayiir_core::advance::{Failure, Held, Machine, Start, Values};
use sayiir_core::envelope::{Bytes, ErrorRecord};
use sayiir_core::state::{ItemEnd, Next, Reply, Seq, StepRow, StrandId};
use sayiir_core::{Event, state};
use sayiir_store::call::Call;
use sayiir_store::{MemoryStore, Store};

use crate::at_rest::{self, AtRest, Place, Role};
use crate::definition::Program;
use crate::error::{self, seconds, us};
use crate::payload;
use crate::record::{self, Claim, Claimant, Commit};
use crate::storage::{Port, Storage};

/// Outputs at hand when the store is not in this process's memory.
#[derive(Debug, Default, Clone)]
struct Kept {
    input: Option<Bytes>,
    /// The output of the instance, once it is on its way to the store.
    output: Option<Bytes>,
    rows: HashMap<Seq, StepRow>,
    /// How items of spread maps ended, until that is taken up.
    groups: HashMap<StrandId, Vec<ItemEnd>>,
}

impl Kept {
    /// What came from a store, as the engine sees it.
    fn taken_in<'a>(
        py: Python<'_>,
        settings: Option<&AtRest>,
        id: &str,
        input: Bytes,
        rows: impl Iterator<Item = &'a StepRow>,
    ) -> PyResult<Self> {
        let place = Place {
            id,
            role: Role::Input,
            name: "",
        };
        let mut kept = Self {
            input: Some(at_rest::take_in(py, settings, input, &place)?),
            ..Self::default()
        };
        for row in rows {
            let mut row = row.clone();
            if let Some(output) = row.output.take() {
                let place = Place {
                    id,
                    role: Role::Step,
                    name: &row.path,
                };
                row.output = Some(at_rest::take_in(py, settings, output, &place)?);
            }
            kept.rows.insert(row.seq, row);
        }
        Ok(kept)
    }
}

/// The payload of an event as the engine sees it.
fn event_taken_in(
    py: Python<'_>,
    settings: Option<&AtRest>,
    id: &str,
    name: &str,
    payload: Bytes,
) -> PyResult<Bytes> {
    let role = Role::Event;
    at_rest::take_in(py, settings, payload, &Place { id, role, name })
}

struct View<'a> {
    store: Option<&'a MemoryStore>,
    slot: u64,
    fence: u64,
    /// The output that was just reported; most steps consume exactly that.
    last: Option<(Seq, &'a Bytes)>,
    kept: &'a Kept,
}

impl View<'_> {
    fn stored(&self) -> Option<sayiir_store::memory::StoredValues<'_>> {
        self.store.map(|store| sayiir_store::memory::StoredValues {
            store,
            slot: self.slot as u32,
            fence: self.fence,
        })
    }
}

impl Values for View<'_> {
    fn input(&self) -> Option<Bytes> {
        self.stored()
            .map_or_else(|| self.kept.input.clone(), |stored| stored.input())
    }

    fn output(&self, seq: Seq) -> Option<Bytes> {
        if let Some((last, bytes)) = self.last
            && last == seq
        {
            return Some(Bytes::clone(bytes));
        }
        match self.stored() {
            Some(stored) => stored.output(seq),
            None => self.kept.rows.get(&seq).and_then(|row| row.output.clone()),
        }
    }

    fn error(&self, seq: Seq) -> Option<Bytes> {
        match self.stored() {
            Some(stored) => stored.error(seq),
            None => self.kept.rows.get(&seq).and_then(|row| row.error.clone()),
        }
    }

    fn items(&self, group: StrandId) -> Option<Vec<ItemEnd>> {
        self.stored().map_or_else(
            || self.kept.groups.get(&group).cloned(),
            |stored| stored.items(group),
        )
    }
}

#[derive(Debug)]
struct State {
    machine: Machine,
    kept: Kept,
    cancel: bool,
}

/// What a fact leads to, before it becomes Python objects.
struct Answer {
    /// The only step to start, and its input.
    lone: Option<(Start, sayiir_core::Result<Bytes>)>,
    /// Several steps to start.
    starts: Vec<(Start, sayiir_core::Result<Bytes>)>,
    commit: Option<state::Commit>,
    /// The number of a commit that is on its way to the storage thread.
    ticket: Option<sayiir_store::StoreResult<u64>>,
    abandoned: Vec<u32>,
    /// Groups of items of which it has to be asked how they ended.
    gather: Vec<StrandId>,
    held: Held,
    wake_at_us: Option<i64>,
    cancel: bool,
}

/// Number, name and payload of an event, from Python.
type GivenEvent = (u64, String, Vec<u8>);

/// How an item ended, from Python.
type GivenEnd = (String, Option<Vec<u8>>);

/// A storage thread, and where its answers arrive.
struct Away {
    store: Arc<dyn sayiir_store::Storage>,
    port: Arc<sayiir_store::port::Port>,
}

/// One held instance.
#[pyclass(frozen, module = "sayiir._core")]
pub struct Run {
    id: Arc<str>,
    #[pyo3(get)]
    instance_id: Py<PyString>,
    #[pyo3(get)]
    fence: u64,
    #[pyo3(get)]
    program: Py<Program>,
    /// Events that came with the claim, until the run has begun.
    carried: Mutex<Option<Vec<Event>>>,
    store: Option<Arc<MemoryStore>>,
    /// Where commits go by themselves, when the storage thread of this process keeps the instance.
    away: Option<Away>,
    /// What is done to payloads at rest, if anything.
    codec: Option<Py<AtRest>>,
    slot: u64,
    state: Mutex<State>,
}

impl Run {
    fn settings(&self) -> Option<&AtRest> {
        self.codec.as_ref().map(Py::get)
    }

    /// Events as the engine sees them.
    fn taken_in(&self, py: Python<'_>, events: Vec<GivenEvent>) -> PyResult<Vec<Event>> {
        events
            .into_iter()
            .map(|(seq, name, payload)| {
                let name: Arc<str> = name.into();
                Ok(Event {
                    seq,
                    payload: event_taken_in(py, self.settings(), &self.id, &name, payload.into())?,
                    name,
                })
            })
            .collect()
    }

    /// The end of an item as the engine sees it.
    fn end_taken_in(
        &self,
        py: Python<'_>,
        group: StrandId,
        index: u32,
        end: ItemEnd,
    ) -> PyResult<ItemEnd> {
        let ItemEnd::Completed(output) = end else {
            return Ok(end);
        };
        let place = Place {
            id: &at_rest::bound_item(&self.id, group, index),
            role: Role::Output,
            name: "",
        };
        at_rest::take_in(py, self.settings(), output, &place).map(ItemEnd::Completed)
    }

    /// Turns a commit into what is stored, and sends it on if the storage thread is at hand. No lock is
    /// held here, since keys may come from Python.
    fn dispatch(&self, py: Python<'_>, answer: &mut Answer, now_us: i64) -> PyResult<()> {
        let Some(codec) = self.settings() else {
            return Ok(());
        };
        let Some(plain) = answer.commit.take() else {
            return Ok(());
        };
        let sealed = codec.commit(py, &self.id, self.fence, plain)?;
        match &self.away {
            Some(away) => answer.ticket = Some(self.send(away, sealed, now_us)),
            None => answer.commit = Some(sealed),
        }
        Ok(())
    }

    fn send(
        &self,
        away: &Away,
        commit: state::Commit,
        now_us: i64,
    ) -> sayiir_store::StoreResult<u64> {
        away.store.call(
            &away.port,
            Call::Commit {
                slot: self.slot,
                id: Arc::clone(&self.id),
                fence: self.fence,
                commit: Arc::new(commit),
            },
            Some(now_us),
        )
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up a claim of the memory store; `None` when the instance had to be set aside as damaged.
    pub fn native(
        py: Python<'_>,
        store: &Arc<MemoryStore>,
        claimant: &Claimant,
        claim: sayiir_store::Claim,
        now_us: i64,
    ) -> PyResult<Option<Self>> {
        let kept = Kept::default();
        match Self::take_up(py, Some(store), claimant, &claim, kept, now_us)? {
            Ok(run) => Ok(Some(run)),
            Err(reason) => {
                let commit = Machine::set_aside(&claim.stored, &reason);
                store
                    .commit(claim.slot, &claim.id, claim.fence, &commit, now_us)
                    .map_err(|e| error::store(py, &e))?;
                Ok(None)
            }
        }
    }

    fn take_up(
        py: Python<'_>,
        store: Option<&Arc<MemoryStore>>,
        claimant: &Claimant,
        claim: &sayiir_store::Claim,
        kept: Kept,
        now_us: i64,
    ) -> PyResult<sayiir_core::Result<Self>> {
        let Some(program) = claimant.programs.get(&claim.hash) else {
            return Err(PyValueError::new_err(format!(
                "instance '{}' runs a definition that this worker does not have",
                claim.id
            )));
        };
        let view = View {
            store: store.map(Arc::as_ref),
            slot: claim.slot,
            fence: claim.fence,
            last: None,
            kept: &kept,
        };
        let machine = Machine::restore(
            Arc::clone(&program.get().def),
            claimant.inner.tags.clone(),
            claimant.width,
            &claim.stored,
            claim.needs.clone(),
            &view,
            now_us,
        );
        Ok(machine.map(|machine| Self {
            id: Arc::clone(&claim.id),
            instance_id: PyString::new(py, &claim.id).unbind(),
            fence: claim.fence,
            program: program.clone_ref(py),
            carried: Mutex::default(),
            store: store.cloned(),
            away: None,
            codec: None,
            slot: claim.slot,
            state: Mutex::new(State {
                machine,
                kept,
                cancel: false,
            }),
        }))
    }

    /// Takes up a claim of any backend but the memory store's. A damaged instance comes out as a run
    /// whose first answer is the commit that sets it aside.
    fn loose(
        py: Python<'_>,
        claimant: &Claimant,
        claim: &sayiir_store::Claim,
        kept: impl Fn() -> Kept,
        now_us: i64,
    ) -> PyResult<Self> {
        match Self::take_up(py, None, claimant, claim, kept(), now_us)? {
            Ok(run) => Ok(run),
            // A healthy instance that a newer worker advanced: it is given back, for that one.
            Err(reason @ sayiir_core::Error::Newer(_)) => Err(error::core(py, &reason)),
            Err(reason) => {
                let mut fresh = claim.clone();
                fresh.stored.cursor = None;
                fresh.stored.cells.clear();
                let run = Self::take_up(py, None, claimant, &fresh, kept(), now_us)?
                    .map_err(|e| error::core(py, &e))?;
                run.lock().machine.abort(&reason);
                Ok(run)
            }
        }
    }

    fn view<'a>(&'a self, last: Option<(Seq, &'a Bytes)>, kept: &'a Kept) -> View<'a> {
        View {
            store: self.store.as_deref(),
            slot: self.slot,
            fence: self.fence,
            last,
            kept,
        }
    }

    /// Runs one change of the machine and everything that follows from it, up to the next Python.
    fn advance(
        &self,
        now_us: i64,
        output: Option<&Bytes>,
        change: impl FnOnce(&mut Machine, &View<'_>) -> sayiir_core::Result<()>,
    ) -> Answer {
        let mut guard = self.lock();
        let State {
            machine,
            kept,
            cancel,
        } = &mut *guard;
        let last = output.map(|output| (machine.next_seq(), output));
        let mut commit = None;
        let mut ticket = None;
        {
            let view = self.view(last, kept);
            if let Err(reason) = change(machine, &view) {
                machine.abort(&reason);
            }
        }
        while let Some(mut next) = machine.commit() {
            match &self.store {
                Some(store) => {
                    if let Next::Completed(output) = &next.next {
                        kept.output = Some(Bytes::clone(output));
                    }
                    let reply = store.apply(self.slot as u32, self.fence, &mut next, now_us);
                    machine.reuse(next);
                    let view = self.view(last, kept);
                    if let Err(reason) = machine.reply(reply, now_us, &view) {
                        machine.abort(&reason);
                    }
                }
                None => {
                    if let Next::Completed(output) = &next.next {
                        kept.output = Some(Bytes::clone(output));
                    }
                    if machine.is_linear() {
                        let needed = machine.root_refs();
                        kept.rows.retain(|seq, _| needed.contains(seq));
                    }
                    kept.rows
                        .extend(next.steps.iter().map(|row| (row.seq, row.clone())));
                    match &self.away {
                        Some(away) if self.codec.is_none() => {
                            ticket = Some(self.send(away, next, now_us));
                        }
                        _ => commit = Some(next),
                    }
                    break;
                }
            }
        }
        let view = self.view(last, kept);
        let with_input = |machine: &mut Machine, start: Start| {
            let input = machine.input(start.strand, &view);
            (start, input)
        };
        let lone = machine.take_lone_start();
        let starts = if lone.is_some() {
            Vec::new()
        } else {
            machine.take_starts()
        };
        Answer {
            lone: lone.map(|start| with_input(machine, start)),
            starts: starts
                .into_iter()
                .map(|start| with_input(machine, start))
                .collect(),
            commit,
            ticket,
            abandoned: machine.take_abandoned(),
            gather: machine.wanted_groups(),
            held: machine.held(),
            wake_at_us: machine.wake_at_us(),
            cancel: *cancel,
        }
    }

    /// Turns an answer into Python: a lone `Step`, or a `Turn`.
    fn give<'py>(
        slf: &Bound<'py, Self>,
        mut answer: Answer,
        now: f64,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let run = slf.get();
        run.dispatch(py, &mut answer, us(now))?;
        let plain = |answer: &Answer| {
            answer.commit.is_none()
                && answer.ticket.is_none()
                && answer.abandoned.is_empty()
                && answer.gather.is_empty()
                && answer.wake_at_us.is_none()
                && answer.held == Held::Yes
                && !answer.cancel
        };
        if plain(&answer)
            && let Some((start, input)) = answer.lone.take()
        {
            match Self::step(slf, &start, &input, now) {
                Ok(step) => return Ok(step.into_any()),
                Err(failure) => {
                    answer = run.fail_input(py, &start, &failure, us(now));
                    run.dispatch(py, &mut answer, us(now))?;
                }
            }
        }
        if answer.lone.is_none()
            && answer.starts.is_empty()
            && answer.abandoned.is_empty()
            && answer.gather.is_empty()
            && answer.held == Held::Yes
            && !answer.cancel
            && let Some(Ok(ticket)) = answer.ticket
        {
            // Only a commit to wait for, whose reply says everything else.
            return Ok(ticket.into_pyobject(py)?.into_any());
        }
        let steps = PyList::empty(py);
        let mut turn = Turn::of(py, &answer);
        let mut ticket = answer.ticket;
        let mut commit = answer.commit;
        let mut starts = answer.starts;
        starts.extend(answer.lone);
        while let Some((start, input)) = starts.pop() {
            match Self::step(slf, &start, &input, now) {
                Ok(step) => steps.append(step)?,
                Err(failure) => {
                    let mut more = run.fail_input(py, &start, &failure, us(now));
                    run.dispatch(py, &mut more, us(now))?;
                    turn.merge(&more);
                    commit = commit.or(more.commit);
                    ticket = ticket.or(more.ticket);
                    starts.extend(more.starts);
                    starts.extend(more.lone);
                }
            }
        }
        steps.reverse()?;
        turn.steps = steps.unbind();
        turn.ticket = ticket.transpose().map_err(|e| error::store(py, &e))?;
        if let Some(inner) = commit {
            turn.commit = Some(Py::new(
                py,
                Commit {
                    slot: run.slot,
                    id: Arc::clone(&run.id),
                    fence: run.fence,
                    inner: Arc::new(inner),
                },
            )?);
        }
        Ok(Bound::new(py, turn)?.into_any())
    }

    fn step<'py>(
        slf: &Bound<'py, Self>,
        start: &Start,
        input: &sayiir_core::Result<Bytes>,
        now: f64,
    ) -> PyResult<Bound<'py, Step>> {
        let py = slf.py();
        let run = slf.get();
        let program = run.program.get();
        let input = match input {
            // What this process's own memory holds needs no checksum.
            Ok(bytes) if run.store.is_some() => payload::open_own(py, bytes)?.unbind(),
            Ok(bytes) => {
                let pickles = run.settings().is_some_and(AtRest::reads_pickles);
                payload::open(py, bytes, pickles)?.unbind()
            }
            Err(reason) => return Err(error::core(py, reason)),
        };
        let callee = program.callees.get(start.task as usize).ok_or_else(|| {
            PyRuntimeError::new_err("a step refers to a task that its program does not have")
        })?;
        Bound::new(
            py,
            Step {
                strand: start.strand,
                ticket: start.ticket,
                path: Arc::clone(&start.path),
                attempt: start.attempt,
                function: callee.function.clone_ref(py),
                input,
                mode: callee.mode,
                plain: callee.plain.clone_ref(py),
                timeout: callee.timeout,
                deadline: callee.timeout.map(|timeout| now + timeout),
                task: callee.task.clone_ref(py),
                run: slf.clone().unbind(),
                cancelled: AtomicBool::new(false),
            },
        )
    }

    fn attend_to<'py>(
        slf: &Bound<'py, Self>,
        news: sayiir_store::News,
        now: f64,
    ) -> PyResult<Bound<'py, PyAny>> {
        let run = slf.get();
        let now_us = us(now);
        if news.cancel {
            run.lock().cancel = true;
        }
        let answer = run.advance(now_us, None, |machine, view| {
            if news.lost {
                return machine.reply(Reply::LeaseLost, now_us, view);
            }
            if news.cancel || news.pause {
                machine.drain(false);
            }
            machine.tick(news.events, now_us, view)
        });
        Self::give(slf, answer, now)
    }

    /// A step whose input cannot be decoded has failed before it began.
    fn fail_input(&self, py: Python<'_>, start: &Start, failure: &PyErr, now_us: i64) -> Answer {
        let record = ErrorRecord {
            error_type: failure
                .get_type(py)
                .name()
                .map_or_else(|_| "DecodeError".to_owned(), |n| n.to_string()),
            message: failure.value(py).to_string(),
            ..ErrorRecord::default()
        };
        let failure = Failure {
            record,
            retryable: false,
            retry_after_us: None,
            unit: 0.0,
        };
        let (strand, ticket) = (start.strand, start.ticket);
        self.advance(now_us, None, |machine, view| {
            machine
                .failed(strand, ticket, failure, now_us, view)
                .map(drop)
        })
    }
}

#[pymethods]
impl Run {
    /// Takes up a claim of any backend. `rows` are the rows that `claim.referenced()` asks for.
    #[new]
    #[pyo3(signature = (claimant, claim, rows, input, now, codec=None))]
    fn new(
        py: Python<'_>,
        claimant: &Claimant,
        claim: &Claim,
        rows: Vec<Py<record::StepRow>>,
        input: &[u8],
        now: f64,
        codec: Option<Py<AtRest>>,
    ) -> PyResult<Self> {
        let rows = rows.iter().map(|row| &row.get().inner);
        let settings = codec.as_ref().map(Py::get);
        let kept = Kept::taken_in(py, settings, &claim.inner.id, input.into(), rows)?;
        let mut run = Self::loose(py, claimant, &claim.inner, || kept.clone(), us(now))?;
        run.codec = codec;
        Ok(run)
    }

    /// Takes up a claim that brought everything along (`claim.complete`).
    ///
    /// With a store and a port, commits go to the storage thread by themselves.
    #[staticmethod]
    #[pyo3(signature = (claimant, claim, now, store=None, port=None, codec=None))]
    fn carried(
        py: Python<'_>,
        claimant: &Claimant,
        claim: &Claim,
        now: f64,
        store: Option<&Storage>,
        port: Option<&Port>,
        codec: Option<Py<AtRest>>,
    ) -> PyResult<Self> {
        let carried = claim.inner.carried.as_deref().ok_or_else(|| {
            PyValueError::new_err("the claim did not bring along what its holder needs")
        })?;
        let id = &claim.inner.id;
        let settings = codec.as_ref().map(Py::get);
        let input = Bytes::clone(&carried.input);
        let kept = Kept::taken_in(py, settings, id, input, carried.rows.iter())?;
        let mut events = carried.events.clone();
        for event in &mut events {
            let payload = Bytes::clone(&event.payload);
            event.payload = event_taken_in(py, settings, id, &event.name, payload)?;
        }
        let mut run = Self::loose(py, claimant, &claim.inner, || kept.clone(), us(now))?;
        run.codec = codec;
        if let (Some(store), Some(port)) = (store, port) {
            run.away = Some(Away {
                store: Arc::clone(&store.inner),
                port: Arc::clone(&port.inner),
            });
        }
        *run.carried.lock().unwrap_or_else(PoisonError::into_inner) = Some(events);
        Ok(run)
    }

    /// The first `attend`, when the claim brought the events along; `None` when it did not.
    fn begin<'py>(slf: &Bound<'py, Self>, now: f64) -> PyResult<Option<Bound<'py, PyAny>>> {
        let run = slf.get();
        let carried = run
            .carried
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(buffered) = carried else {
            return Ok(None);
        };
        let mut wanted = run.lock().machine.awaits();
        let events = buffered
            .into_iter()
            .filter(|event| {
                wanted
                    .iter()
                    .position(|name| *name == event.name)
                    .map(|at| wanted.swap_remove(at))
                    .is_some()
            })
            .collect();
        let news = sayiir_store::News {
            events,
            ..sayiir_store::News::default()
        };
        Self::attend_to(slf, news, now).map(Some)
    }

    /// Names of awaited events, one for each waiting strand.
    fn awaits(&self) -> Vec<String> {
        self.lock()
            .machine
            .awaits()
            .iter()
            .map(|name| name.to_string())
            .collect()
    }

    /// Begins, and later attends to: time that has passed, events, a pending cancel or pause.
    ///
    /// With the memory store the news is fetched here; otherwise it is given.
    #[pyo3(signature = (now, *, lost=false, cancel=false, pause=false, events=Vec::new()))]
    fn attend<'py>(
        slf: &Bound<'py, Self>,
        now: f64,
        lost: bool,
        cancel: bool,
        pause: bool,
        events: Vec<GivenEvent>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let run = slf.get();
        let mut news = sayiir_store::News {
            lost,
            cancel,
            pause,
            events: run.taken_in(slf.py(), events)?,
        };
        if let Some(store) = &run.store {
            let names = run.lock().machine.awaits();
            news = store
                .news(&run.id, run.fence, &names, us(now))
                .map_err(|e| error::store(slf.py(), &e))?;
        }
        Self::attend_to(slf, news, now)
    }

    /// A step returned.
    fn completed<'py>(
        slf: &Bound<'py, Self>,
        step: &Step,
        value: &Bound<'py, PyAny>,
        now: f64,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let run = slf.get();
        let pickles = run.settings().is_some_and(AtRest::writes_pickles);
        let output = payload::seal(value, pickles).map_err(|failure| step.refuse(py, &failure))?;
        let now_us = us(now);
        let answer = run.advance(now_us, Some(&output), |machine, view| {
            machine
                .completed(
                    step.strand,
                    step.ticket,
                    Bytes::clone(&output),
                    now_us,
                    view,
                )
                .map(drop)
        });
        Self::give(slf, answer, now)
    }

    /// An attempt failed.
    #[pyo3(signature = (step, error_type, message, traceback, causes, retryable, retry_after, unit, now))]
    #[allow(clippy::too_many_arguments)]
    fn failed<'py>(
        slf: &Bound<'py, Self>,
        step: &Step,
        error_type: String,
        message: String,
        traceback: String,
        causes: Vec<(String, String)>,
        retryable: bool,
        retry_after: Option<f64>,
        unit: f64,
        now: f64,
    ) -> PyResult<Bound<'py, PyAny>> {
        let record = ErrorRecord {
            error_type,
            message,
            traceback,
            causes,
            ..ErrorRecord::default()
        };
        let failure = Failure {
            record,
            retryable,
            retry_after_us: retry_after.map(us),
            unit,
        };
        let now_us = us(now);
        let answer = slf.get().advance(now_us, None, |machine, view| {
            machine
                .failed(step.strand, step.ticket, failure, now_us, view)
                .map(drop)
        });
        Self::give(slf, answer, now)
    }

    /// A step was stopped by its holder before it ended; it will run again.
    fn interrupted<'py>(
        slf: &Bound<'py, Self>,
        step: &Step,
        now: f64,
    ) -> PyResult<Bound<'py, PyAny>> {
        let now_us = us(now);
        let answer = slf.get().advance(now_us, None, |machine, view| {
            machine
                .interrupted(step.strand, step.ticket, now_us, view)
                .map(drop)
        });
        Self::give(slf, answer, now)
    }

    /// How the items of groups ended that a turn asked for, by word and bytes.
    fn gathered<'py>(
        slf: &Bound<'py, Self>,
        groups: Vec<(u32, Vec<GivenEnd>)>,
        now: f64,
    ) -> PyResult<Bound<'py, PyAny>> {
        let run = slf.get();
        let mut known = HashMap::new();
        for (group, ends) in groups {
            let ends = (0..)
                .zip(ends)
                .map(|(index, (word, bytes))| {
                    let end = record::end_of(&word, bytes)?;
                    run.end_taken_in(slf.py(), group, index, end)
                })
                .collect::<PyResult<Vec<_>>>()?;
            known.insert(group, ends);
        }
        let now_us = us(now);
        run.lock().kept.groups.extend(known);
        let answer = run.advance(now_us, None, |machine, view| machine.gathered(now_us, view));
        run.lock().kept.groups.clear();
        Self::give(slf, answer, now)
    }

    /// Starts nothing new from now on, and gives the instance back when the running steps are done.
    fn drain<'py>(slf: &Bound<'py, Self>, now: f64) -> PyResult<Bound<'py, PyAny>> {
        let answer = slf.get().advance(us(now), None, |machine, _| {
            machine.drain(true);
            Ok(())
        });
        Self::give(slf, answer, now)
    }

    /// The backend's answer to the last commit.
    #[pyo3(signature = (kind, events, now))]
    fn committed<'py>(
        slf: &Bound<'py, Self>,
        kind: &str,
        events: Vec<GivenEvent>,
        now: f64,
    ) -> PyResult<Bound<'py, PyAny>> {
        let reply = match kind {
            "ok" => Reply::Ok,
            "pause_pending" => Reply::PausePending,
            "cancelled" => Reply::Cancelled,
            "paused" => Reply::Paused,
            "lease_lost" => Reply::LeaseLost,
            "events" => Reply::Events(slf.get().taken_in(slf.py(), events)?),
            other => return Err(PyValueError::new_err(format!("unknown reply {other:?}"))),
        };
        let now_us = us(now);
        let answer = slf.get().advance(now_us, None, |machine, view| {
            machine.reply(reply, now_us, view)
        });
        Self::give(slf, answer, now)
    }

    /// The storage thread's reply to a commit that went there by itself: `None` when it is simply
    /// done, else its kind and events.
    #[pyo3(signature = (reply, now))]
    fn replied<'py>(
        slf: &Bound<'py, Self>,
        reply: Option<(String, Vec<GivenEvent>)>,
        now: f64,
    ) -> PyResult<Bound<'py, PyAny>> {
        let Some((kind, events)) = reply else {
            let now_us = us(now);
            let answer = slf.get().advance(now_us, None, |machine, view| {
                machine.reply(Reply::Ok, now_us, view)
            });
            return Self::give(slf, answer, now);
        };
        Self::committed(slf, &kind, events, now)
    }

    /// The commit that ends the instance as failed because what is stored of it is damaged.
    fn set_aside(&self, reason: &str) -> Commit {
        let stored = self.lock().machine.stands();
        let reason = sayiir_core::Error::format(reason);
        Commit {
            slot: self.slot,
            id: Arc::clone(&self.id),
            fence: self.fence,
            inner: Arc::new(Machine::set_aside(&stored, &reason)),
        }
    }

    /// The sealed output, when the instance completed here.
    #[getter]
    fn output<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        record::to_py(py, self.lock().kept.output.as_ref())
    }

    /// Whether values that cannot be carried are pickled.
    #[getter]
    fn pickles(&self) -> bool {
        self.settings().is_some_and(AtRest::writes_pickles)
    }

    /// Whether other instances may hear of what this one does: it is an item, or has items.
    #[getter]
    fn related(&self) -> bool {
        let def = &self.program.get().def;
        def.item || def.all_items().next().is_some()
    }

    fn __repr__(&self) -> String {
        format!("<Run {:?} fence {}>", self.id, self.fence)
    }
}

/// One attempt of one step.
#[pyclass(frozen, module = "sayiir._core")]
pub struct Step {
    strand: u32,
    ticket: u32,
    path: Arc<str>,
    #[pyo3(get)]
    attempt: u32,
    /// Takes `input`, gives the output.
    #[pyo3(get, name = "fn")]
    function: Py<PyAny>,
    #[pyo3(get)]
    input: Py<PyAny>,
    /// 0 loop, 1 inline, 2 thread, 3 process.
    #[pyo3(get)]
    mode: u8,
    /// Whether it is simply awaited: on the loop and without a timeout.
    #[pyo3(get)]
    plain: Py<PyAny>,
    #[pyo3(get)]
    timeout: Option<f64>,
    #[pyo3(get)]
    deadline: Option<f64>,
    #[pyo3(get)]
    task: Py<PyAny>,
    #[pyo3(get)]
    run: Py<Run>,
    cancelled: AtomicBool,
}

impl Step {
    fn refuse(&self, py: Python<'_>, failure: &crate::value::EncodeFailure) -> PyErr {
        let name = self
            .task
            .bind(py)
            .getattr("name")
            .map_or_else(|_| String::new(), |name| name.to_string());
        error::encode_text(
            py,
            format!(
                "task '{name}' (at '{}') returned a value of which {failure}",
                self.path
            ),
        )
    }
}

#[pymethods]
impl Step {
    #[getter]
    fn path(&self) -> &str {
        &self.path
    }

    /// Distinguishes the attempts of a run.
    #[getter]
    fn ticket(&self) -> u32 {
        self.ticket
    }

    #[getter]
    fn instance_id(&self, py: Python<'_>) -> Py<PyString> {
        self.run.get().instance_id.clone_ref(py)
    }

    #[getter]
    fn workflow_id(&self, py: Python<'_>) -> Py<PyAny> {
        self.run.get().program.get().name.clone_ref(py)
    }

    #[getter]
    fn workflow_metadata(&self, py: Python<'_>) -> Option<Py<pyo3::types::PyDict>> {
        self.run
            .get()
            .program
            .get()
            .metadata
            .as_ref()
            .map(|metadata| metadata.clone_ref(py))
    }

    /// Whether its result is no longer wanted.
    #[getter]
    fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
            || !self
                .run
                .get()
                .lock()
                .machine
                .is_running(self.strand, self.ticket)
    }

    /// Tells a task that looks at `cancelled` to stop.
    fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    fn __repr__(&self) -> String {
        format!(
            "<Step {:?} of {:?}, attempt {}>",
            self.path,
            self.run.get().id,
            self.attempt
        )
    }
}

/// What to do next, when it is more than one plain step.
#[pyclass(frozen, module = "sayiir._core")]
pub struct Turn {
    /// Steps to start now.
    #[pyo3(get)]
    steps: Py<PyList>,
    /// To be written before anything else; answer it with `committed`.
    #[pyo3(get)]
    commit: Option<Py<Commit>>,
    /// The number of a commit that is on its way; answer its reply with `replied`.
    #[pyo3(get)]
    ticket: Option<u64>,
    /// Tickets of running steps whose results are no longer wanted.
    #[pyo3(get)]
    abandoned: Vec<u32>,
    /// Groups of items of which it has to be asked how they ended; answer with `gathered`.
    #[pyo3(get)]
    gather: Vec<u32>,
    /// `held`, `parked`, `handed_over`, `completed`, `failed`, `cancelled`, `paused` or `lost`.
    #[pyo3(get)]
    state: &'static str,
    /// While held: when to attend to it again.
    #[pyo3(get)]
    wake_at: Option<f64>,
    /// A cancel is pending: running steps that can be stopped should be.
    #[pyo3(get)]
    cancel: bool,
}

impl Turn {
    fn of(py: Python<'_>, answer: &Answer) -> Self {
        Self {
            steps: PyList::empty(py).unbind(),
            commit: None,
            ticket: None,
            abandoned: answer.abandoned.clone(),
            gather: answer.gather.clone(),
            state: word(answer.held),
            wake_at: answer.wake_at_us.map(seconds),
            cancel: answer.cancel,
        }
    }

    fn merge(&mut self, more: &Answer) {
        self.abandoned.extend(&more.abandoned);
        self.state = word(more.held);
        self.wake_at = more.wake_at_us.map(seconds);
    }
}

#[pymethods]
impl Turn {
    fn __repr__(&self, py: Python<'_>) -> String {
        format!(
            "<Turn {} with {} steps>",
            self.state,
            self.steps.bind(py).len()
        )
    }
}

fn word(held: Held) -> &'static str {
    match held {
        Held::Yes => "held",
        Held::Parked => "parked",
        Held::HandedOver => "handed_over",
        Held::Completed => "completed",
        Held::Failed => "failed",
        Held::Cancelled => "cancelled",
        Held::Paused => "paused",
        Held::Lost => "lost",
    }
}
