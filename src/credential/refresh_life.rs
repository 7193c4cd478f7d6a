//! How long a refresh token may live, as far as what is stored tells. One rule for key lifetimes,
//! copies between the layouts, the sweep, and what operators are shown.
//!
//! This crate stores the refresh token's own end: login + 30 days, less the margin. The Spring Boot
//! service of the published layout writes the access token's renewal point into both hashes. A time
//! that an access token's could be says nothing about the refresh token: its end is unknown then.

use std::time::Duration;

use super::lifetime::USUAL_LIFETIME;
use super::{Record, RecordView};
use crate::clock::Timestamp;

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// How long a refresh token lives, by WeChat's documentation of web authorization (网页授权).
pub(crate) const REFRESH_TOKEN_LIFE: Duration = Duration::from_secs(30 * 24 * 3_600);

/// WeChat is still asked for so long after the stored end.
pub(crate) const GRACE: Duration = DAY;

#[cfg(any(feature = "redis", test))]
/// No record is kept for longer without a renewal: a refresh token of this moment, with both graces.
pub(crate) const LONGEST_LIFE: Duration =
    Duration::from_secs(REFRESH_TOKEN_LIFE.as_secs() + 2 * GRACE.as_secs());

/// Returns `true` if a stored time can be the end of a refresh token. `renew_at` is the renewal
/// point of the access token beside it: what lies before that, or no farther behind it than an
/// access token lives, was stored by somebody who knew the access token's time only.
pub(crate) fn is_end(due: Timestamp, renew_at: Timestamp) -> bool {
    due.is_plausible() && due > renew_at.after(USUAL_LIFETIME)
}

/// Returns the moment from which a refresh token is certainly dead: 31 days after the stored time,
/// and after the access token's renewal point, because the refresh token lived when that was granted.
pub(crate) fn surely_dead_at(due: Timestamp, renew_at: Option<Timestamp>) -> Timestamp {
    let known = renew_at.map_or(due, |renew_at| due.max(renew_at));
    known.after(REFRESH_TOKEN_LIFE).after(GRACE)
}

impl RecordView<'_> {
    /// Returns the moment from which nothing can be made of the record, and its key may go.
    pub(crate) fn dies_at(&self) -> Option<Timestamp> {
        let renew_at = self.token.map(|token| token.lifetime.renew_at());
        let refresh = self.refresh.map(|refresh| match renew_at {
            Some(renew_at) if is_end(refresh.due, renew_at) => refresh.due.after(GRACE),
            _ => surely_dead_at(refresh.due, renew_at),
        });
        self.token
            .map(|token| token.lifetime.expires_at())
            .max(refresh)
    }

    #[cfg(any(feature = "cli", test))]
    /// Returns the end of the refresh token, where the stored time can be that.
    pub(crate) fn refresh_ends_at(&self) -> Option<Timestamp> {
        let due = self.refresh?.due;
        let renew_at = self.token.map(|token| token.lifetime.renew_at());
        renew_at
            .is_none_or(|renew_at| is_end(due, renew_at))
            .then_some(due)
            .filter(|due| due.is_plausible())
    }
}

impl Record {
    #[cfg(any(feature = "redis", test))]
    /// How long a key that holds the record lives from `now` on. Neither a time that nobody can
    /// have meant nor a dead record makes it more than [`LONGEST_LIFE`], or less than an hour: a
    /// refresh token past its end is still tried.
    pub(crate) fn key_life(&self, now: Timestamp) -> Duration {
        let dies_at = self.view().dies_at().unwrap_or(now);
        now.until(dies_at).clamp(GRACE / 24, LONGEST_LIFE)
    }

    /// Returns `true` if nothing can be made of the record any more.
    pub(crate) fn is_dead(&self, now: Timestamp) -> bool {
        self.view().dies_at().is_none_or(|dies_at| dies_at < now)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{AccessToken, Lifetime, Refresh, RefreshToken, Token};
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
    const MARGIN: Duration = Duration::from_secs(900);

    /// A pair that was granted at this moment for two hours, with this time beside the refresh token.
    fn pair(due: Timestamp) -> Record {
        Record {
            token: Some(Token {
                secret: AccessToken::from("a"),
                lifetime: Lifetime::granted(NOW, Some(7_200), MARGIN),
            }),
            refresh: Some(Refresh {
                secret: RefreshToken::from("r"),
                due,
            }),
            ..Record::default()
        }
    }

    #[test]
    fn the_end_that_this_crate_stores_is_believed() {
        let due = NOW.after(REFRESH_TOKEN_LIFE).before(MARGIN);
        assert_eq!(pair(due).view().refresh_ends_at(), Some(due));
        assert_eq!(pair(due).key_life(NOW), REFRESH_TOKEN_LIFE + DAY - MARGIN);
        // A day before the end, too.
        let due = NOW.after(DAY);
        assert_eq!(pair(due).key_life(NOW), 2 * DAY);
    }

    #[test]
    fn a_time_of_the_access_token_counts_as_the_sweep_counts_it() {
        let point = NOW.after(Duration::from_secs(7_200)).before(MARGIN);
        for due in [
            point,
            point.after(MARGIN),
            point.after(Duration::from_millis(3)),
            point.before(DAY),
            Timestamp::from_millis(0),
            Timestamp::from_millis(-1),
            Timestamp::from_millis(i64::MIN),
        ] {
            let record = pair(due);
            assert_eq!(record.view().refresh_ends_at(), None, "{due:?}");
            let dies_at = record.view().dies_at().unwrap();
            assert!(dies_at >= point.after(31 * DAY), "{due:?}: {dies_at:?}");
            assert!(
                dies_at <= point.after(31 * DAY + MARGIN),
                "{due:?}: {dies_at:?}"
            );
            assert!(record.key_life(NOW) > 30 * DAY, "{due:?}");
        }
    }

    #[test]
    fn times_that_nobody_can_have_meant_end_the_key_all_the_same() {
        for due in [
            i64::MAX,
            i64::MAX - 1,
            1_700_000_000_000_000_000,
            10_000_000_000_000,
        ] {
            let record = pair(Timestamp::from_millis(due));
            assert_eq!(record.key_life(NOW), LONGEST_LIFE, "{due}");
            let mut alone = record.clone();
            alone.token = None;
            assert_eq!(alone.key_life(NOW), LONGEST_LIFE, "{due}");
            assert!(!record.is_dead(NOW) && !alone.is_dead(NOW));
        }
        let mut alone = pair(NOW.before(31 * DAY).before(MARGIN));
        alone.token = None;
        assert!(alone.is_dead(NOW));
        assert_eq!(alone.key_life(NOW), DAY / 24);
    }

    #[test]
    fn a_refresh_token_alone_may_be_of_either_service() {
        let mut alone = pair(NOW.after(DAY));
        alone.token = None;
        assert_eq!(alone.view().dies_at(), Some(NOW.after(32 * DAY)));
    }
}
