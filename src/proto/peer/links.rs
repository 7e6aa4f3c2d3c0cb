//! The links that a peer holds, and the members that it wants links with: a static scale-free
//! overlay without degree reports.
//!
//! Members are sorted by time of joining, and ranks are drawn from a Zipf distribution with
//! exponent β = 1/(γ-1): picking the member of rank r with probability proportional to r^-β gives
//! P(k) ∝ k^-γ (the static model of Goh, Kahng, Kim, "Universal behavior of load distribution in
//! scale-free networks", PRL 87, 2001; DESIGN.md, section 4). No peer can attract links by lying
//! about its degree, because no peer asks for degrees.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::RngExt;
use rand::rngs::SmallRng;
use rand_distr::{Distribution, Zipf};

use crate::proto::config::TopologyConfig;
use crate::proto::machine::Conn;
use crate::proto::message::{Addr, Incarnation};
use crate::proto::registry::{MAX_RISE_MILLIS, Registry};
use crate::proto::time::Time;

/// A member that could not be linked is not dialled again for this long.
const AVOID: Duration = Duration::from_secs(3);
/// A member whose links broke so often in succession, each within [`AVOID`], gets no link for so long:
/// one that lets links come up and breaks them would otherwise be dialled again without a pause.
const BRIEF_LINKS: u32 = 2;
/// A neighbour that is still no member after this long never registered: the seeds were asked more
/// than twice meanwhile.
const STRANGER: Duration = Duration::from_secs(30);
/// Ranks drawn for one link before the choice becomes uniform. So many draws find a member unless
/// nearly all are linked already.
const DRAWS: usize = 64;

/// A neighbour.
#[derive(Clone, Debug)]
pub(super) struct Neighbour {
    pub conn: Conn,
    pub incarnation: Incarnation,
    /// When the last message came from it.
    pub heard: Time,
    /// When the link came up, or when its other end ceased to be a member.
    pub stranger_since: Time,
    /// True if this peer opened the link, false if the neighbour did.
    pub picked: bool,
}

/// A peer's place in the order of joining. A peer that is not known as a member counts as the
/// youngest.
pub(super) fn age(members: &Registry, peer: &Addr) -> (u64, Addr) {
    (members.alive(peer).map_or(u64::MAX, |record| record.at), *peer)
}

/// The links of a peer.
#[derive(Debug)]
pub(super) struct Links {
    me: Addr,
    config: TopologyConfig,
    neighbours: BTreeMap<Addr, Neighbour>,
    /// Whether there was ever a link.
    had_links: bool,
    /// Members in order of joining, until the membership changes.
    ranking: Option<Vec<Addr>>,
    /// Members that could not be linked, and until when they are not dialled.
    avoid: BTreeMap<Addr, Time>,
    /// Members whose last links broke as soon as they were up: how many, and until when that counts.
    brief: BTreeMap<Addr, (u32, Time)>,
}

impl Links {
    /// No links yet, for the peer at `me`.
    pub fn new(me: Addr, config: TopologyConfig) -> Self {
        let (neighbours, avoid) = (BTreeMap::new(), BTreeMap::new());
        let brief = BTreeMap::new();
        Self { me, config, neighbours, had_links: false, ranking: None, avoid, brief }
    }

    pub fn contains(&self, peer: &Addr) -> bool {
        self.neighbours.contains_key(peer)
    }

    pub fn get(&self, peer: &Addr) -> Option<&Neighbour> {
        self.neighbours.get(peer)
    }

    pub fn get_mut(&mut self, peer: &Addr) -> Option<&mut Neighbour> {
        self.neighbours.get_mut(peer)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Addr, &Neighbour)> {
        self.neighbours.iter()
    }

    /// The neighbours, by address.
    pub fn peers(&self) -> impl Iterator<Item = &Addr> {
        self.neighbours.keys()
    }

    /// The connections of all links.
    pub fn conns(&self) -> Vec<Conn> {
        self.neighbours.values().map(|neighbour| neighbour.conn).collect()
    }

    pub fn len(&self) -> usize {
        self.neighbours.len()
    }

    pub fn is_empty(&self) -> bool {
        self.neighbours.is_empty()
    }

    /// Whether the peer had links and has lost them all.
    pub fn has_lost_all(&self) -> bool {
        self.had_links && self.neighbours.is_empty()
    }

    /// Whether the peer holds as many links as it may.
    pub fn is_full(&self) -> bool {
        self.neighbours.len() >= self.config.max_links
    }

    /// A link is up.
    pub fn insert(&mut self, peer: Addr, neighbour: Neighbour) {
        self.had_links = true;
        self.neighbours.insert(peer, neighbour);
    }

    /// A link is gone.
    pub fn remove(&mut self, peer: &Addr) -> Option<Neighbour> {
        self.neighbours.remove(peer)
    }

    /// Counts every neighbour as heard now, so that its silence is measured from now on.
    pub fn all_heard(&mut self, now: Time) {
        self.neighbours.values_mut().for_each(|neighbour| neighbour.heard = now);
    }

    /// Whether there is a link to this life of a peer, or to an earlier one.
    pub fn is_linked_up_to(&self, peer: &Addr, incarnation: Incarnation) -> bool {
        self.get(peer).is_some_and(|neighbour| neighbour.incarnation <= incarnation)
    }

    /// Neighbours that are no members, though they have had enough time to register.
    pub fn strangers(&self, now: Time, members: &Registry) -> Vec<Addr> {
        let is_stranger = |(peer, neighbour): &(&Addr, &Neighbour)| {
            now.since(neighbour.stranger_since) > STRANGER && members.alive(peer).is_none()
        };
        self.neighbours.iter().filter(is_stranger).map(|(peer, _)| *peer).collect()
    }

    /// The neighbour that has been no member for longest, if that is at least so long.
    pub fn longest_stranger(
        &self,
        now: Time,
        at_least: Duration,
        members: &Registry,
    ) -> Option<Addr> {
        let strangers = self.neighbours.iter().filter(|(peer, neighbour)| {
            now.since(neighbour.stranger_since) >= at_least && members.get(peer).is_none()
        });
        let longest = strangers.min_by_key(|(_, neighbour)| neighbour.stranger_since);
        longest.map(|(peer, _)| *peer)
    }

    /// A neighbour says that it is there in a later life. One that is too far from what it was can
    /// only be a lie, and this is measured by its own earlier word and not by our clock.
    pub fn raise(&mut self, peer: &Addr, incarnation: Incarnation) {
        if let Some(neighbour) = self.neighbours.get_mut(peer)
            && incarnation.saturating_sub(neighbour.incarnation) <= MAX_RISE_MILLIS
        {
            neighbour.incarnation = neighbour.incarnation.max(incarnation);
        }
    }

    /// Does not dial a member for a while.
    pub fn avoid(&mut self, now: Time, peer: Addr) {
        self.avoid.insert(peer, now + AVOID);
    }

    /// The link with a member broke that came up at that time.
    pub fn broke(&mut self, now: Time, peer: Addr, since: Time) {
        if now.since(since) >= AVOID {
            self.brief.remove(&peer);
            return;
        }
        let (times, until) = self.brief.entry(peer).or_default();
        (*times, *until) = (times.saturating_add(1), now + AVOID);
    }

    /// Whether the links with a member break as soon as they are up, and did so just now.
    pub fn is_brief(&self, now: Time, peer: &Addr) -> bool {
        self.brief.get(peer).is_some_and(|(times, until)| *times >= BRIEF_LINKS && *until > now)
    }

    /// A member can be reached after all: it may be dialled again at once.
    pub fn forgive(&mut self, peer: &Addr) {
        self.avoid.remove(peer);
    }

    /// Forgets the members whose time of being avoided is over.
    pub fn forgive_the_old(&mut self, now: Time) {
        self.avoid.retain(|_, until| *until > now);
        self.brief.retain(|_, (_, until)| *until > now);
    }

    /// Whether a member is not to be dialled now.
    pub fn is_avoided(&self, now: Time, peer: &Addr) -> bool {
        self.avoid.get(peer).is_some_and(|until| *until > now) || self.is_brief(now, peer)
    }

    /// The membership has changed: the order of joining has to be computed again.
    pub fn forget_ranking(&mut self) {
        self.ranking = None;
    }

    /// Members in order of joining, this peer among them.
    pub fn ranking(&mut self, members: &Registry) -> &[Addr] {
        self.ranking.get_or_insert_with(|| {
            let mut order: Vec<(u64, Addr)> =
                members.members().map(|(addr, record)| (record.at, *addr)).collect();
            order.sort_unstable();
            order.into_iter().map(|(_, addr)| addr).collect()
        })
    }

    /// The oldest neighbour, if it is older than this peer.
    pub fn senior(&self, members: &Registry) -> Option<(Addr, Conn)> {
        let oldest = self.neighbours.iter().map(|(peer, n)| (age(members, peer), n.conn)).min()?;
        (oldest.0 < age(members, &self.me)).then_some((oldest.0.1, oldest.1))
    }

    /// Whether this peer is the oldest member.
    pub fn is_oldest(&mut self, members: &Registry) -> bool {
        let me = self.me;
        self.ranking(members).first().is_none_or(|first| *first == me)
    }

    /// How many more links to dial. A peer picks as many as `--links` among the members that were
    /// there before it, so that the overlay grows as the model does; and no peer stays below that
    /// degree. The links `under_way` are counted as there.
    pub fn wanted(&mut self, members: &Registry, under_way: usize) -> usize {
        let picked = self.neighbours.values().filter(|neighbour| neighbour.picked).count();
        let has_senior = self.senior(members).is_some();
        if picked >= self.config.links && has_senior {
            // This is the usual case whenever the list changes, and it is answered without sorting
            // the list.
            return 0;
        }
        let (me, links, max_links) = (self.me, self.config.links, self.config.max_links);
        let ranking = self.ranking(members);
        let earlier = ranking.iter().position(|member| *member == me).unwrap_or(ranking.len());
        let others = ranking.len().saturating_sub(1);
        let by_picks = earlier.min(links).saturating_sub(picked);
        let by_degree = links.min(others).saturating_sub(self.neighbours.len());
        // A peer without an older neighbour is the root of a tree of its own, which others do not
        // share.
        let by_age = usize::from(!has_senior && !self.is_oldest(members));
        let free = others.min(max_links).saturating_sub(self.neighbours.len());
        by_picks.max(by_degree).max(by_age).min(free).saturating_sub(under_way)
    }

    /// Draws a member for which `may_link` holds: by rank, or each with the same probability if
    /// `uniform`.
    pub fn draw(
        &mut self,
        rng: &mut SmallRng,
        members: &Registry,
        uniform: bool,
        may_link: impl Fn(&Self, &Addr) -> bool,
    ) -> Option<Addr> {
        let (me, senior) = (self.me, self.senior(members).is_some());
        let ranking = self.ranking(members);
        let mine = ranking.iter().position(|member| *member == me);
        // A peer without an older neighbour links with an older member first, as every newcomer
        // does.
        let end = if senior { None } else { mine.filter(|place| *place > 0) };
        let choice = ranking.get(..end.unwrap_or(ranking.len())).unwrap_or(&[]);
        let others: Vec<Addr> = choice.iter().filter(|m| **m != me).copied().collect();
        let beta = 1.0 / (self.config.exponent - 1.0);
        let zipf = Zipf::new(others.len() as f64, beta).ok()?;
        let mut tried = BTreeSet::new();
        if !uniform {
            for _ in 0..DRAWS {
                // Ranks count from 1; the cast saturates.
                let rank = zipf.sample(rng) as usize;
                let Some(peer) = others.get(rank.saturating_sub(1)) else { continue };
                if tried.insert(*peer) && may_link(self, peer) {
                    return Some(*peer);
                }
            }
        }
        let left: Vec<Addr> = others.into_iter().filter(|peer| may_link(self, peer)).collect();
        let place = rng.random_range(0..left.len().max(1));
        left.get(place).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::config::{Network, PeerConfig};
    use crate::proto::registry::{Record, Status};
    use rand::SeedableRng;

    fn addr(number: u16) -> Addr {
        ([127, 0, 0, 1], 6000 + number).into()
    }

    /// That many members, who joined in the order of their numbers.
    fn members(count: u16) -> Registry {
        let mut members = Registry::new();
        for number in 0..count {
            let (at, voters) = (u64::from(number), vec![0]);
            let record = Record::plain(1, Status::Alive, at, voters);
            members.merge(addr(number), record);
        }
        members
    }

    /// The links of peer `me`: the number of each neighbour, and whether `me` picked it.
    fn links(me: u16, neighbours: &[(u16, bool)]) -> Links {
        let config = PeerConfig::new(addr(me), Network::without_seeds("test")).topology;
        let mut links = Links::new(addr(me), config);
        for (number, picked) in neighbours {
            let (heard, stranger_since) = (Time::default(), Time::default());
            let conn = u64::from(*number);
            let neighbour =
                Neighbour { conn, incarnation: 1, heard, stranger_since, picked: *picked };
            links.insert(addr(*number), neighbour);
        }
        links
    }

    #[test]
    fn a_peer_has_lost_all_links_only_if_it_had_one() {
        assert!(!links(1, &[]).has_lost_all());
        let mut links = links(1, &[(2, false), (3, true)]);
        for (peer, expected) in [(2, false), (3, true)] {
            links.remove(&addr(peer));
            assert_eq!(links.has_lost_all(), expected, "without {peer}");
        }
    }

    #[test]
    fn how_many_links_are_missing() {
        type Row<'a> = (&'a str, u16, u16, &'a [(u16, bool)], usize, usize);
        let table: &[Row<'_>] = &[
            ("alone nobody is missing", 1, 0, &[], 0, 0),
            ("a newcomer picks three", 10, 9, &[], 0, 3),
            ("what is under way is not missing", 10, 9, &[], 2, 1),
            ("the third of all can pick two, and the fourth picks it", 10, 2, &[], 0, 3),
            ("who has enough picked wants none", 10, 9, &[(1, true), (2, true), (3, true)], 0, 0),
            ("those that picked it do not count as picks", 10, 5, &[(6, false), (7, false)], 0, 3),
            ("the oldest keeps the degree", 10, 0, &[(6, false)], 0, 2),
            ("without an older one one more", 10, 5, &[(6, true), (7, true), (8, true)], 0, 1),
        ];
        for (what, count, me, neighbours, under_way, expected) in table {
            let wanted = links(*me, neighbours).wanted(&members(*count), *under_way);
            assert_eq!(wanted, *expected, "{what}");
        }
    }

    #[test]
    fn the_first_link_goes_to_an_older_member_and_none_to_whom_it_may_not() {
        let (members, mut rng) = (members(20), SmallRng::seed_from_u64(1));
        for _ in 0..200 {
            let drawn = links(5, &[]).draw(&mut rng, &members, false, |_, _| true);
            assert!(drawn.is_some_and(|drawn| drawn < addr(5)), "{drawn:?}");
            let may = |_: &Links, peer: &Addr| *peer == addr(17);
            let drawn = links(5, &[(1, true)]).draw(&mut rng, &members, false, may);
            assert_eq!(drawn, Some(addr(17)));
            assert_eq!(links(5, &[]).draw(&mut rng, &members, true, may), None);
        }
    }

    #[test]
    fn the_parent_in_the_tree_is_the_oldest_neighbour_if_it_is_older() {
        let members = members(20);
        let senior = |me, of: &[(u16, bool)]| links(me, of).senior(&members).map(|(peer, _)| peer);
        assert_eq!(senior(5, &[(3, false), (7, true)]), Some(addr(3)));
        assert_eq!(senior(5, &[(7, true)]), None);
        assert_eq!(senior(5, &[(30, true)]), None, "who is no member is the youngest");
        assert!(links(0, &[]).is_oldest(&members) && !links(1, &[]).is_oldest(&members));
    }

    #[test]
    fn a_member_that_breaks_its_links_as_soon_as_they_are_up_is_left_alone_for_a_while() {
        let (mut links, peer, second) = (links(0, &[]), addr(1), Duration::from_secs(1));
        let start = Time::from_millis(1_000_000);
        links.broke(start, peer, start);
        assert!(!links.is_avoided(start, &peer), "that happens");
        links.broke(start, peer, start);
        links.forgive(&peer);
        assert!(links.is_avoided(start + second, &peer), "though it answers");
        assert!(!links.is_avoided(start + AVOID, &peer));
        links.forgive_the_old(start + AVOID);
        assert!(links.brief.is_empty());
        links.broke(start, peer, start);
        links.broke(start + AVOID, peer, start);
        links.broke(start + AVOID, peer, start + AVOID);
        assert!(!links.is_brief(start + AVOID, &peer), "there was a lasting one between");
    }
}
