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
    Sim, callback,
    consent::{self, Mistake, Page},
    params::Params,
};
use crate::simulator::{
    users::SimulatedUser,
    world::{Shared, World},
};

/// The longest `state`, in bytes (guide to web authorization).
const LONGEST_STATE: usize = 128;

/// Everything that has no place in a `Location` as it is. What was encoded stays so.
const NOT_IN_A_URL: &AsciiSet = &CONTROLS
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

/// What the link asks for, once all of it is right.
#[derive(Debug)]
struct Wish {
    redirect_uri: String,
    scope: String,
    state: Option<String>,
    force_popup: bool,
    force_snapshot: bool,
}

impl Wish {
    fn of(params: &Params, page: Page, world: &World) -> Result<Self, Mistake> {
        if !in_order(params.names()) {
            return Err(Mistake::Order);
        }
        let app_id = params.get("appid").ok_or(Mistake::NoAppId)?;
        if app_id != world.app_id {
            return Err(Mistake::WrongAppId);
        }
        let redirect_uri = params.get("redirect_uri").ok_or(Mistake::NoRedirectUri)?;
        check_redirect_uri(redirect_uri, world)?;
        if params.get("response_type") != Some("code") {
            return Err(Mistake::ResponseType);
        }
        let scope = params.get("scope").ok_or(Mistake::NoScope)?;
        match (page, scope) {
            (Page::InWeChat, "snsapi_base" | "snsapi_userinfo") => {}
            (Page::QrCode, "snsapi_login") => {}
            _ => return Err(Mistake::Scope),
        }
        let state = params.sent("state");
        match state {
            Some("") => return Err(Mistake::NoState),
            // The limit was not seen on the page with the QR code.
            Some(state) if state.len() > LONGEST_STATE && page == Page::InWeChat => {
                return Err(Mistake::StateTooLong);
            }
            _ => {}
        }
        Ok(Self {
            redirect_uri: redirect_uri.to_owned(),
            scope: scope.to_owned(),
            state: state.map(str::to_owned),
            force_popup: params.get("forcePopup") == Some("true"),
            force_snapshot: params.get("forceSnapShot") == Some("true"),
        })
    }

    /// `snsapi_base` is silent, always.
    fn needs_consent(&self, world: &World) -> bool {
        self.scope != "snsapi_base" && (self.force_popup || !world.settings.auto_approve)
    }

    /// The callback after this user agreed, or with no user, after a denial.
    fn callback(&self, world: &mut World, openid: Option<&str>) -> String {
        let code = openid.map(|openid| {
            if self.force_snapshot && self.scope == "snsapi_userinfo" {
                // In snapshot mode WeChat hides the user behind a virtual one.
                let virtual_user = SimulatedUser::random().snapshot(true);
                let openid = virtual_user.openid().to_owned();
                world.users.put(virtual_user);
                world.mint_code(&openid, &self.scope, true)
            } else {
                world.mint_code(openid, &self.scope, false)
            }
        });
        callback_url(&self.redirect_uri, code.as_deref(), self.state.as_deref())
    }
}

/// Whether the known parameters are all there but perhaps `state`, first and in WeChat's order.
/// After them anything may come: `forcePopup`, `connect_redirect`, what WeChat itself adds.
fn in_order<'a>(names: impl Iterator<Item = &'a str>) -> bool {
    const REQUIRED: [&str; 4] = ["appid", "redirect_uri", "response_type", "scope"];
    let mut names = names.peekable();
    let required = REQUIRED.iter().all(|name| names.next() == Some(name));
    names.next_if_eq(&"state");
    required && !names.any(|name| name == "state" || REQUIRED.contains(&name))
}

fn check_redirect_uri(redirect_uri: &str, world: &World) -> Result<(), Mistake> {
    let without_fragment = redirect_uri.split('#').next().unwrap_or_default();
    let encoded = utf8_percent_encode(without_fragment, NOT_IN_A_URL).to_string();
    let uri: Uri = encoded.parse().map_err(|_| Mistake::RedirectUri)?;
    let host = match (uri.scheme_str(), uri.host()) {
        (Some("http" | "https"), Some(host)) if !host.is_empty() => host,
        _ => return Err(Mistake::RedirectUri),
    };
    match &world.settings.redirect_hosts {
        Some(hosts) if !hosts.iter().any(|known| known.eq_ignore_ascii_case(host)) => {
            Err(Mistake::RedirectUri)
        }
        _ => Ok(()),
    }
}

/// `redirect_uri` with `code` and `state`, which WeChat puts before a fragment of its own.
fn callback_url(redirect_uri: &str, code: Option<&str>, state: Option<&str>) -> String {
    let (base, fragment) = match redirect_uri.split_once('#') {
        Some((base, fragment)) => (base, Some(fragment)),
        None => (redirect_uri, None),
    };
    let mut url = utf8_percent_encode(base, NOT_IN_A_URL).to_string();
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
        url.push_str(&utf8_percent_encode(fragment, NOT_IN_A_URL).to_string());
    }
    url
}

/// `GET /connect/oauth2/authorize`, and the buttons of its consent page, which post to it.
pub(super) async fn in_wechat(shared: Sim, method: Method, uri: Uri, body: Bytes) -> Response {
    open(Page::InWeChat, shared, &method, &uri, &body).await
}

/// `GET /connect/qrconnect`: website login, where the user scans a QR code.
pub(super) async fn qr_code(shared: Sim, method: Method, uri: Uri, body: Bytes) -> Response {
    open(Page::QrCode, shared, &method, &uri, &body).await
}

async fn open(page: Page, State(shared): Sim, method: &Method, uri: &Uri, body: &[u8]) -> Response {
    let params = Params::of(uri);
    // The buttons post to the page's own URL: nothing is kept between the page and the answer,
    // and the link is checked again.
    let pressed = (*method == Method::POST).then(|| Params::of_form(body));
    match decide(page, &params, pressed.as_ref(), &shared) {
        Outcome::Show(html) => html,
        Outcome::Leave { url, signed_in } => leave(&shared, &url, signed_in).await,
    }
}

enum Outcome {
    Show(Response),
    Leave { url: String, signed_in: bool },
}

fn decide(page: Page, params: &Params, pressed: Option<&Params>, shared: &Shared) -> Outcome {
    let mut world = shared.world();
    let wish = match Wish::of(params, page, &world) {
        Ok(wish) => wish,
        Err(mistake) => return Outcome::Show(consent::mistake(mistake)),
    };
    let user = match pressed {
        None if wish.needs_consent(&world) => {
            return Outcome::Show(consent::question(page, &world));
        }
        None => Some(world.users.next().to_owned()),
        Some(form) if form.get("answer") == Some("allow") => {
            let chosen = form
                .get("openid")
                .filter(|openid| world.users.get(openid).is_some());
            Some(chosen.unwrap_or(world.users.next()).to_owned())
        }
        Some(form) if form.get("answer") == Some("deny") => None,
        Some(_) => return Outcome::Show(consent::question(page, &world)),
    };
    if user.is_none() && !world.settings.deny_redirects {
        return Outcome::Show(consent::closed());
    }
    let url = wish.callback(&mut world, user.as_deref());
    Outcome::Leave {
        url,
        signed_in: user.is_some(),
    }
}

async fn leave(shared: &Arc<Shared>, url: &str, signed_in: bool) -> Response {
    let twice = shared.world().settings.callback_twice;
    if twice && signed_in {
        // First, because that is the harder case: the code must not be spent on it.
        tokio::select! {
            () = callback::fetch_without_cookies(url) => {}
            () = shared.stopped.cancelled() => {}
        }
    }
    match HeaderValue::from_str(url) {
        Ok(location) => {
            let no_store = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            (StatusCode::FOUND, [(header::LOCATION, location), no_store]).into_response()
        }
        Err(_) => consent::mistake(Mistake::RedirectUri),
    }
}
