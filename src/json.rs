//! JSON as both HTTP and the console show it, and the strict reading of it.
//!
//! What must stay true: JSON that is taken in comes back with the same numbers and names.

use std::fmt;

use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Number, Value, json};

use crate::proto::kv::clock::Clock;
use crate::proto::kv::store::Version;
use crate::proto::registry::Status;
use crate::views::{MemberView, MessageView};

/// Formats a time, in microseconds since the Unix epoch, as RFC 3339.
pub fn rfc3339(micros: u64) -> Option<String> {
    let time = chrono::DateTime::from_timestamp_micros(i64::try_from(micros).ok()?)?;
    Some(time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true))
}

/// A member, or a peer that is gone.
pub fn member(member: &MemberView) -> Value {
    let record = &member.record;
    let at = rfc3339(record.at.saturating_mul(1_000));
    // The record of a peer that is gone has the time when it went, and no longer the time when it
    // joined.
    let (joined, gone) = if record.status == Status::Alive { (at, None) } else { (None, at) };
    json!({
        "address": member.address,
        "status": if member.suspected { json!("suspect") } else { json!(record.status) },
        "incarnation": record.incarnation,
        "joined": joined,
        "gone": gone,
    })
}

/// A gossip message.
pub fn message(message: &MessageView) -> Value {
    json!({
        "id": message.id.to_string(),
        "message": String::from_utf8_lossy(&message.payload),
        "origin": message.origin,
        "received": rfc3339(message.received.micros()),
    })
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

/// A clock, as an object from names of replicas to counts.
pub fn clock(clock: &Clock) -> Value {
    let entries = clock.iter().map(|(name, count)| (name.to_string(), count.into()));
    Value::Object(entries.collect::<Map<_, _>>())
}

/// The reason why a text is not taken as JSON.
#[derive(Debug, thiserror::Error)]
pub enum NotExactly {
    /// It is no JSON, or an object in it has a name twice.
    #[error("is not JSON: {0}")]
    NotJson(serde_json::Error),
    /// A number in it would come back as a different number.
    #[error("has the number {0}, which would come back as {1}; write it as a text")]
    Number(String, String),
}

/// Reads JSON, and refuses any of which something would be lost: a number that would come back as a
/// different one, or a name that an object has twice.
///
/// # Errors
///
/// If it is no JSON, or something of it would be lost.
pub fn exactly(text: &[u8]) -> Result<Value, NotExactly> {
    let Whole(value) = serde_json::from_slice(text).map_err(NotExactly::NotJson)?;
    // The text is valid JSON, so whatever begins like a number outside of a string is a number.
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        match first {
            b'"' => rest = after_string(after),
            b'-' | b'0'..=b'9' => {
                let is_part =
                    |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
                let end = rest.iter().position(|byte| !is_part(byte)).unwrap_or(rest.len());
                let (number, after) = rest.split_at(end);
                check_number(&String::from_utf8_lossy(number))?;
                rest = after;
            }
            _ => rest = after,
        }
    }
    Ok(value)
}

/// The rest of the text behind a string whose opening quote was read.
fn after_string(mut text: &[u8]) -> &[u8] {
    while let Some((first, after)) = text.split_first() {
        match first {
            b'"' => return after,
            b'\\' => text = after.get(1..).unwrap_or_default(),
            _ => text = after,
        }
    }
    text
}

fn check_number(text: &str) -> Result<(), NotExactly> {
    let number: Number = serde_json::from_str(text).map_err(NotExactly::NotJson)?;
    let back = number.to_string();
    if back == text || decimal(&back) == decimal(text) {
        return Ok(());
    }
    // An error shows the first digits only: nobody wants to read a million.
    let shown = text.chars().take(40).collect();
    Err(NotExactly::Number(shown, back))
}

/// Whether a number is negative, its digits without zeros at either end, and the power of ten by
/// which the digits are multiplied.
fn decimal(text: &str) -> Option<(bool, String, i64)> {
    let (sign, text) = text.strip_prefix('-').map_or((false, text), |text| (true, text));
    let (digits, power) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let all = [whole, part].concat();
    let significant = all.trim_end_matches('0');
    if significant.trim_start_matches('0').is_empty() {
        return Some((false, String::new(), 0));
    }
    let shift = i64::try_from(all.len() - significant.len()).ok()?;
    let power = power.parse::<i64>().ok()?.checked_sub(i64::try_from(part.len()).ok()?)?;
    Some((sign, significant.trim_start_matches('0').to_owned(), power.checked_add(shift)?))
}

/// Any JSON in which no object has the same name twice.
struct Whole(Value);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(AnyJson).map(Whole)
    }
}

struct AnyJson;

impl<'de> Visitor<'de> for AnyJson {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(Whole(item)) = items.next_element()? {
            all.push(item);
        }
        Ok(all.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut all = Map::new();
        while let Some((name, Whole(value))) = entries.next_entry::<String, Whole>()? {
            if all.contains_key(&name) {
                return Err(A::Error::custom(format!("it has {name:?} twice")));
            }
            all.insert(name, value);
        }
        Ok(all.into())
    }
}

/// JSON for a terminal. Characters that would move the cursor, hide text or turn it around are
/// escaped. That does not change its meaning, because such characters occur only in strings.
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

    #[test]
    fn numbers_come_back_as_they_were_given_or_are_refused() {
        for kept in [
            "0",
            "-0",
            "1",
            "-1.50",
            "1e2",
            "100E-2",
            "0.1",
            "1e300",
            "5e-324",
            "2.2250738585072014e-308",
            "18446744073709551615",
            "-9223372036854775808",
            "123456789012345680000",
            "0.0e-999",
        ] {
            let value = exactly(kept.as_bytes()).unwrap_or_else(|error| panic!("{kept}: {error}"));
            assert_eq!(decimal(&value.to_string()), decimal(kept), "{kept} is {value}");
        }
        for lost in [
            "18446744073709551617",
            "1e-400",
            "1e400",
            "0.10000000000000000001",
            "-9223372036854775809",
            "3.14159265358979323846",
            "1e-99999999999999999999",
        ] {
            for text in [lost.to_owned(), format!("{{\"a\\\"\": [1, {lost}]}}")] {
                assert!(exactly(text.as_bytes()).is_err(), "{text}");
            }
        }
        let quoted = r#"{"1e-400": "18446744073709551617\\"}"#;
        assert_eq!(
            exactly(quoted.as_bytes()).unwrap().to_string(),
            r#"{"1e-400":"18446744073709551617\\"}"#
        );
    }

    #[test]
    fn a_name_that_is_given_twice_is_refused() {
        for twice in [r#"{"a": 1, "a": 2}"#, r#"[{"b": {"a": 1, "\u0061": 1}}]"#] {
            let error = exactly(twice.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("\"a\" twice"), "{error}");
        }
    }
}
