//! Takes connections in, bounds how many may be half open, and hears their hello.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};

use super::host::Inbound;
use crate::logging;
use crate::net::handshake::{self, AcceptError};
use crate::proto::config::Network;
use crate::proto::event::{Event, Severity};
use crate::proto::message::{Addr, Role};

/// Connections that have not said hello yet, in all.
const MAX_HALF_OPEN: usize = 1_024;
/// And from one address: one host must not take all places. Twenty peers that start at once on one
/// machine, and probe each other, need far less.
const MAX_HALF_OPEN_PER_ADDRESS: usize = 256;
/// Connections from one address, open ones included. A thousand peers on one machine are a test, and
/// must still fit.
const MAX_LINKS_PER_ADDRESS: usize = 4_096;
/// How often that is worth a line.
const COMPLAIN: Duration = Duration::from_secs(10);
/// Pause when the system has no more file descriptors.
const OUT_OF_FILES: Duration = Duration::from_millis(50);

/// Counts connections by address.
#[derive(Clone, Debug, Default)]
struct Crowd(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// A place in a crowd, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    crowd: Crowd,
    ip: IpAddr,
}

impl Crowd {
    fn enter(&self, ip: IpAddr, most: usize) -> Option<Place> {
        let mut count = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = count.entry(ip).or_default();
        if *entry >= most {
            return None;
        }
        *entry += 1;
        Some(Place { crowd: self.clone(), ip })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut count = self.crowd.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = count.get_mut(&self.ip) {
            *entry -= 1;
            if *entry == 0 {
                count.remove(&self.ip);
            }
        }
    }
}

/// Runs until the host is gone or the task is aborted.
pub(super) async fn run(
    listener: TcpListener,
    role: Role,
    me: Addr,
    network: Network,
    inbox: mpsc::Sender<Inbound>,
) {
    let network = Arc::new(network);
    let places = Arc::new(Semaphore::new(MAX_HALF_OPEN));
    let (half_open, open) = (Crowd::default(), Crowd::default());
    let note = move |severity, what, from: Addr, reason: String| {
        let keys = vec![("from", from.to_string()), ("reason", reason)];
        logging::event(role, me, &Event::Note { severity, what, keys });
    };
    let mut complained: Option<Instant> = None;
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                if complained.is_none_or(|at| at.elapsed() > COMPLAIN) {
                    complained = Some(Instant::now());
                    note(Severity::Warn, "accept failed", me, error.to_string());
                }
                // Waiting for the event "a descriptor is free" is not to be had from the system.
                tokio::time::sleep(OUT_OF_FILES).await;
                continue;
            }
        };
        if inbox.is_closed() {
            return;
        }
        let waiting = places.clone().try_acquire_owned().ok();
        let waiting = waiting.zip(half_open.enter(from.ip(), MAX_HALF_OPEN_PER_ADDRESS));
        let place = open.enter(from.ip(), MAX_LINKS_PER_ADDRESS);
        let (Some(waiting), Some(place)) = (waiting, place) else {
            note(Severity::Warn, "link closed", from, "too many connections".to_owned());
            continue;
        };
        let (inbox, network) = (inbox.clone(), network.clone());
        tokio::spawn(async move {
            let result = handshake::accept(stream, &network).await;
            drop(waiting);
            match result {
                Ok((opened, hello)) => {
                    let _ = inbox.send(Inbound::Incoming { opened, hello, place }).await;
                }
                Err(AcceptError::Refused(refused)) => {
                    note(Severity::Warn, "link refused", from, refused.words().to_owned());
                }
                Err(error) if error.is_silent() => {
                    note(Severity::Info, "link closed", from, error.to_string());
                }
                Err(error) => note(Severity::Warn, "link closed", from, error.to_string()),
            }
        });
    }
}
