//! Sealing anew: what is plain, or sealed with an old key. Without a key that seals, the reverse.

use std::time::Instant;

use zeroize::Zeroizing;

use super::super::codec::binding;
use super::super::marks;
use super::super::names::Place;
use super::super::{Layout, RedisStore};
use super::walk::Walk;
use super::{Change, New, Outcome, PATIENCE, Progress, REST, Rewritten, TRIES, Tally, Work};
use crate::credential::sealed_form;
use crate::error::Error;
use crate::store::{Kind, LeaseOwner, Slot};

impl RedisStore {
    /// Seals every value of the account with the first key of the ring, in both layouts; with
    /// [`SealingMode::Open`](crate::SealingMode::Open) it makes them plain. The texts themselves
    /// and their lives stay.
    ///
    /// When nothing is left that another key has sealed, the marks of all other keys are removed,
    /// and processes may do without them; `keep_marks` where several accounts share the ring.
    ///
    /// # Errors
    /// The store does not answer; what was sealed until then stays.
    #[doc(hidden)]
    pub async fn reseal(
        &self,
        work: &Work,
        keep_marks: bool,
        progress: Progress<'_>,
    ) -> Result<Tally, Error> {
        let owner = LeaseOwner::unique();
        let mut tally = Tally::default();
        let mut busy: Vec<(Slot, Layout)> = Vec::new();
        for layout in [Layout::Hashes, Layout::Keys] {
            for kind in [Kind::AccountToken, Kind::JsapiTicket] {
                let slots = vec![work.slot(kind, "")];
                self.reseal_some(work, slots, layout, &owner, &mut tally, &mut busy)
                    .await?;
            }
        }
        for (kind, layout) in [
            (Kind::User, Layout::Hashes),
            (Kind::User, Layout::Keys),
            (Kind::SnapshotUser, Layout::Keys),
        ] {
            let mut walk = Walk::new(self, &work.app, kind, layout);
            while let Some(ids) = walk.next().await? {
                tally.unnamed(walk.take_not_utf8());
                let slots = ids.iter().map(|id| work.slot(kind, id)).collect();
                self.reseal_some(work, slots, layout, &owner, &mut tally, &mut busy)
                    .await?;
                progress(&tally);
                tokio::time::sleep(work.pause).await;
            }
        }
        let give_up = Instant::now() + PATIENCE;
        while !busy.is_empty() && Instant::now() < give_up {
            tokio::time::sleep(REST).await;
            let mut still = Vec::new();
            for (slot, layout) in busy {
                let outcome = self.reseal_one(work, &slot, layout, &owner).await?;
                if tally.count(&outcome) {
                    still.push((slot, layout));
                }
            }
            busy = still;
        }
        tally.left = busy.len() as u64;
        progress(&tally);
        if tally.left == 0 && tally.unreadable_users() == 0 && !keep_marks && !work.dry_run {
            self.remove_other_marks().await?;
        }
        Ok(tally)
    }

    /// Looks at many in one exchange, and seals those that need it.
    async fn reseal_some(
        &self,
        work: &Work,
        slots: Vec<Slot>,
        layout: Layout,
        owner: &LeaseOwner,
        tally: &mut Tally,
        busy: &mut Vec<(Slot, Layout)>,
    ) -> Result<(), Error> {
        let names = slots.iter().map(|slot| &slot.name);
        let places = names.map(|name| self.0.names.places(layout, None, name).read);
        let places: Vec<Place<'_>> = places.collect();
        let values = self.read_many(&places.iter().collect::<Vec<_>>()).await?;
        drop(places);
        for (slot, values) in slots.into_iter().zip(values) {
            if values.iter().all(Option::is_none) {
                continue;
            }
            tally.seen += 1;
            if !values
                .iter()
                .flatten()
                .any(|value| self.wants_a_seal(value))
            {
                tally.same += 1;
                continue;
            }
            let outcome = self.reseal_one(work, &slot, layout, owner).await?;
            if tally.count(&outcome) {
                busy.push((slot, layout));
            }
        }
        Ok(())
    }

    /// Whether a value is not in the form in which it would be written now.
    fn wants_a_seal(&self, value: &[u8]) -> bool {
        let sealed = sealed_form::split(value).map(|(id, _)| id);
        sealed != self.0.seal.sealing_id()
    }

    async fn reseal_one(
        &self,
        work: &Work,
        slot: &Slot,
        layout: Layout,
        owner: &LeaseOwner,
    ) -> Result<Outcome, Error> {
        let place = self.0.names.places(layout, None, &slot.name).read;
        for _ in 0..TRIES {
            let values = self.read_many(&[&place]).await?;
            let values = values.into_iter().next().unwrap_or_default();
            let mut texts = Vec::new();
            for (cell, value) in place.cells.iter().zip(&values) {
                let Some(value) = value.as_ref().filter(|value| self.wants_a_seal(value)) else {
                    texts.push(None);
                    continue;
                };
                let at = binding(slot, cell);
                let opened = self.0.seal.open_any(value, &at);
                let text = opened
                    .ok()
                    .and_then(|text| String::from_utf8(text.to_vec()).ok());
                let Some(text) = text else {
                    return Ok(Outcome::Unreadable);
                };
                texts.push(Some(self.0.seal.seal(Zeroizing::new(text), &at)?));
            }
            if texts.iter().all(Option::is_none) {
                return Ok(Outcome::Same);
            }
            if work.dry_run {
                return Ok(Outcome::Written);
            }
            let cells = place.cells.iter().zip(&values).zip(&texts);
            let changes = cells.map(|((cell, expected), text)| Change {
                cell,
                expected,
                new: text
                    .as_ref()
                    .map_or(New::Left, |text| New::TextWithOldLife(text)),
            });
            let changes: Vec<Change<'_>> = changes.collect();
            match self
                .rewrite(
                    &[self.0.names.lease(&slot.name, &place)],
                    owner,
                    &changes,
                    None,
                )
                .await?
            {
                Rewritten::Done => return Ok(Outcome::Written),
                Rewritten::InUse => return Ok(Outcome::Busy),
                Rewritten::Changed => {}
            }
        }
        Ok(Outcome::Busy)
    }

    async fn remove_other_marks(&self) -> Result<(), Error> {
        let name = marks::name(&self.0.names);
        let mut ask = redis::cmd("HKEYS");
        let marks: Vec<String> = self.command(ask.arg(&name)).await?;
        let ours = self.0.seal.sealing_id().map(|id| id.to_string());
        let others = marks.into_iter().filter(|mark| Some(mark) != ours.as_ref());
        for mark in others {
            let mut remove = redis::cmd("HDEL");
            self.command::<i64>(remove.arg(&name).arg(mark)).await?;
        }
        Ok(())
    }
}
