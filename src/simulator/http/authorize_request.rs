//! The parameters of WeChat's authorize pages, their checks, and the URL of the callback.

use axum::http::Uri;
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{
    pages::{AuthorizeError, AuthorizePage},
    params::Params,
};
use crate::simulator::{
    app_index::AppIndex, apps::AppKind, state::SimulatedWechat, users::SimulatedUser,
};

/// Maximum length of the parameter `state`: 128 bytes, as WeChat's guide to web authorization says.
const MAX_STATE_BYTES: usize = 128;

/// The characters that are escaped in a `Location` header. `%` is not escaped, so that existing
/// escapes remain as they are.
const URL_ESCAPES: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'<')
    .add(b'>')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// The way in which the browser comes back to the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Return {
    /// A redirect by HTTP.
    Redirect,
    /// A script that navigates the top window: `login_type=jssdk`, which `wxLogin.js` sends.
    TopWindow,
    /// A script that navigates the window or frame of the page itself: `login_type=jssdk` with
    /// `self_redirect=true`.
    OwnFrame,
}

impl Return {
    fn parse(params: &Params, page: AuthorizePage) -> Self {
        match (page, params.non_empty("login_type")) {
            (AuthorizePage::QrCode, Some("jssdk"))
                if params.non_empty("self_redirect") == Some("true") =>
            {
                Self::OwnFrame
            }
            (AuthorizePage::QrCode, Some("jssdk")) => Self::TopWindow,
            _ => Self::Redirect,
        }
    }
}

/// The parameters of a link to an authorize page, after all checks.
#[derive(Debug)]
pub(super) struct AuthorizeRequest {
    app: AppIndex,
    /// The third-party platform that calls on behalf of the account.
    component: Option<AppIndex>,
    redirect_uri: String,
    scope: String,
    state: Option<String>,
    force_popup: bool,
    force_snapshot: bool,
    pub(super) back: Return,
}

impl AuthorizeRequest {
    pub(super) fn parse(
        params: &Params,
        page: AuthorizePage,
        wechat: &SimulatedWechat,
    ) -> Result<Self, AuthorizeError> {
        // Only the page inside WeChat was seen to check the order. WeChat's own `wxLogin.js` sends
        // another order to the page with the QR code.
        if page == AuthorizePage::InWechat && !has_required_order(params.names()) {
            return Err(AuthorizeError::WrongParameterOrder);
        }
        let app_id = params
            .non_empty("appid")
            .ok_or(AuthorizeError::MissingAppId)?;
        let app = wechat.apps.find(app_id).ok_or(AuthorizeError::WrongAppId)?;
        let redirect_uri = params
            .non_empty("redirect_uri")
            .ok_or(AuthorizeError::MissingRedirectUri)?;
        let component = component_of_link(params, page, app, wechat)?;
        // On behalf of an account, the host is that of the third-party platform (公众号开发域名).
        check_redirect_uri(redirect_uri, component.unwrap_or(app), wechat)?;
        let back = Return::parse(params, page);
        match params.non_empty("response_type") {
            Some("code") => {}
            // `wxLogin.js` sends no `response_type`.
            None if back != Return::Redirect => {}
            _ => return Err(AuthorizeError::WrongResponseType),
        }
        let scope = params
            .non_empty("scope")
            .ok_or(AuthorizeError::MissingScope)?;
        match (page, wechat.apps[app].kind, scope) {
            (AuthorizePage::InWechat, AppKind::Account, "snsapi_base" | "snsapi_userinfo") => {}
            (AuthorizePage::QrCode, AppKind::Website, "snsapi_login") => {}
            _ => return Err(AuthorizeError::ScopeNotAllowed),
        }
        let state = params.raw("state");
        match state {
            // The page with the QR code was not seen to have these limits.
            _ if page == AuthorizePage::QrCode => {}
            Some("") => return Err(AuthorizeError::MissingState),
            Some(state) if state.len() > MAX_STATE_BYTES => {
                return Err(AuthorizeError::StateTooLong);
            }
            _ => {}
        }
        Ok(Self {
            app,
            component,
            redirect_uri: redirect_uri.to_owned(),
            scope: scope.to_owned(),
            state: state.map(str::to_owned),
            force_popup: params.non_empty("forcePopup") == Some("true"),
            force_snapshot: params.non_empty("forceSnapShot") == Some("true"),
            back,
        })
    }

    /// Returns `true` if the page must ask the user for consent. The scope `snsapi_base` never
    /// needs consent.
    pub(super) fn needs_consent(&self, wechat: &SimulatedWechat) -> bool {
        self.scope != "snsapi_base" && (self.force_popup || !wechat.settings.auto_approve)
    }

    /// Returns the URL of the application's callback. With a user, issues a code and adds it to the
    /// URL. Without a user, who has then denied, the URL has no code.
    pub(super) fn issue_callback(
        &self,
        wechat: &mut SimulatedWechat,
        openid: Option<&str>,
    ) -> String {
        let code = openid.map(|openid| {
            if self.force_snapshot && self.scope == "snsapi_userinfo" {
                // In snapshot mode WeChat replaces the user by a virtual user.
                let virtual_user = SimulatedUser::random().snapshot(true);
                let openid = virtual_user.openid().to_owned();
                wechat.users.insert_or_replace(virtual_user);
                wechat.issue_code(self.app, &openid, &self.scope, true, self.component)
            } else {
                wechat.issue_code(self.app, openid, &self.scope, false, self.component)
            }
        });
        let app_id = self.component.map(|_| &*wechat.apps[self.app].app_id);
        url_with_params(
            &self.redirect_uri,
            &[
                ("code", code.as_deref()),
                ("state", self.state.as_deref()),
                ("appid", app_id),
            ],
        )
    }
}

/// Returns `true` if the required parameters come first and in WeChat's order. `state` may follow
/// or be missing. Other parameters may follow at the end, such as `forcePopup` and
/// `connect_redirect`.
fn has_required_order<'a>(names: impl Iterator<Item = &'a str>) -> bool {
    const REQUIRED: [&str; 4] = ["appid", "redirect_uri", "response_type", "scope"];
    let mut names = names.peekable();
    let required = REQUIRED.iter().all(|name| names.next() == Some(name));
    names.next_if_eq(&"state");
    required && !names.any(|name| name == "state" || REQUIRED.contains(&name))
}

fn check_redirect_uri(
    redirect_uri: &str,
    app: AppIndex,
    wechat: &SimulatedWechat,
) -> Result<(), AuthorizeError> {
    let host = http_host(redirect_uri).ok_or(AuthorizeError::WrongRedirectUri)?;
    let allowed = wechat.apps[app].redirect_hosts.as_ref();
    match allowed.or(wechat.settings.redirect_hosts.as_ref()) {
        Some(hosts) if !hosts.iter().any(|known| known.eq_ignore_ascii_case(&host)) => {
            Err(AuthorizeError::WrongRedirectUri)
        }
        _ => Ok(()),
    }
}

/// Returns the host of an http or https URL.
pub(super) fn http_host(url: &str) -> Option<String> {
    let without_fragment = url.split('#').next().unwrap_or_default();
    let encoded = utf8_percent_encode(without_fragment, URL_ESCAPES).to_string();
    let uri: Uri = encoded.parse().ok()?;
    match (uri.scheme_str(), uri.host()) {
        (Some("http" | "https"), Some(host)) if !host.is_empty() => Some(host.to_owned()),
        _ => None,
    }
}

/// Returns the third-party platform that the link names, to which the account must be authorized.
#[cfg(feature = "platform")]
fn component_of_link(
    params: &Params,
    page: AuthorizePage,
    app: AppIndex,
    wechat: &SimulatedWechat,
) -> Result<Option<AppIndex>, AuthorizeError> {
    let Some(component) = params.non_empty("component_appid") else {
        return Ok(None);
    };
    if page != AuthorizePage::InWechat {
        return Ok(None);
    }
    let component = wechat.find_platform(Some(component));
    let component = component.map_err(|_| AuthorizeError::WrongComponentAppId)?;
    if wechat.platforms.is_authorized(component, app) {
        Ok(Some(component))
    } else {
        Err(AuthorizeError::NotAuthorizedToComponent)
    }
}

/// Returns `None`: without the feature `platform`, the simulator has no third-party platforms.
#[cfg(not(feature = "platform"))]
#[allow(clippy::unnecessary_wraps)]
fn component_of_link(
    _: &Params,
    _: AuthorizePage,
    _: AppIndex,
    _: &SimulatedWechat,
) -> Result<Option<AppIndex>, AuthorizeError> {
    Ok(None)
}

/// Returns `redirect_uri` with the given parameters, which WeChat inserts before the fragment.
pub(super) fn url_with_params(redirect_uri: &str, params: &[(&str, Option<&str>)]) -> String {
    let (base, fragment) = match redirect_uri.split_once('#') {
        Some((base, fragment)) => (base, Some(fragment)),
        None => (redirect_uri, None),
    };
    let mut url = utf8_percent_encode(base, URL_ESCAPES).to_string();
    let mut separator = match base.split_once('?') {
        None => "?",
        Some((_, query)) if query.is_empty() || query.ends_with('&') => "",
        Some(_) => "&",
    };
    for (name, value) in params {
        if let Some(value) = value {
            let value = utf8_percent_encode(value, NON_ALPHANUMERIC);
            url.push_str(&format!("{separator}{name}={value}"));
            separator = "&";
        }
    }
    if let Some(fragment) = fragment {
        url.push('#');
        url.push_str(&utf8_percent_encode(fragment, URL_ESCAPES).to_string());
    }
    url
}
