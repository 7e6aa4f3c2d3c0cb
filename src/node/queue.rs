//! The bytes that wait to be written to one connection.
//!
//! Small frames are copied one behind the other. The queues share a large one that goes to many
//! connections, such as a list of a thousand members: to fill a copy for each of them would take
//! more memory than everything else that is said to a peer that registers.
//!
//! Frames wait in two lanes. What tells who lives and who belongs to the network goes ahead of data:
//! a neighbour that reads slowly must not be taken for dead because its pong lies behind megabytes.
//! What must stay true: in each lane bytes leave in the order in which they were queued, and the
//! lane ahead waits for no more than the frame that is being written.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::{Buf, Bytes};
use tokio::net::tcp::OwnedWriteHalf;

use crate::net::codec::{Frame, SHARED};
use crate::net::secure::{MAX_RECORD, Sealer};

/// Pieces written at once: enough for a list between two small frames, and a few more.
const PIECES: usize = 8;
/// Bytes of memory that an empty lane keeps.
const KEPT: usize = 64 << 10;

/// Bytes that wait in one lane.
#[derive(Debug, Default)]
struct Lane {
    /// Complete pieces, the oldest first; the part of the first one that was sent is cut off.
    pieces: VecDeque<Bytes>,
    /// Small frames behind the pieces, and how many of their bytes were sent.
    last: Vec<u8>,
    sent: usize,
    /// Bytes that wait.
    len: usize,
}

impl Lane {
    fn push(&mut self, frame: &Frame<'_>) {
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

    fn push_bytes(&mut self, bytes: &[u8]) {
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

    fn compact(&mut self) {
        self.last.drain(..self.sent);
        self.sent = 0;
    }

    /// The first `most` bytes that wait, in pieces.
    fn first(&self, mut most: usize) -> impl Iterator<Item = &[u8]> {
        let last = self.last.get(self.sent..).unwrap_or_default();
        self.pieces.iter().map(|piece| &**piece).chain([last]).map_while(move |piece| {
            let part = piece.get(..most).unwrap_or(piece);
            most -= part.len();
            (!part.is_empty()).then_some(part)
        })
    }

    /// Writes some of the first `most` bytes. Returns how many.
    fn write_to(&self, write: &OwnedWriteHalf, most: usize) -> io::Result<usize> {
        if self.pieces.is_empty() {
            return write.try_write(self.first(most).next().unwrap_or_default());
        }
        let slices: Vec<IoSlice<'_>> = self.first(most).take(PIECES).map(IoSlice::new).collect();
        write.try_write_vectored(&slices)
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

/// Which lane a frame waits in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Ahead of data.
    Ahead,
    /// With data.
    Data,
}

/// Bytes that wait.
#[derive(Debug, Default)]
pub(super) struct Queue {
    ahead: Lane,
    data: Lane,
    /// Bytes left of the frame of data that is being written, and the lengths of those behind it.
    begun: usize,
    lengths: VecDeque<usize>,
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
        self.ahead.len + self.data.len + self.record.len() - self.record_sent
    }

    /// Adds a frame. Copies a small shared part, and shares a large one.
    pub fn push(&mut self, frame: &Frame<'_>, way: Way) {
        match way {
            Way::Ahead => self.ahead.push(frame),
            Way::Data => {
                self.data.push(frame);
                self.lengths.push_back(frame.len());
            }
        }
    }

    /// Adds a copy of these bytes, whole frames, ahead of data.
    pub fn push_bytes(&mut self, bytes: &[u8]) {
        self.ahead.push_bytes(bytes);
    }

    /// Gives back the memory of sent bytes, while the connection takes nothing.
    pub fn compact(&mut self) {
        self.ahead.compact();
        self.data.compact();
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

    /// The lane to write from, and how many of its bytes before the lanes are looked at again; none
    /// if nothing waits.
    fn next(&self) -> Option<(Way, usize)> {
        if self.ahead.len > 0 {
            // The other side could not tell a frame from the one that it stands in the middle of.
            let begun = self.begun > 0;
            Some(if begun { (Way::Data, self.begun) } else { (Way::Ahead, self.ahead.len) })
        } else {
            (self.data.len > 0).then_some((Way::Data, self.data.len))
        }
    }

    fn lane(&self, way: Way) -> &Lane {
        match way {
            Way::Ahead => &self.ahead,
            Way::Data => &self.data,
        }
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
            let Some((way, most)) = self.next() else {
                self.record.shrink_to(KEPT);
                return Ok(());
            };
            self.seal_record(way, most)?;
        }
    }

    /// Encrypts the next bytes, as many as one record takes. This happens as late as it can: many
    /// small frames then share one record, and a queue that waits is shared with other queues.
    fn seal_record(&mut self, way: Way, most: usize) -> io::Result<()> {
        let Some(sealer) = &mut self.sealer else { return Ok(()) };
        let lane = if way == Way::Ahead { &self.ahead } else { &self.data };
        let most = most.min(MAX_RECORD);
        let taken = if lane.pieces.is_empty() {
            let next = lane.first(most).next().unwrap_or_default();
            sealer.seal(next, &mut self.record).map_err(io::Error::other)?;
            next.len()
        } else {
            let next: Vec<u8> = lane.first(most).collect::<Vec<_>>().concat();
            sealer.seal(&next, &mut self.record).map_err(io::Error::other)?;
            next.len()
        };
        self.advance(way, taken);
        Ok(())
    }

    fn write_plain(&mut self, write: &OwnedWriteHalf) -> io::Result<()> {
        while let Some((way, most)) = self.next() {
            let written = self.lane(way).write_to(write, most)?;
            self.advance(way, written);
        }
        Ok(())
    }

    fn advance(&mut self, way: Way, mut written: usize) {
        match way {
            Way::Ahead => self.ahead.advance(written),
            Way::Data => {
                self.data.advance(written);
                while written > 0 {
                    if self.begun == 0 {
                        self.begun = self.lengths.pop_front().unwrap_or(written);
                    }
                    let of_frame = written.min(self.begun);
                    self.begun -= of_frame;
                    written -= of_frame;
                }
                if self.lengths.is_empty() {
                    self.lengths.shrink_to(KEPT / size_of::<usize>());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};

    /// The write half of a connection, and its other end.
    async fn pair() -> (OwnedWriteHalf, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (other, _) = listener.accept().await.unwrap();
        (stream.into_split().1, other)
    }

    fn data(before: &[u8], shared: Bytes) -> Frame<'_> {
        Frame { before, shared, after: &[] }
    }

    #[test]
    fn what_is_small_is_copied_and_shares_nothing() {
        let mut queue = Queue::default();
        for _ in 0..1_000 {
            let shared = Bytes::from(vec![1; SHARED - 1]);
            queue.push(&Frame { before: &[0; 5], shared, after: &[2] }, Way::Data);
        }
        assert!(queue.data.pieces.is_empty(), "a piece takes memory beside its bytes");
        assert_eq!((queue.len(), queue.data.last.len()), (1_000 * (SHARED + 5), queue.len()));
    }

    /// Frames of all kinds arrive as they were queued, also at a slow reader.
    #[tokio::test]
    async fn what_is_queued_arrives_in_order() {
        let (write, mut other) = pair().await;
        let mut queue = Queue::default();
        let mut expected = Vec::new();
        for round in 0..200_u8 {
            let before = vec![round; 10 + usize::from(round)];
            let shared =
                if round % 3 == 0 { Bytes::from(vec![round; 60_000]) } else { Bytes::new() };
            let after: &[u8] = if round % 3 == 0 { &[1] } else { &[] };
            let frame = Frame { before: &before, shared, after };
            expected.extend([frame.before, &frame.shared, after].concat());
            queue.push(&frame, Way::Data);
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
            queue.push(&data(&[blocked], Bytes::new()), Way::Data);
            expected.push(blocked);
            write.writable().await.unwrap();
        }
        assert!(blocked > 0, "4 MB fit into a socket");
        assert_eq!(queue.len(), 0);
        assert_eq!(reader.await.unwrap(), expected[..all]);
    }

    /// The numbers of frames as they arrived. Each is 4 bytes of length, its number, and filling.
    fn numbers(mut bytes: &[u8]) -> Vec<u8> {
        let mut numbers = Vec::new();
        while let Some((header, rest)) = bytes.split_first_chunk() {
            let (frame, rest) = rest.split_at(u32::from_be_bytes(*header) as usize);
            assert!(frame.iter().all(|byte| *byte == frame[0]), "a frame was torn");
            numbers.push(frame[0]);
            bytes = rest;
        }
        numbers
    }

    /// Megabytes of data wait, and more comes, when a ping is queued.
    #[tokio::test]
    async fn what_goes_ahead_waits_for_one_frame_of_data_and_tears_none() {
        for shared in [false, true] {
            let (write, mut other) = pair().await;
            let mut queue = Queue::default();
            let push = |queue: &mut Queue, number: u8, length: usize, way| {
                let header = u32::try_from(length).unwrap().to_be_bytes();
                let body = Bytes::from(vec![number; length]);
                if shared {
                    queue.push(&data(&header, body), way);
                } else {
                    queue.push(&data(&[&header[..], &body].concat(), Bytes::new()), way);
                }
            };
            for number in 0..200 {
                push(&mut queue, number, 50_000 + usize::from(number), Way::Data);
            }
            assert!(queue.write_to(&write).is_err(), "10 MB fit into a socket");
            let behind = queue.lengths.len();
            assert!(behind > 50 && queue.begun > 0, "it stands in the middle of a frame");
            push(&mut queue, 250, 9, Way::Ahead);
            push(&mut queue, 201, 100, Way::Data);
            push(&mut queue, 251, 9, Way::Ahead);
            let reader = tokio::spawn(async move {
                let mut got = Vec::new();
                other.read_to_end(&mut got).await.unwrap();
                got
            });
            while queue.write_to(&write).is_err() {
                write.writable().await.unwrap();
            }
            drop(write);
            let got = numbers(&reader.await.unwrap());
            let place = got.iter().position(|number| *number == 250).unwrap();
            assert_eq!(place, 200 - behind, "right behind the frame that was being written");
            assert_eq!(got[place + 1], 251);
            let rest: Vec<u8> = got.into_iter().filter(|number| *number < 250).collect();
            assert_eq!(rest, (0..200).chain([201]).collect::<Vec<_>>());
        }
    }
}
