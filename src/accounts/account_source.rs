//! The source of an account's token.

use super::center_client::TokenCenterClient;
use crate::credential::AppId;
#[cfg(feature = "redis")]
use crate::store::{ExternalToken, RedisStore};
use crate::wechat::WechatClient;

/// The source of an account's token, as [`AccountTokens::new`](super::AccountTokens::new) takes it.
///
/// | source | made from |
/// |---|---|
/// | WeChat | a [`WechatClient`] |
/// | a token center | a [`TokenCenterClient`] |
#[cfg_attr(
    feature = "redis",
    doc = "| another system, which keeps the token in Redis | [`ExternalToken::source`] |"
)]
#[derive(Debug, Clone)]
pub struct AccountSource(AccountSourceKind);

/// The kinds of sources.
#[derive(Debug, Clone)]
pub(crate) enum AccountSourceKind {
    /// WeChat issues the token.
    Wechat(WechatClient),
    /// A token center hands the token out.
    TokenCenter(TokenCenterClient),
    /// Another system keeps the token in Redis. The ticket comes from WeChat.
    #[cfg(feature = "redis")]
    External(WechatClient, RedisStore, ExternalToken),
}

impl AccountSource {
    pub(super) fn kind(&self) -> &AccountSourceKind {
        &self.0
    }
}

impl AccountSourceKind {
    /// Returns the account that the source issues tokens for.
    pub(super) fn app_id(&self) -> &AppId {
        match self {
            Self::Wechat(wechat) => wechat.app_id(),
            Self::TokenCenter(center) => center.app_id(),
            #[cfg(feature = "redis")]
            Self::External(wechat, ..) => wechat.app_id(),
        }
    }
}

impl From<WechatClient> for AccountSource {
    fn from(wechat: WechatClient) -> Self {
        Self(AccountSourceKind::Wechat(wechat))
    }
}

impl From<TokenCenterClient> for AccountSource {
    fn from(center: TokenCenterClient) -> Self {
        Self(AccountSourceKind::TokenCenter(center))
    }
}

#[cfg(feature = "redis")]
impl ExternalToken {
    /// Returns a source that reads the token from `redis` and never fetches, renews or writes it.
    ///
    /// Use it while a service in another language owns the account's token, so that both services
    /// use one token. A value that cannot be read counts as missing, and is logged. The client
    /// fetches the `jsapi_ticket`, which this crate keeps in the store of the
    /// [`AccountTokens`](super::AccountTokens).
    ///
    /// ```
    /// use tower_wechat::redis::ExternalToken;
    /// use tower_wechat::{AccountTokens, RedisStore, WechatClient};
    ///
    /// fn accounts(wechat: WechatClient, store: RedisStore) -> AccountTokens {
    ///     let source = ExternalToken::wx_java().source(wechat, store.clone());
    ///     AccountTokens::new(source, store)
    /// }
    /// ```
    #[must_use]
    pub fn source(self, wechat: WechatClient, redis: RedisStore) -> AccountSource {
        AccountSource(AccountSourceKind::External(wechat, redis, self))
    }
}
