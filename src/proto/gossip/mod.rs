//! Gossip: what a message is, which messages a peer knows, and how they spread.
//!
//! `author` knows who has published a message, `early` keeps those of members not known yet.
//! `list` keeps the messages, `runs` the numbers seen, and `rumors` what crossed each link.
//! `spread` decides over which links a message goes, and `announce` asks for messages that did not
//! come. `sync` finds the messages that were lost all the same: it compares two sets with
//! `reconcile`, which walks `index` (DESIGN.md, section 4). What must stay true: a message crosses
//! a link at most once in each direction, and is delivered once.

mod announce;
pub(crate) mod author;
mod early;
mod exchange;
pub mod index;
pub mod list;
pub mod message;
mod origins;
pub mod reconcile;
pub mod rumors;
pub mod runs;
mod spread;
mod sync;
mod window;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::hex::Hex;
use super::message::{Addr, Gossip, Incarnation, Tag};
use super::registry::hash_addr;
use super::signature::Statement;
use super::time::Time;

/// Longest payload of a message, bytes: as long as one body that the HTTP API takes.
pub const MAX_PAYLOAD: usize = 1 << 20;
/// Messages older than this are dropped and not accepted. Long enough for a peer that was cut off
/// for a coffee, short enough to bound memory. The age of a message is the time that its holders
/// have counted, each by its own stopwatch.
pub const MAX_AGE: Duration = Duration::from_secs(3_600);
/// By how much two peers may disagree on the age of a message. Ages leave out the time on the way,
/// but a link over which nothing comes for so long has been given up long before.
pub const AGE_ERROR: Duration = Duration::from_secs(300);

/// The identity of a message: SHA-256 over its origin's address and life, its number, its time and
/// its text. The text alone names no port, so messages of two peers on one host would collide.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MessageId(pub [u8; 32]);

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Computes the identity of a message.
pub fn message_id(gossip: &Gossip) -> MessageId {
    let mut hash = Sha256::new();
    hash_addr(&mut hash, &gossip.origin);
    hash.update(gossip.life.to_le_bytes());
    hash.update(gossip.number.to_le_bytes());
    hash.update(gossip.offset.to_le_bytes());
    hash.update(&gossip.payload);
    MessageId(hash.finalize().into())
}

/// What the origin of a message signs in the network of that name: that it has published the message
/// with this identity.
pub fn statement(network: &str, id: &MessageId) -> Statement {
    Statement::new("message", network, |hash| hash.update(id.0))
}

/// The short name of an origin in one life.
pub fn tag(origin: &Addr, life: Incarnation) -> Tag {
    let mut hash = Sha256::new();
    hash_addr(&mut hash, origin);
    hash.update(life.to_le_bytes());
    let whole: [u8; 32] = hash.finalize().into();
    let mut tag = Tag::default();
    tag.copy_from_slice(&whole[..8]);
    tag
}

/// When a message was published, by its origin's clock.
pub fn published(gossip: &Gossip) -> Time {
    let offset = gossip.offset.unsigned_abs();
    let millis = if gossip.offset < 0 {
        gossip.life.saturating_sub(offset)
    } else {
        gossip.life.saturating_add(offset)
    };
    Time::from_millis(millis)
}

/// Counts of how messages spread, since the start of this life.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages accepted from others.
    pub received: u64,
    /// Payloads received again.
    pub duplicates: u64,
    /// Payloads pushed or sent on request.
    pub payloads_sent: u64,
    /// Links whose other side was asked not to push any more.
    pub prunes: u64,
    /// Links whose other side was asked to push again.
    pub grafts: u64,
    /// Messages asked for.
    pub wants: u64,
    /// Messages announced.
    pub announced: u64,
    /// Messages refused because their origin has not signed them.
    pub forged: u64,
    /// Messages refused: too old, too long, dropped from the list before, or with an origin or a
    /// hole in an origin's numbers for which there was no room.
    pub refused: u64,
    /// Messages sent again because anti-entropy found that they had been lost.
    pub resent: u64,
    /// Counts of anti-entropy.
    pub sync: SyncCounters,
}

/// Counts of anti-entropy, since the start of this life.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncCounters {
    /// Rounds begun.
    pub rounds: u64,
    /// Digests from others that matched.
    pub matched: u64,
    /// Identities compared one by one, as others listed them.
    pub compared: u64,
    /// Messages sent.
    pub sent: u64,
    /// Bytes of digests, fingerprints and lists sent and received, without the frames around them.
    pub bytes: u64,
    /// Bytes that comparisons saved: listing the SHA-256 of every message held would have taken so
    /// many more. Counted when a comparison ends.
    pub saved: u64,
}

impl Counters {
    /// The counts of anti-entropy, by the names under which the metrics show them.
    pub fn anti_entropy(&self) -> [(&'static str, u64); 6] {
        [
            ("rumormill_sync_rounds", self.sync.rounds),
            ("rumormill_sync_digests_matched", self.sync.matched),
            ("rumormill_sync_ids_compared", self.sync.compared),
            ("rumormill_sync_messages_moved", self.sync.sent),
            ("rumormill_sync_bytes_spent", self.sync.bytes),
            ("rumormill_sync_bytes_saved", self.sync.saved),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn gossip() -> Gossip {
        Gossip {
            origin: ([127, 0, 0, 1], 6000).into(),
            life: 1_000,
            number: 1,
            offset: 5,
            age: 0,
            payload: Bytes::from_static(b"1.000000:127.0.0.1:1"),
            signature: None,
        }
    }

    #[test]
    fn two_peers_on_one_host_do_not_collide() {
        let one = gossip();
        let other = Gossip { origin: ([127, 0, 0, 1], 6001).into(), ..gossip() };
        assert_ne!(message_id(&one), message_id(&other));
        assert_ne!(tag(&one.origin, one.life), tag(&other.origin, other.life));
        assert_ne!(message_id(&one), message_id(&Gossip { life: 1_001, ..gossip() }));
        assert_ne!(message_id(&one), message_id(&Gossip { number: 2, ..gossip() }));
    }

    #[test]
    fn the_time_of_a_message_cannot_overflow() {
        let far = Gossip { life: u64::MAX, offset: i64::MAX, ..gossip() };
        assert_eq!(published(&far).micros(), u64::MAX);
        let early = Gossip { life: 1, offset: i64::MIN, ..gossip() };
        assert_eq!(published(&early).micros(), 0);
        assert_eq!(published(&gossip()), Time::from_millis(1_005));
    }
}
