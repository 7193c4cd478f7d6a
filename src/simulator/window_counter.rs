//! A counter of calls for quotas per minute, per day or per month.

use std::time::Duration;

use super::{clock::beijing_day, error_reply::WechatErrorReply};

/// The number of calls within the current window, which is a minute, a day or a month.
#[derive(Debug, Default)]
pub(super) struct WindowCounter {
    window: u64,
    used: u64,
}

impl WindowCounter {
    /// Counts one call in the window with the number `window`. A new number starts the count at
    /// zero.
    ///
    /// # Errors
    /// Returns `limit_errcode` if the window already has `limit` calls.
    pub(super) fn try_count(
        &mut self,
        window: u64,
        limit: u64,
        limit_errcode: i64,
    ) -> Result<(), WechatErrorReply> {
        if self.window != window {
            *self = Self { window, used: 0 };
        }
        if self.used >= limit {
            return Err(WechatErrorReply::new(limit_errcode));
        }
        self.used += 1;
        Ok(())
    }

    /// Counts one call in the current day of Beijing.
    ///
    /// # Errors
    /// Returns errcode 45009 if the day already has `limit` calls.
    pub(super) fn try_count_daily(
        &mut self,
        limit: u64,
        now: Duration,
    ) -> Result<(), WechatErrorReply> {
        self.try_count(beijing_day(now), limit, 45009)
    }

    /// Counts one call in the current minute of the simulator's clock.
    ///
    /// # Errors
    /// Returns errcode 45011 if the minute already has `limit` calls.
    pub(super) fn try_count_per_minute(
        &mut self,
        limit: u64,
        now: Duration,
    ) -> Result<(), WechatErrorReply> {
        self.try_count(now.as_secs() / 60, limit, 45011)
    }

    pub(super) fn clear(&mut self) {
        self.used = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_day_resets_the_quota() {
        let (mut quota, mut now) = (WindowCounter::default(), Duration::from_secs(1_700_000_000));
        assert!(quota.try_count_daily(1, now).is_ok());
        assert_eq!(
            quota.try_count_daily(1, now),
            Err(WechatErrorReply::new(45009))
        );
        now += Duration::from_secs(24 * 3600);
        assert!(quota.try_count_daily(1, now).is_ok());
        quota.clear();
        assert!(quota.try_count_daily(1, now).is_ok());
    }
}
