//! The pure heart of sayiir: what a workflow *is* and what happens to an instance *next*.
//!
//! This crate decides. Given a definition, the state of an instance and a fact ("this step returned
//! these bytes", "it is now 12:00"), it answers with what to write down and what to run. It refuses
//! to know who calls it: there is no I/O, no clock, no thread, no randomness and no Python in here.
//! Time is always an argument, in microseconds since the Unix epoch.
//!
//! Layers, lowest first: [`error`], [`id`] → [`policy`], [`definition`], [`envelope`] → [`event`],
//! [`state`] → [`advance`] → [`wire`] → [`snapshot`].

#![forbid(unsafe_code)]

pub mod advance;
pub mod definition;
pub mod envelope;
pub mod error;
pub mod event;
pub mod id;
pub mod policy;
pub mod snapshot;
pub mod state;
pub mod wire;

pub use advance::{Failure, Machine, Start, Values};
pub use definition::{Definition, NodeKind, NodeSpec, TaskSpec};
pub use envelope::{Bytes, ErrorRecord};
pub use error::{Error, Result};
pub use event::Event;
pub use state::{Commit, Next, Outcome, Reply, StepRow};
