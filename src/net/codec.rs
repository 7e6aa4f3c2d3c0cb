//! The one place that knows how messages become bytes.
//!
//! bincode 2 through serde, in frames with a four-byte length (DESIGN.md,
//! section 6). What must stay true: decoding has a limit on what it allocates,
//! and a frame is consumed to its last byte or refused. Nothing outside of this
//! module names the format; the golden vectors in `tests/wire.rs` pin it.

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bytes::{Buf, BufMut, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::codec::{Decoder, LengthDelimitedCodec};

use crate::proto::gossip::MAX_PAYLOAD;
use crate::proto::kv::clock::MAX_CLOCK;
use crate::proto::message::{Answer, Hello, Message};

/// Longest frame after the opening, bytes: the longest payload or value, and what is said around it,
/// which for a write is the clocks of what it rests on and what it replaces.
pub const MAX_FRAME: usize = MAX_PAYLOAD + MAX_CLOCK + (256 << 10);
/// Longest frame of the opening, bytes: a stranger must not make us hold more.
pub const MAX_OPENING: usize = 1_024;
/// First bytes of a link.
pub const MAGIC: [u8; 4] = *b"RMIL";
/// Version of the protocol; links between different versions are refused.
pub const VERSION: u8 = 1;
/// Bytes of a frame's length.
const HEADER: usize = 4;

type Format = Configuration<LittleEndian, Varint, Limit<MAX_FRAME>>;

// Without a limit a frame of ten bytes can claim an allocation that aborts the process.
const FORMAT: Format = bincode::config::standard().with_limit::<MAX_FRAME>();

/// Why bytes are not a message.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The format says no.
    #[error("not a valid message: {0}")]
    Format(#[from] bincode::error::DecodeError),
    /// There is more in the frame than the message.
    #[error("{0} bytes left over after the message")]
    LeftOver(usize),
    /// The first bytes are not those of this protocol.
    #[error("not a rumormill link")]
    Magic,
    /// The other side speaks another version.
    #[error("protocol version {0}, this is version {VERSION}")]
    Version(u8),
    /// The frame is longer than allowed.
    #[error("frame over the limit")]
    TooLong,
}

/// Why a message cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The format says no.
    #[error("cannot encode: {0}")]
    Format(#[from] bincode::error::EncodeError),
    /// The message is longer than a frame.
    #[error("message of {0} bytes is over the frame limit of {MAX_FRAME}")]
    TooLong(usize),
}

/// A frame decoder for links that are open.
pub fn frames() -> LengthDelimitedCodec {
    framing(MAX_FRAME)
}

/// A frame decoder for the opening of a link.
pub fn opening_frames() -> LengthDelimitedCodec {
    framing(MAX_OPENING)
}

fn framing(limit: usize) -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().length_field_length(HEADER).max_frame_length(limit).new_codec()
}

/// Takes the next whole frame out of a buffer.
///
/// # Errors
///
/// If the frame claims to be longer than the codec allows.
pub fn next_frame(
    codec: &mut LengthDelimitedCodec,
    buffer: &mut BytesMut,
) -> Result<Option<BytesMut>, DecodeError> {
    codec.decode(buffer).map_err(|_| DecodeError::TooLong)
}

/// Appends a message as a frame.
///
/// # Errors
///
/// If it does not fit a frame; the buffer is then as before.
pub fn encode(message: &Message, buffer: &mut Vec<u8>) -> Result<(), EncodeError> {
    frame(buffer, |buffer| put(message, buffer))
}

/// Appends a hello as a frame: magic, version, then the rest.
///
/// # Errors
///
/// As [`encode`].
pub fn encode_hello(hello: &Hello, buffer: &mut Vec<u8>) -> Result<(), EncodeError> {
    frame(buffer, |buffer| {
        buffer.put_slice(&MAGIC);
        buffer.put_u8(VERSION);
        put(hello, buffer)
    })
}

/// Appends the answer to a hello as a frame.
///
/// # Errors
///
/// As [`encode`].
pub fn encode_answer(answer: &Answer, buffer: &mut Vec<u8>) -> Result<(), EncodeError> {
    frame(buffer, |buffer| put(answer, buffer))
}

fn put<T: Serialize>(value: &T, buffer: &mut Vec<u8>) -> Result<(), EncodeError> {
    bincode::serde::encode_into_std_write(value, buffer, FORMAT)?;
    Ok(())
}

fn frame(
    buffer: &mut Vec<u8>,
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let start = buffer.len();
    buffer.put_u32(0);
    let written = body(buffer).and_then(|()| {
        let length = buffer.len() - start - HEADER;
        match u32::try_from(length) {
            Ok(header) if length <= MAX_FRAME => Ok(header),
            _ => Err(EncodeError::TooLong(length)),
        }
    });
    match written {
        Ok(header) => {
            if let Some(place) = buffer.get_mut(start..start + HEADER) {
                place.copy_from_slice(&header.to_be_bytes());
            }
            Ok(())
        }
        Err(error) => {
            buffer.truncate(start);
            Err(error)
        }
    }
}

/// Decodes the message in a frame.
///
/// # Errors
///
/// If the frame is anything but exactly one message.
pub fn decode(frame: &[u8]) -> Result<Message, DecodeError> {
    whole(frame)
}

/// Decodes the hello in a frame.
///
/// # Errors
///
/// If the magic or the version differ, or the rest is not exactly a hello.
pub fn decode_hello(mut frame: &[u8]) -> Result<Hello, DecodeError> {
    if frame.len() <= MAGIC.len() || !frame.starts_with(&MAGIC) {
        return Err(DecodeError::Magic);
    }
    frame.advance(MAGIC.len());
    let version = frame.get_u8();
    if version != VERSION {
        return Err(DecodeError::Version(version));
    }
    whole(frame)
}

/// Decodes the answer to a hello in a frame.
///
/// # Errors
///
/// If the frame is anything but exactly one answer.
pub fn decode_answer(frame: &[u8]) -> Result<Answer, DecodeError> {
    whole(frame)
}

fn whole<T: DeserializeOwned>(frame: &[u8]) -> Result<T, DecodeError> {
    let (value, consumed) = bincode::serde::decode_from_slice(frame, FORMAT)?;
    match frame.len() - consumed {
        0 => Ok(value),
        left => Err(DecodeError::LeftOver(left)),
    }
}
