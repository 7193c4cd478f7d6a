//! [`AccountTokens`]: the access token of the account itself.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::account_source::{AccountSource, AccountSourceKind};
use super::own_credential::{ACCOUNT_ID, OwnCredential};
use super::token::AccountToken;
use crate::clock::Clock;
use crate::credential::{AccessToken, AppId};
use crate::error::{Error, InvalidToken};
use crate::provider::{CacheEntry, CredentialProvider};
use crate::store::Store;

/// The account's interface access token (`cgi-bin`), which all API calls in the account's name
/// carry.
///
/// Without a shared store, each process fetches its own token. The calls spend WeChat's quota, and
/// under `cgi-bin/token` each new token invalidates the others. With `AccountTokens`, a store that
/// all processes share holds one token, and exactly one process renews it.
///
/// No request waits while the token is replaced. The first use of the token in a process starts a
/// prefetch task, which loads each new token before the old one expires. The task ends with
/// [`shutdown`](Self::shutdown), or when the last clone is dropped.
///
/// Clones are cheap and share all state.
///
/// ```no_run
/// use tower_wechat::{AccountTokens, Error, RedisStore, WechatClient};
///
/// # async fn run() -> Result<(), Error> {
/// let wechat = WechatClient::new("wx0123456789abcdef", "the AppSecret")?;
/// let store = RedisStore::connect("redis://127.0.0.1/").await?;
/// let accounts = AccountTokens::new(wechat.clone(), store);
/// if let Err(error) = accounts.prefetch().await {
///     eprintln!("started without a token: {error}");
/// }
///
/// // Any call of WeChat's API. If WeChat rejects the token, the call runs once more.
/// let follower: serde_json::Value = accounts
///     .with_token(async |token| {
///         let query = [("openid", "oUser")];
///         wechat.get_json("cgi-bin/user/info", token.access_token(), &query).await
///     })
///     .await?;
/// # let _ = follower;
/// # Ok(()) }
/// ```
///
/// An application that cannot use [`with_token`](Self::with_token) reports a rejected token itself:
///
/// ```
/// use tower_wechat::{AccountTokens, Error};
///
/// async fn call(accounts: &AccountTokens) -> Result<(), Error> {
///     let token = match accounts.cached() {
///         Some(token) => token,
///         None => accounts.get().await?,
///     };
/// #   let rejected = true;
///     // … a call with `token.access_token().expose()`. If WeChat returns 40001:
///     if rejected {
///         let token = accounts.report_invalid(token.access_token()).await?;
/// #       let _ = token;
///         // … the same call once more, with the new token.
///     }
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct AccountTokens(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) credential: OwnCredential,
    pub(super) source: AccountSource,
    /// The store of the ticket and of the quotas. The store also holds the token, unless another
    /// system keeps the token.
    pub(super) store: Arc<dyn Store>,
}

impl AccountTokens {
    /// Returns the AppID of the account.
    pub fn app_id(&self) -> &AppId {
        self.provider().app()
    }

    /// Loads the token into memory before the first request needs it, and starts the prefetch task.
    ///
    /// Call this method at start-up. The method returns within
    /// [`load_timeout`](crate::account::AccountTokensBuilder::load_timeout), by default 5 seconds.
    /// The process can continue after an error, because the prefetch task keeps trying.
    ///
    /// # Errors
    /// Returns the errors of [`get`](Self::get).
    pub async fn prefetch(&self) -> Result<(), Error> {
        self.get().await.map(drop)
    }

    /// Returns a usable token: from memory, else from the store. Fetches a token first if the store
    /// has none that is usable.
    ///
    /// A token that is due for renewal but has not expired is returned at once, and renewed in the
    /// background. A renewal continues if the caller stops waiting.
    ///
    /// # Errors
    /// An error means that no usable token is cached. The error is returned within
    /// [`load_timeout`](crate::account::AccountTokensBuilder::load_timeout), by default 5 seconds.
    ///
    /// - [`ErrorKind::StoreUnavailable`](crate::ErrorKind::StoreUnavailable): the store failed.
    /// - [`ErrorKind::WechatUnavailable`](crate::ErrorKind::WechatUnavailable): WeChat failed, or
    ///   the token center, or the system that keeps the token.
    /// - [`ErrorKind::WechatConfig`](crate::ErrorKind::WechatConfig): WeChat rejected the account,
    ///   or the daily quota of this process is spent. Only the operator can fix the cause.
    /// - [`ErrorKind::TokenRefused`](crate::ErrorKind::TokenRefused): WeChat rejected the token,
    ///   and the system that keeps the token has not replaced it.
    pub async fn get(&self) -> Result<AccountToken, Error> {
        self.0.credential.get().await.map(|entry| self.token(entry))
    }

    /// Returns the token if it is in memory, fresh, and confirmed by the store within
    /// [`cache_ttl`](crate::account::AccountTokensBuilder::cache_ttl). Never waits.
    #[inline]
    pub fn cached(&self) -> Option<AccountToken> {
        self.0.credential.cached().map(|entry| self.token(entry))
    }

    /// Returns the time until the token in memory expires, or `None` if no unexpired token is in
    /// memory. Never waits.
    pub(crate) fn remaining_lifetime(&self) -> Option<Duration> {
        let entry = self.provider().unexpired(ACCOUNT_ID)?;
        Some(self.token(entry).expires_in())
    }

    /// Reports that WeChat rejected a call with the token `invalid` (40001, 40014, 42001), and
    /// returns the current token.
    ///
    /// The token is renewed only if `invalid` is still the current one. A thousand reports of one
    /// token cause one renewal.
    ///
    /// Under [`TokenMode::Stable`](crate::account::TokenMode::Stable), WeChat may return the same
    /// token again. A forced refresh then requests a new one, at most every 30 seconds and 19 times
    /// a day. If the limit allows no refresh, this method may return the reported token.
    ///
    /// # Errors
    /// Returns the errors of [`get`](Self::get).
    pub async fn report_invalid(&self, invalid: &AccessToken) -> Result<AccountToken, Error> {
        let current = self.0.credential.report_invalid(invalid).await;
        current.map(|entry| self.token(entry))
    }

    /// Runs a call with the token. If WeChat rejects the token, this method reports the token and
    /// runs the call once more with the next token. It never runs the call a third time.
    ///
    /// # Errors
    /// The errors of [`get`](Self::get), converted into the error type of the call, and the errors
    /// of the call itself.
    pub async fn with_token<T, E, F, Fut>(&self, mut call: F) -> Result<T, E>
    where
        F: FnMut(AccountToken) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: InvalidToken + From<Error>,
    {
        self.0.credential.start_prefetcher();
        let call = |entry| call(self.token(entry));
        self.provider().with_credential(ACCOUNT_ID, call).await
    }

    /// Checks that the store works, and that a usable token exists or can be fetched.
    ///
    /// # Errors
    /// Returns the errors of [`get`](Self::get).
    pub async fn health(&self) -> Result<(), Error> {
        self.provider().ping().await?;
        self.get().await.map(drop)
    }

    /// Stops the prefetch task, and waits up to `timeout` for a running renewal, so that a new
    /// token reaches the store before the process ends. Returns `true` if the renewal has ended.
    ///
    /// Call this method after the server has stopped accepting requests.
    pub async fn shutdown(&self, timeout: Duration) -> bool {
        self.0.credential.shutdown(timeout).await
    }

    fn token(&self, entry: CacheEntry) -> AccountToken {
        AccountToken::new(entry, self.clock())
    }

    pub(crate) fn clock(&self) -> &Clock {
        self.provider().clock()
    }

    pub(crate) fn provider(&self) -> &CredentialProvider {
        self.0.credential.provider()
    }

    pub(crate) fn source_kind(&self) -> &AccountSourceKind {
        self.0.source.kind()
    }

    /// Returns the store that holds the ticket and the quotas.
    pub(crate) fn writable_store(&self) -> &Arc<dyn Store> {
        &self.0.store
    }
}

impl fmt::Debug for AccountTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccountTokens")
            .field("provider", self.provider())
            .field("source", self.source_kind())
            .finish_non_exhaustive()
    }
}
