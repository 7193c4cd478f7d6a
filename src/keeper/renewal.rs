//! What a flight does: reads the store, and renews under a lease what must be renewed.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{SemaphorePermit, watch};
use tokio::time::Instant;
use tracing::{Instrument, Span, field};

use super::cache::Fence;
use super::commit::After;
use super::flight::{Need, Stage};
use super::held::Origin;
use super::lease::Lease;
use super::reading::{Glance, SLOW_STORE};
use super::trouble::back_off;
use super::{Failure, Held, Inner, Start};
use crate::clock::{Timestamp, deadline};
use crate::credential::{AccessToken, Lifetime, Record, RecordView, Token};
use crate::error::{Error, ErrorKind};
use crate::observe;
use crate::store::{Claim, LeaseOwner, Stored};

/// How long a token that is due for renewal is served from the cache before the store is asked
/// again whether somebody has renewed it.
const STALE_RECHECK: Duration = Duration::from_secs(1);

/// R7: how long a follower rests between two requests for the lease, at first and at most.
pub(super) const FIRST_REST: Duration = Duration::from_millis(20);
pub(super) const LONGEST_REST: Duration = Duration::from_millis(250);

/// The part of the margin that "just behind the renewal point" is: ten seconds of five minutes.
const JUST_BEHIND: u32 = 30;

/// The whole course of a flight.
pub(super) async fn fly(
    inner: &Arc<Inner>,
    (id, number): (&str, u64),
    need: &Need,
    owner: LeaseOwner,
    stage: &watch::Sender<Stage>,
    glance: Option<Glance>,
) -> Result<Held, Error> {
    let (stored, fence) = match glance {
        Some(Glance { stored, fence }) => (Some(stored), fence),
        None => (None, inner.cache.fence(id)),
    };
    let course = Course {
        inner,
        id,
        number,
        lease: Lease::new(inner, inner.slot(id), owner),
        need,
        stage,
    };
    let loaded = match stored {
        Some(stored) => Loaded::FromStore(stored),
        None => course.load().await?,
    };
    match loaded {
        Loaded::FromStore(stored) => course.run(stored, fence).await,
        Loaded::StoreAway(held) => Ok(held),
    }
}

pub(super) struct Course<'a> {
    pub(super) inner: &'a Inner,
    pub(super) id: &'a str,
    /// Tells flights of one credential apart.
    pub(super) number: u64,
    pub(super) lease: Lease,
    pub(super) need: &'a Need,
    stage: &'a watch::Sender<Stage>,
}

enum Loaded {
    FromStore(Stored),
    /// The store does not answer, but this is still alive.
    StoreAway(Held),
}

/// The right to renew, and where nobody waits for the renewal, one of a smaller number.
type Turn<'a> = (SemaphorePermit<'a>, Option<SemaphorePermit<'a>>);

/// What the store's state asks for.
enum Next {
    Land(Result<Held, Error>),
    /// Renew; meanwhile this can be used.
    Renew(Option<Held>),
}

impl Course<'_> {
    pub(super) fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    /// What could be used before the wait, if it still can.
    fn alive(&self, usable: Option<Held>) -> Option<Held> {
        usable.filter(|held| held.is_alive(self.now()))
    }

    /// R5: why WeChat is not asked for this credential now, if it is not.
    fn trouble(&self) -> Option<Error> {
        self.inner.troubles.active(self.id, self.now())
    }

    pub(super) fn serve(&self, held: &Held) {
        self.publish(Some(held.clone()));
    }

    /// Publishes the live token to all callers of this flight; `None` withdraws it.
    pub(super) fn publish(&self, alive: Option<Held>) {
        self.stage.send_modify(|stage| stage.alive = alive);
    }

    /// Reads the store. While it is slow or away, a token that has outlived its time in the cache
    /// but not its own is served (R4).
    async fn load(&self) -> Result<Loaded, Error> {
        let leftover = self.inner.cache.leftover(self.id, self.now());
        let mut load = self.inner.store.load(self.lease.slot());
        let loaded = match &leftover {
            None => load.await,
            Some(held) => match tokio::time::timeout(SLOW_STORE, &mut load).await {
                Ok(loaded) => loaded,
                Err(_) => {
                    self.serve(held);
                    load.await
                }
            },
        };
        let error = match loaded {
            Ok(stored) => return Ok(Loaded::FromStore(stored)),
            Err(error) => error,
        };
        // For callers who have not reported it. Whoever has gets the store's error.
        let leftover = self.alive(leftover);
        self.publish(leftover.clone());
        match leftover.filter(|held| self.need.is_met_by(held.secret())) {
            Some(held) => {
                self.inner.tell_away(&error);
                Ok(Loaded::StoreAway(held))
            }
            None => Err(error),
        }
    }

    /// From what is stored to a usable token.
    async fn run(&self, mut stored: Stored, mut fence: Fence) -> Result<Held, Error> {
        let settings = &self.inner.settings;
        let give_up = deadline(settings.lease + settings.renewal + STALE_RECHECK);
        let mut rest = FIRST_REST;
        // What WeChat has said of what is stored, where another process renews it all the same.
        let mut dead = None;
        // Whether another process renews. The short looks at its lease are then no wait for the store,
        // which says by itself when it does not answer.
        let mut follows = false;
        loop {
            let usable = match self.judge(&stored.record, &fence) {
                Next::Land(outcome) => return outcome,
                Next::Renew(usable) => usable,
            };
            self.waits_for_wechat(true);
            let Some(turn) = self.turn(usable.as_ref(), give_up).await else {
                return usable.ok_or_else(|| self.inner.overdue());
            };
            self.waits_for_wechat(follows);
            // While this one waited for its turn, others may have learnt that asking is in vain.
            if let Some(trouble) = self.trouble() {
                return usable.ok_or(trouble);
            }
            // Before WeChat is asked: what is told from now on may be newer than its answer.
            let mut before = self.inner.cache.fence(self.id);
            match self.lease.claim(&stored).await {
                Ok(Claim::Granted) => {
                    let after = match dead.take() {
                        None => {
                            let renewal = self.renew(&stored, usable, &mut before);
                            renewal.instrument(self.span()).await
                        }
                        Some(error) => self.delete(&stored, error, &before).await,
                    };
                    match after {
                        After::Landed(outcome) => return outcome,
                        After::Changed(newer) => (stored, fence) = (newer, before),
                        After::Overtaken(error) => dead = Some(error),
                    }
                }
                Ok(Claim::Changed(newer)) => (stored, fence, dead) = (newer, before, None),
                // Somebody else renews it. Who has something to serve need not watch.
                Ok(Claim::Held) => match usable {
                    Some(held) => return Ok(held),
                    None => {
                        drop(turn);
                        follows = true;
                        self.waits_for_wechat(true);
                        tokio::time::sleep(rest.mul_f64(0.75 + 0.5 * fastrand::f64())).await;
                        rest = (rest * 2).min(LONGEST_REST);
                    }
                },
                Err(error) => return usable.ok_or(error),
            }
            if Instant::now() >= give_up {
                return Err(self.inner.overdue());
            }
        }
    }

    /// Sorts what is stored: usable as it is, to be renewed, or beyond renewal.
    fn judge(&self, record: &Record, fence: &Fence) -> Next {
        let now = self.now();
        let renewable = self.inner.source.can_renew(record);
        // A store that has lost an account's own credential has not killed what this process still
        // holds of it: that is served while the next one is fetched. Nobody deletes those, but for
        // another system that keeps them, whose word counts.
        let lost = record.is_empty() && self.inner.kind.is_accounts_own() && renewable;
        let alive = match lost {
            true => self.inner.cache.leftover(self.id, now),
            false => self.inner.hold(self.id, record, Origin::Stored),
        };
        let alive = alive.filter(|held| held.is_alive(now));
        if let Some(held) = alive.as_ref().filter(|_| !lost) {
            self.inner.cache.remember(held.clone(), fence);
            self.inner.observe(held);
        }
        // Behind the cache, which must not hold anything older than what a caller has got. Before
        // any return: a report keeps this token only from the caller that reported it. The report
        // may be mistaken, so its failure is not the failure of the others.
        self.publish(alive.clone());
        let usable = alive
            .clone()
            .filter(|held| self.need.is_met_by(held.secret()));
        if let Some(held) = usable.as_ref().filter(|_| !lost)
            && !self.inner.is_due(held, now)
        {
            return Next::Land(Ok(held.clone()));
        }
        if !renewable {
            return Next::Land(usable.ok_or_else(|| {
                if alive.is_none() {
                    self.inner.cache.remember_absent(self.id, now, fence);
                }
                // With nothing alive in the store, it does not matter what was reported.
                let refused = self.need.refused().filter(|_| alive.is_some());
                self.inner.source.exhausted(refused)
            }));
        }
        if let Some(trouble) = self.trouble() {
            return Next::Land(usable.ok_or(trouble));
        }
        Next::Renew(usable)
    }

    /// Waits for the right to renew. Renewals of tokens that are still alive share a part of these
    /// rights: nobody waits for them, as long as they are.
    async fn turn(&self, usable: Option<&Held>, give_up: Instant) -> Option<Turn<'_>> {
        let inner = self.inner;
        let mut ahead = None;
        if let Some(held) = usable {
            let dies = deadline(self.now().until(held.lifetime().expires_at()));
            let turn = tokio::time::timeout_at(give_up.min(dies), inner.turns_ahead.acquire());
            ahead = turn.await.ok().and_then(Result::ok);
        }
        let turn = tokio::time::timeout_at(give_up, inner.turns.acquire()).await;
        let turn = turn.ok().and_then(Result::ok)?;
        Some((turn, ahead))
    }

    /// Notes what callers are waiting for, without waking them.
    fn waits_for_wechat(&self, at_wechat: bool) {
        self.stage.send_if_modified(|stage| {
            stage.at_wechat = at_wechat;
            false
        });
    }

    /// The span around a renewal.
    fn span(&self) -> Span {
        tracing::info_span!(
            target: "tower_wechat::renewal",
            "wechat.renew",
            app = %self.inner.app,
            kind = self.inner.kind.as_str(),
            user = ?self.id,
            result = field::Empty,
        )
    }

    /// Asks for a new credential, under the lease, and commits what comes.
    async fn renew(&self, stored: &Stored, usable: Option<Held>, fence: &mut Fence) -> After {
        let started = Instant::now();
        self.waits_for_wechat(true);
        let asked = self.ask(stored).await;
        self.waits_for_wechat(false);
        let outcome = match asked {
            ControlFlow::Continue(outcome) => outcome,
            ControlFlow::Break(newer) => {
                self.lease.release().await;
                return After::Changed(newer);
            }
        };
        let (app, kind) = (&self.inner.app, self.inner.kind.as_str());
        let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        match outcome {
            Ok(record) => {
                observe::renewal(kind, "renewed");
                tracing::debug!(target: "tower_wechat::renewal", %app, kind, user = ?self.id, duration_ms, "renewed");
                self.granted();
                self.commit(stored, &record, fence).await
            }
            Err(Failure::Dead(error)) => {
                observe::renewal(kind, "dead");
                tracing::info!(target: "tower_wechat::renewal", %app, kind, user = ?self.id, duration_ms, %error, "the refresh token is dead");
                self.delete(stored, error, fence).await
            }
            Err(Failure::Transient(error)) => {
                observe::renewal(kind, "transient");
                // What only the operator can mend is told by whoever met it first.
                if error.kind() == ErrorKind::WechatConfig {
                    tracing::debug!(target: "tower_wechat::renewal", %app, kind, user = ?self.id, duration_ms, %error, "not renewed");
                } else {
                    tracing::warn!(target: "tower_wechat::renewal", %app, kind, user = ?self.id, duration_ms, %error, "the renewal failed for now");
                }
                self.lease.release().await;
                After::Landed(self.alive(usable).ok_or(error))
            }
            Err(Failure::Operator(error)) => {
                observe::renewal(kind, "operator");
                let (told, until) = self.inner.troubles.cool_down(&error, self.now());
                observe::rests(app, kind, until);
                if !told {
                    tracing::error!(target: "tower_wechat::renewal", %app, kind, %error, "WeChat refuses this account; the operator must act");
                }
                self.lease.release().await;
                let rests = error.retrying_after(self.now().until(until));
                After::Landed(self.alive(usable).ok_or(rests))
            }
        }
    }

    /// Tries until WeChat answers, within the time of a renewal. After each failure the store is
    /// looked at: while WeChat fails us, the user may log in elsewhere, which ends the trying.
    async fn ask(&self, stored: &Stored) -> ControlFlow<Stored, Result<Record, Failure>> {
        let give_up = deadline(self.inner.settings.renewal);
        let mut failures = self.inner.troubles.failures(self.id);
        loop {
            let ask = self.inner.source.renew(&stored.record, self.need.refused());
            let error = match tokio::time::timeout_at(give_up, ask).await {
                Ok(Err(Failure::Transient(error))) => error,
                Ok(outcome) => return ControlFlow::Continue(outcome),
                Err(_) => self.inner.overdue(),
            };
            failures = failures.saturating_add(1);
            let wait = back_off(failures).max(error.retry_after().unwrap_or_default());
            if deadline(wait) >= give_up {
                self.inner
                    .troubles
                    .failed(self.id, failures, &error, self.now());
                return match self.overtaken(stored).await {
                    Some(newer) => ControlFlow::Break(newer),
                    None => ControlFlow::Continue(Err(Failure::Transient(error))),
                };
            }
            tracing::debug!(target: "tower_wechat::renewal", app = %self.inner.app, user = ?self.id, %error, ?wait, "trying once more");
            tokio::time::sleep(wait).await;
            if let Some(newer) = self.overtaken(stored).await {
                return ControlFlow::Break(newer);
            }
            // The account may rest by now, because of somebody else's try.
            if let Some(trouble) = self.trouble() {
                return ControlFlow::Continue(Err(Failure::Transient(trouble)));
            }
        }
    }

    /// Returns `true` if the refresh token was tried only because of a report, and the stored
    /// access token may still be accepted. Then the pair stays until the access token is due: the
    /// caller that reported it has to log the user in, and the report of one caller does not take
    /// the token from the others.
    pub(super) fn is_fresh_for_others(&self, stored: &Stored, error: &Error) -> bool {
        let fresh = |token: &Token| self.now() < token.lifetime.renew_at();
        self.need.refused().is_some()
            && stored.record.token.as_ref().is_some_and(fresh)
            && !self.inner.source.voids_access_token(error)
    }

    /// What somebody else has stored since, if anybody has.
    pub(super) async fn overtaken(&self, stored: &Stored) -> Option<Stored> {
        let newer = self.inner.store.load(self.lease.slot()).await.ok()?;
        (newer.witness != stored.witness).then_some(newer)
    }

    fn granted(&self) {
        if self.inner.troubles.granted() {
            let (app, kind) = (&self.inner.app, self.inner.kind.as_str());
            observe::rests(app, kind, Timestamp::from_millis(0));
            tracing::info!(target: "tower_wechat::renewal", app = %self.inner.app, "WeChat accepts this account again");
        }
    }
}

impl Inner {
    /// R4: whether the renewal of a credential may start.
    pub(super) fn is_due(&self, held: &Held, now: Timestamp) -> bool {
        now >= self.renewal_starts_at(held.secret().expose(), held.lifetime())
    }

    fn renewal_starts_at(&self, secret: &str, lifetime: Lifetime) -> Timestamp {
        let point = lifetime.renew_at();
        match self.settings.start {
            Start::Jittered => lifetime.renewal_starts_at(AccessToken::seed_of(secret)),
            Start::AtPoint => point,
            Start::JustBehind => point.after(point.until(lifetime.expires_at()) / JUST_BEHIND),
        }
    }

    /// Makes of a record what requests are served with.
    pub(super) fn hold(&self, id: &str, record: &Record, origin: Origin) -> Option<Held> {
        let record = record.view();
        let lifetime = record.token.as_ref()?.lifetime;
        let now = self.clock.now();
        let until = self.fresh_until(&record, now).unwrap_or_else(|| {
            now.after(STALE_RECHECK.min(self.settings.cache_ttl))
                .min(lifetime.expires_at())
        });
        Held::of(id, &record, now..until, origin, self.cache.era())
    }

    /// The same of a record that is being read, if its token is not due for renewal.
    pub(super) fn fresh(&self, id: &str, record: &RecordView<'_>) -> Option<Held> {
        let now = self.clock.now();
        let until = self.fresh_until(record, now)?;
        Held::of(id, record, now..until, Origin::Stored, self.cache.era())
    }

    /// Until when a record's token is believed at most that is not due for renewal; `None` if it
    /// is.
    fn fresh_until(&self, record: &RecordView<'_>, now: Timestamp) -> Option<Timestamp> {
        let token = record.token.as_ref()?;
        // Only near its end does it matter when exactly a token is due.
        let earliest = token.lifetime.earliest_renewal();
        let near = now.after(self.settings.cache_ttl) >= earliest;
        if self.settings.start == Start::Jittered && !near {
            return Some(earliest);
        }
        let due = self.renewal_starts_at(token.secret, token.lifetime);
        (now < due).then_some(due)
    }

    pub(super) fn tell_away(&self, error: &Error) {
        tracing::debug!(target: "tower_wechat::renewal", app = %self.app, %error, "served a token although the store is away");
    }

    /// As [`observe`](Self::observe), where that would be much of the work: after a start-up, and
    /// for one in sixty-four reads from then on.
    pub(super) fn observe_now_and_then(&self, held: &Held) {
        let reads = self.reads.fetch_add(1, Ordering::Relaxed);
        if reads < 1_024 || reads.is_multiple_of(64) || self.kind.is_accounts_own() {
            self.observe(held);
        }
    }

    /// Tells the operator what this process holds.
    pub(super) fn observe(&self, held: &Held) {
        let kind = self.kind.as_str();
        self.observe_count();
        if self.kind.is_accounts_own() {
            observe::expires(&self.app, kind, held.lifetime().expires_at());
        }
    }
}
