//! The least that a seed takes for a peer: it answers dial-backs and talks to seeds, and has no
//! opinion of its own. A thousand of them fit one process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use rumormill::net::secure::{Security, Session};
use rumormill::net::{codec, handshake};
use rumormill::proto::config::Network;
use rumormill::proto::message::{Addr, Answer, Message, Purpose, Role, ToPeer, ToSeed, Welcome};
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
    security: Option<Security>,
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
        let listener = rumormill::node::bind(addr).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let incarnation = u64::try_from(now.as_millis()).unwrap();
        let leaving = Arc::new(AtomicBool::new(false));
        let (of, gone, who) = (network.clone(), leaving.clone(), security.clone());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let leaving = gone.load(Ordering::Relaxed);
                let welcome = Welcome {
                    role: Role::Peer,
                    from: addr,
                    incarnation,
                    leaving,
                    clock: 0,
                    identity: None,
                };
                tokio::spawn(answer(stream, of.clone(), who.clone(), welcome));
            }
        });
        Self { addr, incarnation, network: network.clone(), security, leaving, task }
    }

    /// Opens a connection to a seed, as a peer does.
    pub async fn call(&self, seed: Addr) -> Result<Line, Failure> {
        let hello =
            self.network.hello(Role::Peer, self.addr, self.incarnation, Purpose::Membership);
        let opened = handshake::open(seed, &hello, OPENING, self.security.as_ref()).await;
        let (opened, _) = opened.map_err(|_| Failure::Gone)?;
        let (stream, rest, session) = (opened.stream, opened.rest, opened.session);
        Ok(Line { stream, rest, session, requests: 0 })
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

async fn answer(stream: TcpStream, network: Network, security: Option<Security>, welcome: Welcome) {
    let accepted = handshake::accept(stream, &network, security.as_ref()).await;
    let Ok((mut opened, _)) = accepted else { return };
    let me = security.as_ref().map(Security::identity);
    let bytes = handshake::answer_bytes(me.as_ref(), &Answer::Welcome(welcome)).unwrap();
    let bytes = sealed(&mut opened.session, bytes);
    let _ = opened.stream.write_all(&bytes).await;
    // Whoever asked hangs up.
    let _ = opened.stream.read(&mut [0; 1]).await;
}

/// A connection to a seed.
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
    session.sealer.seal(&plain, &mut sealed).unwrap();
    sealed
}

impl Line {
    pub async fn say(&mut self, message: &Message) -> Result<(), Failure> {
        let mut bytes = Vec::new();
        codec::encode(message, &mut bytes).unwrap();
        let bytes = sealed(&mut self.session, bytes);
        self.stream.write_all(&bytes).await.map_err(|_| Failure::Gone)
    }

    /// The next message but updates.
    async fn hear(&mut self) -> Result<Message, Failure> {
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
