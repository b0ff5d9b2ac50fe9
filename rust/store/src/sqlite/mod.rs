//! The SQLite store: one file, one machine, any number of processes.
//!
//! What it promises beyond the contract:
//!
//! * What was answered is in the write-ahead log and, with [`Synchronous::Full`], on the disk. With
//!   [`Synchronous::Normal`] a killed process still loses nothing; a power cut may take what was
//!   committed within the last second.
//! * A killed process leaves nothing half done: SQLite recovers the log, and the leases of the dead run
//!   out.
//! * A lock that another process holds is waited for, and is an error only after `timeout_us`.
//! * A process that was forked after the file was opened cannot use it, nor open it again: SQLite's
//!   locks do not survive a fork, and using them would damage the file. It gets an error that says so.
//!
//! A store has two threads, see [`lane`]; callers hand calls over and their answers arrive at a
//! [`Port`]. Nothing here knows flows, values or Python.

mod books;
mod checkpoint;
mod claiming;
mod contract_impl;
mod family;
mod lane;
mod leases;
mod listing;
mod moving;
mod reading;
mod schema;
mod seal;
mod statements;
mod sweeping;
mod trouble;

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use sayiir_core::Bytes;

use self::books::Books;
use self::lane::File;
use self::trouble::Trouble;
use crate::contract::{Hash, Status, StoreError, StoreResult};
use crate::shared::Shared;
use crate::storage::{Report, Storage};

/// At most this many buffered events travel with a claim; a holder asks for more.
const CARRIED_EVENTS: i64 = 64;

/// When a commit is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Synchronous {
    /// Before it is answered.
    Full,
    /// Within a second. Safe against crashes of processes, not against power cuts.
    Normal,
}

/// What may be set about a SQLite store.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// When a commit is on the disk.
    pub synchronous: Synchronous,
    /// How long ended instances are kept; none: until they are deleted.
    pub keep_completed_us: Option<i64>,
    /// How long events wait for an instance that does not exist yet.
    pub keep_orphans_us: i64,
    /// How long another process's lock is waited for.
    pub timeout_us: i64,
    /// Whether time is the machine's; else every call brings its own.
    pub own_clock: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            synchronous: Synchronous::Full,
            keep_completed_us: None,
            keep_orphans_us: crate::memory::KEEP_ORPHANS_US,
            timeout_us: 30_000_000,
            own_clock: true,
        }
    }
}

/// Files that this process has open, by device and inode, with the process that opened them: after a
/// fork the child still has the list, and knows that these files are not for it.
static OPEN: Mutex<Option<OpenFiles>> = Mutex::new(None);
type OpenFiles = HashMap<(u64, u64), (u32, usize)>;

/// Counts one open store; gives the count back when dropped.
struct Opened {
    file: (u64, u64),
}

impl Opened {
    fn file_of(path: &str) -> Option<(u64, u64)> {
        let meta = std::fs::metadata(path).ok()?;
        Some((meta.dev(), meta.ino()))
    }

    /// Refuses a file that a parent of this process had open when it forked.
    fn check(path: &str) -> StoreResult<()> {
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        let opener =
            Self::file_of(path).and_then(|file| open.get_or_insert_default().get(&file).copied());
        match opener {
            Some((pid, _)) if pid != std::process::id() => {
                Err(StoreError::Unavailable(after_fork(path)))
            }
            _ => Ok(()),
        }
    }

    fn register(path: &str) -> Option<Self> {
        let file = Self::file_of(path)?;
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        open.get_or_insert_default()
            .entry(file)
            .or_insert((std::process::id(), 0))
            .1 += 1;
        Some(Self { file })
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = open.as_mut()
            && let Some((_, count)) = open.get_mut(&self.file)
        {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.file);
            }
        }
    }
}

fn after_fork(path: &str) -> String {
    format!(
        "SQLite file '{path}' was opened before this process was forked, and cannot be used in it: open \
         backends after the fork, or start processes with the 'spawn' method"
    )
}

/// The names of the fail points of the SQLite store.
#[must_use]
pub fn fail_points() -> Vec<String> {
    crate::fail::points(statements::ALL.iter().map(|statement| statement.name))
}

/// A thread that is still to be joined, and what it holds open.
struct Lanes {
    threads: Vec<JoinHandle<()>>,
    _opened: Option<Opened>,
}

/// See the module's opening.
pub struct SqliteStore {
    file: Arc<File>,
    lanes: Mutex<Option<Lanes>>,
    pid: u32,
}

impl SqliteStore {
    /// Opens a file, making or migrating it as needed, and starts its threads.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] and [`StoreError::Format`] with a sentence that names the file.
    pub fn open(path: &str, settings: Settings) -> StoreResult<Self> {
        Opened::check(path)?;
        let shared = Shared::new(format!("SQLite file '{path}'"), settings.own_clock);
        let shared = Arc::new(File {
            shared: Arc::new(shared),
            settings,
            path: path.into(),
        });
        let writer = lane::books(&shared, true)?;
        let reader = lane::books(&shared, false)?;
        let opened = Opened::register(path);
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(work)
                .map_err(|error| {
                    shared.writer.close();
                    StoreError::Unavailable(format!(
                        "SQLite file '{path}': no thread could be started for it ({error})"
                    ))
                })
        };
        let (write, read) = (Arc::clone(&shared), Arc::clone(&shared));
        let threads = vec![
            spawn(
                "sayiir-write",
                Box::new(move || lane::write_lane(&write, &writer)),
            )?,
            spawn(
                "sayiir-read",
                Box::new(move || lane::read_lane(&read, &reader)),
            )?,
        ];
        Ok(Self {
            file: shared,
            lanes: Mutex::new(Some(Lanes {
                threads,
                _opened: opened,
            })),
            pid: std::process::id(),
        })
    }
}

impl Storage for SqliteStore {
    fn report(&self) -> StoreResult<Report> {
        self.check()?;
        lane::books(&self.file, false)?.report()
    }

    fn shared(&self) -> &Shared {
        &self.file
    }

    fn check(&self) -> StoreResult<()> {
        if self.pid == std::process::id() {
            Ok(())
        } else {
            Err(StoreError::Unavailable(after_fork(&self.file.path)))
        }
    }

    fn close(&self) {
        if self.check().is_err() {
            // The threads stayed in the parent, and so did what they hold.
            return;
        }
        let lanes = self
            .lanes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        // The reader passes calls on to the writer, so it goes first.
        self.file.reader.close();
        let Some(mut lanes) = lanes else {
            return;
        };
        while let Some(thread) = lanes.threads.pop() {
            if lanes.threads.is_empty() {
                self.file.writer.close();
            }
            // A lane that panicked has lost its calls; their callers' leases run out.
            let _ = thread.join();
        }
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        if self.check().is_ok() {
            self.close();
        } else if let Some(lanes) = self
            .lanes
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            std::mem::forget(lanes);
        }
    }
}
