//! [`Platform`]: a third-party platform, as applications use it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::state::PlatformState;
use crate::accounts::{AccountToken, AccountTokens, AccountTokensBuilder};
use crate::credential::AppId;
use crate::error::{Error, ErrorKind, InvalidToken};
use crate::store::{AuthorizationState, CredentialKind};
use crate::wechat::WechatClient;

/// A third-party platform (第三方平台), and the accounts (公众号) that their owners have authorized to it.
///
/// WeChat pushes a verify ticket every ten minutes. For the ticket, the platform receives a component
/// token. With the component token and the refresh token of an account, it receives the account's
/// token. Of all processes that share the store, one renews each token.
///
/// The tickets and refresh tokens cannot be fetched again at will, so **the store must keep its data
/// across a restart**. [`guide::platform`](crate::guide::platform) describes a whole set-up.
///
/// Clones share their state.
#[derive(Clone)]
pub struct Platform(pub(crate) Arc<PlatformState>);

impl Platform {
    /// Returns the platform's own AppID (`component_appid`).
    pub fn app_id(&self) -> &AppId {
        self.0.component.app_id()
    }

    /// Returns the AppIDs of all authorized accounts, in order. Reads them from the store.
    ///
    /// # Errors
    /// [`ErrorKind::StoreUnavailable`](crate::ErrorKind::StoreUnavailable).
    /// [`ErrorKind::PlatformStarting`]: the list of accounts was
    /// never read from WeChat, and no account is known.
    pub async fn app_ids(&self) -> Result<Vec<AppId>, Error> {
        self.0.start_upkeep();
        self.0.app_ids().await
    }

    /// Returns a client that acts on behalf of an account. It has no AppSecret: it uses the component
    /// token.
    pub fn client(&self, account: &AppId) -> WechatClient {
        self.0.start_upkeep();
        self.0.client(account)
    }

    /// Returns the tokens of an account, for jobs. In a handler, use
    /// [`WechatAccount`](crate::layer::WechatAccount). Each call makes another cache: keep the value
    /// for as long as the job runs.
    pub fn account_tokens(&self, account: &AppId) -> AccountTokens {
        let (wechat, store) = (self.client(account), Arc::clone(&self.0.store));
        // The number of accounts is not bounded, so they have no gauges with the AppID as a label.
        AccountTokensBuilder::with_store(wechat.into(), store)
            .without_account_gauges()
            .clock(self.0.clock.clone())
            .build()
    }

    /// Runs `call` with the component token, for WeChat's other calls of a platform. If WeChat rejects
    /// the token, reports it and runs the call once more. There is never a third call.
    ///
    /// # Errors
    /// The errors of `call`, and those of the component token:
    /// [`ErrorKind::PlatformStarting`] without a verify ticket.
    pub async fn with_component_token<T, E, F, Fut>(&self, call: F) -> Result<T, E>
    where
        F: FnMut(AccountToken) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: InvalidToken + From<Error>,
    {
        self.0.start_upkeep();
        self.0.with_component_token(call).await
    }

    /// Exchanges an authorization code for the tokens of its account, and returns the account. Copies of
    /// a code share one exchange. The push service and the pages of the authorization do this by
    /// themselves: an application needs it for codes that come another way, such as the release test.
    ///
    /// Each code costs a call of WeChat. If the codes come from users, as the texts of the release test
    /// do, count them, and exchange few of them in a minute.
    ///
    /// # Errors
    /// [`ErrorKind::BadRequest`](crate::ErrorKind::BadRequest): WeChat refuses the code. Otherwise the
    /// errors of the component token, of WeChat and of the store.
    pub async fn authorize(&self, code: &str) -> Result<AppId, Error> {
        self.0.start_upkeep();
        self.0.authorize_returned(code, None).await
    }

    /// Reads the list of all accounts from WeChat, and recovers refresh tokens that the store has lost.
    /// The platform does so by itself once an hour. Nothing is read within ten seconds of another list.
    ///
    /// # Errors
    /// The errors of the component token, of WeChat and of the store.
    pub async fn reconcile(&self) -> Result<(), Error> {
        self.0.start_upkeep();
        self.0.list().await.map(drop)
    }

    /// Fetches the component token into the cache, and keeps it fresh there. An application may call
    /// this at its start.
    ///
    /// # Errors
    /// The errors of the component token.
    pub async fn prefetch(&self) -> Result<(), Error> {
        self.0.start_upkeep();
        self.0.component_token().await.map(drop)
    }

    /// Checks that the store answers, and that there is a component token.
    ///
    /// # Errors
    /// The error of the store or of the component token.
    pub async fn health(&self) -> Result<(), Error> {
        self.0.start_upkeep();
        let (store, app) = (&self.0.store, self.app_id());
        store
            .check_health(app, CredentialKind::ComponentToken)
            .await?;
        self.0.component_token().await.map(drop)
    }

    /// Waits until the exchanges and renewals of the platform have ended, for `timeout` at most. Returns
    /// `true` if all of them have ended. Call it before the process ends.
    pub async fn shutdown(&self, timeout: Duration) -> bool {
        self.0.shutdown(timeout).await
    }
}

impl PlatformState {
    async fn app_ids(&self) -> Result<Vec<AppId>, Error> {
        if let Some(followed) = self.followed() {
            return followed.accounts().await;
        }
        let list = self.authorizations.all().await?;
        let is_listed = list.listed_at.is_some();
        let authorized: Vec<_> = list
            .entries
            .into_iter()
            .filter(|(_, entry)| entry.state == AuthorizationState::Authorized)
            .map(|(account, _)| account)
            .collect();
        match authorized.is_empty() && !is_listed {
            true => {
                self.list_wanted.notify_one();
                Err(self.not_listed_yet())
            }
            false => Ok(authorized),
        }
    }

    /// Returns the error while the list of all accounts was never read.
    pub(crate) fn not_listed_yet(&self) -> Error {
        let message = format!(
            "the platform {} has not read the list of its accounts yet: it needs a verify ticket, \
             which WeChat pushes every ten minutes",
            self.component.app_id()
        );
        Error::new(ErrorKind::PlatformStarting, message).with_retry_after(Duration::from_secs(10))
    }
}

impl fmt::Debug for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
