//! The parameters of a QR code inside a page of the application.
//!
//! A page shows the QR code of a website's login with WeChat's script `wxLogin.js`, which puts
//! WeChat's page into a frame. The script takes the parameters of the login instead of a URL.

use http::HeaderMap;
use serde::Serialize;

use super::failure::LoginFailure;
use super::handler::{AppKind, LoginHandler};
use super::query::encode_query_value;
use super::reply::{LoginReply, ReplyContent};
use super::return_to::ReturnTo;
use crate::credential::SCOPE_LOGIN;
use crate::metrics;

/// The parameters of `new WxLogin({...})` that belong to the login.
#[derive(Serialize)]
struct QrCodeParameters<'a> {
    appid: &'a str,
    scope: &'a str,
    /// The callback, percent-encoded: the script puts it into a query as it is.
    redirect_uri: String,
    state: String,
}

impl LoginHandler {
    /// Begins a login whose QR code a page of the application shows, and returns its parameters as
    /// JSON, with the browser's changed cookies. Returns a failure if this handler is not that of a
    /// website.
    pub(super) fn begin_qr_code(&self, return_to: ReturnTo, headers: &HeaderMap) -> LoginReply {
        let reply = match &self.0.app_kind {
            AppKind::Website { .. } => self.qr_code_parameters(return_to, headers),
            AppKind::OfficialAccount { .. } => Err(self.reject_qr_code(&return_to)),
        };
        self.marked_as_varying(reply.unwrap_or_else(|failure| failure))
    }

    fn qr_code_parameters(
        &self,
        return_to: ReturnTo,
        headers: &HeaderMap,
    ) -> Result<LoginReply, LoginReply> {
        let inner = &*self.0;
        let (attempt, browser) = self.open_attempt(inner.settings.scope, return_to, headers)?;
        let parameters = QrCodeParameters {
            appid: inner.users.app_id().as_str(),
            scope: SCOPE_LOGIN,
            redirect_uri: encode_query_value(&inner.redirect_uri).to_string(),
            state: inner.state_signer.encode(attempt.state),
        };
        let Ok(json) = serde_json::to_string(&parameters) else {
            return Err(self.reply_with_failure(LoginFailure::Misconfigured, None));
        };
        metrics::count_login_start();
        Ok(LoginReply {
            set_cookies: self.changed_cookie_headers(&browser),
            ..LoginReply::new(ReplyContent::QrCodeParameters(json))
        })
    }

    /// Returns the failure of a page that asks for a QR code although the login of its browser
    /// begins with another page of WeChat. Its button leads to that login.
    fn reject_qr_code(&self, return_to: &ReturnTo) -> LoginReply {
        if self.website().is_none()
            && let Some(more) = self.0.log_limiter.allow_line("no_qr_code")
        {
            tracing::warn!(
                target: "tower_wechat::login",
                app = %self.0.users.app_id(),
                more,
                "a page asked for the QR code of a login without a website; set LoginBuilder::website"
            );
        }
        let login_url = self.0.settings.login_url(Some(return_to), None);
        self.reply_with_failure(LoginFailure::NoQrCode, Some(login_url))
    }
}
