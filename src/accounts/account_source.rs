//! Sources of an account's token.

#[cfg(feature = "platform")]
use std::sync::Arc;

use super::center_client::TokenCenterClient;
use crate::credential::AppId;
#[cfg(feature = "redis")]
use crate::store::{ExternalToken, RedisStore};
#[cfg(feature = "platform")]
use crate::wechat::PlatformAuthority;
use crate::wechat::WechatClient;

/// Source of an account's token, for [`AccountTokens::new`](super::AccountTokens::new).
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

/// Kinds of sources. Every `match` over this enum is exhaustive, so the compiler names each place
/// that has to handle a new kind.
#[derive(Debug, Clone)]
pub(crate) enum AccountSourceKind {
    /// A client of WeChat, which issues the account's token.
    Wechat(WechatClient),
    /// A client that works on behalf of the account, whose token a third-party platform renews.
    #[cfg(feature = "platform")]
    OnBehalf(WechatClient, Arc<dyn PlatformAuthority>),
    /// A client of a token center, which returns the account's token.
    TokenCenter(TokenCenterClient),
    /// The Redis in which another system keeps the account's token, and a client of WeChat for the
    /// ticket.
    #[cfg(feature = "redis")]
    External(WechatClient, RedisStore, ExternalToken),
}

impl AccountSource {
    /// Returns the kind of the source, with its clients.
    pub(super) fn kind(&self) -> &AccountSourceKind {
        &self.0
    }
}

impl AccountSourceKind {
    /// Returns the account that the source issues tokens for.
    pub(super) fn app_id(&self) -> &AppId {
        match self {
            Self::Wechat(wechat) => wechat.app_id(),
            #[cfg(feature = "platform")]
            Self::OnBehalf(wechat, _) => wechat.app_id(),
            Self::TokenCenter(center) => center.app_id(),
            #[cfg(feature = "redis")]
            Self::External(wechat, ..) => wechat.app_id(),
        }
    }
}

impl From<WechatClient> for AccountSource {
    fn from(wechat: WechatClient) -> Self {
        #[cfg(feature = "platform")]
        if let Some(authority) = wechat.platform_authority() {
            let authority = Arc::clone(authority);
            return Self(AccountSourceKind::OnBehalf(wechat, authority));
        }
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
    /// Returns a source that reads the token from `redis`, and never fetches, renews or writes the
    /// token.
    ///
    /// Use this source while a service in another language keeps the account's token, so that both
    /// services use one token. An invalid value is logged and counts as missing.
    ///
    /// The `jsapi_ticket` still comes from WeChat through `wechat`. This crate keeps the ticket in
    /// the store of the [`AccountTokens`](super::AccountTokens).
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
