//! The error type of the crate, and the action that it recommends.

mod invalid_token;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

pub use self::invalid_token::InvalidToken;

/// Kind of an error, by what can be done about it.
///
/// ```
/// use tower_wechat::{Error, ErrorKind};
///
/// /// Returns `true` if a nightly job that got this error may run again later.
/// fn passes_by_itself(error: &Error) -> bool {
///     matches!(error.kind(), ErrorKind::StoreUnavailable | ErrorKind::WechatUnavailable)
/// }
///
/// assert_eq!(ErrorKind::LoginRequired.code(), "login_required");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The user has to log in, because there is no usable token, or the user has not granted the
    /// scope of the call.
    LoginRequired,
    /// The store does not answer or rejects a command, for example because it has no free memory,
    /// or because a configured name holds a value of another type.
    StoreUnavailable,
    /// WeChat does not answer, returns an invalid response, or limits the rate of calls.
    WechatUnavailable,
    /// WeChat rejects the account, not the user: a wrong secret, an IP outside the whitelist, an
    /// exhausted quota. Only the operator can fix the cause.
    WechatConfig,
    /// WeChat rejects the token of a call (40001, 40014, 42001). Report the token, then retry once.
    TokenRefused,
    /// WeChat rejects a call for a reason that no other kind covers; see [`Error::errcode`].
    WechatRefused,
    /// The browser did not start the login whose callback it requests, or the login took too long.
    InvalidState,
    /// The user must not log in: the user declined at WeChat, or is blocked.
    LoginDenied,
    /// The request contains an invalid value, such as a user id with a control character.
    BadRequest,
    /// The layer serves no account with the AppID that the request names, or the request names none.
    UnknownAccount,
    /// The [`AccountRegistry`](crate::layer::AccountRegistry) fails, or does not answer in time.
    AccountsUnavailable,
    /// The third-party platform (第三方平台) waits for WeChat's verify ticket, or for the list of its
    /// accounts. WeChat pushes a ticket every ten minutes.
    PlatformStarting,
    /// The account is not authorized to the third-party platform (第三方平台) any more, or the platform
    /// has lost its refresh token. The owner of the account has to authorize it again.
    AccountNotAuthorized,
    /// The configuration of the program is wrong. No retry helps.
    Configuration,
    /// The application rejected a request with [`Rejection::new`](crate::Rejection::new), or its hook
    /// of `AuthorizePages::on_authorized` failed. No [`Error`] has this kind.
    Application,
}

impl ErrorKind {
    /// Returns the code of this kind in JSON responses and logs: `login_required`,
    /// `store_unavailable`, …
    pub const fn code(self) -> &'static str {
        match self {
            Self::LoginRequired => "login_required",
            Self::StoreUnavailable => "store_unavailable",
            Self::WechatUnavailable => "wechat_unavailable",
            Self::WechatConfig => "wechat_config",
            Self::TokenRefused => "token_refused",
            Self::WechatRefused => "wechat_refused",
            Self::InvalidState => "invalid_state",
            Self::LoginDenied => "login_denied",
            Self::BadRequest => "bad_request",
            Self::UnknownAccount => "unknown_account",
            Self::AccountsUnavailable => "accounts_unavailable",
            Self::PlatformStarting => "platform_starting",
            Self::AccountNotAuthorized => "account_not_authorised",
            Self::Configuration => "configuration",
            Self::Application => "application",
        }
    }

    /// Returns the status of the response to a request that failed with an error of this kind. 503
    /// means that the request may succeed later, also after the operator has acted.
    pub(crate) const fn status(self) -> StatusCode {
        match self {
            Self::LoginRequired => StatusCode::UNAUTHORIZED,
            Self::BadRequest | Self::InvalidState => StatusCode::BAD_REQUEST,
            Self::LoginDenied => StatusCode::FORBIDDEN,
            Self::UnknownAccount => StatusCode::NOT_FOUND,
            Self::Configuration | Self::Application => StatusCode::INTERNAL_SERVER_ERROR,
            Self::WechatRefused
            | Self::AccountsUnavailable
            | Self::PlatformStarting
            | Self::AccountNotAuthorized
            | Self::StoreUnavailable
            | Self::WechatUnavailable
            | Self::WechatConfig
            | Self::TokenRefused => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// Recommended action after a failed call of WeChat's API: see
/// [`Error::recommended_action`](crate::Error::recommended_action).
///
/// The errcodes named here are WeChat's global return codes (全局返回码). One number may have
/// different meanings: 40001 is a wrong secret in a request for a token, and a replaced token in a
/// call that carries one.
///
/// ```
/// use tower_wechat::client::RecommendedAction;
/// use tower_wechat::Error;
///
/// fn worth_another_try(error: &Error) -> bool {
///     error.recommended_action() == Some(RecommendedAction::Retry)
/// }
/// # let error = tower_wechat::WechatClient::new("", "secret").unwrap_err();
/// # assert!(!worth_another_try(&error));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RecommendedAction {
    /// Retry later, with back-off and jitter: −1 and −1000 (system busy), an invalid response, no
    /// response, an outdated ticket of a third-party platform (61005, 61006).
    Retry,
    /// WeChat does not accept the access token of a call (40001, 40014, 42001), or that of a
    /// third-party platform (also 42006, 61014): report the token, then repeat the call once with
    /// the next token.
    RenewToken,
    /// Only the user can fix the cause, by logging in again: an invalid, used or expired code
    /// (40029, 40163, 41008, 42003); a revoked or expired refresh token (40030, 42002, 42007,
    /// 41003); an openid that does not belong to the token (40003); a scope that was not granted
    /// (48001 on the user's profile, 50001). These lists name the frequent errcodes, not all.
    ///
    /// With [`ErrorKind::WechatUnavailable`], this action means that the response to a code
    /// exchange was lost. WeChat may have accepted the code, so do not use the code again.
    LogIn,
    /// Only the operator of the account can fix the cause: a wrong AppID or AppSecret (40013,
    /// 40125, 40001 on a request for a token), an IP outside the whitelist (40164, 61004, 89501,
    /// 89503, 89506, 89507), a frozen secret or account (40243, 50007), an API that the account may
    /// not use (48001, 48004, 50004). For a third-party platform also: an account that has not
    /// authorized the platform (61003, 61023) or this API (61007), an invalid code of an
    /// authorization (61009, 61010). Do not retry at once.
    ContactOperator,
    /// Stop these calls until the window of WeChat's rate limit has passed: 45011 until the next
    /// minute, 45009 until midnight in Beijing. [`Error::retry_after`](crate::Error::retry_after)
    /// returns the wait.
    BackOff,
    /// The call itself is wrong: a parameter is missing (41001, 41009), or the API does not accept
    /// the method or the body (43001, 43002, 44002, 47001). No retry helps.
    FixRequest,
    /// Deny access to the user: blocked as high risk (40226), blacklisted (43019), restricted
    /// (50002).
    DenyUser,
    /// The caller decides, because the errcode does not concern tokens, or this crate does not list
    /// the errcode. This action is also for a call whose response was lost and that must not be
    /// repeated automatically.
    PassThrough,
}

/// The error type of this crate, with the kind of the failure and the recommended action.
///
/// Clones are cheap: all callers that waited for one renewal get the same error. The text and the
/// `Debug` output contain no secret.
///
/// ```
/// use tower_wechat::client::RecommendedAction;
/// use tower_wechat::{Error, ErrorKind, WechatClient};
///
/// let error = WechatClient::new("wx 1", "secret").unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Configuration);
///
/// /// Prints what a support case needs to know.
/// fn report(error: &Error) {
///     eprintln!("{error}; errcode {:?}, rid {:?}", error.errcode(), error.rid());
///     if error.recommended_action() == Some(RecommendedAction::ContactOperator) {
///         eprintln!("nobody but the operator can help");
///     } else if let Some(wait) = error.retry_after() {
///         eprintln!("worth another try in {} s", wait.as_secs());
///     }
/// }
/// # let _ = report;
/// ```
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    errcode: Option<i64>,
    rid: Option<Box<str>>,
    retry_after: Option<Duration>,
    recommended_action: Option<RecommendedAction>,
    store_diagnosis: StoreDiagnosis,
    /// `true` if a call to WeChat was not made because another credential was not available.
    missing_prerequisite: bool,
}

/// What a store error means for an operator: its cause, and whether reads still work.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct StoreDiagnosis {
    /// The cause, as a sentence without an address. `None` if no cause is known.
    pub(crate) reason: Option<&'static str>,
    /// `true` if the store rejects writes but still serves reads.
    pub(crate) serves_reads: bool,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Arc::new(Inner {
            kind,
            message: message.into(),
            errcode: None,
            rid: None,
            retry_after: None,
            recommended_action: None,
            store_diagnosis: StoreDiagnosis::default(),
            missing_prerequisite: false,
        }))
    }

    /// Creates an error of kind [`ErrorKind::Configuration`].
    pub(crate) fn configuration(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Configuration, message)
    }

    /// Creates an error of kind [`ErrorKind::StoreUnavailable`].
    pub(crate) fn store_unavailable(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::StoreUnavailable, message)
    }

    /// Applies `change` to an error that has no clones. An error with clones stays unchanged.
    fn with(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            change(inner);
        }
        self
    }

    pub(crate) fn with_errcode(self, errcode: i64, rid: Option<&str>) -> Self {
        self.with(|inner| {
            inner.errcode = Some(errcode);
            inner.rid = rid.map(Box::from);
        })
    }

    pub(crate) fn with_retry_after(self, retry_after: Duration) -> Self {
        self.with(|inner| inner.retry_after = Some(retry_after))
    }

    pub(crate) fn with_recommended_action(self, action: RecommendedAction) -> Self {
        self.with(|inner| inner.recommended_action = Some(action))
    }

    /// Adds the cause of a store error, as a sentence without an address.
    #[cfg(feature = "redis")]
    pub(crate) fn with_reason(self, reason: &'static str) -> Self {
        self.with(|inner| inner.store_diagnosis.reason = Some(reason))
    }

    /// Adds the cause of a store error, unless the error already has one.
    #[cfg(feature = "redis")]
    pub(crate) fn with_reason_if_none(self, reason: &'static str) -> Self {
        self.with(|inner| {
            inner.store_diagnosis.reason.get_or_insert(reason);
        })
    }

    /// Marks the error as one of a store that rejects writes and serves reads.
    #[cfg(feature = "redis")]
    pub(crate) fn with_reads_served(self) -> Self {
        self.with(|inner| inner.store_diagnosis.serves_reads = true)
    }

    /// Returns the cause of a store error for an operator, and whether the store still serves
    /// reads.
    pub(crate) fn store_diagnosis(&self) -> StoreDiagnosis {
        self.0.store_diagnosis
    }

    /// Returns a copy of the error with this [`retry_after`](Self::retry_after). The original and
    /// its clones stay unchanged.
    pub(crate) fn clone_with_retry_after(&self, retry_after: Duration) -> Self {
        Self(Arc::new(Inner {
            retry_after: Some(retry_after),
            ..self.clone_inner()
        }))
    }

    /// Returns a copy that is marked as the error of a missing prerequisite: another credential, on
    /// which a call depends, is not available, and the call was not made.
    #[cfg(feature = "platform")]
    pub(crate) fn as_missing_prerequisite(&self) -> Self {
        Self(Arc::new(Inner {
            missing_prerequisite: true,
            ..self.clone_inner()
        }))
    }

    /// Returns `true` if a call was not made because another credential, on which the call depends,
    /// is not available.
    pub(crate) fn is_missing_prerequisite(&self) -> bool {
        self.0.missing_prerequisite || self.kind() == ErrorKind::PlatformStarting
    }

    fn clone_inner(&self) -> Inner {
        Inner {
            kind: self.kind(),
            message: self.0.message.clone(),
            errcode: self.0.errcode,
            rid: self.0.rid.clone(),
            retry_after: self.0.retry_after,
            recommended_action: self.0.recommended_action,
            store_diagnosis: self.0.store_diagnosis,
            missing_prerequisite: self.0.missing_prerequisite,
        }
    }

    /// Returns the kind of the error.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns the status of the response to a request that this error ends. A
    /// [`Rejection`](crate::Rejection) made from the error has the same status.
    ///
    /// | status | kinds |
    /// |---|---|
    /// | 400 | [`BadRequest`](ErrorKind::BadRequest), [`InvalidState`](ErrorKind::InvalidState) |
    /// | 401 | [`LoginRequired`](ErrorKind::LoginRequired) |
    /// | 403 | [`LoginDenied`](ErrorKind::LoginDenied) |
    /// | 500 | [`Configuration`](ErrorKind::Configuration) |
    /// | 503 | all other kinds |
    ///
    /// ```
    /// let error = tower_wechat::WechatClient::new("wx 1", "secret").unwrap_err();
    /// assert_eq!(error.status(), http::StatusCode::INTERNAL_SERVER_ERROR);
    /// ```
    pub fn status(&self) -> StatusCode {
        self.kind().status()
    }

    /// Returns the errcode of the response, if WeChat sent one.
    pub fn errcode(&self) -> Option<i64> {
        self.0.errcode
    }

    /// Returns WeChat's id of the failed request (`rid`), which its support asks for.
    pub fn rid(&self) -> Option<&str> {
        self.0.rid.as_deref()
    }

    /// Returns the recommended action, if the error comes from a call of WeChat's API.
    pub fn recommended_action(&self) -> Option<RecommendedAction> {
        self.0.recommended_action
    }

    /// Returns the time after which a retry may succeed, if it is known.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Error");
        out.field("kind", &self.0.kind)
            .field("message", &self.0.message);
        if let Some(errcode) = self.0.errcode {
            out.field("errcode", &errcode);
        }
        if let Some(rid) = &self.0.rid {
            out.field("rid", rid);
        }
        if let Some(reaction) = self.0.recommended_action {
            out.field("reaction", &reaction);
        }
        if let Some(wait) = self.0.retry_after {
            out.field("retry_after", &wait);
        }
        out.finish()
    }
}

impl std::error::Error for Error {}

/// Returns a wait as the header `Retry-After` expresses it: in whole seconds, rounded up.
pub(crate) fn retry_after_seconds(wait: Duration) -> u64 {
    wait.as_secs()
        .saturating_add(u64::from(wait.subsec_nanos() > 0))
}
