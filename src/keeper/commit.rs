//! What becomes of WeChat's answer: it reaches the store, or what is stored by now counts.

use std::time::Duration;

use tokio::time::Instant;

use super::Held;
use super::cache::Fence;
use super::held::Origin;
use super::renewal::{Course, FIRST_REST, LONGEST_REST};
use crate::credential::Record;
use crate::error::{Error, ErrorKind};
use crate::store::{Claim, Commit, Stored, TOMBSTONE_LIFE};

/// R3: how long a pair that WeChat has granted is offered to a store that does not answer.
const COMMIT_PATIENCE: Duration = Duration::from_secs(60);

// Whoever may still commit must find the tombstone.
const _: () = assert!(COMMIT_PATIENCE.as_secs() < TOMBSTONE_LIFE.as_secs());

/// How long a process waits before it deletes a pair, for another one that may hold what WeChat has
/// granted for it: until that one's next try to commit, after a store that was away.
const SUCCESSOR_PATIENCE: Duration = Duration::from_secs(1);

/// The pause between two looks for that.
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// When WeChat grants what is due at once, or hands back what it refused, it is not asked again
/// for this long.
const NOTHING_NEW: Duration = Duration::from_secs(15);

/// How a renewal ended.
pub(super) enum After {
    Landed(Result<Held, Error>),
    /// The store holds something else by now; it has to be judged anew.
    Changed(Stored),
    /// WeChat says that the refresh token is dead, and another process renews it nevertheless: it
    /// may have been granted what killed it.
    Overtaken(Error),
}

impl Course<'_> {
    /// R2 and R3: writes the new credential against what it was made from, and does not let go of
    /// it until the store has it or has something newer.
    ///
    /// `fence` was taken before WeChat was asked: what was told since may be newer than its answer,
    /// which then stays out of the cache, however often the store fails.
    pub(super) async fn commit(
        &self,
        stored: &Stored,
        record: &Record,
        fence: &mut Fence,
    ) -> After {
        let inner = self.inner;
        let Some(held) = inner.hold(self.id, record, Origin::Renewed) else {
            let message = "WeChat's answer held no token";
            self.lease.release().await;
            return After::Landed(Err(Error::new(ErrorKind::WechatUnavailable, message)));
        };
        let give_up = Instant::now() + COMMIT_PATIENCE;
        let (mut rest, mut told) = (FIRST_REST, false);
        loop {
            inner.flights.commits(self.id, self.number, held.mark());
            match self.lease.commit(stored, record).await {
                Ok(Commit::Done) => {
                    inner.cache.settle(self.id, Some(&held), self.now(), fence);
                    inner.observe(&held);
                    self.note_if_nothing_new(&held);
                    return After::Landed(Ok(held));
                }
                Ok(Commit::Changed(newer)) => {
                    tracing::debug!(target: "tower_wechat::renewal", app = %inner.app, user = ?self.id, "something newer is stored; it stays");
                    inner.cache.forget(self.id);
                    return After::Changed(newer);
                }
                // The process that holds the lease by now commits something newer, or gives up. If
                // WeChat tells it that the refresh token is dead, its announcement lets this
                // commit through.
                Ok(Commit::LeaseLost) => self.serve(&held),
                // No store can keep it as it is, now or later.
                Err(error) if error.kind() != ErrorKind::StoreUnavailable => {
                    self.lease.release().await;
                    return After::Landed(Err(error));
                }
                Err(error) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(target: "tower_wechat::renewal", app = %inner.app, user = ?self.id, %error, "the new token is not stored yet");
                    }
                    inner.cache.hold_unstored(&held, fence);
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
    pub(super) async fn delete(&self, stored: &Stored, error: Error, fence: &Fence) -> After {
        if let Some(newer) = self.give_way(stored, &error).await {
            return newer;
        }
        if self.is_fresh_for_others(stored, &error) {
            self.lease.release().await;
            self.note_nothing_new(error.clone());
            return After::Landed(Err(error));
        }
        match self.lease.delete(stored).await {
            Ok(Commit::Done) => {
                self.inner.cache.settle(self.id, None, self.now(), fence);
                self.publish(None);
                self.inner.observe_count();
                After::Landed(Err(error))
            }
            Ok(Commit::Changed(newer)) => After::Changed(newer),
            Ok(Commit::LeaseLost) => After::Overtaken(error),
            Err(store) => self.not_deleted(store),
        }
    }

    /// WeChat may have killed the refresh token by granting its successor to another process, which
    /// the store has kept waiting. That process gets its chance to commit it first (R3). Returns
    /// what became of this flight if it did.
    async fn give_way(&self, stored: &Stored, error: &Error) -> Option<After> {
        // Where both tokens are void, no grant has killed the refresh token.
        let void = self.inner.source.voids_access_token(error);
        if void || !self.may_have_successor(&stored.record) {
            return None;
        }
        let newer = match self.lease.announce_deletion(stored).await {
            Ok(Claim::Granted) => self.successor(stored).await?,
            Ok(Claim::Changed(newer)) => newer,
            Ok(Claim::Held) => return Some(After::Overtaken(error.clone())),
            Err(store) => return Some(self.not_deleted(store)),
        };
        self.lease.release().await;
        Some(After::Changed(newer))
    }

    /// Returns the store's error instead of WeChat's: whether the user has to log in is for the
    /// store to say, which may hold something newer.
    fn not_deleted(&self, store: Error) -> After {
        tracing::warn!(target: "tower_wechat::renewal", app = %self.inner.app, user = ?self.id, error = %store, "a dead pair could not be deleted");
        After::Landed(Err(store))
    }

    /// Whether another process may have been granted what killed this refresh token. One that has
    /// reached its own end died of that.
    fn may_have_successor(&self, record: &Record) -> bool {
        let Some(refresh) = &record.refresh else {
            return false;
        };
        // A service that writes the access token's time into both halves says nothing of this one.
        let token = record.token.as_ref();
        let is_its_own = token.is_none_or(|token| refresh.due > token.lifetime.expires_at());
        !is_its_own || self.now() < refresh.due
    }

    /// Waits for a moment until something else is stored.
    async fn successor(&self, stored: &Stored) -> Option<Stored> {
        // The lease must outlast this.
        let patience = SUCCESSOR_PATIENCE.min(self.inner.settings.renewal);
        let give_up = Instant::now() + patience;
        while Instant::now() < give_up {
            tokio::time::sleep(BETWEEN_LOOKS).await;
            if let Some(newer) = self.overtaken(stored).await {
                return Some(newer);
            }
        }
        None
    }
}
