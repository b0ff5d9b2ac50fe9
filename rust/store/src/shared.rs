//! What a storage thread and the handles to it share: calls on their way, the ports their answers go
//! to, the leases to keep alive, and the instances whose end somebody waits for.
//!
//! Any thread may touch it, and none waits here for more than a few instructions. It does not know
//! where instances are stored.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::call::{Answer, Call};
use crate::contract::{StoreError, StoreResult};
use crate::outbox::Outbox;
use crate::port::{Arrival, Hint, Port};

/// How soon a renewal that failed is tried again.
const RENEW_AGAIN: Duration = Duration::from_millis(50);
/// The most instances whose end is looked out for.
const MOST_WATCHED: usize = 100_000;

/// A call on its way, and where its answer goes.
#[derive(Debug)]
pub struct Job {
    pub ticket: u64,
    pub port: Arc<Port>,
    pub call: Call,
    /// The time it is made at; none: the machine's when it is performed.
    pub now_us: Option<i64>,
}

/// A worker whose leases are kept alive.
#[derive(Debug)]
pub struct Keep {
    pub worker: Arc<str>,
    pub lease_us: i64,
    pub next: Instant,
}

/// Instances whose end somebody in this process waits for.
#[derive(Debug, Default)]
struct Watched {
    ids: HashSet<Arc<str>>,
    /// Those that were not looked at since somebody began to wait.
    fresh: Vec<Arc<str>>,
}

/// What the threads and the handle share.
#[derive(Debug)]
pub struct Shared {
    pub writer: Outbox<Job>,
    pub reader: Outbox<Job>,
    /// What the messages call the place: "SQLite file '/var/app.db'".
    pub subject: String,
    /// Whether time is the store's own; else every call brings its own.
    pub own_clock: bool,
    ports: Mutex<Vec<Weak<Port>>>,
    keeps: Mutex<Vec<Keep>>,
    watched: Mutex<Watched>,
    /// Whether any port wants hints.
    listening: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change under these locks is a single step, so a dead thread leaves them consistent.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// For a place that messages call `subject`.
    pub fn new(subject: String, own_clock: bool) -> Self {
        Self {
            writer: Outbox::default(),
            reader: Outbox::default(),
            subject,
            own_clock,
            ports: Mutex::default(),
            keeps: Mutex::default(),
            watched: Mutex::default(),
            listening: AtomicBool::new(false),
        }
    }

    /// A port begins or stops to want hints of other processes.
    pub fn listen(&self, port: &Arc<Port>, wanted: bool) {
        port.listen(wanted);
        let mut ports = lock(&self.ports);
        ports.retain(|known| {
            known
                .upgrade()
                .is_some_and(|known| !Arc::ptr_eq(&known, port))
        });
        if wanted {
            ports.push(Arc::downgrade(port));
        }
        self.listening.store(!ports.is_empty(), Ordering::Relaxed);
        drop(ports);
        self.writer.nudge();
    }

    /// Hints for all who listen.
    pub fn tell(&self, hints: Vec<(Hint, Arc<str>)>) {
        if hints.is_empty() {
            return;
        }
        let mut ports = lock(&self.ports);
        ports.retain(|port| port.strong_count() > 0);
        self.listening.store(!ports.is_empty(), Ordering::Relaxed);
        let alive: Vec<_> = ports.iter().filter_map(Weak::upgrade).collect();
        drop(ports);
        for port in alive {
            port.push(
                hints
                    .iter()
                    .map(|(hint, id)| Arrival::Hint(*hint, Arc::clone(id))),
            );
        }
    }

    /// Renews a worker's leases from now on.
    pub fn keep(&self, worker: Arc<str>, lease_us: i64) {
        lock(&self.keeps).push(Keep {
            worker,
            lease_us,
            next: Instant::now(),
        });
        self.writer.nudge();
    }

    /// No longer renews a worker's leases.
    pub fn unkeep(&self, worker: &str) {
        lock(&self.keeps).retain(|keep| *keep.worker != *worker);
    }

    /// Workers whose leases should be renewed now, and how long they last.
    pub fn renewals_due(&self) -> Vec<(Arc<str>, i64)> {
        let now = Instant::now();
        lock(&self.keeps)
            .iter()
            .filter(|keep| keep.next <= now)
            .map(|keep| (Arc::clone(&keep.worker), keep.lease_us))
            .collect()
    }

    /// They were, or could not be. A third of the lease is between two, so two may fail.
    pub fn renewed(&self, workers: &[(Arc<str>, i64)], done: bool) {
        if workers.is_empty() {
            return;
        }
        let now = Instant::now();
        for keep in lock(&self.keeps).iter_mut() {
            if workers.iter().any(|(worker, _)| *worker == keep.worker) {
                let wait = Duration::from_micros((keep.lease_us / 3).max(1_000) as u64);
                keep.next = now + if done { wait } else { wait.min(RENEW_AGAIN) };
            }
        }
    }

    /// Workers whose leases are kept.
    pub fn kept(&self) -> Vec<Arc<str>> {
        lock(&self.keeps)
            .iter()
            .map(|keep| Arc::clone(&keep.worker))
            .collect()
    }

    /// When the next lease has to be renewed.
    pub fn next_renewal(&self) -> Option<Instant> {
        lock(&self.keeps).iter().map(|keep| keep.next).min()
    }

    /// Whether any port wants hints of other processes.
    pub fn has_listeners(&self) -> bool {
        self.listening.load(Ordering::Relaxed)
    }

    /// Instances whose end is waited for.
    pub fn watched(&self) -> Vec<Arc<str>> {
        lock(&self.watched).ids.iter().map(Arc::clone).collect()
    }

    /// Those of them that somebody began to wait for since this was asked last.
    pub fn watched_since(&self) -> Vec<Arc<str>> {
        let mut watched = lock(&self.watched);
        let mut fresh = std::mem::take(&mut watched.fresh);
        fresh.retain(|id| watched.ids.contains(id));
        fresh
    }

    /// Somebody waits for the end of this instance.
    pub fn watch(&self, id: Arc<str>) {
        let mut watched = lock(&self.watched);
        if watched.ids.len() < MOST_WATCHED {
            watched.fresh.push(Arc::clone(&id));
            watched.ids.insert(id);
        }
    }

    /// Nobody does any more, or it has ended.
    pub fn unwatch(&self, ids: &[Arc<str>]) {
        if ids.is_empty() {
            return;
        }
        let mut watched = lock(&self.watched);
        for id in ids {
            watched.ids.remove(id);
        }
    }

    /// The answer to a call that came too late.
    pub fn closed(&self) -> StoreError {
        StoreError::Unavailable(format!(
            "{}: its backend was closed; make a new one",
            self.subject
        ))
    }

    /// To be called by a thread that writes, before it answers a batch. If a loop is still at earlier
    /// answers, what it called before is kept for what it calls next: else every crowd that fell apart
    /// once would stay apart for ever.
    pub fn keep_together(&self, jobs: &[Job]) {
        if jobs.iter().any(|job| job.port.is_gathering()) {
            self.writer.calm();
        }
    }

    /// Answers to jobs, which are gone from the list then.
    pub fn deliver(&self, jobs: &mut Vec<Job>, answers: Vec<StoreResult<Answer>>) {
        let mut batch: Vec<Arrival> = Vec::with_capacity(answers.len());
        let mut to: Option<Arc<Port>> = None;
        for (job, answer) in jobs.drain(..).zip(answers) {
            let port = job.port;
            if let Some(known) = to.as_ref().filter(|known| !Arc::ptr_eq(known, &port)) {
                known.push(batch.drain(..));
            }
            to = Some(port);
            batch.push(Arrival::Answer(job.ticket, answer));
        }
        if let Some(port) = to {
            port.push(batch);
        }
    }

    /// Refuses what came too late.
    pub fn refuse_all(&self, outbox: &Outbox<Job>) {
        let mut jobs = Vec::new();
        // Closed and emptied by now; this is for what came in between.
        while outbox.take(&mut jobs, Some(Duration::ZERO)).is_some() && !jobs.is_empty() {
            let answers = jobs.iter().map(|_| Err(self.closed())).collect();
            self.deliver(&mut jobs, answers);
        }
    }
}
