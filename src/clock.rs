//! Timestamps, and a clock that tests can move.
//!
//! A test sets the time itself, so that a token expires without waiting:
//!
//! ```
//! use std::time::Duration;
//! use tower_wechat::clock::{Clock, Timestamp};
//! use tower_wechat::client::UserTokenResponse;
//! use tower_wechat::{MemoryStore, UserId, UserTokens, WechatClient};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower_wechat::Error> {
//! let clock = Clock::manual(Timestamp::from_millis(1_700_000_000_000));
//! let wechat = WechatClient::new("wx0123456789abcdef", "secret")?;
//! let users = UserTokens::builder(wechat, MemoryStore::new()).clock(clock.clone()).build();
//!
//! let user = UserId::new("oUser")?;
//! let token = users.store(&user, &UserTokenResponse::new("83_token").expires_in(7_200)).await?;
//! clock.advance(Duration::from_secs(7_000));
//! let expires_at = token.lifetime().expires_at();
//! assert_eq!(clock.now().duration_until(expires_at), Duration::from_secs(200));
//! # Ok(()) }
//! ```

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Maximum time by which a signed value may have been issued in the future: five minutes. The
/// clocks of the process that signs the value and of the process that verifies it may differ.
pub(crate) const MAX_CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

/// Length of a day: 24 hours.
pub(crate) const DAY: Duration = Duration::from_secs(24 * 3_600);

/// Timestamp in milliseconds since the Unix epoch, as stored records contain it.
///
/// ```
/// use std::time::Duration;
/// use tower_wechat::clock::Timestamp;
///
/// let login = Timestamp::from_millis(1_700_000_000_000);
/// let expiry = login.saturating_add(Duration::from_secs(7_200));
/// assert_eq!(expiry.as_millis(), 1_700_007_200_000);
/// assert_eq!(login.duration_until(expiry.saturating_sub(Duration::from_secs(900))).as_secs(), 6_300);
/// assert_eq!(expiry.duration_until(login), Duration::ZERO);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Creates a timestamp from milliseconds since the Unix epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Returns the milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Returns `true` if the timestamp lies in the years 1970 to 2286 and so has 13 digits at most.
    /// Other numbers are not milliseconds or not timestamps.
    pub(crate) const fn is_plausible(self) -> bool {
        0 <= self.0 && self.0 < 10_000_000_000_000
    }

    /// Returns the timestamp `duration` later, or the latest possible one.
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(to_millis(duration)))
    }

    /// Returns the timestamp `duration` earlier, or the earliest possible one.
    #[must_use]
    pub fn saturating_sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(to_millis(duration)))
    }

    /// Returns the time from this timestamp until `later`, or zero if `later` is before this
    /// timestamp.
    pub fn duration_until(self, later: Timestamp) -> Duration {
        Duration::from_millis(u64::try_from(later.0.saturating_sub(self.0)).unwrap_or(0))
    }
}

/// Days in Beijing: WeChat resets daily quotas at midnight there.
impl Timestamp {
    /// Offset of Beijing's time from UTC: eight hours all year, because there is no daylight saving
    /// time.
    const BEIJING_OFFSET: Duration = Duration::from_secs(8 * 3_600);

    /// Returns the number of the day in Beijing. Day 0 is 1 January 1970.
    pub(crate) fn beijing_day(self) -> i64 {
        self.beijing_millis().div_euclid(to_millis(DAY))
    }

    /// Returns the time until the next midnight in Beijing. At midnight itself, this is a whole
    /// day.
    pub(crate) fn duration_until_beijing_midnight(self) -> Duration {
        let elapsed = self.beijing_millis().rem_euclid(to_millis(DAY));
        DAY.saturating_sub(Duration::from_millis(elapsed.unsigned_abs()))
    }

    fn beijing_millis(self) -> i64 {
        self.saturating_add(Self::BEIJING_OFFSET).as_millis()
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0)
    }
}

fn to_millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Returns a duration in whole milliseconds, or `u64::MAX` if there are more.
pub(crate) fn duration_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Source of the current time.
///
/// Tokens are shared between processes, so their lifetimes are wall-clock timestamps. Tests
/// use a clock that they move themselves:
///
/// ```
/// use std::time::Duration;
/// use tower_wechat::clock::{Clock, Timestamp};
///
/// let clock = Clock::manual(Timestamp::from_millis(1_000));
/// clock.advance(Duration::from_secs(2));
/// assert_eq!(clock.now(), Timestamp::from_millis(3_000));
/// clock.rewind(Duration::from_secs(1));
/// assert_eq!(clock.now(), Timestamp::from_millis(2_000));
///
/// // Beside a real Redis, whose keys expire by real time:
/// let clock = Clock::shifted();
/// clock.advance(Duration::from_secs(7_200));
/// assert!(Clock::system().now() < clock.now());
/// ```
#[derive(Clone)]
pub struct Clock(ClockSource);

#[derive(Clone)]
enum ClockSource {
    System,
    /// The operating system's time plus this offset in milliseconds, which tests change.
    Shifted(Arc<AtomicI64>),
    /// A fixed time in milliseconds since the Unix epoch, which only tests change. All accesses are
    /// `Relaxed`, because no other memory depends on the time.
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// Creates a clock that returns the operating system's time.
    pub const fn system() -> Self {
        Self(ClockSource::System)
    }

    /// Creates a clock that returns the operating system's time plus an offset, which
    /// [`advance`](Self::advance) and [`rewind`](Self::rewind) change.
    pub fn shifted() -> Self {
        Self(ClockSource::Shifted(Arc::new(AtomicI64::new(0))))
    }

    /// Creates a clock that returns `now` until it is moved.
    pub fn manual(now: Timestamp) -> Self {
        Self(ClockSource::Manual(Arc::new(AtomicI64::new(now.0))))
    }

    /// Returns the current time.
    #[inline]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            ClockSource::System => system_now(),
            ClockSource::Shifted(offset) => Timestamp(
                system_now()
                    .0
                    .saturating_add(offset.load(Ordering::Relaxed)),
            ),
            ClockSource::Manual(now) => Timestamp(now.load(Ordering::Relaxed)),
        }
    }

    /// Moves a test clock and all its clones forward. Has no effect on the system's clock.
    pub fn advance(&self, duration: Duration) {
        self.shift_millis(to_millis(duration));
    }

    /// Moves a test clock and all its clones back. Has no effect on the system's clock.
    pub fn rewind(&self, duration: Duration) {
        self.shift_millis(-to_millis(duration));
    }

    fn shift_millis(&self, by: i64) {
        match &self.0 {
            ClockSource::System => {}
            ClockSource::Shifted(value) | ClockSource::Manual(value) => {
                value.fetch_add(by, Ordering::Relaxed);
            }
        }
    }
}

/// Maximum time until a deadline: ten years. Adding a much longer time to the present would
/// overflow and panic.
const MAX_DEADLINE: Duration = Duration::from_secs(10 * 365 * 24 * 3_600);

/// Returns the deadline `duration` from now on the monotonic clock, [`MAX_DEADLINE`] from now at
/// most.
pub(crate) fn deadline_in(duration: Duration) -> tokio::time::Instant {
    tokio::time::Instant::now() + duration.min(MAX_DEADLINE)
}

fn system_now() -> Timestamp {
    // A system clock before 1970 is read as 1970. All tokens then count as fresh, and WeChat
    // rejects calls with an expired token. A panic in a request would be worse.
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(to_millis(since))
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            ClockSource::System => "system",
            ClockSource::Shifted(_) => "shifted",
            ClockSource::Manual(_) => "manual",
        };
        write!(f, "Clock({name}, {:?})", self.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_begin_at_midnight_in_beijing() {
        // 2024-01-01 16:00:00 UTC is 2024-01-02 00:00:00 in Beijing.
        let midnight = Timestamp::from_millis(1_704_124_800_000);
        let before = midnight.saturating_sub(Duration::from_millis(1));
        assert_eq!(midnight.beijing_day(), before.beijing_day() + 1);
        assert_eq!(midnight.duration_until_beijing_midnight(), DAY);
        assert_eq!(
            before.duration_until_beijing_midnight(),
            Duration::from_millis(1)
        );
    }
}
