//! A value: JSON, and the SHA-256 of its canonical form.

use std::fmt;

use crate::proto::hex::Hex;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Deepest nesting of a value: reading and comparing a value recurses so far.
pub const MAX_DEPTH: usize = 64;
/// Longest value as text, bytes: it has to fit an HTTP body and a frame.
pub const MAX_VALUE: usize = 1 << 20;

/// SHA-256 over a value's canonical JSON (RFC 8785).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Cid(pub [u8; 32]);

impl fmt::Display for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}

impl fmt::Debug for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A JSON value as it is kept and sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Value {
    text: Bytes,
    cid: Cid,
}

/// Why something is not a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// It is not JSON.
    #[error("the value is not JSON: {0}")]
    NotJson(String),
    /// It is nested too deeply.
    #[error("the value is nested deeper than {MAX_DEPTH}")]
    TooDeep,
    /// It is too long.
    #[error("the value is longer than {MAX_VALUE} bytes")]
    TooLong,
    /// Its `cid` is that of another value.
    #[error("the cid does not match the value")]
    WrongCid,
}

impl Value {
    /// Makes a value of JSON.
    ///
    /// # Errors
    ///
    /// If it is too deep or too long, or has no canonical form.
    pub fn new(json: &serde_json::Value) -> Result<Self, ValueError> {
        if depth(json) > MAX_DEPTH {
            return Err(ValueError::TooDeep);
        }
        let cid = cid(json)?;
        let text = serde_json::to_vec(json).map_err(|e| ValueError::NotJson(e.to_string()))?;
        if text.len() > MAX_VALUE {
            return Err(ValueError::TooLong);
        }
        // The text is kept for long, so drop the room that the vector has to spare.
        Ok(Self { text: text.into_boxed_slice().into(), cid })
    }

    /// Checks that a value from elsewhere has the `cid` that it says.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), ValueError> {
        if self.text.len() > MAX_VALUE {
            return Err(ValueError::TooLong);
        }
        let json: serde_json::Value = serde_json::from_slice(&self.text)
            .map_err(|error| ValueError::NotJson(error.to_string()))?;
        if depth(&json) > MAX_DEPTH {
            return Err(ValueError::TooDeep);
        }
        if cid(&json)? == self.cid { Ok(()) } else { Err(ValueError::WrongCid) }
    }

    /// The JSON.
    pub fn json(&self) -> serde_json::Value {
        // This cannot fail: the text was JSON when it came in.
        serde_json::from_slice(&self.text).unwrap_or_default()
    }

    /// The JSON as text.
    pub fn text(&self) -> &Bytes {
        &self.text
    }

    /// The SHA-256 of its canonical form.
    pub fn cid(&self) -> Cid {
        self.cid
    }

    /// A value that was kept or sent; [`Value::check`] says whether it can be believed.
    pub fn from_parts(text: Bytes, cid: Cid) -> Self {
        Self { text, cid }
    }
}

fn cid(json: &serde_json::Value) -> Result<Cid, ValueError> {
    let canonical = serde_json_canonicalizer::to_vec(json)
        .map_err(|error| ValueError::NotJson(error.to_string()))?;
    Ok(Cid(Sha256::digest(&canonical).into()))
}

fn depth(json: &serde_json::Value) -> usize {
    // This recursion ends, because serde_json reads no more than 128 levels.
    match json {
        serde_json::Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        serde_json::Value::Object(entries) => 1 + entries.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn equal_values_have_equal_cids_however_they_are_written() {
        let one: serde_json::Value =
            serde_json::from_str(r#"{"b": 1.0, "a": [1e2, "ü"]}"#).unwrap();
        let other: serde_json::Value =
            serde_json::from_str("{\"a\":[100,\"\\u00fc\"],\"b\":1}").unwrap();
        let (one, other) = (Value::new(&one).unwrap(), Value::new(&other).unwrap());
        assert_eq!(one.cid(), other.cid());
        // printf '{"a":[100,"ü"],"b":1}' | sha256sum
        let canonical = Sha256::digest("{\"a\":[100,\"ü\"],\"b\":1}".as_bytes());
        assert_eq!(one.cid().0, <[u8; 32]>::from(canonical));
        assert_eq!(one.check(), Ok(()));
    }

    #[test]
    fn a_value_whose_cid_is_anothers_is_refused() {
        let (one, other) = (Value::new(&json!(1)).unwrap(), Value::new(&json!(2)).unwrap());
        let forged = Value::from_parts(one.text().clone(), other.cid());
        assert_eq!(forged.check(), Err(ValueError::WrongCid));
        let broken = Value::from_parts(Bytes::from_static(b"{"), one.cid());
        assert!(matches!(broken.check(), Err(ValueError::NotJson(_))));
    }

    #[test]
    fn values_have_a_depth_and_a_length() {
        let nested = |depth: usize| (0..depth).fold(json!(1), |inner, _| json!([inner]));
        assert!(Value::new(&nested(MAX_DEPTH)).is_ok());
        assert_eq!(Value::new(&nested(MAX_DEPTH + 1)), Err(ValueError::TooDeep));
        assert_eq!(Value::new(&json!("x".repeat(MAX_VALUE))), Err(ValueError::TooLong));
    }
}
