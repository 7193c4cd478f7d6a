//! What helps when WeChat refuses a call.

/// What helps when a call of WeChat's API fails, as [`Error::recommended_action`](crate::Error::recommended_action)
/// tells it.
///
/// The errcodes named here are WeChat's global return codes (全局返回码). One number may ask for
/// different things: 40001 is a wrong secret where a token is asked for, and a token that is no
/// longer the latest where one is used.
///
/// ```
/// use tower_wechat::{Error, RecommendedAction};
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
