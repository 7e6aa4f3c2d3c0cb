//! What HTTP and the console show alike, as JSON.

use serde_json::{Map, Value, json};

use crate::proto::kv::clock::Clock;
use crate::proto::kv::store::Version;
use crate::proto::message::Addr;
use crate::proto::peer::PeerMachine;
use crate::proto::registry::{Record, Status};

/// A time in microseconds since the Unix epoch as RFC 3339.
pub fn rfc3339(micros: u64) -> Option<String> {
    let time = chrono::DateTime::from_timestamp_micros(i64::try_from(micros).ok()?)?;
    Some(time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true))
}

/// A member, as its record says.
pub fn member(address: &Addr, record: &Record) -> Value {
    let at = rfc3339(record.at.saturating_mul(1_000));
    // Of one that is gone it is known when it went, and not any more when it joined.
    let (joined, gone) = if record.status == Status::Alive { (at, None) } else { (None, at) };
    json!({
        "address": address,
        "status": record.status,
        "incarnation": record.incarnation,
        "joined": joined,
        "gone": gone,
    })
}

/// The members as a peer knows them, those that it suspects marked.
pub fn members(machine: &PeerMachine) -> Vec<Value> {
    let records = machine.members().iter();
    let shown = records.map(|(address, record)| {
        let mut member = member(address, record);
        if record.status == Status::Alive && machine.suspects(address) {
            member["status"] = "suspect".into();
        }
        member
    });
    shown.collect()
}

/// The messages that a peer holds, oldest first.
pub fn messages(machine: &PeerMachine) -> Vec<Value> {
    let list = machine.rumors().list();
    let shown = list.iter().map(|(_, entry)| {
        json!({
            "id": entry.id.to_string(),
            "message": String::from_utf8_lossy(&entry.gossip.payload),
            "origin": entry.gossip.origin,
            "received": rfc3339(entry.received.micros()),
        })
    });
    shown.collect()
}

/// A version with its metadata (CONTRACT.md, section 4).
pub fn version(version: &Version) -> Value {
    json!({
        "value": version.value.json(),
        "vc": clock(&version.clock()),
        "lamport": version.lamport,
        "node_id": version.dot.replica,
        "ts": version.at.to_string(),
        "cid": version.value.cid().to_string(),
    })
}

/// A clock as an object from replicas to counts.
pub fn clock(clock: &Clock) -> Value {
    let entries = clock.iter().map(|(name, count)| (name.to_string(), count.into()));
    Value::Object(entries.collect::<Map<_, _>>())
}

/// JSON for a terminal: what would move its cursor, hide text or turn it around is escaped, which
/// changes nothing of its meaning, because such characters stand inside strings alone.
pub fn printable(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        let is_trick = matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}');
        if c.is_control() || is_trick {
            out.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_the_same_json_and_cannot_trick_a_terminal() {
        let value = json!({"k\u{9b}31m": "\u{1b}[2J \u{202e}abc\u{2066} ü \u{7f}"});
        let shown = printable(&value.to_string());
        assert!(shown.chars().all(|c| !c.is_control() && c != '\u{202e}'), "{shown}");
        assert!(shown.contains('ü'));
        assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), value);
    }
}
