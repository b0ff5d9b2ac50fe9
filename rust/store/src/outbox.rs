//! What waits for a storage thread: filled by any thread, emptied as a whole by that one.
//!
//! While the thread is busy with one batch, the next one gathers here by itself: that is the group
//! commit. What an event loop calls while it is at answers it just took comes quietly, and is taken when
//! the loop says that it is done: so a claim goes out with the submits that it can be given. A loop that
//! user code holds up must not hold up what is to become durable, so the thread waits for that word no
//! longer than [`PATIENCE`].

use std::future::poll_fn;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use tokio::time::timeout;

/// How long what came quietly may wait. An event loop deals with some hundred answers in that time.
const PATIENCE: Duration = Duration::from_millis(5);

#[derive(Debug)]
struct Waiting<T> {
    jobs: Vec<T>,
    closed: bool,
    /// Whether somebody wanted the thread to look, since it last did.
    nudged: bool,
    /// Whether the thread has to be told of what comes quietly too.
    asleep: bool,
    /// Of a thread that waits as a task does.
    waker: Option<Waker>,
}

impl<T> Waiting<T> {
    fn is_due(&self) -> bool {
        self.nudged || self.closed
    }

    fn is_there(&self) -> bool {
        self.is_due() || !self.jobs.is_empty()
    }

    fn wake(&mut self, filled: &Condvar) {
        match self.waker.take() {
            Some(waker) => waker.wake(),
            None => filled.notify_one(),
        }
    }

    fn nudge(&mut self, filled: &Condvar) {
        self.nudged = true;
        self.wake(filled);
    }

    fn take(&mut self, into: &mut Vec<T>) -> Option<()> {
        self.nudged = false;
        self.asleep = false;
        std::mem::swap(&mut self.jobs, into);
        (!into.is_empty() || !self.closed).then_some(())
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
                asleep: false,
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

    /// Adds a job; gives it back when the box is closed. Quietly: more is coming, and a `flush` after it.
    pub fn push(&self, job: T, quietly: bool) -> Result<(), T> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(job);
        }
        waiting.jobs.push(job);
        if !quietly {
            waiting.nudge(&self.filled);
        } else if waiting.asleep {
            waiting.asleep = false;
            waiting.wake(&self.filled);
        }
        Ok(())
    }

    /// Takes everything, waiting until something is due, the time is over, or the box is closed (`None`,
    /// when it is empty too). `into` must be empty; its memory goes back and forth.
    pub fn take(&self, into: &mut Vec<T>, wait: Option<Duration>) -> Option<()> {
        let until = wait.map(|wait| Instant::now() + wait);
        let mut waiting = self.wait(self.lock(), until, Some(PATIENCE), Waiting::is_due);
        if !waiting.is_there() {
            waiting.asleep = true;
            waiting = self.wait(waiting, until, None, Waiting::is_there);
            waiting = self.wait(waiting, until, Some(PATIENCE), Waiting::is_due);
        }
        waiting.take(into)
    }

    /// Waits until it is so, but not beyond a time, or so long.
    fn wait<'a>(
        &self,
        waiting: MutexGuard<'a, Waiting<T>>,
        until: Option<Instant>,
        most: Option<Duration>,
        so: impl Fn(&Waiting<T>) -> bool,
    ) -> MutexGuard<'a, Waiting<T>> {
        if so(&waiting) {
            return waiting;
        }
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let pending = |waiting: &mut Waiting<T>| !so(waiting);
        match left.into_iter().chain(most).min() {
            None => self
                .filled
                .wait_while(waiting, pending)
                .unwrap_or_else(PoisonError::into_inner),
            Some(most) => {
                self.filled
                    .wait_timeout_while(waiting, most, pending)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
        }
    }

    /// As [`Outbox::take`], for a thread that waits as a task does, until somebody wakes it.
    pub async fn taken(&self, into: &mut Vec<T>) -> Option<()> {
        let _ = timeout(PATIENCE, self.becomes(Waiting::is_due, false)).await;
        if !self.lock().is_there() {
            self.becomes(Waiting::is_there, true).await;
            let _ = timeout(PATIENCE, self.becomes(Waiting::is_due, false)).await;
        }
        self.lock().take(into)
    }

    async fn becomes(&self, so: impl Fn(&Waiting<T>) -> bool, asleep: bool) {
        poll_fn(|context| {
            let mut waiting = self.lock();
            if so(&waiting) {
                return Poll::Ready(());
            }
            waiting.asleep = asleep;
            waiting.waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Wakes the thread, whether there is a job or only something to look at.
    pub fn nudge(&self) {
        self.lock().nudge(&self.filled);
    }

    /// What is there waits for the next `flush`, as if it had come quietly.
    pub fn calm(&self) {
        self.lock().nudged = false;
    }

    /// Wakes the thread if there is a job.
    pub fn flush(&self) {
        let mut waiting = self.lock();
        if !waiting.jobs.is_empty() {
            waiting.nudge(&self.filled);
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
    use futures_util::FutureExt as _;
    use futures_util::future::join;

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

    const LONG: Duration = Duration::from_secs(60);

    fn filled_quietly() -> Outbox<u8> {
        let outbox = Outbox::default();
        assert_eq!(outbox.push(1, true), Ok(()));
        outbox
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap()
            .block_on(future)
    }

    /// What is in it is taken with what comes next, when somebody says so.
    fn waits_for_more(outbox: &Outbox<u8>) {
        let mut jobs = Vec::new();
        block_on(async {
            assert_eq!(outbox.taken(&mut jobs).now_or_never(), None);
            assert_eq!(outbox.push(2, true), Ok(()));
            outbox.flush();
            assert_eq!(outbox.taken(&mut jobs).now_or_never(), Some(Some(())));
        });
        assert_eq!(jobs, [1, 2]);
    }

    #[test]
    fn what_came_quietly_is_taken_with_what_follows() {
        waits_for_more(&filled_quietly());
    }

    #[test]
    fn what_is_there_can_be_kept_for_what_follows() {
        let outbox = Outbox::default();
        assert_eq!(outbox.push(1, false), Ok(()));
        outbox.calm();
        waits_for_more(&outbox);
    }

    #[test]
    fn what_came_quietly_is_taken_though_nobody_says_so() {
        let mut jobs = Vec::new();
        assert_eq!(filled_quietly().take(&mut jobs, Some(LONG)), Some(()));
        assert_eq!(jobs, [1]);
    }

    #[test]
    fn a_thread_that_sleeps_is_told_of_what_comes_quietly() {
        let outbox = Outbox::default();
        let mut jobs = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !outbox.lock().asleep {
                    std::thread::yield_now();
                }
                assert_eq!(outbox.push(1, true), Ok(()));
            });
            assert_eq!(outbox.take(&mut jobs, None), Some(()));
        });
        assert_eq!(jobs, [1]);
    }

    #[test]
    fn a_task_takes_what_came_quietly_too() {
        block_on(async {
            let outbox = filled_quietly();
            let mut jobs = Vec::new();
            assert_eq!(outbox.taken(&mut jobs).await, Some(()));
            assert_eq!(std::mem::take(&mut jobs), [1]);
            let pushed = async {
                while !outbox.lock().asleep {
                    tokio::task::yield_now().await;
                }
                assert_eq!(outbox.push(2, true), Ok(()));
            };
            let (taken, ()) = join(outbox.taken(&mut jobs), pushed).await;
            assert_eq!(taken, Some(()));
            assert_eq!(jobs, [2]);
        });
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
