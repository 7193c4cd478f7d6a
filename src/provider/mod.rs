//! The one engine: get a credential, or renew it.
//!
//! A user's token, the account's token and the `jsapi_ticket` are the same problem: a credential
//! with a lifetime, kept in a shared store, renewed by exactly one of many processes. This engine
//! solves it once. It knows a [`Store`](crate::store::Store) that keeps credentials and a
//! [`Source`] that new ones come from, and nothing of HTTP.
//!
//! Where each promise is kept:
//!
//! | promise | where |
//! |---|---|
//! | R1 one renewal | [`single_flight`]: one flight for each credential in a process; [`renewal`]: a lease among processes, with the re-read inside |
//! | R2 the newest wins | [`commit`]: commits compare; [`cache`]: what crosses is not remembered; [`single_flight`]: logins leave running flights behind |
//! | R3 nothing is lost | [`single_flight`]: flights are tasks of their own, and [`lookup`] only reads; [`commit`]: commits are retried, and a deletion leaves a tombstone for who holds the successor; [`Keeper::shutdown`] waits |
//! | R4 stale is served | [`renewal`]: a usable token is published before its renewal begins |
//! | R5 failures are sorted | [`Failure`], [`failures`] |
//! | R6 reports are compared | [`Keeper::report_invalid`]; [`retry_once`]: never a third call |
//! | R7 followers wait cheaply | [`renewal`]: a follower asks for the lease now and then; [`lease`]: whatever ends a flight, its lease is given back |
//! | caches agree | [`invalidation`]: what others write is told; [`cache`]: what was read before is believed no longer, and nothing longer than `cache_ttl` without a proof that all was heard |
//! | nobody waits at rollover | [`prefetch`]: a task that looks at a credential before requests need it |
//! | R8 clocks may differ | leases run by the store's clock, margins are minutes, entries of the cache are bounded |

mod cache;
mod call;
mod classify;
mod commit;
mod entry;
mod failures;
mod freshness;
mod invalidation;
mod lease;
mod lookup;
mod maintenance;
mod prefetch;
mod renewal;
mod retry_once;
#[cfg(test)]
mod shuttle;
mod single_flight;
mod source;
mod state;
mod sync;
mod task;
mod versions;

use std::fmt;
use std::time::Duration;

use tracing::Instrument;

use self::call::Wanted;
pub(crate) use self::classify::{UNKNOWN_ERRCODE_PAUSE, classify};
pub(crate) use self::entry::CacheEntry;
use self::entry::EntryOrigin;
pub(crate) use self::prefetch::Prefetcher;
pub(crate) use self::source::{CredentialSource, RenewalFailure};
pub(crate) use self::state::{CredentialProvider, ProviderConfig, RenewalTiming, StoreAccess};
use self::versions::ReadSnapshot;
use crate::clock::Clock;
use crate::credential::{AccessToken, AppId, Record};
use crate::error::{Error, ErrorKind};
use crate::store::{CredentialKey, CredentialKind};

/// A caller's request is joined to at most this many flights: the one under way when it came, and
/// one of its own.
const MAX_CALLS_PER_REQUEST: usize = 3;

impl CredentialProvider {
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

    /// What names a credential of this engine in the store.
    pub(crate) fn credential_key(&self, id: &str) -> CredentialKey {
        self.0.credential_key(id)
    }

    /// Returns whether the store can be read and written for credentials of this engine.
    pub(crate) async fn ping(&self) -> Result<(), Error> {
        self.0.store.check_health(self.app(), self.kind()).await
    }

    /// What the store holds, whatever its life: nothing is renewed for it.
    pub(crate) async fn load_record(&self, id: &str) -> Result<Record, Error> {
        let stored = self.0.store.load(&self.0.slot(id)).await?;
        Ok(stored.record)
    }

    /// The credential, if this process holds one that needs no thought. Never waits.
    #[inline]
    pub(crate) fn cached(&self, id: &str) -> Option<CacheEntry> {
        self.0.cache.fresh(id, self.0.clock.now())
    }

    /// The credential: from the cache, else from the store, renewed if it must be.
    pub(crate) async fn get(&self, id: &str) -> Result<CacheEntry, Error> {
        let now = self.0.clock.now();
        if let Some(held) = self.0.cache.fresh(id, now) {
            return Ok(held);
        }
        if self.0.cache.is_known_absent(id, now) {
            return Err(self.0.source.no_token_error(None));
        }
        self.lookup(id.into(), now).await
    }

    /// The same for a caller who has just been told by [`cached`](Self::cached) that it is not
    /// there.
    pub(crate) async fn get_uncached(&self, id: Box<str>) -> Result<CacheEntry, Error> {
        let now = self.0.clock.now();
        if self.0.cache.is_known_absent(&id, now) {
            return Err(self.0.source.no_token_error(None));
        }
        self.lookup(id, now).await
    }

    /// The credential of somebody who has logged in a moment ago, perhaps on another process: what
    /// this one remembers of their having none, or is just reading, may be older than that login.
    pub(crate) async fn get_after_login(&self, id: &str) -> Result<CacheEntry, Error> {
        let now = self.0.clock.now();
        if let Some(held) = self.0.cache.fresh(id, now) {
            return Ok(held);
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

    /// R6: somebody's call was refused with this token. Renews it only if it is still the current
    /// one, and answers with the current one.
    pub(crate) async fn report_invalid(
        &self,
        id: &str,
        invalid_token: &AccessToken,
    ) -> Result<CacheEntry, Error> {
        if let Some(held) = self.0.cache.fresh(id, self.0.clock.now())
            && held.secret() != invalid_token
        {
            return Ok(held);
        }
        self.0.cache.invalidate_if_token(id, invalid_token);
        self.with_load_timeout(
            id,
            self.fetch(id, &Wanted::Replacing(invalid_token.clone()), None),
        )
        .await
    }

    /// R2: stores a record whatever lies there, and serves it from now on: a login beats every
    /// renewal that began before it. Dropped in the middle it leaves the store and the cache apart:
    /// see [`run_to_end`](Self::run_to_end).
    pub(crate) async fn store_record(&self, id: &str, record: Record) -> Result<CacheEntry, Error> {
        let inner = &self.0;
        let (slot, writer) = (inner.slot(id), inner.writer()?);
        let Some(held) = inner.to_entry(id, &record, EntryOrigin::Stored) else {
            let message = "a login without an access token cannot be stored";
            return Err(Error::new(ErrorKind::BadRequest, message));
        };
        // What this process remembers is wrong from the moment the store may have changed.
        let fence = inner.cache.invalidate(id);
        let outcome = writer.overwrite(&slot, &record).await;
        match &outcome {
            Ok(()) => inner
                .cache
                .complete_write(id, Some(&held), inner.clock.now(), &fence),
            // It may have been stored all the same.
            Err(_) => drop(inner.cache.invalidate(id)),
        }
        // Only now: a flight that begins with what was read before finds that outdated, or is on
        // the list already.
        inner.calls.detach(id);
        inner.update_cached_gauge();
        outcome?;
        inner.failures.clear(id);
        Ok(held)
    }

    /// Deletes the credential, here and in the store. A renewal that is under way cannot bring it
    /// back: its commit compares with what is gone. Not to be dropped in the middle either.
    pub(crate) async fn revoke(&self, id: &str) -> Result<(), Error> {
        let inner = &self.0;
        let writer = inner.writer()?;
        inner.cache.invalidate(id);
        let outcome = writer.overwrite(&inner.slot(id), &Record::default()).await;
        // In this order, as above.
        inner.cache.invalidate(id);
        inner.calls.detach(id);
        inner.update_cached_gauge();
        outcome
    }

    /// Runs work that must not be half done in a task of its own, which goes on when the caller
    /// hangs up and which [`shutdown`](Self::shutdown) waits for. Returns the result of the work.
    pub(crate) async fn run_to_completion<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        // In a trace the work lies under the request that began it.
        self.spawn(work.in_current_span())
            .await
            .unwrap_or_else(|_| {
                let message = "the process ended before the store had answered";
                Err(Error::store_unavailable(message))
            })
    }

    /// Runs work that must not end with the request that began it, and that [`shutdown`] waits for.
    ///
    /// [`shutdown`]: Self::shutdown
    pub(crate) fn spawn<F>(&self, work: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.0.tasks.spawn(work)
    }

    /// R3: waits for the flights that are under way, for at most `patience`. Answers whether all
    /// of them have ended.
    pub(crate) async fn shutdown(&self, timeout: Duration) -> bool {
        self.0.tasks.close();
        tokio::time::timeout(timeout, self.0.tasks.wait())
            .await
            .is_ok()
    }

    /// The credential, if this process holds one that is alive, believed or not. Never waits.
    pub(crate) fn unexpired(&self, id: &str) -> Option<CacheEntry> {
        self.0.cache.unexpired(id, self.0.clock.now())
    }

    /// How many credentials the cache holds.
    pub(crate) fn cached_count(&self) -> usize {
        self.0.cache.len()
    }

    async fn fetch(
        &self,
        id: &str,
        wanted: &Wanted,
        mut snapshot: Option<ReadSnapshot>,
    ) -> Result<CacheEntry, Error> {
        self.0.start_background_tasks();
        let mut outcome = Err(self.0.load_timeout_error());
        for _ in 0..MAX_CALLS_PER_REQUEST {
            let call = self
                .0
                .calls
                .join_or_start(&self.0, id, wanted, snapshot.take());
            outcome = call.wait(wanted, &self.0.clock).await;
            match &outcome {
                // Those who waited for a slow store with a flight of others may find that what was
                // alive when it was served has died since.
                Ok(held) if !held.is_unexpired(self.0.clock.now()) => {
                    outcome = Err(self.0.load_timeout_error());
                }
                Ok(held) if wanted.is_satisfied_by(held.secret()) => break,
                // A flight that began for others may have landed with the very token that this
                // caller was refused, or failed to get what only they needed: one of its own will
                // compare.
                _ if !call.was_started_for(wanted) => {}
                _ => break,
            }
        }
        outcome
    }

    async fn with_load_timeout<T>(
        &self,
        id: &str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let wait = self.0.config.load_timeout;
        let done = tokio::time::timeout(wait, work).await;
        done.unwrap_or_else(|_| match self.0.calls.is_waiting_for_store(id) {
            true => Err(self.0.store_timeout_error()),
            false => Err(self.0.load_timeout_error()),
        })
    }
}

impl fmt::Debug for CredentialProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper")
            .field("app", &self.0.app)
            .field("kind", &self.0.kind)
            .field("settings", &self.0.config)
            .field("cached", &self.0.cache.len())
            .finish_non_exhaustive()
    }
}
