//! The running searches in the registry of the application.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, watch};

use crate::credential::AppId;
use crate::error::Error;
use crate::layer::account_layer::AccountParts;

/// Maximum number of searches that run at the same time: 256. Any person can cause a search with an
/// invented AppID. Further requests for accounts that this process does not serve fail at once.
pub(super) const MAX_SEARCHES: usize = 256;

/// The result of a search: the account, `None` if there is none, or an error if that is unknown.
pub(in crate::layer) type FoundAccount = Result<Option<Arc<AccountParts>>, Error>;

/// The running searches of a registry.
pub(super) struct Searches {
    running: Mutex<HashMap<AppId, Search>>,
    pub(super) permits: Arc<Semaphore>,
}

/// A running search. `id` distinguishes it from a later search for the same AppID.
pub(super) struct Search {
    pub(super) id: u64,
    pub(super) outcome: watch::Receiver<Option<FoundAccount>>,
}

impl Default for Searches {
    fn default() -> Self {
        Self {
            running: Mutex::default(),
            permits: Arc::new(Semaphore::new(MAX_SEARCHES)),
        }
    }
}

impl Searches {
    pub(super) fn lock(&self) -> MutexGuard<'_, HashMap<AppId, Search>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets the running search for an AppID. Requests that wait for the search receive its result,
    /// but the account does not stay.
    pub(super) fn forget(&self, app_id: &AppId) {
        self.lock().remove(app_id);
    }
}
