//! The upkeep of several accounts: a task that drops idle accounts, and asks the registry again for
//! the others.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use tokio::time::Instant;

use super::made::MadeAccount;
use super::state::AccountsState;
use crate::credential::AppId;

/// Starts the upkeep, unless it runs already or there is no tokio runtime.
pub(super) fn start(accounts: &Arc<AccountsState>) {
    accounts
        .upkeep
        .start(|| Some(maintain(Arc::downgrade(accounts))));
}

async fn maintain(accounts: Weak<AccountsState>) {
    let mut last_uses = HashMap::new();
    let Some(interval) = accounts.upgrade().map(|it| {
        let settings = &it.settings;
        settings.refresh_interval.min(settings.idle_timeout)
    }) else {
        return;
    };
    loop {
        tokio::time::sleep(interval).await;
        let Some(state) = accounts.upgrade() else {
            return;
        };
        // Requests of accounts that were removed an interval ago have ended, or hold their parts.
        drop(state.take_removed());
        drop_idle(&state, &mut last_uses);
        let served = state.all_made();
        drop(state);
        for (app_id, account) in served.iter().filter(|(_, it)| it.is_from_registry) {
            // The accounts may be dropped while the registry answers.
            let Some(state) = accounts.upgrade() else {
                return;
            };
            refresh(&state, app_id, account).await;
        }
    }
}

/// Drops the accounts that no request has used within the idle timeout. `last_uses` contains the time
/// of the last check that found an account in use.
fn drop_idle(state: &AccountsState, last_uses: &mut HashMap<AppId, Instant>) {
    let now = Instant::now();
    let served = state.all_made();
    last_uses.retain(|app_id, _| served.iter().any(|(served, _)| served == app_id));
    for (app_id, account) in served {
        let last_use = last_uses.entry(app_id.clone()).or_insert(now);
        if account.take_use() {
            *last_use = now;
        } else if now.duration_since(*last_use) >= state.settings.idle_timeout {
            state.drop_if_unused(&app_id, &account);
        }
    }
}

/// Asks the registry again for an account. Keeps the account if the registry fails.
async fn refresh(state: &Arc<AccountsState>, app_id: &AppId, account: &Arc<MadeAccount>) {
    let Some(registry) = &state.registry else {
        return;
    };
    match state.ask_registry(registry, app_id).await {
        Ok(Some(description)) if account.description.differs_from(&description) => {
            match state.make(description, true) {
                Ok(made) => state.replace(app_id, account, Some(Arc::new(made))),
                Err(error) => state.log_failure(app_id.as_str(), &error.to_string()),
            }
        }
        Ok(Some(_)) => {}
        Ok(None) => state.replace(app_id, account, None),
        // The failure is logged. It is unknown whether the account still exists.
        Err(_) => {}
    }
}
