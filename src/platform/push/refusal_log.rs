//! The log lines of requests that are refused.

use super::receiver::PushReceiver;
use super::refusal::PushRefusal;

impl PushReceiver {
    /// Logs a refused request. Any client can send such requests, so there is one line a minute for
    /// those without a right signature. A right signature that leads to nothing, and missing keys, need
    /// an operator, and have separate lines.
    pub(super) fn log_refusal(&self, refusal: PushRefusal) {
        match refusal {
            PushRefusal::NoKeys => self.log_missing_keys(),
            signed if signed.is_signed() => self.log_unreadable(signed),
            forged => self.log_refused(forged),
        }
    }

    fn log_missing_keys(&self) {
        if let Some(more) = self.log_limiter.allow_line("no_keys") {
            tracing::error!(
                target: "tower_wechat::platform",
                app = %self.component(),
                more,
                "a push arrived and this process has no push keys; set \
                 PlatformBuilder::push_keys"
            );
        }
    }

    fn log_unreadable(&self, refusal: PushRefusal) {
        if let Some(more) = self.log_limiter.allow_line("unreadable") {
            tracing::error!(
                target: "tower_wechat::platform",
                app = %self.component(),
                reason = refusal.reason(),
                more,
                "WeChat sent a push that this platform cannot read; compare its push keys with \
                 open.weixin.qq.com"
            );
        }
    }

    fn log_refused(&self, refusal: PushRefusal) {
        if let Some(more) = self.log_limiter.allow_line("refused") {
            tracing::warn!(
                target: "tower_wechat::platform",
                app = %self.component(),
                reason = refusal.reason(),
                more,
                "a request at the route of pushes was refused"
            );
        }
    }
}
