//! The subscription of an engine to the writes of other processes, which invalidate cache entries.
//!
//! If the store publishes writes, they normally arrive within milliseconds. Messages can be lost,
//! so the cache does not depend on them. An entry is valid for `cache_ttl` after its read, or after
//! the last heartbeat, which proves that no message was missed. While the store is available, no
//! process serves a replaced token for longer than `cache_ttl`.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::state::ProviderState;
use crate::store::{Event, Invalidation, Subscription};

/// Minimum interval between two invalidations of the whole cache after missed messages: one second.
/// The interval bounds the load on the store if messages are lost continually. A reconnect
/// invalidates the cache without a wait.
const MIN_INVALIDATE_ALL_INTERVAL: Duration = Duration::from_secs(1);

/// Starts the task that receives invalidations, unless it already runs or there is no tokio
/// runtime. If the store does not publish invalidations, no task is started, and entries are valid
/// for `cache_ttl` after their read.
pub(super) fn start(provider: &Arc<ProviderState>) {
    provider.invalidation_listener.start(|| {
        let source = provider.invalidations.as_ref()?;
        let subscription = source.subscribe(&provider.app)?;
        // The new epoch begins after the subscription and before the task runs. The subscription
        // therefore covers every entry of the new epoch.
        if subscription.is_live {
            provider.cache.invalidate_all();
        }
        Some(listen(Arc::downgrade(provider), subscription))
    });
}

impl ProviderState {
    /// Applies a published write to the cache and to the running calls. Ignores writes for other
    /// accounts and for other kinds of credential.
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
            Event::Invalidated(write) => provider.apply_invalidation(&write),
            // No engine caches what these writes change.
            #[cfg(feature = "platform")]
            Event::PlatformChanged(_) => {}
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
