//! The bytes that wait to be written to one connection.
//!
//! Small frames are copied one behind the other. The queues share a large one that goes to many
//! connections, such as a list of a thousand members: to fill a copy for each of them would take
//! more memory than everything else that is said to a peer that registers.
//!
//! What must stay true: bytes leave in the order in which they were queued.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::{Buf, Bytes};
use tokio::net::tcp::OwnedWriteHalf;

use crate::net::codec::{Frame, SHARED};
use crate::net::secure::{MAX_RECORD, Sealer};

/// Pieces written at once: enough for a list between two small frames, and a few more.
const PIECES: usize = 8;
/// Bytes of memory that an empty queue keeps.
const KEPT: usize = 64 << 10;

/// Bytes that wait.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Complete pieces, the oldest first; the part of the first one that was sent is cut off.
    pieces: VecDeque<Bytes>,
    /// Small frames behind the pieces, and how many of their bytes were sent.
    last: Vec<u8>,
    sent: usize,
    /// Bytes that wait, without those of `record`.
    len: usize,
    /// Encrypts what leaves, if the link is encrypted.
    sealer: Option<Sealer>,
    /// The encrypted record that is being written, and how many of its bytes were sent.
    record: Vec<u8>,
    record_sent: usize,
}

impl Queue {
    /// A queue whose bytes leave encrypted.
    pub fn sealed(sealer: Sealer) -> Self {
        Self { sealer: Some(sealer), ..Self::default() }
    }

    /// Bytes that wait.
    pub fn len(&self) -> usize {
        self.len + self.record.len() - self.record_sent
    }

    /// Adds a frame. Copies a small shared part, and shares a large one.
    pub fn push(&mut self, frame: &Frame<'_>) {
        self.push_bytes(frame.before);
        if frame.shared.len() < SHARED {
            self.push_bytes(&frame.shared);
        } else {
            self.complete_last();
            self.pieces.push_back(frame.shared.clone());
            self.len += frame.shared.len();
        }
        self.push_bytes(frame.after);
    }

    /// Adds a copy of these bytes.
    pub fn push_bytes(&mut self, bytes: &[u8]) {
        self.last.extend_from_slice(bytes);
        self.len += bytes.len();
    }

    fn complete_last(&mut self) {
        if self.last.len() > self.sent {
            let mut piece = Bytes::from(std::mem::take(&mut self.last));
            piece.advance(self.sent);
            self.pieces.push_back(piece);
        }
        self.last.clear();
        self.sent = 0;
    }

    /// Gives back the memory of sent bytes, while the connection takes nothing.
    pub fn compact(&mut self) {
        self.last.drain(..self.sent);
        self.sent = 0;
    }

    /// Writes until the queue is empty or the connection would block.
    ///
    /// # Errors
    ///
    /// The error of the system; [`io::ErrorKind::WouldBlock`] if the connection takes no more for
    /// now.
    pub fn write_to(&mut self, write: &OwnedWriteHalf) -> io::Result<()> {
        if self.sealer.is_some() { self.write_sealed(write) } else { self.write_plain(write) }
    }

    fn write_sealed(&mut self, write: &OwnedWriteHalf) -> io::Result<()> {
        loop {
            while let Some(unsent) = self.record.get(self.record_sent..)
                && !unsent.is_empty()
            {
                self.record_sent += write.try_write(unsent)?;
            }
            self.record.clear();
            self.record_sent = 0;
            if self.len == 0 {
                self.record.shrink_to(KEPT);
                return Ok(());
            }
            self.seal_record()?;
        }
    }

    /// Encrypts the next bytes, as many as one record takes. This happens as late as it can: many
    /// small frames then share one record, and a queue that waits is shared with other queues.
    fn seal_record(&mut self) -> io::Result<()> {
        let Some(sealer) = &mut self.sealer else { return Ok(()) };
        let last = self.last.get(self.sent..).unwrap_or_default();
        let taken = if self.pieces.is_empty() {
            let next = last.get(..MAX_RECORD).unwrap_or(last);
            sealer.seal(next, &mut self.record).map_err(io::Error::other)?;
            next.len()
        } else {
            let mut next = Vec::with_capacity(self.len.min(MAX_RECORD));
            for piece in self.pieces.iter().map(|piece| &**piece).chain([last]) {
                let room = MAX_RECORD - next.len();
                next.extend_from_slice(piece.get(..room).unwrap_or(piece));
            }
            sealer.seal(&next, &mut self.record).map_err(io::Error::other)?;
            next.len()
        };
        self.advance(taken);
        Ok(())
    }

    fn write_plain(&mut self, write: &OwnedWriteHalf) -> io::Result<()> {
        while self.len > 0 {
            let last = self.last.get(self.sent..).unwrap_or_default();
            let written = if self.pieces.is_empty() {
                write.try_write(last)?
            } else {
                let pieces = self.pieces.iter().map(|piece| &**piece).chain([last]);
                let slices: Vec<IoSlice<'_>> = pieces.take(PIECES).map(IoSlice::new).collect();
                write.try_write_vectored(&slices)?
            };
            self.advance(written);
        }
        Ok(())
    }

    fn advance(&mut self, mut written: usize) {
        self.len = self.len.saturating_sub(written);
        while let Some(first) = self.pieces.front_mut() {
            if written < first.len() {
                first.advance(written);
                return;
            }
            written -= first.len();
            self.pieces.pop_front();
        }
        if self.pieces.is_empty() {
            self.pieces.shrink_to(PIECES);
        }
        self.sent += written;
        if self.sent >= self.last.len() {
            self.last.clear();
            self.last.shrink_to(KEPT);
            self.sent = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};

    #[test]
    fn what_is_small_is_copied_and_shares_nothing() {
        let mut queue = Queue::default();
        for _ in 0..1_000 {
            let shared = Bytes::from(vec![1; SHARED - 1]);
            queue.push(&Frame { before: &[0; 5], shared, after: &[2] });
        }
        assert!(queue.pieces.is_empty(), "a piece takes memory beside its bytes");
        assert_eq!((queue.len(), queue.last.len()), (1_000 * (SHARED + 5), queue.len()));
    }

    /// Frames of all kinds arrive as they were queued, also at a slow reader.
    #[tokio::test]
    async fn what_is_queued_arrives_in_order() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut other, _) = listener.accept().await.unwrap();
        let (_read, write) = stream.into_split();
        let mut queue = Queue::default();
        let mut expected = Vec::new();
        for round in 0..200_u8 {
            let before = vec![round; 10 + usize::from(round)];
            let shared =
                if round % 3 == 0 { Bytes::from(vec![round; 60_000]) } else { Bytes::new() };
            let after: &[u8] = if round % 3 == 0 { &[1] } else { &[] };
            let frame = Frame { before: &before, shared, after };
            expected.extend([frame.before, &frame.shared, after].concat());
            queue.push(&frame);
            assert_eq!(queue.len(), expected.len());
        }
        let all = expected.len();
        let reader = tokio::spawn(async move {
            let mut got = vec![0; all];
            other.read_exact(&mut got).await.unwrap();
            got
        });
        let mut blocked = 0;
        while let Err(error) = queue.write_to(&write) {
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
            blocked += 1;
            queue.compact();
            queue.push_bytes(&[blocked]);
            expected.push(blocked);
            write.writable().await.unwrap();
        }
        assert!(blocked > 0, "4 MB fit into a socket");
        assert_eq!(queue.len(), 0);
        assert_eq!(reader.await.unwrap(), expected[..all]);
    }
}
