//! The PostgreSQL store: many machines on one database.
//!
//! What it promises beyond the contract:
//!
//! * What was answered is committed; how durable that is, the server's settings say.
//! * The database's clock counts, for leases and for timers. A machine whose clock is wrong does no
//!   harm.
//! * A server that goes away is waited for. A call whose `COMMIT` was not answered is made again in a
//!   form that finds out whether it was done, so nothing is lost or done twice.
//! * Polling is the truth; notifications only make it faster.
//! * It keeps within its budget of connections: one that writes, one that reads and listens, and one
//!   more for leases where the budget allows it.
//!
//! A store has one thread with an event loop of its own, see [`lane`]; callers hand calls over and
//! their answers arrive at a [`Port`](crate::port::Port). Nothing here knows flows, values or Python.

mod clock;
mod connection;
mod family;
mod group;
mod lane;
mod making;
mod moving;
mod reading;
mod report;
mod schema;
mod single;
mod statements;
mod sweeping;
mod tls;
mod trouble;
mod url;

use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use self::clock::Clock;
use self::connection::{Place, Tried, WORDS};
use self::lane::Desk;
pub use self::schema::{VERSION, migrations};
use crate::contract::{StoreError, StoreResult};
use crate::shared::Shared;
use crate::storage::{Report, Storage};

/// How long a statement of a batch waits for a row that somebody else has locked.
const LOCK_TIMEOUT_MS: i64 = 200;

/// What may be set about a PostgreSQL store. Durations are in µs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The schema's name: letters, digits and underscores.
    pub schema: String,
    /// How many connections may be open at once, 2 or more.
    pub max_connections: usize,
    /// How long one statement may take.
    pub statement_timeout_us: i64,
    /// How long one attempt to connect may take.
    pub connect_timeout_us: i64,
    /// How long a call waits for a server that went away.
    pub timeout_us: i64,
    /// How long ended instances are kept; none: until they are deleted.
    pub keep_completed_us: Option<i64>,
    /// How long events wait for an instance that does not exist yet.
    pub keep_orphans_us: i64,
    /// Whether processes tell each other what happens.
    pub notify: bool,
    /// Whether the schema is made or brought up to date with the first connection.
    pub migrate: bool,
    /// Whether time is the database's; else every call brings its own.
    pub own_clock: bool,
}

fn duration(us: i64) -> Duration {
    Duration::from_micros(us.max(0) as u64)
}

impl Settings {
    fn timeout(&self) -> Duration {
        duration(self.timeout_us)
    }

    fn connect_timeout(&self) -> Duration {
        duration(self.connect_timeout_us)
    }

    /// How long before its end a lease is looked at. Where time stands with the caller, nobody is late
    /// by accident.
    fn early_us(&self, lease_us: i64) -> i64 {
        if self.own_clock { lease_us / 3 } else { 0 }
    }

    /// What is set for every session.
    fn session(&self) -> String {
        let statement_ms = (self.statement_timeout_us / 1_000).max(1);
        format!(
            "SET statement_timeout = {statement_ms}; SET lock_timeout = {}; SET client_min_messages = warning",
            LOCK_TIMEOUT_MS.min(statement_ms)
        )
    }
}

/// What is set besides, where the server has it. Every statement goes by an index, also while tables are
/// too small, or too new to have statistics, for the planner to see why; no statement is worth
/// compiling.
const PLANNING: [&str; 5] = [
    // A batch of one seems cheaper to plan for than a batch of any size, and is planned anew each time.
    "SET plan_cache_mode = force_generic_plan",
    "SET jit = off",
    "SET enable_seqscan = off",
    "SET enable_hashjoin = off",
    "SET enable_mergejoin = off",
];

/// A number that nobody can guess.
fn random() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    // The keys of a fresh map are random; that is all that is wanted of it.
    std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish()
}

/// The names of the fail points of the PostgreSQL store.
#[must_use]
pub fn fail_points() -> Vec<String> {
    crate::fail::points(
        statements::ALL
            .iter()
            .map(|statement| statement.name)
            .chain(WORDS),
    )
}

/// Every statement by its name; `sayiir.` stands for the schema.
#[must_use]
pub fn all_statements() -> Vec<(&'static str, &'static str)> {
    statements::ALL
        .iter()
        .map(|statement| (statement.name, statement.sql))
        .collect()
}

/// See the module's opening.
pub struct PostgresStore {
    shared: Arc<Shared>,
    clock: Arc<Clock>,
    url: String,
    settings: Settings,
    shown: String,
    thread: Mutex<Option<JoinHandle<()>>>,
    pid: u32,
}

impl PostgresStore {
    /// Starts the thread, which connects as soon as there is something to do. `Err` is a sentence about
    /// the URL, without any secret.
    ///
    /// # Errors
    /// When the URL makes no sense, or the system refuses a thread.
    pub fn open(url: &str, settings: Settings) -> Result<Self, String> {
        let (_, shown) = read_place(url, &settings, &Arc::default())?;
        let shared = Arc::new(Shared::new(
            format!("PostgreSQL at {shown}"),
            settings.own_clock,
        ));
        let clock = Arc::new(Clock::default());
        let (theirs, ticking) = (Arc::clone(&shared), Arc::clone(&clock));
        let (their_url, their_settings) = (url.to_owned(), settings.clone());
        let thread = std::thread::Builder::new()
            .name("sayiir-postgres".to_owned())
            .spawn(move || {
                let _ = block_on(async move {
                    // Read a moment ago.
                    if let Ok((place, _)) = read_place(&their_url, &their_settings, &ticking) {
                        Desk::new(theirs, place).run().await;
                    }
                });
            })
            .map_err(|error| format!("no thread could be started for PostgreSQL ({error})"))?;
        Ok(Self {
            shared,
            clock,
            url: url.to_owned(),
            settings,
            shown,
            thread: Mutex::new(Some(thread)),
            pid: std::process::id(),
        })
    }

    /// The server and the database, without any secret.
    #[must_use]
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Does something over a connection of its own, on the caller's thread.
    fn apart<T>(&self, body: impl AsyncFn(&Rc<Place>) -> Tried<T>) -> StoreResult<T> {
        self.check()?;
        let done = block_on(async {
            let (place, _) = read_place(&self.url, &self.settings, &Arc::default())
                .map_err(StoreError::Unavailable)?;
            let place = Rc::new(place);
            let deadline = std::time::Instant::now() + self.settings.timeout();
            loop {
                match body(&place).await {
                    // Somebody keeps a table locked, for as long as that takes.
                    Err(failure)
                        if failure.trouble == trouble::Trouble::Locked
                            && std::time::Instant::now() < deadline => {}
                    done => break done.map_err(|failure| failure.error()),
                }
            }
        });
        done.unwrap_or_else(|error| {
            Err(StoreError::Unavailable(format!(
                "PostgreSQL at {}: no event loop could be started for it ({error})",
                self.shown
            )))
        })
    }

    /// The version of the schema; 0 when there is none. Blocks.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub fn schema_version(&self) -> StoreResult<i32> {
        self.apart(async |place| schema::found(place).await)
    }

    /// Brings the schema to this version; from which to which. Blocks.
    ///
    /// # Errors
    /// When it is newer, or the server cannot be asked.
    pub fn migrate(&self) -> StoreResult<(i32, i32)> {
        self.apart(async |place| schema::migrate(place).await)
    }
}

fn read_place(
    url: &str,
    settings: &Settings,
    clock: &Arc<Clock>,
) -> Result<(Place, String), String> {
    let address = url::read(url)?;
    let connector = address.tls.connector()?;
    let shown = address.shown.clone();
    Ok((
        Place::new(address, connector, settings.clone(), Arc::clone(clock)),
        shown,
    ))
}

/// Runs a future, and what it spawns, on this thread.
fn block_on<T>(future: impl Future<Output = T>) -> std::io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?;
    Ok(tokio::task::LocalSet::new().block_on(&runtime, future))
}

impl Storage for PostgresStore {
    fn shared(&self) -> &Shared {
        &self.shared
    }

    fn check(&self) -> StoreResult<()> {
        if self.pid == std::process::id() {
            return Ok(());
        }
        Err(StoreError::Unavailable(format!(
            "PostgreSQL at {}: this backend was made before this process was forked, and cannot be used in it: \
             make backends after the fork, or start processes with the 'spawn' method",
            self.shown
        )))
    }

    fn report(&self) -> StoreResult<Report> {
        self.apart(async |place| report::report(place).await)
    }

    fn now_us(&self) -> Option<i64> {
        self.settings.own_clock.then(|| self.clock.now_us())
    }

    fn close(&self) {
        if self.check().is_err() {
            // The thread stayed in the parent.
            return;
        }
        self.shared.reader.close();
        self.shared.writer.close();
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            // A thread that panicked has lost its calls; their callers' leases run out.
            let _ = thread.join();
        }
    }
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        // Whoever drops it may hold the interpreter's lock, and the thread may be waiting for a server:
        // it ends by itself.
        if self.check().is_ok() {
            self.shared.reader.close();
            self.shared.writer.close();
        } else if let Some(thread) = self
            .thread
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            // In a forked child there is no such thread.
            std::mem::forget(thread);
        }
    }
}
