//! Counters that a span of time empties.

use std::time::Duration;

use super::{clock::beijing_day, refusal::Refusal};

/// Uses within one span: a day, a minute, a month.
#[derive(Debug, Default)]
pub(super) struct Quota {
    span: u64,
    used: u64,
}

impl Quota {
    /// Counts one use, unless `limit` uses fell into this span already.
    pub(super) fn take(&mut self, span: u64, limit: u64, spent: i64) -> Result<(), Refusal> {
        if self.span != span {
            *self = Self { span, used: 0 };
        }
        if self.used >= limit {
            return Err(Refusal::new(spent));
        }
        self.used += 1;
        Ok(())
    }

    /// One use of a day in Beijing. 45009 when they are spent.
    pub(super) fn take_of_day(&mut self, limit: u64, now: Duration) -> Result<(), Refusal> {
        self.take(beijing_day(now), limit, 45009)
    }

    /// One use of a minute. 45011 when they are spent.
    pub(super) fn take_of_minute(&mut self, limit: u64, now: Duration) -> Result<(), Refusal> {
        self.take(now.as_secs() / 60, limit, 45011)
    }

    pub(super) fn clear(&mut self) {
        self.used = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_day_gives_the_quota_back() {
        let (mut quota, mut now) = (Quota::default(), Duration::from_secs(1_700_000_000));
        assert!(quota.take_of_day(1, now).is_ok());
        assert_eq!(quota.take_of_day(1, now), Err(Refusal::new(45009)));
        now += Duration::from_secs(24 * 3600);
        assert!(quota.take_of_day(1, now).is_ok());
        quota.clear();
        assert!(quota.take_of_day(1, now).is_ok());
    }
}
