//! The upkeep of several accounts: a task that drops idle accounts, and asks the registry again for
//! the others.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::made::MadeAccount;
use super::state::AccountsState;
use crate::credential::AppId;

/// Maximum interval at which idle accounts are dropped: one minute.
const MAX_IDLE_INTERVAL: Duration = Duration::from_secs(60);

/// Minimum interval at which idle accounts are dropped: ten milliseconds.
const MIN_IDLE_INTERVAL: Duration = Duration::from_millis(10);

/// Number of accounts for which the registry is asked again at the same time.
const MAX_REFRESHES: usize = 16;

/// Starts the upkeep, unless it runs already or there is no tokio runtime.
#[cold]
pub(super) fn start(accounts: &Arc<AccountsState>) {
    accounts.upkeep.start(|| {
        accounts.needs_upkeep.store(false, Ordering::Relaxed);
        Some(maintain(RunningUpkeep(Arc::downgrade(accounts))))
    });
}

/// Notes the end of the upkeep, also if its runtime ends or it panics. The next request starts it
/// again.
struct RunningUpkeep(Weak<AccountsState>);

impl Drop for RunningUpkeep {
    fn drop(&mut self) {
        if let Some(accounts) = self.0.upgrade() {
            accounts.needs_upkeep.store(true, Ordering::Relaxed);
        }
    }
}

async fn maintain(upkeep: RunningUpkeep) {
    let accounts = &upkeep.0;
    // A registry that hangs delays the second future only.
    tokio::join!(
        drop_accounts(accounts),
        refresh_accounts(accounts),
        refresh_changed(accounts),
    );
}

/// Asks the registry again for each account that it reports as changed, one after the other.
async fn refresh_changed(accounts: &Weak<AccountsState>) {
    loop {
        let Some(registry) = accounts.upgrade().and_then(|it| it.registry.clone()) else {
            return;
        };
        // A task, so that a panic of the registry does not end the whole upkeep. The set aborts the task
        // when the upkeep ends.
        let mut waiting = JoinSet::new();
        waiting.spawn(registry.wait_for_change());
        let Some(Ok(app_id)) = waiting.join_next().await else {
            return;
        };
        let made = accounts
            .upgrade()
            .and_then(|it| it.made_from_registry(&app_id));
        if let Some(account) = made {
            refresh(accounts.clone(), app_id, account).await;
        }
    }
}

/// Drops idle accounts, and accounts that this process no longer serves.
async fn drop_accounts(accounts: &Weak<AccountsState>) {
    let Some(idle_timeout) = accounts.upgrade().map(|it| it.settings.idle_timeout) else {
        return;
    };
    let interval = (idle_timeout / 4).clamp(MIN_IDLE_INTERVAL, MAX_IDLE_INTERVAL);
    let mut last_uses = HashMap::new();
    loop {
        tokio::time::sleep(interval).await;
        let Some(state) = accounts.upgrade() else {
            return;
        };
        last_uses = drop_idle(&state, &last_uses);
        state.drop_ended().await;
    }
}

/// Drops the accounts that no request has used within the idle timeout. Returns, for each account, the
/// time of the last check that found the account in use. `last_uses` contains those of the last call.
fn drop_idle(
    state: &AccountsState,
    last_uses: &HashMap<AppId, Instant>,
) -> HashMap<AppId, Instant> {
    let now = Instant::now();
    let check = |(app_id, account): (AppId, Arc<MadeAccount>)| {
        let last_use = match (account.take_use(), last_uses.get(&app_id)) {
            (false, Some(last_use)) => *last_use,
            (true, _) | (false, None) => now,
        };
        if now.duration_since(last_use) >= state.settings.idle_timeout {
            state.drop_if_unused(&app_id, &account);
        }
        (app_id, last_use)
    };
    state.all_made().into_iter().map(check).collect()
}

/// Asks the registry again for the accounts that this process serves.
async fn refresh_accounts(accounts: &Weak<AccountsState>) {
    let settings = accounts.upgrade().map(|it| it.settings.clone());
    let Some(interval) = settings.map(|settings| settings.refresh_interval) else {
        return;
    };
    let mut pause = interval;
    loop {
        tokio::time::sleep(pause).await;
        let started = Instant::now();
        let Some(state) = accounts.upgrade() else {
            return;
        };
        let mut served = state.all_made();
        served.retain(|(_, account)| account.is_from_registry);
        // An account that is dropped during the round does not stay until its end.
        let served: Vec<_> = served
            .into_iter()
            .map(|(app_id, account)| (app_id, Arc::downgrade(&account)))
            .collect();
        drop(state);
        let mut running = JoinSet::new();
        for (app_id, account) in served {
            if running.len() >= MAX_REFRESHES {
                running.join_next().await;
            }
            running.spawn(refresh(accounts.clone(), app_id, account));
        }
        while running.join_next().await.is_some() {}
        // A slow registry gets a pause too.
        pause = interval.saturating_sub(started.elapsed()).max(interval / 4);
    }
}

/// Asks the registry again for an account. Keeps the account if the registry fails, or if the new
/// description is wrong.
async fn refresh(accounts: Weak<AccountsState>, app_id: AppId, account: Weak<MadeAccount>) {
    let (Some(state), Some(account)) = (accounts.upgrade(), account.upgrade()) else {
        return;
    };
    let Some(registry) = &state.registry else {
        return;
    };
    match state.ask_registry(registry, &app_id).await {
        Ok(Some(description)) if account.description.differs_from(&description) => {
            // A failure is logged.
            if let Ok(made) = state.make(description, true) {
                state.replace(&app_id, &account, Some(made));
            }
        }
        Ok(Some(_)) => {}
        Ok(None) => state.replace(&app_id, &account, None),
        // The failure is logged. It is unknown whether the account still exists.
        Err(_) => {}
    }
}
