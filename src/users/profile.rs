//! Cache of users' profiles.

use std::sync::Arc;
use std::time::Duration;

use quick_cache::sync::{Cache, EntryAction, EntryResult};

use crate::clock::{Clock, Timestamp};
use crate::error::{Error, ErrorKind};
use crate::wechat::UserInfo;

/// Maximum time for which a cached profile is served: ten minutes. A user may change the avatar at
/// any time, and the URL of the old avatar then stops working.
const PROFILE_TTL: Duration = Duration::from_secs(10 * 60);

/// Maximum number of cached profiles: 10,000. This number bounds the memory; a full cache evicts
/// the least used profiles.
const PROFILE_CACHE_CAPACITY: usize = 10_000;

/// Profiles in the memory of this process, by user id.
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

    /// Returns the profile from memory, or fetches it, within `timeout`.
    ///
    /// The first caller that finds no current profile gets the guard of the entry and fetches. The
    /// other callers wait for the guard. The guard has three ends:
    ///
    /// - **Inserted**: the fetch succeeded. The waiting callers receive the profile.
    /// - **Dropped**: the fetch failed, or its caller stopped waiting. The next waiting caller gets
    ///   the guard.
    /// - **Void**: [`remove`](Self::remove) removed the entry during the fetch. The caller receives
    ///   the profile, and the cache does not keep it.
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
                    // An error drops the guard here, and so wakes the next waiting caller.
                    let profile = Arc::new(fetch().await?);
                    let entry = CachedProfile {
                        profile: Arc::clone(&profile),
                        fetched_at: self.clock.now(),
                    };
                    // The insertion fails if a login or a logout has removed the entry during the
                    // fetch. The profile may be older than that login or logout.
                    let _ = guard.insert(entry);
                    Ok(profile)
                }
                // `quick_cache` does not return other results for the two actions above. Any other
                // result leads to a fetch without the cache.
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

    /// Sets the profile of a test's user.
    #[cfg(all(feature = "testing", debug_assertions))]
    pub(super) fn insert(&self, user: &str, profile: Arc<UserInfo>) {
        let fetched_at = self.clock.now();
        let entry = CachedProfile {
            profile,
            fetched_at,
        };
        self.entries.insert(user.to_owned(), entry);
    }

    /// Removes the user's profile. The result of a running fetch is not cached.
    pub(super) fn remove(&self, user: &str) {
        self.entries.remove(user);
    }
}
