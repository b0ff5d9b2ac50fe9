//! Fail points: places where a test lets the process die, to see that nothing is lost.
//!
//! There is one before and one after every statement. The environment variable
//! `SAYIIR_FAIL_AT=point[:n]`, read when a store is opened, aborts the process the n-th time it comes
//! to the point. Unset, which is always outside of tests, a statement costs one comparison more.

use std::cell::Cell;

/// The name of the environment variable.
pub const VARIABLE: &str = "SAYIIR_FAIL_AT";

/// The armed point of one connection, if any.
#[derive(Debug, Default)]
pub struct FailPoint {
    armed: Option<String>,
    left: Cell<u64>,
}

impl FailPoint {
    /// As the environment says.
    pub fn from_environment() -> Self {
        std::env::var(VARIABLE).map_or_else(|_| Self::default(), |text| Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let (point, times) = text
            .rsplit_once(':')
            .and_then(|(point, times)| Some((point, times.parse().ok()?)))
            .unwrap_or((text, 1));
        Self {
            armed: Some(point.to_owned()),
            left: Cell::new(times),
        }
    }

    /// Dies here if it is time to.
    pub fn pass(&self, statement: &str, side: &str) {
        if let Some(armed) = &self.armed
            && armed
                .strip_suffix(side)
                .and_then(|rest| rest.strip_suffix('.'))
                == Some(statement)
        {
            self.left.set(self.left.get().saturating_sub(1));
            if self.left.get() == 0 {
                std::process::abort();
            }
        }
    }
}

/// The names of the fail points of these statements.
pub fn points(statements: impl Iterator<Item = &'static str>) -> Vec<String> {
    statements
        .flat_map(|name| ["before", "after"].map(|side| format!("{name}.{side}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_named_once() {
        for mut names in [crate::sqlite::fail_points(), crate::postgres::fail_points()] {
            let count = names.len();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), count);
        }
    }

    #[test]
    fn only_the_armed_point_counts_down() {
        let point = FailPoint::parse("commit.step.before:3");
        point.pass("commit.step", "after");
        point.pass("commit", "before");
        point.pass("commit.step", "before");
        assert_eq!(point.left.get(), 2);
        FailPoint::default().pass("commit.step", "before");
    }
}
