//! Counts rejected requests, and logs them with a rate limit.

use crate::credential::AppId;
use crate::log_limiter::LogLimiter;
use crate::metrics;

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

/// The log of rejected requests. It writes one line a minute at most, because anybody can send
/// requests without a valid secret.
#[derive(Default)]
pub(super) struct RejectionLog(LogLimiter);

impl RejectionLog {
    /// Counts a rejection, and logs it unless a line was logged within the last minute. The line
    /// contains the number of rejections since the previous line, this one included.
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
            "the token center refused a bearer"
        );
    }
}
