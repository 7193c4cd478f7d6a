//! The account's token, as callers receive it.

use std::fmt;
use std::time::Duration;

use crate::clock::Clock;
use crate::credential::{AccessToken, Lifetime};
use crate::provider::CacheEntry;

/// A token or a ticket of the account. [`AccountToken`] and
/// [`JsapiTicket`](crate::tickets::JsapiTicket) wrap this type.
#[derive(Clone)]
pub(crate) struct AccountCredential {
    entry: CacheEntry,
    clock: Clock,
}

impl AccountCredential {
    #[inline]
    pub(crate) fn new(entry: CacheEntry, clock: &Clock) -> Self {
        let clock = clock.clone();
        Self { entry, clock }
    }

    pub(crate) fn secret(&self) -> &AccessToken {
        self.entry.secret()
    }

    pub(crate) fn lifetime(&self) -> Lifetime {
        self.entry.lifetime()
    }

    pub(crate) fn expires_in(&self) -> Duration {
        self.clock
            .now()
            .duration_until(self.lifetime().expires_at())
    }

    /// Formats the value under the name of the type that wraps it, without the secret.
    pub(crate) fn fmt_as(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(name)
            .field("lifetime", &self.lifetime())
            .finish_non_exhaustive()
    }
}

/// An access token of the account, and its lifetime. Cheap to clone.
///
/// The value does not change. Ask [`AccountTokens`](crate::AccountTokens) again for a later token.
///
/// ```
/// # async fn run(accounts: &tower_wechat::AccountTokens) -> Result<(), tower_wechat::Error> {
/// let token = accounts.get().await?;
/// let left = token.expires_in().as_secs();
/// println!("{} expires in {left} s", token.access_token().fingerprint());
/// println!("due for renewal at {} ms", token.lifetime().renew_at().as_millis());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct AccountToken(AccountCredential);

impl AccountToken {
    #[inline]
    pub(crate) fn new(entry: CacheEntry, clock: &Clock) -> Self {
        Self(AccountCredential::new(entry, clock))
    }

    /// Returns the secret, which calls of WeChat's API carry.
    pub fn access_token(&self) -> &AccessToken {
        self.0.secret()
    }

    /// Returns the times at which the token is due for renewal and expires.
    pub fn lifetime(&self) -> Lifetime {
        self.0.lifetime()
    }

    /// Returns the time until the token expires, or zero if the token has expired.
    pub fn expires_in(&self) -> Duration {
        self.0.expires_in()
    }
}

impl fmt::Debug for AccountToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt_as("AccountToken", f)
    }
}
