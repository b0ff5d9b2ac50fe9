//! Where instances live: the storage contract and its implementations.
//!
//! Storage is dumb: it keeps rows, applies commits atomically under a fence, orders what is ready and
//! remembers timers and events. It does not know flows, values or Python; it never calls user code.

#![forbid(unsafe_code)]

pub mod call;
pub mod contract;
mod fail;
pub mod keeper;
mod listed;
pub mod memory;
pub mod outbox;
pub mod port;
pub mod postgres;
pub mod shared;
pub mod sqlite;
pub mod storage;

pub use contract::*;
pub use keeper::Keeper;
pub use memory::MemoryStore;
pub use postgres::PostgresStore;
pub use sqlite::SqliteStore;
pub use storage::Storage;
