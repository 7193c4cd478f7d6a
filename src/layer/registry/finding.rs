//! Searches in the registry of the application. One search runs for all requests that wait for the
//! same account.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::account::Account;
use super::made::MadeAccount;
use super::searches::{FoundAccount, MAX_SEARCHES, Search};
use super::source::AnyRegistry;
use super::state::AccountsState;
use crate::credential::AppId;
use crate::error::{Error, ErrorKind};
use crate::guarded_call::{error_chain, run_guarded};

/// Time after which a request may be repeated whose search has failed: one second.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Removes a search from the running ones when it ends, also if its task panics or is dropped.
struct RunningSearch {
    accounts: Arc<AccountsState>,
    app_id: AppId,
    id: u64,
}

impl RunningSearch {
    /// Ends the search. With its result, keeps an account that was found, unless the search was
    /// forgotten meanwhile.
    fn end(&self, found: Option<&Arc<MadeAccount>>) {
        // Dropped after the lock, because its description holds values of the application.
        let mut _replaced = None;
        let mut running = self.accounts.searches.lock();
        let is_current = running.get(&self.app_id).is_some_and(|it| it.id == self.id);
        if is_current {
            // The account is inserted under the lock, so that a concurrent removal comes before or
            // after both changes.
            if let Some(made) = found {
                _replaced = self.accounts.keep(made);
            }
            running.remove(&self.app_id);
        } else if let Some(made) = found {
            // Only the requests that wait for this search use the account.
            self.accounts.note_removed(&made.parts);
        }
    }
}

impl Drop for RunningSearch {
    fn drop(&mut self) {
        self.end(None);
    }
}

impl AccountsState {
    /// Waits for the search for an account that this process does not serve. Starts the search unless
    /// it is running.
    pub(super) fn search(
        self: &Arc<Self>,
        registry: &Arc<dyn AnyRegistry>,
        app_id: AppId,
    ) -> impl Future<Output = FoundAccount> + Send + 'static {
        let outcome = self.join_search(registry, app_id);
        async move {
            let mut outcome = outcome?;
            let ended = outcome.wait_for(Option::is_some).await;
            match ended.ok().and_then(|outcome| outcome.clone()) {
                Some(found) => found,
                None => Err(unavailable("the search for an account was cancelled")),
            }
        }
    }

    fn join_search(
        self: &Arc<Self>,
        registry: &Arc<dyn AnyRegistry>,
        app_id: AppId,
    ) -> Result<watch::Receiver<Option<FoundAccount>>, Error> {
        // The list is locked before the searches, as in `list`. No search begins for an account that
        // was listed since the request looked, because its result could replace that account.
        let listed = self.read_listed();
        if listed.get(app_id.as_str()).is_some() {
            drop(listed);
            let parts = self.make_listed(app_id.as_str())?;
            return Ok(watch::channel(Some(Ok(parts))).1);
        }
        let mut running = self.searches.lock();
        if let Some(search) = running.get(&app_id) {
            return Ok(search.outcome.clone());
        }
        // A search that ended a moment ago may have found the account.
        if let Some(parts) = self.made(app_id.as_str()) {
            return Ok(watch::channel(Some(Ok(Some(parts)))).1);
        }
        let Ok(runtime) = Handle::try_current() else {
            return Err(unavailable(
                "the registry of accounts was asked outside of a tokio runtime",
            ));
        };
        let Ok(permit) = Arc::clone(&self.searches.permits).try_acquire_owned() else {
            let message =
                format!("{MAX_SEARCHES} searches in the registry of accounts are running");
            return Err(unavailable(message));
        };
        let (sender, outcome) = watch::channel(None);
        let id = fastrand::u64(..);
        let search = Search {
            id,
            outcome: outcome.clone(),
        };
        running.insert(app_id.clone(), search);
        drop(running);
        drop(listed);
        let guard = RunningSearch {
            accounts: Arc::clone(self),
            app_id,
            id,
        };
        let registry = Arc::clone(registry);
        // The task ends after the timeout of the search. Callers that stop waiting do not end it,
        // because others may wait for it.
        runtime.spawn(async move {
            let found = guard.accounts.find_and_make(&registry, &guard.app_id).await;
            guard.end(found.as_ref().ok().and_then(Option::as_ref));
            let parts = |made: Arc<MadeAccount>| Arc::clone(&made.parts);
            sender.send_replace(Some(found.map(|found| found.map(parts))));
            drop(permit);
        });
        Ok(outcome)
    }

    async fn find_and_make(
        &self,
        registry: &Arc<dyn AnyRegistry>,
        app_id: &AppId,
    ) -> Result<Option<Arc<MadeAccount>>, Error> {
        match self.ask_registry(registry, app_id).await? {
            Some(description) => self.make(description, true).map(Some),
            None => Ok(None),
        }
    }

    /// Asks the registry for an account, and logs a failure.
    ///
    /// # Errors
    /// - [`ErrorKind::Configuration`]: the registry could not describe the account, for example because
    ///   [`Login::new`](crate::Login::new) failed.
    /// - [`ErrorKind::AccountsUnavailable`]: the registry failed or did not answer in time.
    pub(super) async fn ask_registry(
        &self,
        registry: &Arc<dyn AnyRegistry>,
        app_id: &AppId,
    ) -> Result<Option<Account>, Error> {
        let find = Arc::clone(registry).find_account(app_id.clone());
        let reason = match run_guarded("registry", self.settings.find_timeout, find).await {
            Ok(Ok(Some(account))) if account.app_id() != app_id => format!(
                "the registry returned the account {} instead",
                account.app_id().as_str()
            ),
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(error)) => match error.downcast_ref::<Error>() {
                // An error of this crate tells its own kind, such as a store that does not answer.
                Some(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::AccountsUnavailable
                            | ErrorKind::PlatformStarting
                            | ErrorKind::AccountNotAuthorized
                    ) =>
                {
                    return Err(error.clone());
                }
                Some(error) if error.kind() == ErrorKind::Configuration => {
                    return Err(self.wrong_description(app_id, &error.to_string()));
                }
                _ => error_chain(&*error),
            },
            Err(reason) => reason,
        };
        self.log_failure(app_id, &reason);
        let app = app_id.as_str();
        let message = format!("the registry of accounts has failed for {app}: {reason}");
        Err(unavailable(message))
    }

    /// Logs that the registry could not find out whether an account exists, at most once a minute.
    fn log_failure(&self, app_id: &AppId, reason: &str) {
        if let Some(more) = self.log_limiter.allow_line("registry") {
            tracing::error!(
                target: "tower_wechat::layer",
                app = app_id.as_str(),
                reason,
                more,
                "the registry of accounts failed; requests for an account that this process does not \
                 serve yet receive 503"
            );
        }
    }

    /// Logs that the description of an account is wrong, at most once a minute, and returns the error
    /// of its requests.
    pub(super) fn wrong_description(&self, app_id: &AppId, reason: &str) -> Error {
        let app = app_id.as_str();
        if let Some(more) = self.log_limiter.allow_line("description") {
            tracing::error!(
                target: "tower_wechat::layer",
                app,
                reason,
                more,
                "the description of an account is wrong; its requests receive 500, unless this \
                 process serves an earlier description"
            );
        }
        Error::configuration(format!(
            "the description of the account {app} is wrong: {reason}"
        ))
    }
}

/// Returns the error of a request whose account could not be found.
fn unavailable(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::AccountsUnavailable, message.into()).with_retry_after(RETRY_DELAY)
}
