//! R5: when not to ask WeChat. Back-off for each credential, a cool-down for the account.

use std::ops::Range;
use std::sync::PoisonError;
use std::time::Duration;

use super::sync::{Mutex, MutexGuard};
use crate::clock::Timestamp;
use crate::error::Error;

/// The pause after the first failed try; it doubles with each further one.
const FIRST_BACK_OFF: Duration = Duration::from_millis(500);

/// The longest pause between two tries.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(30);

/// How long an account rests after an error that only its operator can mend, unless the errcode
/// says more.
const COOL_DOWN: Duration = Duration::from_secs(30);

/// How many credentials in trouble are remembered. Forgetting one costs a call to WeChat.
const REMEMBERED: usize = 10_000;

/// The pause after so many failures in a row, jittered by up to a quarter.
pub(super) fn back_off(failures: u32) -> Duration {
    let doubled = FIRST_BACK_OFF.saturating_mul(1 << failures.saturating_sub(1).min(10));
    doubled
        .min(LONGEST_BACK_OFF)
        .mul_f64(1.0 - 0.25 * fastrand::f64())
}

pub(super) struct Troubles {
    credentials: quick_cache::sync::Cache<Box<str>, Trouble>,
    account: Mutex<Option<Trouble>>,
}

#[derive(Clone)]
struct Trouble {
    failures: u32,
    /// From when until when. The start guards against a wall clock that is set back.
    since: Timestamp,
    until: Timestamp,
    error: Error,
}

impl Trouble {
    /// The error that began it, with the wait that is left, while it lasts.
    fn active(&self, now: Timestamp) -> Option<Error> {
        (self.since <= now && now < self.until)
            .then(|| self.error.retrying_after(now.until(self.until)))
    }
}

impl Default for Troubles {
    fn default() -> Self {
        Self {
            credentials: quick_cache::sync::Cache::new(REMEMBERED),
            account: Mutex::default(),
        }
    }
}

impl Troubles {
    /// Why WeChat is not asked for this credential now, if it is not.
    pub(super) fn active(&self, id: &str, now: Timestamp) -> Option<Error> {
        let of_account = self
            .account()
            .as_ref()
            .and_then(|trouble| trouble.active(now));
        of_account.or_else(|| {
            self.credentials
                .get(id)
                .and_then(|trouble| trouble.active(now))
        })
    }

    /// How many tries for a credential have failed in a row.
    pub(super) fn failures(&self, id: &str) -> u32 {
        self.credentials
            .get(id)
            .map_or(0, |trouble| trouble.failures)
    }

    /// Notes that so many tries in a row have failed by now.
    pub(super) fn failed(&self, id: &str, failures: u32, error: &Error, now: Timestamp) {
        let wait = back_off(failures).max(error.retry_after().unwrap_or_default());
        self.note(id, failures, error.clone(), now..now.after(wait));
    }

    /// Notes that asking again before `pause` is over would bring nothing new.
    pub(super) fn pause(&self, id: &str, pause: Duration, why: Error, now: Timestamp) {
        self.note(id, 0, why, now..now.after(pause));
    }

    fn note(&self, id: &str, failures: u32, error: Error, lasting: Range<Timestamp>) {
        let trouble = Trouble {
            failures,
            since: lasting.start,
            until: lasting.end,
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
    pub(super) fn cool_down(&self, error: &Error, now: Timestamp) -> (bool, Timestamp) {
        let wait = COOL_DOWN.max(error.retry_after().unwrap_or_default());
        let mut account = self.account();
        let told = account.as_ref().is_some_and(|trouble| {
            trouble.error.errcode() == error.errcode() && told_lately(trouble, now)
        });
        *account = Some(Trouble {
            failures: 1,
            since: now,
            until: now.after(wait),
            error: error.clone(),
        });
        (told, now.after(wait))
    }

    /// Ends the account's rest: WeChat has granted something again.
    pub(super) fn granted(&self) -> bool {
        self.account().take().is_some()
    }

    fn account(&self) -> MutexGuard<'_, Option<Trouble>> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A cool-down that ended ten cool-downs ago is history: the same cause is then told again.
fn told_lately(trouble: &Trouble, now: Timestamp) -> bool {
    now < trouble.until.after(COOL_DOWN * 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn error(errcode: i64) -> Error {
        Error::new(ErrorKind::WechatConfig, "no").with_errcode(errcode, None)
    }

    #[test]
    fn the_back_off_doubles_from_half_a_second_to_half_a_minute() {
        for (failures, longest) in [(1, 500), (2, 1_000), (5, 8_000), (7, 30_000), (400, 30_000)] {
            let wait = back_off(failures).as_millis();
            assert!(
                wait <= longest && wait >= longest * 3 / 4,
                "{failures}: {wait}"
            );
        }
    }

    #[test]
    fn the_operator_is_told_once_for_each_cause() {
        let troubles = Troubles::default();
        let now = Timestamp::from_millis(0);
        assert!(!troubles.cool_down(&error(40125), now).0);
        assert!(
            troubles
                .cool_down(&error(40125), now.after(Duration::from_secs(31)))
                .0
        );
        assert!(
            !troubles
                .cool_down(&error(40164), now.after(Duration::from_secs(62)))
                .0
        );
        assert!(
            troubles
                .active("anybody", now.after(Duration::from_secs(91)))
                .is_some()
        );
        assert!(
            troubles
                .active("anybody", now.after(Duration::from_secs(93)))
                .is_none()
        );
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_prolong_a_rest() {
        let troubles = Troubles::default();
        let now = Timestamp::from_millis(600_000);
        troubles.cool_down(&error(40125), now);
        troubles.failed("u", 1, &error(-1), now);
        let before = now.before(Duration::from_secs(60));
        assert!(troubles.active("u", before).is_none());
    }

    #[test]
    fn a_longer_wait_that_wechat_asks_for_is_kept() {
        let troubles = Troubles::default();
        let now = Timestamp::from_millis(0);
        let asked = error(45011).with_retry_after(Duration::from_secs(60));
        troubles.failed("u", 1, &asked, now);
        let left = troubles
            .active("u", now.after(Duration::from_secs(20)))
            .unwrap();
        assert_eq!(left.retry_after(), Some(Duration::from_secs(40)));
        troubles.clear("u");
        assert!(troubles.active("u", now).is_none());
    }
}
