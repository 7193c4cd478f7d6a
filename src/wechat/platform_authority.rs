//! The third-party platform (第三方平台), as a client sees it that works on behalf of an account.

use std::fmt;
use std::sync::Arc;

use super::token_response::AccountTokenResponse;
use crate::credential::{AccessToken, AppId};
use crate::error::Error;
use crate::store::{BoxFuture, CredentialReader};

/// The platform (第三方平台) in whose name a client works on behalf of an account.
pub(crate) trait PlatformAuthority: fmt::Debug + Send + Sync + 'static {
    /// Returns the platform's own AppID (`component_appid`).
    fn component(&self) -> &AppId;

    /// Returns a usable component token, which WeChat has not rejected in this process.
    ///
    /// # Errors
    /// No component token is available. Callers treat the error as that of a missing prerequisite:
    /// they made no call to WeChat.
    fn component_token<'a>(&'a self) -> BoxFuture<'a, Result<AccessToken, Error>>;

    /// Reports that WeChat rejected this component token, and returns the next one.
    ///
    /// # Errors
    /// The errors of [`component_token`](Self::component_token). There is no next token, and
    /// `component_token` does not return `invalid` any more.
    fn report_component_token<'a>(
        &'a self,
        invalid: &'a AccessToken,
    ) -> BoxFuture<'a, Result<AccessToken, Error>>;

    /// Notes that WeChat answered a call for this account with 61003: the account has not
    /// authorized the platform, or not any more. Returns at once.
    fn note_not_authorized(&self, account: &AppId);

    /// Requests a new access token of the account (`api_authorizer_token`), in place of the token
    /// `before`. If another process has stored another token meanwhile, returns that one.
    ///
    /// # Errors
    /// An error of a missing component token is marked by [`Error::as_missing_prerequisite`].
    fn renew_authorizer_token<'a>(
        &'a self,
        account: &'a AppId,
        before: Option<&'a AccessToken>,
    ) -> BoxFuture<'a, Result<AccountTokenResponse, Error>>;

    /// Returns the read-only store of the account's access token, if another system renews it.
    fn external_account_token(&self, account: &AppId) -> Option<Arc<dyn CredentialReader>> {
        let _ = account;
        None
    }
}
