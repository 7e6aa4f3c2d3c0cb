//! Messages and their bytes: frames and limits (`codec`), the opening of a link (`handshake`), and
//! what encrypts it (`secure`, with the feature `encryption`).

pub mod codec;
pub mod handshake;
#[cfg(not(feature = "encryption"))]
pub(crate) mod plain;
#[cfg(feature = "encryption")]
pub mod secure;

#[cfg(not(feature = "encryption"))]
pub(crate) use plain as secure;
