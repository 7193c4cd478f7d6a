//! Users' profiles: fetched once, remembered for a while.

use std::sync::Arc;
use std::time::Duration;

use quick_cache::sync::{Cache, EntryAction, EntryResult};

use super::UserTokens;
use crate::clock::{Clock, Timestamp};
use crate::credential::UserId;
use crate::error::{Error, ErrorKind};
use crate::wechat::{Language, UserInfo};

/// How long a profile is believed. People change their avatar now and then, and the old one's URL
/// dies with that.
const LIFETIME: Duration = Duration::from_secs(10 * 60);

/// How many profiles a process remembers; the least used leave first.
const CAPACITY: usize = 10_000;

/// The profiles that this process remembers.
pub(super) struct Profiles {
    entries: Cache<String, Entry>,
    clock: Clock,
}

#[derive(Clone)]
struct Entry {
    profile: Arc<UserInfo>,
    since: Timestamp,
}

impl Profiles {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            entries: Cache::new(CAPACITY),
            clock,
        }
    }

    /// However many ask for one profile at once, WeChat is asked once.
    pub(super) async fn get(
        &self,
        users: &UserTokens,
        user: &UserId,
        wait: Duration,
    ) -> Result<Arc<UserInfo>, Error> {
        let found = async {
            let believed = |_: &String, entry: &mut Entry| {
                let now = self.clock.now();
                if entry.since <= now && now < entry.since.after(LIFETIME) {
                    EntryAction::Retain(Arc::clone(&entry.profile))
                } else {
                    EntryAction::ReplaceWithGuard
                }
            };
            match self.entries.entry_async(user.as_str(), believed).await {
                EntryResult::Retained(profile) => Ok(profile),
                EntryResult::Vacant(guard) | EntryResult::Replaced(guard, _) => {
                    // A guard that is dropped on the way lets the next one in line ask.
                    let profile = Arc::new(fetch(users, user).await?);
                    let entry = Entry {
                        profile: Arc::clone(&profile),
                        since: self.clock.now(),
                    };
                    // Somebody may have forgotten the user meanwhile: then nothing is kept.
                    let _ = guard.insert(entry);
                    Ok(profile)
                }
                _ => fetch(users, user).await.map(Arc::new),
            }
        };
        tokio::time::timeout(wait, found).await.unwrap_or_else(|_| {
            let text = format!("no profile came within {wait:?}");
            Err(Error::new(ErrorKind::WechatUnavailable, text))
        })
    }

    pub(super) fn forget(&self, user: &str) {
        self.entries.remove(user);
    }
}

async fn fetch(users: &UserTokens, user: &UserId) -> Result<UserInfo, Error> {
    users
        .with_token(user, async |token| {
            // A pair that another service has written may not tell the openid: then it is the id.
            let openid = token.openid().unwrap_or(token.user_id());
            users
                .wechat()
                .user_info(token.access_token(), openid, Language::ZhCn)
                .await
        })
        .await
}
