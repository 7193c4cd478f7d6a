//! What the engines under the checker live in: a store that writes down what it held and when, and
//! a WeChat that changes every token it is shown.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::time_passes;
use crate::clock::{Clock, Timestamp};
use crate::credential::{AccessToken, AppId, Details, Lifetime, Record, Refresh, Token};
use crate::error::{Error, ErrorKind};
use crate::keeper::flight::Need;
use crate::keeper::{Failure, Held, Keeper, Settings, Source, Start};
use crate::store::{
    Allowance, BoxFuture, Claim, CodeBinding, CodeClaim, CodeName, Commit, Feed, Kind, LeaseOwner,
    MemoryStore, Name, Sealed, Slot, Store, Stored, Told, Witness,
};

pub(super) const ID: &str = "oUser";
const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// Where in its life the token of a schedule's beginning is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Age {
    Fresh,
    Stale,
    Expired,
}

fn app() -> AppId {
    AppId::new("wxchecked").unwrap()
}

/// A pair with this number.
fn record(number: usize, age: Age) -> Record {
    let granted = match age {
        Age::Fresh => NOW,
        Age::Stale => NOW.before(Duration::from_secs(6_400)),
        Age::Expired => NOW.before(Duration::from_secs(7_300)),
    };
    let lifetime = Lifetime::granted(granted, Some(7_200), Duration::from_secs(900));
    Record {
        token: Some(Token {
            secret: AccessToken::from(format!("access-{number}")),
            lifetime,
        }),
        refresh: Some(Refresh {
            secret: format!("refresh-{number}").as_str().into(),
            due: NOW.after(Duration::from_secs(30 * 24 * 3_600)),
        }),
        details: Details::default(),
    }
}

/// The memory of one process, in which requests and replies take their time. It notes what is
/// stored, in the order of the writes.
pub(super) struct Ledger {
    memory: MemoryStore,
    /// `None`: deleted.
    written: Mutex<Vec<Option<String>>>,
    /// Nothing gets through.
    closed: AtomicBool,
    /// Replies that are still to be lost.
    losing: AtomicUsize,
    /// Claims that are still on their way, although nobody waits for an answer.
    late: Arc<AtomicUsize>,
}

impl Ledger {
    fn note(&self, record: &Record) {
        let token = record.token.as_ref();
        let token = token.map(|token| token.secret.expose().to_owned());
        self.written.lock().unwrap().push(token);
    }

    pub(super) fn written(&self) -> Vec<Option<String>> {
        self.written.lock().unwrap().clone()
    }

    /// On the way there or back others may act, and a reply may be lost.
    async fn way(&self) -> Result<(), Error> {
        shuttle::future::yield_now().await;
        while self.closed.load(Ordering::Relaxed) {
            shuttle::future::yield_now().await;
        }
        let lose = |left: usize| left.checked_sub(1);
        let order = Ordering::Relaxed;
        match self.losing.fetch_update(order, order, lose) {
            Ok(_) if shuttle::rand::Rng::gen_bool(&mut shuttle::rand::thread_rng(), 0.3) => {
                Err(Error::new(ErrorKind::StoreUnavailable, "a reply was lost"))
            }
            _ => Ok(()),
        }
    }
}

impl Ledger {
    /// A claim that got no answer may run later all the same, before its lease would be over.
    fn comes_late(&self, slot: &Slot, expected: &Witness, owner: &LeaseOwner, ttl: Duration) {
        let (memory, slot) = (self.memory.clone(), slot.clone());
        let (expected, owner) = (expected.clone(), owner.clone());
        let late = Arc::clone(&self.late);
        late.fetch_add(1, Ordering::Relaxed);
        drop(shuttle::future::spawn(async move {
            for _ in 0..super::draw(0..40) {
                shuttle::future::yield_now().await;
            }
            drop(memory.claim(&slot, &expected, &owner, ttl).await);
            late.fetch_sub(1, Ordering::Relaxed);
        }));
    }
}

impl Sealed for Ledger {}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger")
            .field("written", &self.written())
            .finish_non_exhaustive()
    }
}

impl Store for Ledger {
    fn load<'a>(&'a self, slot: &'a Slot) -> BoxFuture<'a, Result<Stored, Error>> {
        Box::pin(async move {
            self.way().await?;
            let stored = self.memory.load(slot).await?;
            self.way().await?;
            Ok(stored)
        })
    }

    fn claim<'a>(
        &'a self,
        slot: &'a Slot,
        expected: &'a Witness,
        owner: &'a LeaseOwner,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Claim, Error>> {
        Box::pin(async move {
            if let Err(error) = self.way().await {
                self.comes_late(slot, expected, owner, ttl);
                return Err(error);
            }
            let claim = self.memory.claim(slot, expected, owner, ttl).await?;
            self.way().await?;
            Ok(claim)
        })
    }

    fn commit<'a>(
        &'a self,
        slot: &'a Slot,
        expected: &'a Witness,
        record: &'a Record,
        owner: &'a LeaseOwner,
    ) -> BoxFuture<'a, Result<Commit, Error>> {
        Box::pin(async move {
            self.way().await?;
            let commit = self.memory.commit(slot, expected, record, owner).await?;
            if matches!(commit, Commit::Done) {
                self.note(record);
            }
            self.way().await?;
            Ok(commit)
        })
    }

    fn announce_deletion<'a>(
        &'a self,
        slot: &'a Slot,
        expected: &'a Witness,
        owner: &'a LeaseOwner,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Claim, Error>> {
        Box::pin(async move {
            self.way().await?;
            let announced = self.memory.announce_deletion(slot, expected, owner, ttl);
            let claim = announced.await?;
            self.way().await?;
            Ok(claim)
        })
    }

    fn delete<'a>(
        &'a self,
        slot: &'a Slot,
        expected: &'a Witness,
        owner: &'a LeaseOwner,
    ) -> BoxFuture<'a, Result<Commit, Error>> {
        Box::pin(async move {
            self.way().await?;
            let commit = self.memory.delete(slot, expected, owner).await?;
            if matches!(commit, Commit::Done) {
                self.note(&Record::default());
            }
            self.way().await?;
            Ok(commit)
        })
    }

    fn release<'a>(
        &'a self,
        slot: &'a Slot,
        owner: &'a LeaseOwner,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async move {
            self.way().await?;
            self.memory.release(slot, owner).await
        })
    }

    fn put<'a>(&'a self, slot: &'a Slot, record: &'a Record) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            self.way().await?;
            self.memory.put(slot, record).await?;
            self.note(record);
            self.way().await
        })
    }

    fn spend<'a>(&'a self, allowance: &'a Allowance) -> BoxFuture<'a, Result<bool, Error>> {
        self.memory.spend(allowance)
    }

    fn bind_code<'a>(
        &'a self,
        code: &'a CodeName,
        login: u64,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<CodeBinding, Error>> {
        self.memory.bind_code(code, login, ttl)
    }

    fn claim_code<'a>(
        &'a self,
        code: &'a CodeName,
        owner: &'a LeaseOwner,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<CodeClaim, Error>> {
        self.memory.claim_code(code, owner, ttl)
    }

    fn release_code<'a>(
        &'a self,
        code: &'a CodeName,
        owner: &'a LeaseOwner,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        self.memory.release_code(code, owner)
    }

    fn settle_code<'a>(
        &'a self,
        code: &'a CodeName,
        owner: Option<&'a LeaseOwner>,
        outcome: &'a str,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<(), Error>> {
        self.memory.settle_code(code, owner, outcome, ttl)
    }

    fn revoke<'a>(
        &'a self,
        name: &'a Name,
        at: Timestamp,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<(), Error>> {
        self.memory.revoke(name, at, ttl)
    }

    fn revoked<'a>(&'a self, name: &'a Name) -> BoxFuture<'a, Result<Option<Timestamp>, Error>> {
        self.memory.revoked(name)
    }

    /// The checker listens in the engines' place, so that it knows what they have heard.
    fn news(&self, _app: &AppId) -> Option<Feed> {
        None
    }

    fn ping<'a>(&'a self, app: &'a AppId, kind: Kind) -> BoxFuture<'a, Result<(), Error>> {
        self.memory.ping(app, kind)
    }
}

/// Each grant has a number of its own, and kills the pair before it.
#[derive(Default)]
struct Wechat {
    granted: Mutex<Vec<usize>>,
    renewing: AtomicBool,
    /// A flight may have died while it asked, and another ask again.
    lenient: bool,
    /// What it refuses every renewal with, if it does.
    refusal: Mutex<Option<fn() -> Failure>>,
}

impl Wechat {
    fn grant(&self) -> usize {
        let mut granted = self.granted.lock().unwrap();
        let number = granted.len();
        granted.push(number);
        number
    }
}

struct Issuer(Arc<Wechat>);

impl Source for Issuer {
    fn can_renew(&self, record: &Record) -> bool {
        record.refresh.is_some()
    }

    fn renew<'a>(
        &'a self,
        record: &'a Record,
        _refused: Option<&'a AccessToken>,
    ) -> BoxFuture<'a, Result<Record, Failure>> {
        Box::pin(async move {
            let wechat = &self.0;
            let beside = wechat.renewing.swap(true, Ordering::Relaxed);
            assert!(!beside || wechat.lenient, "R1: two renewals at once");
            shuttle::future::yield_now().await;
            let shown = record
                .refresh
                .as_ref()
                .map(|it| it.secret.expose().to_owned());
            let live = wechat.granted.lock().unwrap().len() - 1;
            let refusal = *wechat.refusal.lock().unwrap();
            let outcome = if let Some(refusal) = refusal {
                Err(refusal())
            } else if shown == Some(format!("refresh-{live}")) {
                Ok(super::world::record(wechat.grant(), Age::Fresh))
            } else {
                let dead = Error::new(ErrorKind::LoginRequired, "the refresh token is dead");
                Err(Failure::Dead(dead))
            };
            shuttle::future::yield_now().await;
            wechat.renewing.store(false, Ordering::Relaxed);
            outcome
        })
    }
}

/// Two processes, one store and one WeChat, for the time of one schedule.
pub(super) struct World {
    ledger: Arc<Ledger>,
    wechat: Arc<Wechat>,
    pub(super) keepers: [Keeper; 2],
    /// How much of the ledger each process knows of: what it has written and heard.
    known: [AtomicUsize; 2],
    heard: [AtomicUsize; 2],
    lenient: bool,
}

impl World {
    /// With a pair of this age in the store. A lenient one takes it that requests may fail.
    pub(super) async fn new(age: Age, lenient: bool) -> Arc<Self> {
        let clock = Clock::manual(NOW);
        let ledger = Arc::new(Ledger {
            memory: MemoryStore::with_clock(clock.clone()),
            written: Mutex::default(),
            closed: AtomicBool::new(false),
            losing: AtomicUsize::new(0),
            late: Arc::default(),
        });
        let wechat = Arc::new(Wechat {
            lenient,
            ..Wechat::default()
        });
        let settings = Settings {
            margin: Duration::from_secs(900),
            start: Start::AtPoint,
            cache_ttl: Duration::from_secs(60),
            cache_capacity: 16,
            wait: Duration::from_secs(5),
            lease: Duration::from_secs(10),
            renewal: Duration::from_secs(8),
        };
        let keeper = || {
            let (settings, clock) = (settings.clone(), clock.clone());
            let issuer = Box::new(Issuer(Arc::clone(&wechat)));
            Keeper::new(app(), Kind::User, settings, clock, ledger.clone(), issuer)
        };
        let keepers = [keeper(), keeper()];
        let first = record(wechat.grant(), age);
        ledger.put(&keepers[0].0.slot(ID), &first).await.unwrap();
        Arc::new(Self {
            ledger,
            wechat,
            keepers,
            known: [1, 1].map(AtomicUsize::new),
            heard: [1, 1].map(AtomicUsize::new),
            lenient,
        })
    }

    /// From now on so many requests or replies on their way to the store and back may get lost.
    pub(super) fn may_lose(&self, so_many: usize) {
        self.ledger.losing.store(so_many, Ordering::Relaxed);
    }

    /// From now on WeChat refuses every renewal.
    pub(super) fn refuse(&self, refusal: fn() -> Failure) {
        *self.wechat.refusal.lock().unwrap() = Some(refusal);
    }

    /// The store loses the lease, whoever has it: in a fail-over, or because its time is over.
    pub(super) async fn lose_lease(&self) {
        shuttle::future::yield_now().await;
        self.ledger.memory.lose_leases();
    }

    /// No lease stands that nobody uses.
    async fn all_leases_are_given_back(&self) {
        let (memory, slot) = (&self.ledger.memory, self.keepers[0].0.slot(ID));
        let (witness, stranger) = (
            memory.load(&slot).await.unwrap().witness,
            LeaseOwner::unique(),
        );
        let claim = memory
            .claim(&slot, &witness, &stranger, Duration::from_secs(10))
            .await;
        assert!(matches!(claim, Ok(Claim::Granted)), "R7: a lease is left");
        memory.release(&slot, &stranger).await.unwrap();
    }

    /// What was written, in order, and WeChat's last grant.
    pub(super) fn history(&self) -> (Vec<Option<String>>, String) {
        let granted = self.wechat.granted.lock().unwrap().len() - 1;
        (self.ledger.written(), format!("access-{granted}"))
    }

    /// Whether the store is behind a closed door.
    pub(super) fn close(&self, closed: bool) {
        self.ledger.closed.store(closed, Ordering::Relaxed);
    }

    /// Joins a flight of the first process, or starts one, and tells which.
    pub(super) fn join(&self) -> u64 {
        let inner = &self.keepers[0].0;
        let flight = inner.flights.join(inner, ID, &Need::Usable, None);
        flight.number()
    }

    pub(super) fn leave_behind(&self) {
        self.keepers[0].0.flights.leave_behind(ID);
    }

    fn knows(&self, at: usize, number: usize) {
        self.known[at].fetch_max(number, Ordering::Relaxed);
    }

    fn position(&self, held: &Held) -> usize {
        let token = Some(held.secret().expose().to_owned());
        let written = self.ledger.written();
        let position = written.iter().rposition(|one| *one == token);
        position.unwrap_or_else(|| panic!("{token:?} was never stored: {written:?}"))
    }

    /// R2: nothing that is older than what this process knew when the caller came.
    fn judge(&self, at: usize, floor: usize, outcome: Result<Held, Error>) {
        match outcome {
            Ok(held) => {
                let position = self.position(&held);
                let written = self.ledger.written();
                assert!(
                    position + 1 >= floor,
                    "R2: process {at} serves number {position} of {written:?} and knew of {floor}"
                );
            }
            Err(error) if error.kind() == ErrorKind::LoginRequired => {
                let written = self.ledger.written();
                let since = written.get(floor - 1..).unwrap_or_default();
                assert!(
                    since.contains(&None),
                    "R2: process {at} sends a user to log in who need not: {written:?}, {floor}"
                );
            }
            Err(error) => assert!(self.lenient, "{error}"),
        }
    }

    pub(super) async fn get(&self, at: usize) {
        let floor = self.known[at].load(Ordering::Relaxed);
        let outcome = self.keepers[at].get(ID).await;
        self.judge(at, floor, outcome);
    }

    /// Asks where no news is heard: who joins a flight then may get what it has read before others
    /// read on their own, and what was read last is not known. But whatever is served, the cache
    /// keeps nothing that is older.
    pub(super) async fn get_unheard(&self, at: usize) {
        if let Ok(held) = self.keepers[at].get(ID).await {
            self.knows(at, self.position(&held) + 1);
        }
        let floor = self.known[at].load(Ordering::Relaxed);
        if let Some(held) = self.keepers[at].cached(ID) {
            self.judge(at, floor, Ok(held));
        }
    }

    pub(super) async fn get_after_login(&self, at: usize) {
        let floor = self.known[at].load(Ordering::Relaxed);
        let outcome = self.keepers[at].get_after_login(ID).await;
        self.judge(at, floor, outcome);
    }

    /// R6: WeChat has refused the first token.
    pub(super) async fn report(&self, at: usize) {
        let refused = AccessToken::from("access-0");
        let floor = self.known[at].load(Ordering::Relaxed);
        let outcome = self.keepers[at].report_refused(ID, &refused).await;
        if let Ok(held) = &outcome {
            assert_ne!(*held.secret(), refused, "R6: what was refused comes back");
        }
        self.judge(at, floor, outcome);
    }

    /// Reports the first token, while nothing can be renewed.
    pub(super) async fn report_without_success(&self, at: usize) {
        let refused = AccessToken::from("access-0");
        let outcome = self.keepers[at].report_refused(ID, &refused).await;
        assert!(outcome.is_err(), "R6: there is no other token");
    }

    pub(super) async fn log_in(&self, at: usize) {
        let login = record(self.wechat.grant(), Age::Fresh);
        match self.keepers[at].put(ID, login).await {
            Ok(held) => self.knows(at, self.position(&held) + 1),
            Err(error) => assert!(self.lenient, "{error}"),
        }
    }

    pub(super) async fn forget(&self, at: usize) {
        let before = self.ledger.written().len();
        match self.keepers[at].forget(ID).await {
            Ok(()) => {
                let written = self.ledger.written();
                let gone = written[before..].iter().position(Option::is_none);
                self.knows(at, before + gone.expect("it was deleted") + 1);
            }
            Err(error) => assert!(self.lenient, "{error}"),
        }
    }

    /// Hears the news as the engine's own task does, for as long as the schedule lasts.
    pub(super) fn listen(self: &Arc<Self>, at: usize) {
        let mut feed = self.ledger.memory.news(&app()).expect("it tells");
        let world = Arc::clone(self);
        let listening = async move {
            let inner = &world.keepers[at].0;
            loop {
                match feed.next().await {
                    Told::Written(news) => {
                        inner.hear(&news);
                        let heard = world.heard[at].fetch_add(1, Ordering::Relaxed) + 1;
                        world.knows(at, heard);
                    }
                    Told::Complete(_) => inner.cache.prove(NOW),
                    other => panic!("{other:?}"),
                }
            }
        };
        drop(shuttle::future::spawn(listening));
    }

    /// News was missed: what is served from now on was read after this moment.
    pub(super) fn lose_news(&self, at: usize) {
        let written = self.ledger.written().len();
        self.keepers[at].0.cache.unprove();
        self.keepers[at].0.cache.outdate_all();
        self.keepers[at].0.cache.prove(NOW);
        self.knows(at, written);
    }

    /// All flights have ended and taken themselves off the lists; where processes listen, what
    /// they hold is what the store holds.
    pub(super) async fn comes_to_rest(&self, listening: bool) {
        for keeper in &self.keepers {
            while !keeper.0.tasks.is_empty() {
                time_passes();
                shuttle::future::yield_now().await;
            }
            assert!(keeper.0.flights.is_empty(), "a flight has not landed");
        }
        while self.ledger.late.load(Ordering::Relaxed) > 0 {
            shuttle::future::yield_now().await;
        }
        self.all_leases_are_given_back().await;
        let written = self.ledger.written();
        let last = written.last().cloned().flatten();
        for (at, keeper) in self.keepers.iter().enumerate() {
            if !listening {
                continue;
            }
            while self.heard[at].load(Ordering::Relaxed) < written.len() {
                shuttle::future::yield_now().await;
            }
            if let Some(held) = keeper.cached(ID) {
                let held = Some(held.secret().expose().to_owned());
                assert_eq!(held, last, "process {at} believes this of {written:?}");
            }
            let absent = keeper.0.cache.is_absent(ID, NOW);
            assert!(!absent || last.is_none(), "process {at}: {written:?}");
        }
        // R3: WeChat's last grant has been stored, unless the user was forgotten.
        let granted = format!("access-{}", self.wechat.granted.lock().unwrap().len() - 1);
        let kept = written.contains(&Some(granted)) || written.contains(&None);
        assert!(
            kept || self.lenient,
            "R3: the last grant is not in {written:?}"
        );
    }

    /// WeChat was asked so often.
    pub(super) fn renewals(&self, logins: usize) -> usize {
        self.wechat.granted.lock().unwrap().len() - 1 - logins
    }
}
