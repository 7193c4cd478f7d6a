//! How often users are logged in again, where no cookie can count it.

use quick_cache::sync::Cache;

use super::state::seconds;
use crate::clock::Timestamp;

/// How many users are counted at once; the least active leave first.
const CAPACITY: usize = 10_000;

/// Counts the logins of each user within windows of a minute.
pub(super) struct Rounds(Cache<Box<str>, Round>);

#[derive(Clone, Copy)]
struct Round {
    since: u64,
    logins: usize,
}

impl Rounds {
    /// Within which time a browser's restarts and logins are counted against loops, in seconds.
    pub(super) const WINDOW: u64 = 60;

    pub(super) fn new() -> Self {
        Self(Cache::new(CAPACITY))
    }

    /// How often the user has been logged in within this window, this time included.
    pub(super) fn another(&self, user: &str, now: Timestamp) -> usize {
        let now = seconds(now);
        let current = self.0.get(user).filter(|round| {
            // The lower bound is for wall clocks that are set back.
            round.since <= now && now < round.since.saturating_add(Self::WINDOW)
        });
        let mut round = current.unwrap_or(Round {
            since: now,
            logins: 0,
        });
        round.logins += 1;
        self.0.insert(user.into(), round);
        round.logins
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_minute_later_the_count_begins_anew() {
        let (rounds, now) = (Rounds::new(), Timestamp::from_millis(1_000_000));
        assert_eq!(rounds.another("a", now), 1);
        assert_eq!(rounds.another("a", now.after(Duration::from_secs(59))), 2);
        assert_eq!(rounds.another("b", now), 1);
        assert_eq!(rounds.another("a", now.after(Duration::from_secs(60))), 1);
    }
}
