//! Suppression of calls to WeChat: back-off for each credential, a circuit for the account
//! (failures sorted).
//!
//! # States of the account's circuit
//!
//! - Closed: calls are allowed. An error that only the operator can fix opens the circuit.
//! - Open: calls fail with the error that opened the circuit, for 30 seconds or for the
//!   `retry_after` of the error if that is longer. Calls are then allowed again. A further operator
//!   error opens the circuit again, and a granted credential closes the circuit.
//!
//! An errcode that opens the circuit is logged once. The errcode is logged again after one of these
//! events: WeChat granted a credential, another errcode opened the circuit, or the circuit was not
//! open for five minutes.

use std::ops::Range;
use std::sync::PoisonError;
use std::time::Duration;

use super::sync::{Mutex, MutexGuard};
use crate::backoff::delay_after;
use crate::clock::Timestamp;
use crate::error::Error;

/// Wait after the first failure of a credential: half a second. The wait doubles with each further
/// failure, and jitter shortens it by up to a quarter.
const MIN_BACK_OFF: Duration = Duration::from_millis(500);

/// Maximum back-off after a failure of a credential: 30 seconds, so that renewals resume soon after
/// an outage. A longer `retry_after` of the error replaces the back-off.
const MAX_BACK_OFF: Duration = Duration::from_secs(30);

/// Minimum time for which the circuit of an account stays open: 30 seconds. If the error has a
/// longer `retry_after`, the circuit stays open for that time.
const OPEN_CIRCUIT_FOR: Duration = Duration::from_secs(30);

/// Maximum number of credentials whose failures are tracked: 10,000. The maximum bounds the memory.
/// A credential that was evicted costs one more call to WeChat.
const MAX_TRACKED_CREDENTIALS: usize = 10_000;

/// Returns the wait after this number of consecutive failures. Jitter shortens the wait by up to a
/// quarter.
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
    /// Start of the suppression. A time before the start means that the wall clock was set back,
    /// and the suppression then has no effect.
    since: Timestamp,
    until: Timestamp,
    error: Error,
}

impl Suppression {
    /// Returns the error while the suppression lasts. The `retry_after` of the error is the
    /// remaining time. Returns `None` before and after the suppression.
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
    /// Returns the error that suppresses calls to WeChat for this credential: the error of the open
    /// circuit, or else of the credential's own back-off. Returns `None` if calls are allowed.
    pub(super) fn active_error(&self, id: &str, now: Timestamp) -> Option<Error> {
        let account_error = self
            .lock_account()
            .as_ref()
            .and_then(|suppression| suppression.error_if_active(now));
        account_error.or_else(|| {
            self.credentials
                .get(id)
                .and_then(|suppression| suppression.error_if_active(now))
        })
    }

    /// Returns the number of consecutive failures of a credential. Zero means that no failure is
    /// recorded.
    pub(super) fn failure_count(&self, id: &str) -> u32 {
        self.credentials
            .get(id)
            .map_or(0, |suppression| suppression.failures)
    }

    /// Records the number of consecutive failures of a credential. Suppresses further calls to
    /// WeChat for the back-off after this number, or for the `retry_after` of the error if that is
    /// longer.
    pub(super) fn record_failure(&self, id: &str, failures: u32, error: &Error, now: Timestamp) {
        let wait = back_off(failures).max(error.retry_after().unwrap_or_default());
        self.insert(id, failures, error.clone(), now..now.saturating_add(wait));
    }

    /// Suppresses calls to WeChat for a credential during `pause`, and sets its number of failures
    /// to zero. The caller uses this function if another call would have the same result.
    pub(super) fn suppress(&self, id: &str, pause: Duration, error: Error, now: Timestamp) {
        self.insert(id, 0, error, now..now.saturating_add(pause));
    }

    fn insert(&self, id: &str, failures: u32, error: Error, period: Range<Timestamp>) {
        let suppression = Suppression {
            failures,
            since: period.start,
            until: period.end,
            error,
        };
        self.credentials.insert(id.into(), suppression);
    }

    /// Removes the suppression and the number of failures of a credential, after a renewal or a
    /// login.
    pub(super) fn clear(&self, id: &str) {
        self.credentials.remove(id);
    }

    /// Opens the circuit of the account. Returns two values: `true` if the errcode was logged
    /// recently, so that it needs no second log entry, and the end of the open period.
    pub(super) fn open_circuit(&self, error: &Error, now: Timestamp) -> (bool, Timestamp) {
        let wait = OPEN_CIRCUIT_FOR.max(error.retry_after().unwrap_or_default());
        let mut account = self.lock_account();
        let was_logged = account.as_ref().is_some_and(|suppression| {
            suppression.error.errcode() == error.errcode() && was_logged_recently(suppression, now)
        });
        *account = Some(Suppression {
            failures: 1,
            since: now,
            until: now.saturating_add(wait),
            error: error.clone(),
        });
        (was_logged, now.saturating_add(wait))
    }

    /// Closes the circuit after WeChat granted a credential. Returns `true` if an error had opened
    /// the circuit since the last grant, even if calls were allowed again.
    pub(super) fn close_circuit(&self) -> bool {
        self.lock_account().take().is_some()
    }

    fn lock_account(&self) -> MutexGuard<'_, Option<Suppression>> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns `true` if the suppression is active or ended within the last five minutes.
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
        let tracker = FailureTracker::default();
        let now = Timestamp::from_millis(0);
        assert!(!tracker.open_circuit(&error(40125), now).0);
        assert!(
            tracker
                .open_circuit(&error(40125), now.saturating_add(Duration::from_secs(31)))
                .0
        );
        assert!(
            !tracker
                .open_circuit(&error(40164), now.saturating_add(Duration::from_secs(62)))
                .0
        );
        assert!(
            tracker
                .active_error("anybody", now.saturating_add(Duration::from_secs(91)))
                .is_some()
        );
        assert!(
            tracker
                .active_error("anybody", now.saturating_add(Duration::from_secs(93)))
                .is_none()
        );
    }

    #[test]
    fn a_clock_set_back_does_not_prolong_an_open_circuit() {
        let tracker = FailureTracker::default();
        let now = Timestamp::from_millis(600_000);
        tracker.open_circuit(&error(40125), now);
        tracker.record_failure("u", 1, &error(-1), now);
        let before = now.saturating_sub(Duration::from_secs(60));
        assert!(tracker.active_error("u", before).is_none());
    }

    #[test]
    fn retry_after_of_wechat_overrides_a_shorter_back_off() {
        let tracker = FailureTracker::default();
        let now = Timestamp::from_millis(0);
        let asked = error(45011).with_retry_after(Duration::from_secs(60));
        tracker.record_failure("u", 1, &asked, now);
        let left = tracker
            .active_error("u", now.saturating_add(Duration::from_secs(20)))
            .unwrap();
        assert_eq!(left.retry_after(), Some(Duration::from_secs(40)));
        tracker.clear("u");
        assert!(tracker.active_error("u", now).is_none());
    }
}
