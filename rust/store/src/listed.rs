//! How SQL stores write lists, statuses and prefixes into columns.

use std::sync::Arc;

use sayiir_core::policy::Tags;

use crate::contract::Status;

/// The status with this number; anything else is a damaged row and counts as failed.
pub fn status_of(number: i64) -> Status {
    match number {
        0 => Status::InProgress,
        1 => Status::Waiting,
        2 => Status::AwaitingSignal,
        3 => Status::Paused,
        4 => Status::Completed,
        6 => Status::Cancelled,
        _ => Status::Failed,
    }
}

/// A list of names as the text that is stored.
pub fn write_list(names: &[Arc<str>]) -> String {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    serde_json::to_string(&names).unwrap_or_default()
}

/// The names in a stored text; a damaged one holds none.
pub fn read_list(text: &str) -> Tags {
    if text == "[]" {
        return Arc::new([]);
    }
    let names: Vec<String> = serde_json::from_str(text).unwrap_or_default();
    names.into_iter().map(Arc::from).collect()
}

/// The first text after all that begin with `prefix`, in the order of their bytes; none if there is
/// no such text.
pub fn after_prefix(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        let next = match last {
            '\u{d7ff}' => Some('\u{e000}'),
            last => char::from_u32(last as u32 + 1),
        };
        if let Some(next) = next {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::after_prefix;

    #[test]
    fn what_comes_after_a_prefix() {
        assert_eq!(after_prefix("ab").as_deref(), Some("ac"));
        assert_eq!(after_prefix("a\u{10ffff}").as_deref(), Some("b"));
        assert_eq!(after_prefix("\u{d7ff}").as_deref(), Some("\u{e000}"));
        assert_eq!(after_prefix("\u{10ffff}"), None);
    }
}
