//! What other processes write is known here within milliseconds, where the store tells it.
//!
//! A message can get lost, so nothing rests on it alone. Every entry of the cache is believed for
//! `cache_ttl` after it was read, and longer only while the store proves that nothing was missed:
//! then for `cache_ttl` after the last proof, until its renewal point. Whatever is lost, and
//! however, no process is staler than `cache_ttl`.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::state::ProviderState;
use crate::store::{Event, Invalidation, InvalidationSource, Subscription};

/// After something was missed the whole cache is outdated; not more often than this, however much
/// is thrown at this process.
const MIN_INVALIDATE_ALL_INTERVAL: Duration = Duration::from_secs(1);

/// The task that listens, and who ends it: dropping this does.
#[derive(Debug, Default)]
pub(super) struct InvalidationListener(Mutex<ListenerState>);

#[derive(Debug, Default)]
enum ListenerState {
    #[default]
    NotStarted,
    Running(AbortHandle),
    /// This store tells nothing: entries are believed for their bounded time, and no longer.
    Unsupported,
}

impl InvalidationListener {
    /// Starts the task, unless it runs, or there is no runtime to run it, or nothing to hear.
    pub(super) fn start(&self, provider: &Arc<ProviderState>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = match &*state {
            ListenerState::NotStarted => true,
            // The runtime that ran it may be gone.
            ListenerState::Running(task) => task.is_finished(),
            ListenerState::Unsupported => false,
        };
        if !idle {
            return;
        }
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let subscribe = |source: &Arc<dyn InvalidationSource>| source.subscribe(&provider.app);
        *state = match provider.invalidations.as_ref().and_then(subscribe) {
            Some(feed) => {
                // Before the task runs: what is remembered from here on is covered by the feed.
                if feed.is_live {
                    provider.cache.invalidate_all();
                }
                let task = runtime.spawn(listen(Arc::downgrade(provider), feed));
                ListenerState::Running(task.abort_handle())
            }
            None => ListenerState::Unsupported,
        };
    }
}

impl Drop for InvalidationListener {
    fn drop(&mut self) {
        let state = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let ListenerState::Running(task) = state {
            task.abort();
        }
    }
}

impl ProviderState {
    /// Somebody has written.
    pub(super) fn apply_invalidation(&self, invalidation: &Invalidation) {
        if invalidation.key.app == self.app && invalidation.key.kind == self.kind {
            self.cache
                .on_invalidation(&invalidation.key.id, invalidation.version);
            self.calls
                .on_invalidation(&invalidation.key.id, invalidation.version);
            if invalidation.version.is_none() {
                self.update_cached_gauge();
            }
        }
    }
}

async fn listen(engine: Weak<ProviderState>, mut subscription: Subscription) {
    let mut event = subscription.next_event().await;
    let mut next_invalidate_all_at = Instant::now();
    loop {
        let Some(inner) = engine.upgrade() else {
            return;
        };
        match event {
            Event::Subscribed => inner.cache.invalidate_all(),
            Event::Invalidated(news) => inner.apply_invalidation(&news),
            Event::Synced(at) => inner
                .cache
                .mark_synced(inner.clock.now().saturating_sub(at.elapsed())),
            Event::Lagged => {
                inner.cache.mark_unsynced();
                drop(inner);
                tokio::time::sleep_until(next_invalidate_all_at).await;
                next_invalidate_all_at = Instant::now() + MIN_INVALIDATE_ALL_INTERVAL;
                subscription.skip_backlog();
                event = Event::Subscribed;
                continue;
            }
            Event::Closed => return,
        }
        drop(inner);
        event = subscription.next_event().await;
    }
}
