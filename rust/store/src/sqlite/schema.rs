//! Opening a file: what must be true of it, its settings, and its migrations.
//!
//! A file is ours when its application id says so or when it is empty; its schema version is
//! SQLite's `user_version`. Migrations are numbered, only go forward, and run in one transaction under
//! the write lock, so of many processes that open an old file at once one migrates. A version newer
//! than this code knows is refused.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::trouble::Trouble;
use super::{Settings, Synchronous};
use crate::contract::{StoreError, StoreResult};
use crate::keeper::wall_us;

/// `SYRS`, as the envelopes begin.
const APPLICATION_ID: i64 = 0x5359_5253;
/// One step for each version, from the one before.
const MIGRATIONS: [&str; 2] = [
    include_str!("../sql/sqlite_0001.sql"),
    include_str!("../sql/sqlite_0002.sql"),
];
/// The WAL is written back when it has this many pages (of 4 KiB).
const WAL_PAGES: u32 = 4_000;
/// The WAL file is cut to this size when it was written back.
const WAL_BYTES: u32 = 64 << 20;
const CACHE_KIB: i32 = 64 << 10;

/// The version that this code writes.
pub const VERSION: i64 = MIGRATIONS.len() as i64;

/// How often a lock is asked for in vain before whoever asks looks at the time.
const BUSY_TRIES: i32 = 64;

/// Waits a little for a lock that another process holds. Jittered, so that two processes do not stay
/// in step; short, because a transaction takes about a millisecond.
fn wait_for_lock(tries: i32) -> bool {
    let noise = (wall_us() as u32) ^ std::process::id().rotate_left(7);
    let spread = u64::from(noise.wrapping_mul(2_654_435_761) >> 22);
    let base = if tries < 8 { 100 } else { 400 };
    std::thread::sleep(Duration::from_micros(base + spread / 4));
    tries < BUSY_TRIES
}

/// Does something that needs a lock, until it is had or `settings.timeout_us` is over.
pub fn insist<T>(
    trouble: &Trouble,
    settings: &Settings,
    mut attempt: impl FnMut() -> rusqlite::Result<T>,
) -> StoreResult<T> {
    let deadline = Instant::now() + Duration::from_micros(settings.timeout_us.max(0) as u64);
    loop {
        match attempt() {
            Err(error) if Trouble::is_busy(&error) && Instant::now() < deadline => {}
            Err(error) => return Err(trouble.of_error(&error)),
            Ok(value) => return Ok(value),
        }
    }
}

/// Opens a connection; with `create` also makes and migrates the file.
pub fn open(path: &str, settings: &Settings, create: bool) -> StoreResult<Connection> {
    let trouble = Trouble::of(path);
    let unavailable = |what: String| Err(StoreError::Unavailable(trouble.say(&what)));
    let file = Path::new(path);
    if let Some(folder) = file.parent()
        && !folder.as_os_str().is_empty()
        && !folder.is_dir()
    {
        return unavailable(format!(
            "its folder '{}' does not exist; make it, or name another one",
            folder.display()
        ));
    }
    if file.is_dir() {
        return unavailable("this is a folder; name a file".to_owned());
    }
    let of = |error: &rusqlite::Error| trouble.of_error(error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(file, flags).map_err(|e| of(&e))?;
    conn.busy_handler(Some(wait_for_lock)).map_err(|e| of(&e))?;
    if create {
        // Nothing is written into a file that is not ours: that its journal is a log stays for good.
        check_ours(insist(&trouble, settings, || identity(&conn))?, &trouble)?;
        if conn.is_readonly(rusqlite::MAIN_DB).map_err(|e| of(&e))? {
            return unavailable(
                "it cannot be written; check the permissions of the file and of its folder"
                    .to_owned(),
            );
        }
        let mode: String = insist(&trouble, settings, || {
            conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))
        })?;
        if mode != "wal" {
            return unavailable(format!(
                "it cannot keep a write-ahead log (its journal is '{mode}'); a file on a local disk can"
            ));
        }
    }
    // Without this a statement is planned anew whenever a bound value might allow a better plan.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)
        .map_err(|e| of(&e))?;
    let synchronous = match settings.synchronous {
        Synchronous::Full => "FULL",
        Synchronous::Normal => "NORMAL",
    };
    insist(&trouble, settings, || {
        conn.execute_batch(&format!(
            "PRAGMA synchronous = {synchronous};
             PRAGMA wal_autocheckpoint = {WAL_PAGES};
             PRAGMA journal_size_limit = {WAL_BYTES};
             PRAGMA cache_size = -{CACHE_KIB};
             PRAGMA temp_store = MEMORY;
             PRAGMA trusted_schema = OFF;
             PRAGMA foreign_keys = OFF;
             PRAGMA cell_size_check = ON;"
        ))
    })?;
    if create {
        migrate(&conn, &trouble, settings)?;
    }
    Ok(conn)
}

fn number(conn: &Connection, pragma: &str) -> rusqlite::Result<i64> {
    conn.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get(0))
}

/// What a file says it is: how many tables it has, whose it is, and its version.
type Identity = (i64, i64, i64);

fn identity(conn: &Connection) -> rusqlite::Result<Identity> {
    let tables = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok((
        tables,
        number(conn, "application_id")?,
        number(conn, "user_version")?,
    ))
}

/// The version of a file that is empty or one of ours, and not newer than this code.
fn check_ours((tables, application, version): Identity, trouble: &Trouble) -> StoreResult<i64> {
    if application != APPLICATION_ID && (application != 0 || tables > 0) {
        return Err(StoreError::Format(
            trouble.say("it is a database of another program; name another file"),
        ));
    }
    if !(0..=VERSION).contains(&version) {
        return Err(StoreError::Format(trouble.say(&format!(
            "its schema has version {version}, and this sayiir knows versions up to {VERSION}; use a \
             newer sayiir"
        ))));
    }
    Ok(version)
}

fn migrate(conn: &Connection, trouble: &Trouble, settings: &Settings) -> StoreResult<()> {
    let of = |error: &rusqlite::Error| trouble.of_error(error);
    insist(trouble, settings, || conn.execute_batch("BEGIN IMMEDIATE"))?;
    let result = (|| {
        let version = check_ours(identity(conn).map_err(|e| of(&e))?, trouble)?;
        for migration in &MIGRATIONS[version as usize..] {
            conn.execute_batch(migration).map_err(|e| of(&e))?;
        }
        if version < VERSION {
            conn.execute_batch(&format!(
                "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION};"
            ))
            .map_err(|e| of(&e))?;
        }
        conn.execute_batch("COMMIT").map_err(|e| of(&e))
    })();
    if result.is_err() && !conn.is_autocommit() {
        // The first error is the one to tell of.
        let _ = conn.execute_batch("ROLLBACK");
    }
    result
}
