//! Where a payload belongs: what an encrypted one is bound to, and how messages name it.
//!
//! The ids of a spread map's items hold the fence of the commit that made them, which the parent does
//! not know any more when it collects their outputs. So the fence is no part of what is bound.

use std::fmt;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use sayiir_core::envelope::put_bytes;

/// Of an item's id, what is sure to be the parent's: the rest may take up to 40 bytes.
const PARENT_BYTES: usize = 216;

/// What a payload is to its instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Input = 1,
    Output = 2,
    Step = 3,
    Event = 4,
}

impl Role {
    /// The word for it in Python.
    pub fn word(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Output => "output",
            Self::Step => "step",
            Self::Event => "event",
        }
    }

    /// The role behind a word.
    pub fn of(word: &str) -> PyResult<Self> {
        [Self::Input, Self::Output, Self::Step, Self::Event]
            .into_iter()
            .find(|role| role.word() == word)
            .ok_or_else(|| PyValueError::new_err(format!("unknown role {word:?}")))
    }
}

/// One payload's place.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The instance's id.
    pub id: &'a str,
    pub role: Role,
    /// The path of a step, the name of an event; else empty.
    pub name: &'a str,
}

impl<'a> Place<'a> {
    /// From Python's words.
    pub fn named(id: &'a str, role: &str, name: &'a str) -> PyResult<Self> {
        let role = Role::of(role)?;
        Ok(Self { id, role, name })
    }

    /// The id that it is bound to.
    pub fn bound_id(&self) -> String {
        bound_id(self.id)
    }

    /// Appends what a payload is bound to.
    pub fn bind(&self, out: &mut Vec<u8>) {
        put_bytes(out, bound_id(self.id).as_bytes());
        out.push(self.role as u8);
        put_bytes(out, self.name.as_bytes());
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, name, .. } = self;
        match self.role {
            Role::Input => write!(f, "the input of instance '{id}'"),
            Role::Output => write!(f, "the output of instance '{id}'"),
            Role::Step => write!(f, "the output of step '{name}' of instance '{id}'"),
            Role::Event => write!(f, "the payload of event '{name}' for instance '{id}'"),
        }
    }
}

/// The id that an item of this group has, but for the fence.
pub fn bound_item(parent: &str, group: u32, index: u32) -> String {
    let mut cut = parent.len().min(PARENT_BYTES);
    while !parent.is_char_boundary(cut) {
        cut -= 1;
    }
    format!("{}~.{group}[{index}]", &parent[..cut])
}

/// An id without the fence, if it has the form of an item's.
fn bound_id(id: &str) -> String {
    split_item(id).map_or_else(
        || id.to_owned(),
        |(parent, group, index)| bound_item(parent, group, index),
    )
}

fn split_item(id: &str) -> Option<(&str, u32, u32)> {
    let (parent, tail) = id.rsplit_once('~')?;
    let (fence, tail) = tail.split_once('.')?;
    let (group, index) = tail.strip_suffix(']')?.split_once('[')?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    // An id of this form without a fence is already what is bound.
    let known = fence.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !known || !digits(group) || !digits(index) {
        return None;
    }
    Some((parent, group.parse().ok()?, index.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use sayiir_store::contract::item_id;

    use super::*;

    #[test]
    fn a_parent_and_its_item_are_bound_to_one_id() {
        for parent in ["p", "q~1f.2[3]", &"ä".repeat(128), &"x".repeat(256)] {
            for (fence, group, index) in [(1, 1, 0), (u64::MAX, u32::MAX, 99_999)] {
                let id = item_id(parent, fence, group, index);
                assert_eq!(bound_id(&id), bound_item(parent, group, index));
                assert_eq!(bound_id(&bound_id(&id)), bound_id(&id));
            }
        }
    }

    #[test]
    fn any_other_id_is_bound_as_it_is() {
        for id in ["order-1", "a~b", "a~1.2[x]", "a~g.2[3]", "a~1.2[3"] {
            assert_eq!(bound_id(id), id);
        }
    }
}
