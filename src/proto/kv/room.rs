//! How many bytes a replica holds, and whether a client may add to them.
//!
//! What must stay true: the count is that of the versions that stand, and a write whose value takes
//! no more bytes than those it replaces is never refused, nor is a delete. Else a full store could
//! not be put in order again. Such a write may still add to the metadata, which is bounded by the
//! names of the replicas that write.

use std::sync::Arc;

use super::clock::Seen;
use super::store::{Store, Version, Write};
use super::value::Value;
use super::write::key_size;
use crate::proto::time::Time;

impl Store {
    /// Bytes that the keys, and the values and metadata of their versions take, roughly.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Writes a value like [`Store::put`], unless the store would then hold more than `most` bytes.
    /// None then, and nothing has changed.
    pub fn put_within(
        &mut self,
        most: usize,
        now: Time,
        key: &str,
        value: Value,
        seen: Option<&Seen>,
    ) -> Option<(Arc<Write>, Seen)> {
        let (write, seen) = self.draft(now, key, Some(value), seen);
        self.has_room_for_write(&write, most).then(|| self.commit(write, seen))
    }

    fn has_room_for_write(&self, write: &Write, most: usize) -> bool {
        let here = self.get(&write.key);
        let replaced = || here.iter().filter(|version| write.replaces.contains(&version.dot));
        let length = |value: &Value| value.text().len();
        let before: usize = replaced().map(|version| length(&version.value)).sum();
        if write.value.as_ref().map_or(0, length) <= before {
            return true;
        }
        let freed: usize = replaced().map(Version::size).sum();
        let new_key = if here.is_empty() { key_size(&write.key) } else { 0 };
        self.bytes - freed + new_key + write.version_size() <= most
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: Time = Time::from_millis(1_800_000_000_000);

    fn text(length: usize) -> Value {
        Value::new(&json!("x".repeat(length - 2))).unwrap()
    }

    /// A store that has been filled with values of 100 bytes, and what it may hold.
    fn full() -> (Store, usize) {
        let (mut store, most) = (Store::new("127.0.0.1:1@7".into()), 10_000);
        let mut keys = (0..).map(|n| format!("k{n}"));
        let mut put = || store.put_within(most, NOW, &keys.next().unwrap(), text(100), None);
        while put().is_some() {}
        (store, most)
    }

    #[test]
    fn a_full_store_takes_nothing_more_and_stays_as_it_is() {
        let (mut store, most) = full();
        assert!(store.bytes() <= most && store.bytes() > most - 400, "{}", store.bytes());
        let (before, context) = (store.versions.clone(), store.context().clone());
        assert_eq!(store.put_within(most, NOW, "new", text(100), None), None);
        assert_eq!(store.put_within(most, NOW, "k1", text(500), None), None);
        // Beside what it has not seen, a client adds a value.
        let unseen = Seen::default();
        assert_eq!(store.put_within(most, NOW, "k1", text(100), Some(&unseen)), None);
        assert_eq!((&store.versions, store.context()), (&before, &context));
    }

    #[test]
    fn a_full_store_can_always_be_put_in_order() {
        let (mut store, most) = full();
        // Even far beyond the limit, as after writes of others.
        for (most, length) in [(most, 100), (1, 100), (1, 99)] {
            assert!(store.put_within(most, NOW, "k1", text(length), None).is_some(), "{length}");
        }
        let keys: Vec<Arc<str>> = store.keys().cloned().collect();
        assert!(store.delete(NOW, &keys[0], None).is_some());
        assert!(store.put_within(most, NOW, "new", text(100), None).is_some(), "there is room");
        for key in &keys[1..] {
            assert!(store.delete(NOW, key, None).is_some());
        }
        assert!(store.delete(NOW, "new", None).is_some());
        assert_eq!(store.bytes(), 0);
    }

    #[test]
    fn one_value_in_place_of_siblings_may_take_the_room_of_all_of_them() {
        let (mut store, most) = full();
        let unseen = Seen::default();
        for _ in 0..2 {
            store.put(NOW, "k1", text(100), Some(&unseen));
        }
        assert!(store.bytes() > most && store.get("k1").len() == 3);
        assert!(store.put_within(most, NOW, "k1", text(301), None).is_none());
        assert!(store.put_within(most, NOW, "k1", text(300), None).is_some());
        assert_eq!(store.get("k1").len(), 1);
    }
}
