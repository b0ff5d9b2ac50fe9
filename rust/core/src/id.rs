//! Names and ids: what text may name an instance, a workflow, a node, an event.
//!
//! One rule for all of them, so that no backend ever meets a name that it cannot store: 1 to
//! [`MAX_NAME_BYTES`] bytes of UTF-8, no NUL and no other control character, not only white space.
//! Everything else (SQL metacharacters, emoji, right-to-left marks, `%`, `..`) is accepted
//! unchanged.

use crate::error::{Error, Result};

/// The longest name or id, in bytes of UTF-8.
pub const MAX_NAME_BYTES: usize = 256;

/// Checks one name; `what` says in the message which argument it is.
pub fn check_name(what: &str, name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::invalid(format!("{what} must not be empty")));
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(Error::invalid(format!(
            "{what} is {} bytes long; the limit is {MAX_NAME_BYTES} bytes of UTF-8",
            name.len()
        )));
    }
    if let Some(bad) = name.chars().find(|c| c.is_control()) {
        return Err(Error::invalid(format!(
            "{what} must not contain control characters (found U+{:04X})",
            bad as u32
        )));
    }
    if name.chars().all(char::is_whitespace) {
        return Err(Error::invalid(format!(
            "{what} must not be only white space"
        )));
    }
    Ok(())
}

/// Escapes a name for use as one segment of a path, so that no name can imitate the structure.
///
/// Paths use `/` between segments, `[i]` for map items, `#i` for loop turns and `~n` to tell equal
/// names apart; those characters and `%` are percent-encoded when they occur in a name.
#[must_use]
pub fn path_segment(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '/' | '[' | ']' | '#' | '~' | '%' => {
                out.push_str(&format!("%{:02X}", c as u32));
            }
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_of_every_limit() {
        assert!(check_name("id", &"x".repeat(256)).is_ok());
        assert!(check_name("id", &"x".repeat(257)).is_err());
        assert!(check_name("id", "").is_err());
        assert!(check_name("id", " \t").is_err());
        assert!(check_name("id", "a\0b").is_err());
        assert!(check_name("id", "a\u{7f}").is_err());
        for fine in [
            "'; DROP TABLE x; --",
            "😀",
            "\u{200f}abc",
            "%_..",
            "a b",
            "<b>",
        ] {
            assert!(check_name("id", fine).is_ok(), "{fine}");
        }
    }

    #[test]
    fn segments_cannot_imitate_structure() {
        assert_eq!(path_segment("a/b[0]#1~2%"), "a%2Fb%5B0%5D%231%7E2%25");
        assert_eq!(path_segment("plain name"), "plain name");
    }
}
