//! A user's token as callers see it.

use std::fmt;

use crate::clock::Timestamp;
use crate::credential::{AccessToken, Lifetime};
use crate::provider::CacheEntry;

/// A user's access token of this moment, and what is known of the user. Cheap to clone.
///
/// ```
/// # use tower_wechat::{Error, UserId, UserTokens};
/// # async fn shown(users: &UserTokens, user: &UserId) -> Result<(), Error> {
/// let token = users.get(user).await?;
/// println!("{} is due at {:?}", token.user_id(), token.lifetime().renew_at());
/// println!("openid {:?}, unionid {:?}", token.openid(), token.unionid());
/// println!("granted {:?}", token.scope());
/// println!("the secret is {}", token.access_token().fingerprint()); // never the text itself
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct UserToken(CacheEntry);

impl UserToken {
    #[inline]
    pub(crate) fn new(entry: CacheEntry) -> Self {
        Self(entry)
    }

    /// Whether whoever waited for it waited for WeChat.
    pub(crate) fn was_renewed(&self) -> bool {
        self.0.was_renewed()
    }

    /// The id under which the user is known to the application.
    pub fn user_id(&self) -> &str {
        self.0.id()
    }

    /// The secret that calls to WeChat carry.
    pub fn access_token(&self) -> &AccessToken {
        self.0.secret()
    }

    /// When the token is due for renewal and when it dies.
    pub fn lifetime(&self) -> Lifetime {
        self.0.lifetime()
    }

    /// When the user has last logged out everywhere, where they have: sessions of logins that did
    /// not know of it are void.
    #[inline]
    pub(crate) fn sessions_valid_from(&self) -> Option<Timestamp> {
        self.0.sessions_from()
    }

    /// The user's openid, where the stored pair tells it.
    pub fn openid(&self) -> Option<&str> {
        self.0.openid()
    }

    /// What the user granted, comma-separated, where the stored pair tells it.
    pub fn scope(&self) -> Option<&str> {
        self.0.scope()
    }

    /// The user's unionid, where there is one and the stored pair tells it.
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

/// The scope that a user has granted, as far as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GrantedScope {
    /// The store has no pair of tokens.
    NoToken,
    /// The store has a pair without its scope: another service has stored it.
    Unknown,
    /// The scopes that the user granted, comma-separated.
    Known(Box<str>),
}
