//! The state of a platform, which all its parts share.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::authorizations::{AccountStatus, Authorizations};
use super::changes::{ChangeQueue, Changes};
use super::component_source::ComponentSource;
use super::component_token::ComponentToken;
use super::followed::followed_status;
use super::running_list::RunningList;
use super::ticket::VerifyTickets;
use crate::accounts::{AccountToken, ReadOnlySource};
use crate::background_task::BackgroundTask;
use crate::clock::Clock;
use crate::credential::{AppId, RefreshToken};
use crate::error::{Error, ErrorKind, InvalidToken};
use crate::log_limiter::LogLimiter;
use crate::provider::{
    CredentialProvider, CredentialSource, ProviderConfig, RenewalTiming, StoreAccess,
};
use crate::store::{CredentialKind, ExternalPlatformReader, Store};
use crate::wechat::{PreAuthCode, WechatClient};

/// Time before the expiry of a component token at which it is renewed: ten minutes. WeChat's
/// documentation recommends a renewal after one hour and fifty minutes.
const RENEW_MARGIN: Duration = Duration::from_secs(10 * 60);

/// Maximum number of entries in the cache of the component token's engine, which has one.
const CACHE_CAPACITY: usize = 16;

/// Maximum number of exchanges of codes that wait or run at the same time in this process.
const MAX_EXCHANGES: usize = 512;

/// Maximum number of accounts that are checked at the same time in this process.
const MAX_CHECKS: usize = 32;

/// Time for which a refresh token counts as refused: ten minutes.
const REFUSED_FOR: Duration = Duration::from_secs(10 * 60);

/// Maximum number of accounts whose refused refresh token this process remembers.
const MAX_REFUSED: usize = 100_000;

/// The state of a platform.
pub(crate) struct PlatformState {
    /// This state, for tasks that must not keep it alive.
    pub(super) this: Weak<Self>,
    pub(crate) component: WechatClient,
    pub(crate) store: Arc<dyn Store>,
    pub(super) clock: Clock,
    /// The component token (`component_access_token`).
    pub(super) token: ComponentToken,
    pub(super) tickets: Arc<VerifyTickets>,
    pub(super) authorizations: Authorizations,
    pub(super) settings: PlatformSettings,
    /// Refresh tokens that WeChat has refused, by account. No further call is made with them.
    refused: Mutex<HashMap<AppId, (RefreshToken, Instant)>>,
    pub(super) running_list: RunningList,
    /// Wakes the task that reads the list of accounts.
    pub(super) list_wanted: Arc<Notify>,
    pub(super) changes: Changes,
    /// Permits for exchanges of codes that wait or run at the same time.
    pub(super) exchanges: Arc<Semaphore>,
    /// Permits for checks of accounts for which WeChat has refused a call.
    pub(super) checks: Arc<Semaphore>,
    pub(super) tasks: TaskTracker,
    pub(super) ending: CancellationToken,
    pub(super) upkeep: BackgroundTask,
    pub(crate) log_limiter: LogLimiter,
}

/// The settings of a platform.
#[derive(Debug, Clone)]
pub(crate) struct PlatformSettings {
    /// The keys with which pushes are verified and decrypted.
    pub(crate) push_keys: Option<super::PushKeys>,
    /// The base URL of the page on which the owner of an account authorizes the platform at a computer.
    pub(crate) mp_url: String,
    /// The platform of another system that this process only reads.
    pub(super) followed: Option<Arc<dyn ExternalPlatformReader>>,
}

impl PlatformState {
    pub(super) fn new(
        component: WechatClient,
        store: Arc<dyn Store>,
        clock: Clock,
        settings: PlatformSettings,
    ) -> Arc<Self> {
        let app = component.app_id().clone();
        let tickets = Arc::new(VerifyTickets::new(
            component.clone(),
            Arc::clone(&store),
            clock.clone(),
        ));
        let (access, source): (StoreAccess, Box<dyn CredentialSource>) = match &settings.followed {
            Some(followed) => {
                let reader = followed.component_token();
                let source = ReadOnlySource::component(&*reader, &app);
                (StoreAccess::ReadOnly(reader), Box::new(source))
            }
            None => {
                let source = ComponentSource::new(
                    component.clone(),
                    Arc::clone(&tickets),
                    Arc::clone(&store),
                    clock.clone(),
                    RENEW_MARGIN,
                );
                (StoreAccess::Full(Arc::clone(&store)), Box::new(source))
            }
        };
        let provider = CredentialProvider::new(
            app.clone(),
            CredentialKind::ComponentToken,
            ProviderConfig::new(RENEW_MARGIN, RenewalTiming::AtRenewalTime, CACHE_CAPACITY),
            clock.clone(),
            access,
            source,
        );
        Arc::new_cyclic(|this| Self {
            this: this.clone(),
            component,
            store: Arc::clone(&store),
            token: ComponentToken::new(provider, clock.clone(), settings.followed.is_some()),
            clock,
            tickets,
            authorizations: Authorizations::new(app, store),
            settings,
            refused: Mutex::default(),
            running_list: RunningList::default(),
            list_wanted: Arc::new(Notify::new()),
            changes: Changes::default(),
            exchanges: Arc::new(Semaphore::new(MAX_EXCHANGES)),
            checks: Arc::new(Semaphore::new(MAX_CHECKS)),
            tasks: TaskTracker::new(),
            ending: CancellationToken::new(),
            upkeep: BackgroundTask::default(),
            log_limiter: LogLimiter::default(),
        })
    }

    /// Returns the platform of the other system, if this process only reads one.
    pub(super) fn followed(&self) -> Option<&Arc<dyn ExternalPlatformReader>> {
        self.settings.followed.as_ref()
    }

    /// Fails if another system keeps the platform. `what` names what this process cannot do then.
    pub(super) fn check_kept_here(&self, what: &str) -> Result<(), Error> {
        match self.followed() {
            None => Ok(()),
            Some(_) => Err(Error::new(
                ErrorKind::Configuration,
                format!(
                    "this process only follows the platform {}, which another system keeps, and so \
                     it does not {what}: leave that to the other system",
                    self.component.app_id()
                ),
            )),
        }
    }

    /// Returns a usable component token, which WeChat has not rejected in this process.
    pub(super) async fn component_token(&self) -> Result<AccountToken, Error> {
        let entry = self.token.get().await?;
        Ok(AccountToken::new(entry, &self.clock))
    }

    /// Runs `call` with the component token. If WeChat rejects the token, reports it and runs the call
    /// once more.
    pub(crate) async fn with_component_token<T, E, F, Fut>(&self, mut call: F) -> Result<T, E>
    where
        F: FnMut(AccountToken) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: InvalidToken + From<Error>,
    {
        self.token.start_prefetcher();
        let mut call = |entry| call(AccountToken::new(entry, &self.clock));
        let entry = self.token.get().await?;
        let rejected = match call(entry.clone()).await {
            Err(error) if error.is_token_invalid() => error,
            outcome => return outcome,
        };
        match self.token.report_invalid(entry.secret()).await {
            Ok(next) => call(next).await,
            // This error helps the caller more than the rejection of the token.
            Err(error) if error.kind() == ErrorKind::StoreUnavailable => Err(error.into()),
            // A call was made: the caller has something to back off from.
            Err(_) => Err(rejected),
        }
    }

    /// Returns a code for one page on which the owner of an account authorizes the platform.
    pub(crate) async fn pre_auth_code(&self) -> Result<PreAuthCode, Error> {
        self.check_kept_here("authorize accounts")?;
        let component = &self.component;
        self.with_component_token(async |token: AccountToken| {
            component.pre_auth_code(token.access_token()).await
        })
        .await
    }

    /// Returns a client that acts on behalf of an account.
    pub(crate) fn client(self: &Arc<Self>, account: &AppId) -> WechatClient {
        self.component
            .on_behalf_of(account, Arc::<Self>::clone(self))
    }

    /// Returns the status of an account. If the list of all accounts was never read, has it read soon.
    pub(crate) async fn status(&self, account: &AppId) -> Result<AccountStatus, Error> {
        if let Some(followed) = self.followed() {
            return followed_status(followed, account).await;
        }
        let status = self.authorizations.status(account).await?;
        if status == AccountStatus::NotListedYet {
            self.list_wanted.notify_one();
        }
        Ok(status)
    }

    /// Returns a queue of the accounts whose authorization changes from now on.
    pub(crate) fn subscribe_changes(&self) -> Arc<ChangeQueue> {
        self.changes.subscribe()
    }

    /// Returns `true` if WeChat has refused this refresh token of the account within the last ten minutes.
    /// WeChat may be wrong, so a later list may bring the token back.
    pub(super) fn is_refused(&self, account: &AppId, refresh: &RefreshToken) -> bool {
        let refused = self.lock_refused();
        refused
            .get(account)
            .is_some_and(|(token, at)| token == refresh && at.elapsed() < REFUSED_FOR)
    }

    pub(super) fn note_refused(&self, account: &AppId, refresh: &RefreshToken) {
        let mut refused = self.lock_refused();
        // The bound costs one more call for each account.
        if refused.len() >= MAX_REFUSED {
            refused.clear();
        }
        refused.insert(account.clone(), (refresh.clone(), Instant::now()));
    }

    pub(super) fn forget_refused(&self, account: &AppId) {
        self.lock_refused().remove(account);
    }

    fn lock_refused(&self) -> MutexGuard<'_, HashMap<AppId, (RefreshToken, Instant)>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the tasks of the platform. Waits for exchanges and renewals that are under way, for
    /// `timeout` at most. Returns `true` if all of them have ended.
    pub(super) async fn shutdown(&self, timeout: Duration) -> bool {
        self.ending.cancel();
        self.upkeep.stop();
        self.tasks.close();
        let tasks = tokio::time::timeout(timeout, self.tasks.wait());
        let (tasks, token) = tokio::join!(tasks, self.token.shutdown(timeout));
        tasks.is_ok() && token
    }
}

impl fmt::Debug for PlatformState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Platform")
            .field("component", self.component.app_id())
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
