//! A task that refreshes one credential ahead of requests.
//!
//! Requests renew the tokens of users. The credentials of the account are few and always needed: a
//! process that was idle for an hour must answer its next request without a wait for WeChat.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::state::CredentialProvider;

/// Interval at which the task checks the cache.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The store is read again when the cache entry is valid for less than this.
const REFRESH_BEFORE: Duration = Duration::from_secs(3);

/// Prefetch task. Dropping this aborts the task, but not a call that it started (nothing lost).
#[derive(Debug, Default)]
pub(crate) struct Prefetcher(Mutex<PrefetcherState>);

#[derive(Debug, Default)]
enum PrefetcherState {
    #[default]
    NotStarted,
    Running(AbortHandle),
    Stopped,
}

impl Prefetcher {
    /// Starts the task, unless it runs, was stopped, or no runtime exists.
    pub(crate) fn start(&self, provider: &CredentialProvider, id: &'static str) {
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = match &*state {
            PrefetcherState::NotStarted => true,
            // The runtime that ran the task may have been shut down.
            PrefetcherState::Running(task) => task.is_finished(),
            PrefetcherState::Stopped => false,
        };
        if idle {
            let task = runtime.spawn(prefetch(provider.clone(), id));
            *state = PrefetcherState::Running(task.abort_handle());
        }
    }

    /// Stops the task permanently.
    pub(crate) fn stop(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let PrefetcherState::Running(task) =
            std::mem::replace(&mut *state, PrefetcherState::Stopped)
        {
            task.abort();
        }
    }
}

impl Drop for Prefetcher {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn prefetch(provider: CredentialProvider, id: &'static str) {
    loop {
        if provider.needs_prefetch(id) {
            // Errors are logged where they occur. The next check tries again, unless back-off or
            // the circuit suppresses it.
            let _ = provider.lookup(id.into(), provider.clock().now()).await;
        }
        tokio::time::sleep(CHECK_INTERVAL).await;
    }
}

impl CredentialProvider {
    fn needs_prefetch(&self, id: &str) -> bool {
        let now = self.clock().now();
        let until = self.0.cache.valid_until(id, now);
        until.is_none_or(|until| until < now.saturating_add(REFRESH_BEFORE))
    }
}
