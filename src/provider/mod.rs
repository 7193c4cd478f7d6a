//! The engine: returns a credential from the cache or the store, and renews it when it is due.
//!
//! A user's token, the account's token and the `jsapi_ticket` have one problem in common. Each is a
//! credential with a lifetime in a shared store, and exactly one of many processes must renew the
//! credential. The engine solves this problem once for all three. The engine works with a
//! [`Store`](crate::store::Store) and with a [`CredentialSource`], and contains no HTTP.
//!
//! # Promises
//!
//! The documentation of this crate refers to these promises by name:
//!
//! | code | promise | kept by |
//! |---|---|---|
//! | R1 | one renewal | `single_flight`: one call per credential in a process. `renewal`: a lease between processes; the store compares again when it grants the lease |
//! | R2 | newest wins | `commit`: compare-and-set. `login_write`: a late login does not replace a later one. `cache`: a read that crossed a write is not served. `single_flight`: a login detaches the running call |
//! | R3 | nothing lost | `single_flight`: a call is a task and outlives its callers. `lookup`: work inside a request only reads. `commit`: commits are retried. `deletion`: a tombstone is written first. [`CredentialProvider::shutdown`] waits for the tasks |
//! | R4 | stale served | `renewal`: a usable token is published to all callers before its renewal begins. `prefetch`: the account's credentials are refreshed ahead of requests |
//! | R5 | failures sorted | [`RenewalFailure`], `retry`, `failures` |
//! | R6 | reports compared | [`CredentialProvider::report_invalid`]. [`CredentialProvider::with_credential`]: no third call |
//! | R7 | followers bounded | `renewal`: a process that waits for another one's renewal polls the lease with back-off. `lease`: a lease is released however its call ends |
//! | R8 | clocks may differ | leases use the store's clock, renewal margins are minutes, and cache entries have a bounded time |
//! | | caches agree | `invalidation`: processes publish their writes. `cache`: an entry is served for `cache_ttl` after the last confirmation at most |

mod cache;
mod call;
mod classify;
mod commit;
mod config;
mod deletion;
mod entry;
mod failures;
mod freshness;
mod invalidation;
mod lease;
mod login_write;
mod lookup;
mod maintenance;
mod prefetch;
mod renewal;
mod retry;
#[cfg(test)]
mod shuttle;
mod single_flight;
mod source;
mod state;
mod sync;
mod task;
mod versions;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tracing::Instrument;

use self::call::Wanted;
pub(crate) use self::classify::{UNKNOWN_ERRCODE_PAUSE, classify};
pub(crate) use self::config::{ProviderConfig, RenewalTiming};
pub(crate) use self::entry::CacheEntry;
use self::lookup::start_background_tasks;
pub(crate) use self::prefetch::Prefetcher;
pub(crate) use self::source::{CredentialSource, RenewalFailure};
use self::state::ProviderState;
pub(crate) use self::state::{CredentialProvider, StoreAccess};
use crate::clock::Clock;
use crate::credential::{AccessToken, AppId, Record};
use crate::error::{Error, ErrorKind, InvalidToken};
use crate::store::{CredentialKey, CredentialKind};

impl CredentialProvider {
    pub(crate) fn new(
        app: AppId,
        kind: CredentialKind,
        config: ProviderConfig,
        clock: Clock,
        store: StoreAccess,
        source: Box<dyn CredentialSource>,
    ) -> Self {
        let state = ProviderState::new(app, kind, config, clock, store, source);
        let provider = Self(Arc::new(state));
        start_background_tasks(&provider.0);
        provider
    }

    pub(crate) fn app(&self) -> &AppId {
        &self.0.app
    }

    pub(crate) fn kind(&self) -> CredentialKind {
        self.0.kind
    }

    pub(crate) fn config(&self) -> &ProviderConfig {
        &self.0.config
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// Returns the key under which the store keeps a credential of this engine.
    pub(crate) fn credential_key(&self, id: &str) -> CredentialKey {
        self.0.credential_key(id)
    }

    /// Checks that the store can serve credentials of this engine. A Redis store for reads and
    /// writes also checks that writes succeed.
    pub(crate) async fn ping(&self) -> Result<(), Error> {
        self.0.store.check_health(self.app(), self.kind()).await
    }

    /// Reads the record of a credential from the store, expired or not. Never starts a renewal.
    pub(crate) async fn load_record(&self, id: &str) -> Result<Record, Error> {
        let stored = self.0.store.load(&self.0.slot(id)).await?;
        Ok(stored.record)
    }

    /// Returns the credential if the cache holds a valid entry. Never waits and never reads the
    /// store.
    #[inline]
    pub(crate) fn cached(&self, id: &str) -> Option<CacheEntry> {
        self.0.cache.fresh(id, self.0.clock.now())
    }

    /// Returns the credential from the cache, or else from the store. Renews the credential if
    /// necessary.
    pub(crate) async fn get(&self, id: &str) -> Result<CacheEntry, Error> {
        let now = self.0.clock.now();
        if let Some(entry) = self.0.cache.fresh(id, now) {
            return Ok(entry);
        }
        if self.0.cache.is_known_absent(id, now) {
            return Err(self.0.source.no_token_error(None));
        }
        self.lookup(id.into(), now).await
    }

    /// Returns the credential like [`get`](Self::get), but does not look for a valid cache entry.
    /// Callers use this function after [`cached`](Self::cached) has returned `None`.
    pub(crate) async fn get_uncached(&self, id: Box<str>) -> Result<CacheEntry, Error> {
        let now = self.0.clock.now();
        if self.0.cache.is_known_absent(&id, now) {
            return Err(self.0.source.no_token_error(None));
        }
        self.lookup(id, now).await
    }

    /// Returns the credential of a user who logged in a moment ago, perhaps in another process.
    /// Ignores the negative cache. If the first try finds no usable token, tries once more, because
    /// the first try may have joined a read that began before the login.
    pub(crate) async fn get_after_login(&self, id: &str) -> Result<CacheEntry, Error> {
        let now = self.0.clock.now();
        if let Some(entry) = self.0.cache.fresh(id, now) {
            return Ok(entry);
        }
        let twice = async {
            match self.fetch(id, &Wanted::Any, None).await {
                Err(error) if error.kind() == ErrorKind::LoginRequired => {
                    self.fetch(id, &Wanted::Any, None).await
                }
                outcome => outcome,
            }
        };
        self.with_load_timeout(id, twice).await
    }

    /// Reports that WeChat rejected `invalid_token`, and returns the current credential. Renews the
    /// credential only if the store still holds the rejected token (reports compared). A renewal
    /// may return the same token again.
    pub(crate) async fn report_invalid(
        &self,
        id: &str,
        invalid_token: &AccessToken,
    ) -> Result<CacheEntry, Error> {
        if let Some(entry) = self.0.cache.fresh(id, self.0.clock.now())
            && entry.secret() != invalid_token
        {
            return Ok(entry);
        }
        self.0.cache.invalidate_if_token(id, invalid_token);
        self.with_load_timeout(
            id,
            self.fetch(id, &Wanted::Replacing(invalid_token.clone()), None),
        )
        .await
    }

    /// Runs `call` with the credential. If WeChat rejects the credential, reports the rejection and
    /// runs `call` once more with the credential that the report returned. Never runs a third call.
    ///
    /// If the report fails, the caller receives WeChat's rejection, with two exceptions. If the
    /// user must log in or the store is unavailable, the caller receives the error of the report.
    ///
    /// The report may return the rejected token again, because WeChat's refresh call returns a
    /// user's token until the token expires. WeChat has then confirmed the token, and the rejection
    /// was temporary.
    pub(crate) async fn with_credential<T, E, F, Fut>(&self, id: &str, mut call: F) -> Result<T, E>
    where
        F: FnMut(CacheEntry) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: InvalidToken + From<Error>,
    {
        let entry = self.get(id).await?;
        let refused = match call(entry.clone()).await {
            Err(error) if error.is_token_invalid() => error,
            outcome => return outcome,
        };
        match self.report_invalid(id, entry.secret()).await {
            Ok(granted) => call(granted).await,
            // The error of the report says that the user must log in or that the store is
            // unavailable. This error helps the caller more than WeChat's rejection of the token.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::LoginRequired | ErrorKind::StoreUnavailable
                ) =>
            {
                Err(error.into())
            }
            Err(_) => Err(refused),
        }
    }

    /// Ends the back-off of a credential and of the account, because the cause of the failures is gone.
    #[cfg(feature = "platform")]
    pub(crate) fn end_backoff(&self, id: &str) {
        self.0.failures.clear(id);
        self.0.failures.close_circuit();
    }

    /// Runs `work` in a task of its own and returns the result. The work continues if the future of
    /// the caller is dropped, and [`shutdown`](Self::shutdown) waits for the work.
    pub(crate) async fn run_to_completion<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        // `in_current_span` makes the span of the request the parent of the work in a trace.
        self.spawn(work.in_current_span())
            .await
            .unwrap_or_else(|_| {
                let message = "the process ended before the store had answered";
                Err(Error::store_unavailable(message))
            })
    }

    /// Spawns a task that may outlive the request that started the task. [`shutdown`] waits for
    /// such tasks.
    ///
    /// [`shutdown`]: Self::shutdown
    pub(crate) fn spawn<F>(&self, work: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.0.tasks.spawn(work)
    }

    /// Waits until the tracked tasks of this engine (calls, logins and releases of leases) have
    /// ended, for `timeout` at most (nothing lost). Returns `true` if all of them have ended.
    pub(crate) async fn shutdown(&self, timeout: Duration) -> bool {
        self.0.tasks.close();
        tokio::time::timeout(timeout, self.0.tasks.wait())
            .await
            .is_ok()
    }

    /// Returns the cached credential if its token has not expired, even if the cache entry is no
    /// longer valid. Never waits.
    pub(crate) fn unexpired(&self, id: &str) -> Option<CacheEntry> {
        self.0.cache.unexpired(id, self.0.clock.now())
    }

    /// Returns the number of entries in the cache.
    pub(crate) fn cached_count(&self) -> usize {
        self.0.cache.len()
    }
}

impl fmt::Debug for CredentialProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialProvider")
            .field("app", &self.0.app)
            .field("kind", &self.0.kind)
            .field("settings", &self.0.config)
            .field("cached", &self.0.cache.len())
            .finish_non_exhaustive()
    }
}
