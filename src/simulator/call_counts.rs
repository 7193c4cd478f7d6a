//! Numbers of calls, by path.

use std::collections::BTreeMap;

/// Maximum number of different paths whose calls are counted: 4,096. The limit bounds the memory if
/// a client requests many paths that do not exist.
const MAX_COUNTED_PATHS: usize = 4096;

/// The number of calls of each path since the start or the last [`clear`](Self::clear).
#[derive(Debug, Default)]
pub(super) struct CallCounts(BTreeMap<String, u64>);

impl CallCounts {
    pub(super) fn count(&mut self, path: &str) {
        if let Some(calls) = self.0.get_mut(path) {
            *calls += 1;
        } else if self.0.len() < MAX_COUNTED_PATHS {
            self.0.insert(path.to_owned(), 1);
        }
    }

    pub(super) fn of_path(&self, path: &str) -> u64 {
        self.0.get(path).copied().unwrap_or(0)
    }

    pub(super) fn all(&self) -> &BTreeMap<String, u64> {
        &self.0
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
