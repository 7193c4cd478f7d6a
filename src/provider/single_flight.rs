//! Single flight: concurrent callers of one process share one call for a credential (one renewal).
//!
//! A call is a task and outlives its callers (nothing lost).
//!
//! # States of a call
//!
//! - Listed: the call is in the table, and new callers join it. [`SingleFlight::join_or_start`]
//!   leads here.
//! - Detached: the call still runs for its callers, but new callers start another one. A login, a
//!   deletion ([`SingleFlight::detach`]) or a remote write of another version
//!   ([`SingleFlight::on_invalidation`]) leads here.
//! - Ended: the result is published, or the task panicked or was aborted. `RemoveOnDrop` removes
//!   the call from the table if it is still listed.
//!
//! The table has one lock. `Call::number` distinguishes a detached call from its successor, so that
//! the end of the former does not remove the latter.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError};

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

/// Handle of a caller to a call.
#[derive(Clone)]
pub(super) struct Call {
    state: watch::Receiver<CallState>,
    wanted: Wanted,
    /// Distinguishes successive calls for one credential.
    number: u64,
    /// Version that the call is about to write.
    pending_version: Option<RecordVersion>,
}

impl Call {
    /// Returns when the call has produced a token that satisfies `wanted`, or has ended. A
    /// provisional token may have expired by then.
    pub(super) async fn wait(&self, wanted: &Wanted, clock: &Clock) -> Result<CacheEntry, Error> {
        let mut state = self.state.clone();
        let is_enough = |state: &CallState| {
            state.result.is_some() || state.provisional_for(wanted, clock.now()).is_some()
        };
        let reached = match state.wait_for(is_enough).await {
            Ok(state) => state.clone(),
            // The task panicked, or the runtime is shutting down.
            Err(_) => CallState::default(),
        };
        let usable = reached.provisional_for(wanted, clock.now()).cloned();
        match (reached.result, usable) {
            (Some(Ok(entry)), _) => Ok(entry),
            // The call failed, perhaps because of a report. The stored token has not expired, and
            // this caller has not reported it.
            (_, Some(entry)) => Ok(entry),
            (Some(Err(error)), None) => Err(error),
            (None, None) => Err(Error::new(
                ErrorKind::WechatUnavailable,
                "the task that fetches the token ended before it had one",
            )),
        }
    }

    fn is_waiting_for_store(&self) -> bool {
        !self.state.borrow().awaits_wechat
    }

    /// Returns `true` if the task of the call has not ended.
    fn is_running(&self) -> bool {
        self.state.has_changed().is_ok()
    }

    #[cfg(test)]
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Returns `true` if the call was started for the same need.
    pub(super) fn was_started_for(&self, wanted: &Wanted) -> bool {
        match (wanted.replaced_token(), self.wanted.replaced_token()) {
            (Some(replaced), Some(other)) => replaced == other,
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }
}

/// Table of the running calls, by credential.
#[derive(Default)]
pub(super) struct SingleFlight(
    /// Shared with the tasks of the calls, which remove themselves.
    Arc<Mutex<CallTable>>,
);

/// Permit to read a credential without a call. While it exists, other callers start or join a call.
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
    /// Credentials that a request is reading without a call.
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
    /// Returns a permit to read a credential without a call. `None` if a call runs or another
    /// request reads the credential.
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

    /// Joins the call for a credential, or starts one in a task.
    ///
    /// `create` returns the future of a call that starts. `create` runs under the lock of the
    /// table. [`detach`](Self::detach) therefore runs before `create`, or removes the call that it
    /// created.
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
        // Created before the task: if the task panics, or the runtime ends before the task was
        // polled, the guard still removes the call. The sender of its state is then dropped too,
        // which wakes the callers.
        let remove_on_drop = RemoveOnDrop {
            table: Arc::clone(&self.0),
            call: started,
        };
        let task = async move {
            let result = future.await;
            // Removed before the result is published: a caller that receives it and then starts a
            // call must not join this one.
            let call = Arc::clone(&remove_on_drop.call);
            drop(remove_on_drop);
            call.publish_result(result);
        };
        // In a trace, the span of the request is the parent of the call.
        sync::spawn_call(tasks, task.in_current_span());
        call
    }

    /// Removes the call from the table because the store holds a newer record. Later callers start
    /// another call. The call continues for its callers (nothing lost), and its commit detects the
    /// newer record (newest wins).
    pub(super) fn detach(&self, id: &str) {
        self.lock().remove(id);
    }

    /// Returns `true` if a call for this credential runs and waits for the store.
    pub(super) fn is_waiting_for_store(&self, id: &str) -> bool {
        let table = self.lock();
        table.calls.get(id).is_some_and(Call::is_waiting_for_store)
    }

    /// Records the version that a call is about to write, so that the invalidation of this write
    /// does not detach the call. Has no effect on a call that was detached.
    pub(super) fn set_pending_version(&self, id: &str, number: u64, version: RecordVersion) {
        let mut table = self.lock();
        let call = table.calls.get_mut(id);
        if let Some(call) = call.filter(|call| call.number == number) {
            call.pending_version = Some(version);
        }
    }

    /// Detaches the call after a remote write, unless the written version is the one that the call
    /// itself is about to write.
    pub(super) fn on_invalidation(&self, id: &str, version: Option<RecordVersion>) {
        let mut table = self.lock();
        if let Some(call) = table.calls.get(id)
            && (call.pending_version.is_none() || call.pending_version != version)
        {
            table.remove(id);
        }
    }

    /// Returns `true` if there are no calls and no readers.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let table = self.lock();
        table.calls.is_empty() && table.readers.is_empty()
    }

    /// Returns the capacity of the larger table.
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

    /// Source that answers after all callers have started.
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
