//! The opening of a link: one side says hello, the other side answers, and both have deadlines.
//!
//! What must stay true: a stranger can hold a connection only for a bounded time and with a bounded
//! number of bytes before its hello is complete.

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

/// The time that a stranger has to say hello.
pub const HELLO_PATIENCE: Duration = Duration::from_secs(5);

/// Pause between two attempts to dial a process that hung up without an answer.
const DIAL_AGAIN: Duration = Duration::from_millis(20);

/// A connection whose opening is over: the stream, and the bytes that came behind the opening.
#[derive(Debug)]
pub struct Opened {
    /// The open connection.
    pub stream: TcpStream,
    /// Bytes that were read behind the opening.
    pub rest: BytesMut,
}

/// The reason why an incoming connection has no valid hello.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// No hello within [`HELLO_PATIENCE`].
    #[error("no hello in time")]
    TimedOut,
    /// The connection ended before its hello was complete.
    #[error("closed before its hello was complete")]
    Closed,
    /// The first bytes are those of another protocol.
    #[error("{0}")]
    NoLink(&'static str),
    /// The bytes are no hello.
    #[error("{0}")]
    Decode(#[from] DecodeError),
    /// The hello is of another network, another list of seeds or another version.
    #[error("{}", .0.words())]
    Refused(Refused),
    /// The socket failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl AcceptError {
    /// Whether this looks like a port scan or a health check, which is not worth a warning: the
    /// connection ended or failed before its hello was complete.
    pub fn is_silent(&self) -> bool {
        matches!(self, AcceptError::Closed | AcceptError::Io(_))
    }
}

/// Opens a link `within` the given time: connects, says hello, and hears the answer.
///
/// # Errors
///
/// The reason for the failure, in the machine's terms. A lack of local resources is
/// [`OpenError::Local`], because it says nothing about the other side.
pub async fn open(
    to: Addr,
    hello: &Hello,
    within: Duration,
) -> Result<(Opened, Welcome), OpenError> {
    timeout(within, persist(to, hello)).await.unwrap_or(Err(OpenError::TimedOut))
}

/// Dials until there is an answer of some kind. A connection that ends without an answer proves
/// nothing, because both a dying process and a crowded one end it. The next attempt tells them
/// apart: where a process is dead, nobody listens.
async fn persist(to: Addr, hello: &Hello) -> Result<(Opened, Welcome), OpenError> {
    loop {
        if let Some(result) = dial(to, hello).await {
            return result;
        }
        // No event tells when the other side can be asked again, so this waits for a while.
        tokio::time::sleep(DIAL_AGAIN).await;
    }
}

/// Dials once; none if the connection ended without an answer.
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
    // A probe says only one thing, which nothing delays, so it does without `nodelay`.
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

/// Connects to ask one thing and to hear one answer. Acknowledgements go along with what is said
/// next instead of in packets of their own, which saves two packets of eight. That matters, because
/// a seed does this for every newcomer.
async fn connect_for_a_question(to: Addr) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    #[cfg(target_os = "linux")]
    // A failure is ignored: the option only saves packets.
    let _ = socket2::SockRef::from(&socket).set_tcp_quickack(false);
    socket.connect(to).await
}

/// The proof about the other side that a failed connect gives; none if it is to be dialled again.
fn evidence(error: &io::Error) -> Option<OpenError> {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Some(OpenError::Unreachable),
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => None,
        io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable => Some(OpenError::TimedOut),
        // This side lacks descriptors, ports or a network.
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

/// Recognizes another protocol by its first bytes, and returns what to say about it. Otherwise the
/// bytes would be read as the length of a hello, and the log would tell of a frame over the limit.
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

/// Whether a connection is a link: a hello is short, so the first byte of its length is 0. A
/// connection that says nothing counts as a link, and [`accept`] finds out what is wrong with it.
pub async fn is_link(stream: &TcpStream) -> bool {
    let mut first = [0; 1];
    match timeout(HELLO_PATIENCE, stream.peek(&mut first)).await {
        Ok(Ok(1)) => first == [0],
        _ => true,
    }
}

/// Hears the hello of an incoming connection. If it is of another version or network, the other
/// side is told so.
///
/// # Errors
///
/// The reason why there was no valid hello.
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
            // To a probe only the answer is left to be said, which nothing delays either.
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

/// Encodes an answer, ready to be written.
///
/// # Errors
///
/// If it does not fit a frame.
pub fn answer_bytes(answer: &Answer) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = Vec::new();
    codec::encode_answer(answer, &mut bytes)?;
    Ok(bytes)
}
