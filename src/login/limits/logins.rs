//! Limit of the logins of one user, for browsers without cookies that could count them.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use quick_cache::sync::Cache;

use crate::clock::Timestamp;
use crate::login::cookies::LOOP_WINDOW_SECONDS;
use crate::login::state::unix_seconds;

/// Maximum number of users whose logins are counted. The least active users are evicted first.
const MAX_TRACKED_USERS: usize = 10_000;

/// Counts the logins of each user within windows of a minute.
pub(in crate::login) struct LoginLimiter(Cache<String, Arc<Mutex<LoginCount>>>);

#[derive(Default)]
struct LoginCount {
    window_start: u64,
    logins: usize,
}

impl LoginLimiter {
    /// Creates a limiter that has counted nothing.
    pub(in crate::login) fn new() -> Self {
        Self(Cache::new(MAX_TRACKED_USERS))
    }

    /// Counts a login, and returns the user's logins within this window, this login included.
    ///
    /// If the cache evicts an entry while a thread holds its lock, that thread counts into the
    /// evicted entry, and the user's count starts over.
    pub(in crate::login) fn count_login(&self, user: &str, now: Timestamp) -> usize {
        let now = unix_seconds(now);
        let Ok(count) = self
            .0
            .get_or_insert_with(user, || Ok::<_, Infallible>(Arc::default()));
        let mut count = count.lock().unwrap_or_else(PoisonError::into_inner);
        // The lower bound handles wall clocks that are set back.
        if !(count.window_start <= now
            && now < count.window_start.saturating_add(LOOP_WINDOW_SECONDS))
        {
            *count = LoginCount {
                window_start: now,
                logins: 0,
            };
        }
        count.logins = count.logins.saturating_add(1);
        count.logins
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn count_restarts_after_a_minute() {
        let (limiter, now) = (LoginLimiter::new(), Timestamp::from_millis(1_000_000));
        assert_eq!(limiter.count_login("a", now), 1);
        assert_eq!(
            limiter.count_login("a", now.saturating_add(Duration::from_secs(59))),
            2
        );
        assert_eq!(limiter.count_login("b", now), 1);
        assert_eq!(
            limiter.count_login("a", now.saturating_add(Duration::from_secs(60))),
            1
        );
    }

    #[test]
    fn counts_concurrent_logins() {
        let (limiter, now) = (LoginLimiter::new(), Timestamp::from_millis(1_000_000));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        limiter.count_login("a", now);
                    }
                });
            }
        });
        assert_eq!(limiter.count_login("a", now), 8 * 500 + 1);
    }
}
