//! R1 within a process: however many ask for one credential at once, one flight fetches it.
//!
//! A flight is a task of its own (R3): whoever asked may hang up, and it goes on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::{Held, Inner, renewal};
use crate::clock::Clock;
use crate::credential::AccessToken;
use crate::error::{Error, ErrorKind};

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
#[derive(Debug, Clone)]
pub(super) enum Stage {
    /// Nothing usable is at hand yet.
    Looking,
    /// This one can be used (R4), while its renewal goes on.
    Serving(Held),
    /// The flight has ended.
    Landed(Result<Held, Error>),
}

/// A caller's view of a flight.
#[derive(Clone)]
pub(super) struct Flight {
    stage: watch::Receiver<Stage>,
    need: Need,
}

impl Flight {
    /// Waits until the flight has what the caller needs, or has ended. What it serves meanwhile
    /// may die in the air.
    pub(super) async fn landed(&self, need: &Need, clock: &Clock) -> Result<Held, Error> {
        let mut stage = self.stage.clone();
        let enough = |stage: &Stage| match stage {
            Stage::Looking => false,
            Stage::Serving(held) => need.is_met_by(held.secret()) && held.is_alive(clock.now()),
            Stage::Landed(_) => true,
        };
        let reached = match stage.wait_for(enough).await {
            Ok(stage) => stage.clone(),
            Err(_) => Stage::Looking,
        };
        match reached {
            Stage::Serving(held) => Ok(held),
            Stage::Landed(outcome) => outcome,
            // The task ended without a word: it panicked, or the runtime is being torn down.
            Stage::Looking => Err(Error::new(
                ErrorKind::WechatUnavailable,
                "the task that fetches the token ended before it had one",
            )),
        }
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
pub(super) struct Flights(Mutex<HashMap<Box<str>, Flight>>);

impl Flights {
    /// Joins the flight for a credential, or starts one.
    pub(super) fn join(&self, inner: &Arc<Inner>, id: &str, need: &Need) -> Flight {
        let mut flights = self.lock();
        if let Some(flight) = flights.get(id) {
            return flight.clone();
        }
        let (sender, stage) = watch::channel(Stage::Looking);
        let flight = Flight {
            stage,
            need: need.clone(),
        };
        flights.insert(id.into(), flight.clone());
        let (id, need) = (Box::from(id), need.clone());
        let inner_of_task = Arc::clone(inner);
        inner.tasks.spawn(async move {
            // Made first, so that a panic takes the flight off the list too: its end is the end
            // of the sender, and those who wait are told.
            let landing = Landing {
                inner: inner_of_task,
                id,
            };
            let outcome = renewal::fly(&landing.inner, &landing.id, &need, &sender).await;
            drop(landing);
            sender.send_replace(Stage::Landed(outcome));
        });
        flight
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, Flight>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a flight off the list when its task ends, however it ends.
struct Landing {
    inner: Arc<Inner>,
    id: Box<str>,
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.inner.flights.lock().remove(&self.id);
    }
}
