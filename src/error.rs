//! The crate's one error type.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What went wrong, sorted by what can be done about it.
///
/// ```
/// use tower_wechat::{Error, ErrorKind};
///
/// /// Whether a nightly job that met this error may simply run again later.
/// fn passes_by_itself(error: &Error) -> bool {
///     matches!(error.kind(), ErrorKind::StoreUnavailable | ErrorKind::WechatUnavailable)
/// }
///
/// assert_eq!(ErrorKind::LoginRequired.code(), "login_required");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// There is no usable token and none can be had without the user: send them to log in.
    LoginRequired,
    /// The store does not answer, or holds something of another type under a configured name.
    StoreUnavailable,
    /// WeChat does not answer, answers nonsense, or asks for patience.
    WechatUnavailable,
    /// WeChat refuses us, not the user: a wrong secret, an IP outside the whitelist, a spent
    /// quota. Only the operator can mend it.
    WechatConfig,
    /// WeChat refuses the token of this call (40001, 40014, 42001): report it, then try once more.
    TokenRefused,
    /// WeChat refuses this call for a reason of its own; see [`Error::errcode`].
    WechatRefused,
    /// A login comes back that this browser did not begin, or too late.
    InvalidState,
    /// The user may not come in: they said no at WeChat's page, or are refused.
    LoginDenied,
    /// Something in the request cannot be right, such as a user id with a control character.
    BadRequest,
    /// The program is set up wrongly; nothing will work until that is changed.
    Configuration,
}

impl ErrorKind {
    /// The code of this kind in JSON answers and logs: `login_required`, `store_unavailable`, …
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
            Self::Configuration => "configuration",
        }
    }
}

/// What helps when a call of WeChat's API fails, as [`Error::recommended_action`](crate::Error::recommended_action)
/// tells it.
///
/// The errcodes named here are WeChat's global return codes (全局返回码). One number may ask for
/// different things: 40001 is a wrong secret where a token is asked for, and a token that is no
/// longer the latest where one is used.
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
    /// Try again later, with back-off and jitter: −1 and −1000 (system busy), an answer that
    /// makes no sense, no answer at all.
    Retry,
    /// The access token is not accepted: report it, and call once more with its successor.
    /// 40001, 40014 and 42001 on calls that carry a token.
    RenewToken,
    /// Only the user can help, by logging in again. A code that is bad, used or expired (40029,
    /// 40163, 41008, 42003); a refresh token that is dead (40030, 42002, 42007, 41003); an openid
    /// that the token does not belong to (40003); a scope that was not granted (48001 on the
    /// user's profile, 50001).
    ///
    /// With [`ErrorKind::WechatUnavailable`](crate::ErrorKind::WechatUnavailable) it means that
    /// the answer to a code exchange was lost: the code may be spent, so the same one must not be
    /// tried again.
    LogIn,
    /// Only the operator of the account can help: a wrong AppID or AppSecret (40013, 40125, 40001
    /// where a token is asked for), an IP outside the whitelist (40164, 61004, 89501, 89503, 89506,
    /// 89507), a frozen secret or account (40243, 50007), an API that the account may not use
    /// (48001, 48004, 50004). Do not retry at once; cool down.
    ContactOperator,
    /// Stop until the window has passed: 45011 until the next minute, 45009 until midnight in
    /// Beijing. [`Error::retry_after`](crate::Error::retry_after) says how long that is.
    BackOff,
    /// The call itself is wrong: a parameter is missing (41001, 41009), the method or the body is
    /// not what the API takes (43001, 43002, 44002, 47001). No retry helps.
    FixRequest,
    /// Refuse the user: blocked as high risk (40226), blacklisted (43019), restricted (50002).
    DenyUser,
    /// An errcode that has nothing to do with tokens, or that this crate does not know: whoever
    /// made the call decides. Also a call that must not be repeated by itself whose answer was
    /// lost.
    PassThrough,
}

/// What went wrong, to which thing, and what to do.
///
/// Cheap to clone: everybody who waited for one renewal gets the same error. Its text and its
/// `Debug` output never hold a secret.
///
/// ```
/// use tower_wechat::client::RecommendedAction;
/// use tower_wechat::{Error, ErrorKind, WechatClient};
///
/// let error = WechatClient::new("wx 1", "secret").unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Configuration);
///
/// /// What a support case needs to know.
/// fn tell(error: &Error) {
///     eprintln!("{error}; errcode {:?}, rid {:?}", error.errcode(), error.rid());
///     if error.recommended_action() == Some(RecommendedAction::ContactOperator) {
///         eprintln!("nobody but the operator can help");
///     } else if let Some(wait) = error.retry_after() {
///         eprintln!("worth another try in {} s", wait.as_secs());
///     }
/// }
/// # let _ = tell;
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
}

/// What an error of the store means to an operator.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct StoreDiagnosis {
    /// A sentence without an address, where the store has said what is wrong.
    pub(crate) reason: Option<&'static str>,
    /// Whether the store serves reads all the same.
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

    /// Adds to an error that nobody shares yet.
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

    /// The same error with what the store has said, in a sentence without an address.
    #[cfg(feature = "redis")]
    pub(crate) fn with_reason(self, reason: &'static str) -> Self {
        self.with(|inner| inner.store_diagnosis.reason = Some(reason))
    }

    /// The same error with a sentence for a store that has said nothing that is known.
    #[cfg(feature = "redis")]
    pub(crate) fn with_reason_if_none(self, reason: &'static str) -> Self {
        self.with(|inner| {
            inner.store_diagnosis.reason.get_or_insert(reason);
        })
    }

    /// The same error of a store that refuses writes and serves reads.
    #[cfg(feature = "redis")]
    pub(crate) fn with_reads_served(self) -> Self {
        self.with(|inner| inner.store_diagnosis.serves_reads = true)
    }

    /// What an error of the store means to an operator.
    pub(crate) fn store_diagnosis(&self) -> StoreDiagnosis {
        self.0.store_diagnosis
    }

    /// The same error with another wait; the original stays with those who share it.
    pub(crate) fn clone_with_retry_after(&self, retry_after: Duration) -> Self {
        Self(Arc::new(Inner {
            kind: self.kind(),
            message: self.0.message.clone(),
            errcode: self.0.errcode,
            rid: self.0.rid.clone(),
            retry_after: Some(retry_after),
            recommended_action: self.0.recommended_action,
            store_diagnosis: self.0.store_diagnosis,
        }))
    }

    /// What went wrong, sorted by what can be done about it.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The errcode that WeChat answered with, where it did.
    pub fn errcode(&self) -> Option<i64> {
        self.0.errcode
    }

    /// WeChat's name for the failed request (`rid`), which its support asks for.
    pub fn rid(&self) -> Option<&str> {
        self.0.rid.as_deref()
    }

    /// What helps against it, where the error comes from a call of WeChat's API.
    pub fn recommended_action(&self) -> Option<RecommendedAction> {
        self.0.recommended_action
    }

    /// When it makes sense to try again, where that is known.
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

/// Errors that can say whether WeChat refused the token of a call (errcodes 40001, 40014, 42001).
///
/// ```
/// use tower_wechat::client::InvalidToken;
/// use tower_wechat::Error;
///
/// #[derive(Debug)]
/// enum MyError { Wechat(Error), Other }
///
/// impl InvalidToken for MyError {
///     fn is_token_invalid(&self) -> bool {
///         matches!(self, MyError::Wechat(error) if error.is_token_invalid())
///     }
/// }
/// ```
pub trait InvalidToken {
    /// Whether a new token may help.
    fn is_token_invalid(&self) -> bool;
}

impl InvalidToken for Error {
    fn is_token_invalid(&self) -> bool {
        self.kind() == ErrorKind::TokenRefused
    }
}
