//! The subscriptions to the channels of a store.

use std::fmt;
use std::sync::Arc;

use tokio::runtime::Handle;

use super::channel_table::ChannelTable;
use super::listener::ChannelListener;
use super::listener_config::ListenerConfig;
use crate::credential::AppId;
use crate::store::Subscription;

/// The channels of a store, and their listener. Dropping the channels ends the listener.
#[derive(Default)]
pub(in crate::store::redis) struct Channels(Arc<ChannelTable>);

impl Drop for Channels {
    fn drop(&mut self) {
        self.0.close_all();
    }
}

impl Channels {
    /// Subscribes to the channel `name` of an account, and starts the listener if none runs.
    /// Returns `None` outside of a Tokio runtime.
    pub(in crate::store::redis) fn open_subscription(
        &self,
        app: &AppId,
        name: String,
        config: impl FnOnce() -> ListenerConfig,
    ) -> Option<Subscription> {
        let runtime = Handle::try_current().ok()?;
        let (subscription, number) = self.0.subscribe(app, name);
        if let Some(number) = number {
            // The table is not locked here, because a runtime that shuts down drops the listener at
            // once, and the listener then locks the table. The task ends when the table needs no
            // listener.
            runtime.spawn(ChannelListener::new(Arc::clone(&self.0), number, config()).run());
        }
        Some(subscription)
    }
}

impl fmt::Debug for Channels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Channels")
    }
}
