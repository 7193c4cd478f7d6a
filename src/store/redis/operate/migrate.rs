//! From one layout to the other.

use std::time::Instant;

use super::super::codec::encode;
use super::super::names::Place;
use super::super::start_up::misconfigured;
use super::super::{Layout, RedisStore};
use super::walk::Walk;
use super::{Change, New, Outcome, PATIENCE, Progress, REST, Rewritten, TRIES, Tally, Work, whole};
use crate::clock::Timestamp;
use crate::credential::Record;
use crate::error::Error;
use crate::store::{Kind, LeaseOwner, Slot};

impl RedisStore {
    /// Copies every record into the other layout, unless something newer lies there. The layout
    /// that the store has is that of the source, which stays as it is.
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
        let to = match self.0.layout {
            Layout::Hashes => Layout::Keys,
            Layout::Keys => Layout::Hashes,
        };
        let owner = LeaseOwner::unique();
        let mut tally = Tally::default();
        let mut busy = Vec::new();
        for kind in [Kind::AccountToken, Kind::JsapiTicket] {
            tally.seen += 1;
            let slot = work.slot(kind, "");
            let outcome = self.copy(work, &slot, to, &owner).await?;
            if tally.count(&outcome) {
                busy.push(slot);
            }
        }
        let mut walk = Walk::new(self, &work.app, Kind::User, self.0.layout);
        while let Some(ids) = walk.next().await? {
            for slot in self.differing(work, &ids, to, &mut tally).await? {
                let outcome = self.copy(work, &slot, to, &owner).await?;
                if tally.count(&outcome) {
                    busy.push(slot);
                }
            }
            progress(&tally);
            tokio::time::sleep(work.pause).await;
        }
        let give_up = Instant::now() + PATIENCE;
        while !busy.is_empty() && Instant::now() < give_up {
            tokio::time::sleep(REST).await;
            let mut still = Vec::new();
            for slot in busy {
                let outcome = self.copy(work, &slot, to, &owner).await?;
                if tally.count(&outcome) {
                    still.push(slot);
                }
            }
            busy = still;
        }
        tally.left = busy.len() as u64;
        progress(&tally);
        Ok(tally)
    }

    /// Those of these users who are not the same on both sides, found in one exchange.
    async fn differing(
        &self,
        work: &Work,
        ids: &[String],
        to: Layout,
        tally: &mut Tally,
    ) -> Result<Vec<Slot>, Error> {
        let slots: Vec<Slot> = ids.iter().map(|id| work.slot(Kind::User, id)).collect();
        let pairs: Vec<[Place<'_>; 2]> = slots.iter().map(|slot| self.sides(slot, to)).collect();
        let values = self
            .read_many(&pairs.iter().flatten().collect::<Vec<_>>())
            .await?;
        let sides = slots.iter().zip(&pairs).zip(values.chunks(2));
        let same = sides.map(|((slot, [from, into]), values)| match values {
            [ours, theirs] => {
                let record = whole(from, slot, ours, &self.0.seal);
                record.is_some() && record == whole(into, slot, theirs, &self.0.seal)
            }
            _ => false,
        });
        let same: Vec<bool> = same.collect();
        drop(pairs);
        tally.seen += same.len() as u64;
        tally.same += same.iter().filter(|same| **same).count() as u64;
        let differing = slots.into_iter().zip(same).filter(|(_, same)| !same);
        Ok(differing.map(|(slot, _)| slot).collect())
    }

    fn sides<'a>(&'a self, slot: &'a Slot, to: Layout) -> [Place<'a>; 2] {
        let names = &self.0.names;
        [self.0.layout, to].map(|layout| names.places(layout, None, &slot.name).read)
    }

    async fn copy(
        &self,
        work: &Work,
        slot: &Slot,
        to: Layout,
        owner: &LeaseOwner,
    ) -> Result<Outcome, Error> {
        let [from, into] = self.sides(slot, to);
        let seal = &self.0.seal;
        for _ in 0..TRIES {
            let values = self.read_many(&[&from, &into]).await?;
            let [ours, theirs] = values.as_slice() else {
                return Ok(Outcome::Unreadable);
            };
            let Some(record) = whole(&from, slot, ours, seal) else {
                return Ok(Outcome::Unreadable);
            };
            // Gone since it was listed, or never there.
            if record.is_empty() {
                return Ok(Outcome::Same);
            }
            // Garbage is replaced as a login would do it; what others can read is not.
            let there = whole(&into, slot, theirs, seal);
            if there.is_none() && theirs.iter().flatten().any(|value| seal.is_others(value)) {
                return Ok(Outcome::Unreadable);
            }
            let there = there.unwrap_or_default();
            if there == record {
                return Ok(Outcome::Same);
            }
            if age(&there) > age(&record) {
                return Ok(Outcome::Newer);
            }
            if work.dry_run {
                return Ok(Outcome::Written);
            }
            let news = encode(&into, slot, &record, self.0.clock.now(), seal)?;
            let read = from.cells.iter().zip(ours).map(|(cell, expected)| Change {
                cell,
                expected,
                new: New::Left,
            });
            let written = into.cells.iter().zip(theirs).zip(&news);
            let written = written.map(|((cell, expected), new)| Change {
                cell,
                expected,
                new: New::Text(new.value.as_ref().map(|text| text.as_str()), new.ttl),
            });
            let changes: Vec<Change<'_>> = read.chain(written).collect();
            let leases = [&from, &into].map(|place| self.0.names.lease(&slot.name, place));
            match self.rewrite(&leases, owner, &changes).await? {
                Rewritten::Done => return Ok(Outcome::Written),
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
