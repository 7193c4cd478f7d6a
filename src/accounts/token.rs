//! The account's token as callers see it.

use std::fmt;
use std::time::Duration;

use crate::clock::Clock;
use crate::credential::{AccessToken, Lifetime};
use crate::provider::CacheEntry;

/// The account's access token of this moment. Cheap to clone.
///
/// ```
/// # async fn run(accounts: &tower_wechat::AccountTokens) -> Result<(), tower_wechat::Error> {
/// let token = accounts.get().await?;
/// let left = token.expires_in().as_secs();
/// println!("{} lives for {left} s", token.access_token().fingerprint());
/// println!("renewed at {} ms", token.lifetime().renew_at().as_millis());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct AccountToken {
    entry: CacheEntry,
    clock: Clock,
}

impl AccountToken {
    #[inline]
    pub(super) fn new(entry: CacheEntry, clock: &Clock) -> Self {
        let clock = clock.clone();
        Self { entry, clock }
    }

    /// The secret that calls to WeChat carry.
    pub fn access_token(&self) -> &AccessToken {
        self.entry.secret()
    }

    /// When the token is due for renewal and when it dies.
    pub fn lifetime(&self) -> Lifetime {
        self.entry.lifetime()
    }

    /// How long it is from now until the token dies.
    pub fn expires_in(&self) -> Duration {
        self.clock
            .now()
            .duration_until(self.lifetime().expires_at())
    }
}

impl fmt::Debug for AccountToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccountToken")
            .field("lifetime", &self.lifetime())
            .finish_non_exhaustive()
    }
}
