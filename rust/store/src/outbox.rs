//! What waits for a storage thread: filled by any thread, emptied as a whole by that one.
//!
//! While the thread is busy with one batch, the next one gathers here by itself: that is the group
//! commit. Nothing ever waits for a timer so that a batch may grow.

use std::future::poll_fn;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

#[derive(Debug)]
struct Waiting<T> {
    jobs: Vec<T>,
    closed: bool,
    /// Whether somebody wanted the thread to look, since it last did.
    nudged: bool,
    /// Of a thread that waits as a task does.
    waker: Option<Waker>,
}

impl<T> Waiting<T> {
    fn wake(&mut self, filled: &Condvar) {
        self.nudged = true;
        match self.waker.take() {
            Some(waker) => waker.wake(),
            None => filled.notify_one(),
        }
    }
}

/// See the module's opening.
#[derive(Debug)]
pub struct Outbox<T> {
    waiting: Mutex<Waiting<T>>,
    filled: Condvar,
}

impl<T> Default for Outbox<T> {
    fn default() -> Self {
        Self {
            waiting: Mutex::new(Waiting {
                jobs: Vec::new(),
                closed: false,
                nudged: false,
                waker: None,
            }),
            filled: Condvar::new(),
        }
    }
}

impl<T> Outbox<T> {
    fn lock(&self) -> MutexGuard<'_, Waiting<T>> {
        // A vector is whole whatever thread died while it held the lock.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a job; gives it back when the box is closed. Quietly: the thread is not woken, because
    /// more is coming, and a `nudge` after it.
    pub fn push(&self, job: T, quietly: bool) -> Result<(), T> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(job);
        }
        waiting.jobs.push(job);
        if !quietly {
            waiting.wake(&self.filled);
        }
        Ok(())
    }

    /// Takes everything, waiting until there is something, the time is over, or the box is closed
    /// (`None`, when it is empty too). `into` must be empty; its memory goes back and forth.
    pub fn take(&self, into: &mut Vec<T>, wait: Option<Duration>) -> Option<()> {
        let mut waiting = self.lock();
        if waiting.jobs.is_empty() && !waiting.closed {
            waiting = match wait {
                None => self
                    .filled
                    .wait(waiting)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(wait) => {
                    self.filled
                        .wait_timeout(waiting, wait)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
            };
        }
        std::mem::swap(&mut waiting.jobs, into);
        (!into.is_empty() || !waiting.closed).then_some(())
    }

    /// As [`Outbox::take`], for a thread that waits as a task does, until somebody wakes it.
    pub async fn taken(&self, into: &mut Vec<T>) -> Option<()> {
        poll_fn(|context| {
            let mut waiting = self.lock();
            if waiting.jobs.is_empty() && !waiting.closed && !waiting.nudged {
                waiting.waker = Some(context.waker().clone());
                return Poll::Pending;
            }
            waiting.nudged = false;
            std::mem::swap(&mut waiting.jobs, into);
            Poll::Ready((!into.is_empty() || !waiting.closed).then_some(()))
        })
        .await
    }

    /// Wakes the thread, whether there is a job or only something to look at.
    pub fn nudge(&self) {
        self.lock().wake(&self.filled);
    }

    /// Wakes the thread if there is a job.
    pub fn flush(&self) {
        let mut waiting = self.lock();
        if !waiting.jobs.is_empty() {
            waiting.wake(&self.filled);
        }
    }

    /// Takes no more jobs; what is in it is still done.
    pub fn close(&self) {
        let mut waiting = self.lock();
        waiting.closed = true;
        waiting.wake(&self.filled);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_box_gives_what_it_holds_and_no_more() {
        let outbox = Outbox::default();
        let mut jobs = Vec::new();
        assert_eq!(outbox.push(1, false), Ok(()));
        outbox.close();
        assert_eq!(outbox.push(2, true), Err(2));
        assert_eq!(outbox.take(&mut jobs, None), Some(()));
        assert_eq!(jobs, [1]);
        jobs.clear();
        assert_eq!(outbox.take(&mut jobs, None), None);
    }

    #[test]
    fn waiting_ends_with_the_time() {
        let outbox = Outbox::<u8>::default();
        let mut jobs = Vec::new();
        assert_eq!(
            outbox.take(&mut jobs, Some(Duration::from_millis(1))),
            Some(())
        );
        assert!(jobs.is_empty());
    }
}
