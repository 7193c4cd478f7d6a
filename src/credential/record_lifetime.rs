//! How long a refresh token may live, as far as what is stored tells. One rule for key lifetimes,
//! copies between the layouts, the sweep, and what operators are shown.
//!
//! This crate stores the refresh token's own end: login + 30 days, less the margin. The Spring Boot
//! service of the published layout writes the access token's renewal point into both hashes. A time
//! that an access token's could be says nothing about the refresh token: its end is unknown then.

use std::time::Duration;

use super::lifetime::STANDARD_LIFETIME;
use super::{Record, RecordView};
use crate::clock::Timestamp;

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// How long a refresh token lives, by WeChat's documentation of web authorization (网页授权).
pub(crate) const REFRESH_TOKEN_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3_600);

/// WeChat is still asked for so long after the stored end.
pub(crate) const REFRESH_GRACE: Duration = DAY;

#[cfg(any(feature = "redis", test))]
/// No record is kept for longer without a renewal: a refresh token of this moment, with both graces.
pub(crate) const MAX_KEY_TTL: Duration =
    Duration::from_secs(REFRESH_TOKEN_LIFETIME.as_secs() + 2 * REFRESH_GRACE.as_secs());

/// Returns `true` if a stored time can be the end of a refresh token. `renew_at` is the renewal
/// point of the access token beside it: what lies before that, or no farther behind it than an
/// access token lives, was stored by somebody who knew the access token's time only.
pub(crate) fn is_refresh_expiry(due: Timestamp, renew_at: Timestamp) -> bool {
    due.is_plausible() && due > renew_at.saturating_add(STANDARD_LIFETIME)
}

/// Returns the moment from which a refresh token is certainly dead: 31 days after the stored time,
/// and after the access token's renewal point, because the refresh token lived when that was granted.
pub(crate) fn refresh_certainly_expired_at(
    due: Timestamp,
    renew_at: Option<Timestamp>,
) -> Timestamp {
    let known = renew_at.map_or(due, |renew_at| due.max(renew_at));
    known
        .saturating_add(REFRESH_TOKEN_LIFETIME)
        .saturating_add(REFRESH_GRACE)
}

impl RecordView<'_> {
    /// Returns the moment from which nothing can be made of the record, and its key may go.
    pub(crate) fn unusable_at(&self) -> Option<Timestamp> {
        let renew_at = self.token.map(|token| token.lifetime.renew_at());
        let refresh = self.refresh.map(|refresh| match renew_at {
            Some(renew_at) if is_refresh_expiry(refresh.expected_expiry, renew_at) => {
                refresh.expected_expiry.saturating_add(REFRESH_GRACE)
            }
            _ => refresh_certainly_expired_at(refresh.expected_expiry, renew_at),
        });
        self.token
            .map(|token| token.lifetime.expires_at())
            .max(refresh)
    }

    #[cfg(any(feature = "cli", test))]
    /// Returns the end of the refresh token, where the stored time can be that.
    pub(crate) fn refresh_expires_at(&self) -> Option<Timestamp> {
        let due = self.refresh?.expected_expiry;
        let renew_at = self.token.map(|token| token.lifetime.renew_at());
        renew_at
            .is_none_or(|renew_at| is_refresh_expiry(due, renew_at))
            .then_some(due)
            .filter(|due| due.is_plausible())
    }
}

impl Record {
    #[cfg(any(feature = "redis", test))]
    /// How long a key that holds the record lives from `now` on. Neither a time that nobody can
    /// have meant nor a dead record makes it more than [`LONGEST_LIFE`], or less than an hour: a
    /// refresh token past its end is still tried.
    pub(crate) fn key_ttl(&self, now: Timestamp) -> Duration {
        let dies_at = self.view().unusable_at().unwrap_or(now);
        now.duration_until(dies_at)
            .clamp(REFRESH_GRACE / 24, MAX_KEY_TTL)
    }

    /// Returns `true` if nothing can be made of the record any more.
    pub(crate) fn is_unusable(&self, now: Timestamp) -> bool {
        self.view()
            .unusable_at()
            .is_none_or(|dies_at| dies_at < now)
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
                lifetime: Lifetime::from_response(NOW, Some(7_200), MARGIN),
            }),
            refresh: Some(Refresh {
                secret: RefreshToken::from("r"),
                expected_expiry: due,
            }),
            ..Record::default()
        }
    }

    #[test]
    fn the_stored_refresh_expiry_is_used() {
        let due = NOW
            .saturating_add(REFRESH_TOKEN_LIFETIME)
            .saturating_sub(MARGIN);
        assert_eq!(pair(due).view().refresh_expires_at(), Some(due));
        assert_eq!(
            pair(due).key_ttl(NOW),
            REFRESH_TOKEN_LIFETIME + DAY - MARGIN
        );
        // A day before the end, too.
        let due = NOW.saturating_add(DAY);
        assert_eq!(pair(due).key_ttl(NOW), 2 * DAY);
    }

    #[test]
    fn an_access_token_time_is_no_refresh_expiry() {
        let point = NOW
            .saturating_add(Duration::from_secs(7_200))
            .saturating_sub(MARGIN);
        for due in [
            point,
            point.saturating_add(MARGIN),
            point.saturating_add(Duration::from_millis(3)),
            point.saturating_sub(DAY),
            Timestamp::from_millis(0),
            Timestamp::from_millis(-1),
            Timestamp::from_millis(i64::MIN),
        ] {
            let record = pair(due);
            assert_eq!(record.view().refresh_expires_at(), None, "{due:?}");
            let dies_at = record.view().unusable_at().unwrap();
            assert!(
                dies_at >= point.saturating_add(31 * DAY),
                "{due:?}: {dies_at:?}"
            );
            assert!(
                dies_at <= point.saturating_add(31 * DAY + MARGIN),
                "{due:?}: {dies_at:?}"
            );
            assert!(record.key_ttl(NOW) > 30 * DAY, "{due:?}");
        }
    }

    #[test]
    fn implausible_times_still_bound_the_key_ttl() {
        for due in [
            i64::MAX,
            i64::MAX - 1,
            1_700_000_000_000_000_000,
            10_000_000_000_000,
        ] {
            let record = pair(Timestamp::from_millis(due));
            assert_eq!(record.key_ttl(NOW), MAX_KEY_TTL, "{due}");
            let mut alone = record.clone();
            alone.token = None;
            assert_eq!(alone.key_ttl(NOW), MAX_KEY_TTL, "{due}");
            assert!(!record.is_unusable(NOW) && !alone.is_unusable(NOW));
        }
        let mut alone = pair(NOW.saturating_sub(31 * DAY).saturating_sub(MARGIN));
        alone.token = None;
        assert!(alone.is_unusable(NOW));
        assert_eq!(alone.key_ttl(NOW), DAY / 24);
    }

    #[test]
    fn a_lone_refresh_token_gets_the_full_grace() {
        let mut alone = pair(NOW.saturating_add(DAY));
        alone.token = None;
        assert_eq!(
            alone.view().unusable_at(),
            Some(NOW.saturating_add(32 * DAY))
        );
    }
}
