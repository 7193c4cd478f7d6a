//! Copies of what was deleted while services moved from one layout to the other.
//!
//! A process that knows the old layout only deletes there only: where a copy was made before, the
//! copy stays, and services that read the new layout would serve it again. Two things prove that a
//! record of the new layout without one in the old is such a leftover:
//!
//! - Its user has logged out everywhere since it was granted. That is remembered in either layout.
//! - It is marked as a copy, and services of the old layout are still those that decide: the old
//!   layout has users, and no record was written by a service that reads the new one.
//!
//! Everything else may be a login of a service that has arrived in the new layout, and stays.

use redis::Cmd;

use super::super::codec::binding;
use super::super::news;
use super::super::{Layout, RedisStore};
use super::migrate::{Facts, Move, is_logged_out};
use super::walk::Walk;
use super::{Change, New, Outcome, Progress, Rewritten, TRIES, Tally, whole};
use crate::credential::record_form;
use crate::error::Error;
use crate::store::{Kind, Slot};

/// What a record of the new layout is, of whose user the old one has nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Alone {
    /// The user has logged out everywhere since.
    LoggedOut,
    /// Only services of the old layout have written it.
    Copy,
    /// It may be somebody's login.
    Kept,
}

/// What a walk through the new layout has found.
#[derive(Default)]
struct Found {
    copies: u64,
    /// A service that reads the new layout has written something that the old one lacks.
    in_use: bool,
}

impl Move<'_> {
    /// Removes the leftovers, after everything was copied.
    pub(super) async fn remove_leftovers(
        &self,
        tally: &mut Tally,
        progress: Progress<'_>,
    ) -> Result<(), Error> {
        let found = self.walk(tally, false, progress).await?;
        if found.copies == 0 {
            return Ok(());
        }
        let in_use = found.in_use || tally.newer > 0;
        if in_use || !self.store.has_hash_users(self.work).await? {
            tally.kept = found.copies;
            return Ok(());
        }
        self.walk(tally, true, progress).await.map(drop)
    }

    /// Goes through the new layout. Those who have logged out are removed; copies with nothing
    /// behind them are counted, or removed too.
    async fn walk(
        &self,
        tally: &mut Tally,
        remove_copies: bool,
        progress: Progress<'_>,
    ) -> Result<Found, Error> {
        let (mut found, mut busy) = (Found::default(), Vec::new());
        let mut walk = Walk::new(self.store, &self.work.app, Kind::User, self.to);
        while let Some(ids) = walk.next().await? {
            let slots = self.slots(&ids);
            let facts = self.facts(&slots).await?;
            for (slot, facts) in slots.into_iter().zip(&facts) {
                match self.alone(&slot, facts) {
                    None => {}
                    Some(Alone::Kept) => found.in_use = true,
                    Some(Alone::Copy) if !remove_copies => found.copies += 1,
                    Some(alone) => {
                        let outcome = self.remove_alone(&slot, alone).await?;
                        if tally.count(&outcome) {
                            busy.push((slot, alone));
                        }
                    }
                }
            }
            progress(tally);
            tokio::time::sleep(self.work.pause).await;
        }
        for alone in [Alone::LoggedOut, Alone::Copy] {
            let of = busy.iter().filter(|(_, why)| *why == alone);
            let slots = of.map(|(slot, _)| slot.clone()).collect();
            self.again(slots, tally, async |slot| {
                self.remove_alone(slot, alone).await
            })
            .await?;
        }
        Ok(found)
    }

    /// What a record is whose user has nothing in the old layout; none where that has something, or
    /// where there is no record that can be read.
    fn alone(&self, slot: &Slot, facts: &Facts) -> Option<Alone> {
        if facts.ours.iter().any(Option::is_some) {
            return None;
        }
        let [_, into] = self.sides(slot);
        let record = whole(&into, slot, &facts.theirs, &self.store.0.seal)?;
        if record.is_empty() {
            return None;
        }
        if is_logged_out(&record, facts.revoked) {
            return Some(Alone::LoggedOut);
        }
        let cells = into.cells.iter().zip(&facts.theirs);
        let mut values = cells.filter_map(|(cell, value)| Some((cell, value.as_ref()?)));
        let is_copy = values.any(|(cell, value)| {
            let opened = self.store.0.seal.open(value, &binding(slot, cell));
            opened.is_ok_and(|text| record_form::is_copy(&text))
        });
        Some(match self.to == Layout::Keys && is_copy {
            true => Alone::Copy,
            false => Alone::Kept,
        })
    }

    /// Removes a record, if it is still what it was found to be.
    async fn remove_alone(&self, slot: &Slot, expected: Alone) -> Result<Outcome, Error> {
        for _ in 0..TRIES {
            let facts = self.facts(std::slice::from_ref(slot)).await?;
            let Some(facts) = facts.first() else {
                return Ok(Outcome::Unreadable);
            };
            if self.alone(slot, facts) != Some(expected) {
                // It has changed by somebody's login or logout, which counts.
                return Ok(Outcome::Same);
            }
            if let Some(outcome) = self.remove(slot, facts).await? {
                return Ok(outcome);
            }
        }
        Ok(Outcome::Busy)
    }

    /// Removes what lies in the new layout, if both sides hold what they did; none where they do not.
    pub(super) async fn remove(
        &self,
        slot: &Slot,
        facts: &Facts,
    ) -> Result<Option<Outcome>, Error> {
        if self.work.dry_run {
            return Ok(Some(Outcome::Removed));
        }
        let [from, into] = self.sides(slot);
        let kept = from.cells.iter().zip(&facts.ours).map(|pair| (pair, false));
        let gone = into
            .cells
            .iter()
            .zip(&facts.theirs)
            .map(|pair| (pair, true));
        let changes = kept.chain(gone).map(|((cell, expected), goes)| Change {
            cell,
            expected,
            new: match goes {
                true => New::Text(None, std::time::Duration::ZERO),
                false => New::Left,
            },
        });
        let changes: Vec<Change<'_>> = changes.collect();
        let names = &self.store.0.names;
        let leases = [&from, &into].map(|place| names.lease(&slot.name, place));
        let told = news::written(&slot.name, None);
        let rewritten =
            self.store
                .rewrite(&leases, &self.owner, &changes, Some((&slot.name.app, told)));
        Ok(match rewritten.await? {
            Rewritten::Done => Some(Outcome::Removed),
            Rewritten::InUse => Some(Outcome::Busy),
            Rewritten::Changed => None,
        })
    }
}

impl RedisStore {
    /// Whether the hashes have any field. Where they are gone, the move is over.
    async fn has_hash_users(&self, work: &super::Work) -> Result<bool, Error> {
        let slot = work.slot(Kind::User, "");
        let place = self.0.names.place(Layout::Hashes, &slot.name);
        let cells = place.cells.iter();
        let sizes: Vec<u64> = self
            .read_all(&cells.map(|cell| Cmd::hlen(&cell.key)).collect::<Vec<_>>())
            .await?;
        Ok(sizes.into_iter().any(|size| size > 0))
    }
}
