//! The channels of a store, one for each account, and the subscriptions to them.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::listener::{ChannelListener, ListenerConfig};
use crate::credential::AppId;
use crate::store::Subscription;
use crate::store::invalidation::Publisher;

/// The channels of a store and their listeners. Dropping the channels aborts the listeners.
#[derive(Default)]
pub(in crate::store::redis) struct Channels(Mutex<HashMap<AppId, Channel>>);

/// The channel of one account: its subscribers within this process, and its listener.
#[derive(Default)]
struct Channel {
    publisher: Publisher,
    /// `true` while the listener is subscribed.
    is_live: Arc<AtomicBool>,
    task: Option<AbortHandle>,
}

impl Drop for Channels {
    fn drop(&mut self) {
        let channels = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        for task in channels
            .values()
            .filter_map(|channel| channel.task.as_ref())
        {
            task.abort();
        }
    }
}

impl Channels {
    /// Subscribes to the channel of an account, and starts the listener of the channel if none
    /// runs. Returns `None` outside of a Tokio runtime.
    pub(in crate::store::redis) fn open_subscription(
        &self,
        app: &AppId,
        config: impl FnOnce() -> ListenerConfig,
    ) -> Option<Subscription> {
        let runtime = Handle::try_current().ok()?;
        let mut channels = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let channel = channels.entry(app.clone()).or_default();
        // A listener ends with the Tokio runtime that ran it. A later subscription then starts a
        // new listener on its own runtime.
        if channel.task.as_ref().is_none_or(AbortHandle::is_finished) {
            channel.is_live.store(false, Ordering::Release);
            let listener = ChannelListener::new(
                app.clone(),
                config(),
                channel.publisher.clone(),
                Arc::clone(&channel.is_live),
            );
            channel.task = Some(runtime.spawn(listener.run()).abort_handle());
        }
        // The receiver is created before the flag is read: if the listener subscribes between these
        // two steps, the receiver gets `Event::Subscribed`. The Acquire load pairs with the
        // listener's Release store.
        let receiver = channel.publisher.subscribe();
        Some(Subscription::from_remote(
            receiver,
            channel.is_live.load(Ordering::Acquire),
        ))
    }
}

impl fmt::Debug for Channels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Channels")
    }
}
