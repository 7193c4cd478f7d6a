//! The subscription to writes of other processes.
//!
//! Such writes normally arrive within milliseconds, if the store publishes them. Messages can be
//! lost, so the cache does not depend on them: an entry is valid for `cache_ttl` after its read, or
//! after the last heartbeat that proves that no message was missed. No process serves a replaced
//! token for longer than `cache_ttl`.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::state::ProviderState;
use crate::store::{Event, Invalidation, InvalidationSource, Subscription};

/// Minimum interval between two invalidations of the whole cache after missed messages. Bounds the
/// load on the store if messages are lost continually. A reconnect is not subject to it.
const MIN_INVALIDATE_ALL_INTERVAL: Duration = Duration::from_secs(1);

/// Task that receives invalidations. Dropping this aborts the task.
#[derive(Debug, Default)]
pub(super) struct InvalidationListener(Mutex<ListenerState>);

#[derive(Debug, Default)]
enum ListenerState {
    #[default]
    NotStarted,
    Running(AbortHandle),
    /// The store publishes nothing: entries are valid for `cache_ttl` after their read.
    Unsupported,
}

impl InvalidationListener {
    /// Starts the task, unless it runs, no runtime exists, or the store publishes nothing.
    pub(super) fn start(&self, provider: &Arc<ProviderState>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = match &*state {
            ListenerState::NotStarted => true,
            // The runtime that ran the task may have been shut down.
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
                // Before the task runs: the subscription covers everything that is cached from here
                // on.
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
    /// Applies a write of this or another process to the cache and to the running calls.
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
        let Some(provider) = engine.upgrade() else {
            return;
        };
        match event {
            Event::Subscribed => provider.cache.invalidate_all(),
            Event::Invalidated(news) => provider.apply_invalidation(&news),
            Event::Synced(at) => provider
                .cache
                .mark_synced(provider.clock.now().saturating_sub(at.elapsed())),
            Event::Lagged => {
                provider.cache.mark_unsynced();
                drop(provider);
                tokio::time::sleep_until(next_invalidate_all_at).await;
                next_invalidate_all_at = Instant::now() + MIN_INVALIDATE_ALL_INTERVAL;
                subscription.skip_backlog();
                event = Event::Subscribed;
                continue;
            }
            Event::Closed => return,
        }
        drop(provider);
        event = subscription.next_event().await;
    }
}
