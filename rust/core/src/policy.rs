//! What may be tuned about a task without touching the identity of a workflow: retries, timeouts,
//! tags, priority. Values come in checked, so that the interpreter never meets a nonsensical one.

use std::sync::Arc;

use crate::error::{Error, Result};

/// The longest duration accepted anywhere: 100 years.
pub const MAX_DURATION_S: f64 = 100.0 * 365.25 * 86_400.0;
/// The most tags on one task.
pub const MAX_TAGS: usize = 20;
/// The longest tag, in characters.
pub const MAX_TAG_CHARS: usize = 64;
/// The priority of a task that says nothing.
pub const DEFAULT_PRIORITY: u8 = 3;

/// Worker capabilities a step asks for: sorted, without repetition, shared.
pub type Tags = Arc<[Arc<str>]>;

/// Checks a duration in seconds and turns it into microseconds.
pub fn duration_us(what: &str, seconds: f64, allow_zero: bool) -> Result<i64> {
    if seconds.is_nan() || seconds < 0.0 || (seconds == 0.0 && !allow_zero) {
        let floor = if allow_zero {
            "0 or more"
        } else {
            "more than 0"
        };
        return Err(Error::invalid(format!(
            "{what} must be {floor} seconds, got {seconds}"
        )));
    }
    if seconds > MAX_DURATION_S {
        return Err(Error::invalid(format!(
            "{what} must be at most 100 years, got {seconds} seconds"
        )));
    }
    Ok((seconds * 1e6).round() as i64)
}

/// Sorts, de-duplicates and checks tags.
pub fn tags<I: IntoIterator<Item = String>>(what: &str, items: I) -> Result<Tags> {
    let mut all: Vec<Arc<str>> = Vec::new();
    for tag in items {
        if tag.trim().is_empty() {
            return Err(Error::invalid(format!("{what}: a tag must not be empty")));
        }
        if tag.chars().count() > MAX_TAG_CHARS {
            return Err(Error::invalid(format!(
                "{what}: a tag has at most {MAX_TAG_CHARS} characters"
            )));
        }
        all.push(tag.into());
    }
    if all.len() > MAX_TAGS {
        return Err(Error::invalid(format!(
            "{what}: at most {MAX_TAGS} tags, got {}",
            all.len()
        )));
    }
    all.sort();
    all.dedup();
    Ok(all.into())
}

/// Whether a worker with `offered` tags may run a step that needs `needed`.
///
/// A worker without tags (`None`) takes everything.
#[must_use]
pub fn covers(offered: Option<&Tags>, needed: &Tags) -> bool {
    match offered {
        None => true,
        Some(offered) => needed.iter().all(|tag| offered.binary_search(tag).is_ok()),
    }
}

/// When and how often a failed attempt is made again.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    /// Attempts after the first.
    pub max_retries: u32,
    /// Wait before the first retry, in seconds.
    pub initial_delay_s: f64,
    /// Factor from one wait to the next.
    pub multiplier: f64,
    /// Upper bound of a wait, in seconds.
    pub max_delay_s: Option<f64>,
    /// Share of the wait that is random, 0 to 1.
    pub jitter: f64,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            max_retries: 0,
            initial_delay_s: 1.0,
            multiplier: 2.0,
            max_delay_s: None,
            jitter: 0.0,
        }
    }
}

impl Retry {
    /// Checks every number.
    pub fn check(&self, what: &str) -> Result<()> {
        duration_us(
            &format!("{what}: the initial retry delay"),
            self.initial_delay_s,
            true,
        )?;
        if let Some(max) = self.max_delay_s {
            duration_us(&format!("{what}: the longest retry delay"), max, true)?;
        }
        if !self.multiplier.is_finite() || self.multiplier < 0.0 {
            return Err(Error::invalid(format!(
                "{what}: the backoff multiplier must be a finite number of 0 or more, got {}",
                self.multiplier
            )));
        }
        if !(0.0..=1.0).contains(&self.jitter) {
            return Err(Error::invalid(format!(
                "{what}: jitter must be between 0 and 1, got {}",
                self.jitter
            )));
        }
        Ok(())
    }

    /// The wait before retry `k` (1-based) in microseconds; `unit` is a random number in 0..1.
    ///
    /// `initial × multiplier^(k-1)`, capped, then spread by `± jitter`.
    #[must_use]
    pub fn wait_us(&self, k: u32, unit: f64) -> i64 {
        let exponent = i32::try_from(k.saturating_sub(1)).unwrap_or(i32::MAX);
        let cap = self
            .max_delay_s
            .unwrap_or(MAX_DURATION_S)
            .min(MAX_DURATION_S);
        let plain = self.initial_delay_s * self.multiplier.powi(exponent);
        let capped = if plain.is_finite() {
            plain.min(cap)
        } else {
            cap
        };
        let spread = capped * (1.0 + self.jitter * (2.0 * unit.clamp(0.0, 1.0) - 1.0));
        (spread.min(MAX_DURATION_S) * 1e6).round() as i64
    }
}

/// Everything tunable about one use of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskPolicy {
    /// Retry rule.
    pub retry: Retry,
    /// Bound of one attempt in microseconds.
    pub timeout_us: Option<i64>,
    /// Needed worker tags.
    pub tags: Tags,
    /// 1 (first) to 5 (last).
    pub priority: u8,
}

impl Default for TaskPolicy {
    fn default() -> Self {
        Self {
            retry: Retry::default(),
            timeout_us: None,
            tags: Arc::new([]),
            priority: DEFAULT_PRIORITY,
        }
    }
}

impl TaskPolicy {
    /// Checks every number; `what` names the task.
    pub fn check(&self, what: &str) -> Result<()> {
        self.retry.check(what)?;
        if !(1..=5).contains(&self.priority) {
            return Err(Error::invalid(format!(
                "{what}: priority must be between 1 and 5, got {}",
                self.priority
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_are_capped() {
        let retry = Retry {
            initial_delay_s: 1.0,
            multiplier: 2.0,
            max_delay_s: Some(5.0),
            ..Retry::default()
        };
        let waits: Vec<i64> = (1..=4).map(|k| retry.wait_us(k, 0.5)).collect();
        assert_eq!(waits, [1_000_000, 2_000_000, 4_000_000, 5_000_000]);
        assert_eq!(retry.wait_us(u32::MAX, 0.5), 5_000_000);
    }

    #[test]
    fn jitter_spreads_both_ways() {
        let retry = Retry {
            initial_delay_s: 10.0,
            jitter: 0.1,
            ..Retry::default()
        };
        assert_eq!(retry.wait_us(1, 0.0), 9_000_000);
        assert_eq!(retry.wait_us(1, 1.0), 11_000_000);
    }

    #[test]
    fn durations_on_both_sides_of_the_limits() {
        assert!(duration_us("d", 0.0, true).is_ok());
        assert!(duration_us("d", 0.0, false).is_err());
        assert!(duration_us("d", -1.0, true).is_err());
        assert!(duration_us("d", f64::NAN, true).is_err());
        assert!(duration_us("d", f64::INFINITY, true).is_err());
        assert!(duration_us("d", MAX_DURATION_S, true).is_ok());
        assert!(duration_us("d", 1e18, true).is_err());
    }

    #[test]
    fn untagged_workers_take_all() {
        let gpu = tags("t", ["gpu".to_owned()]).unwrap();
        let both = tags("t", ["gpu".to_owned(), "eu".to_owned()]).unwrap();
        assert!(covers(None, &gpu));
        assert!(covers(Some(&both), &gpu));
        assert!(!covers(Some(&gpu), &both));
        assert!(covers(Some(&gpu), &tags("t", []).unwrap()));
    }
}
