//! What the engines under the checker live in: a store that writes down what it held and when, and
//! a WeChat that changes every token it is shown.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::advance_time;
use crate::clock::{Clock, Timestamp};
use crate::credential::{AccessToken, AppId, Lifetime, Record, Refresh, Token, UserDetails};
use crate::error::{Error, ErrorKind};
use crate::provider::call::Wanted;
use crate::provider::renewal;
use crate::provider::{
    CacheEntry, CredentialProvider, CredentialSource, ProviderConfig, RenewalFailure,
    RenewalTiming, StoreAccess,
};
use crate::store::{
    BoxFuture, CommitResult, CredentialKind, CredentialReader, CredentialSlot, CredentialWriter,
    Event, Expected, InvalidationSource, LeaseOwner, LeaseResult, MemoryStore, StoredRecord,
};

pub(super) const ID: &str = "oUser";
const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// Where in its life the token of a schedule's beginning is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenAge {
    Fresh,
    Stale,
    Expired,
}

fn app() -> AppId {
    AppId::new("wxchecked").unwrap()
}

/// A pair with this number.
fn record(number: usize, age: TokenAge) -> Record {
    let granted = match age {
        TokenAge::Fresh => NOW,
        TokenAge::Stale => NOW.saturating_sub(Duration::from_secs(6_400)),
        TokenAge::Expired => NOW.saturating_sub(Duration::from_secs(7_300)),
    };
    let lifetime = Lifetime::from_response(granted, Some(7_200), Duration::from_secs(900));
    Record {
        token: Some(Token {
            secret: AccessToken::from(format!("access-{number}")),
            lifetime,
        }),
        refresh: Some(Refresh {
            secret: format!("refresh-{number}").as_str().into(),
            expected_expiry: NOW.saturating_add(Duration::from_secs(30 * 24 * 3_600)),
        }),
        details: UserDetails::default(),
    }
}

/// The memory of one process, in which requests and replies take their time. It notes what is
/// stored, in the order of the writes.
pub(super) struct RecordingStore {
    memory: MemoryStore,
    /// `None`: deleted.
    written: Mutex<Vec<Option<String>>>,
    /// Nothing gets through.
    is_blocked: AtomicBool,
    /// Replies that are still to be lost.
    losses_left: AtomicUsize,
    /// Claims that are still on their way, although nobody waits for an answer.
    late_claims: Arc<AtomicUsize>,
}

impl RecordingStore {
    fn record_write(&self, record: &Record) {
        let token = record.token.as_ref();
        let token = token.map(|token| token.secret.expose().to_owned());
        self.written.lock().unwrap().push(token);
    }

    pub(super) fn written(&self) -> Vec<Option<String>> {
        self.written.lock().unwrap().clone()
    }

    /// On the way there or back others may act, and a reply may be lost.
    async fn simulate_network(&self) -> Result<(), Error> {
        shuttle::future::yield_now().await;
        while self.is_blocked.load(Ordering::Relaxed) {
            shuttle::future::yield_now().await;
        }
        let lose = |left: usize| left.checked_sub(1);
        let order = Ordering::Relaxed;
        match self.losses_left.fetch_update(order, order, lose) {
            Ok(_) if shuttle::rand::Rng::gen_bool(&mut shuttle::rand::thread_rng(), 0.3) => {
                Err(Error::store_unavailable("a reply was lost"))
            }
            _ => Ok(()),
        }
    }
}

impl RecordingStore {
    /// A claim that got no answer may run later all the same, before its lease would be over.
    fn claim_late(
        &self,
        slot: &CredentialSlot,
        expected: &Expected,
        owner: &LeaseOwner,
        ttl: Duration,
    ) {
        let (memory, slot) = (self.memory.clone(), slot.clone());
        let (expected, owner) = (expected.clone(), owner.clone());
        let late = Arc::clone(&self.late_claims);
        late.fetch_add(1, Ordering::Relaxed);
        drop(shuttle::future::spawn(async move {
            for _ in 0..super::random_number(0..40) {
                shuttle::future::yield_now().await;
            }
            drop(memory.acquire_lease(&slot, &expected, &owner, ttl).await);
            late.fetch_sub(1, Ordering::Relaxed);
        }));
    }
}

impl fmt::Debug for RecordingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger")
            .field("written", &self.written())
            .finish_non_exhaustive()
    }
}

impl CredentialReader for RecordingStore {
    fn load<'a>(&'a self, slot: &'a CredentialSlot) -> BoxFuture<'a, Result<StoredRecord, Error>> {
        Box::pin(async move {
            self.simulate_network().await?;
            let stored = self.memory.load(slot).await?;
            self.simulate_network().await?;
            Ok(stored)
        })
    }

    fn check_health<'a>(
        &'a self,
        app: &'a AppId,
        kind: CredentialKind,
    ) -> BoxFuture<'a, Result<(), Error>> {
        self.memory.check_health(app, kind)
    }
}

impl CredentialWriter for RecordingStore {
    fn acquire_lease<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        expected: &'a Expected,
        owner: &'a LeaseOwner,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<LeaseResult, Error>> {
        Box::pin(async move {
            if let Err(error) = self.simulate_network().await {
                self.claim_late(slot, expected, owner, ttl);
                return Err(error);
            }
            let claim = self
                .memory
                .acquire_lease(slot, expected, owner, ttl)
                .await?;
            self.simulate_network().await?;
            Ok(claim)
        })
    }

    fn commit<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        expected: &'a Expected,
        record: &'a Record,
        owner: &'a LeaseOwner,
    ) -> BoxFuture<'a, Result<CommitResult, Error>> {
        Box::pin(async move {
            self.simulate_network().await?;
            let commit = self.memory.commit(slot, expected, record, owner).await?;
            if matches!(commit, CommitResult::Committed) {
                self.record_write(record);
            }
            self.simulate_network().await?;
            Ok(commit)
        })
    }

    fn announce_deletion<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        expected: &'a Expected,
        owner: &'a LeaseOwner,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<LeaseResult, Error>> {
        Box::pin(async move {
            self.simulate_network().await?;
            let announced = self.memory.announce_deletion(slot, expected, owner, ttl);
            let claim = announced.await?;
            self.simulate_network().await?;
            Ok(claim)
        })
    }

    fn commit_deletion<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        expected: &'a Expected,
        owner: &'a LeaseOwner,
    ) -> BoxFuture<'a, Result<CommitResult, Error>> {
        Box::pin(async move {
            self.simulate_network().await?;
            let commit = self.memory.commit_deletion(slot, expected, owner).await?;
            if matches!(commit, CommitResult::Committed) {
                self.record_write(&Record::default());
            }
            self.simulate_network().await?;
            Ok(commit)
        })
    }

    fn release_lease<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        owner: &'a LeaseOwner,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async move {
            self.simulate_network().await?;
            self.memory.release_lease(slot, owner).await
        })
    }

    fn overwrite<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        record: &'a Record,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            self.simulate_network().await?;
            self.memory.overwrite(slot, record).await?;
            self.record_write(record);
            self.simulate_network().await
        })
    }
}

/// Each grant has a number of its own, and kills the pair before it.
#[derive(Default)]
struct FakeWechat {
    granted: Mutex<Vec<usize>>,
    renewing: AtomicBool,
    /// A flight may have died while it asked, and another ask again.
    allows_failures: bool,
    /// What it refuses every renewal with, if it does.
    failure: Mutex<Option<fn() -> RenewalFailure>>,
}

impl FakeWechat {
    fn grant(&self) -> usize {
        let mut granted = self.granted.lock().unwrap();
        let number = granted.len();
        granted.push(number);
        number
    }
}

struct FakeSource(Arc<FakeWechat>);

impl CredentialSource for FakeSource {
    fn can_renew(&self, record: &Record) -> bool {
        record.refresh.is_some()
    }

    fn renew<'a>(
        &'a self,
        record: &'a Record,
        _refused: Option<&'a AccessToken>,
    ) -> BoxFuture<'a, Result<Record, RenewalFailure>> {
        Box::pin(async move {
            let wechat = &self.0;
            let beside = wechat.renewing.swap(true, Ordering::Relaxed);
            assert!(
                !beside || wechat.allows_failures,
                "R1: two renewals at once"
            );
            shuttle::future::yield_now().await;
            let shown = record
                .refresh
                .as_ref()
                .map(|it| it.secret.expose().to_owned());
            let live = wechat.granted.lock().unwrap().len() - 1;
            let refusal = *wechat.failure.lock().unwrap();
            let outcome = if let Some(refusal) = refusal {
                Err(refusal())
            } else if shown == Some(format!("refresh-{live}")) {
                Ok(super::harness::record(wechat.grant(), TokenAge::Fresh))
            } else {
                let dead = Error::new(ErrorKind::LoginRequired, "the refresh token is dead");
                Err(RenewalFailure::InvalidGrant(dead))
            };
            shuttle::future::yield_now().await;
            wechat.renewing.store(false, Ordering::Relaxed);
            outcome
        })
    }
}

/// Two processes, one store and one WeChat, for the time of one schedule.
pub(super) struct Harness {
    store: Arc<RecordingStore>,
    wechat: Arc<FakeWechat>,
    pub(super) providers: [CredentialProvider; 2],
    /// How much of the ledger each process knows of: what it has written and heard.
    known: [AtomicUsize; 2],
    received: [AtomicUsize; 2],
    allows_failures: bool,
}

impl Harness {
    /// With a pair of this age in the store. A lenient one takes it that requests may fail.
    pub(super) async fn new(age: TokenAge, allows_failures: bool) -> Arc<Self> {
        let clock = Clock::manual(NOW);
        let ledger = Arc::new(RecordingStore {
            memory: MemoryStore::with_clock(clock.clone()),
            written: Mutex::default(),
            is_blocked: AtomicBool::new(false),
            losses_left: AtomicUsize::new(0),
            late_claims: Arc::default(),
        });
        let wechat = Arc::new(FakeWechat {
            allows_failures,
            ..FakeWechat::default()
        });
        let settings = ProviderConfig {
            margin: Duration::from_secs(900),
            timing: RenewalTiming::AtRenewalTime,
            cache_ttl: Duration::from_secs(60),
            cache_capacity: 16,
            load_timeout: Duration::from_secs(5),
            lease_duration: Duration::from_secs(10),
            renewal_timeout: Duration::from_secs(8),
        };
        let provider = || {
            let (settings, clock) = (settings.clone(), clock.clone());
            let issuer = Box::new(FakeSource(Arc::clone(&wechat)));
            CredentialProvider::new(
                app(),
                CredentialKind::User,
                settings,
                clock,
                StoreAccess::Unsubscribed(ledger.clone()),
                issuer,
            )
        };
        let providers = [provider(), provider()];
        let first = record(wechat.grant(), age);
        ledger
            .overwrite(&providers[0].0.slot(ID), &first)
            .await
            .unwrap();
        Arc::new(Self {
            store: ledger,
            wechat,
            providers,
            known: [1, 1].map(AtomicUsize::new),
            received: [1, 1].map(AtomicUsize::new),
            allows_failures,
        })
    }

    /// From now on so many requests or replies on their way to the store and back may get lost.
    pub(super) fn lose_replies(&self, count: usize) {
        self.store.losses_left.store(count, Ordering::Relaxed);
    }

    /// From now on WeChat refuses every renewal.
    pub(super) fn fail_renewals_with(&self, failure: fn() -> RenewalFailure) {
        *self.wechat.failure.lock().unwrap() = Some(failure);
    }

    /// The store loses the lease, whoever has it: in a fail-over, or because its time is over.
    pub(super) async fn lose_lease(&self) {
        shuttle::future::yield_now().await;
        self.store.memory.drop_leases();
    }

    /// No lease stands that nobody uses.
    async fn assert_all_leases_released(&self) {
        let (memory, slot) = (&self.store.memory, self.providers[0].0.slot(ID));
        let (witness, stranger) = (
            memory.load(&slot).await.unwrap().expected,
            LeaseOwner::unique(),
        );
        let claim = memory
            .acquire_lease(&slot, &witness, &stranger, Duration::from_secs(10))
            .await;
        assert!(
            matches!(claim, Ok(LeaseResult::Acquired)),
            "R7: a lease is left"
        );
        memory.release_lease(&slot, &stranger).await.unwrap();
    }

    /// What was written, in order, and WeChat's last grant.
    pub(super) fn history(&self) -> (Vec<Option<String>>, String) {
        let granted = self.wechat.granted.lock().unwrap().len() - 1;
        (self.store.written(), format!("access-{granted}"))
    }

    /// Whether the store is behind a closed door.
    pub(super) fn block_store(&self, is_blocked: bool) {
        self.store.is_blocked.store(is_blocked, Ordering::Relaxed);
    }

    /// Joins a flight of the first process, or starts one, and tells which.
    pub(super) fn join_call(&self) -> u64 {
        let provider = &self.providers[0].0;
        renewal::join_or_start(provider, ID, &Wanted::Any, None).number()
    }

    pub(super) fn detach_calls(&self) {
        self.providers[0].0.calls.detach(ID);
    }

    fn learn(&self, at: usize, number: usize) {
        self.known[at].fetch_max(number, Ordering::Relaxed);
    }

    fn write_index(&self, held: &CacheEntry) -> usize {
        let token = Some(held.secret().expose().to_owned());
        let written = self.store.written();
        let position = written.iter().rposition(|one| *one == token);
        position.unwrap_or_else(|| panic!("{token:?} was never stored: {written:?}"))
    }

    /// R2: nothing that is older than what this process knew when the caller came.
    fn check_served(&self, at: usize, floor: usize, outcome: Result<CacheEntry, Error>) {
        match outcome {
            Ok(held) => {
                let position = self.write_index(&held);
                let written = self.store.written();
                assert!(
                    position + 1 >= floor,
                    "R2: process {at} serves number {position} of {written:?} and knew of {floor}"
                );
            }
            Err(error) if error.kind() == ErrorKind::LoginRequired => {
                let written = self.store.written();
                let since = written.get(floor - 1..).unwrap_or_default();
                assert!(
                    since.contains(&None),
                    "R2: process {at} sends a user to log in who need not: {written:?}, {floor}"
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

    /// Asks where no news is heard: who joins a flight then may get what it has read before others
    /// read on their own, and what was read last is not known. But whatever is served, the cache
    /// keeps nothing that is older.
    pub(super) async fn get_without_invalidations(&self, at: usize) {
        if let Ok(held) = self.providers[at].get(ID).await {
            self.learn(at, self.write_index(&held) + 1);
        }
        let floor = self.known[at].load(Ordering::Relaxed);
        if let Some(held) = self.providers[at].cached(ID) {
            self.check_served(at, floor, Ok(held));
        }
    }

    pub(super) async fn get_after_login(&self, at: usize) {
        let floor = self.known[at].load(Ordering::Relaxed);
        let outcome = self.providers[at].get_after_login(ID).await;
        self.check_served(at, floor, outcome);
    }

    /// R6: WeChat has refused the first token.
    pub(super) async fn report(&self, at: usize) {
        let refused = AccessToken::from("access-0");
        let floor = self.known[at].load(Ordering::Relaxed);
        let outcome = self.providers[at].report_invalid(ID, &refused).await;
        if let Ok(held) = &outcome {
            assert_ne!(*held.secret(), refused, "R6: what was refused comes back");
        }
        self.check_served(at, floor, outcome);
    }

    /// Reports the first token, while nothing can be renewed.
    pub(super) async fn report_without_success(&self, at: usize) {
        let refused = AccessToken::from("access-0");
        let outcome = self.providers[at].report_invalid(ID, &refused).await;
        assert!(outcome.is_err(), "R6: there is no other token");
    }

    pub(super) async fn log_in(&self, at: usize) {
        let login = record(self.wechat.grant(), TokenAge::Fresh);
        match self.providers[at].store_record(ID, login).await {
            Ok(held) => self.learn(at, self.write_index(&held) + 1),
            Err(error) => assert!(self.allows_failures, "{error}"),
        }
    }

    pub(super) async fn revoke(&self, at: usize) {
        let before = self.store.written().len();
        match self.providers[at].revoke(ID).await {
            Ok(()) => {
                let written = self.store.written();
                let gone = written[before..].iter().position(Option::is_none);
                self.learn(at, before + gone.expect("it was deleted") + 1);
            }
            Err(error) => assert!(self.allows_failures, "{error}"),
        }
    }

    /// Hears the news as the engine's own task does, for as long as the schedule lasts.
    pub(super) fn listen(self: &Arc<Self>, at: usize) {
        let mut feed = self.store.memory.subscribe(&app()).expect("it tells");
        let world = Arc::clone(self);
        let listening = async move {
            let inner = &world.providers[at].0;
            loop {
                match feed.next_event().await {
                    Event::Invalidated(news) => {
                        inner.apply_invalidation(&news);
                        let heard = world.received[at].fetch_add(1, Ordering::Relaxed) + 1;
                        world.learn(at, heard);
                    }
                    Event::Synced(_) => inner.cache.mark_synced(NOW),
                    other => panic!("{other:?}"),
                }
            }
        };
        drop(shuttle::future::spawn(listening));
    }

    /// News was missed: what is served from now on was read after this moment.
    pub(super) fn lose_invalidations(&self, at: usize) {
        let written = self.store.written().len();
        self.providers[at].0.cache.mark_unsynced();
        self.providers[at].0.cache.invalidate_all();
        self.providers[at].0.cache.mark_synced(NOW);
        self.learn(at, written);
    }

    /// All flights have ended and taken themselves off the lists; where processes listen, what
    /// they hold is what the store holds.
    pub(super) async fn assert_quiescent(&self, listening: bool) {
        for provider in &self.providers {
            while !provider.0.tasks.is_empty() {
                advance_time();
                shuttle::future::yield_now().await;
            }
            assert!(provider.0.calls.is_empty(), "a flight has not landed");
        }
        while self.store.late_claims.load(Ordering::Relaxed) > 0 {
            shuttle::future::yield_now().await;
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
            if let Some(held) = provider.cached(ID) {
                let held = Some(held.secret().expose().to_owned());
                assert_eq!(held, last, "process {at} believes this of {written:?}");
            }
            let absent = provider.0.cache.is_known_absent(ID, NOW);
            assert!(!absent || last.is_none(), "process {at}: {written:?}");
        }
        // R3: WeChat's last grant has been stored, unless the user was forgotten.
        let granted = format!("access-{}", self.wechat.granted.lock().unwrap().len() - 1);
        let kept = written.contains(&Some(granted)) || written.contains(&None);
        assert!(
            kept || self.allows_failures,
            "R3: the last grant is not in {written:?}"
        );
    }

    /// WeChat was asked so often.
    pub(super) fn renewals(&self, logins: usize) -> usize {
        self.wechat.granted.lock().unwrap().len() - 1 - logins
    }
}
