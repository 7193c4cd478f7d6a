//! Count of each user's logins within a minute, for browsers without the state cookie. For all
//! other browsers, the login cookies contain that count.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use quick_cache::sync::Cache;

use crate::clock::Timestamp;
use crate::login::cookies::LOOP_WINDOW_SECONDS;
use crate::login::state::unix_seconds;

/// Maximum number of users whose logins are counted: 10,000. Above this number, the count of a user
/// may start at zero again.
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

    /// Counts a login, and returns the number of the user's logins in the current window of a
    /// minute, this login included.
    ///
    /// If the cache evicts a user's entry while a thread holds the entry's lock, that thread counts
    /// into the evicted entry. The user's count then starts at zero again.
    pub(in crate::login) fn count_login(&self, user: &str, now: Timestamp) -> usize {
        let now = unix_seconds(now);
        let Ok(count) = self
            .0
            .get_or_insert_with(user, || Ok::<_, Infallible>(Arc::default()));
        let mut count = count.lock().unwrap_or_else(PoisonError::into_inner);
        // If the wall clock was set back, the start of the window is in the future, and a new
        // window begins.
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
