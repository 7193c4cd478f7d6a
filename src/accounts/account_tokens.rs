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
/// carry: kept in a store that all processes share, renewed ahead of time and by one process only,
/// held in memory in between.
///
/// It is the token that processes destroy for each other, and that costs quota. Here it is fetched
/// once for all, and no request waits at rollover: a task of each process that has asked for the
/// token looks ahead, be it idle or busy. The task ends with [`shutdown`](Self::shutdown) or with
/// the last clone.
///
/// Clones are cheap and share everything.
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
/// // Any call of WeChat's API, healed once if WeChat refuses the token:
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
/// By hand, for calls that [`with_token`](Self::with_token) does not suit:
///
/// ```
/// use tower_wechat::{AccountTokens, Error};
///
/// async fn call(accounts: &AccountTokens) -> Result<(), Error> {
///     // In memory, if that is enough; else wherever it is to be had.
///     let token = match accounts.cached() {
///         Some(token) => token,
///         None => accounts.get().await?,
///     };
/// #   let refused = true;
///     // … a call with `token.access_token().expose()`. If WeChat answers 40001:
///     if refused {
///         let token = accounts.report_invalid(token.access_token()).await?;
/// #       let _ = token;
///         // … and once more, with this one.
///     }
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct AccountTokens(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) credential: OwnCredential,
    pub(super) source: AccountSource,
    /// The store of the ticket and of the quotas; of the token too, unless another system keeps it.
    pub(super) store: Arc<dyn Store>,
}

impl AccountTokens {
    /// The account whose token this is.
    pub fn app_id(&self) -> &AppId {
        self.provider().app()
    }

    /// Fetches the token, so that the first request finds it, and starts the task that looks
    /// ahead. Call it at start-up. It ends within the time set by
    /// [`AccountTokensBuilder::load_timeout`] (5 seconds), and whatever it answers, the process may go on:
    /// the task keeps trying.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn prefetch(&self) -> Result<(), Error> {
        self.get().await.map(drop)
    }

    /// A usable token: from memory, else from the store, renewed if it must be.
    ///
    /// A token that is due for renewal but not expired is handed out at once and renewed in the
    /// background (R4). The renewal goes on when the caller stops waiting (R3).
    ///
    /// # Errors
    /// [`ErrorKind::StoreUnavailable`](crate::ErrorKind::StoreUnavailable),
    /// [`ErrorKind::WechatUnavailable`](crate::ErrorKind::WechatUnavailable),
    /// [`ErrorKind::WechatConfig`](crate::ErrorKind::WechatConfig): none is at hand, and the store
    /// or WeChat fails or refuses the account. At the latest after the time set by
    /// [`AccountTokensBuilder::load_timeout`] (5 seconds).
    pub async fn get(&self) -> Result<AccountToken, Error> {
        self.0.credential.get().await.map(|entry| self.token(entry))
    }

    /// The token, if this process holds one that needs no thought. Never waits.
    #[inline]
    pub fn cached(&self) -> Option<AccountToken> {
        self.0.credential.cached().map(|entry| self.token(entry))
    }

    /// How long the token that this process holds has to live; `None` where it holds none that is
    /// alive. Never waits.
    pub(crate) fn remaining_lifetime(&self) -> Option<Duration> {
        let entry = self.provider().unexpired(ACCOUNT_ID)?;
        Some(self.token(entry).expires_in())
    }

    /// Reports that WeChat refused a call (40001, 40014, 42001) that was made with `refused`, and
    /// answers with the current token.
    ///
    /// The token is renewed only if `refused` is still the current one: a thousand reports of one
    /// token cause one renewal (R6). Under [`TokenMode::Stable`] WeChat's normal mode is asked
    /// first, and a new token is forced only where that repeats the refused one, at least 30
    /// seconds after the last time and less than 20 times a day. So the answer may be the refused
    /// token still.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn report_invalid(&self, invalid: &AccessToken) -> Result<AccountToken, Error> {
        let current = self.0.credential.report_invalid(invalid).await;
        current.map(|entry| self.token(entry))
    }

    /// Runs a call with the token. If WeChat refuses the token, it is reported, and the call runs
    /// once more with its successor; never a third time (R6).
    ///
    /// # Errors
    /// Those of [`get`](Self::get), turned into the call's error type, and the call's own.
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

    /// Whether the store answers and a usable token is at hand or can be had.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    ///
    /// ```
    /// # async fn run(accounts: tower_wechat::AccountTokens) {
    /// if let Err(error) = accounts.health().await {
    ///     eprintln!("calls in the account's name will fail: {error}");
    /// }
    /// # }
    /// ```
    pub async fn health(&self) -> Result<(), Error> {
        self.provider().ping().await?;
        self.get().await.map(drop)
    }

    /// Ends the task that looks ahead, and waits for a renewal that is under way, for at most
    /// `patience`, so that what WeChat has granted reaches the store before the process ends (R3).
    /// Call it after the server has stopped taking requests. Answers whether all has ended.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_wechat::AccountTokens;
    ///
    /// async fn stop(accounts: AccountTokens) {
    ///     // After the server has stopped taking requests:
    ///     if !accounts.shutdown(Duration::from_secs(10)).await {
    ///         eprintln!("the renewal of {}'s token was cut short", accounts.app_id());
    ///     }
    /// }
    /// ```
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

    /// The store that may be written to.
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
