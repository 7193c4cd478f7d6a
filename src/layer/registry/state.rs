//! The state of several accounts: which the application has listed, and which this process serves.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak,
};
use std::time::Duration;

use quick_cache::DefaultHashBuilder;

use super::account::Account;
use super::listed::ListedAccounts;
use super::made::MadeAccount;
use super::searches::Searches;
use super::selector::AccountSelector;
use super::source::AnyRegistry;
use crate::background_task::BackgroundTask;
use crate::credential::AppId;
use crate::error::Error;
use crate::guarded_call::catch_panic;
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
    /// Locked before `searches`, `made` and `removed`, which are locked in this order. No code of the
    /// application runs under one of these locks: neither the functions of a description, nor the
    /// destructors of what they hold.
    listed: RwLock<ListedAccounts>,
    /// The accounts that this process serves. The hasher has random keys, as that of the standard
    /// library, and is faster.
    made: RwLock<HashMap<AppId, Arc<MadeAccount>, DefaultHashBuilder>>,
    /// Accounts that this process no longer serves, and whose tasks may not have ended yet. The upkeep
    /// drops them.
    removed: Mutex<Vec<Arc<AccountParts>>>,
    pub(super) searches: Searches,
    pub(super) upkeep: BackgroundTask,
    /// `true` if the upkeep does not run.
    pub(super) needs_upkeep: AtomicBool,
    pub(super) log_limiter: LogLimiter,
}

impl AccountsState {
    pub(super) fn new(
        store: Arc<dyn Store>,
        selector: AccountSelector,
        registry: Option<Arc<dyn AnyRegistry>>,
        settings: AccountsSettings,
        listed: ListedAccounts,
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
            needs_upkeep: AtomicBool::new(true),
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

    /// Returns `true` if the upkeep does not run, for example because its runtime has ended.
    #[inline]
    pub(super) fn needs_upkeep(&self) -> bool {
        self.needs_upkeep.load(Ordering::Relaxed)
    }

    /// Makes a listed account. Returns `None` if the application has not listed it.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration): the description is wrong, or its
    /// functions panicked.
    pub(super) fn make_listed(&self, app_id: &str) -> Result<Option<Arc<AccountParts>>, Error> {
        let found = self.read_listed().get(app_id).cloned();
        let Some(listed) = found else {
            return Ok(None);
        };
        let making = listed.making.lock();
        let making = making.unwrap_or_else(PoisonError::into_inner);
        if let Some(parts) = self.made(app_id) {
            return Ok(Some(parts));
        }
        let account = self.make(listed.description.clone(), false)?;
        let parts = Arc::clone(&account.parts);
        let now_listed = self.read_listed();
        let now = now_listed.get(app_id);
        if now.is_some_and(|now| Arc::ptr_eq(&now.making, &listed.making)) {
            write(&self.made).insert(account.description.app_id().clone(), account);
        } else {
            // The list has changed meanwhile. This request is one that was under way.
            self.note_removed(&parts);
            drop(now_listed);
            drop(account);
        }
        drop(making);
        Ok(Some(parts))
    }

    /// Makes an account, which does not serve requests yet. Logs why this fails.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration): the description is wrong, or its
    /// functions panicked.
    pub(super) fn make(
        &self,
        description: Account,
        is_from_registry: bool,
    ) -> Result<Arc<MadeAccount>, Error> {
        let app_id = description.app_id().clone();
        let make = || MadeAccount::new(description, &self.store, &self.selector, is_from_registry);
        let reason = match catch_panic("function of its settings", make) {
            Ok(Ok(made)) => return Ok(Arc::new(made)),
            Ok(Err(error)) => error.to_string(),
            Err(panic) => panic,
        };
        Err(self.wrong_description(&app_id, &reason))
    }

    /// Lets an account of the registry serve requests. Returns the account that it replaces.
    pub(super) fn keep(&self, account: &Arc<MadeAccount>) -> Option<Arc<MadeAccount>> {
        let app_id = account.description.app_id().clone();
        let replaced = write(&self.made).insert(app_id, Arc::clone(account));
        let parts = replaced.as_ref().map(|it| Arc::clone(&it.parts));
        self.lock_removed().extend(parts);
        replaced
    }

    /// Adds a description to the list, in place of an earlier one. An account that was made from the
    /// earlier one serves no further requests.
    ///
    /// # Errors
    /// Returns the errors of [`ListedAccounts::check_beside`].
    pub(super) fn list(&self, description: Account) -> Result<(), Error> {
        let app_id = description.app_id().clone();
        let mut listed = write(&self.listed);
        listed.check_beside(&description, &self.store)?;
        let replaced = listed.insert(description);
        let stopped = self.stop_serving(&app_id);
        drop(listed);
        drop((replaced, stopped));
        Ok(())
    }

    /// Removes an account. Returns `true` if it was listed or this process served it.
    pub(super) fn remove(&self, app_id: &AppId) -> bool {
        let mut listed = write(&self.listed);
        let removed = listed.remove(app_id);
        let stopped = self.stop_serving(app_id);
        drop(listed);
        removed.is_some() || stopped.is_some()
    }

    /// Stops serving an account, and forgets a running search for it. Returns the account.
    fn stop_serving(&self, app_id: &AppId) -> Option<Arc<MadeAccount>> {
        self.searches.forget(app_id);
        let account = write(&self.made).remove(app_id);
        let parts = account.as_ref().map(|account| Arc::clone(&account.parts));
        self.lock_removed().extend(parts);
        account
    }

    /// Drops an account if it is still `account` and no request has used it since the last check.
    pub(super) fn drop_if_unused(&self, app_id: &AppId, account: &Arc<MadeAccount>) {
        let mut made = write(&self.made);
        let is_same = made.get(app_id).is_some_and(|it| Arc::ptr_eq(it, account));
        if is_same && !account.is_used() {
            made.remove(app_id);
            self.note_removed(&account.parts);
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
            drop(made);
            return;
        }
        match by {
            Some(other) => drop(made.insert(app_id.clone(), other)),
            None => drop(made.remove(app_id)),
        }
        self.note_removed(&account.parts);
    }

    /// Returns the accounts that this process serves.
    pub(super) fn all_made(&self) -> Vec<(AppId, Arc<MadeAccount>)> {
        let made = read(&self.made);
        let accounts = made.iter();
        accounts
            .map(|(app_id, account)| (app_id.clone(), Arc::clone(account)))
            .collect()
    }

    /// Returns an account that the registry has returned and that this process serves.
    pub(super) fn made_from_registry(&self, app_id: &AppId) -> Option<Weak<MadeAccount>> {
        let made = read(&self.made);
        let account = made.get(app_id).filter(|it| it.is_from_registry)?;
        Some(Arc::downgrade(account))
    }

    pub(super) fn read_listed(&self) -> RwLockReadGuard<'_, ListedAccounts> {
        read(&self.listed)
    }

    /// Notes that this process no longer serves an account, so that a shutdown waits for its tasks.
    pub(super) fn note_removed(&self, parts: &Arc<AccountParts>) {
        self.lock_removed().push(Arc::clone(parts));
    }

    /// Returns the accounts that this process no longer serves, and whose tasks may not have ended
    /// yet.
    pub(super) fn removed(&self) -> Vec<Arc<AccountParts>> {
        self.lock_removed().clone()
    }

    pub(super) fn lock_removed(&self) -> MutexGuard<'_, Vec<Arc<AccountParts>>> {
        self.removed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read<M>(map: &RwLock<M>) -> RwLockReadGuard<'_, M> {
    map.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<M>(map: &RwLock<M>) -> RwLockWriteGuard<'_, M> {
    map.write().unwrap_or_else(PoisonError::into_inner)
}
