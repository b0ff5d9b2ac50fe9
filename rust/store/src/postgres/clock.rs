//! The database's clock, as this process knows it.
//!
//! A reading is set against the machine's monotonic clock at the moment when it was asked for. So the
//! estimate is never behind the database's clock, and ahead of it by no more than the reading took. A
//! machine whose wall clock is wrong, or is set while we run, changes nothing.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use crate::keeper::wall_us;

/// See the module's opening.
#[derive(Debug)]
pub struct Clock {
    origin: Instant,
    /// The database's time at the origin, µs.
    base_us: AtomicI64,
    /// How long the last reading took, µs.
    margin_us: AtomicI64,
}

impl Default for Clock {
    /// The machine's clock, until there is a reading.
    fn default() -> Self {
        Self {
            origin: Instant::now(),
            base_us: AtomicI64::new(wall_us()),
            margin_us: AtomicI64::new(0),
        }
    }
}

impl Clock {
    /// The database's clock showed `read_us`; it was asked at `asked`, and answered just now.
    pub fn note(&self, asked: Instant, read_us: i64) {
        let since = |at: Instant| {
            i64::try_from(at.saturating_duration_since(self.origin).as_micros()).unwrap_or(i64::MAX)
        };
        let took = i64::try_from(asked.elapsed().as_micros()).unwrap_or(i64::MAX);
        self.base_us
            .store(read_us.saturating_sub(since(asked)), Ordering::Relaxed);
        self.margin_us.store(took, Ordering::Relaxed);
    }

    /// The time now, µs.
    pub fn now_us(&self) -> i64 {
        let passed = i64::try_from(self.origin.elapsed().as_micros()).unwrap_or(i64::MAX);
        self.base_us.load(Ordering::Relaxed).saturating_add(passed)
    }

    /// How far the estimate may be ahead, µs.
    pub fn margin_us(&self) -> i64 {
        self.margin_us.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_counts_and_the_machine_does_not() {
        let clock = Clock::default();
        let asked = Instant::now();
        clock.note(asked, 5_000_000);
        let now = clock.now_us();
        assert!(now >= 5_000_000 && now - 5_000_000 <= asked.elapsed().as_micros() as i64 + 1);
        assert!(clock.margin_us() >= 0);
    }
}
