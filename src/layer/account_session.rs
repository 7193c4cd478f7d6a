//! The identity of a layer of several accounts: the session cookie of the selected account.

use super::WechatAccount;
use crate::identity::{Identify, Identity, RequestHead};

/// Identity that reads the session cookie of the account that was selected for the request.
///
/// [`WechatLayer::for_accounts`](crate::WechatLayer::for_accounts) uses it by default. Each account has
/// its own cookie, with another name and MAC, so one browser can be signed in to several accounts. A
/// request of an account without a login has no user.
///
/// An identity of the application may wrap it:
///
/// ```
/// use tower_wechat::identity::{Identify, Identity};
/// use tower_wechat::layer::AccountSession;
/// use tower_wechat::{RequestHead, TrustedHeader};
///
/// /// Reads the user from the header of a gateway, or else from the account's session.
/// struct HeaderOrSession(TrustedHeader);
///
/// impl Identify for HeaderOrSession {
///     fn identify<'a>(&self, head: &RequestHead<'a>) -> Identity<'a> {
///         match self.0.identify(head) {
///             Identity::Anonymous => AccountSession.identify(head),
///             other => other,
///         }
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct AccountSession;

impl Identify for AccountSession {
    fn identify<'a>(&self, head: &RequestHead<'a>) -> Identity<'a> {
        let account = head.extensions.get::<WechatAccount>();
        match account.and_then(WechatAccount::session_cookie) {
            Some(session) => session.identify(head),
            None => Identity::Anonymous,
        }
    }
}
