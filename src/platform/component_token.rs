//! The component token, without the one that WeChat rejects.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::accounts::OwnCredential;
use crate::clock::{Clock, Timestamp};
use crate::credential::AccessToken;
use crate::error::Error;
use crate::provider::{CacheEntry, CredentialProvider};

/// Time after which a rejected token may be tried again: one minute. By then, a process that renews the
/// token may replace a reported one.
const REJECTION_PERIOD: Duration = Duration::from_secs(60);

/// The component token of a platform.
///
/// # States
/// - **Accepted**: callers receive the token of the store.
/// - **Rejected**: WeChat has rejected the token, and the report of it could not replace it. Callers
///   receive the error of a further report, which calls WeChat only if the limit of reports allows it.
///   The state ends when the store has another token. Where another system renews the token, it also
///   ends after a minute.
pub(super) struct ComponentToken {
    credential: OwnCredential,
    clock: Clock,
    /// `true` if another system renews the token, so that a report cannot replace it.
    is_followed: bool,
    rejected: Mutex<Option<Rejection>>,
}

struct Rejection {
    token: AccessToken,
    at: Timestamp,
}

impl ComponentToken {
    pub(super) fn new(provider: CredentialProvider, clock: Clock, is_followed: bool) -> Self {
        Self {
            credential: OwnCredential::new(provider),
            clock,
            is_followed,
            rejected: Mutex::default(),
        }
    }

    pub(super) fn provider(&self) -> &CredentialProvider {
        self.credential.provider()
    }

    pub(super) fn start_prefetcher(&self) {
        self.credential.start_prefetcher();
    }

    /// Returns a usable token, which WeChat has not rejected in this process.
    pub(super) async fn get(&self) -> Result<CacheEntry, Error> {
        let entry = self.credential.get().await?;
        match self.is_rejected(entry.secret()) {
            false => Ok(entry),
            true => self.report_invalid(entry.secret()).await,
        }
    }

    /// Reports that WeChat rejected `invalid`, and returns the next token. Without a next token, this
    /// process does not use `invalid` any more.
    pub(super) async fn report_invalid(&self, invalid: &AccessToken) -> Result<CacheEntry, Error> {
        let outcome = self.credential.report_invalid(invalid).await;
        let is_replaced = matches!(&outcome, Ok(next) if next.secret() != invalid);
        let mut rejected = self.lock();
        let is_known = rejected.as_ref().is_some_and(|it| it.token == *invalid);
        match (is_replaced, is_known) {
            (true, true) => *rejected = None,
            (false, false) => {
                *rejected = Some(Rejection {
                    token: invalid.clone(),
                    at: self.clock.now(),
                });
            }
            (true, false) | (false, true) => {}
        }
        outcome
    }

    fn is_rejected(&self, token: &AccessToken) -> bool {
        let mut rejected = self.lock();
        let now = self.clock.now();
        if self.is_followed
            && rejected
                .as_ref()
                .is_some_and(|it| it.at.saturating_add(REJECTION_PERIOD) <= now)
        {
            *rejected = None;
        }
        rejected.as_ref().is_some_and(|it| it.token == *token)
    }

    pub(super) async fn shutdown(&self, timeout: Duration) -> bool {
        self.credential.shutdown(timeout).await
    }

    fn lock(&self) -> MutexGuard<'_, Option<Rejection>> {
        self.rejected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
