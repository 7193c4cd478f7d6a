//! Single flight: concurrent callers of one process share one call for a credential (one renewal).
//!
//! A call is a task and outlives its callers (nothing lost).
//!
//! # States of a call
//!
//! - Listed: the call is in the table, and new callers join it. [`SingleFlight::join_or_start`]
//!   leads here.
//! - Detached: the call still runs for its callers, but new callers start another call. A login, a
//!   deletion ([`SingleFlight::detach`]) or a remote write of another version
//!   ([`SingleFlight::on_invalidation`]) leads here.
//! - Ended: the result is published, or the task panicked or was aborted. `RemoveOnDrop` removes
//!   the call from the table if it is still listed.
//!
//! The table has one lock. `Call::number` distinguishes a detached call from the next call for the
//! same credential. The end of the detached call therefore does not remove the next call.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use quick_cache::DefaultHashBuilder;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::call::{CallState, CallTask, Wanted};
use super::entry::CacheEntry;
use super::sync::{self, Mutex, MutexGuard};
use super::versions::{BuildSpreadHasher, EntryKey};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind};
use crate::shrink::{shrink_map, shrink_set};
use crate::store::RecordVersion;

/// A caller's handle of a call, through which the caller waits for the token.
#[derive(Clone)]
pub(super) struct Call {
    state: watch::Receiver<CallState>,
    wanted: Wanted,
    /// Number that distinguishes this call from earlier and later calls for the same credential.
    number: u64,
    /// Version that the call is about to write to the store. `None` before the commit.
    pending_version: Option<RecordVersion>,
}

impl Call {
    /// Waits for a token of the call that satisfies `wanted`, or for the end of the call. Returns
    /// the token, or the error of the call. The token may expire before the caller uses it.
    pub(super) async fn wait(&self, wanted: &Wanted, clock: &Clock) -> Result<CacheEntry, Error> {
        let mut state = self.state.clone();
        let is_enough = |state: &CallState| {
            state.result.is_some() || state.provisional_for(wanted, clock.now()).is_some()
        };
        let reached = match state.wait_for(is_enough).await {
            Ok(state) => state.clone(),
            // The task of the call panicked, or the runtime is shutting down.
            Err(_) => CallState::default(),
        };
        let usable = reached.provisional_for(wanted, clock.now()).cloned();
        match (reached.result, usable) {
            (Some(Ok(entry)), _) => Ok(entry),
            // The call has not ended or has failed, perhaps because of a report. The provisional
            // token has not expired, and this caller has not reported the token.
            (_, Some(entry)) => Ok(entry),
            (Some(Err(error)), None) => Err(error),
            (None, None) => Err(Error::new(
                ErrorKind::WechatUnavailable,
                "the task that fetches the token ended before it had one",
            )),
        }
    }

    fn has_waited_for_store(&self, limit: Duration) -> bool {
        self.state.borrow().has_waited_for_store(limit)
    }

    /// Returns `true` while the task of the call exists and can still publish a result.
    fn is_running(&self) -> bool {
        self.state.has_changed().is_ok()
    }

    #[cfg(test)]
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Returns `true` if the call was started for the need `wanted`. Two needs for a replacement
    /// are equal if both replace the same token.
    pub(super) fn was_started_for(&self, wanted: &Wanted) -> bool {
        match (wanted.replaced_token(), self.wanted.replaced_token()) {
            (Some(replaced), Some(other)) => replaced == other,
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }
}

/// Table of the running calls of an engine, with one call for each credential at most.
#[derive(Default)]
pub(super) struct SingleFlight(
    /// The table of calls. The tasks of the calls share the table, because each task removes its
    /// own call.
    Arc<Mutex<CallTable>>,
);

/// Permit to read a credential without a call. While the permit exists, other requests start or
/// join a call.
pub(super) struct ReadPermit<'a> {
    single_flight: &'a SingleFlight,
    key: EntryKey,
}

impl Drop for ReadPermit<'_> {
    fn drop(&mut self) {
        let mut table = self.single_flight.lock();
        table.readers.remove(&self.key);
        shrink_set(&mut table.readers);
    }
}

#[derive(Default)]
struct CallTable {
    calls: HashMap<Box<str>, Call, DefaultHashBuilder>,
    /// Keys of the credentials that a request is reading without a call.
    readers: HashSet<EntryKey, BuildSpreadHasher>,
    started_count: u64,
}

impl CallTable {
    fn remove(&mut self, id: &str) {
        self.calls.remove(id);
        shrink_map(&mut self.calls);
    }
}

impl SingleFlight {
    /// Returns a permit to read a credential without a call. Returns `None` if a call for the
    /// credential runs, or if another request holds a permit for it.
    pub(super) fn try_read_alone(&self, key: EntryKey, id: &str) -> Option<ReadPermit<'_>> {
        let mut table = self.lock();
        if table.calls.get(id).is_some_and(Call::is_running) {
            return None;
        }
        let single_flight = self;
        let first = table.readers.insert(key);
        drop(table);
        first.then(|| ReadPermit { single_flight, key })
    }

    /// Joins the running call for a credential, or starts a call in a task. Returns the handle of
    /// the call.
    ///
    /// `create` returns the future of a call that starts. `create` runs under the lock of the
    /// table. A concurrent [`detach`](Self::detach) therefore runs before `create`, or removes the
    /// new call.
    pub(super) fn join_or_start<F>(
        &self,
        tasks: &TaskTracker,
        id: &str,
        wanted: &Wanted,
        create: impl FnOnce(Arc<CallTask>) -> F,
    ) -> Call
    where
        F: Future<Output = Result<CacheEntry, Error>> + Send + 'static,
    {
        let (call, started, future) = {
            let mut table = self.lock();
            if let Some(call) = table.calls.get(id)
                && call.is_running()
            {
                return call.clone();
            }
            table.started_count += 1;
            let number = table.started_count;
            let (started, state) = CallTask::new(id, number, wanted);
            let started = Arc::new(started);
            let future = create(Arc::clone(&started));
            let call = Call {
                state,
                wanted: wanted.clone(),
                number,
                pending_version: None,
            };
            table.calls.insert(id.into(), call.clone());
            (call, started, future)
        };
        // The guard is created before the task. If the task panics, or the runtime ends before the
        // task was polled, the guard still removes the call. The sender of the call's state is then
        // dropped too, which wakes the callers.
        let remove_on_drop = RemoveOnDrop {
            table: Arc::clone(&self.0),
            call: started,
        };
        let task = async move {
            let result = future.await;
            // The call is removed before its result is published. A caller that receives the result
            // and then needs another call must not join this call.
            let call = Arc::clone(&remove_on_drop.call);
            drop(remove_on_drop);
            call.publish_result(result);
        };
        // In a trace, the span of the request is the parent of the call.
        sync::spawn_call(tasks, task.in_current_span());
        call
    }

    /// Removes the call for a credential from the table, because the store holds a newer record.
    /// Later callers start another call. The detached call continues for its callers (nothing
    /// lost), and its commit detects the newer record (newest wins).
    pub(super) fn detach(&self, id: &str) {
        self.lock().remove(id);
    }

    /// Returns `true` if a call for this credential runs and has waited for the store for longer
    /// than `limit`.
    pub(super) fn has_waited_for_store(&self, id: &str, limit: Duration) -> bool {
        let table = self.lock();
        let call = table.calls.get(id);
        call.is_some_and(|call| call.has_waited_for_store(limit))
    }

    /// Records the version that a call is about to write, so that the invalidation of this write
    /// does not detach the call. Has no effect if the call was detached.
    pub(super) fn set_pending_version(&self, id: &str, number: u64, version: RecordVersion) {
        let mut table = self.lock();
        let call = table.calls.get_mut(id);
        if let Some(call) = call.filter(|call| call.number == number) {
            call.pending_version = Some(version);
        }
    }

    /// Detaches the call for a credential after an invalidation. Does nothing if the call itself is
    /// about to write the version of the invalidation.
    pub(super) fn on_invalidation(&self, id: &str, version: Option<RecordVersion>) {
        let mut table = self.lock();
        if let Some(call) = table.calls.get(id)
            && (call.pending_version.is_none() || call.pending_version != version)
        {
            table.remove(id);
        }
    }

    /// Returns `true` if the table has no calls and no readers.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let table = self.lock();
        table.calls.is_empty() && table.readers.is_empty()
    }

    /// Returns the capacity of the map of calls or of the set of readers, whichever is larger.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        let table = self.lock();
        table.calls.capacity().max(table.readers.capacity())
    }

    fn lock(&self) -> MutexGuard<'_, CallTable> {
        lock(&self.0)
    }
}

/// Guard that removes a call from the table when its task ends, also after a panic.
struct RemoveOnDrop {
    table: Arc<Mutex<CallTable>>,
    call: Arc<CallTask>,
}

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        let mut table = lock(&self.table);
        if table
            .calls
            .get(&self.call.id)
            .is_some_and(|call| call.number == self.call.number)
        {
            table.remove(&self.call.id);
        }
    }
}

fn lock(table: &Mutex<CallTable>) -> MutexGuard<'_, CallTable> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::credential::{AccessToken, AppId, Lifetime, Record, Token};
    use crate::provider::{
        CredentialProvider, CredentialSource, ProviderConfig, RenewalFailure, RenewalTiming,
        StoreAccess,
    };
    use crate::shrink::MIN_CAPACITY;
    use crate::store::{BoxFuture, CredentialKind, MemoryStore};

    /// Source that returns a token after 50 milliseconds, so that many calls run at once.
    struct SlowSource;

    impl CredentialSource for SlowSource {
        fn can_renew(&self, _record: &Record) -> bool {
            true
        }

        fn renew<'a>(
            &'a self,
            _record: &'a Record,
            _refused: Option<&'a AccessToken>,
        ) -> BoxFuture<'a, Result<Record, RenewalFailure>> {
            Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(50)).await;
                let now = Clock::system().now();
                let token = Token {
                    secret: AccessToken::from("token"),
                    lifetime: Lifetime::from_response(now, Some(7_200), Duration::from_secs(900)),
                };
                Ok(Record {
                    token: Some(token),
                    ..Record::default()
                })
            })
        }
    }

    #[tokio::test]
    async fn the_call_table_shrinks_after_10_000_calls() {
        let second = Duration::from_secs(1);
        let settings = ProviderConfig {
            margin: second,
            timing: RenewalTiming::AtRenewalTime,
            cache_ttl: second,
            cache_capacity: 16,
            load_timeout: 60 * second,
            lease_duration: 10 * second,
            renewal_timeout: 8 * second,
            max_concurrent_renewals: 512,
            has_account_gauges: true,
        };
        let provider = CredentialProvider::new(
            AppId::new("wx1").unwrap(),
            CredentialKind::User,
            settings,
            Clock::system(),
            StoreAccess::Full(Arc::new(MemoryStore::new())),
            Box::new(SlowSource),
        );
        let mut requests = tokio::task::JoinSet::new();
        for user in 0..10_000 {
            let provider = provider.clone();
            requests.spawn(async move { provider.get(&format!("u{user}")).await.map(drop) });
        }
        while provider.0.calls.capacity() < 10_000 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for outcome in requests.join_all().await {
            outcome.unwrap();
        }
        assert!(provider.shutdown(second * 10).await);
        let left = provider.0.calls.capacity();
        assert!(left <= 4 * MIN_CAPACITY, "room for {left} is kept");
    }
}
