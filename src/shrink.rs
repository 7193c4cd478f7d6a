//! Tables and queues that release memory after a peak.

#[cfg(feature = "redis")]
use std::collections::VecDeque;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hash};

/// Capacity down to which tables shrink: 1,024 entries. A smaller one would save little memory
/// and cost allocations when it grows again.
pub(crate) const MIN_CAPACITY: usize = 1_024;

/// Shrinks a map whose capacity is much larger than its length.
pub(crate) fn shrink_map<K: Eq + Hash, V, S: BuildHasher>(map: &mut HashMap<K, V, S>) {
    if is_oversized(map.len(), map.capacity()) {
        map.shrink_to(MIN_CAPACITY.max(2 * map.len()));
    }
}

/// Shrinks a set whose capacity is much larger than its length.
pub(crate) fn shrink_set<K: Eq + Hash, S: BuildHasher>(set: &mut HashSet<K, S>) {
    if is_oversized(set.len(), set.capacity()) {
        set.shrink_to(MIN_CAPACITY.max(2 * set.len()));
    }
}

/// Shrinks a queue whose capacity is much larger than its length.
#[cfg(feature = "redis")]
pub(crate) fn shrink_deque<T>(deque: &mut VecDeque<T>) {
    if is_oversized(deque.len(), deque.capacity()) {
        deque.shrink_to(MIN_CAPACITY.max(2 * deque.len()));
    }
}

/// Returns `true` if the capacity exceeds four times [`MIN_CAPACITY`] and less than an eighth of
/// the capacity is used. A shrunk table is half full at most, so it does not grow or shrink again
/// at once.
fn is_oversized(length: usize, capacity: usize) -> bool {
    capacity > 4 * MIN_CAPACITY && length < capacity / 8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_shrinks_once_most_entries_are_removed() {
        let mut table: HashMap<usize, ()> = (0..100_000).map(|number| (number, ())).collect();
        let most = table.capacity();
        for number in 0..50_000 {
            table.remove(&number);
            shrink_map(&mut table);
        }
        assert!(table.capacity() > most / 2, "half of them are there");
        let mut times = 0;
        for number in 50_000..100_000 {
            let before = table.capacity();
            table.remove(&number);
            shrink_map(&mut table);
            times += usize::from(table.capacity() < before / 2);
        }
        assert!(table.capacity() <= 4 * MIN_CAPACITY, "{}", table.capacity());
        assert!(times <= 5, "{times} times");
    }
}
