//! A look into the store in the caller's own time.
//!
//! Most looks find a fresh token. They need no task that outlives the caller and no channel to hear
//! of its end, which cost several times what the look itself does. A flight begins where somebody
//! else is reading the same credential already, so that a crowd shares one, and where something has
//! to be renewed or deleted, which must go on when nobody waits (R3).

use std::time::Duration;

use super::cache::{Fence, Key};
use super::flight::Need;
use super::{Held, Keeper};
use crate::clock::Timestamp;
use crate::credential::RecordView;
use crate::error::Error;
use crate::store::{Glimpse, Slot, Stored};

/// How long a caller waits for a slow store while this process still holds a token that is alive.
pub(super) const SLOW_STORE: Duration = Duration::from_millis(100);

/// What was read, and the proof that nothing came between that and what is then remembered.
pub(super) struct Glance {
    pub(super) stored: Stored,
    pub(super) fence: Fence,
}

/// What a look into the store has brought.
enum Found {
    Usable(Held),
    /// A flight has to see to it.
    ForFlight(Glance),
    /// The store takes its time; this is alive meanwhile.
    Slow(Held),
    Failed(Error),
}

impl Keeper {
    /// The credential from the store, renewed if it must be.
    pub(super) async fn look(&self, id: Box<str>, now: Timestamp) -> Result<Held, Error> {
        let inner = &self.0;
        inner.start_tasks();
        let slot = inner.slot_of(id);
        let id = &*slot.name.id;
        let key = inner.cache.key(id);
        // In boxes of their own, so that a look which needs no flight carries no room for one.
        let Some(reading) = inner.flights.read_alone(key, id) else {
            return Box::pin(self.within_wait(id, self.fly(id, &Need::Usable, None))).await;
        };
        let found = self.read(&slot, key, now).await;
        drop(reading);
        match found {
            Found::Usable(held) => Ok(held),
            Found::ForFlight(glance) => {
                let flight = self.fly(id, &Need::Usable, Some(glance));
                Box::pin(self.within_wait(id, flight)).await
            }
            Found::Slow(held) => {
                // Somebody has to hear what becomes of the store.
                drop(inner.flights.join(inner, id, &Need::Usable, None));
                Ok(held)
            }
            Found::Failed(error) => Err(error),
        }
    }

    async fn read(&self, slot: &Slot, key: Key, now: Timestamp) -> Found {
        let inner = &self.0;
        let id = &*slot.name.id;
        let leftover = inner.cache.leftover_at(key, id, now);
        let fence = inner.cache.fence_of(key);
        let patience = leftover
            .as_ref()
            .map_or(inner.settings.wait, |_| SLOW_STORE);
        let mut fresh = None;
        let mut look = |record: &RecordView<'_>| {
            fresh = inner.fresh(id, record);
            fresh.is_some()
        };
        let seen = inner.store.glance(slot, patience, &mut look).await;
        let alive = || leftover.filter(|held| held.is_alive(inner.clock.now()));
        match (seen, fresh) {
            (Ok(Glimpse::Left(stored)), _) => Found::ForFlight(Glance { stored, fence }),
            (Ok(_), Some(held)) => {
                inner.cache.remember(held.clone(), &fence);
                inner.observe_now_and_then(&held);
                Found::Usable(held)
            }
            (Ok(_), None) => {
                alive().map_or_else(|| Found::Failed(inner.store_overdue()), Found::Slow)
            }
            (Err(error), _) => match alive() {
                Some(held) => {
                    inner.tell_away(&error);
                    Found::Usable(held)
                }
                None => Found::Failed(error),
            },
        }
    }
}
