//! Decides which clients may hold a connection.
//!
//! There are few places, and a client that connects and asks nothing takes one all the same. What
//! must stay true: one address cannot take the places of all others; when places run out, a new
//! client replaces the one that has asked nothing for longest; and the operator on this machine
//! always gets in.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio_util::sync::CancellationToken;

/// Connections at the same time. Each takes a descriptor and some memory, and clients come back to one
/// that they hold open.
const MAX_CONNECTIONS: usize = 1_024;
/// Connections from one address: half of all, so that one address cannot take all places.
const MAX_PER_ADDRESS: usize = MAX_CONNECTIONS / 2;
/// Places for this machine alone, beyond all others: an operator needs a browser and a script or
/// two.
const RESERVED: usize = 64;

/// The connections that are open.
#[derive(Clone, Debug, Default)]
pub struct Crowd(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Connections by number, in the order in which they came.
    open: BTreeMap<u64, Guest>,
    /// Counts up with every event, as a clock for `idle`.
    now: u64,
}

#[derive(Debug)]
struct Guest {
    ip: IpAddr,
    /// Requests under way; one connection may have several.
    requests: usize,
    /// The tick since which no request is under way.
    idle: u64,
    leave: CancellationToken,
}

impl State {
    fn tick(&mut self) -> u64 {
        self.now += 1;
        self.now
    }

    /// Sends away, of those that `of` selects, the one that has asked nothing for longest. False if
    /// all of them have requests under way.
    fn send_away(&mut self, of: impl Fn(&Guest) -> bool) -> bool {
        let idle = self.open.iter().filter(|(_, guest)| guest.requests == 0 && of(guest));
        let Some((_, number)) = idle.map(|(number, guest)| (guest.idle, *number)).min() else {
            return false;
        };
        if let Some(guest) = self.open.remove(&number) {
            guest.leave.cancel();
        }
        true
    }
}

impl Crowd {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No thread can panic half way through a change while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection from that address; none if all places are taken by clients that are
    /// served.
    pub fn enter(&self, ip: IpAddr) -> Option<Place> {
        let ip = ip.to_canonical();
        let mut state = self.lock();
        let same = |guest: &Guest| guest.ip == ip;
        if state.open.values().filter(|guest| same(guest)).count() >= MAX_PER_ADDRESS
            && !state.send_away(same)
        {
            return None;
        }
        let most = MAX_CONNECTIONS + if ip.is_loopback() { RESERVED } else { 0 };
        if state.open.len() >= MAX_CONNECTIONS
            && !state.send_away(|_| true)
            && state.open.len() >= most
        {
            return None;
        }
        let (number, leave) = (state.tick(), CancellationToken::new());
        let guest = Guest { ip, requests: 0, idle: number, leave: leave.clone() };
        state.open.insert(number, guest);
        drop(state);
        Some(Place(Arc::new(Held { crowd: self.clone(), number, leave })))
    }

    /// Closes the connection that has asked nothing for longest, when the system has run out of
    /// something.
    pub fn make_room(&self) {
        self.lock().send_away(|_| true);
    }
}

/// A place in the crowd, which is given back when its last clone is dropped.
#[derive(Clone, Debug)]
pub struct Place(Arc<Held>);

#[derive(Debug)]
struct Held {
    crowd: Crowd,
    number: u64,
    leave: CancellationToken,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.crowd.lock().open.remove(&self.number);
    }
}

impl Place {
    /// Waits until the connection has to give way.
    pub async fn sent_away(&self) {
        self.0.leave.cancelled().await;
    }

    /// Counts a request as under way until the result is dropped.
    pub fn request(&self) -> Asking {
        if let Some(guest) = self.0.crowd.lock().open.get_mut(&self.0.number) {
            guest.requests += 1;
        }
        Asking(self.clone())
    }
}

/// A request under way.
#[derive(Debug)]
pub struct Asking(Place);

impl Drop for Asking {
    fn drop(&mut self) {
        let held = &self.0.0;
        let mut state = held.crowd.lock();
        let now = state.tick();
        if let Some(guest) = state.open.get_mut(&held.number) {
            guest.requests = guest.requests.saturating_sub(1);
            guest.idle = now;
        }
    }
}

/// The body of an answer. The request is under way for as long as the body is, because a stream of
/// events is an answer that lasts.
#[derive(Debug)]
pub struct Answered {
    body: Body,
    _asking: Asking,
}

impl Answered {
    /// Ends the request when this body is dropped.
    pub fn new(body: Body, asking: Asking) -> Self {
        Self { body, _asking: asking }
    }
}

impl HttpBody for Answered {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn is_sent_away(place: &Place) -> bool {
        place.0.leave.is_cancelled()
    }

    #[test]
    fn the_oldest_that_asks_nothing_gives_way_to_one_of_its_own_address() {
        let crowd = Crowd::default();
        let other = crowd.enter(ip(2)).unwrap();
        let places: Vec<Place> =
            (0..MAX_PER_ADDRESS).map(|_| crowd.enter(ip(1)).unwrap()).collect();
        let asking = places[0].request();
        let _new = crowd.enter(ip(1)).unwrap();
        assert!(is_sent_away(&places[1]) && !is_sent_away(&places[0]) && !is_sent_away(&other));
        // It has asked later than the others, so it is not the next to go.
        drop(asking);
        let _newer = crowd.enter(ip(1)).unwrap();
        assert!(is_sent_away(&places[2]) && !is_sent_away(&places[0]));
    }

    #[test]
    fn an_address_whose_places_are_all_served_gets_no_more() {
        let crowd = Crowd::default();
        let places: Vec<Place> =
            (0..MAX_PER_ADDRESS).map(|_| crowd.enter(ip(1)).unwrap()).collect();
        let asking: Vec<Asking> = places.iter().map(Place::request).collect();
        assert!(crowd.enter(ip(1)).is_none());
        assert!(crowd.enter(ip(2)).is_some());
        drop((places, asking));
        assert!(crowd.enter(ip(1)).is_some(), "places are given back");
    }

    #[test]
    fn this_machine_gets_in_when_all_places_are_served() {
        let crowd = Crowd::default();
        let place = |number: usize| crowd.enter(ip(number as u8 % 4)).unwrap();
        let places: Vec<Place> = (0..MAX_CONNECTIONS).map(place).collect();
        let asking: Vec<Asking> = places.iter().map(Place::request).collect();
        assert!(crowd.enter(ip(9)).is_none());
        let operator = crowd.enter(LOOPBACK).unwrap();
        drop((operator, asking));
        assert!(crowd.enter(ip(9)).is_some(), "and now somebody asks nothing");
        assert!(is_sent_away(&places[0]));
    }
}
