//! The connections of one host: those that are open, those that are being opened, and incoming ones
//! that the machine has not answered yet.
//!
//! What must stay true: the log is written before a connection is closed or written to out of turn,
//! since the other side may then look in the log for the reason.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use crate::net::codec::{EncodeError, Encoder};
use crate::net::handshake::{self, Opened};
use crate::net::secure::Security;
use crate::node::connection::{Connection, Flushed};
use crate::node::crowd::Places;
use crate::node::hosted::Hosted;
use crate::node::inbox::Inbound;
use crate::node::log::HostLog;
use crate::node::queue::Way;
use crate::proto::machine::{Conn, Input, OpenError};
use crate::proto::message::{Addr, Answer, Hello, Message, Purpose, Welcome};

/// The connections of a host, by number.
pub(super) struct Conns<M: Hosted> {
    inbox: mpsc::Sender<Inbound<M>>,
    /// Set if links are encrypted.
    security: Option<Security>,
    /// Open connections from which on only probes get in.
    most: usize,
    open: HashMap<Conn, Connection<M>>,
    /// Incoming connections that the machine has not answered yet.
    arriving: HashMap<Conn, (Opened, Addr, Places)>,
    dialling: HashMap<Conn, AbortHandle>,
    incoming_used: Conn,
    /// Open connections to be flushed at the end of the turn.
    dirty: Vec<Conn>,
    encoder: Encoder,
    /// Connections that are closed and still have last words to send.
    farewells: JoinSet<()>,
}

impl<M: Hosted> Conns<M> {
    /// Begins without connections. Their readers will put what they hear into the inbox.
    pub fn new(inbox: mpsc::Sender<Inbound<M>>, security: Option<Security>, most: usize) -> Self {
        Self {
            inbox,
            security,
            most,
            open: HashMap::new(),
            arriving: HashMap::new(),
            dialling: HashMap::new(),
            // Incoming connections get odd numbers; the machine numbers those that it opens itself.
            incoming_used: 1,
            dirty: Vec::new(),
            encoder: Encoder::default(),
            farewells: JoinSet::new(),
        }
    }

    /// Whether a connection is open.
    pub fn is_open(&self, conn: Conn) -> bool {
        self.open.contains_key(&conn)
    }

    /// The address of the other side, if it is known.
    pub fn peer(&self, conn: Conn) -> Option<Addr> {
        self.open.get(&conn).and_then(|connection| connection.peer)
    }

    /// Takes an incoming connection in, and gives it a number; none if there is no room.
    pub fn arrive(&mut self, opened: Opened, hello: &Hello, places: Places) -> Option<Conn> {
        // A probe always gets in: it only asks whether this process lives, and is gone with the
        // answer.
        if self.open.len() >= self.most && hello.purpose != Purpose::Probe {
            return None;
        }
        self.incoming_used += 2;
        let conn = self.incoming_used;
        self.arriving.insert(conn, (opened, hello.from, places));
        Some(conn)
    }

    /// Ends an attempt to open a connection. Returns what the machine is to be told; none if the
    /// machine has given the attempt up.
    pub fn dialled(
        &mut self,
        conn: Conn,
        result: Result<(Opened, Welcome), OpenError>,
    ) -> Option<Input<M::Command>> {
        self.dialling.remove(&conn)?;
        Some(match result {
            Ok((opened, welcome)) => {
                let mut connection =
                    Connection::new(conn, opened, self.inbox.clone(), Places::default());
                connection.peer = Some(welcome.from);
                self.open.insert(conn, connection);
                Input::Opened { conn, welcome }
            }
            Err(error) => Input::OpenFailed { conn, error },
        })
    }

    /// Starts to read from a connection, if the machine has kept it. The machine has closed most of
    /// those that were opened as probes by now, and a reader would cost more than the probe.
    pub fn listen(&mut self, conn: Conn) {
        if let Some(connection) = self.open.get_mut(&conn) {
            connection.listen();
        }
    }

    /// Opens a connection in a task of its own, which reports the result to the inbox.
    pub fn open(&mut self, conn: Conn, to: Addr, hello: Hello, within: Duration) {
        let (inbox, security) = (self.inbox.clone(), self.security.clone());
        let task = tokio::spawn(async move {
            let result = handshake::open(to, &hello, within, security.as_ref()).await;
            let _ = inbox.send(Inbound::Dialled { conn, result }).await;
        });
        self.dialling.insert(conn, task.abort_handle());
    }

    /// Answers an incoming connection; one that is refused is closed behind the answer.
    pub fn answer(&mut self, log: &mut HostLog, conn: Conn, answer: &Answer) {
        let Some((opened, peer, places)) = self.arriving.remove(&conn) else { return };
        let me = self.security.as_ref().map(Security::identity);
        let Ok(bytes) = handshake::answer_bytes(me.as_ref(), answer) else { return };
        let mut connection = Connection::new(conn, opened, self.inbox.clone(), places);
        connection.peer = Some(peer);
        connection.queue_answer(&bytes, matches!(answer, Answer::Welcome(_)));
        match answer {
            Answer::Welcome(_) => {
                self.open.insert(conn, connection);
                self.mark(conn);
            }
            Answer::Refused(_) => self.part_from(log, connection),
        }
    }

    /// Queues one message, which is encoded once, for several connections.
    ///
    /// # Errors
    ///
    /// If the message cannot be encoded; then nobody gets it.
    pub fn send(
        &mut self,
        log: &mut HostLog,
        conns: &[Conn],
        message: &Message,
    ) -> Result<(), EncodeError> {
        let way = if message.goes_ahead() { Way::Ahead } else { Way::Data };
        let frame = self.encoder.encode(message)?;
        for conn in conns {
            let Some(connection) = self.open.get_mut(conn) else { continue };
            if connection.is_full_for(&frame) {
                // The queue may be written before the turn ends, so the log has to be written
                // first.
                log.catch_up();
            }
            connection.queue(&frame, way);
            if connection.mark() {
                self.dirty.push(*conn);
            }
        }
        Ok(())
    }

    /// Has a connection flushed at the end of the turn.
    pub fn mark(&mut self, conn: Conn) {
        if let Some(connection) = self.open.get_mut(&conn)
            && connection.mark()
        {
            self.dirty.push(conn);
        }
    }

    /// Takes back the write half of a connection that was blocked and takes bytes again.
    pub fn writable(&mut self, conn: Conn, write: tokio::net::tcp::OwnedWriteHalf) {
        if let Some(connection) = self.open.get_mut(&conn) {
            connection.writable(write);
            self.mark(conn);
        }
    }

    /// Flushes one connection that has something new; none if no such connection is left.
    pub fn flush_next(&mut self) -> Option<(Conn, Flushed)> {
        while let Some(conn) = self.dirty.pop() {
            if let Some(connection) = self.open.get_mut(&conn) {
                return Some((conn, connection.flush()));
            }
        }
        None
    }

    /// Closes a connection, or gives up opening it. What is queued still goes out.
    pub fn close(&mut self, log: &mut HostLog, conn: Conn) {
        if let Some(task) = self.dialling.remove(&conn) {
            task.abort();
        }
        if let Some(connection) = self.open.remove(&conn) {
            self.part_from(log, connection);
        }
    }

    /// Drops a connection that has ended; false if it was not open.
    pub fn lose(&mut self, log: &mut HostLog, conn: Conn) -> bool {
        let Some(connection) = self.open.remove(&conn) else { return false };
        // The other side may notice, and look in the log for the reason.
        log.catch_up();
        drop(connection);
        true
    }

    fn part_from(&mut self, log: &mut HostLog, connection: Connection<M>) {
        // The other side is told that the connection is over, and may look in the log for the
        // reason. A silent connection was a probe, whose end tells nobody anything.
        if !connection.is_silent() {
            log.catch_up();
        }
        if let Some(farewell) = connection.close() {
            self.farewells.spawn(farewell);
        }
    }

    /// Forgets the closed connections whose last words are sent.
    pub fn forget_farewells(&mut self) {
        while self.farewells.try_join_next().is_some() {}
    }

    /// Closes all open connections, and gives up those that are being opened.
    pub fn close_all(&mut self, log: &mut HostLog) {
        self.abort_dials();
        for connection in std::mem::take(&mut self.open).into_values() {
            self.part_from(log, connection);
        }
    }

    /// Waits until all last words are sent.
    pub async fn farewells(&mut self) {
        while self.farewells.join_next().await.is_some() {}
    }

    fn abort_dials(&self) {
        for handle in self.dialling.values() {
            handle.abort();
        }
    }
}

impl<M: Hosted> Drop for Conns<M> {
    fn drop(&mut self) {
        self.abort_dials();
    }
}
