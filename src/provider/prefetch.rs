//! A task that refreshes one credential ahead of requests.
//!
//! Requests renew the tokens of users. The credentials of the account are few and always needed: a
//! process that was idle for an hour must answer its next request without a wait for WeChat.

use std::time::Duration;

use super::background_task::BackgroundTask;
use super::state::CredentialProvider;

/// Interval at which the task checks the cache: one second. It is shorter than [`REFRESH_BEFORE`],
/// so that the entry is read again while it is still valid.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Remaining validity of the cache entry below which the store is read again: three seconds. This
/// leaves two further checks if the read fails.
const REFRESH_BEFORE: Duration = Duration::from_secs(3);

/// Prefetch task. Dropping this aborts the task, but not a call that it started (nothing lost).
#[derive(Debug, Default)]
pub(crate) struct Prefetcher(BackgroundTask);

impl Prefetcher {
    /// Starts the task, unless it runs, was stopped, or no runtime exists.
    pub(crate) fn start(&self, provider: &CredentialProvider, id: &'static str) {
        self.0.start(|| Some(prefetch(provider.clone(), id)));
    }

    /// Stops the task permanently.
    pub(crate) fn stop(&self) {
        self.0.stop();
    }
}

async fn prefetch(provider: CredentialProvider, id: &'static str) {
    loop {
        if provider.needs_prefetch(id) {
            // Errors are logged where they occur. The next check tries again, unless back-off or
            // the circuit suppresses it.
            let _ = provider.lookup(id.into(), provider.0.clock.now()).await;
        }
        tokio::time::sleep(CHECK_INTERVAL).await;
    }
}

impl CredentialProvider {
    fn needs_prefetch(&self, id: &str) -> bool {
        let now = self.0.clock.now();
        let until = self.0.cache.valid_until(id, now);
        until.is_none_or(|until| until < now.saturating_add(REFRESH_BEFORE))
    }
}
