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

/// Status of a running exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::login) enum ExchangeStatus {
    /// The exchange waits for the store or for WeChat.
    Exchanging,
    /// The exchange waits for the application's hook.
    RunningHook,
    /// The exchange has ended.
    Ended(ExchangeOutcome),
}

impl ExchangeStatus {
    /// Returns `true` if the exchange has ended.
    pub(in crate::login) fn is_ended(&self) -> bool {
        matches!(self, Self::Ended(_))
    }
}

type StatusReceiver = watch::Receiver<ExchangeStatus>;

/// The running exchanges of one login handler. Each entry has the receiver of an exchange's status.
#[derive(Debug, Default)]
pub(in crate::login) struct RunningExchanges(Mutex<HashMap<CallbackKey, StatusReceiver>>);

impl RunningExchanges {
    /// Returns the receiver of the status for a callback. If no copy of the callback has a running
    /// exchange, calls `start` to begin one, which sends its status to `status`. Returns `None` if
    /// too many exchanges are running.
    pub(in crate::login) fn join_or_start(
        self: &Arc<Self>,
        key: CallbackKey,
        status: watch::Sender<ExchangeStatus>,
        start: impl FnOnce(OutcomeSender),
    ) -> Option<StatusReceiver> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(receiver) = running.get(&key) {
            return Some(receiver.clone());
        }
        if running.len() >= MAX_RUNNING_EXCHANGES {
            return None;
        }
        let receiver = status.subscribe();
        running.insert(key.clone(), receiver.clone());
        // The lock is released before `start`, which may drop the sender at once. The sender's
        // `drop` takes the same lock.
        drop(running);
        start(OutcomeSender {
            running: Arc::clone(self),
            key,
            status,
        });
        Some(receiver)
    }
}

/// Sender of an outcome to all copies of a callback. If it is dropped without an outcome, because
/// the exchange panicked, the copies fail as if WeChat were unavailable.
pub(in crate::login) struct OutcomeSender {
    running: Arc<RunningExchanges>,
    key: CallbackKey,
    status: watch::Sender<ExchangeStatus>,
}

impl OutcomeSender {
    /// Sends the outcome to all waiting copies. The entry is removed afterwards, when `self` is
    /// dropped, so that copies find the entry until the outcome is sent.
    pub(in crate::login) fn send(self, outcome: ExchangeOutcome) {
        self.status.send_replace(ExchangeStatus::Ended(outcome));
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
        let status = || watch::Sender::new(ExchangeStatus::Exchanging);
        let ended = ExchangeStatus::Ended(ExchangeOutcome::CodeSpent);
        let mut senders = Vec::new();
        let first = running
            .join_or_start(key(1), status(), |sender| senders.push(sender))
            .unwrap();
        let copy = running
            .join_or_start(key(1), status(), |sender| senders.push(sender))
            .unwrap();
        running
            .join_or_start(key(2), status(), |sender| senders.push(sender))
            .unwrap();
        assert_eq!(senders.len(), 2);
        senders.remove(0).send(ExchangeOutcome::CodeSpent);
        assert_eq!(*first.borrow(), ended);
        assert_eq!(*copy.borrow(), ended);
        running
            .join_or_start(key(1), status(), |sender| senders.push(sender))
            .unwrap();
        assert_eq!(senders.len(), 2, "a later copy reads the store");
        for login in 10..10 + MAX_RUNNING_EXCHANGES as u64 {
            running.join_or_start(key(login), status(), |sender| senders.push(sender));
        }
        assert!(
            running.join_or_start(key(7), status(), |_| {}).is_none(),
            "the number of exchanges is bounded"
        );
    }
}
