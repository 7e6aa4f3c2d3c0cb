//! How the name of a replica is written. For people and on disk it is text. On the wire it is the
//! address and the time that it is made of: half as long, and a name comes with every write.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The name of a replica in one life of its disk: an address and the time at which that disk was
/// new, so that no name is ever used by two.
pub type Replica = Arc<str>;

/// Stands behind the name of a replica in the name of its seals. Seals are counted apart from other
/// writes, because a client that was shown a write has not seen what the seals before it stand for.
pub(super) const SEAL: char = '!';

/// A name on the wire.
#[derive(Serialize, Deserialize)]
enum Wire {
    /// `IP:PORT@MILLISECONDS`, the form in which replicas of this make name themselves.
    Usual(SocketAddr, u64),
    /// Any other name.
    Text(Arc<str>),
    /// A usual name with [`SEAL`] behind it: the name under which such a replica makes seals.
    Sealer(SocketAddr, u64),
}

/// The address and the life in a name; none unless they make exactly this name again.
pub(super) fn parts(name: &str) -> Option<(SocketAddr, u64)> {
    let (addr, life) = name.rsplit_once('@')?;
    let (_, port) = addr.rsplit_once(':')?;
    if !is_plain(port) || !is_plain(life) {
        return None;
    }
    let (addr, life) = (addr.parse().ok()?, life.parse().ok()?);
    // An IPv4 address can be written in one way only. The check is left out for it, because names
    // are looked at with each write.
    let is_same = || text(addr, life) == name;
    (matches!(addr, SocketAddr::V4(_)) || is_same()).then_some((addr, life))
}

/// Whether a number is written in the way in which this program writes it.
fn is_plain(number: &str) -> bool {
    number.bytes().all(|byte| byte.is_ascii_digit()) && (number == "0" || !number.starts_with('0'))
}

/// Whether a replica of this make could have this name.
pub fn is_usual(name: &str) -> bool {
    parts(name).is_some()
}

/// Whether a replica of this make could make seals under this name.
pub fn is_sealer(name: &str) -> bool {
    name.strip_suffix(SEAL).is_some_and(is_usual)
}

pub(super) fn text(addr: SocketAddr, life: u64) -> String {
    format!("{addr}@{life}")
}

/// Writes a name.
pub fn serialize<S: Serializer>(name: &Replica, to: S) -> Result<S::Ok, S::Error> {
    if to.is_human_readable() {
        return name.serialize(to);
    }
    let (replica, seals) = name.strip_suffix(SEAL).map_or((&**name, false), |of| (of, true));
    match (parts(replica), seals) {
        (Some((addr, life)), false) => Wire::Usual(addr, life).serialize(to),
        (Some((addr, life)), true) => Wire::Sealer(addr, life).serialize(to),
        (None, _) => Wire::Text(name.clone()).serialize(to),
    }
}

/// Reads a name.
pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Replica, D::Error> {
    if from.is_human_readable() {
        return Replica::deserialize(from);
    }
    Ok(match Wire::deserialize(from)? {
        Wire::Usual(addr, life) => text(addr, life).into(),
        Wire::Text(name) => name,
        Wire::Sealer(addr, life) => format!("{addr}@{life}{SEAL}").into(),
    })
}

/// A name in a list.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub struct Name(#[serde(with = "self")] pub Replica);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_apart_only_if_it_is_the_same_when_put_together() {
        for usual in ["127.0.0.1:6000@7", "[::1]:6000@1795533702858"] {
            let (addr, life) = parts(usual).unwrap();
            assert_eq!(text(addr, life), usual);
        }
        for other in [
            "",
            "a",
            "127.0.0.1:6000",
            "127.0.0.1:6000@07",
            "127.0.0.1:06000@7",
            "127.0.0.1:6000@+7",
            "127.0.00.1:6000@7",
            "127.0.0.1:6000@",
            "[0::1]:1@2",
            "x@1@2",
        ] {
            assert_eq!(parts(other), None, "{other}");
        }
    }
}
