//! The end of accounts: those that this process no longer serves, and all of them at its end.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::searches::MAX_SEARCHES;
use super::state::AccountsState;
use crate::layer::account_layer::AccountParts;

impl AccountsState {
    /// Drops the accounts that this process no longer serves, if no request uses them and their tasks
    /// have ended.
    pub(super) async fn drop_ended(&self) {
        let mut ended = Vec::new();
        for parts in self.removed() {
            // The list and this function hold the parts. A request holds them while it needs a token.
            if Arc::strong_count(&parts) <= 2 && parts.shutdown(Duration::ZERO).await {
                ended.push(parts);
            }
        }
        self.forget_removed(&ended);
    }

    /// Waits until the searches, renewals, logins and writes of all accounts have ended, for `timeout`
    /// at most. Returns `true` if all of them have ended.
    pub(super) async fn shutdown(&self, timeout: Duration) -> bool {
        let started = Instant::now();
        self.upkeep.stop();
        // Each search holds a permit until its requests have its result.
        let all = u32::try_from(MAX_SEARCHES).unwrap_or(u32::MAX);
        let searches = self.searches.permits.acquire_many(all);
        let have_searches_ended = tokio::time::timeout(timeout, searches).await.is_ok();
        // The requests that waited for a search begin their work first.
        tokio::task::yield_now().await;
        let made = self.all_made().into_iter();
        let made = made.map(|(_, account)| Arc::clone(&account.parts));
        let timeout = timeout.saturating_sub(started.elapsed());
        let mut ending = JoinSet::new();
        for parts in made.chain(self.removed()) {
            ending.spawn(async move { parts.shutdown(timeout).await });
        }
        let ended = ending.join_all().await;
        ended.into_iter().all(|ended| ended) && have_searches_ended
    }

    /// Removes these accounts from the list of removed ones.
    fn forget_removed(&self, ended: &[Arc<AccountParts>]) {
        let ended: HashSet<_> = ended.iter().map(Arc::as_ptr).collect();
        self.lock_removed()
            .retain(|parts| !ended.contains(&Arc::as_ptr(parts)));
    }
}
