//! What the platform does with the pushes of WeChat.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::event::PlatformEvent;
use super::lists::MIN_LIST_INTERVAL;
use super::outcome::{AuthorizationCode, is_code_refused, pre_auth_code_hash};
use super::state::PlatformState;
use super::ticket::pushed_ticket;
use crate::backoff::delay_after;
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind};
use crate::store::AuthorizationState;

/// Longest time for which a code is tried: one hour, the longest lifetime of a code.
const MAX_CODE_LIFETIME: Duration = Duration::from_secs(60 * 60);

/// Longest time for which WeChat's push waits for the exchange of its code: two seconds. WeChat takes an
/// answer within five.
const MAX_ANSWER_DELAY: Duration = Duration::from_secs(2);

/// Age from which an event is not tried at all: one day. Clocks may differ by hours, and one try costs one
/// call.
const MAX_EVENT_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// Maximum number of tries to read the list of accounts after a code could not be exchanged.
const MAX_LIST_TRIES: usize = 4;

/// First and longest wait between two tries of an exchange: one second and one minute.
const MIN_RETRY_DELAY: Duration = Duration::from_secs(1);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(60);

impl PlatformState {
    /// Stores what a push says. An exchange of a code continues behind the answer to WeChat. A repeated
    /// or late push changes nothing.
    ///
    /// # Errors
    /// The store has not taken the change, or too many exchanges wait. WeChat may push again.
    pub(crate) async fn handle_event(self: &Arc<Self>, event: PlatformEvent) -> Result<(), Error> {
        self.check_kept_here("take pushes")?;
        self.start_upkeep();
        match event {
            PlatformEvent::VerifyTicket { ticket, created } => {
                if self
                    .tickets
                    .replace(&pushed_ticket(ticket, created))
                    .await?
                {
                    self.on_new_ticket();
                }
                Ok(())
            }
            PlatformEvent::Unauthorized { account, created } => {
                let state = AuthorizationState::Unauthorized;
                if self.authorizations.end(&account, state, created).await? {
                    self.forget_refused(&account);
                    self.changes.publish(&account);
                    tracing::info!(target: "tower_wechat::platform", app = %account, "the owner of an account has ended its authorization");
                } else {
                    tracing::debug!(target: "tower_wechat::platform", app = %account, "a late event was ignored; the account was authorized since");
                }
                Ok(())
            }
            PlatformEvent::Authorized {
                account,
                code,
                code_expires,
                pre_auth_code,
                created,
            } => {
                let code = AuthorizationCode {
                    code,
                    pre_auth_hash: pre_auth_code.map(|code| pre_auth_code_hash(&code)),
                    account: Some(account),
                    created: Some(created),
                };
                self.exchange_until_expiry(code, code_expires).await
            }
        }
    }

    /// Ends the back-off of the component token, and has the list of accounts read if it is missing.
    pub(super) fn on_new_ticket(&self) {
        self.token.provider().end_backoff("");
        self.running_list.end_backoff();
        self.list_wanted.notify_one();
    }

    /// Starts a task that exchanges a code, and tries again until the code expires. Waits for the task
    /// for a moment only, because WeChat waits for its answer: a process that dies in this moment has not
    /// taken the event.
    async fn exchange_until_expiry(
        self: &Arc<Self>,
        code: AuthorizationCode,
        expires: Option<Timestamp>,
    ) -> Result<(), Error> {
        let created = code.created.unwrap_or_else(|| self.clock.now());
        let latest = created.saturating_add(MAX_CODE_LIFETIME);
        let give_up = expires.map_or(latest, |at| at.min(latest));
        if created.saturating_add(MAX_EVENT_AGE) <= self.clock.now() {
            tracing::debug!(target: "tower_wechat::platform", app = ?code.account, "a late event was ignored; its code has expired");
            return Ok(());
        }
        let Ok(permit) = Arc::clone(&self.exchanges).try_acquire_owned() else {
            return Err(Error::store_unavailable(
                "too many authorizations wait for their exchange: check that WeChat answers",
            ));
        };
        // WeChat does not repeat an event that was answered. While the store does not answer, the event is
        // not taken.
        self.authorizations.listed_at().await?;
        let state = Arc::clone(self);
        let (first, tried) = oneshot::channel();
        self.tasks.spawn(async move {
            state.exchange_with_retry(code, give_up, first).await;
            drop(permit);
        });
        match tokio::time::timeout(MAX_ANSWER_DELAY, tried).await {
            Ok(Ok(Err(error))) if error.kind() == ErrorKind::StoreUnavailable => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Exchanges a code, and tries again until it expires. Sends the outcome of the first try to `first`.
    async fn exchange_with_retry(
        self: &Arc<Self>,
        code: AuthorizationCode,
        give_up: Timestamp,
        first: oneshot::Sender<Result<(), Error>>,
    ) {
        let account = code.account.clone();
        let mut first = Some(first);
        for failures in 1_u32.. {
            let outcome = self.run_exchange(code.clone()).await;
            if let Some(first) = first.take() {
                // The push may have been answered by now.
                let _ = first.send(outcome.clone().map(drop));
            }
            let error = match outcome {
                Ok(account) => {
                    self.changes.publish(&account);
                    return;
                }
                Err(error) => error,
            };
            let wait = delay_after(failures, MIN_RETRY_DELAY, MAX_RETRY_DELAY)
                .max(error.retry_after().unwrap_or_default().min(MAX_RETRY_DELAY));
            let is_over = is_code_refused(&error)
                || self.clock.now().saturating_add(wait) >= give_up
                || self.ending.is_cancelled();
            if is_over {
                if let Some(more) = self.log_limiter.allow_line("exchange") {
                    tracing::warn!(target: "tower_wechat::platform", app = ?account, %error, more, "an authorization code could not be exchanged; the list of accounts is read instead");
                }
                self.list_instead().await;
                return;
            }
            self.sleep_unless_ending(wait).await;
        }
    }

    /// Reads the list of accounts after a code could not be exchanged: its process may have died, or WeChat's
    /// answer was lost. The list then has the refresh token. A list that another process has read before does
    /// not count.
    pub(super) async fn list_instead(self: &Arc<Self>) {
        for _ in 0..MAX_LIST_TRIES {
            match self.list().await {
                Ok(Some(_)) => return,
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(target: "tower_wechat::platform", %error, "the list of accounts could not be read");
                }
            }
            if self.ending.is_cancelled() {
                return;
            }
            self.sleep_unless_ending(MIN_LIST_INTERVAL).await;
        }
    }

    async fn sleep_unless_ending(&self, wait: Duration) {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = self.ending.cancelled() => {}
        }
    }
}
