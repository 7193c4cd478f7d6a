//! The state of several accounts: which the application has listed, and which this process serves.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use quick_cache::DefaultHashBuilder;

use super::account::Account;
use super::made::MadeAccount;
use super::searches::Searches;
use super::selector::AccountSelector;
use super::source::AnyRegistry;
use crate::background_task::BackgroundTask;
use crate::credential::AppId;
use crate::error::Error;
use crate::layer::account_layer::AccountParts;
use crate::log_limiter::LogLimiter;
use crate::store::Store;

/// The settings of several accounts.
#[derive(Debug, Clone)]
pub(super) struct AccountsSettings {
    /// Time without requests after which an account is dropped.
    pub(super) idle_timeout: Duration,
    /// Interval at which the registry is asked again for the accounts that this process serves.
    pub(super) refresh_interval: Duration,
    /// Maximum time of a search in the registry.
    pub(super) find_timeout: Duration,
}

/// The state that all clones of [`Accounts`](super::Accounts) share.
pub(super) struct AccountsState {
    pub(super) store: Arc<dyn Store>,
    pub(super) selector: AccountSelector,
    pub(super) registry: Option<Arc<dyn AnyRegistry>>,
    pub(super) settings: AccountsSettings,
    /// The descriptions that the application has listed.
    listed: RwLock<HashMap<AppId, Account>>,
    /// The accounts that this process serves. The hasher has random keys, as that of the standard
    /// library, and is faster.
    made: RwLock<HashMap<AppId, Arc<MadeAccount>, DefaultHashBuilder>>,
    /// Accounts that were removed, and whose tasks may not have ended yet. The upkeep drops them.
    removed: Mutex<Vec<Arc<AccountParts>>>,
    pub(super) searches: Searches,
    pub(super) upkeep: BackgroundTask,
    pub(super) log_limiter: LogLimiter,
}

impl AccountsState {
    pub(super) fn new(
        store: Arc<dyn Store>,
        selector: AccountSelector,
        registry: Option<Arc<dyn AnyRegistry>>,
        settings: AccountsSettings,
        listed: HashMap<AppId, Account>,
    ) -> Self {
        Self {
            store,
            selector,
            registry,
            settings,
            listed: RwLock::new(listed),
            made: RwLock::default(),
            removed: Mutex::default(),
            searches: Searches::default(),
            upkeep: BackgroundTask::default(),
            log_limiter: LogLimiter::default(),
        }
    }

    /// Returns an account that this process serves already.
    #[inline]
    pub(super) fn made(&self, app_id: &str) -> Option<Arc<AccountParts>> {
        let made = read(&self.made);
        let account = made.get(app_id)?;
        account.note_use();
        Some(Arc::clone(&account.parts))
    }

    /// Makes a listed account. Returns `None` if the application has not listed it.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration): the description is wrong.
    pub(super) fn make_listed(&self, app_id: &str) -> Result<Option<Arc<AccountParts>>, Error> {
        // Lists are locked before made accounts, everywhere.
        let listed = read(&self.listed);
        let Some((app_id, description)) = listed.get_key_value(app_id) else {
            return Ok(None);
        };
        // The lock is held while the account is made, so that concurrent requests make it once.
        // Making an account does no I/O.
        let mut made = write(&self.made);
        if let Some(account) = made.get(app_id) {
            return Ok(Some(Arc::clone(&account.parts)));
        }
        let account = self.make(description.clone(), false)?;
        let parts = Arc::clone(&account.parts);
        made.insert(app_id.clone(), Arc::new(account));
        Ok(Some(parts))
    }

    /// Makes an account, which does not serve requests yet.
    pub(super) fn make(
        &self,
        description: Account,
        is_from_registry: bool,
    ) -> Result<MadeAccount, Error> {
        MadeAccount::new(description, &self.store, &self.selector, is_from_registry)
    }

    /// Lets an account of the registry serve requests.
    pub(super) fn keep(&self, app_id: &AppId, account: &Arc<MadeAccount>) {
        let replaced = write(&self.made).insert(app_id.clone(), Arc::clone(account));
        if let Some(replaced) = replaced {
            self.lock_removed().push(Arc::clone(&replaced.parts));
        }
    }

    /// Adds a description to the list, in place of an earlier one. An account that was made from the
    /// earlier one serves no further requests.
    pub(super) fn list(&self, description: Account) {
        let app_id = description.app_id().clone();
        let mut listed = write(&self.listed);
        listed.insert(app_id.clone(), description);
        self.stop_serving(&app_id);
    }

    /// Removes an account. Returns `true` if it was listed or this process served it.
    pub(super) fn remove(&self, app_id: &AppId) -> bool {
        let mut listed = write(&self.listed);
        let was_listed = listed.remove(app_id).is_some();
        let was_made = self.stop_serving(app_id);
        was_listed || was_made
    }

    /// Drops what this process has made of an account, and forgets a running search for it.
    fn stop_serving(&self, app_id: &AppId) -> bool {
        self.searches.forget(app_id);
        let account = write(&self.made).remove(app_id);
        let was_made = account.is_some();
        let parts = account.map(|account| Arc::clone(&account.parts));
        self.lock_removed().extend(parts);
        was_made
    }

    /// Drops an account if it is still `account` and no request has used it since the last check.
    pub(super) fn drop_if_unused(&self, app_id: &AppId, account: &Arc<MadeAccount>) {
        let mut made = write(&self.made);
        let is_same = made.get(app_id).is_some_and(|it| Arc::ptr_eq(it, account));
        if is_same && !account.is_used() {
            made.remove(app_id);
        }
    }

    /// Replaces an account by what the registry returns now, or removes it for `None`. Does nothing if
    /// the account is no longer `account`.
    pub(super) fn replace(
        &self,
        app_id: &AppId,
        account: &Arc<MadeAccount>,
        by: Option<Arc<MadeAccount>>,
    ) {
        let mut made = write(&self.made);
        if made.get(app_id).is_none_or(|it| !Arc::ptr_eq(it, account)) {
            return;
        }
        match by {
            Some(other) => drop(made.insert(app_id.clone(), other)),
            None => drop(made.remove(app_id)),
        }
        drop(made);
        self.lock_removed().push(Arc::clone(&account.parts));
    }

    /// Returns the accounts that this process serves.
    pub(super) fn all_made(&self) -> Vec<(AppId, Arc<MadeAccount>)> {
        let made = read(&self.made);
        let accounts = made.iter();
        accounts
            .map(|(app_id, account)| (app_id.clone(), Arc::clone(account)))
            .collect()
    }

    /// Returns the AppIDs of the listed accounts.
    pub(super) fn listed_app_ids(&self) -> Vec<AppId> {
        read(&self.listed).keys().cloned().collect()
    }

    /// Takes the removed accounts whose tasks may not have ended yet.
    pub(super) fn take_removed(&self) -> Vec<Arc<AccountParts>> {
        std::mem::take(&mut self.lock_removed())
    }

    fn lock_removed(&self) -> MutexGuard<'_, Vec<Arc<AccountParts>>> {
        self.removed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read<M>(map: &RwLock<M>) -> RwLockReadGuard<'_, M> {
    map.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<M>(map: &RwLock<M>) -> RwLockWriteGuard<'_, M> {
    map.write().unwrap_or_else(PoisonError::into_inner)
}
