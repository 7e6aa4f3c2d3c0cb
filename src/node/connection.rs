//! One open connection: a bounded queue of what goes out, and batches of messages that come in.
//!
//! What must stay true: what a turn queues goes out together; a slow reader delays nobody else,
//! since only its own queue waits for it; and that queue has a bound.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use std::sync::Arc;
use tokio::io::AsyncReadExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use super::crowd::Places;
use super::hosted::Hosted;
use super::inbox::Inbound;
use super::queue::{Queue, Way};
use crate::net::codec::{self, Frame};
use crate::net::handshake::Opened;
use crate::net::secure::Opener;
use crate::proto::machine::Conn;
use crate::proto::message::{Addr, Message};

/// When more bytes than this are queued, eager traffic passes the connection by.
const HIGH_WATER: usize = 256 << 10;
/// When fewer bytes than this are queued, eager traffic comes back.
const LOW_WATER: usize = 32 << 10;
/// When more bytes than this are queued, the connection is closed: the other side does not read. It is
/// several of the longest answers.
const MAX_QUEUE: usize = 16 << 20;
/// Bytes asked for in one read.
const READ: usize = 32 << 10;
/// Messages that are handed to the machine at once.
const BATCH: usize = 256;
/// Batches of one connection that may wait for the machine; what comes after them waits in the
/// connection's own socket. Otherwise a connection that brings much, or messages that are slow to
/// handle, would make the other connections wait.
const BATCHES: usize = 2;
/// How long last words may take to be written, and then how long the other side may take to close
/// as well. To close while bytes are unread would reset the connection, and could lose the last
/// words.
const LINGER: Duration = Duration::from_millis(500);

/// What a flush did to the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flushed {
    /// Nothing to report.
    Quiet,
    /// The queue has passed the high-water mark.
    Congested,
    /// A congested queue is nearly empty again.
    Relieved,
    /// The connection failed. The reason is given if the other side did something wrong.
    Broken(Option<&'static str>),
}

/// How much this side has said over a connection since it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Nothing,
    /// The answer to the opening, and nothing else.
    Answer,
    More,
}

/// The sending side of a connection.
#[derive(Debug)]
pub(super) struct Connection<M: Hosted> {
    conn: Conn,
    write: Option<OwnedWriteHalf>,
    queue: Queue,
    congested: bool,
    /// Set while the socket takes no bytes. A task then holds the write half and waits; it is sent
    /// the rest of the queue if the connection is closed meanwhile.
    blocked: Option<oneshot::Sender<Queue>>,
    /// A frame found no room and is lost; the next flush says that the connection is broken.
    overfull: bool,
    inbox: mpsc::Sender<Inbound<M>>,
    /// The read half, and the bytes that came behind the opening, until a reader takes them.
    unread: Option<(Source, BytesMut)>,
    /// Dropped to tell the reader that nobody listens any more.
    reader: Option<oneshot::Sender<()>>,
    said: Said,
    /// Its places among the connections of its address and its identity, if it came in; held, never
    /// read.
    _places: Places,
    dirty: bool,
    /// The address that the other side gave as its own, for the log.
    pub peer: Option<Addr>,
}

impl<M: Hosted> Connection<M> {
    /// Takes an open connection over. Nothing is read from it before [`Connection::listen`].
    pub fn new(
        conn: Conn,
        opened: Opened,
        inbox: mpsc::Sender<Inbound<M>>,
        places: Places,
    ) -> Self {
        let Opened { stream, rest, session } = opened;
        let (read, write) = stream.into_split();
        let (queue, sealed) = match session {
            None => (Queue::default(), None),
            Some(session) => {
                let (session, sealed) = *session;
                (Queue::sealed(session.sealer), Some((session.opener, sealed)))
            }
        };
        Self {
            conn,
            write: Some(write),
            queue,
            congested: false,
            blocked: None,
            overfull: false,
            inbox,
            unread: Some((Source { read, sealed }, rest)),
            reader: None,
            said: Said::Nothing,
            _places: places,
            dirty: false,
            peer: None,
        }
    }

    /// Starts the task that reads from the connection, unless it was started before.
    pub fn listen(&mut self) {
        let Some((source, rest)) = self.unread.take() else { return };
        let (reader, closed) = oneshot::channel();
        tokio::spawn(run_reader(self.conn, source, rest, self.inbox.clone(), closed));
        self.reader = Some(reader);
    }

    /// Has the connection flushed at the end of the turn. True if it was not marked for that
    /// already.
    pub fn mark(&mut self) -> bool {
        !std::mem::replace(&mut self.dirty, true)
    }

    /// Whether a frame fits only if some of the queue is written first.
    pub fn is_full_for(&self, frame: &Frame<'_>) -> bool {
        !self.overfull && self.queue.len() + frame.len() > MAX_QUEUE
    }

    /// Queues a frame, if there is room. Otherwise the frame is lost, and the next flush says that
    /// the connection is broken.
    pub fn queue(&mut self, frame: &Frame<'_>, way: Way) {
        self.said = Said::More;
        let fits = |queue: &Queue| queue.len() + frame.len() <= MAX_QUEUE;
        if self.is_full_for(frame) {
            // The queue may be full only because the turn is long; then the socket takes some of it
            // now.
            let failed = self.blocked.is_none() && self.write_out().is_err();
            self.overfull = failed || !fits(&self.queue);
        }
        if !self.overfull {
            self.queue.push(frame, way);
        }
    }

    /// Queues the answer to the opening; `welcome` says whether it accepts.
    pub fn queue_answer(&mut self, answer: &[u8], welcome: bool) {
        // Someone who is refused may be a stranger and may have sent more than its opening. That
        // has to be read before the connection closes, or it would be reset.
        self.said = if welcome { Said::Answer } else { Said::More };
        self.queue.push_bytes(answer);
    }

    /// Writes as much of the queue as the socket takes, and says what that did to the queue.
    pub fn flush(&mut self) -> Flushed {
        self.dirty = false;
        if self.blocked.is_none() && self.write_out().is_err() {
            return Flushed::Broken(None);
        }
        if self.overfull {
            return Flushed::Broken(Some("the other side does not read: queue full"));
        }
        let waiting = self.queue.len();
        if waiting > HIGH_WATER && !self.congested {
            self.congested = true;
            return Flushed::Congested;
        }
        if waiting < LOW_WATER && self.congested {
            self.congested = false;
            return Flushed::Relieved;
        }
        Flushed::Quiet
    }

    fn write_out(&mut self) -> io::Result<()> {
        let Some(write) = &self.write else { return Ok(()) };
        match self.queue.write_to(write) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.wait_until_writable();
                Ok(())
            }
            done => done,
        }
    }

    /// Hands the write half to a task that gives it back when the connection takes bytes again.
    fn wait_until_writable(&mut self) {
        // The bytes that were sent need not be kept while the connection waits.
        self.queue.compact();
        let Some(write) = self.write.take() else { return };
        let (closing, closed) = oneshot::channel();
        self.blocked = Some(closing);
        let (conn, inbox) = (self.conn, self.inbox.clone());
        tokio::spawn(async move {
            tokio::select! {
                _ = write.writable() => {
                    let _ = inbox.send(Inbound::Writable { conn, write }).await;
                }
                // Without last words the connection was lost. The connection ends here in both
                // cases.
                last = closed => if let Ok(mut last) = last {
                    let _ = timeout(LINGER, write_all(&write, &mut last)).await;
                }
            }
        });
    }

    /// Takes the write half back: the connection takes bytes again.
    pub fn writable(&mut self, write: OwnedWriteHalf) {
        self.write = Some(write);
        self.blocked = None;
    }

    /// Whether this side has said nothing since the connection was opened.
    pub fn is_silent(&self) -> bool {
        self.said == Said::Nothing
    }

    /// Ends the connection behind what is queued. The task that is returned does what cannot be
    /// done at once; it ends when that is done, or after a time limit.
    pub fn close(mut self) -> Option<impl Future<Output = ()> + Send + 'static> {
        let mut rest = std::mem::take(&mut self.queue);
        if let Some(closing) = self.blocked.take() {
            let _ = closing.send(rest);
            return None;
        }
        let write = self.write.take()?;
        match rest.write_to(&write) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return None,
            _ => {}
        }
        let unread = self.unread.take().map(|(source, _)| source.read);
        let said = self.said;
        if rest.len() == 0 && said != Said::More {
            // If there is a reader, the end of the write half tells the other side, and the reader
            // lingers. If there is none, this was a probe: the other side had nothing to say after
            // its opening, so no unread bytes can reset the connection before the other side has
            // heard the answer.
            if let Some(read) = unread {
                if said == Said::Nothing {
                    // This side asked, and has its answer. A reset ends the connection at once;
                    // after a farewell one side would keep it for a minute more. Seeds dial every
                    // newcomer, and would keep mostly such connections.
                    let _ = read.as_ref().set_zero_linger();
                }
                write.forget();
            }
            return None;
        }
        Some(async move {
            let _ = timeout(LINGER, write_all(&write, &mut rest)).await;
            drop(write);
            if let Some(read) = unread {
                linger(read).await;
            }
        })
    }
}

/// Writes all of the queue, and waits for the socket as often as needed.
async fn write_all(write: &OwnedWriteHalf, rest: &mut Queue) -> io::Result<()> {
    loop {
        match rest.write_to(write) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => write.writable().await?,
            done => return done,
        }
    }
}

/// Where the bytes of a connection come from.
#[derive(Debug)]
struct Source {
    read: OwnedReadHalf,
    /// If the link is encrypted: what decrypts it, and bytes that are still to be decrypted.
    sealed: Option<(Opener, BytesMut)>,
}

impl Source {
    /// Appends the next bytes to the buffer. Returns how many; zero if the connection has ended. If
    /// this is dropped while it waits, no byte is lost: a read that is not done has taken none.
    async fn read(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        let Some((opener, sealed)) = &mut self.sealed else {
            make_room(buffer);
            return self.read.read_buf(buffer).await;
        };
        let before = buffer.len();
        loop {
            while opener.open(sealed, buffer).map_err(io::Error::other)? {}
            if buffer.len() > before {
                return Ok(buffer.len() - before);
            }
            make_room(sealed);
            if self.read.read_buf(sealed).await? == 0 {
                return Ok(0);
            }
        }
    }
}

/// Makes room for the next read.
fn make_room(buffer: &mut BytesMut) {
    if buffer.capacity() - buffer.len() < READ / 4 {
        buffer.reserve(READ);
    }
}

async fn run_reader<M: Hosted>(
    conn: Conn,
    mut source: Source,
    mut buffer: BytesMut,
    inbox: mpsc::Sender<Inbound<M>>,
    mut closed: oneshot::Receiver<()>,
) {
    // Both branches may be cancelled: a read that is not done has taken no bytes, and the channel
    // carries nothing but its end.
    let reason = tokio::select! {
        reason = read_messages(conn, &mut source, &mut buffer, &inbox) => reason,
        _ = &mut closed => {
            linger(source.read).await;
            return;
        }
    };
    let _ = inbox.send(Inbound::Closed { conn, reason }).await;
    linger(source.read).await;
}

/// Reads until the connection ends; returns why, if the other side did something wrong.
async fn read_messages<M: Hosted>(
    conn: Conn,
    source: &mut Source,
    buffer: &mut BytesMut,
    inbox: &mpsc::Sender<Inbound<M>>,
) -> Option<String> {
    let mut frames = codec::frames();
    let turns = Arc::new(Semaphore::new(BATCHES));
    loop {
        let mut messages: Vec<Message> = Vec::new();
        let mut wrong = None;
        loop {
            match codec::next_frame(&mut frames, buffer) {
                Ok(Some(frame)) => match codec::decode(&frame) {
                    Ok(message) => messages.push(message),
                    Err(error) => wrong = Some(error.to_string()),
                },
                Ok(None) => break,
                Err(error) => wrong = Some(error.to_string()),
            }
            if wrong.is_some() || messages.len() >= BATCH {
                break;
            }
        }
        let full = messages.len() >= BATCH;
        if !messages.is_empty() {
            let turn = turns.clone().acquire_owned().await.ok()?;
            if inbox.send(Inbound::Messages { conn, messages, turn }).await.is_err() {
                return None;
            }
        }
        if wrong.is_some() {
            return wrong;
        }
        if full {
            continue;
        }
        match source.read(buffer).await {
            Ok(0) if buffer.is_empty() => return None,
            Ok(0) => return Some("closed in the middle of a frame".to_owned()),
            Ok(_) => {}
            // The bytes arrived, and are no record of this link.
            Err(error) if error.kind() == io::ErrorKind::Other => return Some(error.to_string()),
            Err(_) => return None,
        }
    }
}

/// Reads and discards bytes until the other side closes too, for [`LINGER`] at most.
async fn linger(read: OwnedReadHalf) {
    let mut scratch = [0_u8; 1_024];
    let _ = timeout(LINGER, async {
        loop {
            if read.readable().await.is_err() {
                return;
            }
            match read.try_read(&mut scratch) {
                Ok(0) => return,
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return,
                _ => {}
            }
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::peer::PeerMachine;
    use bytes::Bytes;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    /// A connection, the socket at its other end, and the inbox of its host.
    async fn pair() -> (Connection<PeerMachine>, TcpStream, mpsc::Receiver<Inbound<PeerMachine>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (other, _) = listener.accept().await.unwrap();
        let (inbox, inbound) = mpsc::channel(8);
        let opened = Opened { stream, rest: BytesMut::new(), session: None };
        (Connection::new(1, opened, inbox, Places::default()), other, inbound)
    }

    /// Reads until the connection ends in order; returns the number of bytes.
    async fn read_all(mut other: TcpStream) -> io::Result<usize> {
        let mut all = Vec::new();
        timeout(LINGER * 10, other.read_to_end(&mut all)).await.unwrap()?;
        Ok(all.len())
    }

    #[tokio::test]
    async fn last_words_are_heard_by_one_that_goes_on_talking() {
        for listens in [false, true] {
            let (mut connection, mut other, _inbound) = pair().await;
            let frame = [0, 0, 0, 1, 1];
            connection
                .queue(&Frame { before: &frame, shared: Bytes::new(), after: &[] }, Way::Data);
            if listens {
                connection.listen();
            }
            // These bytes are still unread when the connection closes.
            other.write_all(&[0; 5]).await.unwrap();
            let farewell = connection.close();
            if let Some(farewell) = farewell {
                tokio::spawn(farewell);
            }
            other.write_all(&[0; 5]).await.unwrap();
            assert_eq!(read_all(other).await.unwrap(), frame.len(), "listens: {listens}");
        }
    }

    #[tokio::test]
    async fn last_words_wait_for_one_that_is_slow_and_not_for_one_that_reads_nothing() {
        for reads in [true, false] {
            let (mut connection, other, mut inbound) = pair().await;
            let frame = vec![7; 8 << 20];
            connection
                .queue(&Frame { before: &frame, shared: Bytes::new(), after: &[] }, Way::Data);
            // The socket takes a part of the frame.
            connection.flush();
            assert!(connection.blocked.is_some(), "8 MB fit into a socket");
            assert!(connection.close().is_none(), "the task that waits has the rest");
            if reads {
                assert_eq!(read_all(other).await.unwrap(), frame.len());
                continue;
            }
            let over = timeout(LINGER * 10, inbound.recv()).await.unwrap();
            assert!(over.is_none(), "the task has ended, and says nothing");
            let heard = read_all(other).await.unwrap();
            assert!(heard < frame.len(), "the connection was closed meanwhile");
        }
    }

    #[tokio::test]
    async fn a_connection_that_is_lost_while_it_waits_is_closed() {
        let (mut connection, other, _inbound) = pair().await;
        let frame = vec![7; 8 << 20];
        connection.queue(&Frame { before: &frame, shared: Bytes::new(), after: &[] }, Way::Data);
        connection.flush();
        drop(connection);
        // The other side reads what the system had taken already, and then the end.
        assert!(read_all(other).await.is_ok_and(|heard| heard < frame.len()));
    }

    #[tokio::test]
    async fn a_queue_has_a_bound_within_a_turn_too() {
        // The other side never reads.
        let (mut connection, _other, _inbound) = pair().await;
        let frame = vec![7; 1 << 20];
        let frame = Frame { before: &frame, shared: Bytes::new(), after: &[] };
        for _ in 0..15 {
            connection.queue(&frame, Way::Data);
        }
        assert_eq!(connection.queue.len(), 15 << 20, "what fits waits for the end of the turn");
        for _ in 0..100 {
            connection.queue(&frame, Way::Data);
            assert!(connection.queue.len() <= MAX_QUEUE);
        }
        assert!(matches!(connection.flush(), Flushed::Broken(Some(_))));
    }
}
