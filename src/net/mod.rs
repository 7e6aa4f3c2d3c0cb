//! Messages and their bytes: frames and limits (`codec`), and the opening of a link (`handshake`).

pub mod codec;
pub mod handshake;
