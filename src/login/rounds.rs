//! How often users are logged in again, where no cookie can count it.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use quick_cache::sync::Cache;

use super::cookies::WINDOW;
use super::state::seconds;
use crate::clock::Timestamp;

/// How many users are counted at once; the least active leave first.
const CAPACITY: usize = 10_000;

/// Counts the logins of each user within windows of a minute.
pub(super) struct Rounds(Cache<String, Arc<Mutex<Round>>>);

#[derive(Default)]
struct Round {
    since: u64,
    logins: usize,
}

impl Rounds {
    pub(super) fn new() -> Self {
        Self(Cache::new(CAPACITY))
    }

    /// How often the user has been logged in within this window, this time included.
    pub(super) fn another(&self, user: &str, now: Timestamp) -> usize {
        let now = seconds(now);
        let Ok(round) = self
            .0
            .get_or_insert_with(user, || Ok::<_, Infallible>(Arc::default()));
        let mut round = round.lock().unwrap_or_else(PoisonError::into_inner);
        // The lower bound is for wall clocks that are set back.
        if !(round.since <= now && now < round.since.saturating_add(WINDOW)) {
            *round = Round {
                since: now,
                logins: 0,
            };
        }
        round.logins = round.logins.saturating_add(1);
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

    #[test]
    fn nobody_is_left_out_of_the_count_however_many_come_at_once() {
        let (rounds, now) = (Rounds::new(), Timestamp::from_millis(1_000_000));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        rounds.another("a", now);
                    }
                });
            }
        });
        assert_eq!(rounds.another("a", now), 8 * 500 + 1);
    }
}
