//! Counts the members of each source, so that one machine cannot fill the registry.
//!
//! What must stay true: the counts are those of the registry as it is.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::proto::message::Addr;

/// Whose a member is: an IPv4 address, or the first 64 bits of an IPv6 address. A subscriber of IPv6
/// has all addresses that begin so.
type Source = (bool, u64);

fn source(peer: &Addr) -> Source {
    match peer.ip().to_canonical() {
        IpAddr::V4(ip) => (false, ip.to_bits().into()),
        IpAddr::V6(ip) => (true, (ip.to_bits() >> 64) as u64),
    }
}

/// The members of each source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Sources(BTreeMap<Source, usize>);

impl Sources {
    /// Members of the source of a peer.
    pub fn members(&self, peer: &Addr) -> usize {
        self.0.get(&source(peer)).copied().unwrap_or(0)
    }

    /// A peer is a member now, or is none, and was one before, or was none.
    pub fn changed(&mut self, peer: &Addr, before: bool, now: bool) {
        let source = source(peer);
        if now && !before {
            *self.0.entry(source).or_default() += 1;
        } else if before
            && !now
            && let Some(members) = self.0.get_mut(&source)
        {
            *members -= 1;
            if *members == 0 {
                self.0.remove(&source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_counted_by_whose_addresses_they_have() {
        let addr = |text: &str| text.parse::<Addr>().unwrap();
        let mut sources = Sources::default();
        for peer in
            ["10.0.0.1:1", "10.0.0.1:2", "10.0.0.2:1", "[2001:db8::1]:1", "[2001:db8::9:1]:1"]
        {
            sources.changed(&addr(peer), false, true);
        }
        sources.changed(&addr("10.0.0.1:1"), true, true);
        let of = |sources: &Sources, peer| sources.members(&addr(peer));
        assert_eq!(of(&sources, "10.0.0.1:9"), 2);
        assert_eq!(of(&sources, "[::ffff:10.0.0.1]:9"), 2, "the same address, written otherwise");
        assert_eq!(of(&sources, "[2001:db8::7]:9"), 2);
        assert_eq!(of(&sources, "[2001:db8:0:1::7]:9"), 0);
        sources.changed(&addr("10.0.0.1:1"), true, false);
        sources.changed(&addr("10.0.0.1:2"), true, false);
        sources.changed(&addr("10.0.0.1:2"), false, false);
        assert_eq!((of(&sources, "10.0.0.1:9"), sources.0.len()), (0, 2));
    }
}
