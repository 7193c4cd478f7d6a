//! The prefetch task, which keeps one credential of the account fresh in the cache ahead of
//! requests.
//!
//! The tokens of users are renewed by requests. The credentials of the account are few and always
//! needed. A process that was idle for an hour must answer its next request without a wait for
//! WeChat.

use std::time::Duration;

use super::state::CredentialProvider;
use crate::background_task::BackgroundTask;

/// Interval at which the task checks the cache: one second. The interval is shorter than
/// [`REFRESH_BEFORE`], so that the credential is read again while its cache entry is still valid.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Remaining validity of the cache entry below which the store is read again: three seconds. If the
/// read fails, two more checks follow before the validity ends.
const REFRESH_BEFORE: Duration = Duration::from_secs(3);

/// Handle of a prefetch task. Dropping the handle aborts the task, but not a call that the task
/// started (nothing lost).
#[derive(Debug, Default)]
pub(crate) struct Prefetcher(BackgroundTask);

impl Prefetcher {
    /// Starts the task for the credential `id`, unless the task already runs, was stopped, or there
    /// is no tokio runtime.
    pub(crate) fn start(&self, provider: &CredentialProvider, id: &'static str) {
        self.0.start(|| Some(prefetch(provider.clone(), id)));
    }

    /// Stops the task. A later [`start`](Self::start) has no effect.
    pub(crate) fn stop(&self) {
        self.0.stop();
    }
}

async fn prefetch(provider: CredentialProvider, id: &'static str) {
    loop {
        if provider.needs_prefetch(id) {
            // The error is dropped, because errors are logged where they occur. The next check
            // tries again. Back-off or the open circuit may suppress its call to WeChat.
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
