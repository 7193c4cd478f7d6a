//! A task that keeps one credential at hand, so that no request has to wait for it.
//!
//! Requests renew what they use, so users' tokens need nobody to look after them. The account's own
//! credentials are few and always needed: a process that has been idle for an hour must answer its
//! next request as fast as a busy one.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::state::CredentialProvider;

/// How often the task looks at what this process holds: a look at memory, no more.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The store is asked again when the cache believes an entry for less than this.
const REFRESH_BEFORE: Duration = Duration::from_secs(3);

/// The task and who ends it: dropping this does. A renewal that the task began is a flight of its
/// own and goes on (R3).
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
    /// Starts the task, unless it runs or was stopped, or there is no runtime to run it.
    pub(crate) fn start(&self, provider: &CredentialProvider, id: &'static str) {
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = match &*state {
            PrefetcherState::NotStarted => true,
            // The runtime that ran it may be gone.
            PrefetcherState::Running(task) => task.is_finished(),
            PrefetcherState::Stopped => false,
        };
        if idle {
            let task = runtime.spawn(prefetch(provider.clone(), id));
            *state = PrefetcherState::Running(task.abort_handle());
        }
    }

    /// Ends the task for good.
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
            // What went wrong is told where it happens; the next look tries again, as far as
            // back-off and cool-down let it.
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
