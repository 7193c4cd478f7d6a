//! A user's token, as callers receive it.

use std::fmt;
use std::sync::OnceLock;

use crate::clock::Timestamp;
use crate::credential::{AccessToken, Lifetime, UserId};
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
pub struct UserToken {
    entry: CacheEntry,
    /// The user id, once a caller has asked for it. The entry contains the id as text. Most
    /// requests need only the text, so a new token allocates no memory for the id.
    user_id: OnceLock<UserId>,
}

impl UserToken {
    #[inline]
    pub(crate) fn new(entry: CacheEntry) -> Self {
        Self {
            entry,
            user_id: OnceLock::new(),
        }
    }

    /// Returns `true` if WeChat granted the token to this process. The first callers that received
    /// the token waited for WeChat.
    pub(crate) fn was_renewed(&self) -> bool {
        self.entry.was_renewed()
    }

    /// Returns the id under which the store holds the user's tokens.
    pub fn user_id(&self) -> &UserId {
        self.user_id
            .get_or_init(|| UserId::from_checked(self.entry.id()))
    }

    /// Returns the text of [`user_id`](Self::user_id), and allocates no memory for it.
    pub(crate) fn user_id_text(&self) -> &str {
        self.entry.id()
    }

    /// Returns the secret, which calls of WeChat's API carry.
    pub fn access_token(&self) -> &AccessToken {
        self.entry.secret()
    }

    /// Returns the times at which the token is due for renewal and expires.
    pub fn lifetime(&self) -> Lifetime {
        self.entry.lifetime()
    }

    /// Returns the time of the user's last logout everywhere. Sessions of earlier logins are
    /// revoked.
    #[inline]
    pub(crate) fn sessions_valid_from(&self) -> Option<Timestamp> {
        self.entry.sessions_from()
    }

    /// Returns the user's openid, or `None` if the stored tokens do not contain it.
    pub fn openid(&self) -> Option<&str> {
        self.entry.openid()
    }

    /// Returns the granted scopes, separated by commas, or `None` if the stored tokens do not
    /// contain them.
    pub fn scope(&self) -> Option<&str> {
        self.entry.scope()
    }

    /// Returns the user's unionid, or `None` if the stored tokens do not contain it. Only accounts
    /// that are bound to a WeChat Open Platform account (开放平台) have unionids.
    pub fn unionid(&self) -> Option<&str> {
        self.entry.unionid()
    }
}

impl fmt::Debug for UserToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserToken")
            .field("user_id", &self.entry.id())
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
