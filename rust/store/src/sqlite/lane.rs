//! The storage threads of one open file: one that writes and one that only reads.
//!
//! The invariant of the write lane: an answer leaves it only after the transaction that holds the
//! call's effects was committed, so whoever hears an answer may rely on its being durable. A batch is
//! whatever gathered while the batch before it was written. When the database is in trouble the batch
//! is undone and its calls are made again one by one, so that one damaged instance fails one call.
//!
//! The write lane also keeps leases alive, notices what other processes did, and removes what is no
//! longer kept. It holds Rust data only, and waits for nobody but the disk and the lock.
//!
//! The read lane answers what changes nothing, beside the writer and from the last committed state. A
//! lease that has run out must be taken back first, which only the writer can do, so then it passes
//! its calls on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::books::Books;
use super::statements as sql;
use super::{Settings, Synchronous, schema};
use crate::call::{Answer, Call};
use crate::contract::{Store as _, StoreError, StoreResult};
use crate::keeper::wall_us;
use crate::port::Hint;
use crate::shared::{Job, Shared};

/// How often the write lane looks for what other processes did, while something goes on.
const LOOK_BUSY: Duration = Duration::from_millis(2);
/// The same when nothing has happened for [`QUIET`].
const LOOK_IDLE: Duration = Duration::from_millis(4);
const QUIET: Duration = Duration::from_secs(5);
/// Looking takes no more than this part of the time.
const LOOK_SHARE: u32 = 10;
/// With `synchronous = NORMAL`, what was written is synced this often: the most a power cut takes.
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// How often an idle process removes what is no longer kept.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// The same when nothing is due by time.
const SWEEP_SELDOM: Duration = Duration::from_secs(60);

/// What the two threads and the handle share.
pub struct File {
    pub shared: Arc<Shared>,
    pub settings: Settings,
    pub path: Arc<str>,
}

impl std::ops::Deref for File {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

/// Why a batch was undone.
enum Undone {
    /// The transaction could not begin; no call is to blame.
    NotBegun(StoreError),
    /// A call, or the end of the transaction, met trouble.
    Failed(StoreError),
}

/// Performs jobs in one writing transaction; an error undoes all of them.
///
/// Leases are renewed first, and with the time after the wait for the lock.
fn attempt(shared: &File, books: &Books, jobs: &[Job]) -> Result<Vec<StoreResult<Answer>>, Undone> {
    begin(shared, books, true).map_err(Undone::NotBegun)?;
    let wall = wall_us();
    let due = shared.renewals_due();
    let mut told = Vec::new();
    let result = (|| {
        for (worker, lease_us) in &due {
            told.extend(books.renew(worker, *lease_us, wall)?);
        }
        let answers = perform(books, jobs, wall)?;
        let latest = jobs.iter().filter_map(|job| job.now_us).max();
        books.sweep_sometimes(latest.unwrap_or(wall))?;
        books.commit()?;
        Ok(answers)
    })();
    if result.is_err() {
        books.rollback();
    }
    shared.renewed(&due, result.is_ok());
    if result.is_ok() {
        shared.tell(told.into_iter().map(|id| (Hint::News, id)).collect());
    }
    result.map_err(Undone::Failed)
}

/// Claims come last, so that they find what the batch makes; but not behind a release, which is to give
/// back what was claimed before it.
fn perform(books: &Books, jobs: &[Job], wall: i64) -> StoreResult<Vec<StoreResult<Answer>>> {
    let mut answers: Vec<Option<StoreResult<Answer>>> = jobs.iter().map(|_| None).collect();
    let mut one = |at: usize| {
        let job = &jobs[at];
        match job.call.perform(books, job.now_us.unwrap_or(wall)) {
            Err(error) if error.is_trouble() => Err(error),
            answer => {
                answers[at] = Some(answer);
                Ok(())
            }
        }
    };
    let mut claims = Vec::new();
    for (at, job) in jobs.iter().enumerate() {
        match job.call {
            // Where time stands with the callers, their order is the order of time.
            Call::Claim { .. } if job.now_us.is_none() => claims.push(at),
            Call::Release { .. } => {
                claims.drain(..).try_for_each(&mut one)?;
                one(at)?;
            }
            _ => one(at)?,
        }
    }
    claims.into_iter().try_for_each(one)?;
    Ok(answers
        .into_iter()
        .map(|answer| answer.unwrap_or(Ok(Answer::Nothing)))
        .collect())
}

fn begin(shared: &File, books: &Books, write: bool) -> StoreResult<()> {
    let deadline = Instant::now() + Duration::from_micros(shared.settings.timeout_us.max(0) as u64);
    loop {
        match books.begin(write) {
            Err(_) if books.was_busy() && Instant::now() < deadline => {}
            other => return other,
        }
    }
}

/// Makes one attempt with all jobs, and when a call meets trouble, one with each job alone.
fn attempt_each(
    jobs: &[Job],
    mut attempt: impl FnMut(&[Job]) -> Result<Vec<StoreResult<Answer>>, Undone>,
) -> Vec<StoreResult<Answer>> {
    match attempt(jobs) {
        Ok(answers) => answers,
        Err(Undone::NotBegun(error)) => jobs.iter().map(|_| Err(error.clone())).collect(),
        Err(Undone::Failed(error)) if jobs.len() == 1 => vec![Err(error)],
        Err(Undone::Failed(_)) => jobs
            .iter()
            .map(|job| match attempt(std::slice::from_ref(job)) {
                Ok(mut answers) => answers.pop().unwrap_or(Ok(Answer::Nothing)),
                Err(Undone::NotBegun(error) | Undone::Failed(error)) => Err(error),
            })
            .collect(),
    }
}

/// The write lane's own duties.
struct Duties {
    data_version: i64,
    looked: Instant,
    look_again: Instant,
    /// When somebody last did something, here or in another process.
    active: Instant,
    told: HashMap<Arc<str>, i64>,
    synced: Instant,
    unsynced: bool,
    swept: Instant,
    more_to_sweep: bool,
}

/// Runs until the outbox is closed and empty.
pub fn write_lane(shared: &File, books: &Books) {
    let now = Instant::now();
    let mut duties = Duties {
        data_version: 0,
        looked: now,
        look_again: now,
        active: now,
        told: HashMap::new(),
        synced: now,
        unsynced: false,
        swept: now,
        more_to_sweep: true,
    };
    let mut jobs = Vec::new();
    while shared.writer.take(&mut jobs, duties.wait(shared)).is_some() {
        if !jobs.is_empty() || !shared.renewals_due().is_empty() {
            let answers = attempt_each(&jobs, |jobs| attempt(shared, books, jobs));
            shared.unwatch(&books.ended.borrow());
            shared.keep_together(&jobs);
            shared.deliver(&mut jobs, answers);
            shared.tell(std::mem::take(&mut *books.told.borrow_mut()));
            duties.active = Instant::now();
            duties.unsynced = true;
        }
        duties.look_abroad(shared, books);
        duties.sweep(shared, books);
        duties.sync(shared, books);
    }
    shared.refuse_all(&shared.writer);
}

fn sweep_every(settings: &Settings) -> Duration {
    match settings.keep_completed_us {
        Some(_) => SWEEP_EVERY,
        None => SWEEP_SELDOM,
    }
}

impl Duties {
    /// How long the lane may sleep when no job comes.
    fn wait(&self, shared: &File) -> Option<Duration> {
        let now = Instant::now();
        let mut until: Option<Instant> = None;
        let mut sooner = |at: Instant| {
            until = Some(until.map_or(at, |known| known.min(at)));
        };
        if let Some(next) = shared.next_renewal() {
            sooner(next);
        }
        if shared.has_listeners() {
            let every = if now.duration_since(self.active) < QUIET {
                LOOK_BUSY
            } else {
                LOOK_IDLE
            };
            sooner((self.looked + every).max(self.look_again));
        }
        if self.more_to_sweep {
            sooner(now);
        } else if shared.settings.own_clock {
            sooner(self.swept + sweep_every(&shared.settings));
        }
        if self.unsynced && shared.settings.synchronous == Synchronous::Normal {
            sooner(self.synced + SYNC_EVERY);
        }
        until.map(|at| at.saturating_duration_since(now))
    }

    /// Notices what other processes committed, and tells those who listen.
    fn look_abroad(&mut self, shared: &File, books: &Books) {
        let now = Instant::now();
        if !shared.has_listeners()
            || now < self.look_again
            || now.duration_since(self.looked) < LOOK_BUSY
        {
            return;
        }
        self.looked = now;
        let Ok(Some(version)) = books.one(&sql::DATA_VERSION, [], |row| row.get::<_, i64>(0))
        else {
            return;
        };
        let mut hints = Vec::new();
        let mut watched = shared.watched_since();
        if version != self.data_version {
            self.data_version = version;
            self.active = now;
            hints.push((Hint::Work, Arc::from("")));
            watched = shared.watched();
        } else if watched.is_empty() {
            return;
        }
        // What cannot be read now is found by polling.
        if books.begin(false).is_ok() {
            let _ = self.gather(shared, books, watched, &mut hints);
            let _ = books.commit();
            books.rollback();
        }
        shared.tell(hints);
        self.look_again = now + now.elapsed() * LOOK_SHARE;
    }

    fn gather(
        &mut self,
        shared: &File,
        books: &Books,
        watched: Vec<Arc<str>>,
        hints: &mut Vec<(Hint, Arc<str>)>,
    ) -> StoreResult<()> {
        let workers = shared.kept();
        let before = std::mem::take(&mut self.told);
        for worker in workers {
            for alert in books.alerted(&worker)? {
                if before.get(&alert.id) != Some(&alert.count) {
                    hints.push((Hint::News, Arc::clone(&alert.id)));
                }
                self.told.insert(alert.id, alert.count);
            }
        }
        let mut ended = Vec::new();
        for id in watched {
            if books
                .status_of(&id)?
                .is_none_or(|status| status.is_terminal())
            {
                ended.push(id);
            }
        }
        shared.unwatch(&ended);
        hints.extend(ended.into_iter().map(|id| (Hint::Ended, id)));
        Ok(())
    }

    /// Removes what is no longer kept, a transaction's worth.
    fn sweep(&mut self, shared: &File, books: &Books) {
        let settings = &shared.settings;
        let due = settings.own_clock && self.swept.elapsed() >= sweep_every(settings);
        if !due && !self.more_to_sweep {
            return;
        }
        self.swept = Instant::now();
        if !settings.own_clock {
            // Time stands with whoever calls; the calls' own transactions sweep.
            self.more_to_sweep = false;
            return;
        }
        let result = begin(shared, books, true)
            .and_then(|()| books.free_orphans(wall_us()))
            .and_then(|()| books.sweep(wall_us()))
            .and_then(|more| books.commit().map(|()| more));
        if result.is_err() {
            books.rollback();
        }
        self.more_to_sweep = result.unwrap_or(false);
    }

    /// With `synchronous = NORMAL`: syncs what was written since the last time.
    fn sync(&mut self, shared: &File, books: &Books) {
        if shared.settings.synchronous == Synchronous::Normal
            && self.unsynced
            && self.synced.elapsed() >= SYNC_EVERY
        {
            self.synced = Instant::now();
            self.unsynced = books.sync_log().is_err();
        }
    }
}

/// Runs until the outbox is closed and empty.
pub fn read_lane(shared: &File, books: &Books) {
    let mut jobs = Vec::new();
    let mut late = Vec::new();
    while shared.reader.take(&mut jobs, None).is_some() {
        if jobs.is_empty() {
            continue;
        }
        let answers = read(shared, books, &mut jobs, &mut late);
        shared.deliver(&mut jobs, answers);
        for job in late.drain(..) {
            if let Err(job) = shared.writer.push(job, false) {
                shared.deliver(&mut vec![job], vec![Err(shared.closed())]);
            }
        }
    }
    shared.refuse_all(&shared.reader);
}

/// Answers jobs from one snapshot. Those for which a lease has run out there go to `late`.
fn read(
    shared: &File,
    books: &Books,
    jobs: &mut Vec<Job>,
    late: &mut Vec<Job>,
) -> Vec<StoreResult<Answer>> {
    let wall = wall_us();
    let begun = begin(shared, books, false).and_then(|()| books.earliest_look_us());
    match begun {
        Ok(earliest) => {
            late.extend(jobs.extract_if(.., |job| job.now_us.unwrap_or(wall) >= earliest))
        }
        Err(error) => {
            books.rollback();
            return jobs.iter().map(|_| Err(error.clone())).collect();
        }
    }
    let mut begun = true;
    attempt_each(jobs, |jobs| {
        // The snapshot serves the first attempt; after trouble each job gets a fresh one.
        if !std::mem::take(&mut begun) {
            begin(shared, books, false).map_err(Undone::NotBegun)?;
        }
        let result = perform(books, jobs, wall).and_then(|answers| {
            books.commit()?;
            Ok(answers)
        });
        books.rollback();
        result.map_err(Undone::Failed)
    })
}

/// Opens a connection for a lane.
pub fn books(shared: &File, create: bool) -> StoreResult<Books> {
    let conn = schema::open(&shared.path, &shared.settings, create)?;
    Ok(Books::new(conn, &shared.path, shared.settings, !create))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{Claimant, ConflictPolicy, NewInstance};
    use crate::port::Port;

    const HASH: [u8; 32] = [7; 32];

    fn submit(id: &str) -> Call {
        let new = NewInstance {
            id: id.into(),
            workflow: "w".into(),
            hash: HASH,
            tree: Arc::from(*b"tree"),
            input: Arc::from(*b"input"),
            needs: (Arc::from([]), 3),
            start_at_us: None,
        };
        Call::Submit {
            batch: vec![new],
            policy: ConflictPolicy::Fail,
        }
    }

    fn claim() -> Call {
        Call::Claim {
            claimant: Claimant {
                worker: "worker".into(),
                tags: None,
                lease_us: 30_000_000,
            },
            hashes: Arc::from([HASH]),
            limit: 2,
        }
    }

    /// What calls that share a batch come to.
    fn performed(name: &str, calls: Vec<Call>) -> Vec<Answer> {
        let folder = std::env::temp_dir().join(format!("sayiir-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = File {
            shared: Arc::new(Shared::new("a file".to_owned(), true)),
            settings: Settings::default(),
            path: folder.join("batch.db").to_str().unwrap().into(),
        };
        let books = books(&file, true).unwrap();
        let port = Arc::new(Port::new().unwrap());
        let jobs: Vec<Job> = calls
            .into_iter()
            .map(|call| Job {
                ticket: port.next_ticket(),
                port: Arc::clone(&port),
                call,
                now_us: None,
            })
            .collect();
        let answers = attempt(&file, &books, &jobs).map_err(|_| "undone").unwrap();
        drop(books);
        std::fs::remove_dir_all(folder).unwrap();
        answers.into_iter().map(Result::unwrap).collect()
    }

    fn claimed(answer: &Answer) -> Vec<&str> {
        match answer {
            Answer::Claims(claims) => claims.iter().map(|claim| &*claim.id).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_claim_finds_what_its_batch_makes() {
        let answers = performed(
            "finds",
            vec![submit("a"), claim(), submit("b"), submit("c")],
        );
        assert_eq!(claimed(&answers[1]), ["a", "b"]);
    }

    #[test]
    fn a_release_gives_back_what_was_claimed_before_it() {
        let release = Call::Release {
            worker: "worker".into(),
        };
        let answers = performed(
            "releases",
            vec![claim(), submit("a"), release, submit("b"), claim()],
        );
        assert_eq!(claimed(&answers[0]), ["a"]);
        assert!(matches!(answers[2], Answer::Count(1)));
        assert_eq!(claimed(&answers[4]), ["a", "b"]);
    }
}
