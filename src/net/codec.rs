//! Turns messages into bytes and back; no other module knows how.
//!
//! The format is bincode 2 through serde, in frames with a length of four bytes
//! (DESIGN.md, section 6). What must stay true: decoding allocates no more than a limit, and a
//! frame is consumed to its last byte or refused. Nothing outside of this module names the format;
//! the golden vectors in `tests/wire.rs` pin it.

use std::sync::Arc;

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::codec::{Decoder, LengthDelimitedCodec};

use crate::proto::gossip::MAX_PAYLOAD;
use crate::proto::kv::clock::MAX_CLOCK;
use crate::proto::message::{Answer, Hello, Identity, Message, Records, ToPeer};

/// Bytes of the longest frame after the opening. It has room for the longest payload or value, and
/// for what is said around it: with a write, what the write replaces and the two clocks of what it
/// rests on; with a part of a snapshot, the clock of the whole besides.
pub const MAX_FRAME: usize = MAX_PAYLOAD + 3 * MAX_CLOCK + (256 << 10);
/// Bytes of the longest frame in an opening. It is short, so that a stranger cannot make us hold
/// more.
pub const MAX_OPENING: usize = 1_024;
/// The first bytes of a hello.
pub const MAGIC: [u8; 4] = *b"RMIL";
/// The first bytes of a link that is to be encrypted.
pub const SEALED_MAGIC: [u8; 4] = *b"RMIX";
/// The first byte of the second message of an encrypted opening. No [`Answer`] begins with it, so
/// that the dialling side can tell a refusal from that message.
const SEALED_REPLY: u8 = 0xff;
/// Version of the protocol; links between different versions are refused.
pub const VERSION: u8 = 7;
/// Bytes of the length in front of a frame.
pub const HEADER: usize = 4;
/// A piece of at least so many bytes is shared by the queues that send it. A smaller one is copied:
/// that is cheaper than to count who still needs it, and takes less memory.
pub const SHARED: usize = 4_096;

type Format = Configuration<LittleEndian, Varint, Limit<MAX_FRAME>>;

// Without a limit, a frame of ten bytes could claim an allocation that aborts the process.
const FORMAT: Format = bincode::config::standard().with_limit::<MAX_FRAME>();

/// The reason why bytes are not a message.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The format cannot decode them.
    #[error("not a valid message: {0}")]
    Format(String),
    /// The frame holds more than the message.
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

/// The reason why a message cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The format cannot encode it.
    #[error("cannot encode: {0}")]
    Format(String),
    /// The message does not fit into a frame.
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

/// A message as a frame, in pieces. A large piece can be shared by all who send the same.
#[derive(Debug)]
pub struct Frame<'a> {
    /// The bytes before the shared piece, or all of them.
    pub before: &'a [u8],
    /// The piece that may be shared; empty if no piece is large enough.
    pub shared: Bytes,
    /// The bytes behind the shared piece.
    pub after: &'a [u8],
}

impl Frame<'_> {
    /// Bytes of all pieces.
    #[allow(clippy::len_without_is_empty, reason = "a frame is never empty")]
    pub fn len(&self) -> usize {
        self.before.len() + self.shared.len() + self.after.len()
    }
}

/// Encodes messages one after another. If a list has the same records as the last one, they are not
/// encoded again, because many peers that register together are sent the same list.
#[derive(Debug, Default)]
pub struct Encoder {
    buffer: Vec<u8>,
    /// The records of the last list, and their bytes.
    list: Option<(Records, Bytes)>,
}

impl Encoder {
    /// Encodes a message as a frame: the same bytes as those of [`encode`].
    ///
    /// # Errors
    ///
    /// As [`encode`].
    pub fn encode(&mut self, message: &Message) -> Result<Frame<'_>, EncodeError> {
        self.buffer.clear();
        if let Message::ToPeer(ToPeer::List { request, records, more }) = message
            && !records.is_empty()
        {
            return self.encode_list(*request, records, *more);
        }
        encode(message, &mut self.buffer)?;
        Ok(if self.buffer.len() < SHARED {
            Frame { before: &self.buffer, shared: Bytes::new(), after: &[] }
        } else {
            Frame { before: &[], shared: Bytes::copy_from_slice(&self.buffer), after: &[] }
        })
    }

    fn encode_list(
        &mut self,
        request: u64,
        records: &Records,
        more: bool,
    ) -> Result<Frame<'_>, EncodeError> {
        let shared = match &self.list {
            Some((last, bytes)) if Arc::ptr_eq(last, records) => bytes.clone(),
            _ => {
                let mut bytes = Vec::new();
                put(records, &mut bytes)?;
                let bytes = Bytes::from(bytes);
                // Somebody else holds these records too, and may send them again.
                let again = Arc::strong_count(records) > 1;
                self.list = again.then(|| (Arc::clone(records), bytes.clone()));
                bytes
            }
        };
        // The bytes around the records are those of an empty list, without the length of its
        // records, which is one byte. One byte stands behind the records, too.
        let around = Message::ToPeer(ToPeer::List { request, records: Arc::default(), more });
        self.buffer.put_u32(0);
        put(&around, &mut self.buffer)?;
        let last = self.buffer.len().saturating_sub(1);
        let length = (last + shared.len()).saturating_sub(HEADER);
        let header = header(length)?;
        let (before, after) = self.buffer.split_at_mut_checked(last).unwrap_or_default();
        if let Some(place) = before.get_mut(..HEADER) {
            place.copy_from_slice(&header);
        }
        let before = before.get(..last.saturating_sub(1)).unwrap_or_default();
        Ok(Frame { before, shared, after })
    }
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

/// What both sides of an encrypted link mix into their handshake, so that neither can be made to
/// believe that the other speaks another version.
pub fn prologue() -> [u8; 5] {
    let [a, b, c, d] = SEALED_MAGIC;
    [a, b, c, d, VERSION]
}

/// The first message of an encrypted opening as a frame.
///
/// # Errors
///
/// As [`encode`].
pub fn encode_sealed_opening(message: &[u8]) -> Result<Vec<u8>, EncodeError> {
    framed(&prologue(), message)
}

/// The second message of an encrypted opening as a frame.
///
/// # Errors
///
/// As [`encode`].
pub fn encode_sealed_reply(message: &[u8]) -> Result<Vec<u8>, EncodeError> {
    framed(&[SEALED_REPLY], message)
}

/// The third message of an encrypted opening as a frame.
///
/// # Errors
///
/// As [`encode`].
pub fn encode_sealed_hello(message: &[u8]) -> Result<Vec<u8>, EncodeError> {
    framed(&[], message)
}

fn framed(before: &[u8], message: &[u8]) -> Result<Vec<u8>, EncodeError> {
    let mut buffer = Vec::new();
    frame(&mut buffer, |buffer| {
        buffer.put_slice(before);
        buffer.put_slice(message);
        Ok(())
    })?;
    Ok(buffer)
}

/// The inside of an encrypted opening: who says the hello, and the hello.
///
/// # Errors
///
/// As [`encode`].
pub fn encode_inner_hello(me: &Identity, hello: &Hello) -> Result<Vec<u8>, EncodeError> {
    let mut buffer = me.0.to_vec();
    put(hello, &mut buffer)?;
    Ok(buffer)
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
    let written = bincode::serde::encode_into_std_write(value, buffer, FORMAT);
    written.map(|_| ()).map_err(|error| EncodeError::Format(error.to_string()))
}

/// The length in front of a frame of so many bytes.
fn header(length: usize) -> Result<[u8; HEADER], EncodeError> {
    match u32::try_from(length) {
        Ok(header) if length <= MAX_FRAME => Ok(header.to_be_bytes()),
        _ => Err(EncodeError::TooLong(length)),
    }
}

fn frame(
    buffer: &mut Vec<u8>,
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let start = buffer.len();
    buffer.put_u32(0);
    let written = body(buffer).and_then(|()| header(buffer.len() - start - HEADER));
    match written {
        Ok(header) => {
            if let Some(place) = buffer.get_mut(start..start + HEADER) {
                place.copy_from_slice(&header);
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

/// The first frame of whoever opens a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opening<'a> {
    /// The hello of a plain link.
    Hello(Hello),
    /// The first message of a link that is to be encrypted.
    Sealed(&'a [u8]),
}

/// Decodes the first frame of a connection.
///
/// # Errors
///
/// If the magic or the version differ, or the rest is not exactly a hello or a first message.
pub fn decode_opening(frame: &[u8]) -> Result<Opening<'_>, DecodeError> {
    let Some((magic, rest)) = frame.split_first_chunk() else { return Err(DecodeError::Magic) };
    let sealed = *magic == SEALED_MAGIC;
    if !sealed && *magic != MAGIC {
        return Err(DecodeError::Magic);
    }
    let Some((version, rest)) = rest.split_first() else { return Err(DecodeError::Magic) };
    if *version != VERSION {
        return Err(DecodeError::Version(*version));
    }
    if sealed { Ok(Opening::Sealed(rest)) } else { whole(rest).map(Opening::Hello) }
}

/// Decodes the hello of a plain link.
///
/// # Errors
///
/// If the frame is anything else.
pub fn decode_hello(frame: &[u8]) -> Result<Hello, DecodeError> {
    match decode_opening(frame)? {
        Opening::Hello(hello) => Ok(hello),
        Opening::Sealed(_) => Err(DecodeError::Magic),
    }
}

/// Decodes the inside of an encrypted opening: who says the hello, and the hello.
///
/// # Errors
///
/// If the bytes are anything else.
pub fn decode_inner_hello(bytes: &[u8]) -> Result<(Identity, Hello), DecodeError> {
    let (identity, hello) = bytes.split_first_chunk().ok_or(DecodeError::Magic)?;
    Ok((Identity(*identity), whole(hello)?))
}

/// Takes the identity of the answering process from the bytes before its answer; none if there are
/// too few.
pub fn take_identity(bytes: &mut BytesMut) -> Option<Identity> {
    let identity = Identity(*bytes.first_chunk()?);
    bytes.advance(identity.0.len());
    Some(identity)
}

/// The message in the second frame of an encrypted opening; none if the frame is an [`Answer`].
pub fn sealed_reply(frame: &[u8]) -> Option<&[u8]> {
    frame.split_first().filter(|(first, _)| **first == SEALED_REPLY).map(|(_, message)| message)
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
    let (value, consumed) = bincode::serde::decode_from_slice(frame, FORMAT)
        .map_err(|error| DecodeError::Format(error.to_string()))?;
    match frame.len() - consumed {
        0 => Ok(value),
        left => Err(DecodeError::LeftOver(left)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::registry::{Record, Status};

    fn whole(frame: &Frame<'_>) -> Vec<u8> {
        [frame.before, &frame.shared, frame.after].concat()
    }

    #[test]
    fn a_frame_in_pieces_is_the_same_as_one_in_one() {
        let record = |port| {
            let record = Record::plain(1 << 40, Status::Alive, 9, vec![0, 1]);
            (([127, 0, 0, 1], port).into(), record)
        };
        let list = |many: u16| -> Records { (1..=many).map(record).collect() };
        let (one, other) = (list(600), list(601));
        let mut messages = vec![Message::Ping(7), Message::ToPeer(ToPeer::Update(one.to_vec()))];
        for records in [&one, &one, &other, &list(1), &list(0), &one] {
            for (request, more) in [(1, false), (70_000, true)] {
                messages.push(Message::ToPeer(ToPeer::List {
                    request,
                    records: Arc::clone(records),
                    more,
                }));
            }
        }
        let mut encoder = Encoder::default();
        for message in messages {
            let mut bytes = Vec::new();
            encode(&message, &mut bytes).unwrap();
            assert_eq!(whole(&encoder.encode(&message).unwrap()), bytes);
        }
        let thrice = [list(60_000), list(60_000), list(60_000)].concat();
        let too_long =
            Message::ToPeer(ToPeer::List { request: 1, records: thrice.into(), more: false });
        assert!(matches!(encoder.encode(&too_long), Err(EncodeError::TooLong(_))));
        assert_eq!(whole(&encoder.encode(&Message::Ping(7)).unwrap()).len(), 6);
    }
}
