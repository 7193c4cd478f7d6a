//! Running exchanges, which copies of one callback share.
//!
//! A callback that finds an entry of its [`CallbackKey`] waits for that exchange. A callback
//! without such an entry adds one and starts an exchange. The entry is removed when the
//! [`OutcomeSender`] is dropped, after the outcome was sent. A copy that arrives later reads the
//! outcome from the store, if the exchange has written one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::outcome::ExchangeOutcome;
use crate::credential::UserId;
use crate::store::LoginCodeKey;

/// Maximum number of running and waiting exchanges of one login handler: 2,048. Further callbacks
/// fail, and their users are asked to retry in a moment.
const MAX_RUNNING_EXCHANGES: usize = 2_048;

/// Key of a callback: callbacks with equal keys are copies of each other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::login) struct CallbackKey {
    pub(in crate::login) code: LoginCodeKey,
    /// The id of the login that the callback's state names.
    pub(in crate::login) login_id: u64,
    pub(in crate::login) bound_user: Option<UserId>,
}

type OutcomeReceiver = watch::Receiver<Option<ExchangeOutcome>>;

/// The running exchanges of one login handler. Each entry has the receiver of an exchange's
/// outcome.
#[derive(Debug, Default)]
pub(in crate::login) struct RunningExchanges(Mutex<HashMap<CallbackKey, OutcomeReceiver>>);

impl RunningExchanges {
    /// Returns the receiver of the outcome for a callback. If no copy of the callback has a running
    /// exchange, calls `start` to begin one. Returns `None` if too many exchanges are running.
    pub(in crate::login) fn join_or_start(
        self: &Arc<Self>,
        key: CallbackKey,
        start: impl FnOnce(OutcomeSender),
    ) -> Option<OutcomeReceiver> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(receiver) = running.get(&key) {
            return Some(receiver.clone());
        }
        if running.len() >= MAX_RUNNING_EXCHANGES {
            return None;
        }
        let (sender, receiver) = watch::channel(None);
        running.insert(key.clone(), receiver.clone());
        // The lock is released before `start`, which may drop the sender at once. The sender's
        // `drop` takes the same lock.
        drop(running);
        start(OutcomeSender {
            running: Arc::clone(self),
            key,
            sender,
        });
        Some(receiver)
    }
}

/// Sender of an outcome to all copies of a callback. If it is dropped without an outcome, because
/// the exchange panicked, the copies fail as if WeChat were unavailable.
pub(in crate::login) struct OutcomeSender {
    running: Arc<RunningExchanges>,
    key: CallbackKey,
    sender: watch::Sender<Option<ExchangeOutcome>>,
}

impl OutcomeSender {
    /// Sends the outcome to all waiting copies. The entry is removed afterwards, when `self` is
    /// dropped, so that copies find the entry until the outcome is sent.
    pub(in crate::login) fn send(self, outcome: ExchangeOutcome) {
        self.sender.send_replace(Some(outcome));
    }
}

impl Drop for OutcomeSender {
    fn drop(&mut self) {
        let mut running = self
            .running
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        running.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicate_callbacks_share_one_exchange() {
        let running = Arc::new(RunningExchanges::default());
        let app = crate::credential::AppId::new("wx1").unwrap();
        let key = |login| CallbackKey {
            code: LoginCodeKey::new(&app, "code"),
            login_id: login,
            bound_user: None,
        };
        let mut senders = Vec::new();
        let first = running
            .join_or_start(key(1), |sender| senders.push(sender))
            .unwrap();
        let copy = running
            .join_or_start(key(1), |sender| senders.push(sender))
            .unwrap();
        running
            .join_or_start(key(2), |sender| senders.push(sender))
            .unwrap();
        assert_eq!(senders.len(), 2);
        senders.remove(0).send(ExchangeOutcome::CodeSpent);
        assert_eq!(*first.borrow(), Some(ExchangeOutcome::CodeSpent));
        assert_eq!(*copy.borrow(), Some(ExchangeOutcome::CodeSpent));
        running
            .join_or_start(key(1), |sender| senders.push(sender))
            .unwrap();
        assert_eq!(senders.len(), 2, "a later copy reads the store");
        for login in 10..10 + MAX_RUNNING_EXCHANGES as u64 {
            running.join_or_start(key(login), |sender| senders.push(sender));
        }
        assert!(
            running.join_or_start(key(7), |_| {}).is_none(),
            "the number of exchanges is bounded"
        );
    }
}
