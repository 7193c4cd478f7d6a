//! Scans of all users of an account in small steps.

use std::collections::BTreeMap;

use redis::{Cmd, from_redis_value};

use super::super::key_names::unescape_braces;
use super::super::layout::RedisNames;
use super::super::{Layout, RedisStore};
use crate::credential::AppId;
use crate::error::Error;
use crate::store::CredentialKind;

/// Approximate number of fields or keys for each step. A step takes Redis a few hundred
/// microseconds.
const SCAN_COUNT: usize = 200;

/// A scan of all users. The scan returns every user who exists during the whole scan. If Redis
/// resizes its tables during the scan, a user may be returned twice.
pub(super) struct Scan<'a> {
    store: &'a RedisStore,
    cursor: u64,
    stage: ScanStage,
    /// Number of names that are not UTF-8 and were found since the last call of `take_not_utf8`.
    not_utf8: u64,
}

/// The current stage of a scan. A scan of hashes starts with `RefreshHash` and continues with
/// `AccessHash`.
enum ScanStage {
    /// Scans the hash of refresh tokens.
    RefreshHash { refresh: String, access: String },
    /// Scans the hash of access tokens, for users without a refresh token.
    AccessHash { refresh: String, access: String },
    /// Scans the keys that start with a prefix.
    Keys {
        prefix: String,
        servers: ScanServers,
    },
    /// The scan has ended.
    Done,
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

impl<'a> Scan<'a> {
    /// Creates a scan of all users with credentials of this kind in a layout.
    pub(super) fn new(
        store: &'a RedisStore,
        app: &AppId,
        kind: CredentialKind,
        layout: Layout,
    ) -> Self {
        let names = &store.0.names;
        let stage = match (kind, layout) {
            (CredentialKind::User, Layout::Hashes) => ScanStage::RefreshHash {
                refresh: RedisNames::expand_appid(&names.user_refresh_token, app.as_str())
                    .into_owned(),
                access: RedisNames::expand_appid(&names.user_access_token, app.as_str())
                    .into_owned(),
            },
            (CredentialKind::User, Layout::Keys) => {
                ScanStage::keys(names.user_key(app.as_str(), ""))
            }
            (CredentialKind::SnapshotUser, Layout::Hashes | Layout::Keys) => {
                ScanStage::keys(names.snapshot_key(app.as_str(), ""))
            }
            // An account has one record of each of these kinds, which callers address directly.
            (
                CredentialKind::AccountToken
                | CredentialKind::JsapiTicket
                | CredentialKind::ComponentToken,
                _,
            ) => ScanStage::Done,
        };
        Self {
            store,
            cursor: 0,
            stage,
            not_utf8: 0,
        }
    }

    /// Returns the number of fields or keys that the scan has found since the last call and whose
    /// names are not UTF-8. This crate writes no such names.
    pub(super) fn take_not_utf8(&mut self) -> u64 {
        std::mem::take(&mut self.not_utf8)
    }

    /// Returns the ids of the next users, or `None` at the end of the scan. A list may be empty
    /// before the end.
    pub(super) async fn next_batch(&mut self) -> Result<Option<Vec<String>>, Error> {
        let ids = match &mut self.stage {
            ScanStage::Done => return Ok(None),
            ScanStage::RefreshHash { refresh, .. } => {
                let ids = scan_hash(self.store, &mut self.cursor, refresh).await?;
                keep_utf8(ids, &mut self.not_utf8)
            }
            ScanStage::AccessHash { refresh, access } => {
                let ids = scan_hash(self.store, &mut self.cursor, access).await?;
                let ids = without_field(self.store, refresh, ids).await?;
                keep_utf8(ids, &mut self.not_utf8)
            }
            ScanStage::Keys { prefix, servers } => {
                let keys = scan_keys(self.store, &mut self.cursor, servers, prefix).await?;
                let keys = keep_utf8(keys, &mut self.not_utf8);
                let ids = keys
                    .iter()
                    .filter_map(|key| id_from_key(key, prefix))
                    .collect();
                if self.cursor == 0 && servers.advance(self.store).await? {
                    return Ok(Some(ids));
                }
                ids
            }
        };
        if self.cursor == 0 {
            self.stage = match std::mem::replace(&mut self.stage, ScanStage::Done) {
                ScanStage::RefreshHash { refresh, access } => {
                    ScanStage::AccessHash { refresh, access }
                }
                ScanStage::AccessHash { .. } | ScanStage::Keys { .. } | ScanStage::Done => {
                    ScanStage::Done
                }
            };
        }
        Ok(Some(ids))
    }
}

impl ScanStage {
    /// Returns the stage that scans the keys that start with `prefix`.
    fn keys(prefix: String) -> Self {
        Self::Keys {
            prefix,
            servers: ScanServers::default(),
        }
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
                "slots of the Redis Cluster have moved meanwhile, so some users may have been left \
                 out; run it again when the Cluster is at rest",
            ));
        }
        Ok(false)
    }
}

/// Returns the names that are UTF-8, and adds the number of all other names to `others`.
fn keep_utf8(names: Vec<Vec<u8>>, others: &mut u64) -> Vec<String> {
    let before = names.len();
    let names = names.into_iter().map(|name| String::from_utf8(name).ok());
    let names: Vec<String> = names.flatten().collect();
    *others += (before - names.len()) as u64;
    names
}

/// Returns the next fields of a hash, and sets the cursor for the next step.
async fn scan_hash(
    store: &RedisStore,
    cursor: &mut u64,
    hash: &str,
) -> Result<Vec<Vec<u8>>, Error> {
    let (next, fields) = store
        .scan_hash(hash.as_bytes(), *cursor, SCAN_COUNT)
        .await?;
    *cursor = next;
    Ok(fields.into_iter().map(|(id, _)| id).collect())
}

/// Returns those users for whom this hash has no field.
async fn without_field(
    store: &RedisStore,
    hash: &str,
    ids: Vec<Vec<u8>>,
) -> Result<Vec<Vec<u8>>, Error> {
    if ids.is_empty() {
        return Ok(ids);
    }
    let reads: Vec<_> = ids.iter().map(|id| Cmd::hexists(hash, id)).collect();
    let exists: Vec<bool> = store.read_all(&reads).await?;
    let missing = ids.into_iter().zip(exists).filter(|(_, exists)| !exists);
    Ok(missing.map(|(id, _)| id).collect())
}

/// Returns the next keys of the current server that start with `prefix`, and sets the cursor for
/// the next step.
async fn scan_keys(
    store: &RedisStore,
    cursor: &mut u64,
    servers: &mut ScanServers,
    prefix: &str,
) -> Result<Vec<Vec<u8>>, Error> {
    let mut scan = redis::cmd("SCAN");
    scan.arg(*cursor).arg("MATCH");
    scan.arg(format!("{}*", escape_pattern(prefix)));
    scan.arg("COUNT").arg(SCAN_COUNT);
    let server = servers.current(store).await?;
    let scanning = async {
        let reply = store.0.connection.command_on(server, &scan).await?;
        Ok(from_redis_value(reply)?)
    };
    let (next, keys): (u64, Vec<Vec<u8>>) = store.run_command(b"", scanning).await?;
    *cursor = next;
    Ok(keys)
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

/// Returns the user id that follows `prefix` in a key.
fn id_from_key(key: &str, prefix: &str) -> Option<String> {
    key.strip_prefix(prefix).map(unescape_braces)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::CredentialKey;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn user_ids_read_back_from_keys(id in "([%{}2579BD]{0,6}|.{1,20})a") {
            let app = AppId::new("wx1").unwrap();
            let credential = CredentialKey { app, kind: CredentialKind::User, id: id.as_str().into() };
            let names = RedisNames::default();
            let locations = names.locations(Layout::Keys, None, &credential);
            let key = &locations.read.keys[0].key;
            prop_assert_eq!(id_from_key(key, "wechat:wx1:user:"), Some(id));
        }
    }

    #[test]
    fn pattern_characters_are_escaped() {
        assert_eq!(escape_pattern("a*[b]?\\:"), "a\\*\\[b\\]\\?\\\\:");
    }
}
