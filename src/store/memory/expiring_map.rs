//! A map whose entries expire.

use std::collections::HashMap;
use std::hash::Hash;

use crate::clock::Timestamp;
use crate::shrink::shrink_map;

/// Number of entries below which a map keeps its expired entries: 1,024. The expired entries of a
/// smaller map take little memory.
pub(super) const MIN_SWEEP_LEN: usize = 1_024;

/// A map that returns no expired entry.
///
/// An insertion sweeps the map, which removes the expired entries, when the map has doubled since
/// the last sweep. The cost of a sweep is therefore constant for each insertion on average.
pub(super) struct ExpiringMap<K, V> {
    entries: HashMap<K, ExpiringEntry<V>>,
    sweep_at: usize,
}

struct ExpiringEntry<V> {
    value: V,
    expires_at: Timestamp,
}

impl<K, V> Default for ExpiringMap<K, V> {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            sweep_at: MIN_SWEEP_LEN,
        }
    }
}

impl<K: Eq + Hash, V> ExpiringMap<K, V> {
    /// Returns the value of a key, unless the entry has expired.
    pub(super) fn get(&self, key: &K, now: Timestamp) -> Option<&V> {
        let entry = self.entries.get(key)?;
        (entry.expires_at > now).then_some(&entry.value)
    }

    /// Returns a mutable reference to the value of a key, unless the entry has expired.
    pub(super) fn get_mut(&mut self, key: &K, now: Timestamp) -> Option<&mut V> {
        let entry = self.entries.get_mut(key)?;
        (entry.expires_at > now).then_some(&mut entry.value)
    }

    /// Inserts a value. Removes the expired entries if the map has doubled since the last removal.
    pub(super) fn insert(&mut self, key: K, value: V, expires_at: Timestamp, now: Timestamp) {
        self.entries
            .insert(key, ExpiringEntry { value, expires_at });
        if self.entries.len() >= self.sweep_at {
            self.entries.retain(|_, entry| entry.expires_at > now);
            shrink_map(&mut self.entries);
            self.sweep_at = (self.entries.len() * 2).max(MIN_SWEEP_LEN);
        }
    }

    /// Removes the entry of a key, and releases memory if the map has become small.
    pub(super) fn remove(&mut self, key: &K) {
        self.entries.remove(key);
        shrink_map(&mut self.entries);
    }

    /// Removes all entries.
    #[cfg(test)]
    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn expired_entries_are_hidden_and_swept() {
        let start = Timestamp::from_millis(1_700_000_000_000);
        let later = start.saturating_add(Duration::from_secs(1));
        let mut map = ExpiringMap::default();
        for key in 0..MIN_SWEEP_LEN - 1 {
            map.insert(key, key, later, start);
        }
        assert_eq!(map.get(&7, start), Some(&7));
        assert_eq!(map.get(&7, later), None);
        assert_eq!(map.get_mut(&7, later), None);
        let end = later.saturating_add(Duration::from_secs(1));
        map.insert(MIN_SWEEP_LEN, 0, end, later);
        assert_eq!(map.entries.len(), 1);
    }
}
