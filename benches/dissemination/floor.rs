//! The floor: the same overlay flooded by bare tokio tasks with
//! length-delimited frames and a set of seen ids, nothing else.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::codec::{Decoder, LengthDelimitedCodec};

use super::NODES;
use super::load::{Figures, Ledger, Mode, WARM_UP, play};

struct Node {
    number: usize,
    seen: Mutex<HashSet<u64>>,
    links: Mutex<Vec<mpsc::UnboundedSender<Bytes>>>,
    copies: Arc<AtomicU64>,
    ledger: Arc<Ledger>,
}

impl Node {
    fn take(&self, frame: &Bytes, from: Option<usize>) {
        let id = frame.first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        if !self.seen.lock().unwrap().insert(id) {
            return;
        }
        if from.is_some() {
            self.ledger.received(self.number, frame);
        }
        for (place, link) in self.links.lock().unwrap().iter().enumerate() {
            if Some(place) != from {
                self.copies.fetch_add(1, Ordering::Relaxed);
                let _ = link.send(frame.clone());
            }
        }
    }
}

async fn write(mut half: OwnedWriteHalf, mut queue: mpsc::UnboundedReceiver<Bytes>) {
    let mut batch = Vec::new();
    let mut bytes = BytesMut::new();
    while queue.recv_many(&mut batch, 256).await > 0 {
        bytes.clear();
        for frame in batch.drain(..) {
            bytes.put_u32(frame.len() as u32);
            bytes.put_slice(&frame);
        }
        if half.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

async fn read(mut half: OwnedReadHalf, node: Arc<Node>, place: usize) {
    let mut codec = LengthDelimitedCodec::new();
    let mut bytes = BytesMut::with_capacity(32 << 10);
    while half.read_buf(&mut bytes).await.unwrap_or(0) > 0 {
        while let Ok(Some(frame)) = codec.decode(&mut bytes) {
            node.take(&frame.freeze(), Some(place));
        }
        bytes.reserve(8 << 10);
    }
}

fn link(node: &Arc<Node>, stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    let (reader, writer) = stream.into_split();
    let (sender, queue) = mpsc::unbounded_channel();
    let place = {
        let mut links = node.links.lock().unwrap();
        links.push(sender);
        links.len() - 1
    };
    tokio::spawn(write(writer, queue));
    tokio::spawn(read(reader, node.clone(), place));
}

pub async fn run(mode: Mode, edges: &[(usize, usize)]) -> (Figures, Vec<(usize, usize)>) {
    let ledger = Arc::new(Ledger::new(NODES, WARM_UP * NODES + mode.messages()));
    let copies = Arc::new(AtomicU64::new(0));
    let nodes: Vec<Arc<Node>> = (0..NODES)
        .map(|number| {
            Arc::new(Node {
                number,
                seen: Mutex::default(),
                links: Mutex::default(),
                copies: copies.clone(),
                ledger: ledger.clone(),
            })
        })
        .collect();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    for (a, b) in edges {
        let (out, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        link(&nodes[*a], out.unwrap());
        link(&nodes[*b], accepted.unwrap().0);
    }
    let figures = play(
        mode,
        &ledger,
        async |node, payload: Vec<u8>| nodes[node].take(&payload.into(), None),
        async || copies.load(Ordering::Relaxed),
        async |_| {},
    )
    .await;
    (figures, edges.to_vec())
}
