//! Takes connections in, bounds how many may be half open, and hears their hello.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};

use super::host::Inbound;
use crate::logging;
use crate::net::handshake::{self, AcceptError};
use crate::proto::config::Network;
use crate::proto::event::{Event, Severity};
use crate::proto::message::{Addr, Refused, Role};

/// Connections that have not said hello yet, in all.
const MAX_HALF_OPEN: usize = 1_024;
/// And from one address: one host must not take all places. Twenty peers that start at once on one
/// machine, and probe each other, need far less.
const MAX_HALF_OPEN_PER_ADDRESS: usize = 256;
/// Pause when the system has no more file descriptors.
const OUT_OF_FILES: Duration = Duration::from_millis(50);

/// Counts half-open connections by address.
#[derive(Clone, Debug, Default)]
struct Crowd(Arc<Mutex<HashMap<IpAddr, usize>>>);

impl Crowd {
    fn enter(&self, ip: IpAddr) -> bool {
        let mut count = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = count.entry(ip).or_default();
        let room = *entry < MAX_HALF_OPEN_PER_ADDRESS;
        *entry += usize::from(room);
        room
    }

    fn exit(&self, ip: IpAddr) {
        let mut count = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = count.get_mut(&ip) {
            *entry -= 1;
            if *entry == 0 {
                count.remove(&ip);
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
    let crowd = Crowd::default();
    let note = move |severity, what, from: Addr, reason: String| {
        let keys = vec![("from", from.to_string()), ("reason", reason)];
        logging::event(role, me, &Event::Note { severity, what, keys });
    };
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                note(Severity::Warn, "accept failed", me, error.to_string());
                // Waiting for the event "a descriptor is free" is not to be had from the system.
                tokio::time::sleep(OUT_OF_FILES).await;
                continue;
            }
        };
        if inbox.is_closed() {
            return;
        }
        let place = places.clone().try_acquire_owned();
        let (Ok(place), true) = (place, crowd.enter(from.ip())) else {
            note(Severity::Warn, "link closed", from, "too many half-open connections".to_owned());
            continue;
        };
        let (inbox, network, crowd) = (inbox.clone(), network.clone(), crowd.clone());
        tokio::spawn(async move {
            let result = handshake::accept(stream, &network).await;
            crowd.exit(from.ip());
            drop(place);
            match result {
                Ok((opened, hello)) => {
                    let _ = inbox.send(Inbound::Incoming { opened, hello }).await;
                }
                Err(AcceptError::Refused(refused)) => {
                    note(Severity::Warn, "link refused", from, words(refused).to_owned());
                }
                Err(error) if error.is_silent() => {
                    note(Severity::Info, "link closed", from, error.to_string());
                }
                Err(error) => note(Severity::Warn, "link closed", from, error.to_string()),
            }
        });
    }
}

fn words(refused: Refused) -> &'static str {
    refused.words()
}
