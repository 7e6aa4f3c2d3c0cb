//! The opening of a link: one side says hello, the other side answers, and both have deadlines.
//!
//! What must stay true: a stranger can hold a connection only for a bounded time and with a bounded
//! number of bytes before its hello is complete.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::codec::{self, DecodeError, EncodeError, Opening};
use super::secure::{Accepting, Dialling, Security, Session};
use crate::proto::config::Network;
use crate::proto::machine::OpenError;
use crate::proto::message::{
    Addr, Answer, Hello, Identity, Purpose, Refusal, Refused, Role, Welcome,
};

/// The time that a stranger has to say hello.
pub const HELLO_PATIENCE: Duration = Duration::from_secs(5);

/// Pause between two attempts to dial a process that hung up without an answer.
const DIAL_AGAIN: Duration = Duration::from_millis(20);

/// A connection whose opening is over: the stream, and the bytes that came behind the opening.
#[derive(Debug)]
pub struct Opened {
    /// The open connection.
    pub stream: TcpStream,
    /// Bytes that were read behind the opening, decrypted.
    pub rest: BytesMut,
    /// If the link is encrypted: its session, and bytes that are still to be decrypted.
    pub session: Option<Box<(Session, BytesMut)>>,
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
    /// The hello is of another network, another list of seeds, another version or another key, and
    /// who said it, if that could be read.
    #[error("{}", .0.words())]
    Refused(Refused, Option<Addr>),
    /// The other side has not the secret of the identity that it says.
    #[error("it does not hold the key of the identity that it claims")]
    Impostor,
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

/// Opens a link `within` the given time: connects, says hello, and hears the answer. With
/// `security`, the link is encrypted.
///
/// # Errors
///
/// The reason for the failure, in the machine's terms. A lack of local resources is
/// [`OpenError::Local`], because it says nothing about the other side.
pub async fn open(
    to: Addr,
    hello: &Hello,
    within: Duration,
    security: Option<&Security>,
) -> Result<(Opened, Welcome), OpenError> {
    timeout(within, persist(to, hello, security)).await.unwrap_or(Err(OpenError::TimedOut))
}

/// Dials until there is an answer of some kind. A connection that ends without an answer proves
/// nothing, because both a dying process and a crowded one end it. The next attempt tells them
/// apart: where a process is dead, nobody listens.
async fn persist(
    to: Addr,
    hello: &Hello,
    security: Option<&Security>,
) -> Result<(Opened, Welcome), OpenError> {
    loop {
        match dial(to, hello, security).await {
            Err(DialError::NoAnswer) => {}
            Err(DialError::Final(error)) => return Err(error),
            Ok(opened) => return Ok(opened),
        }
        // No event tells when the other side can be asked again, so this waits for a while.
        tokio::time::sleep(DIAL_AGAIN).await;
    }
}

/// Why one attempt to dial has failed.
enum DialError {
    /// The connection ended without an answer.
    NoAnswer,
    /// There is no point in another attempt.
    Final(OpenError),
}

impl From<io::Error> for DialError {
    fn from(_: io::Error) -> Self {
        DialError::NoAnswer
    }
}

impl From<EncodeError> for DialError {
    fn from(_: EncodeError) -> Self {
        DialError::Final(OpenError::Local)
    }
}

impl From<AcceptError> for DialError {
    fn from(error: AcceptError) -> Self {
        match error {
            AcceptError::Io(_) | AcceptError::Closed => DialError::NoAnswer,
            _ => GARBAGE,
        }
    }
}

const GARBAGE: DialError = DialError::Final(OpenError::Garbage);

/// Dials once.
async fn dial(
    to: Addr,
    hello: &Hello,
    security: Option<&Security>,
) -> Result<(Opened, Welcome), DialError> {
    let probe = hello.purpose == Purpose::Probe;
    let connected = match probe {
        true => connect_for_a_question(to).await,
        false => TcpStream::connect(to).await,
    };
    let stream = connected.map_err(|error| evidence(&error))?;
    // A probe says only one thing at a time, which nothing delays, so it does without `nodelay`.
    if !probe {
        stream.set_nodelay(true)?;
    }
    let opening = Incomplete { stream, rest: BytesMut::with_capacity(256) };
    match security {
        None => opening.say_hello(hello).await,
        Some(security) => opening.say_sealed_hello(to, hello, security).await,
    }
}

/// A connection during its opening.
struct Incomplete {
    stream: TcpStream,
    /// Bytes that were read and not looked at.
    rest: BytesMut,
}

impl Incomplete {
    /// Says hello over a plain link, and hears the answer.
    async fn say_hello(mut self, hello: &Hello) -> Result<(Opened, Welcome), DialError> {
        let mut bytes = Vec::new();
        codec::encode_hello(hello, &mut bytes)?;
        self.stream.write_all(&bytes).await?;
        let frame = read_opening(&mut self.stream, &mut self.rest).await?;
        match codec::decode_answer(&frame) {
            Ok(Answer::Welcome(welcome)) => {
                let Self { stream, rest } = self;
                Ok((Opened { stream, rest, session: None }, welcome))
            }
            Ok(Answer::Refused(refusal)) => Err(DialError::Final(OpenError::Refused(refusal))),
            Err(_) => Err(GARBAGE),
        }
    }

    /// Encrypts the link, says hello over it, and hears the answer.
    async fn say_sealed_hello(
        mut self,
        to: Addr,
        hello: &Hello,
        security: &Security,
    ) -> Result<(Opened, Welcome), DialError> {
        let unable = |_| DialError::Final(OpenError::Local);
        let (dialling, first) = Dialling::begin(security, &codec::prologue()).map_err(unable)?;
        self.stream.write_all(&codec::encode_sealed_opening(&first)?).await?;
        let frame = read_opening(&mut self.stream, &mut self.rest).await?;
        let Some(reply) = codec::sealed_reply(&frame) else { return Err(unsealed(&frame)) };
        let hello = codec::encode_inner_hello(&security.identity(), hello)?;
        let (third, session) = dialling.finish(reply, &hello).map_err(|_| GARBAGE)?;
        self.stream.write_all(&codec::encode_sealed_hello(&third)?).await?;
        self.hear_sealed_answer(to, session, security).await
    }

    /// Hears the answer to a hello over an encrypted link.
    async fn hear_sealed_answer(
        mut self,
        to: Addr,
        mut session: Session,
        security: &Security,
    ) -> Result<(Opened, Welcome), DialError> {
        // No record is so short that its length begins so; a plain frame of an opening always does.
        while self.rest.len() < 2 {
            read_more(&mut self.stream, &mut self.rest).await?;
        }
        if self.rest.starts_with(&[0, 0]) {
            let frame = read_opening(&mut self.stream, &mut self.rest).await?;
            return Err(unsealed(&frame));
        }
        let mut plain = BytesMut::new();
        while !session.opener.open(&mut self.rest, &mut plain).map_err(|_| GARBAGE)? {
            read_more(&mut self.stream, &mut self.rest).await?;
        }
        let Some(identity) = codec::take_identity(&mut plain) else { return Err(GARBAGE) };
        if !session.is_with(&identity) {
            return Err(GARBAGE);
        }
        let known = security.is_the_seed(to, &identity);
        let frame = codec::next_frame(&mut codec::opening_frames(), &mut plain);
        let Ok(Some(frame)) = frame else { return Err(GARBAGE) };
        let welcome = match codec::decode_answer(&frame) {
            Ok(Answer::Welcome(welcome)) => Welcome { identity: Some(identity), ..welcome },
            Ok(Answer::Refused(refusal)) => {
                return Err(DialError::Final(OpenError::Refused(refusal)));
            }
            Err(_) => return Err(GARBAGE),
        };
        if welcome.role == Role::Seed && !known {
            return Err(DialError::Final(refusal_of(Refused::WrongIdentity)));
        }
        let Self { stream, rest } = self;
        Ok((Opened { stream, rest: plain, session: Some(Box::new((session, rest))) }, welcome))
    }
}

fn refusal_of(reason: Refused) -> OpenError {
    OpenError::Refused(Refusal { reason, others: Vec::new() })
}

/// What an answer means that came in plain when it should have been encrypted. Anybody on the way
/// could have said it, so it counts only for what can be said no other way.
fn unsealed(frame: &[u8]) -> DialError {
    match codec::decode_answer(frame) {
        Ok(Answer::Refused(Refusal {
            reason: reason @ (Refused::Version | Refused::Encrypted | Refused::WrongKey),
            ..
        })) => DialError::Final(refusal_of(reason)),
        _ => GARBAGE,
    }
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

/// The proof about the other side that a failed connect gives.
fn evidence(error: &io::Error) -> DialError {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => DialError::Final(OpenError::Unreachable),
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => DialError::NoAnswer,
        io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable => {
            DialError::Final(OpenError::TimedOut)
        }
        // This side lacks descriptors, ports or a network.
        _ => DialError::Final(OpenError::Local),
    }
}

async fn read_opening(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
) -> Result<BytesMut, AcceptError> {
    let mut frames = codec::opening_frames();
    let mut is_frame = false;
    loop {
        // The codec takes the length of a frame out as soon as it is there. What stands in front
        // afterwards says nothing of the protocol.
        if !is_frame && let Some(stranger) = stranger(buffer) {
            return Err(AcceptError::NoLink(stranger));
        }
        is_frame = is_frame || buffer.len() >= codec::HEADER;
        if let Some(frame) = codec::next_frame(&mut frames, buffer)? {
            return Ok(frame);
        }
        read_more(stream, buffer).await?;
    }
}

async fn read_more(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
) -> Result<(), AcceptError> {
    match stream.read_buf(buffer).await? {
        0 => Err(AcceptError::Closed),
        _ => Ok(()),
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

/// Hears the hello of an incoming connection. With `security`, the link has to be encrypted. If the
/// hello cannot be accepted, the other side is told why.
///
/// # Errors
///
/// The reason why there was no valid hello.
pub async fn accept(
    stream: TcpStream,
    network: &Network,
    security: Option<&Security>,
) -> Result<(Opened, Hello), AcceptError> {
    let opening = Incomplete { stream, rest: BytesMut::with_capacity(256) };
    timeout(HELLO_PATIENCE, opening.hear_hello(network, security))
        .await
        .map_err(|_| AcceptError::TimedOut)?
}

impl Incomplete {
    async fn hear_hello(
        mut self,
        network: &Network,
        security: Option<&Security>,
    ) -> Result<(Opened, Hello), AcceptError> {
        let frame = read_opening(&mut self.stream, &mut self.rest).await?;
        let hello = match (codec::decode_opening(&frame), security) {
            (Ok(Opening::Hello(hello)), None) => hello,
            (Ok(Opening::Sealed(first)), Some(security)) => {
                return self.hear_sealed_hello(first, network, security).await;
            }
            (Ok(Opening::Hello(_)), Some(_)) => {
                return self.refuse(Refused::Plain, None, None).await;
            }
            (Ok(Opening::Sealed(_)), None) => {
                return self.refuse(Refused::Encrypted, None, None).await;
            }
            (Err(DecodeError::Version(_)), _) => {
                return self.refuse(Refused::Version, None, None).await;
            }
            (Err(error), _) => return Err(error.into()),
        };
        match objection(&hello, network) {
            Some(refused) => self.refuse(refused, Some(hello.from), None).await,
            None => self.opened(hello, None),
        }
    }

    async fn hear_sealed_hello(
        mut self,
        first: &[u8],
        network: &Network,
        security: &Security,
    ) -> Result<(Opened, Hello), AcceptError> {
        let begun = Accepting::begin(security, &codec::prologue(), first);
        let Ok((accepting, reply)) = begun else {
            return self.refuse(Refused::WrongKey, None, None).await;
        };
        let reply = codec::encode_sealed_reply(&reply).map_err(io::Error::other)?;
        self.stream.write_all(&reply).await?;
        let third = read_opening(&mut self.stream, &mut self.rest).await?;
        let Ok((hello, session)) = accepting.finish(&third) else {
            return self.refuse(Refused::WrongKey, None, None).await;
        };
        let (identity, hello) = codec::decode_inner_hello(&hello)?;
        if !session.is_with(&identity) {
            return Err(AcceptError::Impostor);
        }
        let doubt = || security.objection_to(&hello, &identity);
        match objection(&hello, network).or_else(doubt) {
            Some(refused) => {
                let session = Some((session, security.identity()));
                self.refuse(refused, Some(hello.from), session).await
            }
            None => self.opened(Hello { identity: Some(identity), ..hello }, Some(session)),
        }
    }

    fn opened(
        self,
        hello: Hello,
        session: Option<Session>,
    ) -> Result<(Opened, Hello), AcceptError> {
        let Self { stream, rest } = self;
        // To a probe only the answer is left to be said, which nothing delays.
        if hello.purpose != Purpose::Probe {
            stream.set_nodelay(true)?;
        }
        let opened = match session {
            None => Opened { stream, rest, session: None },
            Some(session) => {
                let session = Some(Box::new((session, rest)));
                Opened { stream, rest: BytesMut::new(), session }
            }
        };
        Ok((opened, hello))
    }

    /// Tells the other side that it is refused, encrypted if there is a session.
    async fn refuse<T>(
        mut self,
        refused: Refused,
        by: Option<Addr>,
        session: Option<(Session, Identity)>,
    ) -> Result<T, AcceptError> {
        let answer = Answer::Refused(Refusal { reason: refused, others: Vec::new() });
        let me = session.as_ref().map(|(_, me)| *me);
        let mut bytes = answer_bytes(me.as_ref(), &answer).map_err(io::Error::other)?;
        if let Some((mut session, _)) = session {
            let mut sealed = Vec::new();
            session.sealer.seal(&bytes, &mut sealed).map_err(io::Error::other)?;
            bytes = sealed;
        }
        self.stream.write_all(&bytes).await?;
        Err(AcceptError::Refused(refused, by))
    }
}

/// Why a hello is not accepted by any process of this network.
fn objection(hello: &Hello, network: &Network) -> Option<Refused> {
    if hello.network != network.name {
        Some(Refused::Network)
    } else if hello.seeds != network.digest() {
        Some(Refused::SeedList)
    } else {
        None
    }
}

/// Encodes an answer, ready to be written; with the identity of this process before it if the link
/// is encrypted.
///
/// # Errors
///
/// If it does not fit a frame.
pub fn answer_bytes(me: Option<&Identity>, answer: &Answer) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = me.map(|me| me.0.to_vec()).unwrap_or_default();
    codec::encode_answer(answer, &mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
#[cfg(feature = "encryption")]
mod tests;
