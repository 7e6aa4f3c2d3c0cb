//! One open connection: a bounded queue out, batches of messages in.
//!
//! What must stay true: whatever is queued goes out in one write, nothing
//! waits for a reader that is slow but the reader's own queue, and that queue
//! has an end.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use std::sync::Arc;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use super::crowd::Place;
use super::hosted::Hosted;
use super::inbox::Inbound;
use super::queue::Queue;
use crate::net::codec::{self, Frame};
use crate::proto::machine::Conn;
use crate::proto::message::{Addr, Message};

/// Beyond this many queued bytes eager traffic passes the connection by.
const HIGH_WATER: usize = 256 << 10;
/// Below this many it comes back.
const LOW_WATER: usize = 32 << 10;
/// Beyond this many the connection is closed: the other side does not read.
const MAX_QUEUE: usize = 16 << 20;
/// Bytes asked for in one read.
const READ: usize = 32 << 10;
/// Messages handed over at once.
const BATCH: usize = 256;
/// Batches of one connection that may wait for the machine: the next ones wait in its own socket, so that a
/// connection that brings much, or what is slow to handle, cannot make the others wait behind it.
const BATCHES: usize = 2;
/// A closed connection may take this long to hear that the other side has closed as well. Closing
/// with bytes unread would reset it, and the last words could be lost.
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
    /// The connection failed, or the other side did something wrong, which is then named.
    Broken(Option<&'static str>),
}

/// What has been said over a connection since it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Nothing,
    /// The answer to its opening.
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
    /// The connection takes nothing for now: the task that waits for it to has the write half, and
    /// takes the last words.
    blocked: Option<oneshot::Sender<Queue>>,
    /// There was no room for a frame, which is lost.
    overfull: bool,
    inbox: mpsc::Sender<Inbound<M>>,
    /// What is to be read, until somebody listens.
    unread: Option<(OwnedReadHalf, BytesMut)>,
    /// Dropped to tell the reader that nobody listens any more.
    reader: Option<oneshot::Sender<()>>,
    said: Said,
    /// Its place among the connections from one address, if it came in.
    _place: Option<Place>,
    dirty: bool,
    /// Who says to be at the other end, for the log.
    pub peer: Option<Addr>,
}

impl<M: Hosted> Connection<M> {
    /// Takes an open connection over. Nothing is read from it before [`Connection::listen`].
    pub fn new(
        conn: Conn,
        stream: TcpStream,
        rest: BytesMut,
        inbox: mpsc::Sender<Inbound<M>>,
        place: Option<Place>,
    ) -> Self {
        let (read, write) = stream.into_split();
        Self {
            conn,
            write: Some(write),
            queue: Queue::default(),
            congested: false,
            blocked: None,
            overfull: false,
            inbox,
            unread: Some((read, rest)),
            reader: None,
            said: Said::Nothing,
            _place: place,
            dirty: false,
            peer: None,
        }
    }

    /// Starts its reader, unless it has one.
    pub fn listen(&mut self) {
        let Some((read, rest)) = self.unread.take() else { return };
        let (reader, closed) = oneshot::channel();
        tokio::spawn(run_reader(self.conn, read, rest, self.inbox.clone(), closed));
        self.reader = Some(reader);
    }

    /// Has it flushed at the end of the turn. True if it was not going to be.
    pub fn mark(&mut self) -> bool {
        !std::mem::replace(&mut self.dirty, true)
    }

    /// Whether a frame finds room only if what is queued is written first.
    pub fn is_full_for(&self, frame: &Frame<'_>) -> bool {
        !self.overfull && self.queue.len() + frame.len() > MAX_QUEUE
    }

    /// Queues a frame, if there is room. Else it is lost, and the connection with it: the next flush says
    /// so.
    pub fn queue(&mut self, frame: &Frame<'_>) {
        self.said = Said::More;
        let fits = |queue: &Queue| queue.len() + frame.len() <= MAX_QUEUE;
        if self.is_full_for(frame) {
            // Or only this turn is long.
            let failed = self.blocked.is_none() && self.write_out().is_err();
            self.overfull = failed || !fits(&self.queue);
        }
        if !self.overfull {
            self.queue.push(frame);
        }
    }

    /// Queues the answer to the opening.
    pub fn queue_answer(&mut self, answer: &[u8], welcome: bool) {
        // Who is refused may be a stranger that has said more than its opening.
        self.said = if welcome { Said::Answer } else { Said::More };
        self.queue.push_bytes(answer);
    }

    /// Writes as much as the connection takes, in as few writes as it takes.
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
        // What has been sent need not be kept meanwhile.
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
                // Without last words the connection is lost; either way the connection ends here.
                last = closed => if let Ok(mut last) = last {
                    let _ = timeout(LINGER, write_all(&write, &mut last)).await;
                }
            }
        });
    }

    /// The connection takes bytes again.
    pub fn writable(&mut self, write: OwnedWriteHalf) {
        self.write = Some(write);
        self.blocked = None;
    }

    /// Whether the other side has heard nothing over it but that it is open.
    pub fn is_silent(&self) -> bool {
        self.said == Said::Nothing
    }

    /// Ends the connection after what is queued. What cannot be done at once is left to the task
    /// returned, which is over when it is done, or after a bound.
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
        let unread = self.unread.take().map(|(read, _)| read);
        let said = self.said;
        if rest.len() == 0 && said != Said::More {
            // Who has a reader, which lingers, is told by the end of the write half. Else it is a
            // probe: the other side had nothing to say after its opening, so there is nothing unread
            // that would reset the connection before it has heard the answer.
            if let Some(read) = unread {
                if said == Said::Nothing {
                    // And the answer was all that was wanted: without a farewell, neither side keeps
                    // the connection for a minute more. Of seeds that dial every newcomer that is
                    // most of what they would keep.
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

/// Writes all of it, however often the connection has to be waited for.
async fn write_all(write: &OwnedWriteHalf, rest: &mut Queue) -> io::Result<()> {
    loop {
        match rest.write_to(write) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => write.writable().await?,
            done => return done,
        }
    }
}

async fn run_reader<M: Hosted>(
    conn: Conn,
    mut read: OwnedReadHalf,
    mut buffer: BytesMut,
    inbox: mpsc::Sender<Inbound<M>>,
    mut closed: oneshot::Receiver<()>,
) {
    // Both branches may be cancelled: a read that is not done has taken nothing, and the channel
    // only ever says that it is over.
    let reason = tokio::select! {
        reason = read_messages(conn, &mut read, &mut buffer, &inbox) => reason,
        _ = &mut closed => {
            linger(read).await;
            return;
        }
    };
    let _ = inbox.send(Inbound::Closed { conn, reason }).await;
    linger(read).await;
}

/// Reads until the connection ends; returns why, if the other side did something wrong.
async fn read_messages<M: Hosted>(
    conn: Conn,
    read: &mut OwnedReadHalf,
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
        if buffer.capacity() - buffer.len() < READ / 4 {
            buffer.reserve(READ);
        }
        match read.read_buf(buffer).await {
            Ok(0) if buffer.is_empty() => return None,
            Ok(0) => return Some("closed in the middle of a frame".to_owned()),
            Ok(_) => {}
            Err(_) => return None,
        }
    }
}

/// Reads and forgets until the other side closes too, within a bound.
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
    use tokio::net::TcpListener;

    /// A connection, and the other side of it.
    async fn pair() -> (Connection<PeerMachine>, TcpStream, mpsc::Receiver<Inbound<PeerMachine>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (other, _) = listener.accept().await.unwrap();
        let (inbox, inbound) = mpsc::channel(8);
        (Connection::new(1, stream, BytesMut::new(), inbox, None), other, inbound)
    }

    /// All that comes until the connection ends in order.
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
            connection.queue(&Frame { before: &frame, shared: Bytes::new(), after: &[] });
            if listens {
                connection.listen();
            }
            // Unread when the connection closes.
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
            connection.queue(&Frame { before: &frame, shared: Bytes::new(), after: &[] });
            // It takes a part.
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
        connection.queue(&Frame { before: &frame, shared: Bytes::new(), after: &[] });
        connection.flush();
        drop(connection);
        // The end comes behind what the system had taken already, or as a reset.
        assert!(read_all(other).await.is_ok_and(|heard| heard < frame.len()));
    }

    #[tokio::test]
    async fn a_queue_has_a_bound_within_a_turn_too() {
        // It never reads.
        let (mut connection, _other, _inbound) = pair().await;
        let frame = vec![7; 1 << 20];
        let frame = Frame { before: &frame, shared: Bytes::new(), after: &[] };
        for _ in 0..15 {
            connection.queue(&frame);
        }
        assert_eq!(connection.queue.len(), 15 << 20, "what fits waits for the end of the turn");
        for _ in 0..100 {
            connection.queue(&frame);
            assert!(connection.queue.len() <= MAX_QUEUE);
        }
        assert!(matches!(connection.flush(), Flushed::Broken(Some(_))));
    }
}
