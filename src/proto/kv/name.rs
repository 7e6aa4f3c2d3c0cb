//! How the name of a replica is written: as text for people and on disk, and on the wire as the
//! address and the time that it is made of, which is half as long and comes with every write.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The name of a replica in one life of its disk: an address and when that disk was new, so that no
/// name is ever used by two.
pub type Replica = Arc<str>;

/// Behind the name of a replica: its seals are counted apart from its other writes, as who was shown
/// one of those has not seen what the seals before it stand for.
pub(super) const SEAL: char = '!';

/// A name on the wire.
#[derive(Serialize, Deserialize)]
enum Wire {
    /// `IP:PORT@MILLISECONDS`, which is what replicas of this make call themselves.
    Usual(SocketAddr, u64),
    /// Any other.
    Text(Arc<str>),
    /// A usual one with [`SEAL`] behind it, which is what the seals of such a replica are made under.
    Sealer(SocketAddr, u64),
}

/// The parts of a name, if they make just that name again.
pub(super) fn parts(name: &str) -> Option<(SocketAddr, u64)> {
    let (addr, life) = name.rsplit_once('@')?;
    let (_, port) = addr.rsplit_once(':')?;
    if !is_plain(port) || !is_plain(life) {
        return None;
    }
    let (addr, life) = (addr.parse().ok()?, life.parse().ok()?);
    // Of IPv4 there is one way to write an address, and names are looked at with each write.
    let is_same = || text(addr, life) == name;
    (matches!(addr, SocketAddr::V4(_)) || is_same()).then_some((addr, life))
}

/// Whether a number is written as this program writes it.
fn is_plain(number: &str) -> bool {
    number.bytes().all(|byte| byte.is_ascii_digit()) && (number == "0" || !number.starts_with('0'))
}

/// Whether a replica of this make could have that name.
pub fn is_usual(name: &str) -> bool {
    parts(name).is_some()
}

/// Whether the seals of a replica of this make could have that name.
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
