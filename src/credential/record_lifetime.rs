//! Lifetimes of stored records: the time from which neither token of a record can be used.
//!
//! This crate stores the refresh token's own expiry: 30 days after it was issued, less the renewal
//! margin of the access token. The Spring Boot service of the published layout writes the access
//! token's renewal point into both hashes. If a stored time could be the access token's, it says
//! nothing about the refresh token, whose expiry is then unknown.
//!
//! Two rules decide when a refresh token counts as unusable:
//!
//! - Key lifetimes, copies between the layouts and the memory store use
//!   [`RecordView::unusable_at`]. A refresh token whose record also holds an access token, and
//!   whose stored expiry is plausible, counts as unusable one day after that expiry. Every other
//!   refresh token follows the second rule.
//! - The sweep, and the state `dead` in the operators' lists, use [`refresh_certainly_expired_at`].
//!   That point is 31 days after the stored time or the access token's renewal point, whichever is
//!   later.

use std::time::Duration;

use super::lifetime::STANDARD_LIFETIME;
use super::record::{Record, RecordView};
use crate::clock::Timestamp;

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// Lifetime of a refresh token: 30 days, according to WeChat's documentation of web authorization
/// (网页授权).
pub(crate) const REFRESH_TOKEN_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3_600);

/// Time for which a record is kept after the expected expiry of its refresh token: one day. The
/// token is still sent to WeChat in this time, because clocks may differ and only WeChat decides
/// whether the token is valid.
pub(crate) const REFRESH_GRACE: Duration = DAY;

/// Maximum lifetime of a key without a renewal: 32 days, the lifetime of a refresh token and twice
/// the grace.
#[cfg(any(feature = "redis", test))]
pub(crate) const MAX_KEY_TTL: Duration =
    Duration::from_secs(REFRESH_TOKEN_LIFETIME.as_secs() + 2 * REFRESH_GRACE.as_secs());

/// Returns `true` if the stored time `due` can be the expiry of a refresh token.
///
/// `renew_at` is the renewal point of the access token in the same record. The function returns
/// `false` for a stored time that is not plausible. It also returns `false` for a time up to two
/// hours (the lifetime of an access token) after the renewal point. Some services store the access
/// token's time in place of the refresh token's.
pub(crate) fn is_refresh_expiry(due: Timestamp, renew_at: Timestamp) -> bool {
    due.is_plausible() && due > renew_at.saturating_add(STANDARD_LIFETIME)
}

/// Returns the point from which a refresh token is certainly expired. It is 31 days after the
/// stored time or the access token's renewal point, whichever is later. The refresh token was valid
/// when WeChat issued that access token.
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
    /// Returns the point from which neither token of the record can be used, so that the key may be
    /// deleted. Returns `None` if the record has no token.
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

    /// Returns the stored expiry of the refresh token. Returns `None` if there is no refresh token,
    /// or if the stored time cannot be its expiry.
    #[cfg(any(feature = "cli", test))]
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
    /// Returns the time from `now` for which the key that holds the record exists.
    ///
    /// The time is at most [`MAX_KEY_TTL`], however implausible the stored times are. It is at
    /// least one hour, because a refresh token past its expected expiry is still sent to WeChat.
    #[cfg(any(feature = "redis", test))]
    pub(crate) fn key_ttl(&self, now: Timestamp) -> Duration {
        let unusable_at = self.view().unusable_at().unwrap_or(now);
        now.duration_until(unusable_at)
            .clamp(REFRESH_GRACE / 24, MAX_KEY_TTL)
    }

    /// Returns `true` if neither token of the record can be used at `now`, or if the record has no
    /// token.
    pub(crate) fn is_unusable(&self, now: Timestamp) -> bool {
        self.view()
            .unusable_at()
            .is_none_or(|unusable_at| unusable_at < now)
    }
}

#[cfg(test)]
mod tests {
    use super::super::access_token::AccessToken;
    use super::super::lifetime::Lifetime;
    use super::super::record::{Refresh, Token};
    use super::super::secret::RefreshToken;
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
    const MARGIN: Duration = Duration::from_secs(900);

    /// Creates a pair that was issued at `NOW` for two hours, with `due` as the stored expiry of
    /// the refresh token.
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
        // The key of a record that is written a day before its expected expiry has a TTL of two
        // days.
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
            let unusable_at = record.view().unusable_at().unwrap();
            assert!(
                unusable_at >= point.saturating_add(31 * DAY),
                "{due:?}: {unusable_at:?}"
            );
            assert!(
                unusable_at <= point.saturating_add(31 * DAY + MARGIN),
                "{due:?}: {unusable_at:?}"
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
