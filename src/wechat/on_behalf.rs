//! Clients that work on behalf of an account which has authorized a third-party platform.
//!
//! Such a client has no AppSecret. It takes the platform's component token from a
//! [`PlatformAuthority`] and calls `sns/oauth2/component/*` in place of `sns/oauth2/*`.

use std::sync::Arc;

use super::client::WechatClient;
use super::credentials::Credentials;
use super::errcode::{Endpoint, NOT_AUTHORIZED};
use super::platform_authority::PlatformAuthority;
use super::redaction::Redactor;
use super::token_response::UserTokenResponse;
use super::transport::ApiRequest;
use crate::credential::{AccessToken, AppId};
use crate::error::{Error, InvalidToken};

impl WechatClient {
    /// Returns a client that works on behalf of `account`, with the hosts, timeouts, proxy, clock
    /// and connections of this client, which is that of the platform.
    pub(crate) fn on_behalf_of(
        &self,
        account: &AppId,
        authority: Arc<dyn PlatformAuthority>,
    ) -> WechatClient {
        let component = Some(authority.component().clone());
        let transport = self.inner.transport.for_account(account.clone(), component);
        let open_url = Arc::clone(&self.inner.open_url);
        Self::from_parts(transport, Credentials::Platform(authority), open_url)
    }

    /// Returns the platform in whose name this client works, or `None` if the client has the
    /// account's AppSecret.
    pub(crate) fn platform_authority(&self) -> Option<&Arc<dyn PlatformAuthority>> {
        match &self.inner.credentials {
            Credentials::Secret(_) => None,
            Credentials::Platform(authority) => Some(authority),
        }
    }

    /// Exchanges a login code through `sns/oauth2/component/access_token`. The caller has checked
    /// the code.
    pub(super) async fn exchange_code_on_behalf(
        &self,
        authority: &Arc<dyn PlatformAuthority>,
        code: &str,
    ) -> Result<UserTokenResponse, Error> {
        let call = |token: AccessToken| async move {
            let query = vec![
                ("appid", self.app_id().as_str()),
                ("code", code),
                ("grant_type", "authorization_code"),
                ("component_appid", authority.component().as_str()),
                ("component_access_token", token.expose()),
            ];
            let call = ApiRequest {
                endpoint: Endpoint::ComponentCodeExchange,
                path: "sns/oauth2/component/access_token",
                query,
                body: None,
                account: None,
                // WeChat accepts a code once.
                retryable: false,
                redactor: Redactor::new([code, token.expose()]),
            };
            self.send(&call, UserTokenResponse::from_code_exchange)
                .await
        };
        with_component_token(authority, call).await
    }

    /// Refreshes a user's tokens through `sns/oauth2/component/refresh_token`. The caller has
    /// checked the refresh token.
    pub(super) async fn refresh_user_token_on_behalf(
        &self,
        authority: &Arc<dyn PlatformAuthority>,
        refresh: &str,
    ) -> Result<UserTokenResponse, Error> {
        let call = |token: AccessToken| async move {
            let query = vec![
                ("appid", self.app_id().as_str()),
                ("grant_type", "refresh_token"),
                ("component_appid", authority.component().as_str()),
                ("component_access_token", token.expose()),
                ("refresh_token", refresh),
            ];
            let call = ApiRequest {
                endpoint: Endpoint::ComponentUserRefresh,
                path: "sns/oauth2/component/refresh_token",
                query,
                body: None,
                account: None,
                retryable: true,
                redactor: Redactor::new([refresh, token.expose()]),
            };
            self.send(&call, UserTokenResponse::from_refresh).await
        };
        with_component_token(authority, call).await
    }

    /// Notifies the platform if WeChat answered a call of this client with 61003.
    pub(super) fn note_if_not_authorized(&self, error: &Error) {
        if error.errcode() == Some(NOT_AUTHORIZED)
            && let Some(authority) = self.platform_authority()
        {
            authority.note_not_authorized(self.app_id());
        }
    }
}

/// Makes a call with a component token. If WeChat rejects the token, the token is reported and the
/// call is made once more. There is never a third call.
///
/// A rejected component token spends neither a code nor a refresh token, because WeChat checks the
/// component token first.
async fn with_component_token<T, F>(
    authority: &Arc<dyn PlatformAuthority>,
    call: impl Fn(AccessToken) -> F,
) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let token = authority
        .component_token()
        .await
        .map_err(|error| error.as_missing_prerequisite())?;
    let rejected = match call(token.clone()).await {
        Err(error) if error.is_token_invalid() => error,
        result => return result,
    };
    match authority.report_component_token(&token).await {
        Ok(next) if next != token => call(next).await,
        // A call was made. The caller backs off from its rejection, which an error of the report as a
        // missing prerequisite would prevent.
        Ok(_) | Err(_) => Err(rejected),
    }
}
