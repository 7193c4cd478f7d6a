//! The two WeChat calls that return an account's token.

/// The WeChat call that the account's token comes from.
///
/// The two calls return different tokens, which do not affect each other. All services of an
/// account that share a store must use the same mode.
///
/// ```
/// use tower_wechat::account::TokenMode;
/// use tower_wechat::{AccountTokens, MemoryStore, WechatClient};
///
/// # fn main() -> Result<(), tower_wechat::Error> {
/// # let wechat = WechatClient::new("wx0123456789abcdef", "secret")?;
/// // All other services of the account call `cgi-bin/token`, and share this store:
/// let accounts = AccountTokens::builder(wechat, MemoryStore::new()).mode(TokenMode::Plain).build();
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
#[non_exhaustive]
pub enum TokenMode {
    /// `cgi-bin/stable_token`: WeChat returns the same token until its last five minutes. Services
    /// without a common store do not invalidate each other's tokens.
    #[default]
    Stable,
    /// `cgi-bin/token`: each call creates a new token. The previous token stays valid for five
    /// minutes. WeChat allows about 2,000 calls a day.
    Plain,
}
