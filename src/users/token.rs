//! A user's token, as callers receive it.

use std::fmt;

use crate::clock::Timestamp;
use crate::credential::{AccessToken, Lifetime};
use crate::provider::CacheEntry;

/// A user's access token, its lifetime, and the stored details of the user. Cheap to clone.
///
/// The value does not change. Ask [`UserTokens`](crate::UserTokens) again for a later token.
///
/// ```
/// # use tower_wechat::{Error, UserId, UserTokens};
/// # async fn print(users: &UserTokens, user: &UserId) -> Result<(), Error> {
/// let token = users.get(user).await?;
/// println!("{} is due at {:?}", token.user_id(), token.lifetime().renew_at());
/// println!("openid {:?}, unionid {:?}", token.openid(), token.unionid());
/// println!("granted {:?}", token.scope());
/// // Logs show the fingerprint of a secret, never the secret itself.
/// println!("token {}", token.access_token().fingerprint());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct UserToken(CacheEntry);

impl UserToken {
    #[inline]
    pub(crate) fn new(entry: CacheEntry) -> Self {
        Self(entry)
    }

    /// Returns `true` if WeChat granted the token to this process. The first callers that received
    /// the token waited for WeChat.
    pub(crate) fn was_renewed(&self) -> bool {
        self.0.was_renewed()
    }

    /// Returns the id under which the store holds the user's tokens.
    pub fn user_id(&self) -> &str {
        self.0.id()
    }

    /// Returns the secret, which calls of WeChat's API carry.
    pub fn access_token(&self) -> &AccessToken {
        self.0.secret()
    }

    /// Returns the times at which the token is due for renewal and expires.
    pub fn lifetime(&self) -> Lifetime {
        self.0.lifetime()
    }

    /// Returns the time of the user's last logout everywhere. Sessions of earlier logins are
    /// revoked.
    #[inline]
    pub(crate) fn sessions_valid_from(&self) -> Option<Timestamp> {
        self.0.sessions_from()
    }

    /// Returns the user's openid, or `None` if the stored tokens do not contain it.
    pub fn openid(&self) -> Option<&str> {
        self.0.openid()
    }

    /// Returns the granted scopes, separated by commas, or `None` if the stored tokens do not
    /// contain them.
    pub fn scope(&self) -> Option<&str> {
        self.0.scope()
    }

    /// Returns the user's unionid, or `None` if the stored tokens do not contain it. Only accounts
    /// that are bound to a WeChat Open Platform account (开放平台) have unionids.
    pub fn unionid(&self) -> Option<&str> {
        self.0.unionid()
    }
}

impl fmt::Debug for UserToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserToken")
            .field("user_id", &self.user_id())
            .field("lifetime", &self.lifetime())
            .field("scope", &self.scope())
            .finish_non_exhaustive()
    }
}

/// The stored scope that a user has granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GrantedScope {
    /// The store has no tokens of the user.
    NoToken,
    /// The stored tokens do not contain a scope, because another service stored them.
    Unknown,
    /// The scopes that the user granted, comma-separated.
    Known(Box<str>),
}
