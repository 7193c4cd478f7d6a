//! Scans of the keys that start with one text and end with another, in small steps.

use std::collections::BTreeMap;

use redis::from_redis_value;

use super::RedisStore;
use crate::error::Error;

/// Approximate number of fields or keys for each step. A step takes Redis a few hundred
/// microseconds.
pub(super) const SCAN_COUNT: usize = 200;

/// A scan of all keys that start with `prefix` and end with `suffix`. On a Cluster, the scan visits
/// all primaries. The scan returns every key that exists during the whole scan. If Redis resizes its
/// table during the scan, a key may be returned twice.
pub(super) struct KeyScan {
    prefix: String,
    suffix: String,
    cursor: u64,
    servers: ScanServers,
    /// `true` after the last step.
    is_done: bool,
}

/// The servers whose keys are scanned, one after another.
#[derive(Default)]
enum ScanServers {
    /// The servers are not determined yet.
    #[default]
    Unknown,
    /// One server holds all keys.
    Single,
    /// The primaries of a Cluster.
    Primaries {
        /// Each primary with its slots when the scan started.
        slots_at_start: BTreeMap<String, String>,
        /// The primaries whose scan has not ended. The last one in the list is being scanned.
        remaining: Vec<String>,
    },
}

impl KeyScan {
    pub(super) fn new(prefix: String, suffix: &str) -> Self {
        Self {
            prefix,
            suffix: suffix.to_owned(),
            cursor: 0,
            servers: ScanServers::default(),
            is_done: false,
        }
    }

    /// Returns the next keys, or `None` at the end of the scan. A list may be empty before the end.
    pub(super) async fn next_batch(
        &mut self,
        store: &RedisStore,
    ) -> Result<Option<Vec<Vec<u8>>>, Error> {
        if self.is_done {
            return Ok(None);
        }
        let pattern = [&self.prefix, &self.suffix]
            .map(|text| escape_pattern(text))
            .join("*");
        let mut scan = redis::cmd("SCAN");
        scan.arg(self.cursor).arg("MATCH").arg(pattern);
        scan.arg("COUNT").arg(SCAN_COUNT);
        let server = self.servers.current(store).await?;
        let scanning = async {
            let reply = store.0.connection.command_on(server, &scan).await?;
            Ok(from_redis_value(reply)?)
        };
        let (next, keys): (u64, Vec<Vec<u8>>) = store.run_command(b"", scanning).await?;
        self.cursor = next;
        self.is_done = next == 0 && !self.servers.advance(store).await?;
        Ok(Some(keys))
    }

    /// Returns what stands between the prefix and the suffix in a key.
    pub(super) fn between<'k>(&self, key: &'k str) -> Option<&'k str> {
        key.strip_prefix(&*self.prefix)?.strip_suffix(&*self.suffix)
    }
}

impl ScanServers {
    /// Returns the primary that is being scanned, or `None` if one server holds all keys.
    async fn current(&mut self, store: &RedisStore) -> Result<Option<&str>, Error> {
        if matches!(self, Self::Unknown) {
            let slots_at_start = store
                .run_command(b"", store.0.connection.primaries())
                .await?;
            *self = match slots_at_start.is_empty() {
                true => Self::Single,
                false => Self::Primaries {
                    remaining: slots_at_start.keys().cloned().collect(),
                    slots_at_start,
                },
            };
        }
        Ok(match self {
            Self::Unknown | Self::Single => None,
            Self::Primaries { remaining, .. } => remaining.last().map(String::as_str),
        })
    }

    /// Removes the scanned primary from the list. Returns `false` if no primary is left.
    ///
    /// # Errors
    /// [`StoreUnavailable`](crate::ErrorKind::StoreUnavailable) if slots have moved since the scan
    /// started. A slot that moved to a primary which was scanned before has been left out.
    async fn advance(&mut self, store: &RedisStore) -> Result<bool, Error> {
        let Self::Primaries {
            slots_at_start,
            remaining,
        } = self
        else {
            return Ok(false);
        };
        remaining.pop();
        if !remaining.is_empty() {
            return Ok(true);
        }
        let slots_at_end = store
            .run_command(b"", store.0.connection.primaries())
            .await?;
        // In the reply of a primary, brackets enclose each slot that is being moved.
        if *slots_at_start != slots_at_end || slots_at_end.values().any(|slots| slots.contains('['))
        {
            return Err(Error::store_unavailable(
                "slots of the Redis Cluster have moved meanwhile, so some keys may have been left \
                 out; run it again when the Cluster is at rest",
            ));
        }
        Ok(false)
    }
}

/// Escapes a text so that a pattern of Redis matches only that text.
fn escape_pattern(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        if matches!(letter, '*' | '?' | '[' | ']' | '\\' | '^') {
            out.push('\\');
        }
        out.push(letter);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pattern_characters_are_escaped() {
        assert_eq!(escape_pattern("a*[b]?\\:"), "a\\*\\[b\\]\\?\\\\:");
    }

    #[test]
    fn the_text_between_prefix_and_suffix_is_returned() {
        let scan = KeyScan::new("wechatpy:".to_owned(), "_refresh_token");
        assert_eq!(scan.between("wechatpy:wxA_refresh_token"), Some("wxA"));
        assert_eq!(scan.between("wechatpy:wxA_access_token"), None);
        assert_eq!(KeyScan::new("ab".into(), "bc").between("abc"), None);
    }
}
