//! The classification of failed calls to WeChat: what the engine does about an error.

use std::time::Duration;

use super::source::RenewalFailure;
use crate::error::{Error, ErrorKind};
use crate::wechat::with_renewal_delay;

/// Minimum pause before the next call after an unexpected answer of WeChat, such as an errcode that
/// is not documented for the call: 30 seconds. A retry at once would probably fail in the same way.
pub(crate) const UNKNOWN_ERRCODE_PAUSE: Duration = Duration::from_secs(30);

/// Classifies an error of a call that fetches a credential of the account. Such a credential needs
/// no user, so no error is an [`InvalidGrant`](RenewalFailure::InvalidGrant).
pub(crate) fn classify(error: Error) -> RenewalFailure {
    if error.is_missing_prerequisite() {
        return RenewalFailure::Dependency(error);
    }
    match error.kind() {
        // Only the account's owner can authorize the platform again.
        ErrorKind::WechatConfig | ErrorKind::AccountNotAuthorized => {
            RenewalFailure::Operator(with_renewal_delay(error))
        }
        ErrorKind::WechatUnavailable | ErrorKind::StoreUnavailable => {
            RenewalFailure::Transient(error)
        }
        ErrorKind::LoginRequired
        | ErrorKind::PlatformStarting
        | ErrorKind::TokenRefused
        | ErrorKind::WechatRefused
        | ErrorKind::InvalidState
        | ErrorKind::LoginDenied
        | ErrorKind::BadRequest
        | ErrorKind::UnknownAccount
        | ErrorKind::AccountsUnavailable
        | ErrorKind::Configuration
        | ErrorKind::Application => {
            let wait = error.retry_after().unwrap_or_default();
            RenewalFailure::Transient(error.clone_with_retry_after(wait.max(UNKNOWN_ERRCODE_PAUSE)))
        }
    }
}
