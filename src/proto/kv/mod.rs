//! The replicated store: causally consistent, always writable; concurrent writes stand beside each
//! other until somebody resolves them (DESIGN.md, section 5).
//!
//! `clock` says which writes were seen, `name` names the replicas, `seal` shortens clocks, and
//! `value` is what a key holds. `store` is one replica, `room` counts its bytes, `snapshot` is the part of it that another
//! replica lacks, `transfer` moves that, and `replica` keeps replicas up to date with each other.
//! What must stay true: no replica shows a write without its causal past; replicas that have heard
//! the same writes hold the same store; and a version that was overwritten or deleted by somebody
//! who had seen it does not come back. Deletes leave no tombstone, because the context remembers
//! that a dot was seen (optimised OR-set: Bieniusa et al., 2012; dotted version vectors: Almeida,
//! Baquero et al., 2014).

pub mod clock;
mod durable;
mod ended;
mod live;
pub mod message;
mod name;
pub mod replica;
pub mod request;
mod room;
pub mod seal;
pub mod snapshot;
pub mod store;
mod talk;
mod transfer;
pub mod value;
pub mod write;
