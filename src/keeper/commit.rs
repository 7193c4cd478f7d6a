//! What becomes of WeChat's answer: it reaches the store, or what is stored by now counts.

use std::time::Duration;

use tokio::time::Instant;

use super::Held;
use super::held::Origin;
use super::renewal::{Course, FIRST_REST, LONGEST_REST};
use crate::credential::Record;
use crate::error::{Error, ErrorKind};
use crate::store::{Commit, Stored};

/// R3: how long a pair that WeChat has granted is offered to a store that does not answer.
const COMMIT_PATIENCE: Duration = Duration::from_secs(60);

/// When WeChat grants what is due at once, or hands back what it refused, it is not asked again
/// for this long.
const NOTHING_NEW: Duration = Duration::from_secs(15);

/// How a renewal ended.
pub(super) enum After {
    Landed(Result<Held, Error>),
    /// The store holds something else by now; it has to be judged anew.
    Changed(Stored),
}

impl Course<'_> {
    /// R2 and R3: writes the new credential against what it was made from, and does not let go of
    /// it until the store has it or has something newer.
    pub(super) async fn commit(&self, stored: &Stored, record: &Record) -> After {
        let inner = self.inner;
        let Some(held) = inner.hold(self.id, record, Origin::Renewed) else {
            let message = "WeChat's answer held no token";
            self.release().await;
            return After::Landed(Err(Error::new(ErrorKind::WechatUnavailable, message)));
        };
        let give_up = Instant::now() + COMMIT_PATIENCE;
        let (mut rest, mut told) = (FIRST_REST, false);
        loop {
            let fence = inner.cache.fence(self.id);
            inner.flights.commits(self.id, held.mark());
            let commit = inner
                .store
                .commit(&self.slot, &stored.witness, record, &self.owner)
                .await;
            match commit {
                Ok(Commit::Done) => {
                    inner.cache.settle(self.id, Some(&held), self.now(), &fence);
                    inner.observe(&held);
                    self.note_if_nothing_new(&held);
                    return After::Landed(Ok(held));
                }
                Ok(Commit::Changed(newer)) => {
                    tracing::debug!(target: "tower_wechat::renewal", app = %inner.app, user = ?self.id, "something newer is stored; it stays");
                    inner.cache.forget(self.id);
                    return After::Changed(newer);
                }
                // Whoever holds the lease by now either commits something newer or dies.
                Ok(Commit::LeaseLost) => self.serve(&held),
                // No store can keep it as it is, now or later.
                Err(error) if error.kind() != ErrorKind::StoreUnavailable => {
                    self.release().await;
                    return After::Landed(Err(error));
                }
                Err(error) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(target: "tower_wechat::renewal", app = %inner.app, user = ?self.id, %error, "the new token is not stored yet");
                    }
                    inner.cache.settle(self.id, Some(&held), self.now(), &fence);
                    self.serve(&held);
                }
            }
            if Instant::now() >= give_up {
                tracing::error!(
                    target: "tower_wechat::renewal",
                    app = %inner.app, user = ?self.id,
                    "a renewed token could not be stored within {COMMIT_PATIENCE:?}; \
                     the user may have to log in again"
                );
                return After::Landed(Ok(held));
            }
            tokio::time::sleep(rest).await;
            rest = (rest * 2).min(LONGEST_REST);
        }
    }

    /// When what came is due at once, or is what was refused, asking again soon is in vain.
    fn note_if_nothing_new(&self, held: &Held) {
        let now = self.now();
        self.inner.troubles.clear(self.id);
        if self.inner.is_due(held, now) || !self.need.is_met_by(held.secret()) {
            let message = "WeChat hands out the same token again, or one that is due at once";
            self.note_nothing_new(Error::new(ErrorKind::WechatUnavailable, message));
        }
    }

    /// Answers further reports with `why` for a while, without a call to WeChat.
    pub(super) fn note_nothing_new(&self, why: Error) {
        let now = self.now();
        self.inner.troubles.pause(self.id, NOTHING_NEW, why, now);
    }

    /// R5: deletes exactly the pair that is dead. If another is stored by now, that one counts.
    pub(super) async fn delete(&self, stored: &Stored, error: Error) -> After {
        let inner = self.inner;
        let nothing = Record::default();
        let fence = inner.cache.fence(self.id);
        match inner
            .store
            .commit(&self.slot, &stored.witness, &nothing, &self.owner)
            .await
        {
            Ok(Commit::Done) => {
                inner.cache.settle(self.id, None, self.now(), &fence);
                self.publish(None);
                After::Landed(Err(error))
            }
            Ok(Commit::Changed(newer)) => After::Changed(newer),
            // Whoever holds the lease will find the same and delete it.
            Ok(Commit::LeaseLost) => After::Landed(Err(error)),
            Err(store) => {
                tracing::warn!(target: "tower_wechat::renewal", app = %inner.app, user = ?self.id, error = %store, "a dead pair could not be deleted");
                After::Landed(Err(error))
            }
        }
    }

    pub(super) async fn release(&self) {
        if let Err(error) = self.inner.store.release(&self.slot, &self.owner).await {
            tracing::debug!(target: "tower_wechat::renewal", app = %self.inner.app, %error, "a lease is left to run out");
        }
    }
}
