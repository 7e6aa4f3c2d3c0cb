//! The replicated store: causally consistent, always writable, with concurrent
//! writes kept side by side until somebody resolves them (DESIGN.md, section 5).
//!
//! `clock` says what has been seen, `name` by whom, `seal` what of that need not be
//! said again, `value` what is kept, `store`
//! holds one replica, `snapshot` is what another one lacks of it, `transfer` moves
//! that, `replica` keeps it up to date with others. What must stay true: no replica shows a write
//! without its causal past; replicas that have heard the same writes hold the same store; and what
//! was overwritten or deleted by somebody who had seen it does not come back.
//! Deletes leave no tombstone, because the context remembers that a dot was
//! seen (optimised OR-set: Bieniusa et al., 2012; dotted version vectors:
//! Almeida, Baquero et al., 2014).

pub mod clock;
mod durable;
mod ended;
mod live;
pub mod message;
mod name;
pub mod replica;
pub mod request;
pub mod seal;
pub mod snapshot;
pub mod store;
mod talk;
mod transfer;
pub mod value;
pub mod write;
