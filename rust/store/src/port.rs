//! Where answers of a storage thread come ashore: one for each event loop.
//!
//! The thread pushes a batch of answers and rings the bell once, by a byte into a socket that the loop
//! watches; the loop then drains everything in one go. The bell is rung only when nothing was waiting,
//! so a slow loop costs no system calls. A port holds Rust data only.

use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::call::Answer;
use crate::contract::StoreResult;

/// Why somebody should look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    /// Something may be claimable.
    Work,
    /// A held instance has something to attend to.
    News,
    /// An instance has ended.
    Ended,
}

impl Hint {
    /// The word for it in Python.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Work => "work",
            Self::News => "news",
            Self::Ended => "ended",
        }
    }
}

/// What arrives.
#[derive(Debug)]
pub enum Arrival {
    /// The answer to the call with this number.
    Answer(u64, StoreResult<Answer>),
    /// Another process did something.
    Hint(Hint, Arc<str>),
}

/// See the module's opening.
#[derive(Debug)]
pub struct Port {
    arrivals: Mutex<Vec<Arrival>>,
    bell: UnixStream,
    ear: UnixStream,
    /// Whether hints of other processes are wanted here.
    pub listening: AtomicBool,
    tickets: AtomicU64,
    /// Whether the loop is at the answers it just took, so that its next calls come in one go.
    gathering: AtomicBool,
}

impl Port {
    /// A port with its bell.
    ///
    /// # Errors
    /// When the system gives no sockets.
    pub fn new() -> std::io::Result<Self> {
        let (bell, ear) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        ear.set_nonblocking(true)?;
        Ok(Self {
            arrivals: Mutex::default(),
            bell,
            ear,
            listening: AtomicBool::new(false),
            tickets: AtomicU64::new(1),
            gathering: AtomicBool::new(false),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arrival>> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file descriptor that becomes readable when something has arrived.
    #[must_use]
    pub fn descriptor(&self) -> RawFd {
        self.ear.as_raw_fd()
    }

    /// Puts arrivals ashore.
    pub fn push(&self, arrivals: impl IntoIterator<Item = Arrival>) {
        let ring = {
            let mut waiting = self.lock();
            let was_empty = waiting.is_empty();
            waiting.extend(arrivals);
            was_empty && !waiting.is_empty()
        };
        if ring {
            // A full socket has been rung already.
            let _ = (&self.bell).write(&[1]);
        }
    }

    /// Calls made from now on are in no hurry, until this is taken back and the store flushed.
    pub fn gather(&self, on: bool) {
        self.gathering.store(on, Ordering::Relaxed);
    }

    /// Whether calls are gathered.
    pub fn is_gathering(&self) -> bool {
        self.gathering.load(Ordering::Relaxed)
    }

    /// Takes everything that has arrived.
    pub fn drain(&self) -> Vec<Arrival> {
        let mut rings = [0; 64];
        // Read first: whatever is pushed after this rings again.
        while (&self.ear)
            .read(&mut rings)
            .is_ok_and(|count| count == rings.len())
        {}
        std::mem::take(&mut *self.lock())
    }

    /// A number that no call of this port had before; never 0.
    pub fn next_ticket(&self) -> u64 {
        self.tickets.fetch_add(1, Ordering::Relaxed)
    }

    /// Wants hints of other processes, or no longer.
    pub fn listen(&self, wanted: bool) {
        self.listening.store(wanted, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals(count: usize) -> Vec<Arrival> {
        (0..count)
            .map(|_| Arrival::Hint(Hint::Work, "".into()))
            .collect()
    }

    fn rings(port: &Port) -> usize {
        let mut bytes = [0; 16];
        (&port.ear).read(&mut bytes).unwrap_or(0)
    }

    #[test]
    fn the_bell_rings_once_until_it_is_answered() {
        let port = Port::new().unwrap();
        port.push(arrivals(0));
        assert_eq!(rings(&port), 0);
        port.push(arrivals(2));
        port.push(arrivals(1));
        assert_eq!(rings(&port), 1);
        assert_eq!(port.drain().len(), 3);
        port.push(arrivals(1));
        assert_eq!(rings(&port), 1);
    }
}
