//! A store that has threads of its own: calls go out, their answers arrive at a [`Port`].
//!
//! Every call may be made from any thread and returns at once. What is stored where, an implementation
//! knows; what they have in common is [`Shared`].

use std::sync::Arc;

use crate::call::Call;
use crate::contract::{Hash, StoreResult};
use crate::port::Port;
use crate::shared::{Job, Shared};

/// Something that an operator wants to know.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Fact {
    Text(String),
    Number(i64),
    Seconds(f64),
}

/// The state of the place where instances are stored.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Name and value of what this kind of place has to say.
    pub facts: Vec<(&'static str, Fact)>,
    /// Status word and how many.
    pub instances: Vec<(&'static str, i64)>,
    /// Worker, when its leases run out, how many instances it holds.
    pub workers: Vec<(String, i64, i64)>,
    /// Hash, workflow, how many instances.
    pub definitions: Vec<(Hash, String, i64)>,
}

/// See the module's opening.
pub trait Storage: Send + Sync {
    /// What the threads and this handle share.
    fn shared(&self) -> &Shared;

    /// Whether this process may use it.
    ///
    /// # Errors
    /// In a child that was forked after it was opened.
    fn check(&self) -> StoreResult<()>;

    /// Finishes what was handed over, and lets go of the place. Does nothing the second time.
    fn close(&self);

    /// What an operator wants to know; may take long, and blocks.
    ///
    /// # Errors
    /// When the place cannot be read, and in a forked child.
    fn report(&self) -> StoreResult<Report>;

    /// The store's own time, µs, if it differs from the machine's.
    fn now_us(&self) -> Option<i64> {
        None
    }

    /// Hands a call over; its answer arrives at the port under the number that comes back, whatever
    /// happens. The time counts only when the store has none of its own.
    ///
    /// # Errors
    /// In a forked child, and when the store is closed; then nothing arrives.
    fn call(&self, port: &Arc<Port>, call: Call, now_us: Option<i64>) -> StoreResult<u64> {
        self.check()?;
        let shared = self.shared();
        let ticket = port.next_ticket();
        let outbox = if call.only_reads() {
            &shared.reader
        } else {
            &shared.writer
        };
        let job = Job {
            ticket,
            port: Arc::clone(port),
            call,
            now_us: now_us.filter(|_| !shared.own_clock),
        };
        outbox
            .push(job, port.is_gathering())
            .map_err(|_| shared.closed())?;
        Ok(ticket)
    }

    /// The loop of this port has dealt with the answers it took: what it called meanwhile goes out.
    fn flush(&self, port: &Port) {
        port.gather(false);
        self.shared().writer.flush();
        self.shared().reader.flush();
    }

    /// Somebody waits for the end of an instance, or no longer: while they do, its end by another
    /// process is a hint.
    fn watch(&self, id: &str, wanted: bool) {
        if wanted {
            self.shared().watch(id.into());
        } else {
            self.shared().unwatch(&[id.into()]);
        }
    }

    /// Whether hints of other processes should arrive at a port.
    fn listen(&self, port: &Arc<Port>, wanted: bool) {
        if self.check().is_ok() {
            self.shared().listen(port, wanted);
        }
    }

    /// Keeps a worker's leases alive until [`Storage::unkeep`], by the storage thread.
    ///
    /// # Errors
    /// In a forked child.
    fn keep(&self, worker: Arc<str>, lease_us: i64) -> StoreResult<()> {
        self.check()?;
        self.shared().keep(worker, lease_us);
        Ok(())
    }

    /// Ends [`Storage::keep`].
    fn unkeep(&self, worker: &str) {
        self.shared().unkeep(worker);
    }
}
