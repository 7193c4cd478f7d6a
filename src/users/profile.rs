//! Users' profiles: fetched once, remembered for a while.

use std::sync::Arc;
use std::time::Duration;

use quick_cache::sync::{Cache, EntryAction, EntryResult};

use crate::clock::{Clock, Timestamp};
use crate::error::{Error, ErrorKind};
use crate::wechat::UserInfo;

/// How long a profile is believed. People change their avatar now and then, and the old one's URL
/// dies with that.
const PROFILE_TTL: Duration = Duration::from_secs(10 * 60);

/// How many profiles a process remembers; the least used leave first.
const PROFILE_CACHE_CAPACITY: usize = 10_000;

/// The profiles that this process remembers.
pub(super) struct ProfileCache {
    entries: Cache<String, CachedProfile>,
    clock: Clock,
}

#[derive(Clone)]
struct CachedProfile {
    profile: Arc<UserInfo>,
    fetched_at: Timestamp,
}

impl ProfileCache {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            entries: Cache::new(PROFILE_CACHE_CAPACITY),
            clock,
        }
    }

    /// Returns the profile from memory, or fetches it. Concurrent calls for one user share a fetch;
    /// only if the cache cannot lock the entry does each of them fetch.
    pub(super) async fn get_or_fetch(
        &self,
        user: &str,
        fetch: impl AsyncFnOnce() -> Result<UserInfo, Error>,
        timeout: Duration,
    ) -> Result<Arc<UserInfo>, Error> {
        let found = async {
            let retain_if_current = |_: &String, entry: &mut CachedProfile| {
                let now = self.clock.now();
                if entry.fetched_at <= now && now < entry.fetched_at.saturating_add(PROFILE_TTL) {
                    EntryAction::Retain(Arc::clone(&entry.profile))
                } else {
                    EntryAction::ReplaceWithGuard
                }
            };
            match self.entries.entry_async(user, retain_if_current).await {
                EntryResult::Retained(profile) => Ok(profile),
                EntryResult::Vacant(guard) | EntryResult::Replaced(guard, _) => {
                    // A guard that is dropped on the way lets the next one in line ask.
                    let profile = Arc::new(fetch().await?);
                    let entry = CachedProfile {
                        profile: Arc::clone(&profile),
                        fetched_at: self.clock.now(),
                    };
                    // Somebody may have forgotten the user meanwhile: then nothing is kept.
                    let _ = guard.insert(entry);
                    Ok(profile)
                }
                _ => fetch().await.map(Arc::new),
            }
        };
        tokio::time::timeout(timeout, found)
            .await
            .unwrap_or_else(|_| {
                let text = format!("no profile came within {timeout:?}");
                Err(Error::new(ErrorKind::WechatUnavailable, text))
            })
    }

    pub(super) fn remove(&self, user: &str) {
        self.entries.remove(user);
    }
}
