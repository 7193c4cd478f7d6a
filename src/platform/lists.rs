//! The list of all accounts that have authorized the platform, from WeChat (`api_get_authorizer_list`).
//!
//! The list brings back what was lost: events that never arrived, and refresh tokens that the store has
//! lost. A complete list also tells which AppIDs no account of the platform has.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

use super::authorizations::Grant;
use super::running_list::{AccountsListed, ListOutcome};
use super::state::PlatformState;
use crate::accounts::AccountToken;
use crate::clock::Timestamp;
use crate::credential::AppId;
use crate::error::{Error, ErrorKind};
use crate::store::{Authorization, AuthorizationState, DurableSecret, Quota};
use crate::wechat::{ListedAuthorizer, MAX_LIST_COUNT};

/// Time between two lists of all processes, which are read because an account needs one: ten seconds.
pub(super) const MIN_LIST_INTERVAL: Duration = Duration::from_secs(10);

/// Maximum number of pages of one list, of 500 accounts each.
const MAX_PAGES: u32 = 400;

/// Maximum number of accounts that are missing in a list and are checked one by one afterwards.
const MAX_CHECKS: usize = 50;

/// Maximum number of accounts of a list that are written to the store at the same time.
const MAX_MERGES: usize = 32;

impl PlatformState {
    /// Reads the list of all accounts, unless a process has read it within the last ten seconds. All callers
    /// of this process share one list. The list is read in a task of its own.
    pub(super) async fn list(self: &Arc<Self>) -> ListOutcome {
        self.check_kept_here("read the list of accounts")?;
        let mut outcome = self.join_list();
        let ended = outcome.wait_for(Option::is_some).await;
        match ended.ok().and_then(|outcome| outcome.clone()) {
            Some(outcome) => outcome,
            None => Err(Error::new(
                ErrorKind::WechatUnavailable,
                "the list of accounts was not read to its end",
            )),
        }
    }

    fn join_list(self: &Arc<Self>) -> watch::Receiver<Option<ListOutcome>> {
        let (outcome, sender) = self.running_list.join_or_start();
        if let Some(sender) = sender {
            let state = Arc::clone(self);
            self.tasks.spawn(async move {
                let outcome = state.read_list_if_allowed().await;
                sender.send_replace(Some(outcome));
            });
        }
        outcome
    }

    async fn read_list_if_allowed(self: &Arc<Self>) -> ListOutcome {
        // Without a component token, no list is read, and none is counted.
        self.component_token().await?;
        let quota = Quota {
            app: self.component.app_id().clone(),
            purpose: "authorizer_list".into(),
            limit: 1,
            window: MIN_LIST_INTERVAL,
        };
        // A list that failed has used nothing: this process reads it again after its back-off.
        if !self.running_list.may_repeat()? && !self.store.try_consume(&quota).await? {
            return Ok(None);
        }
        let listed = self.read_list().await;
        match &listed {
            Ok(_) => self.running_list.note_success(),
            Err(error) => self.running_list.note_failure(error),
        }
        listed.map(Some)
    }

    async fn read_list(self: &Arc<Self>) -> Result<Arc<AccountsListed>, Error> {
        let known = self.authorizations.all().await?;
        let started = self.clock.now();
        let listed = self.fetch_all().await?;
        let mut accounts = HashMap::with_capacity(listed.len());
        let mut recovered = 0_usize;
        let mut merges = JoinSet::new();
        for account in listed {
            accounts.insert(account.app_id.clone(), account.refresh_token.is_some());
            if merges.len() >= MAX_MERGES {
                recovered += merged(merges.join_next().await)?;
            }
            let state = Arc::clone(self);
            merges.spawn(async move { state.merge(&account).await });
        }
        while !merges.is_empty() {
            recovered += merged(merges.join_next().await)?;
        }
        self.authorizations.set_listed(started).await?;
        let missing = known.entries.into_iter().filter(|(account, entry)| {
            entry.state == AuthorizationState::Authorized && !accounts.contains_key(account)
        });
        for (account, entry) in missing.take(MAX_CHECKS) {
            self.check_missing(&account, &entry).await?;
        }
        tracing::info!(
            target: "tower_wechat::platform",
            app = %self.component.app_id(),
            accounts = accounts.len(), recovered,
            "the list of accounts was read"
        );
        Ok(Arc::new(AccountsListed { accounts }))
    }

    /// Fetches all pages of the list.
    async fn fetch_all(&self) -> Result<Vec<ListedAuthorizer>, Error> {
        let component = &self.component;
        let mut listed = Vec::new();
        let mut offset = 0;
        for _ in 0..MAX_PAGES {
            let page = self
                .with_component_token(async |token: AccountToken| {
                    let token = token.access_token();
                    component
                        .authorizer_list(token, offset, MAX_LIST_COUNT)
                        .await
                })
                .await?;
            listed.extend(page.accounts);
            offset += page.entries;
            if page.entries == 0 || u64::from(offset) >= page.total {
                return Ok(listed);
            }
        }
        tracing::warn!(
            target: "tower_wechat::platform",
            app = %component.app_id(),
            accounts = listed.len(),
            "the list of accounts is longer than this process reads; the rest is unknown"
        );
        Ok(listed)
    }

    /// Stores what the list says about an account, unless the store has something newer. Returns `true`
    /// if the refresh token comes from the list.
    async fn merge(&self, listed: &ListedAuthorizer) -> Result<bool, Error> {
        let account = &listed.app_id;
        let since = listed.auth_time.unwrap_or(Timestamp::from_millis(0));
        let stored = self.authorizations.refresh_token(account).await?;
        // A token that WeChat has refused is as good as none.
        let refresh = listed.refresh_token.as_ref();
        let Some(refresh) = refresh.filter(|it| !self.is_refused(account, it)) else {
            // The platform may never have exchanged the code of this account.
            if stored.value.is_none() {
                self.authorizations
                    .note(account, AuthorizationState::Lost, since)
                    .await?;
            }
            return Ok(false);
        };
        if let Some(value) = &stored.value {
            let is_same = value.secret == *refresh;
            let is_newer = since > value.since || self.is_refused(account, &value.secret);
            if is_same || !is_newer {
                // Another service may have written the token without a time.
                if is_same && value.since.as_millis() == 0 && since.as_millis() > 0 {
                    let dated = DurableSecret {
                        secret: refresh.clone(),
                        since,
                    };
                    self.authorizations
                        .replace(account, &stored, Some(&dated))
                        .await?;
                }
                self.authorizations
                    .note(account, AuthorizationState::Authorized, value.since)
                    .await?;
                return Ok(false);
            }
        }
        let stored_since = stored.value.map(|value| value.since);
        // WeChat's time counts seconds. The entry of the same authorization may have our time, which is
        // a little later. The end of an authorization stays newer than what the list says.
        let entry = self.authorizations.entry(account).await?;
        let entry_since = entry
            .filter(|entry| entry.state != AuthorizationState::Unauthorized)
            .map(|entry| entry.since);
        let grant = Grant {
            account: account.clone(),
            refresh_token: Some(refresh.clone()),
            access_token: None,
            since: since.max(stored_since.max(entry_since).unwrap_or(since)),
        };
        let is_stored = self
            .authorizations
            .store_grant(&grant, self.clock.now())
            .await?;
        if is_stored {
            self.forget_refused(account);
            self.changes.publish(account);
        }
        Ok(is_stored)
    }

    /// Checks an account that is missing in a list, because its event may be lost. Its authorization
    /// ends only if WeChat refuses its refresh token too.
    async fn check_missing(&self, account: &AppId, entry: &Authorization) -> Result<(), Error> {
        let stored = self.authorizations.refresh_token(account).await?.value;
        let has_ended = match &stored {
            Some(secret) => self.is_refused_by_wechat(account, secret).await?,
            None => true,
        };
        if !has_ended {
            return Ok(());
        }
        // The time of the authorization, not ours: an event of a later authorization must win.
        let since = stored.map_or(entry.since, |stored| stored.since.max(entry.since));
        let state = AuthorizationState::Lost;
        if self.authorizations.end(account, state, since).await? {
            self.changes.publish(account);
            tracing::warn!(target: "tower_wechat::platform", app = %account, "an account is not authorized any more; its event was lost");
        }
        Ok(())
    }
}

/// Returns 1 if the refresh token of an account has come from the list, else 0.
fn merged(merge: Option<Result<Result<bool, Error>, JoinError>>) -> Result<usize, Error> {
    match merge {
        Some(Ok(recovered)) => recovered.map(usize::from),
        Some(Err(_)) => Err(Error::store_unavailable(
            "an account of the list could not be written",
        )),
        None => Ok(0),
    }
}
