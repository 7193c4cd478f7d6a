//! The log lines of the authorize pages, at most one of each kind in a minute.

use super::{AuthorizePages, AuthorizedAccount};
use crate::error::Error;

impl AuthorizePages {
    pub(super) fn log_rejected_return(&self, reason: &'static str) {
        if let Some(more) = self.0.platform.log_limiter.allow_line(reason) {
            tracing::info!(
                target: "tower_wechat::platform",
                app = %self.0.platform.component.app_id(),
                reason,
                more,
                "a return from WeChat's authorize page was rejected"
            );
        }
    }

    pub(super) fn log_missing_pre_auth_code(&self, error: &Error) {
        if let Some(more) = self
            .0
            .platform
            .log_limiter
            .allow_line("authorize page without a code")
        {
            tracing::warn!(
                target: "tower_wechat::platform",
                app = %self.0.platform.component.app_id(),
                %error,
                code = error.kind().code(),
                more,
                "the authorize page could not be shown without a pre-auth code; a reload requests another"
            );
        }
    }

    pub(super) fn log_too_many_pages(&self) {
        if let Some(more) = self.0.platform.log_limiter.allow_line("too many pages") {
            tracing::warn!(
                target: "tower_wechat::platform",
                app = %self.0.platform.component.app_id(),
                limit = self.0.allowance.pages,
                more,
                "the authorize page was opened too often and received 429; put a guard around it, or \
                 raise AuthorizePages::max_pages"
            );
        }
    }

    pub(super) fn log_failed_exchange(&self, error: &Error) {
        if let Some(more) = self
            .0
            .platform
            .log_limiter
            .allow_line("authorize page without an exchange")
        {
            tracing::warn!(
                target: "tower_wechat::platform",
                app = %self.0.platform.component.app_id(),
                %error,
                code = error.kind().code(),
                more,
                "the code of a return from WeChat's authorize page could not be exchanged; the owner \
                 of the account authorizes again"
            );
        }
    }

    pub(super) fn log_failed_hook(&self, account: &AuthorizedAccount, error: &str) {
        if let Some(more) = self.0.platform.log_limiter.allow_line("on_authorized") {
            tracing::warn!(
                target: "tower_wechat::platform",
                app = %account.app_id(),
                customer = account.customer(),
                error,
                more,
                "the hook of on_authorized failed; a reload of the page runs it again"
            );
        }
    }
}
