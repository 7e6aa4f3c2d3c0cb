//! The set that clients see: messages of `broadcast`, elements of the g-set.
//!
//! What must stay true: an element is in it once, however it came, and two sets
//! of the same elements have the same digest.

use std::collections::BTreeMap;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::workload::Kind;
use crate::proto::hex::Hex;

/// Numbers by size, then everything else by its JSON text; texts that differ are different.
type Key = (u8, i128, String);

/// The elements, and what is known of the workload.
#[derive(Debug, Default)]
pub(super) struct Elements {
    all: BTreeMap<Key, Value>,
    kind: Option<Kind>,
}

impl Elements {
    /// Something tells which workload this is; the first to do so is believed.
    pub fn hint(&mut self, kind: Kind) {
        self.kind.get_or_insert(kind);
    }

    /// Which workload this is, once something has told.
    pub fn kind(&self) -> Option<Kind> {
        self.kind
    }

    /// Puts an element in; false if it is there.
    pub fn insert(&mut self, kind: Option<Kind>, element: Value) -> bool {
        if let Some(kind) = kind {
            self.hint(kind);
        }
        self.all.insert(key(&element), element).is_none()
    }

    /// Takes in what came by gossip. What is no element is left alone: another node of this network
    /// cannot have said it.
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

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// SHA-256, in hex, over the JSON texts of the sorted elements with a comma between them; of
    /// the empty set over nothing.
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

/// An element as it is gossiped.
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
