//! The harness of the tests: two simulated processes with one store and one WeChat, and checks of
//! the tokens that the processes serve.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::batched_store::{BatchedStore, Network};
use super::explore::{Task, advance_time, random_number};
use super::store::RecordingStore;
use super::tasks::abort_calls_after;
use super::wechat::{FakeSource, FakeWechat, NOW, TokenAge, record};
use crate::clock::Clock;
use crate::credential::{AccessToken, AppId, Record};
use crate::error::{Error, ErrorKind};
use crate::provider::call::Wanted;
use crate::provider::config::{ProviderConfig, RenewalTiming};
use crate::provider::entry::CacheEntry;
use crate::provider::renewal;
use crate::provider::source::RenewalFailure;
use crate::provider::state::{CredentialProvider, StoreAccess};
use crate::store::{
    CredentialKind, CredentialReader, CredentialWriter, Event, InvalidationSource, LeaseOwner,
    LeaseResult,
};

pub(super) const ID: &str = "oUser";

fn app() -> AppId {
    AppId::new("wxchecked").unwrap()
}

/// Spawns a task of a test, which the checker schedules.
pub(super) fn spawn<F: Future<Output = ()> + Send + 'static>(
    harness: &Arc<Harness>,
    task: impl FnOnce(Arc<Harness>) -> F,
) -> Task {
    shuttle::future::spawn(task(Arc::clone(harness)))
}

/// Runs the body of a test under one schedule, with a new harness whose store holds a pair of this
/// age.
pub(super) fn with_harness<F: Future<Output = ()>>(
    network: Network,
    age: TokenAge,
    allows_failures: bool,
    body: impl FnOnce(Arc<Harness>) -> F,
) {
    abort_calls_after(None);
    shuttle::future::block_on(async {
        let harness = Harness::new(network, age, allows_failures).await;
        body(harness).await;
    });
}

/// Two simulated processes with one store and one WeChat, for one schedule.
pub(super) struct Harness {
    store: Arc<RecordingStore>,
    /// The stores of the processes that send operations in batches.
    batched_stores: Vec<Arc<BatchedStore>>,
    wechat: Arc<FakeWechat>,
    pub(super) providers: [CredentialProvider; 2],
    /// For each process, the number of recorded writes up to the newest write that the process has
    /// made or received as an invalidation.
    known: [AtomicUsize; 2],
    /// For each process, the number of invalidations that the process received, plus one for the
    /// first write.
    received: [AtomicUsize; 2],
    /// `true` if requests may fail, because the test loses replies or aborts calls.
    allows_failures: bool,
}

impl Harness {
    /// Creates two processes whose store holds a pair of this age. If `allows_failures` is `false`,
    /// the checks reject failed requests.
    async fn new(network: Network, age: TokenAge, allows_failures: bool) -> Arc<Self> {
        let clock = Clock::manual(NOW);
        let store = Arc::new(RecordingStore::new(clock.clone()));
        let wechat = Arc::new(FakeWechat::new(allows_failures));
        let config = ProviderConfig {
            margin: Duration::from_secs(900),
            timing: RenewalTiming::AtRenewalTime,
            cache_ttl: Duration::from_secs(60),
            cache_capacity: 16,
            load_timeout: Duration::from_secs(5),
            lease_duration: Duration::from_secs(10),
            renewal_timeout: Duration::from_secs(8),
            max_concurrent_renewals: 512,
            has_account_gauges: false,
        };
        // The processes may also be two engines of one process, which share its queues.
        let batched_stores: Vec<_> = match network {
            Network::Direct => Vec::new(),
            Network::Batched => (0..=random_number(0..2))
                .map(|_| Arc::new(BatchedStore::new(&store)))
                .collect(),
        };
        let provider = |at: usize| {
            let access: Arc<dyn CredentialWriter> =
                match batched_stores.get(at).or(batched_stores.last()) {
                    Some(batched) => batched.clone(),
                    None => store.clone(),
                };
            let (config, clock) = (config.clone(), clock.clone());
            let source = Box::new(FakeSource(Arc::clone(&wechat)));
            CredentialProvider::new(
                app(),
                CredentialKind::User,
                config,
                clock,
                StoreAccess::Unsubscribed(access),
                source,
            )
        };
        let providers = [0, 1].map(provider);
        let first = record(wechat.grant(), age);
        store
            .overwrite(&providers[0].0.slot(ID), &first)
            .await
            .unwrap();
        Arc::new(Self {
            store,
            batched_stores,
            wechat,
            providers,
            known: [1, 1].map(AtomicUsize::new),
            received: [1, 1].map(AtomicUsize::new),
            allows_failures,
        })
    }

    /// Lets the network lose requests and replies of the store: each of the next `count` may be
    /// lost, at random.
    pub(super) fn lose_replies(&self, count: usize) {
        self.store.losses_left.store(count, Ordering::Relaxed);
    }

    /// Makes WeChat answer all later renewals with `failure`.
    pub(super) fn fail_renewals_with(&self, failure: fn() -> RenewalFailure) {
        self.wechat.fail_renewals_with(failure);
    }

    /// Removes the lease from the store, as a fail-over of Redis or the expiry of the lease does.
    pub(super) async fn lose_lease(&self) {
        shuttle::future::yield_now().await;
        self.store.memory.drop_leases();
    }

    /// Checks that no process holds the lease of the credential: a new owner must be able to
    /// acquire the lease.
    async fn assert_all_leases_released(&self) {
        let (memory, slot) = (&self.store.memory, self.providers[0].0.slot(ID));
        let (expected, owner) = (
            memory.load(&slot).await.unwrap().expected,
            LeaseOwner::unique(),
        );
        let claim = memory
            .acquire_lease(&slot, &expected, &owner, Duration::from_secs(10))
            .await;
        assert!(
            matches!(claim, Ok(LeaseResult::Acquired)),
            "followers bounded: a lease was not released"
        );
        memory.release_lease(&slot, &owner).await.unwrap();
    }

    /// Returns all written access tokens in order (`None` for a deletion), and the last token that
    /// WeChat granted.
    pub(super) fn history(&self) -> (Vec<Option<String>>, String) {
        let granted = self.wechat.last_grant();
        (self.store.written(), format!("access-{granted}"))
    }

    /// Makes all requests to the store wait, or lets the waiting requests continue.
    pub(super) fn block_store(&self, is_blocked: bool) {
        self.store.is_blocked.store(is_blocked, Ordering::Relaxed);
    }

    /// Joins the running call of the first process, or starts a call. Returns the number of the
    /// call.
    pub(super) fn join_call(&self) -> u64 {
        let provider = &self.providers[0].0;
        renewal::join_or_start(provider, ID, &Wanted::Any, None).number()
    }

    /// Makes WeChat answer each later renewal after this number of steps.
    pub(super) fn delay_renewals(&self, steps: usize) {
        self.wechat.delay.store(steps, Ordering::Relaxed);
    }

    /// Waits until a process calls WeChat for a renewal.
    pub(super) async fn wait_for_renewal(&self) {
        while !self.wechat.has_begun_renewal() {
            shuttle::future::yield_now().await;
        }
    }

    pub(super) fn detach_calls(&self) {
        self.providers[0].0.calls.detach(ID);
    }

    /// Records that the process `at` has made or received the write with this number.
    fn learn(&self, at: usize, number: usize) {
        self.known[at].fetch_max(number, Ordering::Relaxed);
    }

    /// Returns the index of the last write of the entry's token among all recorded writes.
    fn write_index(&self, entry: &CacheEntry) -> usize {
        let token = Some(entry.secret().expose().to_owned());
        let written = self.store.written();
        let position = written.iter().rposition(|one| *one == token);
        position.unwrap_or_else(|| panic!("{token:?} was never stored: {written:?}"))
    }

    /// Checks that the result of a request of the process `at` is not older than the write `floor`
    /// (newest wins). `floor` is the newest write that the process had made or received when the
    /// request began.
    fn check_served(&self, at: usize, floor: usize, outcome: Result<CacheEntry, Error>) {
        match outcome {
            Ok(entry) => {
                let position = self.write_index(&entry);
                let written = self.store.written();
                assert!(
                    position + 1 >= floor,
                    "newest wins: process {at} serves write {position} of {written:?} and knew {floor}"
                );
            }
            Err(error) if error.kind() == ErrorKind::LoginRequired => {
                let written = self.store.written();
                let since = written.get(floor - 1..).unwrap_or_default();
                assert!(
                    since.contains(&None),
                    "newest wins: process {at} requires a login without need: {written:?}, {floor}"
                );
            }
            Err(error) => assert!(self.allows_failures, "{error}"),
        }
    }

    pub(super) async fn get(&self, at: usize) {
        let floor = self.known[at].load(Ordering::Relaxed);
        let outcome = self.providers[at].get(ID).await;
        self.check_served(at, floor, outcome);
    }

    /// Gets the credential in a process that receives no invalidations. Checks that the cache entry
    /// is not older than any token that the process has served.
    ///
    /// The result of the request is not checked. A request that joins a call may get the result of
    /// a read that began before other reads.
    pub(super) async fn get_without_invalidations(&self, at: usize) {
        if let Ok(entry) = self.providers[at].get(ID).await {
            self.learn(at, self.write_index(&entry) + 1);
        }
        let floor = self.known[at].load(Ordering::Relaxed);
        if let Some(entry) = self.providers[at].cached(ID) {
            self.check_served(at, floor, Ok(entry));
        }
    }

    pub(super) async fn get_after_login(&self, at: usize) {
        let floor = self.known[at].load(Ordering::Relaxed);
        let outcome = self.providers[at].get_after_login(ID).await;
        self.check_served(at, floor, outcome);
    }

    /// Reports the first token as rejected by WeChat, and checks that another token is returned
    /// (reports compared).
    pub(super) async fn report(&self, at: usize) {
        let invalid = AccessToken::from("access-0");
        let floor = self.known[at].load(Ordering::Relaxed);
        let outcome = self.providers[at].report_invalid(ID, &invalid).await;
        if let Ok(entry) = &outcome {
            assert_ne!(
                *entry.secret(),
                invalid,
                "reports compared: the reported token is served"
            );
        }
        self.check_served(at, floor, outcome);
    }

    /// Reports the first token while all renewals fail, and checks that the report fails.
    pub(super) async fn report_without_success(&self, at: usize) {
        let invalid = AccessToken::from("access-0");
        let outcome = self.providers[at].report_invalid(ID, &invalid).await;
        assert!(
            outcome.is_err(),
            "reports compared: there is no other token"
        );
    }

    pub(super) async fn log_in(&self, at: usize) {
        let login = self.granted_login();
        match self.providers[at].store_login(ID, &login, false).await {
            Ok(entry) => {
                let entry = entry.expect("the login has just ended");
                self.learn(at, self.write_index(&entry) + 1);
            }
            Err(error) => assert!(self.allows_failures, "{error}"),
        }
    }

    /// Returns the record of a login that has just ended.
    pub(super) fn granted_login(&self) -> Record {
        record(self.wechat.grant(), TokenAge::Fresh)
    }

    /// Writes the record of a login, again after each failure.
    pub(super) async fn store_login(&self, at: usize, login: &Record, mut is_late: bool) {
        while let Err(error) = self.providers[at].store_login(ID, login, is_late).await {
            assert!(self.allows_failures, "{error}");
            is_late = true;
        }
    }

    pub(super) async fn revoke(&self, at: usize) {
        let before = self.store.written().len();
        match self.providers[at].revoke(ID).await {
            Ok(()) => {
                let written = self.store.written();
                let deleted = written[before..].iter().position(Option::is_none);
                self.learn(at, before + deleted.expect("a deletion was recorded") + 1);
            }
            Err(error) => assert!(self.allows_failures, "{error}"),
        }
    }

    /// Spawns a task that applies invalidations to the process `at` until the schedule ends. This
    /// task replaces the background task of the engine, which does not run under the checker.
    pub(super) fn listen(self: &Arc<Self>, at: usize) {
        let mut subscription = self.store.memory.subscribe(&app()).expect("it publishes");
        let harness = Arc::clone(self);
        let listening = async move {
            let provider = &harness.providers[at].0;
            loop {
                match subscription.next_event().await {
                    Event::Invalidated(write) => {
                        provider.apply_invalidation(&write);
                        let received = harness.received[at].fetch_add(1, Ordering::Relaxed) + 1;
                        harness.learn(at, received);
                    }
                    Event::Synced(_) => provider.cache.mark_synced(NOW),
                    other => panic!("{other:?}"),
                }
            }
        };
        drop(shuttle::future::spawn(listening));
    }

    /// Begins a new epoch in the process `at`, as after a missed invalidation. Later requests must
    /// not be served from reads that began before the new epoch.
    pub(super) fn lose_invalidations(&self, at: usize) {
        let written = self.store.written().len();
        self.providers[at].0.cache.mark_unsynced();
        self.providers[at].0.cache.invalidate_all();
        self.providers[at].0.cache.mark_synced(NOW);
        self.learn(at, written);
    }

    /// Waits until all tasks have ended, then checks that:
    ///
    /// - no call and no lease is left, and no driver of a queue;
    /// - the last pair that WeChat granted was stored, unless the user logged out or requests may
    ///   fail;
    /// - the caches agree with the store, if both processes receive invalidations (`listening`).
    pub(super) async fn assert_quiescent(&self, listening: bool) {
        for provider in &self.providers {
            while !provider.0.tasks.is_empty() {
                advance_time();
                shuttle::future::yield_now().await;
            }
            assert!(provider.0.calls.is_empty(), "a call was not removed");
        }
        while self.store.late_claims.load(Ordering::Relaxed) > 0 {
            shuttle::future::yield_now().await;
        }
        // A driver that does not end makes the checker stop after its maximum number of steps.
        for batched in &self.batched_stores {
            while !batched.is_idle() {
                shuttle::future::yield_now().await;
            }
        }
        self.assert_all_leases_released().await;
        let written = self.store.written();
        let last = written.last().cloned().flatten();
        for (at, provider) in self.providers.iter().enumerate() {
            if !listening {
                continue;
            }
            while self.received[at].load(Ordering::Relaxed) < written.len() {
                shuttle::future::yield_now().await;
            }
            if let Some(entry) = provider.cached(ID) {
                let cached = Some(entry.secret().expose().to_owned());
                assert_eq!(cached, last, "process {at} caches this of {written:?}");
            }
            let absent = provider.0.cache.is_known_absent(ID, NOW);
            assert!(!absent || last.is_none(), "process {at}: {written:?}");
        }
        // Nothing lost: the last granted pair was stored, unless the credential was deleted or
        // requests may fail.
        let granted = format!("access-{}", self.wechat.last_grant());
        let kept = written.contains(&Some(granted)) || written.contains(&None);
        assert!(
            kept || self.allows_failures,
            "nothing lost: the last grant is not in {written:?}"
        );
    }

    /// Returns the number of renewals that WeChat granted, if the test has made this number of
    /// logins.
    pub(super) fn renewals(&self, logins: usize) -> usize {
        self.wechat.last_grant() - logins
    }
}
