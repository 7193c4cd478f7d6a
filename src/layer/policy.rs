//! The policy for requests without a user.

#[cfg(doc)]
use super::{WechatLayer, WechatUser};

/// The policy for a request without a user, or whose user has no usable token.
///
/// ```
/// use axum::{Router, routing::get};
/// use tower_wechat::{
///     MemoryStore, Policy, TrustedHeader, UserTokens, WechatClient, WechatLayer, WechatUser,
/// };
///
/// /// Serves every visitor, and greets users by their id.
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
    /// The layer rejects the request with 401 and a JSON body. If a browser opens a page and the
    /// layer has a login, the layer redirects it to WeChat instead.
    #[default]
    Required,
    /// The request reaches the handler without a [`WechatUser`].
    ///
    /// This includes requests of anonymous visitors, and of users who have not granted the scope of
    /// [`require_scope`](WechatLayer::require_scope). It also includes users whose token has
    /// expired while WeChat or the store fails. A request waits for its token for one second at
    /// most.
    ///
    /// A handler that takes a [`WechatUser`] rejects such a request as the layer does under
    /// `Required`.
    Optional,
}
