//! The verify ticket, which WeChat pushes every ten minutes, and which the component token is issued
//! for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::backoff::delay_after;
use crate::clock::{Clock, Timestamp};
use crate::credential::{AppId, RefreshToken};
use crate::error::{Error, ErrorKind};
use crate::metrics;
use crate::store::{DurableSecret, DurableSecretKey, Quota, Store, StoredSecret};
use crate::wechat::WechatClient;

/// Time for which WeChat is not asked again to push a ticket: ten minutes, the interval of its pushes.
const PUSH_REQUEST_INTERVAL: Duration = Duration::from_secs(10 * 60);

/// First and longest wait before a failed request for a push is repeated: one second and one minute.
const MIN_REPEAT_DELAY: Duration = Duration::from_secs(1);
const MAX_REPEAT_DELAY: Duration = Duration::from_secs(60);

/// Lifetime of a ticket at WeChat: twelve hours.
const TICKET_LIFETIME: Duration = Duration::from_secs(12 * 60 * 60);

/// `Retry-After` of requests that wait for a ticket: ten seconds. Such a retry costs no call of WeChat.
const RETRY_DELAY: Duration = Duration::from_secs(10);

/// Maximum number of tries of a write that other writes of the same ticket cross.
const MAX_WRITE_TRIES: usize = 8;

/// The time of a ticket that another program has stored. Its age is not known.
const UNKNOWN_TIME: Timestamp = Timestamp::from_millis(0);

/// The verify ticket of the platform, in the store and in the memory of this process.
///
/// Both hold the newest ticket that WeChat has pushed, or the mark of it after WeChat has refused it.
/// Only a ticket that is newer than the held one counts, so copies of old pushes change nothing.
pub(super) struct VerifyTickets {
    component: WechatClient,
    store: Arc<dyn Store>,
    clock: Clock,
    key: DurableSecretKey,
    memory: Mutex<TicketMemory>,
}

#[derive(Default)]
struct TicketMemory {
    /// The newest ticket that this process has seen, or the mark of it. It is written again if the
    /// store has lost it.
    newest: Option<DurableSecret>,
    /// Set if this process has the right to ask WeChat for a push, and its last call failed.
    repeat: Option<Repeat>,
}

/// The right to repeat a failed request for a push.
#[derive(Clone, Copy)]
struct Repeat {
    failures: u32,
    not_before: Timestamp,
}

impl VerifyTickets {
    pub(super) fn new(component: WechatClient, store: Arc<dyn Store>, clock: Clock) -> Self {
        let key = DurableSecretKey::VerifyTicket {
            component: component.app_id().clone(),
        };
        Self {
            component,
            store,
            clock,
            key,
            memory: Mutex::default(),
        }
    }

    fn app(&self) -> &AppId {
        self.component.app_id()
    }

    /// Returns the ticket of the store. Returns `None` if WeChat has refused it, or its lifetime is
    /// over. If the store has lost its ticket, writes the ticket of this process again.
    pub(super) async fn current(&self) -> Result<Option<DurableSecret>, Error> {
        let newest = self.newest().await?.value;
        Ok(newest.filter(|it| !it.is_refused_ticket() && !self.is_expired(it)))
    }

    /// Stores a ticket that WeChat has pushed, unless a newer one was ever stored, or refused. Returns
    /// `true` if the ticket is new.
    pub(super) async fn replace(&self, pushed: &DurableSecret) -> Result<bool, Error> {
        if self.is_expired(pushed) {
            return Ok(false);
        }
        for _ in 0..MAX_WRITE_TRIES {
            let StoredSecret { value, expected } = self.newest().await?;
            if value.is_some_and(|newest| is_newer(&newest, pushed) || newest == *pushed) {
                return Ok(false);
            }
            let write = self
                .store
                .replace_secret(&self.key, &expected, Some(pushed));
            if write.await? {
                self.remember(pushed);
                self.lock().repeat = None;
                return Ok(true);
            }
        }
        Err(contended())
    }

    /// Replaces a ticket that WeChat has refused by a mark, unless a newer one has replaced it.
    pub(super) async fn refuse(&self, refused: &DurableSecret) -> Result<(), Error> {
        let mark = DurableSecret::refused_ticket(refused.since);
        // If the write fails, the next read repeats it.
        self.remember(&mark);
        let stored = self.store.load_secret(&self.key).await?;
        if stored.value.as_ref() == Some(refused) {
            let write = self
                .store
                .replace_secret(&self.key, &stored.expected, Some(&mark));
            write.await?;
        }
        Ok(())
    }

    /// Returns what the store holds. If this process remembers a newer ticket or mark, writes that one
    /// first: the store has lost it.
    async fn newest(&self) -> Result<StoredSecret, Error> {
        for _ in 0..MAX_WRITE_TRIES {
            let stored = self.store.load_secret(&self.key).await?;
            let Some(lost) = self.lost_by_store(stored.value.as_ref()) else {
                if let Some(value) = &stored.value {
                    self.remember(value);
                }
                return Ok(stored);
            };
            let write = self
                .store
                .replace_secret(&self.key, &stored.expected, Some(&lost));
            if write.await? && !lost.is_refused_ticket() {
                tracing::warn!(
                    target: "tower_wechat::platform",
                    app = %self.app(),
                    "the store has lost the verify ticket; this process has written it again"
                );
            }
        }
        Err(contended())
    }

    /// Returns the ticket or the mark of this process, if it is newer than what the store holds.
    fn lost_by_store(&self, stored: Option<&DurableSecret>) -> Option<DurableSecret> {
        let remembered = self.lock().newest.clone()?;
        let is_lost = stored.is_none_or(|stored| is_newer(&remembered, stored));
        (is_lost && !self.is_expired(&remembered)).then_some(remembered)
    }

    /// Remembers a ticket or a mark, unless this process remembers a newer one.
    fn remember(&self, seen: &DurableSecret) {
        let mut memory = self.lock();
        let is_older = |newest: &DurableSecret| is_newer(newest, seen) && !self.is_expired(newest);
        if !memory.newest.as_ref().is_some_and(is_older) {
            metrics::set_ticket_received(self.app(), seen.since);
            memory.newest = Some(seen.clone());
        }
    }

    fn is_expired(&self, ticket: &DurableSecret) -> bool {
        ticket.since != UNKNOWN_TIME
            && ticket.since.saturating_add(TICKET_LIFETIME) <= self.clock.now()
    }

    /// Asks WeChat to push a ticket, once for all processes until a ticket arrives or ten minutes have
    /// passed. Callers have found no ticket that can be used.
    ///
    /// Returns the error of the requests that need a ticket. If WeChat refuses the call for a reason
    /// that only the operator can remove, that is WeChat's error.
    pub(super) async fn request_push(&self) -> Error {
        match self.try_request_push().await {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::WechatConfig => return error,
            Err(error) => tracing::debug!(
                target: "tower_wechat::platform",
                app = %self.app(), %error,
                "WeChat could not be asked to push a verify ticket"
            ),
        }
        waiting(self.app())
    }

    async fn try_request_push(&self) -> Result<(), Error> {
        let now = self.clock.now();
        let repeat = self.lock().repeat;
        let failures = match repeat {
            Some(repeat) if now < repeat.not_before => return Ok(()),
            Some(repeat) => repeat.failures,
            None if self.store.try_consume(&self.push_request()).await? => 0,
            None => return Ok(()),
        };
        // This is noted before the call, because the caller may stop waiting for it.
        let failures = failures.saturating_add(1);
        self.note_failures(failures, Duration::ZERO);
        match self.component.start_push_ticket().await {
            Ok(()) => {
                self.lock().repeat = None;
                tracing::warn!(
                    target: "tower_wechat::platform",
                    app = %self.app(),
                    "there is no valid verify ticket; WeChat was asked to push one, within ten minutes"
                );
                Ok(())
            }
            Err(error) => {
                self.note_failures(failures, error.retry_after().unwrap_or_default());
                Err(error)
            }
        }
    }

    /// Notes failed requests for a push, which may be repeated after a back-off or `wait`.
    fn note_failures(&self, failures: u32, wait: Duration) {
        let delay = delay_after(failures, MIN_REPEAT_DELAY, MAX_REPEAT_DELAY);
        let wait = delay.max(wait.min(PUSH_REQUEST_INTERVAL));
        self.lock().repeat = Some(Repeat {
            failures,
            not_before: self.clock.now().saturating_add(wait),
        });
    }

    /// Returns the right to ask WeChat for a push after the newest ticket, which one process has once.
    fn push_request(&self) -> Quota {
        let newest = self.lock().newest.as_ref().map(|newest| newest.since);
        let newest = newest.unwrap_or(UNKNOWN_TIME).as_millis();
        Quota {
            app: self.app().clone(),
            purpose: format!("push_ticket:{newest}").into(),
            limit: 1,
            window: PUSH_REQUEST_INTERVAL,
        }
    }

    fn lock(&self) -> MutexGuard<'_, TicketMemory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns `true` if the first ticket or mark is newer than the second one. A mark is newer than the
/// ticket that WeChat has refused.
fn is_newer(first: &DurableSecret, second: &DurableSecret) -> bool {
    let age = |it: &DurableSecret| (it.since, it.is_refused_ticket());
    age(first) > age(second)
}

fn contended() -> Error {
    Error::store_unavailable(
        "the verify ticket could not be stored, because other pushes replaced it meanwhile",
    )
}

/// Returns the error of a request that needs a ticket while the platform has no ticket.
fn waiting(app: &AppId) -> Error {
    Error::new(
        ErrorKind::PlatformStarting,
        format!(
            "the platform {app} waits for its verify ticket, which WeChat pushes every ten minutes: \
             check that the push URL of the console leads to this service"
        ),
    )
    .with_retry_after(RETRY_DELAY)
}

/// Returns the ticket of a push.
pub(super) fn pushed_ticket(ticket: RefreshToken, created: Timestamp) -> DurableSecret {
    DurableSecret {
        secret: ticket,
        since: created,
    }
}
