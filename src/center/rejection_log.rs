//! Counts requests whose bearer secret the center rejects, and logs them with a rate limit.

use crate::credential::AppId;
use crate::log_limiter::LogLimiter;
use crate::metrics;

/// Reason why the center rejects the bearer secret of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BearerRejection {
    /// The request has no `Authorization: Bearer` header, or more than one `Authorization` header.
    Missing,
    /// The secret of the request is none of the accepted secrets.
    Wrong,
    /// The secret of the request has expired: the client still uses it after a rotation.
    Expired,
}

impl BearerRejection {
    /// Returns the label of the metric and the value of the log field for this reason.
    fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Wrong => "wrong",
            Self::Expired => "expired",
        }
    }
}

/// Log of rejected requests. Any client can send such requests, so the log has at most one line a
/// minute.
#[derive(Default)]
pub(super) struct RejectionLog(LogLimiter);

impl RejectionLog {
    /// Counts a rejection, and logs it unless a line was logged within the last minute. The line
    /// contains the number of rejections since the previous line, including this rejection.
    pub(super) fn record(&self, app: &AppId, why: BearerRejection) {
        metrics::count_center_rejection(why.as_str());
        let Some(suppressed) = self.0.allow_line("rejection") else {
            return;
        };
        tracing::warn!(
            target: "tower_wechat::account",
            %app,
            reason = why.as_str(),
            refused = suppressed.saturating_add(1),
            "the token center rejected a bearer secret"
        );
    }
}
