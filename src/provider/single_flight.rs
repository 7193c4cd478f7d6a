//! R1 within a process: however many ask for one credential at once, one flight fetches it.
//!
//! A flight is a task of its own (R3): whoever asked may hang up, and it goes on.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError};

use quick_cache::DefaultHashBuilder;
use tokio::sync::watch;
use tracing::Instrument;

use super::call::{CallState, Wanted};
use super::entry::CacheEntry;
use super::renewal;
use super::state::ProviderState;
use super::sync::{self, Mutex, MutexGuard};
use super::versions::{BuildSpreadHasher, EntryKey, ReadSnapshot};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind};
use crate::shrink::{shrink_map, shrink_set};
use crate::store::RecordVersion;

/// A caller's view of a flight.
#[derive(Clone)]
pub(super) struct Call {
    state: watch::Receiver<CallState>,
    wanted: Wanted,
    /// Tells flights of one credential apart.
    number: u64,
    /// What it is about to write.
    pending_version: Option<RecordVersion>,
}

impl Call {
    /// Waits until the flight has a token that meets `need`, or has ended. A token that is served
    /// meanwhile may have expired by the time the caller gets it.
    pub(super) async fn wait(&self, wanted: &Wanted, clock: &Clock) -> Result<CacheEntry, Error> {
        let mut stage = self.state.clone();
        let is_enough = |stage: &CallState| {
            stage.result.is_some() || stage.provisional_for(wanted, clock.now()).is_some()
        };
        let reached = match stage.wait_for(is_enough).await {
            Ok(stage) => stage.clone(),
            // The task panicked, or the runtime is being torn down.
            Err(_) => CallState::default(),
        };
        let usable = reached.provisional_for(wanted, clock.now()).cloned();
        match (reached.result, usable) {
            (Some(Ok(held)), _) => Ok(held),
            // The flight failed, perhaps because of a report. The token that it found is alive all
            // the same, and this caller has not reported it.
            (_, Some(held)) => Ok(held),
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

    /// Whether its task is still there to say how it ends.
    fn is_running(&self) -> bool {
        self.state.has_changed().is_ok()
    }

    #[cfg(test)]
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Whether the flight began for the same reason.
    pub(super) fn was_started_for(&self, wanted: &Wanted) -> bool {
        match (wanted.replaced_token(), self.wanted.replaced_token()) {
            (Some(asked), Some(flown)) => asked == flown,
            (None, None) => true,
            _ => false,
        }
    }
}

/// The flights that are under way, by credential.
#[derive(Default)]
pub(super) struct SingleFlight(Mutex<CallTable>);

/// While this lives, others who look for the same credential take a flight instead of reading it
/// as well.
pub(super) struct ReadPermit<'a> {
    single_flight: &'a SingleFlight,
    key: EntryKey,
}

impl Drop for ReadPermit<'_> {
    fn drop(&mut self) {
        let mut list = self.single_flight.lock();
        list.readers.remove(&self.key);
        shrink_set(&mut list.readers);
    }
}

#[derive(Default)]
struct CallTable {
    calls: HashMap<Box<str>, Call, DefaultHashBuilder>,
    /// Who is being read by a caller without a flight.
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
    /// Leave to read a credential without a flight, unless one is under way or somebody else reads
    /// it.
    pub(super) fn try_read_alone(&self, key: EntryKey, id: &str) -> Option<ReadPermit<'_>> {
        let mut list = self.lock();
        if list.calls.get(id).is_some_and(Call::is_running) {
            return None;
        }
        let single_flight = self;
        let first = list.readers.insert(key);
        drop(list);
        first.then(|| ReadPermit { single_flight, key })
    }

    /// Joins the flight for a credential, or starts one, which takes a glance at the store for its
    /// own.
    pub(super) fn join_or_start(
        &self,
        provider: &Arc<ProviderState>,
        id: &str,
        wanted: &Wanted,
        snapshot: Option<ReadSnapshot>,
    ) -> Call {
        let (sender, stage) = watch::channel(CallState::default());
        let (flight, owner, glance) = {
            let mut list = self.lock();
            if let Some(flight) = list.calls.get(id)
                && flight.is_running()
            {
                return flight.clone();
            }
            // What was read before a login is not what those want who join after it. A login that
            // begins only now finds this flight on the list, and leaves it behind.
            let glance = snapshot.filter(|glance| provider.cache.is_unchanged(&glance.stamp));
            list.started_count += 1;
            let flight = Call {
                state: stage,
                wanted: wanted.clone(),
                number: list.started_count,
                pending_version: None,
            };
            list.calls.insert(id.into(), flight.clone());
            // A name of its own: a flight that was left behind must not give back the lease of its
            // successor.
            (
                flight,
                provider.lease_owner.with_number(list.started_count),
                glance,
            )
        };
        // Made before the task, so that a panic, or a runtime that ends before the task has begun,
        // takes the flight off the list too: its end is the end of the sender, and those who wait
        // are told.
        let remove_on_drop = RemoveOnDrop {
            provider: Arc::clone(provider),
            id: id.into(),
            number: flight.number,
        };
        let need = wanted.clone();
        let task = async move {
            let (inner, flight) = (
                &remove_on_drop.provider,
                (&*remove_on_drop.id, remove_on_drop.number),
            );
            let outcome = renewal::run(inner, flight, &need, owner, &sender, glance).await;
            drop(remove_on_drop);
            sender.send_modify(|stage| stage.result = Some(outcome));
        };
        // In a trace the flight lies under the request that began it.
        sync::spawn_call(&provider.tasks, task.in_current_span());
        flight
    }

    /// The store holds something else since: who asks from now on must not join a flight that
    /// began before. It goes on for those who have (R3), and its commit will find what is new (R2).
    pub(super) fn detach(&self, id: &str) {
        self.lock().remove(id);
    }

    /// Returns `true` if a flight for this credential is under way and waits for the store.
    pub(super) fn is_waiting_for_store(&self, id: &str) -> bool {
        let list = self.lock();
        list.calls.get(id).is_some_and(Call::is_waiting_for_store)
    }

    /// A flight is about to write this. One that was left behind says nothing of its successor.
    pub(super) fn set_pending_version(&self, id: &str, number: u64, version: RecordVersion) {
        let mut list = self.lock();
        let flight = list.calls.get_mut(id);
        if let Some(flight) = flight.filter(|flight| flight.number == number) {
            flight.pending_version = Some(version);
        }
    }

    /// Somebody has written: who asks from now on must not join a flight that began before, unless
    /// it was its own doing.
    pub(super) fn on_invalidation(&self, id: &str, version: Option<RecordVersion>) {
        let mut list = self.lock();
        if let Some(flight) = list.calls.get(id)
            && (flight.pending_version.is_none() || flight.pending_version != version)
        {
            list.remove(id);
        }
    }

    /// Whether nobody flies and nobody reads.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let list = self.lock();
        list.calls.is_empty() && list.readers.is_empty()
    }

    /// How many flights and reads there is room for.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        let list = self.lock();
        list.calls.capacity().max(list.readers.capacity())
    }

    fn lock(&self) -> MutexGuard<'_, CallTable> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a flight off the list when its task ends, however it ends.
struct RemoveOnDrop {
    provider: Arc<ProviderState>,
    id: Box<str>,
    number: u64,
}

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        let mut list = self.provider.calls.lock();
        if list
            .calls
            .get(&self.id)
            .is_some_and(|flight| flight.number == self.number)
        {
            list.remove(&self.id);
        }
    }
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

    /// Answers after all have asked.
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
