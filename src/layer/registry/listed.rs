//! The accounts that the application has listed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::account::Account;
use crate::credential::AppId;
use crate::error::Error;
use crate::store::Store;

/// The descriptions that the application has listed.
#[derive(Default)]
pub(super) struct ListedAccounts(HashMap<AppId, ListedAccount>);

/// A listed description.
#[derive(Clone)]
pub(super) struct ListedAccount {
    pub(super) description: Account,
    /// Locked while the account is made, so that concurrent requests make it once. It also
    /// distinguishes this description from a later one.
    pub(super) making: Arc<Mutex<()>>,
}

impl ListedAccounts {
    pub(super) fn get(&self, app_id: &str) -> Option<&ListedAccount> {
        self.0.get(app_id)
    }

    pub(super) fn app_ids(&self) -> Vec<AppId> {
        self.0.keys().cloned().collect()
    }

    /// Adds a description. Returns the earlier one, which the caller drops without a lock: it holds
    /// values of the application.
    pub(super) fn insert(&mut self, description: Account) -> Option<ListedAccount> {
        let app_id = description.app_id().clone();
        let listed = ListedAccount {
            description,
            making: Arc::default(),
        };
        self.0.insert(app_id, listed)
    }

    /// Removes a description, and returns it.
    pub(super) fn remove(&mut self, app_id: &AppId) -> Option<ListedAccount> {
        self.0.remove(app_id)
    }

    /// Checks that an account can be listed beside the others. A listed account with the same AppID
    /// does not count.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration): two accounts would share a hash
    /// of the store, two have one name of a session cookie, or a website is also an account.
    pub(super) fn check_beside(
        &self,
        account: &Account,
        store: &Arc<dyn Store>,
    ) -> Result<(), Error> {
        let others = self.0.iter().filter(|(id, _)| *id != account.app_id());
        for (_, other) in others {
            let other = &other.description;
            store.check_several_accounts()?;
            check_cookie_names(account, other)?;
            check_website_is_no_account(account, other)?;
            check_website_is_no_account(other, account)?;
        }
        Ok(())
    }
}

fn check_cookie_names(one: &Account, other: &Account) -> Result<(), Error> {
    let name = |account: &Account| Some(account.login.as_ref()?.cookie_name()?.to_owned());
    match (name(one), name(other)) {
        (Some(name), Some(others)) if name == others => Err(Error::configuration(format!(
            "the accounts {} and {} name their session cookies {name}: give each account a name of \
             its own, or none",
            other.app_id().as_str(),
            one.app_id().as_str(),
        ))),
        _ => Ok(()),
    }
}

fn check_website_is_no_account(account: &Account, other: &Account) -> Result<(), Error> {
    match &account.website {
        Some(website) if website.app_id() == other.app_id() => Err(Error::configuration(format!(
            "the website {} of the account {} is an account too: list it once, as a website app \
             (网站应用) or as an account",
            website.app_id().as_str(),
            account.app_id().as_str(),
        ))),
        _ => Ok(()),
    }
}
