//! Reasons for which a login fails, with their names, kinds and statuses.

use http::StatusCode;

use super::state::StateError;
use crate::error::{Error, ErrorKind, RecommendedAction};

/// What can stand in a user's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum LoginFailure {
    /// The request makes no sense.
    BadRequest,
    /// WeChat has sent the user back to a path that is not the callback's.
    WrongCallbackPath,
    /// The login has expired.
    Expired,
    /// The login is not one of this browser, or none of ours.
    UnknownLogin,
    /// The user said no at WeChat's page.
    AccessDenied,
    /// The user is virtual, and this application does not take such.
    SnapshotDenied,
    /// WeChat says that this user must not come in.
    Blocked,
    /// The user was asked for their profile and has not granted it.
    ProfileNotGranted,
    /// This is no browser of WeChat's.
    NotInWechat,
    /// The login began anew too often.
    RateLimited,
    /// Logins succeed, and the requests behind them name nobody.
    NotKept,
    /// WeChat does not take the code.
    CodeRejected,
    /// WeChat does not take this service.
    Misconfigured,
    /// WeChat does not answer.
    WechatUnavailable,
    /// The store does not answer.
    StoreUnavailable,
}

impl LoginFailure {
    /// What went wrong, by the one list of kinds.
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

    /// What an error of the store or of the exchange means to the user; `None` where beginning
    /// anew helps.
    pub(crate) fn from_exchange_error(error: &Error) -> Option<Self> {
        Some(match (error.kind(), error.recommended_action()) {
            (ErrorKind::LoginRequired, _) => return None,
            (_, Some(RecommendedAction::DenyUser)) => Self::Blocked,
            (ErrorKind::WechatConfig | ErrorKind::Configuration, _) => Self::Misconfigured,
            (ErrorKind::WechatUnavailable, _) => Self::WechatUnavailable,
            (ErrorKind::StoreUnavailable, _) => Self::StoreUnavailable,
            _ => Self::CodeRejected,
        })
    }

    /// What an error that stands in a page's way means to the user.
    pub(crate) fn from_page_error(kind: ErrorKind) -> Option<Self> {
        Some(match kind {
            ErrorKind::StoreUnavailable => Self::StoreUnavailable,
            ErrorKind::WechatUnavailable | ErrorKind::TokenRefused | ErrorKind::WechatRefused => {
                Self::WechatUnavailable
            }
            ErrorKind::WechatConfig => Self::Misconfigured,
            ErrorKind::BadRequest => Self::BadRequest,
            _ => return None,
        })
    }

    /// Its name in logs and in what the store keeps.
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

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|trouble| trouble.as_str() == name)
    }

    /// Whether it may be gone in a moment.
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
