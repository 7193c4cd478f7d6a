//! Scans of all users of an account in small steps.

use redis::Cmd;

use super::super::key_names::unescape_braces;
use super::super::key_scan::{KeyScan, SCAN_COUNT};
use super::super::layout::RedisNames;
use super::super::{Layout, RedisStore};
use crate::credential::AppId;
use crate::error::Error;
use crate::store::CredentialKind;

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
    /// Scans the keys that start with one text and end with another.
    Keys(KeyScan),
    /// The scan has ended.
    Done,
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
                ScanStage::Keys(KeyScan::new(names.user_key(app.as_str(), ""), ""))
            }
            (CredentialKind::SnapshotUser, Layout::Hashes | Layout::Keys) => {
                ScanStage::Keys(KeyScan::new(names.snapshot_key(app.as_str(), ""), ""))
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

    /// Creates a scan of all keys that start with `prefix` and end with `suffix`. The scan returns
    /// what stands between the two.
    pub(super) fn of_keys(store: &'a RedisStore, prefix: String, suffix: &str) -> Self {
        Self {
            store,
            cursor: 0,
            stage: ScanStage::Keys(KeyScan::new(prefix, suffix)),
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
            ScanStage::Keys(scan) => {
                let Some(keys) = scan.next_batch(self.store).await? else {
                    self.stage = ScanStage::Done;
                    return Ok(None);
                };
                let keys = keep_utf8(keys, &mut self.not_utf8);
                let ids = keys
                    .iter()
                    .filter_map(|key| scan.between(key))
                    .map(unescape_braces);
                return Ok(Some(ids.collect()));
            }
        };
        if self.cursor == 0 {
            self.stage = match std::mem::replace(&mut self.stage, ScanStage::Done) {
                ScanStage::RefreshHash { refresh, access } => {
                    ScanStage::AccessHash { refresh, access }
                }
                ScanStage::AccessHash { .. } | ScanStage::Keys(_) | ScanStage::Done => {
                    ScanStage::Done
                }
            };
        }
        Ok(Some(ids))
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
            let scan = KeyScan::new("wechat:wx1:user:".to_owned(), "");
            prop_assert_eq!(scan.between(key).map(unescape_braces), Some(id));
        }
    }
}
