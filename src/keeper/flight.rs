//! R1 within a process: however many ask for one credential at once, one flight fetches it.
//!
//! A flight is a task of its own (R3): whoever asked may hang up, and it goes on.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError};

use quick_cache::DefaultHashBuilder;
use tokio::sync::watch;
use tracing::Instrument;

use super::cache::{Key, Spread};
use super::reading::Glance;
use super::sync::{self, Mutex, MutexGuard};
use super::{Held, Inner, renewal};
use crate::clock::{Clock, Timestamp};
use crate::credential::AccessToken;
use crate::error::{Error, ErrorKind};
use crate::room::{shrink_map, shrink_set};
use crate::store::Mark;

/// What a caller asks for.
#[derive(Debug, Clone)]
pub(super) enum Need {
    /// A token that is usable, be it stale.
    Usable,
    /// A token other than this one, which WeChat has refused (R6).
    OtherThan(AccessToken),
}

impl Need {
    pub(super) fn is_met_by(&self, token: &AccessToken) -> bool {
        match self {
            Self::Usable => true,
            Self::OtherThan(refused) => token != refused,
        }
    }

    pub(super) fn refused(&self) -> Option<&AccessToken> {
        match self {
            Self::Usable => None,
            Self::OtherThan(refused) => Some(refused),
        }
    }
}

/// How far a flight has come.
#[derive(Debug, Clone, Default)]
pub(super) struct Stage {
    /// The live token that the flight has found, for every caller whose need it meets (R4). It
    /// stays when the flight ends: a flight that began because of a report may fail although the
    /// stored token is alive.
    pub(super) alive: Option<Held>,
    /// The result of the flight, once it has ended.
    pub(super) outcome: Option<Result<Held, Error>>,
    /// Whether the flight waits for WeChat, here or in another process, and not for the store.
    pub(super) at_wechat: bool,
}

impl Stage {
    /// Returns the live token if it meets `need`.
    fn usable(&self, need: &Need, now: Timestamp) -> Option<&Held> {
        let usable = |held: &&Held| need.is_met_by(held.secret()) && held.is_alive(now);
        self.alive.as_ref().filter(usable)
    }
}

/// A caller's view of a flight.
#[derive(Clone)]
pub(super) struct Flight {
    stage: watch::Receiver<Stage>,
    need: Need,
    /// Tells flights of one credential apart.
    number: u64,
    /// What it is about to write.
    commits: Option<Mark>,
}

impl Flight {
    /// Waits until the flight has a token that meets `need`, or has ended. A token that is served
    /// meanwhile may have expired by the time the caller gets it.
    pub(super) async fn landed(&self, need: &Need, clock: &Clock) -> Result<Held, Error> {
        let mut stage = self.stage.clone();
        let enough =
            |stage: &Stage| stage.outcome.is_some() || stage.usable(need, clock.now()).is_some();
        let reached = match stage.wait_for(enough).await {
            Ok(stage) => stage.clone(),
            // The task panicked, or the runtime is being torn down.
            Err(_) => Stage::default(),
        };
        let usable = reached.usable(need, clock.now()).cloned();
        match (reached.outcome, usable) {
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

    fn waits_for_store(&self) -> bool {
        !self.stage.borrow().at_wechat
    }

    /// Whether its task is still there to say how it ends.
    fn is_under_way(&self) -> bool {
        self.stage.has_changed().is_ok()
    }

    #[cfg(test)]
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Whether the flight began for the same reason.
    pub(super) fn was_for(&self, need: &Need) -> bool {
        match (need.refused(), self.need.refused()) {
            (Some(asked), Some(flown)) => asked == flown,
            (None, None) => true,
            _ => false,
        }
    }
}

/// The flights that are under way, by credential.
#[derive(Default)]
pub(super) struct Flights(Mutex<List>);

/// While this lives, others who look for the same credential take a flight instead of reading it
/// as well.
pub(super) struct Reading<'a> {
    flights: &'a Flights,
    key: Key,
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let mut list = self.flights.lock();
        list.readers.remove(&self.key);
        shrink_set(&mut list.readers);
    }
}

#[derive(Default)]
struct List {
    flights: HashMap<Box<str>, Flight, DefaultHashBuilder>,
    /// Who is being read by a caller without a flight.
    readers: HashSet<Key, Spread>,
    started: u64,
}

impl List {
    fn remove(&mut self, id: &str) {
        self.flights.remove(id);
        shrink_map(&mut self.flights);
    }
}

impl Flights {
    /// Leave to read a credential without a flight, unless one is under way or somebody else reads
    /// it.
    pub(super) fn read_alone(&self, key: Key, id: &str) -> Option<Reading<'_>> {
        let mut list = self.lock();
        if list.flights.get(id).is_some_and(Flight::is_under_way) {
            return None;
        }
        let flights = self;
        let first = list.readers.insert(key);
        drop(list);
        first.then(|| Reading { flights, key })
    }

    /// Joins the flight for a credential, or starts one, which takes a glance at the store for its
    /// own.
    pub(super) fn join(
        &self,
        inner: &Arc<Inner>,
        id: &str,
        need: &Need,
        glance: Option<Glance>,
    ) -> Flight {
        let (sender, stage) = watch::channel(Stage::default());
        let (flight, owner, glance) = {
            let mut list = self.lock();
            if let Some(flight) = list.flights.get(id)
                && flight.is_under_way()
            {
                return flight.clone();
            }
            // What was read before a login is not what those want who join after it. A login that
            // begins only now finds this flight on the list, and leaves it behind.
            let glance = glance.filter(|glance| inner.cache.is_undisturbed(&glance.fence));
            list.started += 1;
            let flight = Flight {
                stage,
                need: need.clone(),
                number: list.started,
                commits: None,
            };
            list.flights.insert(id.into(), flight.clone());
            // A name of its own: a flight that was left behind must not give back the lease of its
            // successor.
            (flight, inner.owner.numbered(list.started), glance)
        };
        // Made before the task, so that a panic, or a runtime that ends before the task has begun,
        // takes the flight off the list too: its end is the end of the sender, and those who wait
        // are told.
        let landing = Landing {
            inner: Arc::clone(inner),
            id: id.into(),
            number: flight.number,
        };
        let need = need.clone();
        let course = async move {
            let (inner, flight) = (&landing.inner, (&*landing.id, landing.number));
            let outcome = renewal::fly(inner, flight, &need, owner, &sender, glance).await;
            drop(landing);
            sender.send_modify(|stage| stage.outcome = Some(outcome));
        };
        // In a trace the flight lies under the request that began it.
        sync::launch(&inner.tasks, course.in_current_span());
        flight
    }

    /// The store holds something else since: who asks from now on must not join a flight that
    /// began before. It goes on for those who have (R3), and its commit will find what is new (R2).
    pub(super) fn leave_behind(&self, id: &str) {
        self.lock().remove(id);
    }

    /// Returns `true` if a flight for this credential is under way and waits for the store.
    pub(super) fn waits_for_store(&self, id: &str) -> bool {
        let list = self.lock();
        list.flights.get(id).is_some_and(Flight::waits_for_store)
    }

    /// A flight is about to write this. One that was left behind says nothing of its successor.
    pub(super) fn commits(&self, id: &str, number: u64, mark: Mark) {
        let mut list = self.lock();
        let flight = list.flights.get_mut(id);
        if let Some(flight) = flight.filter(|flight| flight.number == number) {
            flight.commits = Some(mark);
        }
    }

    /// Somebody has written: who asks from now on must not join a flight that began before, unless
    /// it was its own doing.
    pub(super) fn told(&self, id: &str, mark: Option<Mark>) {
        let mut list = self.lock();
        if let Some(flight) = list.flights.get(id)
            && (flight.commits.is_none() || flight.commits != mark)
        {
            list.remove(id);
        }
    }

    /// Whether nobody flies and nobody reads.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let list = self.lock();
        list.flights.is_empty() && list.readers.is_empty()
    }

    /// How many flights and reads there is room for.
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        let list = self.lock();
        list.flights.capacity().max(list.readers.capacity())
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a flight off the list when its task ends, however it ends.
struct Landing {
    inner: Arc<Inner>,
    id: Box<str>,
    number: u64,
}

impl Drop for Landing {
    fn drop(&mut self) {
        let mut list = self.inner.flights.lock();
        if list
            .flights
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
    use crate::credential::{AppId, Lifetime, Record, Token};
    use crate::keeper::{Failure, Keeper, Settings, Source, Start};
    use crate::room::ROOM;
    use crate::store::{BoxFuture, Kind, MemoryStore};

    /// Answers after all have asked.
    struct Slow;

    impl Source for Slow {
        fn can_renew(&self, _record: &Record) -> bool {
            true
        }

        fn renew<'a>(
            &'a self,
            _record: &'a Record,
            _refused: Option<&'a AccessToken>,
        ) -> BoxFuture<'a, Result<Record, Failure>> {
            Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(50)).await;
                let now = Clock::system().now();
                let token = Token {
                    secret: AccessToken::from("token"),
                    lifetime: Lifetime::granted(now, Some(7_200), Duration::from_secs(900)),
                };
                Ok(Record {
                    token: Some(token),
                    ..Record::default()
                })
            })
        }
    }

    #[tokio::test]
    async fn the_table_of_calls_shrinks_after_a_crowd() {
        let second = Duration::from_secs(1);
        let settings = Settings {
            margin: second,
            start: Start::AtPoint,
            cache_ttl: second,
            cache_capacity: 16,
            wait: 60 * second,
            lease: 10 * second,
            renewal: 8 * second,
        };
        let keeper = Keeper::new(
            AppId::new("wx1").unwrap(),
            Kind::User,
            settings,
            Clock::system(),
            Arc::new(MemoryStore::new()),
            Box::new(Slow),
        );
        let mut crowd = tokio::task::JoinSet::new();
        for user in 0..10_000 {
            let keeper = keeper.clone();
            crowd.spawn(async move { keeper.get(&format!("u{user}")).await.map(drop) });
        }
        while keeper.0.flights.room() < 10_000 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for outcome in crowd.join_all().await {
            outcome.unwrap();
        }
        assert!(keeper.shutdown(second * 10).await);
        let left = keeper.0.flights.room();
        assert!(left <= 4 * ROOM, "room for {left} is kept");
    }
}
