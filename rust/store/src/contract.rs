//! The storage contract: the rows, the calls and the promises every backend keeps.
//!
//! Promises:
//!
//! * Every call is atomic. A call that returned is as durable as the backend is.
//! * A commit is applied if and only if its fence is the instance's current one; otherwise nothing
//!   is written and the answer is `LeaseLost`.
//! * At most one worker holds an instance. A lease ends by a commit that gives it back, by
//!   [`Store::release`], or when its worker was not renewed in time; every claim raises the fence.
//! * A cancel or pause of an instance that nobody holds takes effect at once; of a held one with the
//!   next commit that allows it (see [`sayiir_core::Reply`]).
//! * Events are first in, first out per instance and name; a repeated key has no effect; they may
//!   come before their instance.
//! * Claims come in order of priority, with ageing: each level is worth [`AGEING_US`] of waiting.
//! * An instance that a commit made as an item of a spread map ends together with what its parent
//!   learns of it, in one step. When the last item of a group has ended, or the first has failed in a
//!   group that fails fast, the parent gets the event [`group_event`], once. When nobody awaits a
//!   group any more (the parent said so, ended, or is gone), its unended items are cancelled in the
//!   same step; when the parent is removed, so are its items, and theirs. Items are never removed by
//!   age before their parent is.
//!
//! Time is an argument here too; a backend with a clock of its own may ignore it.

use std::fmt;
use std::sync::Arc;

use sayiir_core::Bytes;
use sayiir_core::advance::Stored;
use sayiir_core::event::Event;
use sayiir_core::id::MAX_NAME_BYTES;
use sayiir_core::policy::Tags;
use sayiir_core::snapshot::{Asked, Snapshot, Unmovable};
use sayiir_core::state::{Commit, ItemEnd, NO_CELLS, Reply, StepRow, StrandId};
pub use sayiir_core::state::{HistoryRow, Status};
use sayiir_core::wire;

/// One level of priority is worth this much waiting, µs.
pub const AGEING_US: i64 = 30_000_000;

/// The fingerprint of a definition.
pub type Hash = [u8; 32];

/// The id of an item of a spread map. The fence of the commit that makes it keeps it apart from the
/// items of an instance that had the parent's id before.
#[must_use]
pub fn item_id(parent: &str, fence: u64, group: StrandId, index: u32) -> Arc<str> {
    let tail = format!("~{fence:x}.{group}[{index}]");
    let mut cut = parent.len().min(MAX_NAME_BYTES - tail.len());
    while !parent.is_char_boundary(cut) {
        cut -= 1;
    }
    format!("{}{tail}", &parent[..cut]).into()
}

/// The words that explain the cancel of an item that nobody awaits any more.
#[must_use]
pub fn unwanted(parent: &str) -> Request {
    Request {
        reason: Some(format!("an item of '{parent}', which does not await it any more").into()),
        by: None,
    }
}

/// What a submit does when the id is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConflictPolicy {
    /// Refuse.
    Fail,
    /// Answer with the existing instance.
    UseExisting,
    /// Remove the existing instance, its events and results, and start anew.
    TerminateExisting,
}

/// A fresh instance.
#[derive(Debug, Clone)]
pub struct NewInstance {
    /// Its id.
    pub id: Arc<str>,
    /// The workflow's name.
    pub workflow: Arc<str>,
    /// The definition it runs.
    pub hash: Hash,
    /// The definition as data, for tools that do not have the code.
    pub tree: Bytes,
    /// The sealed input.
    pub input: Bytes,
    /// Tags and priority of the first step.
    pub needs: (Tags, u8),
    /// Not before, µs.
    pub start_at_us: Option<i64>,
}

/// How a submit went.
#[derive(Debug, Clone)]
pub enum Submitted {
    /// A fresh instance exists.
    Created,
    /// The id was taken; this is what is there (`use_existing`).
    Existing(Box<InstanceRow>),
}

/// Who claims, and what it can do.
#[derive(Debug, Clone)]
pub struct Claimant {
    /// The worker's id, unique among living workers.
    pub worker: Arc<str>,
    /// Tags it offers; none: all.
    pub tags: Option<Tags>,
    /// How long its leases last without renewal, µs.
    pub lease_us: i64,
}

/// A pending request to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Why, in the words of whoever asked.
    pub reason: Option<Arc<str>>,
    /// Who asked.
    pub by: Option<Arc<str>>,
}

/// A claimed instance, with everything its holder needs to go on.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Its id.
    pub id: Arc<str>,
    /// Where the store finds it again; means something to that store alone.
    pub slot: u64,
    /// The fence of this lease.
    pub fence: u64,
    /// The definition it runs.
    pub hash: Hash,
    /// Position and counters.
    pub stored: sayiir_core::advance::Stored,
    /// Tags and priority stored with it.
    pub needs: (Tags, u8),
    /// What the holder needs before it goes on, when looking it up later would cost a round trip.
    pub carried: Option<Box<Carried>>,
    /// Why what is stored of it cannot be trusted; the holder sets it aside.
    pub damage: Option<String>,
}

/// Everything a holder looks up when it takes an instance up.
#[derive(Debug, Clone, Default)]
pub struct Carried {
    /// The sealed input.
    pub input: Bytes,
    /// The rows that the stored position refers to.
    pub rows: Vec<StepRow>,
    /// Buffered events of the names it waits for.
    pub events: Vec<Event>,
}

/// News for the holder of an instance.
#[derive(Debug, Clone, Default)]
pub struct News {
    /// The lease is gone.
    pub lost: bool,
    /// A cancel is pending.
    pub cancel: bool,
    /// A pause is pending.
    pub pause: bool,
    /// Buffered events of the names asked for.
    pub events: Vec<Event>,
}

/// What is true of an instance now.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct InstanceRow {
    pub id: Arc<str>,
    pub workflow: Arc<str>,
    pub hash: Hash,
    pub status: Status,
    pub created_us: i64,
    pub updated_us: i64,
    pub ended_us: Option<i64>,
    pub start_at_us: Option<i64>,
    pub wake_at_us: Option<i64>,
    pub delay_id: Option<Arc<str>>,
    pub signal_id: Option<Arc<str>>,
    pub signal_name: Option<Arc<str>>,
    /// Of a pause or a cancel, pending or in effect.
    pub reason: Option<Arc<str>>,
    /// Who paused or cancelled it.
    pub by: Option<Arc<str>>,
    pub output: Option<Bytes>,
    pub error: Option<Bytes>,
    pub needs: (Tags, u8),
    pub worker: Option<Arc<str>>,
    pub fence: u64,
    pub steps: u32,
}

/// Which instances to list; everything unset matches.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct Filter {
    pub status: Option<Status>,
    pub workflow: Option<String>,
    pub id_prefix: Option<String>,
    pub created_after_us: Option<i64>,
    pub created_before_us: Option<i64>,
}

/// A page of instances, newest first.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The rows.
    pub rows: Vec<InstanceRow>,
    /// Where the next page begins, if there is one.
    pub next: Option<u64>,
}

/// Ready instances of one definition that need the same tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backlog {
    /// The definition.
    pub hash: Hash,
    /// Its workflow's name.
    pub workflow: Arc<str>,
    /// Tags that the next step needs.
    pub tags: Tags,
    /// How many.
    pub ready: usize,
    /// For how long nothing has happened to the one that is next, µs: so long it has been ready.
    pub age_us: i64,
}

/// Why a call was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum StoreError {
    /// No instance has this id.
    NotFound { id: Arc<str> },
    /// The id is taken.
    AlreadyExists { id: Arc<str>, status: Status },
    /// The id is taken by an instance of another definition.
    DefinitionMismatch {
        id: Arc<str>,
        expected: Hash,
        found: Hash,
    },
    /// The call does not apply to an instance in this state.
    InvalidState {
        id: Arc<str>,
        status: Status,
        verb: &'static str,
        hint: &'static str,
    },
    /// The storage cannot be used now: unreachable, read-only, full, locked. The whole sentence.
    Unavailable(String),
    /// What is stored cannot be read: damaged, foreign, or of a newer version. The whole sentence.
    Format(String),
}

impl StoreError {
    /// Whether the storage is in trouble, as opposed to a call that does not apply.
    #[must_use]
    pub fn is_trouble(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Format(_))
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound { id } => {
                write!(
                    f,
                    "there is no instance '{id}'; check the id and the backend it was submitted to"
                )
            }
            Self::AlreadyExists { id, status } => write!(
                f,
                "instance '{id}' already exists and is {}; choose another id, or the conflict policy \
                 'use_existing' or 'terminate_existing'",
                status.word()
            ),
            Self::DefinitionMismatch { id, .. } => write!(
                f,
                "instance '{id}' belongs to another definition of its workflow; let it finish with the old code, \
                 or replace it with the conflict policy 'terminate_existing'"
            ),
            Self::InvalidState {
                id,
                status,
                verb,
                hint,
            } => {
                write!(
                    f,
                    "cannot {verb} instance '{id}': it is {}{hint}",
                    status.word()
                )
            }
            Self::Unavailable(text) | Self::Format(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for StoreError {}

/// The part of a snapshot that an instance's row has; the rest is for the store to fill in.
///
/// # Errors
/// [`StoreError::Format`] when the definition is damaged, or another one than the row says.
pub fn entry_of(
    row: InstanceRow,
    tree: &Bytes,
    awaits: Vec<Arc<str>>,
    asked: Option<Asked>,
) -> StoreResult<Snapshot> {
    let damaged = |why: &str| {
        StoreError::Format(format!(
            "instance '{}' cannot be exported: its stored definition is damaged ({why})",
            row.id
        ))
    };
    if tree.is_empty() {
        return Err(not_movable(
            &row.id,
            row.status,
            "; it is an item of a spread map, which moves with its parent only",
        ));
    }
    let definition = wire::decode_definition(tree).map_err(|error| damaged(&error.to_string()))?;
    if *definition.hash() != row.hash {
        return Err(damaged("it has another hash"));
    }
    Ok(Snapshot {
        definition: Arc::new(definition),
        tree: Bytes::clone(tree),
        id: row.id,
        status: row.status,
        created_us: row.created_us,
        updated_us: row.updated_us,
        start_at_us: row.start_at_us,
        wake_at_us: row.wake_at_us,
        delay_id: row.delay_id,
        signal_id: row.signal_id,
        signal_name: row.signal_name,
        awaits,
        asked,
        needs: row.needs,
        stored: Stored::default(),
        cells_from: NO_CELLS,
        input: Bytes::default(),
        result: row.output.or(row.error),
        steps: Vec::new(),
        events: Vec::new(),
    })
}

fn not_movable(id: &Arc<str>, status: Status, hint: &'static str) -> StoreError {
    StoreError::InvalidState {
        id: Arc::clone(id),
        status,
        verb: "export",
        hint,
    }
}

/// The snapshot, if the instance is one that can be moved.
///
/// # Errors
/// [`StoreError::InvalidState`] for an item of a spread map and for an instance that awaits some;
/// [`StoreError::Format`] when its position is damaged.
pub fn movable(snapshot: Snapshot) -> StoreResult<Box<Snapshot>> {
    let (id, status) = (Arc::clone(&snapshot.id), snapshot.status);
    match snapshot.movable() {
        Ok(snapshot) => Ok(Box::new(snapshot)),
        Err(Unmovable::Item) => Err(not_movable(
            &id,
            status,
            "; it is an item of a spread map, which moves with its parent only",
        )),
        Err(Unmovable::AwaitsItems) => Err(not_movable(
            &id,
            status,
            "; it awaits the items of a spread map, which are instances of their own; export it when the map is done",
        )),
        Err(Unmovable::Damaged(error)) => Err(StoreError::Format(format!(
            "instance '{id}' cannot be exported: {error}"
        ))),
    }
}

/// `Result` with a [`StoreError`].
pub type StoreResult<T> = std::result::Result<T, StoreError>;

/// The contract. See the module's opening for the promises.
pub trait Store {
    /// Creates instances, all or none, or answers as `policy` says; exactly one of many concurrent
    /// submits of one id creates. Ids within a batch differ.
    fn submit(
        &self,
        batch: Vec<NewInstance>,
        policy: ConflictPolicy,
        now_us: i64,
    ) -> StoreResult<Vec<Submitted>>;

    /// Whether a submit under `policy` would be refused, before anything is encoded.
    fn check_submit(
        &self,
        id: &str,
        hash: &Hash,
        policy: ConflictPolicy,
        now_us: i64,
    ) -> StoreResult<Option<Box<InstanceRow>>>;

    /// Claims up to `limit` ready instances of these definitions, best first.
    fn claim(
        &self,
        claimant: &Claimant,
        hashes: &[Hash],
        limit: usize,
        now_us: i64,
    ) -> StoreResult<Vec<Claim>>;

    /// Claims this instance if it is ready, nobody holds it, and the claimant can do it.
    fn claim_one(
        &self,
        claimant: &Claimant,
        hashes: &[Hash],
        id: &str,
        now_us: i64,
    ) -> StoreResult<Option<Claim>>;

    /// Prolongs all leases of a worker; answers the ids whose holder has something to attend to.
    fn renew(&self, worker: &str, lease_us: i64, now_us: i64) -> StoreResult<Vec<Arc<str>>>;

    /// Gives back all leases of a worker; answers how many.
    fn release(&self, worker: &str, now_us: i64) -> StoreResult<usize>;

    /// Gives one lease back, if this fence still holds it; for a holder that cannot go on.
    fn give_back(&self, id: &str, fence: u64, now_us: i64) -> StoreResult<bool>;

    /// Applies one checkpoint.
    ///
    /// `slot` comes from the claim; 0 when it is not known.
    fn commit(
        &self,
        slot: u64,
        id: &Arc<str>,
        fence: u64,
        commit: &Commit,
        now_us: i64,
    ) -> StoreResult<Reply>;

    /// What the holder should know: pending requests and events of these names.
    fn news(&self, id: &str, fence: u64, names: &[Arc<str>], now_us: i64) -> StoreResult<News>;

    /// Buffers an event, and wakes its instance if that waits for it. `false`: the key was known.
    fn send_event(
        &self,
        id: &str,
        name: &str,
        payload: Bytes,
        key: Option<&str>,
        now_us: i64,
    ) -> StoreResult<bool>;

    /// Cancels, or asks the holder to; answers the status after the call.
    fn cancel(&self, id: &str, request: Request, now_us: i64) -> StoreResult<Status>;

    /// Pauses, or asks the holder to; answers the status after the call.
    fn pause(&self, id: &str, request: Request, now_us: i64) -> StoreResult<Status>;

    /// Takes a pause back.
    fn unpause(&self, id: &str, now_us: i64) -> StoreResult<Status>;

    /// One instance.
    fn get(&self, id: &str, now_us: i64) -> StoreResult<InstanceRow>;

    /// Many instances, newest first; `before` is a former page's `next`.
    fn find(
        &self,
        filter: &Filter,
        limit: usize,
        before: Option<u64>,
        now_us: i64,
    ) -> StoreResult<Page>;

    /// An instance's history.
    fn history(&self, id: &str) -> StoreResult<Vec<HistoryRow>>;

    /// The newest completed step with this path, else with this task name.
    fn step(&self, id: &str, path_or_name: &str) -> StoreResult<Option<StepRow>>;

    /// The sealed input.
    fn input(&self, id: &str) -> StoreResult<Bytes>;

    /// Outputs and error records of step rows; rows that do not exist are left out.
    fn rows(&self, id: &str, seqs: &[u32]) -> StoreResult<Vec<StepRow>>;

    /// How the items of a group of this instance ended, by their indexes.
    fn items(&self, id: &str, group: StrandId) -> StoreResult<Vec<ItemEnd>>;

    /// Everything that is stored of an instance, all of the same moment.
    fn export(&self, id: &str, now_us: i64) -> StoreResult<Box<Snapshot>>;

    /// Creates an instance under the snapshot's id, as the snapshot says, held by nobody. What was
    /// asked of it takes effect.
    fn import(&self, snapshot: &Snapshot, now_us: i64) -> StoreResult<()>;

    /// Removes an instance with its history and events; a running one only with `force`.
    fn delete(&self, id: &str, force: bool, now_us: i64) -> StoreResult<()>;

    /// What is ready, by definition and tags.
    fn backlog(&self, now_us: i64) -> StoreResult<Vec<Backlog>>;

    /// The earliest timer, if any.
    fn next_wake_us(&self) -> StoreResult<Option<i64>>;
}
