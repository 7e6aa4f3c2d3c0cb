//! What is dropped because of a limit: counted by kind, and told once an hour.
//!
//! Each table, queue and crowd has a limit, a constant beside it; docs/LIMITS.md lists them all.
//! Whatever finds its limit reached says so with [`Event::OverLimit`], and whoever runs the machine
//! counts it. What must stay true: nothing is dropped uncounted, and a flood of what is dropped
//! costs one line an hour for each kind, not one each.
//!
//! [`Event::OverLimit`]: super::event::Event::OverLimit

use std::collections::BTreeMap;
use std::time::Duration;

use super::time::Time;

/// The same kind is told again after this long.
const TOLD_EACH: Duration = Duration::from_secs(3_600);

macro_rules! limits {
    ($($name:ident, $label:literal, $says:literal;)*) => {
        /// A limit, by what is dropped once it is reached.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Limit {
            $(#[doc = $says] $name,)*
        }

        impl Limit {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Its name, as the metrics have it.
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)*
                }
            }

            /// What happened, for the log.
            pub const fn words(self) -> &'static str {
                match self {
                    $(Self::$name => $says,)*
                }
            }
        }
    };
}

limits! {
    HalfOpen, "half_open", "the connection that had said nothing for longest was closed";
    OfAddress, "connections_of_address", "a connection was closed: its address has too many";
    OfIdentity, "connections_of_identity", "a connection was closed: its identity has too many";
    Connections, "connections", "a connection was closed: too many are open";
    Unserved, "connections_unserved", "a connection was closed: too many wait for HTTP";
    Queue, "link_queue", "a link was closed: the other side does not read";
    Forwarded, "eager_forwarded", "a forwarded message was announced and not pushed: the link is slow";
    Own, "eager_own", "an own message was announced and not pushed: the link is slow";
    Guests, "guests", "a comparison was refused: too many are under way";
    Inquirers, "inquirers", "a question was refused: too many are under way";
    Brief, "links_brief", "a link was refused: those with its caller break as soon as they are up";
    Origins, "gossip_origins", "a message was refused: no room for its origin or for holes in its numbers";
    Flood, "gossip_flood", "a message was refused: its origin sends more than any may";
    Early, "gossip_early", "a message was dropped that waited for the news of its origin";
    Announced, "gossip_announced", "an announcement was forgotten: too many messages are missing";
    Messages, "messages", "a message was dropped from the message list before its time: the list is full";
    Unfetched, "own_unfetched", "an own message was dropped before all neighbours had it";
    Gone, "own_gone", "a neighbour asked for an own message that was dropped before";
    Held, "held_writes", "a write whose past is not here was dropped: too many are held";
    Replicas, "replicas", "a write was refused: there are too many replicas, or its name is too long";
    Waiting, "waiting_requests", "a request was answered at once: too many wait for writes";
    StoreBytes, "store_bytes", "a write of a client was refused: the store is full";
    Suspicions, "suspicions", "a suspicion was dropped: too many members are suspected";
    Notices, "suspect_notices", "a suspect notice was dropped: too many probes are under way";
    Doubts, "doubts", "a member that did not answer is not looked at again: too many are in doubt";
    Records, "member_records", "a record of a member was dropped: there is no room for more";
    Members, "members", "a registration was refused: the registry is full";
    MembersOfSource, "members_of_source", "a registration was refused: its source has too many members";
    Ballots, "ballots", "a proposal was dropped: too many ballots are open";
    Requests, "requests_of_connection", "a request was denied: too many of its connection are open";
    Judgements, "judgements", "a proposal was voted against: too many wait for a probe";
    Cases, "cases", "a report of a death was dropped: too many cases are open";
    Reports, "reports_of_peer", "a report of a death was dropped: its reporter has made too many";
    Neighbours, "reported_links", "reported links were cut off: a peer names too many";
    HttpConnections, "http_connections", "an HTTP connection was closed: too many are open";
    Body, "http_body", "a request was refused: its body is too long";
    Followers, "log_followers", "a client that wants to follow the log was refused: too many do";
    SlowFollower, "slow_follower", "a client that follows the log was cut off: it does not keep up";
}

/// What became of one kind.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    all: u64,
    /// Since the last line.
    untold: u64,
    told: Option<Time>,
}

/// Counts of what was dropped.
#[derive(Clone, Debug, Default)]
pub struct Drops(BTreeMap<Limit, Tally>);

impl Drops {
    /// Counts what was dropped. If it is time for a line, returns how much that line has to tell of.
    pub fn count(&mut self, now: Time, limit: Limit, times: u64) -> Option<u64> {
        let tally = self.0.entry(limit).or_default();
        tally.all = tally.all.saturating_add(times);
        tally.untold = tally.untold.saturating_add(times);
        if tally.told.is_some_and(|told| now.since(told) < TOLD_EACH) {
            return None;
        }
        tally.told = Some(now);
        Some(std::mem::take(&mut tally.untold))
    }

    /// How much was dropped of each kind so far.
    pub fn all(&self) -> impl Iterator<Item = (Limit, u64)> + '_ {
        Limit::ALL.iter().map(|limit| (*limit, self.0.get(limit).map_or(0, |tally| tally.all)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_counted_and_one_line_an_hour_tells_of_each_kind() {
        let start = Time::from_millis(1_800_000_000_000);
        let mut drops = Drops::default();
        let mut told = Vec::new();
        for second in 0..7_200 {
            let now = start + Duration::from_secs(second);
            told.extend(drops.count(now, Limit::Held, 2).map(|times| (second, times)));
            if second == 10 {
                assert_eq!(drops.count(now, Limit::Cases, 1), Some(1), "each kind by itself");
            }
        }
        assert_eq!(told, [(0, 2), (3_600, 7_200)]);
        let counted: Vec<_> = drops.all().filter(|(_, all)| *all > 0).collect();
        assert_eq!(counted, [(Limit::Held, 14_400), (Limit::Cases, 1)]);
    }

    #[test]
    fn no_two_kinds_share_a_name() {
        let labels: std::collections::BTreeSet<_> =
            Limit::ALL.iter().map(|limit| limit.label()).collect();
        assert_eq!(labels.len(), Limit::ALL.len());
    }
}
