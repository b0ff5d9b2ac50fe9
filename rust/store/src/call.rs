//! The contract's calls as data, so that a storage thread can take many at once and answer later.

use std::sync::Arc;

use sayiir_core::Bytes;
use sayiir_core::snapshot::Snapshot;
use sayiir_core::state::{Commit, ItemEnd, Reply, StepRow};

use crate::contract::{
    Backlog, Claim, Claimant, ConflictPolicy, Filter, Hash, HistoryRow, InstanceRow, NewInstance,
    News, Page, Request, Status, Store, StoreResult, Submitted,
};

/// One call of [`Store`]; see there.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub enum Call {
    Submit {
        batch: Vec<NewInstance>,
        policy: ConflictPolicy,
    },
    /// Makes sure that the definition is known, and what its first step needs, so that somebody else
    /// may insert instances of it; only PostgreSQL has a use for that.
    Enlist {
        new: Box<NewInstance>,
    },
    CheckSubmit {
        id: Arc<str>,
        hash: Hash,
        policy: ConflictPolicy,
    },
    Claim {
        claimant: Claimant,
        hashes: Arc<[Hash]>,
        limit: usize,
    },
    ClaimOne {
        claimant: Claimant,
        hashes: Arc<[Hash]>,
        id: Arc<str>,
    },
    Renew {
        worker: Arc<str>,
        lease_us: i64,
    },
    Release {
        worker: Arc<str>,
    },
    GiveBack {
        id: Arc<str>,
        fence: u64,
    },
    Commit {
        slot: u64,
        id: Arc<str>,
        fence: u64,
        commit: Arc<Commit>,
    },
    News {
        id: Arc<str>,
        fence: u64,
        names: Vec<Arc<str>>,
    },
    SendEvent {
        id: Arc<str>,
        name: Arc<str>,
        payload: Bytes,
        key: Option<Arc<str>>,
    },
    Cancel {
        id: Arc<str>,
        request: Request,
    },
    Pause {
        id: Arc<str>,
        request: Request,
    },
    Unpause {
        id: Arc<str>,
    },
    Get {
        id: Arc<str>,
    },
    Find {
        filter: Filter,
        limit: usize,
        before: Option<u64>,
    },
    History {
        id: Arc<str>,
    },
    Step {
        id: Arc<str>,
        path_or_name: Arc<str>,
    },
    Input {
        id: Arc<str>,
    },
    Rows {
        id: Arc<str>,
        seqs: Vec<u32>,
    },
    Items {
        id: Arc<str>,
        group: u32,
    },
    Export {
        id: Arc<str>,
    },
    Import {
        snapshot: Arc<Snapshot>,
    },
    Delete {
        id: Arc<str>,
        force: bool,
    },
    Backlog,
    NextWake,
}

/// What a call came to.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub enum Answer {
    Nothing,
    /// Of a definition and of a lane.
    Numbers(i32, i32),
    Submitted(Vec<Submitted>),
    Existing(Option<Box<InstanceRow>>),
    Claims(Vec<Claim>),
    Claim(Option<Box<Claim>>),
    Ids(Vec<Arc<str>>),
    Count(usize),
    Flag(bool),
    Reply(Reply),
    News(News),
    Status(Status),
    Row(Box<InstanceRow>),
    Page(Page),
    History(Vec<HistoryRow>),
    Step(Option<Box<StepRow>>),
    Bytes(Bytes),
    Rows(Vec<StepRow>),
    Items(Vec<ItemEnd>),
    Snapshot(Box<Snapshot>),
    Backlog(Vec<Backlog>),
    Wake(Option<i64>),
}

impl Call {
    /// Whether it changes nothing, apart from leases that have run out.
    #[must_use]
    pub fn only_reads(&self) -> bool {
        matches!(
            self,
            Self::CheckSubmit { .. }
                | Self::News { .. }
                | Self::Get { .. }
                | Self::Find { .. }
                | Self::History { .. }
                | Self::Step { .. }
                | Self::Input { .. }
                | Self::Rows { .. }
                | Self::Items { .. }
                | Self::Backlog
                | Self::NextWake
        )
    }

    /// Makes the call. It may be made again when the transaction around it was undone.
    ///
    /// # Errors
    /// What the store says.
    pub fn perform(&self, store: &dyn Store, now_us: i64) -> StoreResult<Answer> {
        Ok(match self {
            Self::Submit { batch, policy } => {
                Answer::Submitted(store.submit(batch.clone(), *policy, now_us)?)
            }
            Self::Enlist { .. } => Answer::Nothing,
            Self::CheckSubmit { id, hash, policy } => {
                Answer::Existing(store.check_submit(id, hash, *policy, now_us)?)
            }
            Self::Claim {
                claimant,
                hashes,
                limit,
            } => Answer::Claims(store.claim(claimant, hashes, *limit, now_us)?),
            Self::ClaimOne {
                claimant,
                hashes,
                id,
            } => Answer::Claim(store.claim_one(claimant, hashes, id, now_us)?.map(Box::new)),
            Self::Renew { worker, lease_us } => {
                Answer::Ids(store.renew(worker, *lease_us, now_us)?)
            }
            Self::Release { worker } => Answer::Count(store.release(worker, now_us)?),
            Self::GiveBack { id, fence } => Answer::Flag(store.give_back(id, *fence, now_us)?),
            Self::Commit {
                slot,
                id,
                fence,
                commit,
            } => Answer::Reply(store.commit(*slot, id, *fence, commit, now_us)?),
            Self::News { id, fence, names } => Answer::News(store.news(id, *fence, names, now_us)?),
            Self::SendEvent {
                id,
                name,
                payload,
                key,
            } => Answer::Flag(store.send_event(
                id,
                name,
                Bytes::clone(payload),
                key.as_deref(),
                now_us,
            )?),
            Self::Cancel { id, request } => {
                Answer::Status(store.cancel(id, request.clone(), now_us)?)
            }
            Self::Pause { id, request } => {
                Answer::Status(store.pause(id, request.clone(), now_us)?)
            }
            Self::Unpause { id } => Answer::Status(store.unpause(id, now_us)?),
            Self::Get { id } => Answer::Row(Box::new(store.get(id, now_us)?)),
            Self::Find {
                filter,
                limit,
                before,
            } => Answer::Page(store.find(filter, *limit, *before, now_us)?),
            Self::History { id } => Answer::History(store.history(id)?),
            Self::Step { id, path_or_name } => {
                Answer::Step(store.step(id, path_or_name)?.map(Box::new))
            }
            Self::Input { id } => Answer::Bytes(store.input(id)?),
            Self::Rows { id, seqs } => Answer::Rows(store.rows(id, seqs)?),
            Self::Items { id, group } => Answer::Items(store.items(id, *group)?),
            Self::Export { id } => Answer::Snapshot(store.export(id, now_us)?),
            Self::Import { snapshot } => {
                store.import(snapshot, now_us)?;
                Answer::Nothing
            }
            Self::Delete { id, force } => {
                store.delete(id, *force, now_us)?;
                Answer::Nothing
            }
            Self::Backlog => Answer::Backlog(store.backlog(now_us)?),
            Self::NextWake => Answer::Wake(store.next_wake_us()?),
        })
    }
}
