//! A named payload sent to an instance from outside, as the interpreter meets it.

use std::sync::Arc;

use crate::envelope::Bytes;

/// One buffered event. `seq` orders the events of an instance, first in first out per name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Position in the instance's buffer; also its identity when it is consumed.
    pub seq: u64,
    /// The name it was sent under.
    pub name: Arc<str>,
    /// The sealed payload.
    pub payload: Bytes,
}
