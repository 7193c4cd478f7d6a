//! The pages that a browser opens: `connect/oauth2/authorize` and `connect/qrconnect`.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::State,
    http::{HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{
    callback_prefetch,
    pages::{self, AuthorizeError, AuthorizePage},
    params::Params,
    route::SharedSimulator,
};
use crate::simulator::{
    state::{SharedState, SimulatedWechat},
    users::SimulatedUser,
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

/// The parameters of a link to the authorize page, after all checks.
#[derive(Debug)]
struct AuthorizeRequest {
    redirect_uri: String,
    scope: String,
    state: Option<String>,
    force_popup: bool,
    force_snapshot: bool,
}

impl AuthorizeRequest {
    fn parse(
        params: &Params,
        page: AuthorizePage,
        wechat: &SimulatedWechat,
    ) -> Result<Self, AuthorizeError> {
        if !has_required_order(params.names()) {
            return Err(AuthorizeError::WrongParameterOrder);
        }
        let app_id = params
            .non_empty("appid")
            .ok_or(AuthorizeError::MissingAppId)?;
        if app_id != wechat.app_id {
            return Err(AuthorizeError::WrongAppId);
        }
        let redirect_uri = params
            .non_empty("redirect_uri")
            .ok_or(AuthorizeError::MissingRedirectUri)?;
        check_redirect_uri(redirect_uri, wechat)?;
        if params.non_empty("response_type") != Some("code") {
            return Err(AuthorizeError::WrongResponseType);
        }
        let scope = params
            .non_empty("scope")
            .ok_or(AuthorizeError::MissingScope)?;
        match (page, scope) {
            (AuthorizePage::InWechat, "snsapi_base" | "snsapi_userinfo") => {}
            (AuthorizePage::QrCode, "snsapi_login") => {}
            _ => return Err(AuthorizeError::ScopeNotAllowed),
        }
        let state = params.raw("state");
        match state {
            Some("") => return Err(AuthorizeError::MissingState),
            // Only the page inside WeChat has this limit. The page with the QR code was not seen to
            // have it.
            Some(state) if state.len() > MAX_STATE_BYTES && page == AuthorizePage::InWechat => {
                return Err(AuthorizeError::StateTooLong);
            }
            _ => {}
        }
        Ok(Self {
            redirect_uri: redirect_uri.to_owned(),
            scope: scope.to_owned(),
            state: state.map(str::to_owned),
            force_popup: params.non_empty("forcePopup") == Some("true"),
            force_snapshot: params.non_empty("forceSnapShot") == Some("true"),
        })
    }

    /// Returns `true` if the page must ask the user for consent. The scope `snsapi_base` never
    /// needs consent.
    fn needs_consent(&self, wechat: &SimulatedWechat) -> bool {
        self.scope != "snsapi_base" && (self.force_popup || !wechat.settings.auto_approve)
    }

    /// Returns the URL of the application's callback. With a user, issues a code and adds it to the
    /// URL. Without a user, who has then denied, the URL has no code.
    fn issue_callback(&self, wechat: &mut SimulatedWechat, openid: Option<&str>) -> String {
        let code = openid.map(|openid| {
            if self.force_snapshot && self.scope == "snsapi_userinfo" {
                // In snapshot mode WeChat replaces the user by a virtual user.
                let virtual_user = SimulatedUser::random().snapshot(true);
                let openid = virtual_user.openid().to_owned();
                wechat.users.insert_or_replace(virtual_user);
                wechat.issue_code(&openid, &self.scope, true)
            } else {
                wechat.issue_code(openid, &self.scope, false)
            }
        });
        callback_url(&self.redirect_uri, code.as_deref(), self.state.as_deref())
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

fn check_redirect_uri(redirect_uri: &str, wechat: &SimulatedWechat) -> Result<(), AuthorizeError> {
    let without_fragment = redirect_uri.split('#').next().unwrap_or_default();
    let encoded = utf8_percent_encode(without_fragment, URL_ESCAPES).to_string();
    let uri: Uri = encoded
        .parse()
        .map_err(|_| AuthorizeError::WrongRedirectUri)?;
    let host = match (uri.scheme_str(), uri.host()) {
        (Some("http" | "https"), Some(host)) if !host.is_empty() => host,
        _ => return Err(AuthorizeError::WrongRedirectUri),
    };
    match &wechat.settings.redirect_hosts {
        Some(hosts) if !hosts.iter().any(|known| known.eq_ignore_ascii_case(host)) => {
            Err(AuthorizeError::WrongRedirectUri)
        }
        _ => Ok(()),
    }
}

/// Returns `redirect_uri` with the given `code` and `state`, which WeChat inserts before the
/// fragment.
fn callback_url(redirect_uri: &str, code: Option<&str>, state: Option<&str>) -> String {
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
    for (name, value) in [("code", code), ("state", state)] {
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

/// Handles `/connect/oauth2/authorize`, the page inside WeChat: the GET of the page, and the POST
/// of a button of its consent page.
pub(super) async fn in_wechat(
    shared: SharedSimulator,
    method: Method,
    uri: Uri,
    body: Bytes,
) -> Response {
    handle(AuthorizePage::InWechat, shared, &method, &uri, &body).await
}

/// Handles `/connect/qrconnect`, the page of website login, where the user of the real page scans a
/// QR code.
pub(super) async fn qr_code(
    shared: SharedSimulator,
    method: Method,
    uri: Uri,
    body: Bytes,
) -> Response {
    handle(AuthorizePage::QrCode, shared, &method, &uri, &body).await
}

async fn handle(
    page: AuthorizePage,
    State(shared): SharedSimulator,
    method: &Method,
    uri: &Uri,
    body: &[u8],
) -> Response {
    let params = Params::from_query(uri);
    // The buttons of the consent page post to the URL of the page. The simulator thus keeps no
    // state between the two requests, and checks the link again at the second.
    let pressed = (*method == Method::POST).then(|| Params::from_form(body));
    match page_action(page, &params, pressed.as_ref(), &shared) {
        PageAction::Show(html) => html,
        PageAction::Redirect { url, signed_in } => {
            redirect_to_callback(&shared, &url, signed_in).await
        }
    }
}

enum PageAction {
    Show(Response),
    Redirect { url: String, signed_in: bool },
}

fn page_action(
    page: AuthorizePage,
    params: &Params,
    pressed: Option<&Params>,
    shared: &SharedState,
) -> PageAction {
    let mut wechat = shared.lock();
    let request = match AuthorizeRequest::parse(params, page, &wechat) {
        Ok(request) => request,
        Err(mistake) => return PageAction::Show(pages::error_page(mistake)),
    };
    let user = match pressed {
        None if request.needs_consent(&wechat) => {
            return PageAction::Show(pages::consent_page(page, &wechat));
        }
        None => Some(wechat.users.active_openid().to_owned()),
        Some(form) if form.non_empty("answer") == Some("allow") => {
            let chosen = form
                .non_empty("openid")
                .filter(|openid| wechat.users.get(openid).is_some());
            Some(chosen.unwrap_or(wechat.users.active_openid()).to_owned())
        }
        Some(form) if form.non_empty("answer") == Some("deny") => None,
        Some(_) => return PageAction::Show(pages::consent_page(page, &wechat)),
    };
    if user.is_none() && !wechat.settings.deny_redirects {
        return PageAction::Show(pages::denied_page());
    }
    let url = request.issue_callback(&mut wechat, user.as_deref());
    PageAction::Redirect {
        url,
        signed_in: user.is_some(),
    }
}

async fn redirect_to_callback(shared: &Arc<SharedState>, url: &str, signed_in: bool) -> Response {
    let twice = shared.lock().settings.callback_twice;
    if twice && signed_in {
        // The fetch comes before the redirect, because this order is harder for an application. The
        // application must not exchange the code for a request without cookies.
        tokio::select! {
            () = callback_prefetch::fetch_without_cookies(url) => {}
            () = shared.force_stop.cancelled() => {}
        }
    }
    match HeaderValue::from_str(url) {
        Ok(location) => {
            let no_store = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            (StatusCode::FOUND, [(header::LOCATION, location), no_store]).into_response()
        }
        Err(_) => pages::error_page(AuthorizeError::WrongRedirectUri),
    }
}
