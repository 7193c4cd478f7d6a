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
    /// of this process share one list. A separate task reads the list.
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
                let mut missing = Vec::new();
                let outcome = state.read_list_if_allowed(&mut missing).await;
                sender.send_replace(Some(outcome));
                drop(sender);
                state.running_list.forget();
                // Nobody waits for these calls, one for each account.
                state.check_missing_accounts(missing).await;
            });
        }
        outcome
    }

    async fn read_list_if_allowed(
        self: &Arc<Self>,
        missing: &mut Vec<(AppId, Authorization)>,
    ) -> ListOutcome {
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
        let listed = self.read_list(missing).await;
        match &listed {
            Ok(_) => self.running_list.note_success(),
            Err(error) => self.running_list.note_failure(error),
        }
        listed.map(Some)
    }

    /// Reads the list and stores what it says. Adds the accounts that are missing in it to `missing`.
    async fn read_list(
        self: &Arc<Self>,
        missing: &mut Vec<(AppId, Authorization)>,
    ) -> Result<Arc<AccountsListed>, Error> {
        let known = self.authorizations.all().await?;
        let started = self.clock.now();
        let listed = self.fetch_all().await?;
        let mut accounts = HashMap::with_capacity(listed.len());
        let mut report = MergeReport::default();
        let mut merges = JoinSet::new();
        for account in listed {
            accounts.insert(account.app_id.clone(), account.refresh_token.clone());
            if merges.len() >= MAX_MERGES {
                report.count(merges.join_next().await);
            }
            let state = Arc::clone(self);
            merges.spawn(async move { state.merge(&account).await });
        }
        while !merges.is_empty() {
            report.count(merges.join_next().await);
        }
        let recovered = report.recovered;
        // An account that cannot be written does not hide the others.
        if let Some(error) = report.first_error {
            let failed = report.failed;
            tracing::warn!(
                target: "tower_wechat::platform",
                app = %self.component.app_id(), failed, %error,
                "accounts of the list could not be written"
            );
            if error.kind() == ErrorKind::StoreUnavailable {
                return Err(error);
            }
        }
        self.authorizations.set_listed(started).await?;
        let absent = known.entries.into_iter().filter(|(account, entry)| {
            entry.state == AuthorizationState::Authorized && !accounts.contains_key(account)
        });
        missing.extend(absent.take(MAX_CHECKS));
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
        let stored = self.authorizations.refresh_tokens.load(account).await?;
        // A token that WeChat has refused is as good as none.
        let refresh = listed.refresh_token.as_ref();
        let Some(refresh) = refresh.filter(|it| !self.is_refused(account, it)) else {
            // The platform may never have exchanged the code of this account.
            if stored.value.is_none() {
                self.authorizations
                    .note_not_exchanged(account, since)
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
                        .refresh_tokens
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

    /// Checks accounts that are missing in a list, because their events may be lost.
    async fn check_missing_accounts(&self, missing: Vec<(AppId, Authorization)>) {
        for (account, _) in missing {
            if let Err(error) = self.check_missing(&account).await {
                tracing::debug!(target: "tower_wechat::platform", app = %account, %error, "the authorization of an account could not be checked");
            }
        }
    }

    /// Ends the authorization of an account that is missing in a list, if WeChat refuses its refresh token
    /// too.
    async fn check_missing(&self, account: &AppId) -> Result<(), Error> {
        let seen = self.authorizations.snapshot(account).await?;
        if let Some(secret) = &seen.secret.value
            && !self.is_refused_by_wechat(account, secret).await?
        {
            return Ok(());
        }
        let state = AuthorizationState::Lost;
        if self
            .authorizations
            .end_if_unchanged(account, state, &seen)
            .await?
        {
            self.changes.publish(account);
            tracing::warn!(target: "tower_wechat::platform", app = %account, "an account is not authorized any more; its event was lost");
        }
        Ok(())
    }
}

/// What became of the accounts of a list.
#[derive(Default)]
struct MergeReport {
    /// Accounts whose refresh token has come from the list.
    recovered: usize,
    /// Accounts that could not be written.
    failed: usize,
    first_error: Option<Error>,
}

impl MergeReport {
    fn count(&mut self, merge: Option<Result<Result<bool, Error>, JoinError>>) {
        let error = match merge {
            Some(Ok(Ok(is_recovered))) => {
                self.recovered += usize::from(is_recovered);
                return;
            }
            Some(Ok(Err(error))) => error,
            Some(Err(_)) => Error::store_unavailable("the write of an account was cancelled"),
            None => return,
        };
        self.failed += 1;
        self.first_error.get_or_insert(error);
    }
}
