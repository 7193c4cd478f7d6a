//! The background task of a platform: it receives the news of other processes, and keeps the list of
//! accounts complete.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::state::PlatformState;
use crate::clock::Timestamp;
use crate::metrics;
use crate::store::{DurableSecretKey, Event, PlatformChange, Subscription};

/// Interval between two lists of accounts: one hour. It bounds how long a lost event matters.
const LIST_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// Interval at which the task looks whether the store still has a list: one minute.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// Shortest and longest wait before the next try after a list that could not be read: one second and ten
/// seconds.
const MIN_RETRY_INTERVAL: Duration = Duration::from_secs(1);
const RETRY_INTERVAL: Duration = Duration::from_secs(10);

impl PlatformState {
    /// Starts the background task, unless it runs already or there is no tokio runtime.
    pub(crate) fn start_upkeep(self: &Arc<Self>) {
        // The other system keeps a followed platform.
        if self.followed().is_some() {
            return;
        }
        self.upkeep.start(|| {
            // The series exists from the start, so that an alert tells of a ticket that never came.
            metrics::set_ticket_received(self.component.app_id(), Timestamp::from_millis(0));
            let subscription = self.store.subscribe(self.component.app_id());
            Some(maintain(self.this.clone(), subscription))
        });
    }
}

async fn maintain(state: Weak<PlatformState>, news: Option<Subscription>) {
    tokio::join!(
        warn_of_risks(&state),
        listen(&state, news),
        keep_list(&state)
    );
}

/// Logs once why the store may lose refresh tokens.
async fn warn_of_risks(state: &Weak<PlatformState>) {
    let Some(store) = state.upgrade().map(|state| Arc::clone(&state.store)) else {
        return;
    };
    for risk in store.durability_risks().await {
        tracing::warn!(target: "tower_wechat::platform", risk, "the store may lose the refresh tokens of the accounts");
    }
}

/// Applies what other processes have written.
async fn listen(state: &Weak<PlatformState>, news: Option<Subscription>) {
    // Until WeChat's next push, the metric of the ticket has the time of the stored one.
    if let Some(state) = state.upgrade() {
        let _ = state.tickets.current().await;
    }
    let Some(mut news) = news else {
        return;
    };
    loop {
        let event = news.next_event().await;
        let Some(state) = state.upgrade() else {
            return;
        };
        match event {
            Event::PlatformChanged(change) => match &*change {
                PlatformChange::Secret(DurableSecretKey::VerifyTicket { .. }) => {
                    // This process remembers the ticket, in case the store loses it. The mark of a refused
                    // ticket ends no back-off.
                    match state.tickets.current().await {
                        Ok(None) => {}
                        Ok(Some(_)) | Err(_) => state.on_new_ticket(),
                    }
                }
                PlatformChange::Secret(DurableSecretKey::RefreshToken { .. }) => {}
                PlatformChange::Authorization { account, .. } => state.changes.publish(account),
            },
            // News may have been missed. A back-off that should have ended ends by itself.
            Event::Lagged => news.skip_backlog(),
            Event::Invalidated(_) | Event::Subscribed | Event::Synced(_) => {}
            Event::Closed => return,
        }
    }
}

/// Reads the list of accounts at the start, after an hour, and when the store has lost it.
async fn keep_list(state: &Weak<PlatformState>) {
    let Some(wanted) = state.upgrade().map(|state| Arc::clone(&state.list_wanted)) else {
        return;
    };
    loop {
        let wait = match state.upgrade() {
            Some(state) => list_if_due(&state).await,
            None => return,
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = wanted.notified() => {}
        }
    }
}

/// Reads the list if it is missing or an hour old. Returns the time until the next look.
async fn list_if_due(state: &Arc<PlatformState>) -> Duration {
    let listed_at = match state.authorizations.listed_at().await {
        Ok(listed_at) => listed_at,
        Err(_) => return RETRY_INTERVAL,
    };
    let now = state.clock.now();
    let is_due = listed_at.is_none_or(|at| at.saturating_add(LIST_INTERVAL) <= now);
    if !is_due {
        return CHECK_INTERVAL;
    }
    match state.list().await {
        Ok(_) => CHECK_INTERVAL,
        Err(error) => {
            tracing::debug!(target: "tower_wechat::platform", %error, "the list of accounts could not be read");
            error
                .retry_after()
                .unwrap_or_default()
                .clamp(MIN_RETRY_INTERVAL, RETRY_INTERVAL)
        }
    }
}
