//! A connection as hyper reads and writes it, with two things that hyper does not do.
//!
//! First, hyper answers a request that it cannot read by itself, and without a body; this gives
//! such an answer a body, because every error of the API is JSON. Second, hyper has one time limit
//! both for a connection over which nothing is asked and for a request that has come half. Here an
//! idle connection may last, since clients keep it for later, and half a request may not, since
//! with such requests a single client could take all places.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// How far the head of a client's request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Head {
    /// Nothing has come since the last answer.
    Idle,
    /// A head has begun; the number of bytes in its last line so far.
    Coming(usize),
    /// The head has come, and the request is being answered.
    Read,
}

/// A connection to a client.
#[derive(Debug)]
pub struct Client<S> {
    stream: S,
    head: Head,
    patience: Duration,
    deadline: Pin<Box<Sleep>>,
    /// An answer that replaces one of hyper's, and how many of its bytes are written.
    answer: Vec<u8>,
    written: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// A client whose requests have to come within `patience` of their beginning. The first one
    /// begins with the connection.
    pub fn new(stream: S, patience: Duration) -> Self {
        let deadline = Box::pin(sleep(patience));
        let (answer, head) = (Vec::new(), Head::Coming(0));
        Self { stream, head, patience, deadline, answer, written: 0 }
    }

    fn has_read(&mut self, bytes: &[u8]) {
        if self.head == Head::Idle && !bytes.is_empty() {
            let deadline = Instant::now() + self.patience;
            self.deadline.as_mut().reset(deadline);
            self.head = Head::Coming(0);
        }
        let Head::Coming(mut line) = self.head else { return };
        for byte in bytes {
            match byte {
                b'\r' => {}
                b'\n' if line == 0 => {
                    self.head = Head::Read;
                    return;
                }
                b'\n' => line = 0,
                _ => line += 1,
            }
        }
        self.head = Head::Coming(line);
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.answer.get(self.written..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.written += written,
            }
        }
        self.answer.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }

    /// Looks at the bytes of an answer. If the answer is hyper's own, takes a better one in its
    /// place and returns true.
    fn takes(&mut self, bytes: &[u8]) -> bool {
        if self.head == Head::Read && !bytes.starts_with(b"HTTP/1.1 100") {
            self.head = Head::Idle;
        }
        self.answer = with_body(bytes).unwrap_or_default();
        !self.answer.is_empty()
    }
}

/// The answer with a body, if it is one of hyper's own: an error without a body.
fn with_body(bytes: &[u8]) -> Option<Vec<u8>> {
    const EMPTY: &str = "content-length: 0\r\n";
    if !bytes.starts_with(b"HTTP/1.1 4") || !bytes.ends_with(b"\r\n\r\n") {
        return None;
    }
    let head = std::str::from_utf8(bytes).ok()?;
    if !head.contains(EMPTY) || head.contains("content-type:") {
        return None;
    }
    let what = match head.get(9..12)? {
        "414" => "the path is too long",
        "431" => "the headers are too many or too long",
        _ => "that is no request of HTTP/1.1",
    };
    let body = json!({ "error": what }).to_string();
    let length = format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
    Some((head.replacen(EMPTY, &length, 1) + &body).into_bytes())
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Client<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        match read {
            Poll::Ready(Ok(())) => self.has_read(buffer.filled().get(before..).unwrap_or_default()),
            Poll::Pending if matches!(self.head, Head::Coming(_)) => {
                ready!(self.deadline.as_mut().poll(cx));
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            _ => {}
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Client<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_answer(cx))?;
        if self.takes(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_answer(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_answer(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_answer(cx))?;
        // An answer of hyper's own is one piece, because it has only a head.
        match pieces.first() {
            Some(first) if self.takes(first) => Poll::Ready(Ok(first.len())),
            _ => Pin::new(&mut self.stream).poll_write_vectored(cx, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    const PATIENCE: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn a_client_may_be_idle_for_long_and_half_a_request_may_not() {
        let (mut near, far) = duplex(1_024);
        let mut client = Client::new(far, PATIENCE);
        let mut bytes = [0; 64];
        near.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        assert_eq!(client.read(&mut bytes).await.unwrap(), 27);
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        let idle = tokio::time::timeout(10 * PATIENCE, client.read(&mut bytes)).await;
        assert!(idle.is_err(), "it was hung up on: {idle:?}");
        near.write_all(b"GET / HT").await.unwrap();
        let begun = Instant::now();
        assert_eq!(client.read(&mut bytes).await.unwrap(), 8);
        assert_eq!(client.read(&mut bytes).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() >= PATIENCE);
        let (_near, far) = duplex(1_024);
        let never = Client::new(far, PATIENCE).read(&mut bytes).await;
        assert!(never.is_err(), "one that never begins");
    }

    #[tokio::test]
    async fn an_answer_about_nothing_gets_a_body_and_others_stay() {
        let (mut near, far) = duplex(1_024);
        let mut client = Client::new(far, PATIENCE);
        let fine =
            "HTTP/1.1 404 Not Found\r\ncontent-type: text/plain\r\ncontent-length: 0\r\n\r\n";
        client.write_all(fine.as_bytes()).await.unwrap();
        let own = "HTTP/1.1 431 X\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        client.write_all(own.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let mut all = String::new();
        near.read_to_string(&mut all).await.unwrap();
        let own = all.strip_prefix(fine).unwrap();
        let (head, body) = own.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, r#"{"error":"the headers are too many or too long"}"#);
        assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
    }
}
