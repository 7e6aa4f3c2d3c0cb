//! The opening of a link: hello, answer, deadlines.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::codec::{self, DecodeError, EncodeError};
use crate::proto::config::Network;
use crate::proto::machine::OpenError;
use crate::proto::message::{Addr, Answer, Hello, Purpose, Refusal, Refused, Welcome};

/// A stranger that connects has this long to say hello.
pub const HELLO_PATIENCE: Duration = Duration::from_secs(5);

/// Between two attempts to dial somebody who hung up without an answer.
const DIAL_AGAIN: Duration = Duration::from_millis(20);

/// What is left of a connection once it is open: the stream, and bytes that came with the opening.
#[derive(Debug)]
pub struct Opened {
    /// The connection.
    pub stream: TcpStream,
    /// What was read beyond the opening.
    pub rest: BytesMut,
}

/// Why an incoming connection did not get as far as a valid hello.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// No hello within [`HELLO_PATIENCE`].
    #[error("no hello in time")]
    TimedOut,
    /// It ended before its hello did.
    #[error("closed before its hello was complete")]
    Closed,
    /// Somebody else's protocol.
    #[error("{0}")]
    NoLink(&'static str),
    /// What was said is no hello.
    #[error("{0}")]
    Decode(#[from] DecodeError),
    /// Another network.
    #[error("{}", .0.words())]
    Refused(Refused),
    /// The socket failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl AcceptError {
    /// Whether nothing at all was said: a port scan or a health check, not worth a warning.
    pub fn is_silent(&self) -> bool {
        matches!(self, AcceptError::Closed | AcceptError::Io(_))
    }
}

/// Opens a link: connects, says hello, hears the answer, all `within` the given time.
///
/// # Errors
///
/// Why it came to nothing, in the machine's terms. A want of local resources counts as a time-out,
/// because it says nothing about the other side.
pub async fn open(
    to: Addr,
    hello: &Hello,
    within: Duration,
) -> Result<(Opened, Welcome), OpenError> {
    timeout(within, persist(to, hello)).await.unwrap_or(Err(OpenError::TimedOut))
}

/// Dials until there is an answer of some kind. A connection that ends before its answer proves
/// nothing: a process that is dying ends it, and so does one that is crowded. The next attempt tells
/// them apart, because nobody listens for the dead.
async fn persist(to: Addr, hello: &Hello) -> Result<(Opened, Welcome), OpenError> {
    loop {
        if let Some(result) = dial(to, hello).await {
            return result;
        }
        // There is no event to wait for: the other side is asked again.
        tokio::time::sleep(DIAL_AGAIN).await;
    }
}

/// One attempt; none if it ended without an answer.
async fn dial(to: Addr, hello: &Hello) -> Option<Result<(Opened, Welcome), OpenError>> {
    let probe = hello.purpose == Purpose::Probe;
    let connected = match probe {
        true => connect_for_a_question(to).await,
        false => TcpStream::connect(to).await,
    };
    let mut stream = match connected {
        Ok(stream) => stream,
        Err(error) => return evidence(&error).map(Err),
    };
    let mut bytes = Vec::new();
    if codec::encode_hello(hello, &mut bytes).is_err() {
        return Some(Err(OpenError::Local));
    }
    // Nothing delays the one thing that a probe says.
    let prepared = if probe { Ok(()) } else { stream.set_nodelay(true) };
    if prepared.is_err() || stream.write_all(&bytes).await.is_err() {
        return None;
    }
    let mut rest = BytesMut::with_capacity(256);
    let frame = match read_opening(&mut stream, &mut rest).await {
        Ok(frame) => frame,
        Err(AcceptError::Io(_) | AcceptError::Closed) => return None,
        Err(_) => return Some(Err(OpenError::Garbage)),
    };
    Some(match codec::decode_answer(&frame) {
        Ok(Answer::Welcome(welcome)) => Ok((Opened { stream, rest }, welcome)),
        Ok(Answer::Refused(refusal)) => Err(OpenError::Refused(refusal)),
        Err(_) => Err(OpenError::Garbage),
    })
}

/// Connects to ask one thing, and to hear one answer: what acknowledges the other side's packets
/// goes along with what is said next, and not in two packets of its own out of eight in all. A seed
/// does that for every newcomer.
async fn connect_for_a_question(to: Addr) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    #[cfg(target_os = "linux")]
    // It would also do without.
    let _ = socket2::SockRef::from(&socket).set_tcp_quickack(false);
    socket.connect(to).await
}

/// What a failed connect proves about the other side; none if it is to be tried again.
fn evidence(error: &io::Error) -> Option<OpenError> {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Some(OpenError::Unreachable),
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => None,
        io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable => Some(OpenError::TimedOut),
        // No descriptors, no ports, no network on this side.
        _ => Some(OpenError::Local),
    }
}

async fn read_opening(
    stream: &mut TcpStream,
    buffer: &mut BytesMut,
) -> Result<BytesMut, AcceptError> {
    let mut frames = codec::opening_frames();
    loop {
        if let Some(stranger) = stranger(buffer) {
            return Err(AcceptError::NoLink(stranger));
        }
        if let Some(frame) = codec::next_frame(&mut frames, buffer)? {
            return Ok(frame);
        }
        if stream.read_buf(buffer).await? == 0 {
            return Err(AcceptError::Closed);
        }
    }
}

/// What speaks a protocol of its own at this port, by the first bytes of it: as the length of a hello,
/// which they are not, they would be told of as a frame over the limit.
fn stranger(bytes: &[u8]) -> Option<&'static str> {
    const HTTP: [&[u8]; 11] = [
        b"GET ", b"HEAD", b"POST", b"PUT ", b"DELE", b"CONN", b"OPTI", b"TRAC", b"PATC", b"PRI ",
        b"HTTP",
    ];
    let first = bytes.get(..4)?;
    if HTTP.contains(&first) {
        Some("somebody speaks HTTP to the port of the links; HTTP is served where --http says")
    } else if first.starts_with(&[0x16, 3]) {
        Some("somebody speaks TLS to the port of the links, which takes links alone")
    } else if first.starts_with(&[0]) {
        None
    } else {
        Some("what was said is no link: another protocol, or another program's port was meant")
    }
}

/// Whether what comes in is a link: the first byte of its hello's length is 0, since a hello is short.
/// One that says nothing counts as one, and [`accept`] finds out what is the matter with it.
pub async fn is_link(stream: &TcpStream) -> bool {
    let mut first = [0; 1];
    match timeout(HELLO_PATIENCE, stream.peek(&mut first)).await {
        Ok(Ok(1)) => first == [0],
        _ => true,
    }
}

/// Hears the hello of an incoming connection. One of another version or network is told why.
///
/// # Errors
///
/// Why there was no valid hello.
pub async fn accept(
    mut stream: TcpStream,
    network: &Network,
) -> Result<(Opened, Hello), AcceptError> {
    let mut rest = BytesMut::with_capacity(256);
    let hear = read_opening(&mut stream, &mut rest);
    let frame = timeout(HELLO_PATIENCE, hear).await.map_err(|_| AcceptError::TimedOut)??;
    let refused = match codec::decode_hello(&frame) {
        Ok(hello) if hello.network != network.name => Refused::Network,
        Ok(hello) if hello.seeds != network.digest() => Refused::SeedList,
        Ok(hello) => {
            // Of a probe only the answer is left to be said, which nothing delays.
            if hello.purpose != Purpose::Probe {
                stream.set_nodelay(true)?;
            }
            return Ok((Opened { stream, rest }, hello));
        }
        Err(DecodeError::Version(_)) => Refused::Version,
        Err(error) => return Err(error.into()),
    };
    let answer = Answer::Refused(Refusal { reason: refused, others: Vec::new() });
    let bytes = answer_bytes(&answer).map_err(io::Error::other)?;
    timeout(HELLO_PATIENCE, stream.write_all(&bytes))
        .await
        .map_err(|_| AcceptError::TimedOut)??;
    Err(AcceptError::Refused(refused))
}

/// An answer, ready to be written.
///
/// # Errors
///
/// If it does not fit a frame.
pub fn answer_bytes(answer: &Answer) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = Vec::new();
    codec::encode_answer(answer, &mut bytes)?;
    Ok(bytes)
}
