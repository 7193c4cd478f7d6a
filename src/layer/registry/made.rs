//! Accounts that were made from their descriptions, and serve requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::account::{Account, check_app_id};
use super::selector::AccountSelector;
use crate::accounts::AccountTokensBuilder;
use crate::error::Error;
use crate::layer::WechatAccount;
use crate::layer::account_layer::AccountParts;
use crate::store::Store;
use crate::tickets::Tickets;

/// An account that this process serves.
pub(super) struct MadeAccount {
    pub(super) parts: Arc<AccountParts>,
    pub(super) description: Account,
    /// `true` if the registry has returned the account, `false` if the application has listed it.
    pub(super) is_from_registry: bool,
    /// `true` if a request has used the account since the last check of the upkeep.
    is_used: AtomicBool,
}

impl MadeAccount {
    /// Makes the account from its description.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration): the description is wrong.
    pub(super) fn new(
        description: Account,
        store: &Arc<dyn Store>,
        selector: &AccountSelector,
        is_from_registry: bool,
    ) -> Result<Self, Error> {
        Ok(Self {
            parts: Arc::new(make_parts(&description, store, selector, is_from_registry)?),
            description,
            is_from_registry,
            is_used: AtomicBool::new(true),
        })
    }

    /// Notes that a request uses the account.
    #[inline]
    pub(super) fn note_use(&self) {
        // Most requests find the flag set. A read does not take the cache line from other cores.
        if !self.is_used.load(Ordering::Relaxed) {
            self.is_used.store(true, Ordering::Relaxed);
        }
    }

    /// Returns `true` if a request has used the account since the last call.
    pub(super) fn take_use(&self) -> bool {
        self.is_used.swap(false, Ordering::Relaxed)
    }

    /// Returns `true` if a request has used the account since the last call of
    /// [`take_use`](Self::take_use).
    pub(super) fn is_used(&self) -> bool {
        self.is_used.load(Ordering::Relaxed)
    }
}

/// Checks a description, without making the account.
pub(super) fn check(
    description: &Account,
    store: &Arc<dyn Store>,
    selector: &AccountSelector,
) -> Result<(), Error> {
    description.check_website(store)?;
    if let Some(login) = &description.login {
        selector.check_login(description.app_id(), login)?;
    }
    match description.signed_hosts() {
        hosts if hosts.is_empty() => Ok(()),
        hosts => Tickets::check_hosts(hosts),
    }
}

fn make_parts(
    description: &Account,
    store: &Arc<dyn Store>,
    selector: &AccountSelector,
    is_from_registry: bool,
) -> Result<AccountParts, Error> {
    check(description, store, selector)?;
    let wechat = &description.wechat;
    let users = description.users_of(wechat, store, is_from_registry)?;
    let mut tokens = AccountTokensBuilder::with_store(wechat.clone().into(), Arc::clone(store));
    if let Some(change) = &description.account_tokens {
        tokens = change(tokens);
    }
    if is_from_registry {
        tokens = tokens.without_account_gauges();
    }
    let tokens = tokens.build();
    check_app_id(description.app_id(), tokens.app_id(), "own tokens")?;
    let account = match description.signed_hosts() {
        hosts if hosts.is_empty() => WechatAccount::from(tokens),
        hosts => WechatAccount::from(Tickets::new(&tokens, hosts)?),
    };
    let account = account.with_users(&users);
    let query = selector.query_parameter(description.app_id());
    let login = description
        .login_with_website(store, is_from_registry)?
        .map(|login| login.with_account_query(query).into_handler(&users));
    Ok(AccountParts {
        account: Some(match &login {
            Some(login) => account.with_login(login),
            None => account,
        }),
        users,
        login,
    })
}

impl AccountParts {
    /// Waits until the renewals, logins and writes of the account have ended, for `timeout` at most.
    /// Returns `true` if all of them have ended.
    pub(super) async fn shutdown(&self, timeout: Duration) -> bool {
        let users = self.users.shutdown(timeout);
        let own = async {
            let Some(account) = &self.account else {
                return true;
            };
            let tickets = async {
                match account.tickets() {
                    Some(tickets) => tickets.shutdown(timeout).await,
                    None => true,
                }
            };
            let (tickets, tokens) = tokio::join!(tickets, account.tokens().shutdown(timeout));
            tickets && tokens
        };
        let website = async {
            match self.website_users() {
                Some(website) => website.shutdown(timeout).await,
                None => true,
            }
        };
        let (users, own, website) = tokio::join!(users, own, website);
        users && own && website
    }
}
