//! Reasons for which a login fails, with their names, kinds and statuses.

use http::StatusCode;

use super::state::StateError;
use crate::error::{Error, ErrorKind, RecommendedAction};

/// Reason for which a login fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum LoginFailure {
    /// The request is malformed.
    BadRequest,
    /// WeChat has sent the user to a path that is not the callback.
    WrongCallbackPath,
    /// The login has expired.
    Expired,
    /// This browser did not begin the login, or this application did not.
    UnknownLogin,
    /// The user denied access at WeChat's page.
    AccessDenied,
    /// The user is virtual, and the application rejects virtual users.
    SnapshotDenied,
    /// WeChat has blocked this user.
    Blocked,
    /// The user has declined to share the profile.
    ProfileNotGranted,
    /// The browser is not WeChat's.
    NotInWechat,
    /// The browser has logged in, or retried, too often.
    RateLimited,
    /// Logins succeed, but the requests after them have no user.
    NotKept,
    /// WeChat rejects the code.
    CodeRejected,
    /// WeChat rejects the account of this service.
    Misconfigured,
    /// WeChat is unreachable or fails.
    WechatUnavailable,
    /// The store is unreachable or fails.
    StoreUnavailable,
}

impl LoginFailure {
    /// Returns the kind of the error.
    pub(crate) fn kind(self) -> ErrorKind {
        match self {
            Self::BadRequest | Self::WrongCallbackPath => ErrorKind::BadRequest,
            Self::Expired | Self::UnknownLogin => ErrorKind::InvalidState,
            Self::AccessDenied
            | Self::SnapshotDenied
            | Self::Blocked
            | Self::ProfileNotGranted
            | Self::NotInWechat
            | Self::RateLimited
            | Self::NotKept => ErrorKind::LoginDenied,
            Self::CodeRejected => ErrorKind::WechatRefused,
            Self::Misconfigured => ErrorKind::WechatConfig,
            Self::WechatUnavailable => ErrorKind::WechatUnavailable,
            Self::StoreUnavailable => ErrorKind::StoreUnavailable,
        }
    }

    /// Returns the HTTP status of the failure's page.
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::BadRequest | Self::WrongCallbackPath | Self::Expired | Self::UnknownLogin => {
                StatusCode::BAD_REQUEST
            }
            Self::AccessDenied
            | Self::SnapshotDenied
            | Self::Blocked
            | Self::ProfileNotGranted
            | Self::NotInWechat => StatusCode::FORBIDDEN,
            Self::RateLimited | Self::NotKept => StatusCode::TOO_MANY_REQUESTS,
            Self::CodeRejected | Self::Misconfigured => StatusCode::BAD_GATEWAY,
            Self::WechatUnavailable | Self::StoreUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Returns the failure for an error of the store or of the exchange, or `None` if another login
    /// can succeed.
    pub(crate) fn from_exchange_error(error: &Error) -> Option<Self> {
        Some(match (error.kind(), error.recommended_action()) {
            (ErrorKind::LoginRequired, _) => return None,
            (_, Some(RecommendedAction::DenyUser)) => Self::Blocked,
            (ErrorKind::WechatConfig | ErrorKind::Configuration, _) => Self::Misconfigured,
            (ErrorKind::WechatUnavailable, _) => Self::WechatUnavailable,
            (ErrorKind::StoreUnavailable, _) => Self::StoreUnavailable,
            (
                ErrorKind::TokenRefused
                | ErrorKind::WechatRefused
                | ErrorKind::InvalidState
                | ErrorKind::LoginDenied
                | ErrorKind::BadRequest,
                _,
            ) => Self::CodeRejected,
        })
    }

    /// Returns the failure for an error of a page load, or `None` if no failure describes it.
    pub(crate) fn from_page_error(kind: ErrorKind) -> Option<Self> {
        Some(match kind {
            ErrorKind::StoreUnavailable => Self::StoreUnavailable,
            ErrorKind::WechatUnavailable | ErrorKind::TokenRefused | ErrorKind::WechatRefused => {
                Self::WechatUnavailable
            }
            ErrorKind::WechatConfig => Self::Misconfigured,
            ErrorKind::BadRequest => Self::BadRequest,
            ErrorKind::LoginRequired
            | ErrorKind::InvalidState
            | ErrorKind::LoginDenied
            | ErrorKind::Configuration => return None,
        })
    }

    /// Returns the failure's name in logs, in metrics (`wechat_logins_total`) and in stored outcomes.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::WrongCallbackPath => "misplaced",
            Self::Expired => "expired",
            Self::UnknownLogin => "unknown",
            Self::AccessDenied => "denied",
            Self::SnapshotDenied => "snapshot_refused",
            Self::Blocked => "barred",
            Self::ProfileNotGranted => "profile_not_granted",
            Self::NotInWechat => "outside_wechat",
            Self::RateLimited => "too_often",
            Self::NotKept => "not_kept",
            Self::CodeRejected => "not_accepted",
            Self::Misconfigured => "misconfigured",
            Self::WechatUnavailable => "wechat_away",
            Self::StoreUnavailable => "store_away",
        }
    }

    /// All failures.
    pub(crate) const ALL: [Self; 15] = [
        Self::BadRequest,
        Self::WrongCallbackPath,
        Self::Expired,
        Self::UnknownLogin,
        Self::AccessDenied,
        Self::SnapshotDenied,
        Self::Blocked,
        Self::ProfileNotGranted,
        Self::NotInWechat,
        Self::RateLimited,
        Self::NotKept,
        Self::CodeRejected,
        Self::Misconfigured,
        Self::WechatUnavailable,
        Self::StoreUnavailable,
    ];

    /// Returns the failure with this name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|trouble| trouble.as_str() == name)
    }

    /// Returns `true` if the failure is likely to end within seconds.
    pub(crate) fn is_transient(self) -> bool {
        matches!(self, Self::WechatUnavailable | Self::StoreUnavailable)
    }
}

impl From<StateError> for LoginFailure {
    fn from(bad: StateError) -> Self {
        match bad {
            StateError::Forged => Self::UnknownLogin,
            StateError::Expired(_) => Self::Expired,
        }
    }
}
