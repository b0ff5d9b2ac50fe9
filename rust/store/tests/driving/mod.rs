//! One worker in miniature: instances of a few plain flows, driven to their end in this thread.
//!
//! It does what the binding layer does for each fact (report, commit, apply, reply, next start), with
//! bodies that cost nothing, so that what is counted is the engine's and the store's own. Without a
//! store, [`Book`] keeps the rows. It refuses to know what is counted, and how.

#![allow(dead_code)] // each binary that declares it asks for its own part
#![allow(clippy::unwrap_used, clippy::panic)] // a measurement may stop where it stands

use std::sync::Arc;

pub use sayiir_core::Definition;
use sayiir_core::advance::{Held, Machine, Start, Stored, Values};
use sayiir_core::definition::{OnError, OnMax};
pub use sayiir_core::envelope::Bytes;
use sayiir_core::envelope::{self, codec, kind};
use sayiir_core::policy::TaskPolicy;
use sayiir_core::state::{Commit, ItemEnd, Next, Reply, Seq, StepRow, StrandId};
use sayiir_core::wire::encode_definition;
use sayiir_core::{NodeSpec, TaskSpec};
use sayiir_store::memory::{MemoryStore, Settings, StoredValues};
use sayiir_store::{Claim, Claimant, ConflictPolicy, NewInstance, Store};

/// When everything happens, µs.
pub const NOW: i64 = 1_700_000_000_000_000;

/// One value, sealed.
pub fn value(body: &[u8]) -> Bytes {
    envelope::sealed(kind::VALUE, codec::MSGPACK, body)
}

/// A payload of 100 bytes.
pub fn plain() -> Bytes {
    value(&[&[0xc4, 86][..], &[7; 86]].concat())
}

/// A list of so many small numbers, up to 65,535.
pub fn numbers(count: u16) -> Bytes {
    value(&[&[0xdc][..], &count.to_be_bytes(), &vec![1; count.into()]].concat())
}

/// A `LoopResult` around nothing.
pub fn turn(done: bool) -> Bytes {
    let flag = if done { 0xc3 } else { 0xc2 };
    value(&[0xc7, 3, envelope::ext::LOOP_RESULT, 0x92, flag, 0xc0])
}

fn step(name: &str) -> NodeSpec {
    NodeSpec::Task {
        name: name.into(),
        task: 0,
    }
}

fn flow(nodes: &[NodeSpec]) -> Arc<Definition> {
    let task = TaskSpec {
        name: "work".into(),
        policy: TaskPolicy::default(),
    };
    Arc::new(Definition::build("guarded", vec![task], nodes).unwrap())
}

/// So many steps in a row.
pub fn linear(steps: usize) -> Arc<Definition> {
    let nodes: Vec<_> = (0..steps).map(|at| step(&format!("s{at}"))).collect();
    flow(&nodes)
}

/// So many branches of one step, and a join.
pub fn fork(branches: usize) -> Arc<Definition> {
    let branches = (0..branches)
        .map(|at| (format!("b{at}"), vec![step("work")]))
        .collect();
    let name = "fork".into();
    flow(&[NodeSpec::Fork { name, branches }, step("join")])
}

/// One step over every item of the input.
pub fn map() -> Arc<Definition> {
    flow(&[NodeSpec::Map {
        name: "map".into(),
        body: vec![step("work")],
        concurrency: None,
        on_error: OnError::Fail,
    }])
}

/// One step, turn after turn.
pub fn repeat() -> Arc<Definition> {
    flow(&[NodeSpec::Loop {
        name: "loop".into(),
        body: vec![step("work")],
        max_iterations: 1_000_000,
        on_max: OnMax::Fail,
    }])
}

/// The rows of one instance that no store keeps.
#[derive(Debug, Default)]
pub struct Book {
    input: Option<Bytes>,
    rows: Vec<StepRow>,
}

impl Book {
    fn row<T>(&self, seq: Seq, pick: impl Fn(&StepRow) -> Option<T>) -> Option<T> {
        self.rows.get(seq as usize).and_then(pick)
    }
}

impl Values for Book {
    fn input(&self) -> Option<Bytes> {
        self.input.clone()
    }

    fn output(&self, seq: Seq) -> Option<Bytes> {
        self.row(seq, |row| row.output.clone())
    }

    fn error(&self, seq: Seq) -> Option<Bytes> {
        self.row(seq, |row| row.error.clone())
    }

    fn items(&self, _: StrandId) -> Option<Vec<ItemEnd>> {
        None
    }
}

/// Where commits go, and where values are looked up.
pub trait Keep {
    /// Applies a commit and leaves its buffers.
    fn apply(&mut self, commit: &mut Commit) -> Reply;
    /// Looks up.
    fn values(&self) -> impl Values + '_;
}

impl Values for &Book {
    fn input(&self) -> Option<Bytes> {
        (**self).input()
    }

    fn output(&self, seq: Seq) -> Option<Bytes> {
        (**self).output(seq)
    }

    fn error(&self, seq: Seq) -> Option<Bytes> {
        (**self).error(seq)
    }

    fn items(&self, group: StrandId) -> Option<Vec<ItemEnd>> {
        (**self).items(group)
    }
}

impl Keep for Book {
    fn apply(&mut self, commit: &mut Commit) -> Reply {
        self.rows.append(&mut commit.steps);
        Reply::Ok
    }

    fn values(&self) -> impl Values + '_ {
        self
    }
}

/// A claimed instance of a memory store.
#[derive(Debug)]
pub struct Leased<'a> {
    store: &'a MemoryStore,
    claim: Claim,
}

impl Keep for Leased<'_> {
    fn apply(&mut self, commit: &mut Commit) -> Reply {
        self.store
            .apply(self.claim.slot as u32, self.claim.fence, commit, NOW)
    }

    fn values(&self) -> impl Values + '_ {
        StoredValues {
            store: self.store,
            slot: self.claim.slot as u32,
            fence: self.claim.fence,
        }
    }
}

/// The output that was just reported, before its row is anywhere.
struct Fresh<'a, V> {
    last: Option<(Seq, &'a Bytes)>,
    kept: V,
}

impl<V: Values> Values for Fresh<'_, V> {
    fn input(&self) -> Option<Bytes> {
        self.kept.input()
    }

    fn output(&self, seq: Seq) -> Option<Bytes> {
        match self.last {
            Some((last, bytes)) if last == seq => Some(Bytes::clone(bytes)),
            _ => self.kept.output(seq),
        }
    }

    fn error(&self, seq: Seq) -> Option<Bytes> {
        self.kept.error(seq)
    }

    fn items(&self, group: StrandId) -> Option<Vec<ItemEnd>> {
        self.kept.items(group)
    }
}

/// One instance on its way.
#[derive(Debug)]
pub struct Play<K> {
    machine: Machine,
    keep: K,
    /// What may run now, latest first.
    pub starts: Vec<Start>,
    /// The output, once there is one.
    pub output: Option<Bytes>,
}

impl<K: Keep> Play<K> {
    fn begin(def: &Arc<Definition>, stored: &Stored, keep: K) -> Self {
        let needs = (Arc::from([]), 3);
        let machine = {
            let values = keep.values();
            Machine::restore(Arc::clone(def), None, 1_000, stored, needs, &values, NOW).unwrap()
        };
        let mut play = Self {
            machine,
            keep,
            starts: Vec::new(),
            output: None,
        };
        play.settle(None);
        play
    }

    fn settle(&mut self, last: Option<(Seq, &Bytes)>) {
        while let Some(mut commit) = self.machine.commit() {
            if let Next::Completed(output) = &commit.next {
                self.output = Some(Bytes::clone(output));
            }
            let reply = self.keep.apply(&mut commit);
            self.machine.reuse(commit);
            let kept = self.keep.values();
            self.machine
                .reply(reply, NOW, &Fresh { last, kept })
                .unwrap();
        }
        match self.machine.take_lone_start() {
            Some(start) => self.starts.push(start),
            None => self.starts.extend(self.machine.take_starts()),
        }
    }

    /// Ends the next step with this output; gives the input that it had.
    pub fn next(&mut self, output: &Bytes) -> Bytes {
        let start = self.starts.pop().unwrap();
        let input = {
            let values = self.keep.values();
            self.machine.input(start.strand, &values).unwrap()
        };
        let last = Some((self.machine.next_seq(), output));
        {
            let kept = self.keep.values();
            let fresh = Fresh { last, kept };
            let output = Bytes::clone(output);
            let wanted = self
                .machine
                .completed(start.strand, start.ticket, output, NOW, &fresh);
            assert!(wanted.unwrap());
        }
        self.settle(last);
        input
    }

    /// Ends every step with this output, until the instance ends.
    pub fn finish(mut self, output: &Bytes) -> Bytes {
        while !self.starts.is_empty() {
            self.next(output);
        }
        assert_eq!(self.machine.held(), Held::Completed);
        self.output.unwrap()
    }
}

/// An instance without a store.
pub fn alone(def: &Arc<Definition>, input: &Bytes) -> Play<Book> {
    let book = Book {
        input: Some(Bytes::clone(input)),
        rows: Vec::new(),
    };
    Play::begin(def, &Stored::default(), book)
}

/// A memory store with a worker.
#[derive(Debug)]
pub struct Shop {
    /// The store.
    pub store: MemoryStore,
    def: Arc<Definition>,
    tree: Bytes,
    claimant: Claimant,
}

impl Shop {
    /// An empty store for instances of one definition.
    pub fn new(def: &Arc<Definition>) -> Self {
        Self {
            store: MemoryStore::new(Settings::default()),
            def: Arc::clone(def),
            tree: encode_definition(def),
            claimant: Claimant {
                worker: "worker".into(),
                tags: None,
                lease_us: 30_000_000,
            },
        }
    }

    /// Submits an instance.
    pub fn submit(&self, id: &Arc<str>, input: &Bytes) {
        let new = NewInstance {
            id: Arc::clone(id),
            workflow: "guarded".into(),
            hash: *self.def.hash(),
            tree: Bytes::clone(&self.tree),
            input: Bytes::clone(input),
            needs: (Arc::from([]), 3),
            start_at_us: None,
        };
        self.store
            .submit(vec![new], ConflictPolicy::Fail, NOW)
            .unwrap();
    }

    /// Claims what is ready.
    pub fn claim(&self) -> Play<Leased<'_>> {
        let hashes = [*self.def.hash()];
        let mut claims = self.store.claim(&self.claimant, &hashes, 1, NOW).unwrap();
        let claim = claims.pop().unwrap();
        let stored = claim.stored.clone();
        let store = &self.store;
        Play::begin(&self.def, &stored, Leased { store, claim })
    }
}
