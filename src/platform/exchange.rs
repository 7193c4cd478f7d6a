//! The exchange of an authorization code for the tokens of an account, once for all copies of the code.
//!
//! WeChat sends the code twice: with the event `authorized`, and with the browser that returns to the
//! platform. Whichever comes first is exchanged. The lease of a code and its outcome are in the store.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use zeroize::Zeroizing;

use super::authorizations::Grant;
use super::outcome::{
    AuthorizationCode, ExchangeOutcome, is_code_refused, pre_auth_code_hash, refused,
};
use super::state::PlatformState;
use crate::backoff::Backoff;
use crate::clock::Timestamp;
use crate::credential::AppId;
use crate::error::{Error, ErrorKind};
use crate::store::{CodeLeaseResult, LeaseOwner, LoginCodeKey, Quota};

/// Duration of the lease of a code. It outlasts the calls that it covers.
const LEASE: Duration = Duration::from_secs(20);

/// Time for which the outcome of an exchange is kept: one hour, the longest lifetime of a code.
const OUTCOME_TTL: Duration = Duration::from_secs(60 * 60);

/// Maximum time of an exchange with its wait for another process.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(15);

/// Maximum number of codes with which browsers return from one page and which are tried at WeChat.
const MAX_CODES_OF_PAGE: u32 = 10;

/// Time for which the write of a grant is repeated while the store does not take it: one minute.
const STORE_TIMEOUT: Duration = Duration::from_secs(60);

/// Longest wait between two tries of that write.
const MAX_STORE_INTERVAL: Duration = Duration::from_secs(2);

/// Interval at which a process looks whether another one has ended its exchange.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// How an exchange has ended, with the keys whose leases it holds.
enum Ended<'h, 'k> {
    /// The code is spent, and its account is known.
    Granted(&'h [LoginCodeKey]),
    /// WeChat refuses the code. Another code of the same page may be valid.
    Refused {
        code: &'h &'k LoginCodeKey,
        pages: &'h [&'k LoginCodeKey],
    },
    /// The exchange may succeed later.
    Released(&'h [&'k LoginCodeKey]),
}

impl PlatformState {
    /// Exchanges the code with which a browser has returned. `pre_auth_hash` is the
    /// [`pre_auth_code_hash`] of the page that the browser came from.
    ///
    /// # Errors
    /// The errors of the exchange. A code that WeChat refuses is [`ErrorKind::BadRequest`].
    pub(crate) async fn authorize_returned(
        self: &Arc<Self>,
        code: &str,
        pre_auth_hash: Option<&str>,
    ) -> Result<AppId, Error> {
        let code = AuthorizationCode {
            code: Zeroizing::new(code.to_owned()),
            pre_auth_hash: pre_auth_hash.map(str::to_owned),
            account: None,
            created: None,
        };
        self.run_exchange(code).await
    }

    /// Exchanges a code in a separate task, so that the exchange ends if the caller does not wait.
    pub(super) async fn run_exchange(
        self: &Arc<Self>,
        code: AuthorizationCode,
    ) -> Result<AppId, Error> {
        self.check_kept_here("authorize accounts")?;
        let state = Arc::clone(self);
        let is_return = code.created.is_none();
        let exchange = self.tasks.spawn(async move {
            let outcome = state.exchange_once(&code).await;
            // A code that is spent without its grant: the list may have the refresh token. The task of an
            // event does so itself.
            let may_be_spent = outcome.as_ref().is_err_and(|error| {
                is_code_refused(error) || error.kind() == ErrorKind::WechatUnavailable
            });
            if is_return && may_be_spent {
                Arc::clone(&state).spawn_list_instead();
            }
            outcome
        });
        exchange.await.unwrap_or_else(|_| {
            let message = "the process ended before an authorization code was exchanged";
            Err(Error::new(ErrorKind::WechatUnavailable, message))
        })
    }

    /// Reads the list of accounts in a task, unless many tasks do so already.
    fn spawn_list_instead(self: Arc<Self>) {
        let Ok(permit) = Arc::clone(&self.checks).try_acquire_owned() else {
            return;
        };
        let state = Arc::clone(&self);
        self.tasks.spawn(async move {
            state.list_instead().await;
            drop(permit);
        });
    }

    /// Exchanges a code, or returns the outcome of an exchange by another process.
    async fn exchange_once(&self, code: &AuthorizationCode) -> Result<AppId, Error> {
        let component = self.component.app_id();
        let key = |hash: String| LoginCodeKey {
            app: component.clone(),
            hash: format!("authorization:{hash}").into(),
        };
        // The page's key comes first in all processes, so that two exchanges never wait for each other.
        let keys: Vec<_> = code
            .pre_auth_hash
            .iter()
            .map(|hash| key(format!("page:{hash}")))
            .chain([key(pre_auth_code_hash(&code.code))])
            .collect();
        let owner = LeaseOwner::unique();
        let give_up = Instant::now() + EXCHANGE_TIMEOUT;
        let mut held = Vec::new();
        let acquired = self
            .acquire_all(code, &keys, &owner, give_up, &mut held)
            .await;
        let (ended, result) = match acquired {
            Ok(Some(finished)) => match finished.result() {
                Ok(account) => (Ended::Released(&held), Ok(account)),
                Err(error) => (Ended::Released(&held), Err(error)),
            },
            Ok(None) => match (
                self.exchange_if_allowed(code, &held, &owner).await,
                held.split_last(),
            ) {
                // Also the outcome of the page, whose earlier code was another one.
                (Ok(account), _) => (Ended::Granted(&keys), Ok(account)),
                (Err(error), Some((code, pages))) if is_code_refused(&error) => {
                    (Ended::Refused { code, pages }, Err(error))
                }
                (Err(error), _) => (Ended::Released(&held), Err(error)),
            },
            Err(error) => (Ended::Released(&held), Err(error)),
        };
        let outcome = ExchangeOutcome::of(code, result.as_ref().ok());
        self.end_exchange(&ended, &owner, &outcome).await;
        result
    }

    /// Acquires the leases of all keys. Returns the outcome if one of them has ended.
    async fn acquire_all<'k>(
        &self,
        code: &AuthorizationCode,
        keys: &'k [LoginCodeKey],
        owner: &LeaseOwner,
        give_up: Instant,
        held: &mut Vec<&'k LoginCodeKey>,
    ) -> Result<Option<ExchangeOutcome>, Error> {
        for key in keys {
            loop {
                match self.store.acquire_code(key, owner, LEASE).await? {
                    CodeLeaseResult::Acquired | CodeLeaseResult::Resumed(_) => {
                        held.push(key);
                        break;
                    }
                    CodeLeaseResult::Finished(text) => {
                        let mut outcome = ExchangeOutcome::parse(&text);
                        if outcome.joins(code) {
                            outcome.add(code);
                            self.finish(key, None, &outcome).await;
                            return Ok(Some(outcome));
                        }
                        // The page has brought another authorization before.
                        break;
                    }
                    CodeLeaseResult::Busy if Instant::now() < give_up => {
                        tokio::time::sleep(POLL_INTERVAL).await;
                    }
                    CodeLeaseResult::Busy => {
                        let message = "another process did not end its exchange of a code in time";
                        return Err(Error::new(ErrorKind::WechatUnavailable, message));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Keeps the outcome of an exchange for its copies. An exchange that may succeed later is released.
    async fn end_exchange(
        &self,
        ended: &Ended<'_, '_>,
        owner: &LeaseOwner,
        outcome: &ExchangeOutcome,
    ) {
        let released: &[&LoginCodeKey] = match ended {
            Ended::Granted(keys) => {
                for key in *keys {
                    self.finish(key, None, outcome).await;
                }
                &[]
            }
            Ended::Refused { code, pages } => {
                self.finish(code, Some(owner), outcome).await;
                pages
            }
            Ended::Released(held) => held,
        };
        for key in released {
            // A lease that cannot be released ends by itself.
            let _ = self.store.release_code(key, owner).await;
        }
    }

    async fn finish(
        &self,
        key: &LoginCodeKey,
        owner: Option<&LeaseOwner>,
        outcome: &ExchangeOutcome,
    ) {
        let text = outcome.to_text();
        let finish = self.store.finish_code(key, owner, &text, OUTCOME_TTL);
        if let Err(error) = finish.await {
            tracing::debug!(target: "tower_wechat::platform", %error, "the outcome of an authorization code could not be stored");
        }
    }

    /// Exchanges a code, unless its page has brought too many. Any visitor can return from a page with
    /// invented codes, and each of them costs a call.
    async fn exchange_if_allowed(
        &self,
        code: &AuthorizationCode,
        held: &[&LoginCodeKey],
        owner: &LeaseOwner,
    ) -> Result<AppId, Error> {
        if let (Some(page), None) = (&code.pre_auth_hash, code.created) {
            let quota = Quota {
                app: self.component.app_id().clone(),
                purpose: format!("authorization:{page}").into(),
                limit: MAX_CODES_OF_PAGE,
                window: OUTCOME_TTL,
            };
            if !self.store.try_consume(&quota).await? {
                return Err(refused(None));
            }
        }
        self.exchange(code, held, owner).await
    }

    /// Exchanges a code at WeChat, and stores the grant.
    async fn exchange(
        &self,
        code: &AuthorizationCode,
        held: &[&LoginCodeKey],
        owner: &LeaseOwner,
    ) -> Result<AppId, Error> {
        let component = &self.component;
        let grant = self
            .with_component_token(async |token: crate::accounts::AccountToken| {
                component.query_auth(token.access_token(), &code.code).await
            })
            .await
            .map_err(|error| match is_code_refused(&error) {
                true => refused(error.errcode()),
                false => error,
            })?;
        let now = self.clock.now();
        let account = grant.app_id.clone();
        if code.account.as_ref().is_some_and(|named| *named != account) {
            tracing::warn!(
                target: "tower_wechat::platform",
                app = %account, named = ?code.account,
                "WeChat granted another account than its event had named"
            );
        }
        // The ids of the permission sets (权限集), without which WeChat rejects calls with 61007.
        let permissions = grant.permissions;
        let mut grant = Grant {
            account: account.clone(),
            refresh_token: grant.refresh_token,
            access_token: grant.access_token.map(|token| (token, grant.expires_in)),
            since: code.created.unwrap_or(now),
        };
        let give_up = Instant::now() + STORE_TIMEOUT;
        let mut backoff = Backoff::new(POLL_INTERVAL, MAX_STORE_INTERVAL);
        let is_stored = loop {
            let stored = async {
                if code.created.is_none() {
                    grant.since = self.authorized_now(&account, now).await?;
                }
                self.authorizations.store_grant(&grant, now).await
            };
            match stored.await {
                Ok(is_stored) => break is_stored,
                Err(error) if Instant::now() >= give_up => return Err(error),
                // The code is spent: this process has the only copy of the refresh token.
                Err(_) => backoff.wait().await,
            }
            for key in held {
                // Extends the lease.
                let _ = self.store.acquire_code(key, owner, LEASE).await;
            }
        };
        if is_stored {
            self.forget_refused(&account);
            tracing::info!(target: "tower_wechat::platform", app = %account, ?permissions, "an account has authorized the platform");
        } else {
            tracing::debug!(target: "tower_wechat::platform", app = %account, "an authorization was ignored; a newer one is stored");
        }
        Ok(account)
    }

    /// Returns the time of an authorization whose code WeChat has just exchanged, without an event that
    /// names its time. It is not before any change that is known, whatever our clock says.
    async fn authorized_now(&self, account: &AppId, now: Timestamp) -> Result<Timestamp, Error> {
        // WeChat's times have whole seconds. An end in the same second must count.
        let second = Timestamp::from_millis(now.as_millis() / 1_000 * 1_000);
        Ok(second.max(self.authorizations.last_change(account).await?))
    }
}
