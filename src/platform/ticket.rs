//! The verify ticket, which WeChat pushes every ten minutes, and which the component token is issued
//! for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::credential::{AppId, RefreshToken};
use crate::error::{Error, ErrorKind};
use crate::metrics;
use crate::store::{DurableSecret, DurableSecretKey, Quota, Store, StoredSecret};
use crate::wechat::WechatClient;

/// Time for which WeChat is not asked again to push a ticket: ten minutes, the interval of its pushes.
const PUSH_REQUEST_INTERVAL: Duration = Duration::from_secs(10 * 60);

/// Lifetime of a ticket at WeChat: twelve hours.
const TICKET_LIFETIME: Duration = Duration::from_secs(12 * 60 * 60);

/// `Retry-After` of requests that wait for a ticket: ten seconds. Such a retry costs no call of WeChat.
const RETRY_DELAY: Duration = Duration::from_secs(10);

/// Maximum number of tries of a write that other writes of the same ticket cross.
const MAX_WRITE_TRIES: usize = 8;

/// The verify ticket of the platform, in the store and in the memory of this process.
pub(super) struct VerifyTickets {
    component: WechatClient,
    store: Arc<dyn Store>,
    key: DurableSecretKey,
    memory: Mutex<TicketMemory>,
}

#[derive(Default)]
struct TicketMemory {
    /// The newest ticket that this process has seen. It is written again if the store has lost it.
    ticket: Option<DurableSecret>,
    /// `true` if this process has the right to ask WeChat for a push, and its last call failed.
    may_repeat_request: bool,
}

impl VerifyTickets {
    pub(super) fn new(component: WechatClient, store: Arc<dyn Store>) -> Self {
        let key = DurableSecretKey::VerifyTicket {
            component: component.app_id().clone(),
        };
        Self {
            component,
            store,
            key,
            memory: Mutex::default(),
        }
    }

    fn app(&self) -> &AppId {
        self.component.app_id()
    }

    /// Returns the ticket of the store. If the store has lost its ticket, writes the ticket of this
    /// process again, unless a process has removed that ticket because WeChat refuses it.
    pub(super) async fn current(&self) -> Result<Option<DurableSecret>, Error> {
        let stored = self.store.load_secret(&self.key).await?;
        if let Some(ticket) = stored.value {
            self.remember(&ticket);
            return Ok(Some(ticket));
        }
        let Some(remembered) = self.lock().ticket.clone() else {
            return Ok(None);
        };
        if !self
            .store
            .try_consume(&self.restoration(&remembered))
            .await?
        {
            self.forget(&remembered);
            return Ok(self.store.load_secret(&self.key).await?.value);
        }
        let write = self
            .store
            .replace_secret(&self.key, &stored.expected, Some(&remembered));
        if write.await? {
            tracing::warn!(
                target: "tower_wechat::platform",
                app = %self.app(),
                "the store has lost the verify ticket; this process has written it again"
            );
            return Ok(Some(remembered));
        }
        Ok(self.store.load_secret(&self.key).await?.value)
    }

    /// Stores a ticket that WeChat has pushed, unless the store has a newer one. Returns `true` if the
    /// ticket is new.
    pub(super) async fn replace(&self, pushed: &DurableSecret) -> Result<bool, Error> {
        for _ in 0..MAX_WRITE_TRIES {
            let StoredSecret { value, expected } = self.store.load_secret(&self.key).await?;
            let is_late = value.as_ref().is_some_and(|it| it.since > pushed.since);
            if is_late || value.as_ref() == Some(pushed) {
                return Ok(false);
            }
            let write = self
                .store
                .replace_secret(&self.key, &expected, Some(pushed));
            if write.await? {
                self.remember(pushed);
                self.lock().may_repeat_request = false;
                return Ok(true);
            }
        }
        Err(Error::store_unavailable(
            "the verify ticket could not be stored, because other pushes replaced it meanwhile",
        ))
    }

    /// Removes a ticket that WeChat has refused, unless a newer one has replaced it.
    pub(super) async fn remove(&self, refused: &DurableSecret) -> Result<(), Error> {
        self.forget(refused);
        // Other processes remember the ticket. None of them may write it again.
        self.store.try_consume(&self.restoration(refused)).await?;
        let stored = self.store.load_secret(&self.key).await?;
        if stored.value.as_ref() == Some(refused) {
            let write = self.store.replace_secret(&self.key, &stored.expected, None);
            write.await?;
        }
        Ok(())
    }

    fn remember(&self, ticket: &DurableSecret) {
        metrics::set_ticket_received(self.app(), ticket.since);
        self.lock().ticket = Some(ticket.clone());
    }

    fn forget(&self, ticket: &DurableSecret) {
        let mut memory = self.lock();
        if memory.ticket.as_ref() == Some(ticket) {
            memory.ticket = None;
        }
    }

    /// Returns the right to write a ticket again, which one process has once. The store loses this
    /// count together with the ticket.
    fn restoration(&self, ticket: &DurableSecret) -> Quota {
        Quota {
            app: self.app().clone(),
            purpose: format!("restore_ticket:{}", ticket.since.as_millis()).into(),
            limit: 1,
            window: TICKET_LIFETIME,
        }
    }

    /// Asks WeChat to push a ticket, once for all processes until a ticket arrives or ten minutes have
    /// passed. `last` is the time of the ticket that WeChat has refused, if there is one.
    ///
    /// Returns the error of the requests that need a ticket. If WeChat refuses the call for a reason
    /// that only the operator can remove, that is WeChat's error.
    pub(super) async fn request_push(&self, last: Option<Timestamp>) -> Error {
        match self.try_request_push(last).await {
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

    async fn try_request_push(&self, last: Option<Timestamp>) -> Result<(), Error> {
        // A ticket that arrives and is refused later has another time, and so another quota.
        let may_repeat = std::mem::take(&mut self.lock().may_repeat_request);
        if !may_repeat && !self.store.try_consume(&self.push_request(last)).await? {
            return Ok(());
        }
        if last.is_some() {
            // From now on, the store has no ticket. A request without a ticket must not ask again.
            self.store.try_consume(&self.push_request(None)).await?;
        }
        let asked = self.component.start_push_ticket().await;
        if asked.is_err() {
            self.lock().may_repeat_request = true;
        } else {
            tracing::warn!(
                target: "tower_wechat::platform",
                app = %self.app(),
                "there is no valid verify ticket; WeChat was asked to push one, within ten minutes"
            );
        }
        asked
    }

    /// Returns the right to ask WeChat for a push after the ticket of this time, which one process has
    /// once.
    fn push_request(&self, last: Option<Timestamp>) -> Quota {
        Quota {
            app: self.app().clone(),
            purpose: format!("push_ticket:{}", last.map_or(0, Timestamp::as_millis)).into(),
            limit: 1,
            window: PUSH_REQUEST_INTERVAL,
        }
    }

    fn lock(&self) -> MutexGuard<'_, TicketMemory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the error of a request that needs a ticket while there is none.
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
