//! R5: when not to ask WeChat. Back-off for each credential, a cool-down for the account.

use std::ops::Range;
use std::sync::PoisonError;
use std::time::Duration;

use super::sync::{Mutex, MutexGuard};
use crate::backoff::delay_after;
use crate::clock::Timestamp;
use crate::error::Error;

/// The pause after the first failed try; it doubles with each further one.
const MIN_BACK_OFF: Duration = Duration::from_millis(500);

/// The longest pause between two tries.
const MAX_BACK_OFF: Duration = Duration::from_secs(30);

/// How long an account rests after an error that only its operator can mend, unless the errcode
/// says more.
const OPEN_CIRCUIT_FOR: Duration = Duration::from_secs(30);

/// How many credentials in trouble are remembered. Forgetting one costs a call to WeChat.
const MAX_TRACKED_CREDENTIALS: usize = 10_000;

/// The pause after so many failures in a row, jittered by up to a quarter.
pub(super) fn back_off(failures: u32) -> Duration {
    delay_after(failures, MIN_BACK_OFF, MAX_BACK_OFF)
}

pub(super) struct FailureTracker {
    credentials: quick_cache::sync::Cache<Box<str>, Suppression>,
    account: Mutex<Option<Suppression>>,
}

#[derive(Clone)]
struct Suppression {
    failures: u32,
    /// From when until when. The start guards against a wall clock that is set back.
    since: Timestamp,
    until: Timestamp,
    error: Error,
}

impl Suppression {
    /// The error that began it, with the wait that is left, while it lasts.
    fn error_if_active(&self, now: Timestamp) -> Option<Error> {
        (self.since <= now && now < self.until).then(|| {
            self.error
                .clone_with_retry_after(now.duration_until(self.until))
        })
    }
}

impl Default for FailureTracker {
    fn default() -> Self {
        Self {
            credentials: quick_cache::sync::Cache::new(MAX_TRACKED_CREDENTIALS),
            account: Mutex::default(),
        }
    }
}

impl FailureTracker {
    /// Why WeChat is not asked for this credential now, if it is not.
    pub(super) fn active_error(&self, id: &str, now: Timestamp) -> Option<Error> {
        let of_account = self
            .lock_account()
            .as_ref()
            .and_then(|trouble| trouble.error_if_active(now));
        of_account.or_else(|| {
            self.credentials
                .get(id)
                .and_then(|trouble| trouble.error_if_active(now))
        })
    }

    /// How many tries for a credential have failed in a row.
    pub(super) fn failure_count(&self, id: &str) -> u32 {
        self.credentials
            .get(id)
            .map_or(0, |trouble| trouble.failures)
    }

    /// Notes that so many tries in a row have failed by now.
    pub(super) fn record_failure(&self, id: &str, failures: u32, error: &Error, now: Timestamp) {
        let wait = back_off(failures).max(error.retry_after().unwrap_or_default());
        self.insert(id, failures, error.clone(), now..now.saturating_add(wait));
    }

    /// Notes that asking again before `pause` is over would bring nothing new.
    pub(super) fn suppress(&self, id: &str, pause: Duration, error: Error, now: Timestamp) {
        self.insert(id, 0, error, now..now.saturating_add(pause));
    }

    fn insert(&self, id: &str, failures: u32, error: Error, period: Range<Timestamp>) {
        let trouble = Suppression {
            failures,
            since: period.start,
            until: period.end,
            error,
        };
        self.credentials.insert(id.into(), trouble);
    }

    /// Forgets the troubles of a credential: it has been renewed, or the user has logged in.
    pub(super) fn clear(&self, id: &str) {
        self.credentials.remove(id);
    }

    /// Rests the account. Answers whether the operator has been told, which is done once for each
    /// errcode that follows another and not with every request, and until when it rests.
    pub(super) fn open_circuit(&self, error: &Error, now: Timestamp) -> (bool, Timestamp) {
        let wait = OPEN_CIRCUIT_FOR.max(error.retry_after().unwrap_or_default());
        let mut account = self.lock_account();
        let was_logged = account.as_ref().is_some_and(|trouble| {
            trouble.error.errcode() == error.errcode() && was_logged_recently(trouble, now)
        });
        *account = Some(Suppression {
            failures: 1,
            since: now,
            until: now.saturating_add(wait),
            error: error.clone(),
        });
        (was_logged, now.saturating_add(wait))
    }

    /// Ends the account's rest: WeChat has granted something again.
    pub(super) fn close_circuit(&self) -> bool {
        self.lock_account().take().is_some()
    }

    fn lock_account(&self) -> MutexGuard<'_, Option<Suppression>> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A cool-down that ended ten cool-downs ago is history: the same cause is then told again.
fn was_logged_recently(suppression: &Suppression, now: Timestamp) -> bool {
    now < suppression.until.saturating_add(OPEN_CIRCUIT_FOR * 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn error(errcode: i64) -> Error {
        Error::new(ErrorKind::WechatConfig, "no").with_errcode(errcode, None)
    }

    #[test]
    fn each_errcode_is_logged_once_for_the_operator() {
        let troubles = FailureTracker::default();
        let now = Timestamp::from_millis(0);
        assert!(!troubles.open_circuit(&error(40125), now).0);
        assert!(
            troubles
                .open_circuit(&error(40125), now.saturating_add(Duration::from_secs(31)))
                .0
        );
        assert!(
            !troubles
                .open_circuit(&error(40164), now.saturating_add(Duration::from_secs(62)))
                .0
        );
        assert!(
            troubles
                .active_error("anybody", now.saturating_add(Duration::from_secs(91)))
                .is_some()
        );
        assert!(
            troubles
                .active_error("anybody", now.saturating_add(Duration::from_secs(93)))
                .is_none()
        );
    }

    #[test]
    fn a_clock_set_back_does_not_prolong_an_open_circuit() {
        let troubles = FailureTracker::default();
        let now = Timestamp::from_millis(600_000);
        troubles.open_circuit(&error(40125), now);
        troubles.record_failure("u", 1, &error(-1), now);
        let before = now.saturating_sub(Duration::from_secs(60));
        assert!(troubles.active_error("u", before).is_none());
    }

    #[test]
    fn retry_after_of_wechat_overrides_a_shorter_back_off() {
        let troubles = FailureTracker::default();
        let now = Timestamp::from_millis(0);
        let asked = error(45011).with_retry_after(Duration::from_secs(60));
        troubles.record_failure("u", 1, &asked, now);
        let left = troubles
            .active_error("u", now.saturating_add(Duration::from_secs(20)))
            .unwrap();
        assert_eq!(left.retry_after(), Some(Duration::from_secs(40)));
        troubles.clear("u");
        assert!(troubles.active_error("u", now).is_none());
    }
}
