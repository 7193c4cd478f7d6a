//! The accounts whose authorization has changed, for the layers that serve them.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;

use crate::credential::AppId;

/// Maximum number of changes that wait in one queue: 10,000. A layer asks again for each account once a
/// minute anyway.
const MAX_CHANGES: usize = 10_000;

/// The queues of all layers that serve the accounts of a platform.
#[derive(Default)]
pub(super) struct Changes(Mutex<Vec<Weak<ChangeQueue>>>);

impl Changes {
    /// Creates a queue, which ends when it is dropped.
    pub(super) fn subscribe(&self) -> Arc<ChangeQueue> {
        let queue = Arc::new(ChangeQueue::default());
        self.lock().push(Arc::downgrade(&queue));
        queue
    }

    /// Adds an account to all queues.
    pub(super) fn publish(&self, account: &AppId) {
        self.lock().retain(|queue| match queue.upgrade() {
            Some(queue) => {
                queue.push(account);
                true
            }
            None => false,
        });
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<ChangeQueue>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The accounts that have changed since a layer looked, each once.
#[derive(Debug, Default)]
pub(crate) struct ChangeQueue {
    accounts: Mutex<HashSet<AppId>>,
    added: Notify,
}

impl ChangeQueue {
    fn push(&self, account: &AppId) {
        let mut accounts = self.lock();
        if accounts.len() < MAX_CHANGES {
            accounts.insert(account.clone());
            self.added.notify_one();
        }
    }

    /// Waits for the next account.
    pub(crate) async fn next(&self) -> AppId {
        loop {
            let taken = {
                let mut accounts = self.lock();
                let next = accounts.iter().next().cloned();
                next.and_then(|account| accounts.take(&account))
            };
            match taken {
                Some(account) => return account,
                None => self.added.notified().await,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<AppId>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
