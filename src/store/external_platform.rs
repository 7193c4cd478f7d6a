//! A third-party platform that another system keeps, and that this process only reads.

use std::fmt;
use std::sync::Arc;

use super::traits::{BoxFuture, CredentialReader};
use crate::credential::AppId;
use crate::error::Error;

/// Reads a third-party platform that another system keeps. Fetches, renews and writes nothing.
pub(crate) trait ExternalPlatformReader: fmt::Debug + Send + Sync + 'static {
    /// Returns the read-only store of the component access token.
    fn component_token(&self) -> Arc<dyn CredentialReader>;

    /// Returns the read-only store of an account's access token.
    fn account_token(&self, account: &AppId) -> Arc<dyn CredentialReader>;

    /// Returns `true` if the other system has a refresh token of the account.
    fn has_account<'a>(&'a self, account: &'a AppId) -> BoxFuture<'a, Result<bool, Error>>;

    /// Returns the AppIDs of all accounts with a refresh token, in order. Reads them in bounded
    /// steps.
    fn accounts(&self) -> BoxFuture<'_, Result<Vec<AppId>, Error>>;
}
