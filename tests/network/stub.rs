//! The least that a seed takes for a peer: it answers dial-backs and talks to seeds, and has no
//! opinion of its own. A thousand of them fit one process.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use rumormill::net::secure::{KnownSeeds, MAX_RECORD, NetworkKeys, Secret, Security, Session};
use rumormill::net::{codec, handshake};
use rumormill::proto::config::Network;
use rumormill::proto::machine::OpenError;
use rumormill::proto::message::{
    Addr, Answer, Hello, Message, Purpose, Refusal, Refused, Role, ToPeer, ToSeed, Welcome,
};
use rumormill::proto::registry::Record;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// How long a connection may take to open.
const OPENING: Duration = Duration::from_secs(5);

/// Why a request came to nothing.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// The seed said no, in these words.
    Denied(String),
    /// The connection was not there, or ended: whether the request was done is not known.
    Gone,
}

/// Something that listens where it says, and answers in its incarnation. It is deaf once dropped.
pub struct Stub {
    pub addr: Addr,
    pub incarnation: u64,
    network: Network,
    /// Set if its links are encrypted.
    pub security: Option<Security>,
    leaving: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Stub {
    pub async fn start(network: &Network) -> Self {
        Self::start_on(network, ([127, 0, 0, 1], 0).into()).await
    }

    pub async fn start_on(network: &Network, addr: Addr) -> Self {
        Self::start_as(network, addr, None).await
    }

    /// A stub whose links are encrypted, if there is `security`.
    pub async fn start_as(network: &Network, addr: Addr, security: Option<Security>) -> Self {
        Self::start_with(network, addr, security, Conduct::default()).await
    }

    /// A stub that behaves in its own way.
    pub async fn start_with(
        network: &Network,
        addr: Addr,
        security: Option<Security>,
        conduct: Conduct,
    ) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let incarnation = u64::try_from(now.as_millis()).unwrap();
        let listener = rumormill::node::bind(addr).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let leaving = Arc::new(AtomicBool::new(false));
        let (of, gone, who) = (network.clone(), leaving.clone(), security.clone());
        let conduct = Arc::new(conduct);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let leaving = gone.load(Ordering::Relaxed);
                let welcome = Welcome {
                    role: conduct.role,
                    from: addr,
                    incarnation,
                    leaving,
                    clock: 0,
                    identity: None,
                };
                tokio::spawn(answer(stream, of.clone(), who.clone(), welcome, conduct.clone()));
            }
        });
        Self { addr, incarnation, network: network.clone(), security, leaving, task }
    }

    /// A member of an encrypted network: a stub that has its key, an identity of its own, and a
    /// registration.
    pub async fn member(network: &Network, key: &str, conduct: Conduct) -> Self {
        let (any, security) = (([127, 0, 0, 1], 0).into(), fresh_security(network, key));
        let stub = Self::start_with(network, any, Some(security), conduct).await;
        let mut line = stub.call(network.seeds()[0]).await.unwrap();
        line.register(stub.incarnation).await.unwrap();
        stub
    }

    /// Opens a connection to a seed, as a peer does.
    pub async fn call(&self, seed: Addr) -> Result<Line, Failure> {
        self.dial(seed, Purpose::Membership).await.map_err(|_| Failure::Gone)
    }

    /// Opens a connection of any kind.
    pub async fn dial(&self, to: Addr, purpose: Purpose) -> Result<Line, OpenError> {
        let hello = self.network.hello(Role::Peer, self.addr, self.incarnation, purpose);
        let opened = handshake::open(to, &hello, OPENING, self.security.as_ref()).await;
        opened.map(|(opened, _)| Line::of(opened))
    }

    /// From now on it says that it is leaving.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The key of a network, and an identity that nobody has seen.
pub fn fresh_security(network: &Network, key: &str) -> Security {
    let keys = NetworkKeys::parse(key).unwrap();
    Security::new(keys, Secret::fresh().unwrap(), KnownSeeds::of(network))
}

type Talk = Pin<Box<dyn Future<Output = ()> + Send>>;
type Answers = Box<dyn Fn(&Hello, Welcome) -> Answer + Send + Sync>;

/// How a stub behaves towards those that call.
pub struct Conduct {
    /// What it says it is.
    role: Role,
    /// What it says to a hello, where a sound process would say welcome.
    pub answer: Answers,
    /// What it does over a connection that it let in.
    talk: Box<dyn Fn(Hello, Line) -> Talk + Send + Sync>,
}

impl Default for Conduct {
    /// It lets everybody in, and says nothing.
    fn default() -> Self {
        Self::of(Role::Peer, |_, mut line| async move {
            // Whoever asked hangs up.
            line.ended().await;
        })
    }
}

impl Conduct {
    /// It lets nobody link with it, and everybody look whether it is there.
    pub fn without_links() -> Self {
        let answer = |hello: &Hello, welcome| match hello.purpose {
            Purpose::Link => Answer::Refused(Refusal { reason: Refused::Full, others: Vec::new() }),
            _ => Answer::Welcome(welcome),
        };
        Self { answer: Box::new(answer), ..Self::default() }
    }

    /// It lets everybody in, and then does this.
    pub fn of<F>(role: Role, talk: impl Fn(Hello, Line) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let talk = move |hello, line| -> Talk { Box::pin(talk(hello, line)) };
        let answer = |_: &Hello, welcome| Answer::Welcome(welcome);
        Self { role, answer: Box::new(answer), talk: Box::new(talk) }
    }
}

async fn answer(
    stream: TcpStream,
    network: Network,
    security: Option<Security>,
    welcome: Welcome,
    conduct: Arc<Conduct>,
) {
    let accepted = handshake::accept(stream, &network, security.as_ref()).await;
    let Ok((mut opened, hello)) = accepted else { return };
    let me = security.as_ref().map(Security::identity);
    let answer = (conduct.answer)(&hello, welcome);
    let bytes = handshake::answer_bytes(me.as_ref(), &answer).unwrap();
    let bytes = sealed(&mut opened.session, bytes);
    let written = opened.stream.write_all(&bytes).await;
    if written.is_ok() && matches!(answer, Answer::Welcome(_)) {
        (conduct.talk)(hello, Line::of(opened)).await;
    }
}

/// An open connection.
pub struct Line {
    stream: TcpStream,
    rest: BytesMut,
    session: Option<Box<(Session, BytesMut)>>,
    requests: u64,
}

/// What goes out, encrypted if the link is.
fn sealed(session: &mut Option<Box<(Session, BytesMut)>>, plain: Vec<u8>) -> Vec<u8> {
    let Some((session, _)) = session.as_deref_mut() else { return plain };
    let mut sealed = Vec::new();
    for record in plain.chunks(MAX_RECORD) {
        session.sealer.seal(record, &mut sealed).unwrap();
    }
    sealed
}

impl Line {
    fn of(opened: handshake::Opened) -> Self {
        let (stream, rest, session) = (opened.stream, opened.rest, opened.session);
        Self { stream, rest, session, requests: 0 }
    }

    pub async fn say(&mut self, message: &Message) -> Result<(), Failure> {
        self.say_all(std::slice::from_ref(message)).await
    }

    /// Says all of these in one write.
    pub async fn say_all(&mut self, messages: &[Message]) -> Result<(), Failure> {
        let mut bytes = Vec::new();
        for message in messages {
            codec::encode(message, &mut bytes).unwrap();
        }
        let bytes = sealed(&mut self.session, bytes);
        self.stream.write_all(&bytes).await.map_err(|_| Failure::Gone)
    }

    /// The next message but updates.
    pub async fn hear(&mut self) -> Result<Message, Failure> {
        let mut frames = codec::frames();
        loop {
            while let Some(frame) = codec::next_frame(&mut frames, &mut self.rest).unwrap() {
                match codec::decode(&frame).unwrap() {
                    Message::ToPeer(ToPeer::Update(_)) => {}
                    message => return Ok(message),
                }
            }
            let Some((session, sealed)) = self.session.as_deref_mut() else {
                read(&mut self.stream, &mut self.rest).await?;
                continue;
            };
            while !session.opener.open(sealed, &mut self.rest).unwrap() {
                read(&mut self.stream, sealed).await?;
            }
        }
    }

    /// Waits until the other side hangs up.
    pub async fn ended(&mut self) -> Failure {
        loop {
            if let Err(failure) = self.hear().await {
                return failure;
            }
        }
    }

    fn next_request(&mut self) -> u64 {
        self.requests += 1;
        self.requests
    }

    /// Until the seed has answered for it. The list that follows is left in the connection.
    pub async fn register(&mut self, incarnation: u64) -> Result<(), Failure> {
        let request = self.next_request();
        self.say(&Message::ToSeed(ToSeed::Register { request, incarnation })).await?;
        self.granted(request).await
    }

    pub async fn leave(&mut self, incarnation: u64) -> Result<(), Failure> {
        let request = self.next_request();
        self.say(&Message::ToSeed(ToSeed::Leave { request, incarnation })).await?;
        self.granted(request).await
    }

    async fn granted(&mut self, wanted: u64) -> Result<(), Failure> {
        loop {
            match self.hear().await? {
                Message::ToPeer(ToPeer::Granted { request, .. }) if request == wanted => {
                    return Ok(());
                }
                Message::ToPeer(ToPeer::Denied { request, reason, .. }) if request == wanted => {
                    return Err(Failure::Denied(reason));
                }
                _ => {}
            }
        }
    }

    /// All that the seed knows.
    pub async fn list(&mut self) -> Result<Vec<(Addr, Record)>, Failure> {
        let wanted = self.next_request();
        self.say(&Message::ToSeed(ToSeed::Refresh { request: wanted, digest: [0; 32] })).await?;
        let mut all = Vec::new();
        loop {
            match self.hear().await? {
                Message::ToPeer(ToPeer::List { request, records, more }) if request == wanted => {
                    all.extend_from_slice(&records);
                    if !more {
                        return Ok(all);
                    }
                }
                Message::ToPeer(ToPeer::Denied { request, reason, .. }) if request == wanted => {
                    return Err(Failure::Denied(reason));
                }
                _ => {}
            }
        }
    }
}

async fn read(stream: &mut TcpStream, into: &mut BytesMut) -> Result<(), Failure> {
    match stream.read_buf(into).await {
        Ok(0) | Err(_) => Err(Failure::Gone),
        Ok(_) => Ok(()),
    }
}
