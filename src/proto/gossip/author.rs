//! Who has published a message: this peer writes its own, and knows those of others by their
//! origin's signature, where links are encrypted and members have identities.
//!
//! What must stay true: over encrypted links of a network with seeds, no message counts as that of a
//! member that has not signed it. The check costs far more than all else that is done for a message,
//! so it comes last, when the message is known to be new, young and of a sane size.

use std::collections::VecDeque;

use bytes::Bytes;

use super::list::Refusal;
use super::{MessageId, message_id, statement, tag};
use crate::proto::config::{Network, PeerConfig};
use crate::proto::message::{Addr, Gossip, Identity, Incarnation, Tag};
use crate::proto::signature::Signing;
use crate::proto::time::Time;

/// What is known of members.
pub(crate) trait Census {
    /// Whether a peer is or was a member in that life or a later one.
    fn is_member(&self, peer: &Addr, life: Incarnation) -> bool;

    /// Who that peer can be: the one whose address it is or was last, and those whose it was before,
    /// in lives no earlier than that one.
    fn identities(&self, peer: &Addr, life: Incarnation) -> Vec<Identity>;

    /// Whether that life of the peer may be one of which this peer has not heard.
    fn may_be_news(&self, peer: &Addr, life: Incarnation) -> bool;
}

/// Members whose identities nobody knows.
impl<F: Fn(&Addr, Incarnation) -> bool> Census for F {
    fn is_member(&self, peer: &Addr, life: Incarnation) -> bool {
        self(peer, life)
    }

    fn identities(&self, _: &Addr, _: Incarnation) -> Vec<Identity> {
        Vec::new()
    }

    fn may_be_news(&self, _: &Addr, _: Incarnation) -> bool {
        true
    }
}

/// This peer as the origin of messages.
#[derive(Debug)]
pub(super) struct Author {
    me: Addr,
    life: Incarnation,
    /// The number of its last message.
    used: u64,
    /// Places of its messages in the list, in order, from the first that may still be held.
    pub places: VecDeque<u64>,
    network: Network,
    /// Whether messages are signed where they can be.
    signed: bool,
    /// None if messages are not signed.
    signing: Signing,
}

impl Author {
    pub fn new(config: &PeerConfig) -> Self {
        // Without seeds nobody says who a member is.
        let signed = config.broadcast.signed && config.network.has_seeds();
        let network = config.network.clone();
        Self {
            me: config.me,
            life: 0,
            used: 0,
            places: VecDeque::new(),
            network,
            signed,
            signing: None,
        }
    }

    /// Has messages signed and checked, if the settings want it and seeds say who the members are.
    pub fn sign_with(&mut self, signing: Signing) {
        self.signing = signing.filter(|_| self.signed);
    }

    /// Begins a life of this peer.
    pub fn begin(&mut self, life: Incarnation) {
        self.life = life;
    }

    /// Whether a message says that this peer has published it in this life.
    pub fn is_named_by(&self, gossip: &Gossip) -> bool {
        gossip.origin == self.me && gossip.life == self.life
    }

    /// What announcements call this peer.
    pub fn tag(&self) -> Tag {
        tag(&self.me, self.life)
    }

    /// The number of the last message.
    pub fn last_number(&self) -> u64 {
        self.used
    }

    /// The next message of this peer. It is published once it has a place in the list.
    pub fn write(&self, now: Time, payload: Bytes) -> Gossip {
        let millis = |millis| i64::try_from(millis).unwrap_or(i64::MAX);
        let mut gossip = Gossip {
            origin: self.me,
            life: self.life,
            number: self.used + 1,
            offset: millis(now.millis()).saturating_sub(millis(self.life)),
            age: 0,
            payload,
            signature: None,
        };
        if let Some(signer) = &self.signing {
            let statement = statement(&self.network.name, &message_id(&gossip));
            gossip.signature = Some(Box::new(signer.sign(&statement)));
        }
        gossip
    }

    /// The next message is published, and has that place in the list.
    pub fn published(&mut self, place: u64) {
        self.used += 1;
        self.places.push_back(place);
    }

    /// Whether a message of that identity is its origin's own. `origin` is who that was known to be
    /// by an earlier message of the same life. Returns who it is known to be, if messages are signed
    /// at all.
    pub fn check(
        &self,
        gossip: &Gossip,
        id: &MessageId,
        origin: Option<Identity>,
        census: &impl Census,
    ) -> Result<Option<Identity>, Refusal> {
        let Some(signer) = self.signing.as_ref().filter(|_| !self.is_named_by(gossip)) else {
            return Ok(None);
        };
        let Some(signature) = gossip.signature.as_deref() else { return Err(Refusal::Forged) };
        let (peer, life) = (&gossip.origin, gossip.life);
        let statement = statement(&self.network.name, id);
        let mut can_be = origin.map_or_else(|| census.identities(peer, life), |known| vec![known]);
        can_be.retain(|who| signer.has_signed(who, &statement, signature));
        match can_be.first() {
            Some(who) => Ok(Some(*who)),
            None if origin.is_none() && census.may_be_news(peer, life) => Err(Refusal::Unknown),
            None => Err(Refusal::Forged),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::signature::{Signer, toy::Toy};
    use std::sync::Arc;

    /// Who any peer can be, and whether any life may be news.
    struct Roll {
        can_be: Vec<u8>,
        news: bool,
    }

    impl Census for Roll {
        fn is_member(&self, _: &Addr, _: Incarnation) -> bool {
            true
        }

        fn identities(&self, _: &Addr, _: Incarnation) -> Vec<Identity> {
            self.can_be.iter().map(|number| Toy(*number).identity()).collect()
        }

        fn may_be_news(&self, _: &Addr, _: Incarnation) -> bool {
            self.news
        }
    }

    fn author(number: u8, seeds: u16) -> Author {
        let addr = |port| Addr::from(([127, 0, 0, 1], port));
        let network = Network::new("test", (0..seeds).map(|seed| addr(5000 + seed)));
        let mut author = Author::new(&PeerConfig::new(addr(6000 + u16::from(number)), network));
        author.sign_with(Some(Arc::new(Toy(number))));
        author.begin(1_000);
        author
    }

    #[test]
    fn a_message_is_taken_for_its_origins_only_with_its_signature() {
        let (one, other) = (author(1, 3), author(2, 3));
        let who = |number| Toy(number).identity();
        let genuine = one.write(Time::from_millis(1_005), Bytes::from_static(b"said"));
        let check =
            |gossip: &Gossip, census: &Roll| other.check(gossip, &message_id(gossip), None, census);
        let known = |numbers: &[u8]| Roll { can_be: numbers.to_vec(), news: false };
        assert_eq!(check(&genuine, &known(&[1])), Ok(Some(who(1))));
        assert_eq!(check(&genuine, &known(&[3, 1])), Ok(Some(who(1))), "who it was before");
        assert_eq!(check(&genuine, &known(&[3])), Err(Refusal::Forged), "somebody else's");
        let news = Roll { can_be: vec![3], news: true };
        assert_eq!(check(&genuine, &news), Err(Refusal::Unknown), "perhaps a new life's");
        let bound = |origin| other.check(&genuine, &message_id(&genuine), Some(origin), &news);
        assert_eq!((bound(who(1)), bound(who(3))), (Ok(Some(who(1))), Err(Refusal::Forged)));
        let unsigned = Gossip { signature: None, ..genuine.clone() };
        assert_eq!(check(&unsigned, &news), Err(Refusal::Forged), "nobody's");
        let altered = [
            Gossip { payload: Bytes::from_static(b"not said"), ..genuine.clone() },
            Gossip { number: 2, ..genuine.clone() },
            Gossip { life: 1_001, ..genuine.clone() },
            Gossip { offset: 6, ..genuine.clone() },
            Gossip { origin: ([127, 0, 0, 1], 6009).into(), ..genuine.clone() },
        ];
        for gossip in altered {
            assert_eq!(check(&gossip, &known(&[1])), Err(Refusal::Forged), "{gossip:?}");
        }
        let older = Gossip { age: 7, ..genuine };
        assert_eq!(check(&older, &known(&[1])), Ok(Some(who(1))), "its age is no part of it");
    }

    #[test]
    fn where_nobody_says_who_a_member_is_nothing_is_signed() {
        let one = author(1, 0);
        let gossip = one.write(Time::from_millis(1_005), Bytes::from_static(b"said"));
        assert_eq!(gossip.signature, None);
        let nobody = Roll { can_be: Vec::new(), news: false };
        assert_eq!(author(2, 0).check(&gossip, &message_id(&gossip), None, &nobody), Ok(None));
    }
}
