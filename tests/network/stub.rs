//! The least that a seed takes for a peer: it answers dial-backs and talks to seeds, and has no
//! opinion of its own. A thousand of them fit one process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
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
    leaving: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Stub {
    pub async fn start(network: &Network) -> Self {
        Self::start_on(network, ([127, 0, 0, 1], 0).into()).await
    }

    pub async fn start_on(network: &Network, addr: Addr) -> Self {
        let listener = rumormill::node::bind(addr).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let incarnation = u64::try_from(now.as_millis()).unwrap();
        let leaving = Arc::new(AtomicBool::new(false));
        let (of, gone) = (network.clone(), leaving.clone());
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
                tokio::spawn(answer(stream, of.clone(), welcome));
            }
        });
        Self { addr, incarnation, network: network.clone(), leaving, task }
    }

    /// Opens a connection to a seed, as a peer does.
    pub async fn call(&self, seed: Addr) -> Result<Line, Failure> {
        let hello =
            self.network.hello(Role::Peer, self.addr, self.incarnation, Purpose::Membership);
        let (opened, _) =
            handshake::open(seed, &hello, OPENING, None).await.map_err(|_| Failure::Gone)?;
        Ok(Line { stream: opened.stream, rest: opened.rest, requests: 0 })
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

async fn answer(stream: TcpStream, network: Network, welcome: Welcome) {
    let Ok((mut opened, _)) = handshake::accept(stream, &network, None).await else { return };
    let bytes = handshake::answer_bytes(None, &Answer::Welcome(welcome)).unwrap();
    let _ = opened.stream.write_all(&bytes).await;
    // Whoever asked hangs up.
    let _ = opened.stream.read(&mut [0; 1]).await;
}

/// A connection to a seed.
pub struct Line {
    stream: TcpStream,
    rest: BytesMut,
    requests: u64,
}

impl Line {
    pub async fn say(&mut self, message: &Message) -> Result<(), Failure> {
        let mut bytes = Vec::new();
        codec::encode(message, &mut bytes).unwrap();
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
            match self.stream.read_buf(&mut self.rest).await {
                Ok(0) | Err(_) => return Err(Failure::Gone),
                Ok(_) => {}
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
