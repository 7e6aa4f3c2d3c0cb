//! The set that clients see: the messages of `broadcast`, or the elements of the g-set.
//!
//! What must stay true: an element is in the set once, however often it comes, and two sets of the
//! same elements have the same digest.

use std::collections::BTreeMap;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::workload::Kind;
use crate::proto::hex::Hex;

/// Sorts whole numbers by size, and then everything else by its JSON text. Elements are equal if
/// these are.
type Key = (u8, i128, String);

/// The elements, and the workload, if it is known.
#[derive(Debug, Default)]
pub(super) struct Elements {
    all: BTreeMap<Key, Value>,
    kind: Option<Kind>,
}

impl Elements {
    /// Notes which workload this is. Only the first hint counts.
    pub fn hint(&mut self, kind: Kind) {
        self.kind.get_or_insert(kind);
    }

    /// The workload, once something has told it.
    pub fn kind(&self) -> Option<Kind> {
        self.kind
    }

    /// Puts an element in; false if it was there before.
    pub fn insert(&mut self, kind: Option<Kind>, element: Value) -> bool {
        if let Some(kind) = kind {
            self.hint(kind);
        }
        self.all.insert(key(&element), element).is_none()
    }

    /// Takes in what came by gossip. Anything that is no element is ignored: no node of this
    /// network can have said it.
    pub fn receive(&mut self, payload: &[u8]) {
        let (kind, json) = match payload {
            [b'm', json @ ..] => (Some(Kind::Message), json),
            [b'e', json @ ..] => (Some(Kind::Element), json),
            [b'?', json @ ..] => (None, json),
            _ => return,
        };
        if let Ok(element) = serde_json::from_slice(json) {
            self.insert(kind, element);
        }
    }

    /// All elements, sorted.
    pub fn all(&self) -> Vec<Value> {
        self.all.values().cloned().collect()
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// SHA-256, in hex, of the JSON texts of the sorted elements with a comma between them. For the
    /// empty set it is that of no bytes.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for (place, element) in self.all.values().enumerate() {
            if place > 0 {
                hash.update(b",");
            }
            hash.update(element.to_string());
        }
        Hex(&hash.finalize()).to_string()
    }
}

/// The text in which an element is gossiped.
pub(super) fn payload(kind: Option<Kind>, element: &Value) -> String {
    let mark = match kind {
        Some(Kind::Message) => 'm',
        Some(Kind::Element) => 'e',
        Some(Kind::Counter { .. } | Kind::Nothing) | None => '?',
    };
    format!("{mark}{element}")
}

fn key(element: &Value) -> Key {
    let whole = element.as_i64().map(i128::from).or_else(|| element.as_u64().map(i128::from));
    match whole {
        Some(number) => (0, number, String::new()),
        None => (1, 0, element.to_string()),
    }
}
