//! Bytes in, messages out: frames, the opening of a link, the limits on both.

pub mod codec;
pub mod handshake;
