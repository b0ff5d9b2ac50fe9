//! Keeps the leases of one worker alive, without the help of user code, the event loop or the GIL.
//!
//! The thread holds Rust data only. It renews every third of the lease, so two renewals may fail
//! before a lease is lost, and it stops when the keeper is dropped.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::contract::Store;

#[derive(Default)]
struct Stop {
    asked: Mutex<bool>,
    changed: Condvar,
}

/// Renews until dropped.
pub struct Keeper {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts renewing the leases of `worker`.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(
        store: Arc<dyn Store + Send + Sync>,
        worker: Arc<str>,
        lease_us: i64,
    ) -> std::io::Result<Self> {
        let stop = Arc::new(Stop::default());
        let shared = Arc::clone(&stop);
        let period = Duration::from_micros((lease_us / 3).max(1_000) as u64);
        let thread = std::thread::Builder::new()
            .name("sayiir-keeper".to_owned())
            .spawn(move || {
                let mut asked = shared.asked.lock().unwrap_or_else(PoisonError::into_inner);
                while !*asked {
                    drop(asked);
                    // The memory store, for which this is, refuses nothing.
                    let _ = store.renew(&worker, lease_us, wall_us());
                    asked = shared.asked.lock().unwrap_or_else(PoisonError::into_inner);
                    if !*asked {
                        asked = shared
                            .changed
                            .wait_timeout(asked, period)
                            .map_or_else(|poisoned| poisoned.into_inner().0, |(asked, _)| asked);
                    }
                }
            })?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        *self
            .stop
            .asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A renewal never blocks on anything but the store's own short lock.
            let _ = thread.join();
        }
    }
}

/// The wall clock in µs since the epoch.
pub(crate) fn wall_us() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
        })
}
