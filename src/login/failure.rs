//! Reasons for which a login fails, with their names, kinds and statuses.

use http::StatusCode;

use super::state::StateError;
use crate::error::{Error, ErrorKind, RecommendedAction};

/// Defines [`LoginFailure`] from one table. Each row is a variant, its name, the kind of its error,
/// and the HTTP status of its page.
macro_rules! login_failures {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $kind:ident, $status:ident;)+) => {
        /// Reason for which a login fails.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub(crate) enum LoginFailure {
            $($(#[$doc])* $variant,)+
        }

        impl LoginFailure {
            /// All variants, in the order of the table.
            pub(crate) const ALL: [Self; [$($name),+].len()] = [$(Self::$variant),+];

            /// Returns the failure's name in logs, in metrics (`wechat_logins_total`) and in stored
            /// outcomes.
            pub(crate) const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// Returns the [`ErrorKind`] of the failure.
            pub(crate) fn kind(self) -> ErrorKind {
                match self {
                    $(Self::$variant => ErrorKind::$kind,)+
                }
            }

            /// Returns the HTTP status of the failure's page.
            pub(crate) fn status(self) -> StatusCode {
                match self {
                    $(Self::$variant => StatusCode::$status,)+
                }
            }
        }
    };
}

login_failures! {
    /// The request is malformed, for example a callback without a query.
    BadRequest = "bad_request", BadRequest, BAD_REQUEST;
    /// WeChat has sent the user to a path that is not the callback.
    WrongCallbackPath = "misplaced", BadRequest, BAD_REQUEST;
    /// The callback arrived after the login had expired.
    Expired = "expired", InvalidState, BAD_REQUEST;
    /// This browser or this application did not begin the login, or the code belongs to another
    /// login.
    UnknownLogin = "unknown", InvalidState, BAD_REQUEST;
    /// The user denied access at WeChat's page.
    AccessDenied = "denied", LoginDenied, FORBIDDEN;
    /// The user is the virtual user of a snapshot page, and the login rejects virtual users.
    SnapshotDenied = "snapshot_refused", LoginDenied, FORBIDDEN;
    /// WeChat has blocked this user.
    Blocked = "barred", LoginDenied, FORBIDDEN;
    /// The user has declined to share the profile, which the page requires.
    ProfileNotGranted = "profile_not_granted", LoginDenied, FORBIDDEN;
    /// The browser is not WeChat's, and the login accepts no other browser.
    NotInWechat = "outside_wechat", LoginDenied, FORBIDDEN;
    /// A page asks for a QR code, and the login of this browser does not begin with one.
    NoQrCode = "no_qr_code", BadRequest, BAD_REQUEST;
    /// The browser has logged in or retried too often, has sent too many codes, or returns from
    /// WeChat without a callback.
    RateLimited = "too_often", LoginDenied, TOO_MANY_REQUESTS;
    /// The browser's logins succeed, but its page loads after these logins have no user.
    NotKept = "not_kept", LoginDenied, TOO_MANY_REQUESTS;
    /// WeChat has rejected the code, and the login is not retried.
    CodeRejected = "not_accepted", WechatRefused, BAD_GATEWAY;
    /// WeChat rejects the account, or the application is configured wrongly. An operator must act.
    Misconfigured = "misconfigured", WechatConfig, BAD_GATEWAY;
    /// The application's hook has returned an invalid user id.
    InvalidUserId = "invalid_user_id", Configuration, INTERNAL_SERVER_ERROR;
    /// The application's hook has failed, timed out or panicked.
    HookFailed = "hook_failed", StoreUnavailable, SERVICE_UNAVAILABLE;
    /// WeChat fails or responds too slowly, or this process exchanges too many codes.
    WechatUnavailable = "wechat_away", WechatUnavailable, SERVICE_UNAVAILABLE;
    /// The store is unreachable or fails.
    StoreUnavailable = "store_away", StoreUnavailable, SERVICE_UNAVAILABLE;
}

impl LoginFailure {
    /// Returns the failure for an error of the store or of the exchange, or `None` if another login
    /// can succeed.
    pub(crate) fn from_exchange_error(error: &Error) -> Option<Self> {
        Some(match (error.kind(), error.recommended_action()) {
            (ErrorKind::LoginRequired, _) => return None,
            (_, Some(RecommendedAction::DenyUser)) => Self::Blocked,
            (
                ErrorKind::WechatConfig
                | ErrorKind::Configuration
                | ErrorKind::AccountNotAuthorized,
                _,
            ) => Self::Misconfigured,
            // WeChat rejects only the component token of a platform here, and keeps the code valid.
            (
                ErrorKind::WechatUnavailable
                | ErrorKind::PlatformStarting
                | ErrorKind::TokenRefused,
                _,
            ) => Self::WechatUnavailable,
            (ErrorKind::StoreUnavailable, _) => Self::StoreUnavailable,
            (
                ErrorKind::WechatRefused
                | ErrorKind::InvalidState
                | ErrorKind::LoginDenied
                | ErrorKind::BadRequest
                | ErrorKind::UnknownAccount
                | ErrorKind::AccountsUnavailable
                | ErrorKind::Application,
                _,
            ) => Self::CodeRejected,
        })
    }

    /// Returns the failure for an error of a page load, or `None` if no failure describes it.
    pub(crate) fn from_page_error(kind: ErrorKind) -> Option<Self> {
        Some(match kind {
            ErrorKind::StoreUnavailable | ErrorKind::AccountsUnavailable => Self::StoreUnavailable,
            ErrorKind::WechatUnavailable
            | ErrorKind::TokenRefused
            | ErrorKind::WechatRefused
            | ErrorKind::PlatformStarting => Self::WechatUnavailable,
            ErrorKind::WechatConfig | ErrorKind::AccountNotAuthorized => Self::Misconfigured,
            ErrorKind::BadRequest => Self::BadRequest,
            ErrorKind::LoginRequired
            | ErrorKind::InvalidState
            | ErrorKind::LoginDenied
            | ErrorKind::UnknownAccount
            | ErrorKind::Configuration
            | ErrorKind::Application => return None,
        })
    }

    /// Returns the failure whose [`as_str`](Self::as_str) is this name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|failure| failure.as_str() == name)
    }

    /// Returns `true` if the failure is likely to end within seconds.
    pub(crate) fn is_transient(self) -> bool {
        matches!(
            self,
            Self::WechatUnavailable | Self::StoreUnavailable | Self::HookFailed
        )
    }
}

impl From<StateError> for LoginFailure {
    fn from(error: StateError) -> Self {
        match error {
            StateError::Forged => Self::UnknownLogin,
            StateError::Expired(_) => Self::Expired,
        }
    }
}
