//! Lifetimes: when a credential is due for renewal, and when it expires.

use std::hash::{DefaultHasher, Hasher};
use std::time::Duration;

use crate::clock::Timestamp;

/// Lifetime of a token whose `expires_in` is missing, zero or negative: one minute. Such a token is
/// usable, and due for renewal at once.
pub(crate) const FALLBACK_LIFETIME: Duration = Duration::from_secs(60);

/// Lifetime of an access token by WeChat's documentation: two hours. It replaces an `expires_in`
/// above [`MAX_LIFETIME`].
pub(crate) const STANDARD_LIFETIME: Duration = Duration::from_secs(7_200);

/// Maximum plausible `expires_in`: 30 days, the lifetime of a refresh token.
const MAX_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3_600);

/// Divisor of the renewal margin. The quotient is the time over which the renewals of tokens that
/// were obtained together are spread: three minutes for a margin of 15 minutes.
const JITTER_DIVISOR: u32 = 5;

/// The state of a credential at one moment: fresh, stale or expired.
///
/// ```
/// use std::time::Duration;
/// use tower_wechat::clock::Timestamp;
/// use tower_wechat::credential::{Freshness, Lifetime};
///
/// // Granted for two hours, due for renewal 15 minutes before the end:
/// let lifetime = Lifetime::from_response(Timestamp::from_millis(0), Some(7_200), Duration::from_secs(900));
/// let after_minutes = |minutes: i64| lifetime.freshness(Timestamp::from_millis(minutes * 60_000));
/// assert_eq!(after_minutes(104), Freshness::Fresh);
/// assert_eq!(after_minutes(105), Freshness::Stale);
/// assert_eq!(after_minutes(120), Freshness::Expired);
/// assert_eq!(Freshness::Stale.as_str(), "stale");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Freshness {
    /// The renewal point has not been reached: the credential is usable and not due for renewal.
    Fresh,
    /// The renewal point has passed but not the expiry: the credential is usable and due for
    /// renewal.
    Stale,
    /// The expiry has passed: WeChat no longer accepts the credential.
    Expired,
}

impl Freshness {
    /// Returns `fresh`, `stale` or `expired`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Stale => "stale",
            Self::Expired => "expired",
        }
    }
}

/// The lifetime of a credential: its renewal point and its expiry.
///
/// ```
/// use std::time::Duration;
/// use tower_wechat::clock::Timestamp;
/// use tower_wechat::credential::{Freshness, Lifetime};
///
/// let now = Timestamp::from_millis(0);
/// let margin = Duration::from_secs(900);
/// let lifetime = Lifetime::from_response(now, Some(7_200), margin);
/// assert_eq!(lifetime.renew_at().as_millis(), 6_300_000);
/// assert_eq!(lifetime.expires_at().as_millis(), 7_200_000);
/// assert_eq!(lifetime.freshness(now), Freshness::Fresh);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    renew_at: Timestamp,
    expires_at: Timestamp,
}

impl Lifetime {
    /// Returns the lifetime of a credential that WeChat issued at `now` for `expires_in` seconds.
    ///
    /// The renewal point is `margin` before the expiry. If the credential expires within `margin`,
    /// the renewal point is in the middle, because the credential would never be fresh otherwise.
    /// If `expires_in` is missing, zero or negative, the credential lives for 60 seconds and is due
    /// for renewal at once. A value above 30 days is read as 7,200 seconds.
    pub fn from_response(now: Timestamp, expires_in: Option<i64>, margin: Duration) -> Self {
        let Some(seconds) = expires_in
            .and_then(|s| u64::try_from(s).ok())
            .filter(|s| *s > 0)
        else {
            return Self {
                renew_at: now,
                expires_at: now.saturating_add(FALLBACK_LIFETIME),
            };
        };
        let lifetime = match Duration::from_secs(seconds) {
            lifetime if lifetime > MAX_LIFETIME => STANDARD_LIFETIME,
            lifetime => lifetime,
        };
        let margin = if lifetime <= margin {
            lifetime / 2
        } else {
            margin
        };
        Self {
            renew_at: now.saturating_add(lifetime - margin),
            expires_at: now.saturating_add(lifetime),
        }
    }

    /// Returns the lifetime of a stored credential. If no expiry is stored, or if the stored expiry
    /// is before the renewal point, the credential expires `margin` after the renewal point.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_wechat::clock::Timestamp;
    /// use tower_wechat::credential::Lifetime;
    ///
    /// // A Spring Boot service has stored `TOKEN#6300000`:
    /// let lifetime = Lifetime::from_stored(Timestamp::from_millis(6_300_000), None, Duration::from_secs(900));
    /// assert_eq!(lifetime.expires_at().as_millis(), 7_200_000);
    /// ```
    pub fn from_stored(
        renew_at: Timestamp,
        expires_at: Option<Timestamp>,
        margin: Duration,
    ) -> Self {
        let expires_at = expires_at
            .filter(|at| *at >= renew_at)
            .unwrap_or_else(|| renew_at.saturating_add(margin));
        Self {
            renew_at,
            expires_at,
        }
    }

    /// Returns the renewal point, from which the credential is due for renewal.
    pub fn renew_at(&self) -> Timestamp {
        self.renew_at
    }

    /// Returns the point from which WeChat no longer accepts the credential.
    pub fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    /// Returns the state of the credential at `now`.
    pub fn freshness(&self, now: Timestamp) -> Freshness {
        if now < self.renew_at {
            Freshness::Fresh
        } else if now < self.expires_at {
            Freshness::Stale
        } else {
            Freshness::Expired
        }
    }

    /// Returns the earliest point that [`renewal_starts_at`](Self::renewal_starts_at) can return
    /// for this lifetime.
    pub(crate) fn earliest_renewal_at(&self) -> Timestamp {
        let window = self.renew_at.duration_until(self.expires_at) / JITTER_DIVISOR;
        self.renew_at.saturating_sub(window)
    }

    /// Returns the point from which this credential is renewed ahead of its renewal point.
    ///
    /// The point lies in a window before the renewal point. The window is one fifth of the time
    /// from the renewal point to the expiry. `seed`, see [`jitter_seed`], chooses the place in the
    /// window.
    ///
    /// Credentials that were obtained together are therefore renewed at different times, and all
    /// processes compute the same point for one credential.
    pub(crate) fn renewal_starts_at(&self, seed: u64) -> Timestamp {
        let window = self.renew_at.duration_until(self.expires_at) / JITTER_DIVISOR;
        let window = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
        if window == 0 {
            return self.renew_at;
        }
        self.renew_at
            .saturating_sub(Duration::from_millis(seed % window))
    }
}

/// Returns the number that chooses when the renewal of this token starts. All processes of one
/// build compute the same number for one token.
///
/// `DefaultHasher` may change with the standard library. Processes of two builds may then start
/// the renewal of one token at different points of the window, which does no harm.
pub(crate) fn jitter_seed(token: &str) -> u64 {
    // The hasher has no random key, so that all processes compute the same number. Clients cannot
    // cause collisions, because only WeChat chooses tokens.
    let mut hasher = DefaultHasher::new();
    hasher.write(token.as_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MARGIN: Duration = Duration::from_secs(900);
    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn renewal_and_expiry(expires_in: Option<i64>) -> (i64, i64) {
        let lifetime = Lifetime::from_response(NOW, expires_in, MARGIN);
        let start = NOW.as_millis();
        (
            lifetime.renew_at().as_millis() - start,
            lifetime.expires_at().as_millis() - start,
        )
    }

    #[test]
    fn lifetimes_follow_expires_in() {
        assert_eq!(renewal_and_expiry(Some(7_200)), (6_300_000, 7_200_000));
        assert_eq!(renewal_and_expiry(Some(901)), (1_000, 901_000));
        assert_eq!(renewal_and_expiry(Some(900)), (450_000, 900_000));
        assert_eq!(renewal_and_expiry(Some(600)), (300_000, 600_000));
        assert_eq!(renewal_and_expiry(None), (0, 60_000));
        assert_eq!(renewal_and_expiry(Some(0)), (0, 60_000));
        assert_eq!(renewal_and_expiry(Some(-5)), (0, 60_000));
        assert_eq!(
            renewal_and_expiry(Some(2_592_000)),
            (2_591_100_000, 2_592_000_000)
        );
        assert_eq!(renewal_and_expiry(Some(2_592_001)), (6_300_000, 7_200_000));
        assert_eq!(renewal_and_expiry(Some(i64::MAX)), (6_300_000, 7_200_000));
    }

    proptest! {
        #[test]
        fn every_positive_lifetime_starts_fresh(seconds in 1i64.., margin in 0u64..100_000) {
            let lifetime = Lifetime::from_response(NOW, Some(seconds), Duration::from_secs(margin));
            prop_assert_eq!(lifetime.freshness(NOW), Freshness::Fresh);
            prop_assert!(lifetime.renew_at() <= lifetime.expires_at());
        }

        #[test]
        fn renewal_starts_at_most_a_fifth_of_the_margin_early(seed: u64, seconds in 1i64..100_000) {
            let lifetime = Lifetime::from_response(NOW, Some(seconds), MARGIN);
            let early = lifetime.renewal_starts_at(seed).duration_until(lifetime.renew_at());
            prop_assert!(early <= lifetime.renew_at().duration_until(lifetime.expires_at()) / 5);
        }
    }

    /// In this test all users log in at the same moment, as after millions opened one article.
    #[test]
    fn renewals_after_a_mass_login_are_spread_evenly() {
        const USERS: usize = 100_000;
        let lifetime = Lifetime::from_response(NOW, Some(7_200), MARGIN);
        let window = lifetime
            .earliest_renewal_at()
            .duration_until(lifetime.renew_at())
            .as_secs() as usize;
        let mut seconds = vec![0; window];
        for at in 0..USERS {
            let seed = jitter_seed(&format!("83_{at:0107}"));
            let early = lifetime
                .renewal_starts_at(seed)
                .duration_until(lifetime.renew_at());
            seconds[early.as_secs() as usize] += 1;
        }
        let mean = USERS / window;
        let most = seconds.iter().max().copied().unwrap_or_default();
        assert!(
            most <= mean * 3 / 2,
            "{most} in one second, {mean} in the mean"
        );
    }
}
