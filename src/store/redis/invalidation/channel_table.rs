//! The table of channels: one for each account that has a subscriber in this process.
//!
//! # States of a channel
//!
//! - Waiting: the listener has to subscribe to the channel. A new channel, and every channel after
//!   the loss of the connection, is in this state.
//! - Live: the server has confirmed the subscription, and the subscribers have received
//!   [`Event::Subscribed`].
//! - Rejected: the server has rejected the subscription, for example because of an ACL. After
//!   [`REJECTED_RETRY_DELAY`] the channel waits again. The other channels do not change.
//!
//! A channel without subscribers is removed from the table, with all that is known about it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::watch;

use super::listener_config::REJECTED_RETRY_DELAY;
use crate::credential::AppId;
#[cfg(feature = "platform")]
use crate::store::PlatformChange;
use crate::store::invalidation::{Invalidation, Publisher};
#[cfg(feature = "platform")]
use crate::store::platform::PlatformChangeKind;
use crate::store::{CredentialKey, CredentialKind, Event, RecordVersion, Subscription};

/// The channels of a store. Subscribers and the listener share the table.
pub(super) struct ChannelTable {
    state: Mutex<TableState>,
    /// Counts the changes of the table that the listener has to react to.
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct TableState {
    channels: BTreeMap<Arc<str>, Channel>,
    /// Number of the listener that serves the channels. `None` if no listener runs.
    listener: Option<u64>,
    /// Number of listeners that were started.
    listener_count: u64,
}

/// The channel of one account.
struct Channel {
    app: AppId,
    publisher: Publisher,
    state: ChannelState,
    publishing: Publishing,
}

enum ChannelState {
    Waiting,
    Live { since: Instant },
    Rejected { until: Instant },
}

/// The permission to publish on a channel. Without this permission, no write is published, and a
/// heartbeat on another channel proves nothing about this one.
enum Publishing {
    Unknown,
    Permitted,
    Rejected { until: Instant },
}

impl Channel {
    fn is_live_since(&self, time: Instant) -> bool {
        matches!(self.state, ChannelState::Live { since } if since <= time)
    }

    /// Returns `true` if the next heartbeat has to go over this channel, because only such a
    /// heartbeat shows whether the server permits `PUBLISH`.
    fn needs_heartbeat(&self, now: Instant) -> bool {
        match self.publishing {
            Publishing::Unknown => true,
            Publishing::Permitted => false,
            Publishing::Rejected { until } => until <= now,
        }
    }
}

impl Default for ChannelTable {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            changes: watch::Sender::new(0),
        }
    }
}

/// The view of subscribers.
impl ChannelTable {
    /// Subscribes to the channel `name` of an account. Also returns the number of a listener that
    /// the caller has to start, if no listener runs.
    pub(super) fn subscribe(&self, app: &AppId, name: String) -> (Subscription, Option<u64>) {
        let mut state = self.lock();
        let channel = state
            .channels
            .entry(name.into())
            .or_insert_with(|| Channel {
                app: app.clone(),
                publisher: Publisher::default(),
                state: ChannelState::Waiting,
                publishing: Publishing::Unknown,
            });
        // The lock is held from the subscription to the end of the read of the state. If the
        // channel is not live yet, the receiver therefore gets `Event::Subscribed`.
        let receiver = channel.publisher.subscribe();
        let is_live = matches!(channel.state, ChannelState::Live { .. });
        let subscription = Subscription::from_remote(receiver, is_live, self.changes.clone());
        let is_running = state.listener.is_some();
        if !is_running {
            state.listener_count += 1;
            state.listener = Some(state.listener_count);
        }
        let number = state.listener.filter(|_| !is_running);
        drop(state);
        self.notify();
        (subscription, number)
    }

    /// Removes all channels and ends the listener. Subscribers receive [`Event::Closed`].
    pub(super) fn close_all(&self) {
        let listener = self.lock().listener;
        if let Some(number) = listener {
            self.close(number);
        }
    }
}

/// The view of the listener.
impl ChannelTable {
    /// Returns a watcher of the changes after this call.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Removes the channels without subscribers. Returns `false` if none is left, or if another
    /// listener serves them: the listener with this number then has to end.
    pub(super) fn needs_listener(&self, number: u64) -> bool {
        let mut state = self.lock();
        if state.listener != Some(number) {
            return false;
        }
        let count = state.channels.len();
        state
            .channels
            .retain(|_, channel| channel.publisher.has_subscribers());
        let is_changed = state.channels.len() < count;
        // The listener is removed under the lock. A subscription that follows starts a new one.
        if state.channels.is_empty() {
            state.listener = None;
        }
        let is_needed = state.listener.is_some();
        drop(state);
        // The listener may have read the table after the end of the subscription and before the
        // removal of the channel. It reads the table again, and unsubscribes from the channel.
        if is_changed {
            self.notify();
        }
        is_needed
    }

    /// Removes all channels that the listener with this number serves, when it ends. Subscribers
    /// receive [`Event::Closed`], and may subscribe again.
    pub(super) fn close(&self, number: u64) {
        let mut state = self.lock();
        if state.listener == Some(number) {
            state.listener = None;
            state.channels.clear();
            drop(state);
            self.notify();
        }
    }

    /// Returns up to `max` channels to which the listener has to subscribe now.
    pub(super) fn due_channels(&self, now: Instant, max: usize) -> Vec<Arc<str>> {
        let state = self.lock();
        let is_due = |channel: &Channel| match channel.state {
            ChannelState::Waiting => true,
            ChannelState::Live { .. } => false,
            ChannelState::Rejected { until } => until <= now,
        };
        let due = state.channels.iter().filter(|(_, channel)| is_due(channel));
        due.map(|(name, _)| Arc::clone(name)).take(max).collect()
    }

    /// Returns the number of live channels, and the time at which the next rejected channel is due.
    pub(super) fn live_count_and_next_retry(&self) -> (usize, Option<Instant>) {
        let (mut live, mut next_retry) = (0, None::<Instant>);
        for channel in self.lock().channels.values() {
            match channel.state {
                ChannelState::Waiting => {}
                ChannelState::Live { .. } => live += 1,
                ChannelState::Rejected { until } => {
                    next_retry = Some(next_retry.map_or(until, |next| next.min(until)));
                }
            }
        }
        (live, next_retry)
    }

    /// Returns `true` if the table has this channel.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.lock().channels.contains_key(name)
    }

    /// Records that the server has confirmed the subscription to these channels.
    pub(super) fn mark_live(&self, names: &[Arc<str>]) {
        let mut state = self.lock();
        for name in names {
            if let Some(channel) = state.channels.get_mut(name) {
                let since = Instant::now();
                channel.state = ChannelState::Live { since };
                channel.publisher.publish(&Event::Subscribed);
            }
        }
        drop(state);
        self.notify();
    }

    /// Records that the server has rejected the subscription to a channel.
    pub(super) fn mark_rejected(&self, name: &str) {
        if let Some(channel) = self.lock().channels.get_mut(name) {
            let until = Instant::now() + REJECTED_RETRY_DELAY;
            channel.state = ChannelState::Rejected { until };
        }
    }

    /// Records the loss of the connection: every live channel waits for a subscription.
    pub(super) fn mark_lost(&self) {
        for channel in self.lock().channels.values_mut() {
            if let ChannelState::Live { .. } = channel.state {
                channel.state = ChannelState::Waiting;
            }
        }
    }

    /// Forwards the message about a write to the subscribers of its channel. Ignores a channel that
    /// the table does not have.
    pub(super) fn forward(
        &self,
        name: &str,
        kind: CredentialKind,
        version: Option<RecordVersion>,
        id: &str,
    ) {
        if let Some(channel) = self.lock().channels.get_mut(name) {
            let (app, id) = (channel.app.clone(), id.into());
            let key = CredentialKey { app, kind, id };
            let invalidation = Arc::new(Invalidation { key, version });
            channel.publisher.publish(&Event::Invalidated(invalidation));
        }
    }

    /// Forwards the message about a change at a platform to the subscribers of its channel. Ignores
    /// a channel that the table does not have, and an id that is no AppID.
    #[cfg(feature = "platform")]
    pub(super) fn forward_platform_change(&self, name: &str, kind: PlatformChangeKind, id: &str) {
        if let Some(channel) = self.lock().channels.get_mut(name)
            && let Some(change) = PlatformChange::from_message(&channel.app, kind, id)
        {
            let event = Event::PlatformChanged(Arc::new(change));
            channel.publisher.publish(&event);
        }
    }

    fn notify(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    fn lock(&self) -> MutexGuard<'_, TableState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The view of the heartbeats.
impl ChannelTable {
    /// Returns the channels over which the next heartbeat goes. These are up to `max` channels on
    /// which the server has not permitted `PUBLISH` yet. If there are none, the heartbeat goes over
    /// one channel, the next one after `last`: the channels then take turns.
    pub(super) fn heartbeat_channels(
        &self,
        last: Option<&Arc<str>>,
        now: Instant,
        max: usize,
    ) -> Vec<Arc<str>> {
        let state = self.lock();
        let live = |channel: &Channel| matches!(channel.state, ChannelState::Live { .. });
        let unproven = state
            .channels
            .iter()
            .filter(|(_, channel)| live(channel) && channel.needs_heartbeat(now));
        let unproven: Vec<_> = unproven
            .map(|(name, _)| Arc::clone(name))
            .take(max)
            .collect();
        if !unproven.is_empty() {
            return unproven;
        }
        let after = last.map_or(Bound::Unbounded, |last| Bound::Excluded(Arc::clone(last)));
        let later = state.channels.range((after, Bound::Unbounded));
        let next = later.chain(&state.channels).find(|(_, channel)| {
            live(channel) && matches!(channel.publishing, Publishing::Permitted)
        });
        next.map(|(name, _)| Arc::clone(name)).into_iter().collect()
    }

    /// Returns `true` if the channel has been live since `time` without interruption.
    pub(super) fn is_live_since(&self, name: &str, time: Instant) -> bool {
        let state = self.lock();
        let channel = state.channels.get(name);
        channel.is_some_and(|channel| channel.is_live_since(time))
    }

    /// Records that the server has rejected a heartbeat on this channel.
    pub(super) fn mark_publishing_rejected(&self, name: &str) {
        if let Some(channel) = self.lock().channels.get_mut(name) {
            let until = Instant::now() + REJECTED_RETRY_DELAY;
            channel.publishing = Publishing::Rejected { until };
        }
    }

    /// Records that a heartbeat has come back on this channel.
    pub(super) fn mark_publishing_permitted(&self, name: &str) {
        if let Some(channel) = self.lock().channels.get_mut(name) {
            channel.publishing = Publishing::Permitted;
        }
    }

    /// Publishes [`Event::Synced`] to the subscribers of one channel, or of all channels. Leaves out
    /// channels that were not live when the heartbeat was sent, and channels on which the server
    /// does not permit `PUBLISH`.
    pub(super) fn publish_synced(&self, name: Option<&str>, sent_at: Instant) {
        let mut state = self.lock();
        let event = Event::Synced(sent_at);
        let mut publish = |channel: &mut Channel| {
            if channel.is_live_since(sent_at) && matches!(channel.publishing, Publishing::Permitted)
            {
                channel.publisher.publish(&event);
            }
        };
        match name {
            Some(name) => state.channels.get_mut(name).map_or((), publish),
            None => state.channels.values_mut().for_each(&mut publish),
        }
    }
}

#[cfg(test)]
mod tests;
