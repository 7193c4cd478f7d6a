//! A credential that an account has one of: its token, or its ticket.

use std::time::Duration;

use crate::credential::AccessToken;
use crate::error::Error;
use crate::provider::{CacheEntry, CredentialProvider, Prefetcher};

/// The id of a credential that an account has one of.
pub(super) const ACCOUNT_ID: &str = "";

/// The provider of a credential that an account has one of, and the task that renews it ahead of
/// time.
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

    /// Starts the task that renews the credential ahead of time, unless the task runs already.
    pub(crate) fn start_prefetcher(&self) {
        self.prefetcher.start(&self.provider, ACCOUNT_ID);
    }

    /// Returns a usable credential: from memory, else from the store, renewed if necessary.
    pub(crate) async fn get(&self) -> Result<CacheEntry, Error> {
        if let Some(entry) = self.cached() {
            return Ok(entry);
        }
        self.start_prefetcher();
        self.provider.get(ACCOUNT_ID).await
    }

    /// Returns the credential if this process holds one that is fresh and confirmed by the store.
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
