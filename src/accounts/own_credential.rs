//! A credential of which an account has exactly one: its token, or its ticket.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::credential::{AccessToken, Lifetime, Record, Token};
use crate::error::Error;
use crate::provider::{CacheEntry, CredentialProvider, Prefetcher};
#[cfg(feature = "platform")]
use crate::{
    credential::AppId,
    store::{CredentialKey, CredentialKind, CredentialSlot},
};

/// Id of an account's token or ticket in its provider: the empty text, because the provider has no
/// other credential.
pub(super) const ACCOUNT_ID: &str = "";

/// The provider and the prefetch task of a credential of which an account has exactly one.
pub(crate) struct OwnCredential {
    provider: CredentialProvider,
    prefetcher: Prefetcher,
}

impl OwnCredential {
    pub(crate) fn new(provider: CredentialProvider) -> Self {
        Self {
            provider,
            prefetcher: Prefetcher::default(),
        }
    }

    pub(crate) fn provider(&self) -> &CredentialProvider {
        &self.provider
    }

    /// Starts the prefetch task, unless it runs already or was stopped.
    pub(crate) fn start_prefetcher(&self) {
        self.prefetcher.start(&self.provider, ACCOUNT_ID);
    }

    /// Returns a usable credential: from memory, else from the store, renewed if necessary. Starts
    /// the prefetch task, unless a fresh credential is in memory.
    pub(crate) async fn get(&self) -> Result<CacheEntry, Error> {
        if let Some(entry) = self.cached() {
            return Ok(entry);
        }
        self.start_prefetcher();
        self.provider.get(ACCOUNT_ID).await
    }

    /// Returns the credential if it is in memory, fresh, and confirmed by the store.
    #[inline]
    pub(crate) fn cached(&self) -> Option<CacheEntry> {
        self.provider.cached(ACCOUNT_ID)
    }

    /// Reports that WeChat rejected `invalid`, and returns the current credential.
    pub(crate) async fn report_invalid(&self, invalid: &AccessToken) -> Result<CacheEntry, Error> {
        self.provider.report_invalid(ACCOUNT_ID, invalid).await
    }

    /// Stops the prefetch task and waits up to `timeout` for a renewal that is under way. Returns
    /// `true` if the renewal has ended.
    pub(crate) async fn shutdown(&self, timeout: Duration) -> bool {
        self.prefetcher.stop();
        self.provider.shutdown(timeout).await
    }
}

/// Time before the expiry of an authorizer token at which it is renewed: 15 minutes. All processes use
/// this time, because an authorization stores a token without its engine.
#[cfg(feature = "platform")]
pub(crate) const AUTHORIZER_RENEW_MARGIN: Duration = Duration::from_secs(15 * 60);

/// Returns the slot of an account's token or ticket in a store.
#[cfg(feature = "platform")]
pub(crate) fn account_slot(app: &AppId, kind: CredentialKind, margin: Duration) -> CredentialSlot {
    let key = CredentialKey {
        app: app.clone(),
        kind,
        id: ACCOUNT_ID.into(),
    };
    CredentialSlot { key, margin }
}

/// Returns the stored form of an account's token or ticket.
pub(crate) fn account_record(secret: AccessToken, lifetime: Lifetime) -> Record {
    Record {
        token: Some(Token { secret, lifetime }),
        ..Record::default()
    }
}

/// Returns `true` if the record has no token, or its token is due for renewal.
pub(crate) fn is_due(record: &Record, now: Timestamp) -> bool {
    let is_fresh = |token: &Token| now < token.lifetime.renew_at();
    !record.token.as_ref().is_some_and(is_fresh)
}
