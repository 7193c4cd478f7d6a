//! Exchanges that are running: copies of one callback share one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::outcome::ExchangeOutcome;
use crate::credential::UserId;
use crate::store::LoginCodeKey;

/// How many different callbacks may be under way or wait in one process; further ones are told to
/// come again in a moment.
const MAX_RUNNING_EXCHANGES: usize = 2_048;

/// What makes two callbacks copies of each other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::login) struct CallbackKey {
    pub(in crate::login) code: LoginCodeKey,
    /// The number of the login.
    pub(in crate::login) login_id: u64,
    pub(in crate::login) bound_user: Option<UserId>,
}

type OutcomeReceiver = watch::Receiver<Option<ExchangeOutcome>>;

/// The exchanges that this process runs.
#[derive(Debug, Default)]
pub(in crate::login) struct RunningExchanges(Mutex<HashMap<CallbackKey, OutcomeReceiver>>);

impl RunningExchanges {
    /// Joins the exchange of which a callback is a copy, or starts it. `None`: too many are under
    /// way.
    pub(in crate::login) fn join_or_start(
        self: &Arc<Self>,
        key: CallbackKey,
        start: impl FnOnce(OutcomeSender),
    ) -> Option<OutcomeReceiver> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(told) = running.get(&key) {
            return Some(told.clone());
        }
        if running.len() >= MAX_RUNNING_EXCHANGES {
            return None;
        }
        let (sender, receiver) = watch::channel(None);
        running.insert(key.clone(), receiver.clone());
        drop(running);
        start(OutcomeSender {
            running: Arc::clone(self),
            key,
            sender,
        });
        Some(receiver)
    }
}

/// Tells all copies what came of their code. Dropped before that, it tells them that nothing did.
pub(in crate::login) struct OutcomeSender {
    running: Arc<RunningExchanges>,
    key: CallbackKey,
    sender: watch::Sender<Option<ExchangeOutcome>>,
}

impl OutcomeSender {
    pub(in crate::login) fn send(self, verdict: ExchangeOutcome) {
        self.sender.send_replace(Some(verdict));
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
        let mut leaders = Vec::new();
        let told = running
            .join_or_start(key(1), |leader| leaders.push(leader))
            .unwrap();
        let copy = running
            .join_or_start(key(1), |leader| leaders.push(leader))
            .unwrap();
        running
            .join_or_start(key(2), |leader| leaders.push(leader))
            .unwrap();
        assert_eq!(leaders.len(), 2);
        leaders.remove(0).send(ExchangeOutcome::CodeSpent);
        assert_eq!(*told.borrow(), Some(ExchangeOutcome::CodeSpent));
        assert_eq!(*copy.borrow(), Some(ExchangeOutcome::CodeSpent));
        running
            .join_or_start(key(1), |leader| leaders.push(leader))
            .unwrap();
        assert_eq!(leaders.len(), 2, "the next copy asks the store");
        for login in 10..10 + MAX_RUNNING_EXCHANGES as u64 {
            running.join_or_start(key(login), |leader| leaders.push(leader));
        }
        assert!(
            running.join_or_start(key(7), |_| {}).is_none(),
            "a bounded number"
        );
    }
}
