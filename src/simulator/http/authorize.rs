//! The pages that a browser opens: `connect/oauth2/authorize`, `connect/qrconnect`, and the script
//! that puts the latter into a frame.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::State,
    http::{HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};

use super::{
    authorize_request::{AuthorizeRequest, Return},
    callback_prefetch,
    pages::{self, AuthorizeError, AuthorizePage, CallbackWindow},
    params::Params,
    route::SharedSimulator,
};
use crate::simulator::state::SharedState;

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
        PageAction::Return {
            url,
            back,
            signed_in,
        } => return_to_callback(&shared, &url, back, signed_in).await,
    }
}

enum PageAction {
    Show(Response),
    Return {
        url: String,
        back: Return,
        signed_in: bool,
    },
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
        Err(mistake) => return PageAction::Show(pages::error_page(page, mistake)),
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
    let deny_redirects = match page {
        AuthorizePage::InWechat => wechat.settings.deny_redirects,
        AuthorizePage::QrCode => wechat.settings.qr_deny_redirects,
    };
    if user.is_none() && !deny_redirects {
        return PageAction::Show(pages::denied_page(page));
    }
    let url = request.issue_callback(&mut wechat, user.as_deref());
    PageAction::Return {
        url,
        back: request.back,
        signed_in: user.is_some(),
    }
}

async fn return_to_callback(
    shared: &Arc<SharedState>,
    url: &str,
    back: Return,
    signed_in: bool,
) -> Response {
    let twice = shared.lock().settings.callback_twice;
    if twice && signed_in {
        // The fetch comes before the browser's request, because this order is harder for an application. The
        // application must not exchange the code for a request without cookies.
        tokio::select! {
            () = callback_prefetch::fetch_without_cookies(url) => {}
            () = shared.force_stop.cancelled() => {}
        }
    }
    let window = match back {
        Return::TopWindow => CallbackWindow::Top,
        Return::OwnFrame => CallbackWindow::Own,
        Return::Redirect => return redirect(url),
    };
    pages::navigation_page(url, window)
}

pub(super) fn redirect(url: &str) -> Response {
    match HeaderValue::from_str(url) {
        Ok(location) => {
            let no_store = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            (StatusCode::FOUND, [(header::LOCATION, location), no_store]).into_response()
        }
        Err(_) => pages::error_page(AuthorizePage::InWechat, AuthorizeError::WrongRedirectUri),
    }
}

/// Handles `/connect/zh_CN/htmledition/js/wxLogin.js`, a small twin of the script that WeChat serves
/// for pages with a login frame. It has the parameters of WeChat's script and opens the simulator's
/// `connect/qrconnect`.
pub(super) async fn wx_login_script() -> Response {
    let content_type = (header::CONTENT_TYPE, "text/javascript; charset=utf-8");
    let no_store = (header::CACHE_CONTROL, "no-store");
    ([content_type, no_store], include_str!("wx_login.js")).into_response()
}
