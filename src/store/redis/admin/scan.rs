//! Going through all users of an account without holding them.

use std::collections::BTreeMap;

use redis::{Cmd, from_redis_value};

use super::super::layout::RedisNames;
use super::super::{Layout, RedisStore};
use crate::credential::AppId;
use crate::error::Error;
use crate::store::CredentialKind;

/// How many users one step brings, about: a few hundred microseconds of Redis's time.
const SCAN_COUNT: usize = 200;

/// A user id and what a hash holds for it.
type HashField = (Vec<u8>, Vec<u8>);

/// A walk. A user may come twice when Redis moves its tables meanwhile, and none is left out who is
/// there from the beginning to the end.
pub(super) struct Scan<'a> {
    store: &'a RedisStore,
    cursor: u64,
    stage: ScanStage,
    /// How many names were not UTF-8 since somebody asked.
    not_utf8: u64,
}

enum ScanStage {
    /// Users by their refresh tokens, with the other hash to look into then.
    RefreshHash {
        refresh: String,
        access: String,
    },
    /// Users who have an access token only.
    AccessHash {
        refresh: String,
        access: String,
    },
    /// Users by their keys, which begin like this.
    Keys {
        prefix: String,
        servers: ScanServers,
    },
    Done,
}

/// The servers that have keys, one after another.
#[derive(Default)]
enum ScanServers {
    #[default]
    Unknown,
    /// There is one.
    Single,
    Primaries {
        slots_at_start: BTreeMap<String, String>,
        /// Those that were not gone through yet; the last one is being.
        remaining: Vec<String>,
    },
}

impl<'a> Scan<'a> {
    /// Through the users of a kind in a layout.
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
            (CredentialKind::User, Layout::Keys) => ScanStage::keys(names, app, "user"),
            (CredentialKind::SnapshotUser, Layout::Hashes | Layout::Keys) => {
                ScanStage::keys(names, app, "snapshot")
            }
            // An account has one record of each of these kinds, which callers address directly.
            (CredentialKind::AccountToken | CredentialKind::JsapiTicket, _) => ScanStage::Done,
        };
        Self {
            store,
            cursor: 0,
            stage,
            not_utf8: 0,
        }
    }

    /// How many fields or keys of the users that were brought since the last call have names that
    /// are not UTF-8: users of this crate have none of them.
    pub(super) fn take_not_utf8(&mut self) -> u64 {
        std::mem::take(&mut self.not_utf8)
    }

    /// The next users; an empty list is not the end.
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
            ScanStage::Keys {
                prefix: begin,
                servers,
            } => {
                let keys = scan_keys(self.store, &mut self.cursor, servers, begin).await?;
                let keys = keep_utf8(keys, &mut self.not_utf8);
                let ids = keys
                    .iter()
                    .filter_map(|key| id_from_key(key, begin))
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
    /// Returns the stage that scans the keys of one kind of users.
    fn keys(names: &RedisNames, app: &AppId, kind: &str) -> Self {
        Self::Keys {
            prefix: format!("{}{app}:{kind}:", names.prefix),
            servers: ScanServers::default(),
        }
    }
}

impl ScanServers {
    /// The primary that is gone through, where there are several.
    async fn current(&mut self, store: &RedisStore) -> Result<Option<&str>, Error> {
        if matches!(self, Self::Unknown) {
            let at_first = store
                .run_command(b"", store.0.connection.primaries())
                .await?;
            *self = match at_first.is_empty() {
                true => Self::Single,
                false => Self::Primaries {
                    remaining: at_first.keys().cloned().collect(),
                    slots_at_start: at_first,
                },
            };
        }
        Ok(match self {
            Self::Unknown | Self::Single => None,
            Self::Primaries {
                remaining: left, ..
            } => left.last().map(String::as_str),
        })
    }

    /// Goes on to the next one. When there is none: a slot that went from a server that was still
    /// to come to one that had been gone through has been left out, and that must be told.
    async fn advance(&mut self, store: &RedisStore) -> Result<bool, Error> {
        let Self::Primaries {
            slots_at_start: at_first,
            remaining: left,
        } = self
        else {
            return Ok(false);
        };
        left.pop();
        if !left.is_empty() {
            return Ok(true);
        }
        let at_last = store
            .run_command(b"", store.0.connection.primaries())
            .await?;
        // Slots in brackets are under way.
        if *at_first != at_last || at_last.values().any(|slots| slots.contains('[')) {
            return Err(Error::store_unavailable(
                "slots of the Redis Cluster have moved meanwhile, so some users may have been left \
                 out; run it again when the Cluster is at rest",
            ));
        }
        Ok(false)
    }
}

/// Those that are UTF-8; the others are counted.
fn keep_utf8(names: Vec<Vec<u8>>, others: &mut u64) -> Vec<String> {
    let before = names.len();
    let names = names.into_iter().map(|name| String::from_utf8(name).ok());
    let names: Vec<String> = names.flatten().collect();
    *others += (before - names.len()) as u64;
    names
}

async fn scan_hash(
    store: &RedisStore,
    cursor: &mut u64,
    hash: &str,
) -> Result<Vec<Vec<u8>>, Error> {
    let mut scan = redis::cmd("HSCAN");
    scan.arg(hash).arg(*cursor).arg("COUNT").arg(SCAN_COUNT);
    let (next, fields): (u64, Vec<HashField>) = store.command(&scan).await?;
    *cursor = next;
    Ok(fields.into_iter().map(|(id, _)| id).collect())
}

/// Those of whom this hash has no field.
async fn without_field(
    store: &RedisStore,
    hash: &str,
    ids: Vec<Vec<u8>>,
) -> Result<Vec<Vec<u8>>, Error> {
    if ids.is_empty() {
        return Ok(ids);
    }
    let ask: Vec<_> = ids.iter().map(|id| Cmd::hexists(hash, id)).collect();
    let there: Vec<bool> = store.read_all(&ask).await?;
    let alone = ids.into_iter().zip(there).filter(|(_, there)| !there);
    Ok(alone.map(|(id, _)| id).collect())
}

async fn scan_keys(
    store: &RedisStore,
    cursor: &mut u64,
    servers: &mut ScanServers,
    begin: &str,
) -> Result<Vec<Vec<u8>>, Error> {
    let mut scan = redis::cmd("SCAN");
    scan.arg(*cursor).arg("MATCH");
    scan.arg(format!("{}*", escape_pattern(begin)));
    scan.arg("COUNT").arg(SCAN_COUNT);
    let server = servers.current(store).await?;
    let scanning = async {
        let answer = store.0.connection.command_on(server, &scan).await?;
        Ok(from_redis_value(answer)?)
    };
    let (next, keys): (u64, Vec<Vec<u8>>) = store.run_command(b"", scanning).await?;
    *cursor = next;
    Ok(keys)
}

/// A pattern that stands for this text alone.
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

/// The user id at the end of a key: what the names of keys escape, taken back.
fn id_from_key(key: &str, begin: &str) -> Option<String> {
    let id = key.strip_prefix(begin)?;
    let id = id.replace("%7B", "{").replace("%7D", "}");
    Some(id.replace("%25", "%"))
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
            let name = CredentialKey { app, kind: CredentialKind::User, id: id.as_str().into() };
            let names = RedisNames::default();
            let places = names.locations(Layout::Keys, None, &name);
            let key = &places.read.keys[0].key;
            prop_assert_eq!(id_from_key(key, "wechat:wx1:user:"), Some(id));
        }
    }

    #[test]
    fn pattern_characters_are_escaped() {
        assert_eq!(escape_pattern("a*[b]?\\:"), "a\\*\\[b\\]\\?\\\\:");
    }
}
