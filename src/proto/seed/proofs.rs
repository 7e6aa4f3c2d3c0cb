//! What shows that a record was voted for: the voters' signatures, made and checked here.
//!
//! Each seed signs its accept over the member's address, life, status and identity. A record carries
//! the signatures of its voters, so a seed need not believe the one that brings it (DESIGN.md,
//! section 3). Some signatures cannot be checked: a record may be from the time before links were
//! encrypted, or a voter may have lost its disk, and so its identity, or was never met. Such a record
//! counts once so many seeds stand for it that they make a quorum, each by its signature or by
//! telling the record itself. A seed tells only what it has checked in the same way, so with fewer
//! lying seeds than a quorum, at least one honest seed has voted.
//!
//! Over plain links there are no identities, and a record is believed if it names a quorum.

use std::collections::{BTreeMap, BTreeSet};

use sha2::Digest;

use super::ballot::SeedNumber;
use crate::proto::config::Network;
use crate::proto::message::{Addr, Change, Identity, Incarnation};
use crate::proto::registry::{Record, Status, hash_addr};
use crate::proto::signature::{Signature, Signing, Statement};
use crate::proto::uncompared::Uncompared;

/// Most records that wait for further seeds to tell them: more than a network has members, unless
/// it is a great one whose seeds have all lost their identities.
const MAX_WAITING: usize = 1 << 17;

/// Most identities that are kept of one seed: a seed that has lost its disk more often has voted
/// again for what matters.
const MAX_IDENTITIES: usize = 4;

/// What a record says, whoever voted for it.
pub(super) type Transition = (Addr, Incarnation, Status, Option<Identity>);

/// Whether a quorum is known to stand for a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// It is.
    Complete,
    /// Not yet: further seeds have to tell the record.
    Lacking,
}

/// This seed's signatures, and those of the others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Proofs {
    signing: Uncompared<Signing>,
    /// Who the seeds are, as far as this seed knows, and at last who they were before they lost an
    /// identity with their disk: what they signed then they have signed.
    identities: BTreeMap<SeedNumber, Vec<Identity>>,
    /// The seeds that stand for a record that is not proven yet.
    waiting: BTreeMap<Transition, BTreeSet<SeedNumber>>,
}

/// That a seed of the network accepts a record.
pub(super) fn statement(
    network: &Network,
    (peer, incarnation, status, identity): Transition,
) -> Statement {
    Statement::new("vote", &network.name, |hash| {
        hash.update(network.digest());
        hash_addr(hash, &peer);
        hash.update(incarnation.to_le_bytes());
        hash.update([status as u8, u8::from(identity.is_some())]);
        if let Some(identity) = identity {
            hash.update(identity.0);
        }
    })
}

fn accepted(change: &Change) -> Transition {
    (change.peer, change.incarnation, change.kind.status(), change.identity)
}

impl Proofs {
    /// Has this seed, which has that number, sign its votes and check those of others.
    pub fn sign_with(&mut self, signing: Signing, me: SeedNumber) {
        self.learn(me, signing.as_ref().map(|signer| signer.identity()));
        self.signing = Uncompared(signing);
    }

    /// Whether votes are signed.
    pub fn are_signed(&self) -> bool {
        self.signing.is_some()
    }

    /// Learns who a seed is. Whoever runs this machine has checked it.
    pub fn learn(&mut self, seed: SeedNumber, identity: Option<Identity>) {
        let Some(identity) = identity else { return };
        let known = self.identities.entry(seed).or_default();
        known.retain(|known| *known != identity);
        known.insert(0, identity);
        known.truncate(MAX_IDENTITIES);
    }

    /// This seed's signature under its accept of a change; none over plain links.
    pub fn sign(&self, network: &Network, change: &Change) -> Option<Signature> {
        let signer = self.signing.as_ref()?;
        Some(signer.sign(&statement(network, accepted(change))))
    }

    /// Whether an accept that has come from a seed can be shown to others.
    pub fn is_signed(
        &self,
        network: &Network,
        change: &Change,
        voter: SeedNumber,
        signature: Option<&Signature>,
    ) -> bool {
        let statement = || statement(network, accepted(change));
        self.signing.is_none()
            || signature.is_some_and(|signature| self.checks(voter, 1, &statement(), signature))
    }

    /// Whether a seed has signed a statement as one of the last identities that it had.
    fn checks(
        &self,
        voter: SeedNumber,
        last: usize,
        statement: &Statement,
        signature: &Signature,
    ) -> bool {
        let Some(signer) = self.signing.as_ref() else { return false };
        let identities = self.identities.get(&voter).into_iter().flatten();
        identities.take(last).any(|who| signer.has_signed(who, statement, signature))
    }

    /// Takes in that a seed tells a record, which names a quorum of voters: whether so many seeds as
    /// are `enough` are now known to stand for it.
    pub fn told(
        &mut self,
        network: &Network,
        teller: SeedNumber,
        (peer, record): (&Addr, &Record),
        enough: usize,
    ) -> Proof {
        if self.signing.is_none() {
            return Proof::Complete;
        }
        let transition = (*peer, record.incarnation, record.status, record.identity);
        let statement = statement(network, transition);
        let signed = record.voters.iter().zip(&record.signatures);
        let signed = signed.filter(|(voter, signature)| {
            self.checks(**voter, MAX_IDENTITIES, &statement, signature)
        });
        let mut standing: BTreeSet<SeedNumber> =
            signed.map(|(voter, _)| *voter).take(enough).collect();
        if standing.len() < enough {
            standing.insert(teller);
            standing.extend(self.waiting.get(&transition).into_iter().flatten());
        }
        if standing.len() >= enough {
            self.waiting.remove(&transition);
            return Proof::Complete;
        }
        if self.waiting.contains_key(&transition) || self.waiting.len() < MAX_WAITING {
            self.waiting.insert(transition, standing);
        }
        Proof::Lacking
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::message::ChangeKind;
    use crate::proto::signature::{Signer, toy::Toy};
    use std::sync::Arc;

    fn network() -> Network {
        Network::new("test", (0..5).map(|port| ([127, 0, 0, 1], 5000 + port).into()))
    }

    fn change(kind: ChangeKind) -> Change {
        Change {
            kind,
            peer: ([127, 0, 0, 1], 6000).into(),
            incarnation: 7,
            at: 1,
            reporters: Vec::new(),
            identity: Some(Identity([9; 32])),
        }
    }

    /// The proofs of seed 0, which knows seeds 1 to 3 and has never met seed 4.
    fn proofs() -> Proofs {
        let mut proofs = Proofs::default();
        proofs.sign_with(Some(Arc::new(Toy(0))), 0);
        (1..4).for_each(|number: u8| proofs.learn(number.into(), Some(Toy(number).identity())));
        proofs
    }

    /// The record that `change` makes, with the signatures that these signers made for these voters.
    fn record(change: &Change, voters: &[(u16, u8)]) -> Record {
        let signed = statement(&network(), accepted(change));
        Record {
            incarnation: change.incarnation,
            status: change.kind.status(),
            at: 1,
            voters: voters.iter().map(|(voter, _)| *voter).collect(),
            identity: change.identity,
            signatures: voters.iter().map(|(_, signer)| Toy(*signer).sign(&signed)).collect(),
        }
    }

    #[test]
    fn a_vote_is_about_one_record_in_one_network() {
        let all_of = |network: &Network| {
            let of = |port: u16, incarnation, status, identity| {
                let peer = ([127, 0, 0, 1], port).into();
                statement(network, (peer, incarnation, status, identity)).0
            };
            [
                of(6000, 7, Status::Alive, None),
                of(6001, 7, Status::Alive, None),
                of(6000, 8, Status::Alive, None),
                of(6000, 7, Status::Dead, None),
                of(6000, 7, Status::Alive, Some(Identity([0; 32]))),
            ]
        };
        let seeds = network().seeds()[1..].to_vec();
        let networks = [
            network(),
            Network::new("two", network().seeds().to_vec()),
            Network::new("test", seeds),
        ];
        let all: BTreeSet<[u8; 32]> = networks.iter().flat_map(all_of).collect();
        assert_eq!(all.len(), 15);
    }

    #[test]
    fn an_accept_counts_with_its_voters_signature_only() {
        let (proofs, network) = (proofs(), network());
        let (join, death) = (change(ChangeKind::Join), change(ChangeKind::Dead));
        let own = proofs.sign(&network, &join);
        let of = |signer: u8, change| Toy(signer).sign(&statement(&network, accepted(change)));
        for (what, voter, signature, expected) in [
            ("its own", 0, own, true),
            ("that of another seed", 2, Some(of(2, &join)), true),
            ("none", 2, None, false),
            ("that of a third one", 2, Some(of(3, &join)), false),
            ("that under another change", 2, Some(of(2, &death)), false),
            ("that of a seed never met", 4, Some(of(4, &join)), false),
        ] {
            let is = proofs.is_signed(&network, &join, voter, signature.as_ref());
            assert_eq!(is, expected, "{what}");
        }
        assert!(Proofs::default().is_signed(&network, &join, 2, None), "plain links");
    }

    #[test]
    fn a_record_is_believed_for_its_votes_and_not_for_who_brings_it() {
        let join = change(ChangeKind::Join);
        let network = network();
        // Each row: the voters, each with who signed in its name; who tells it; whether it is proven.
        type Row<'a> = (&'a str, &'a [(u16, u8)], u16, bool);
        let table: &[Row<'_>] = &[
            ("three votes", &[(1, 1), (2, 2), (3, 3)], 1, true),
            ("brought by one that did not vote", &[(0, 0), (2, 2), (3, 3)], 1, true),
            ("one forged, and told by another voter", &[(1, 1), (2, 1), (3, 3)], 1, false),
            ("all forged", &[(0, 1), (1, 1), (2, 1)], 1, false),
            ("a voter never met, told by one more", &[(2, 2), (3, 3), (4, 4)], 1, true),
            ("a voter never met, told by a voter", &[(2, 2), (3, 3), (4, 4)], 2, false),
        ];
        for (what, voters, teller, expected) in table {
            let proof = proofs().told(&network, *teller, (&join.peer, &record(&join, voters)), 3);
            assert_eq!(proof == Proof::Complete, *expected, "{what}");
        }
        let unsigned = record(&join, &[(0, 0), (1, 1), (2, 2)]).unsigned();
        let plain = Proofs::default().told(&network, 1, (&join.peer, &unsigned), 3);
        assert_eq!(plain, Proof::Complete, "plain links");
    }

    #[test]
    fn what_cannot_be_checked_is_believed_once_a_quorum_has_told_it() {
        let (mut proofs, network) = (proofs(), network());
        let join = change(ChangeKind::Join);
        let unsigned = record(&join, &[(0, 0), (1, 1), (2, 2)]).unsigned();
        let mut told = |teller| proofs.told(&network, teller, (&join.peer, &unsigned), 3);
        assert_eq!([told(1), told(1), told(2), told(2)], [Proof::Lacking; 4]);
        assert_eq!(told(3), Proof::Complete);
        assert_eq!(told(3), Proof::Lacking, "what was counted is not kept");
    }
}
