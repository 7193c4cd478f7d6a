//! Counts refused requests, and logs one line for many of them.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::credential::AppId;
use crate::metrics;

/// How long the log stays silent after a line. Anybody can send requests without a secret, so
/// their number must not decide the log's size.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Why a request did not prove itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BearerRejection {
    /// It has no `Authorization: Bearer`, or more than one `Authorization`.
    Missing,
    /// Its secret is none that the center accepts.
    Wrong,
    /// Its secret was accepted until a while ago: a client was left behind in a rotation.
    Expired,
}

impl BearerRejection {
    fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Wrong => "wrong",
            Self::Expired => "expired",
        }
    }
}

/// The refusals that no line has reported yet.
#[derive(Default)]
pub(super) struct RejectionLog(Mutex<Unreported>);

#[derive(Default)]
struct Unreported {
    count: u64,
    next_line_at: Option<Instant>,
}

impl RejectionLog {
    /// Counts a refusal, and logs it unless a line was logged within the last minute.
    pub(super) fn record(&self, app: &AppId, why: BearerRejection) {
        metrics::count_center_rejection(why.as_str());
        let Some(refused) = self.take_unreported(Instant::now()) else {
            return;
        };
        tracing::warn!(
            target: "tower_wechat::account",
            %app,
            reason = why.as_str(),
            refused,
            "the token center refused a bearer"
        );
    }

    /// The number of refusals that a line now reports, this one included. `None` while the log
    /// stays silent.
    fn take_unreported(&self, now: Instant) -> Option<u64> {
        let mut unreported = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        unreported.count += 1;
        if unreported.next_line_at.is_some_and(|until| now < until) {
            return None;
        }
        unreported.next_line_at = Some(now + LOG_INTERVAL);
        Some(std::mem::take(&mut unreported.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_log_line_reports_many_rejections() {
        let refusals = RejectionLog::default();
        let start = Instant::now();
        assert_eq!(refusals.take_unreported(start), Some(1));
        for second in 1..60 {
            assert_eq!(
                refusals.take_unreported(start + Duration::from_secs(second)),
                None
            );
        }
        assert_eq!(refusals.take_unreported(start + LOG_INTERVAL), Some(60));
        assert_eq!(refusals.take_unreported(start + LOG_INTERVAL * 3), Some(1));
    }
}
