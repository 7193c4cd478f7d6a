//! The policy for requests without a user.

#[cfg(doc)]
use super::{WechatLayer, WechatUser};

/// What happens to a request without a user, or whose user has no usable token.
///
/// ```
/// use axum::{Router, routing::get};
/// use tower_wechat::{
///     MemoryStore, Policy, TrustedHeader, UserTokens, WechatClient, WechatLayer, WechatUser,
/// };
///
/// /// Open to everybody, and friendlier to those who are known.
/// async fn start(user: Option<WechatUser>) -> String {
///     user.map_or_else(|| "hello stranger".to_owned(), |user| format!("hello {}", user.id()))
/// }
///
/// # fn main() -> Result<(), tower_wechat::Error> {
/// # let users = UserTokens::new(WechatClient::new("wx01", "secret")?, MemoryStore::new());
/// let layer = WechatLayer::new(users)
///     .identity(TrustedHeader::new("x-user-id")?)
///     .policy(Policy::Optional);
/// let app: Router = Router::new().route("/", get(start)).layer(layer);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Policy {
    /// It is answered: 401 with a JSON body; where a login is mounted and a browser opens a page,
    /// with a redirect to WeChat.
    #[default]
    Required,
    /// It passes, without a [`WechatUser`]: the page is served in any case. That holds for
    /// strangers, for users who have granted less than
    /// [`require_scope`](WechatLayer::require_scope) asks for, and for users whose token has
    /// expired while WeChat or the store fails; such a request waits for one second at most. A
    /// handler that takes a [`WechatUser`] all the same answers as the layer would have.
    Optional,
}
