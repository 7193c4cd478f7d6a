//! From one layout to the other.

use std::time::{Duration, Instant};

use redis::{Cmd, Value as Answer, from_redis_value};

use super::super::codec::{For, Value, encode};
use super::super::names::Place;
use super::super::start_up::misconfigured;
use super::super::{Layout, RedisStore, fingerprint};
use super::values::OTHER_TYPE;
use super::walk::Walk;
use super::{Change, New, Outcome, PATIENCE, Progress, REST, Rewritten, TRIES, Tally, Work, whole};
use crate::clock::Timestamp;
use crate::credential::{Record, USUAL_LIFETIME, logout_time};
use crate::error::Error;
use crate::store::{Kind, LeaseOwner, Slot};

/// A key that ends so much earlier than its record is written again. Processes' clocks differ by
/// less.
const ENDS_EARLY: Duration = Duration::from_secs(3_600);

/// How much the clocks of the processes that logged a user in and out may differ.
const CLOCKS_DIFFER: Duration = Duration::from_secs(120);

/// Moves the records of one account from the layout of a store to the other one.
pub(super) struct Move<'a> {
    pub(super) store: &'a RedisStore,
    pub(super) work: &'a Work,
    pub(super) to: Layout,
    pub(super) owner: LeaseOwner,
}

/// What is known of one record before anything is done.
pub(super) struct Facts {
    /// What lies in the layout that is copied from.
    pub(super) ours: Vec<Value>,
    /// What lies in the layout that is copied to.
    pub(super) theirs: Vec<Value>,
    /// When the user logged out everywhere, if that is remembered.
    pub(super) revoked: Option<Timestamp>,
    /// The fingerprint of the refresh token that died in the layout that is copied to.
    buried: Option<String>,
    /// How long the key of the copy lives, where it has an end.
    key_lives: Option<Duration>,
}

/// What is to become of one record.
enum Verdict {
    Copy(Record),
    /// The user has logged out everywhere since; a copy goes.
    LoggedOut,
    /// Nothing is to be done.
    Nothing(Outcome),
}

impl RedisStore {
    /// Copies every record into the other layout, unless something newer lies there, and removes
    /// copies of what was deleted since. The layout that the store has is that of the source, which
    /// stays as it is.
    ///
    /// A record is read and written in one atomic step with a comparison of both sides, and not
    /// while its lease is held, so no copy is older than what it replaces. Running it again costs
    /// reading and writes what differs.
    ///
    /// # Errors
    /// The store does not answer; what was copied until then stays. On a Redis Cluster nothing can
    /// be copied.
    #[doc(hidden)]
    pub async fn migrate(&self, work: &Work, progress: Progress<'_>) -> Result<Tally, Error> {
        if self.0.connection.is_cluster() {
            return Err(misconfigured(
                "on a Redis Cluster the two layouts lie in different slots, and no step can compare \
                 and write both; migrate before the data move to the Cluster, or let users log in again",
            ));
        }
        let moving = Move {
            store: self,
            work,
            to: match self.0.layout {
                Layout::Hashes => Layout::Keys,
                Layout::Keys => Layout::Hashes,
            },
            owner: LeaseOwner::unique(),
        };
        let mut tally = Tally::default();
        moving.copy_all(&mut tally, progress).await?;
        moving.remove_leftovers(&mut tally, progress).await?;
        progress(&tally);
        Ok(tally)
    }
}

impl Facts {
    /// Returns `true` if a service of the other layout has deleted this pair because its refresh
    /// token was dead.
    fn is_buried(&self, record: &Record) -> bool {
        let refresh = record.refresh.as_ref();
        let token = refresh.map(|refresh| fingerprint(refresh.secret.expose().as_bytes()));
        token.is_some() && token == self.buried
    }
}

impl Move<'_> {
    async fn copy_all(&self, tally: &mut Tally, progress: Progress<'_>) -> Result<(), Error> {
        let mut busy = Vec::new();
        for kind in [Kind::AccountToken, Kind::JsapiTicket] {
            tally.seen += 1;
            let slot = self.work.slot(kind, "");
            let outcome = self.copy(&slot).await?;
            if tally.count(&outcome) {
                busy.push(slot);
            }
        }
        let (store, layout) = (self.store, self.store.0.layout);
        let mut walk = Walk::new(store, &self.work.app, Kind::User, layout);
        while let Some(ids) = walk.next().await? {
            tally.unnamed(walk.take_not_utf8());
            for slot in self.differing(&ids, tally).await? {
                let outcome = self.copy(&slot).await?;
                if tally.count(&outcome) {
                    busy.push(slot);
                }
            }
            progress(tally);
            tokio::time::sleep(self.work.pause).await;
        }
        self.again(busy, tally, async |slot| self.copy(slot).await)
            .await
    }

    /// Does for those that were in use what was to be done, as soon as they are not.
    pub(super) async fn again(
        &self,
        mut busy: Vec<Slot>,
        tally: &mut Tally,
        work: impl AsyncFn(&Slot) -> Result<Outcome, Error>,
    ) -> Result<(), Error> {
        let give_up = Instant::now() + PATIENCE;
        while !busy.is_empty() && Instant::now() < give_up {
            tokio::time::sleep(REST).await;
            let mut still = Vec::new();
            for slot in busy {
                let outcome = work(&slot).await?;
                if tally.count(&outcome) {
                    still.push(slot);
                }
            }
            busy = still;
        }
        tally.left += busy.len() as u64;
        Ok(())
    }

    /// Those of these users for whom something is to be done, found in one exchange.
    async fn differing(&self, ids: &[String], tally: &mut Tally) -> Result<Vec<Slot>, Error> {
        let slots = self.slots(ids);
        let facts = self.facts(&slots).await?;
        let mut differing = Vec::new();
        for (slot, facts) in slots.into_iter().zip(&facts) {
            tally.seen += 1;
            match self.judge(&slot, facts) {
                Verdict::Nothing(outcome) => drop(tally.count(&outcome)),
                Verdict::Copy(_) | Verdict::LoggedOut => differing.push(slot),
            }
        }
        Ok(differing)
    }

    pub(super) fn slots(&self, ids: &[String]) -> Vec<Slot> {
        let slots = ids.iter().map(|id| self.work.slot(Kind::User, id));
        slots.collect()
    }

    /// Both sides of a slot.
    pub(super) fn sides<'a>(&'a self, slot: &'a Slot) -> [Place<'a>; 2] {
        let names = &self.store.0.names;
        [self.store.0.layout, self.to].map(|layout| names.place(layout, &slot.name))
    }

    /// What is known of each of these, in two exchanges.
    pub(super) async fn facts(&self, slots: &[Slot]) -> Result<Vec<Facts>, Error> {
        let sides: Vec<[Place<'_>; 2]> = slots.iter().map(|slot| self.sides(slot)).collect();
        let places: Vec<&Place<'_>> = sides.iter().flatten().collect();
        let mut values = self.store.read_many(&places).await?.into_iter();
        let beside = slots.iter().zip(&sides).flat_map(|(slot, [_, into])| {
            let key = into.cells.first().map_or("", |cell| &cell.key);
            let names = &self.store.0.names;
            let tombstone = names.tombstone(&slot.name, into);
            [
                Cmd::get(names.revoked(&slot.name)),
                Cmd::get(tombstone),
                Cmd::pttl(key),
            ]
        });
        let beside: Vec<Cmd> = beside.collect();
        let beside: Vec<Answer> = match beside.is_empty() {
            true => Vec::new(),
            false => self.store.read_all(&beside).await?,
        };
        let mut beside = beside.into_iter();
        let mut facts = Vec::with_capacity(slots.len());
        for _ in slots {
            // What is remembered of a logout in another form than ours is not ours.
            let revoked: Option<i64> = beside
                .next()
                .and_then(|answer| from_redis_value(answer).ok())
                .flatten();
            let buried: Option<String> = beside
                .next()
                .and_then(|answer| from_redis_value(answer).ok())
                .flatten();
            let lives: Option<i64> = beside
                .next()
                .and_then(|answer| from_redis_value(answer).ok());
            facts.push(Facts {
                ours: values.next().unwrap_or_default(),
                theirs: values.next().unwrap_or_default(),
                revoked: revoked.map(logout_time),
                buried,
                key_lives: lives
                    .and_then(|lives| u64::try_from(lives).ok())
                    .map(Duration::from_millis),
            });
        }
        Ok(facts)
    }

    fn judge(&self, slot: &Slot, facts: &Facts) -> Verdict {
        let (store, now) = (&self.store.0, self.store.0.clock.now());
        let [from, into] = self.sides(slot);
        let Some(record) = whole(&from, slot, &facts.ours, &store.seal) else {
            return Verdict::Nothing(Outcome::Unreadable);
        };
        // Gone since it was listed, or never there.
        if record.is_empty() {
            return Verdict::Nothing(Outcome::Same);
        }
        let there = whole(&into, slot, &facts.theirs, &store.seal);
        if is_logged_out(&record, facts.revoked) {
            // The user may have logged in again since, at a service that writes the new layout only.
            return match &there {
                Some(there) if !there.is_empty() && !is_logged_out(there, facts.revoked) => {
                    Verdict::Nothing(Outcome::Newer)
                }
                Some(_) | None => Verdict::LoggedOut,
            };
        }
        // Its copy would end at once, and be made again by each run. Or it did: WeChat has refused this
        // refresh token to a service that deleted the copy.
        if record.is_dead(now) || facts.is_buried(&record) {
            return Verdict::Nothing(Outcome::Dead);
        }
        // Garbage is replaced as a login would do it; what others can read is not.
        let mut theirs = facts.theirs.iter().flatten();
        let is_kept = |value: &Vec<u8>| value == OTHER_TYPE || store.seal.is_others(value);
        if there.is_none() && theirs.any(is_kept) {
            return Verdict::Nothing(Outcome::Unreadable);
        }
        let there = there.unwrap_or_default();
        if there == record {
            let life = record.key_life(now);
            let ends_early = |lives: Duration| lives.saturating_add(ENDS_EARLY) < life;
            return match into.expires && facts.key_lives.is_some_and(ends_early) {
                true => Verdict::Copy(record),
                false => Verdict::Nothing(Outcome::Same),
            };
        }
        if age(&there) > age(&record) {
            return Verdict::Nothing(Outcome::Newer);
        }
        Verdict::Copy(record)
    }

    async fn copy(&self, slot: &Slot) -> Result<Outcome, Error> {
        let store = self.store;
        for _ in 0..TRIES {
            let facts = self.facts(std::slice::from_ref(slot)).await?;
            let Some(facts) = facts.into_iter().next() else {
                return Ok(Outcome::Unreadable);
            };
            let record = match self.judge(slot, &facts) {
                Verdict::Nothing(outcome) => return Ok(outcome),
                Verdict::LoggedOut if facts.theirs.iter().all(Option::is_none) => {
                    return Ok(Outcome::LoggedOut);
                }
                Verdict::LoggedOut => match self.remove(slot, &facts).await? {
                    Some(outcome) => return Ok(outcome),
                    None => continue,
                },
                Verdict::Copy(record) => record,
            };
            let outcome = match has_odd_time(&record) {
                true => Outcome::WrittenWithOddTime,
                false => Outcome::Written,
            };
            if self.work.dry_run {
                return Ok(outcome);
            }
            let [from, into] = self.sides(slot);
            let now = store.0.clock.now();
            let news = encode(&into, slot, &record, For::Copy, now, &store.0.seal)?;
            let read = from.cells.iter().zip(&facts.ours);
            let read = read.map(|(cell, expected)| Change {
                cell,
                expected,
                new: New::Left,
            });
            let written = into.cells.iter().zip(&facts.theirs).zip(&news);
            let written = written.map(|((cell, expected), new)| Change {
                cell,
                expected,
                new: New::Text(new.value.as_ref().map(|text| text.as_str()), new.ttl),
            });
            let changes: Vec<Change<'_>> = read.chain(written).collect();
            let leases = [&from, &into].map(|place| store.0.names.lease(&slot.name, place));
            match store.rewrite(&leases, &self.owner, &changes, None).await? {
                Rewritten::Done => return Ok(outcome),
                Rewritten::InUse => return Ok(Outcome::Busy),
                Rewritten::Changed => {}
            }
        }
        Ok(Outcome::Busy)
    }
}

/// What was granted later dies later.
fn age(record: &Record) -> (Option<Timestamp>, Option<Timestamp>) {
    let token = record.token.as_ref();
    let refresh = record.refresh.as_ref();
    (
        token.map(|token| token.lifetime.expires_at()),
        refresh.map(|refresh| refresh.due),
    )
}

/// Whether a time of the record was stored by mistake: nobody can have meant it.
fn has_odd_time(record: &Record) -> bool {
    let zero = Timestamp::from_millis(0);
    let token = record.token.as_ref().map(|token| token.lifetime.renew_at());
    let refresh = record.refresh.as_ref().map(|refresh| refresh.due);
    token == Some(zero) || refresh.is_some_and(|due| !due.is_plausible() || due == zero)
}

/// Whether the user has logged out everywhere since the pair was granted. A login by this crate
/// notes the last logout in its record. Where a service of the published layout has written since,
/// the life of the access token says when it was granted.
pub(super) fn is_logged_out(record: &Record, revoked: Option<Timestamp>) -> bool {
    let Some(revoked) = revoked else {
        return false;
    };
    if record
        .details
        .sessions_from
        .is_some_and(|from| from >= revoked)
    {
        return false;
    }
    let token = record.token.as_ref();
    let granted = token.map(|token| token.lifetime.expires_at().before(USUAL_LIFETIME));
    granted.is_none_or(|granted| granted < revoked.after(CLOCKS_DIFFER))
}
