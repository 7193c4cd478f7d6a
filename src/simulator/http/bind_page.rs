//! The pages on which the owner of an account authorizes a third-party platform: `componentloginpage` on
//! a computer, and `bindcomponent` inside WeChat.

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, Method, Uri, header},
    response::Response,
    routing::any,
};

use super::{
    authorize::redirect,
    authorize_request::{http_host, url_with_params},
    pages::{escape, html_page},
    params::Params,
    route::SharedSimulator,
};
use crate::simulator::{
    app_index::AppIndex,
    apps::AppKind,
    platform::{SimulatedPush, deliver},
    state::{SharedState, SimulatedWechat},
};

pub(super) fn routes() -> Router<Arc<SharedState>> {
    Router::new()
        .route("/cgi-bin/componentloginpage", any(on_computer))
        .route("/wxaopen/safe/bindcomponent", any(in_wechat))
        .route("/safe/bindcomponent", any(in_wechat))
}

async fn on_computer(
    shared: SharedSimulator,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    handle(&shared, &method, &Params::from_query(&uri), &headers, &body).await
}

async fn in_wechat(
    shared: SharedSimulator,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let params = Params::from_query(&uri);
    let is_complete = params.non_empty("action") == Some("bindcomponent")
        && params.non_empty("no_scan") == Some("1");
    if !is_complete {
        return BindError::Action.page();
    }
    handle(&shared, &method, &params, &headers, &body).await
}

/// The reason why an authorize page shows an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BindError {
    Action,
    Component,
    PreAuthCode,
    RedirectUri,
    /// The page was not opened by a link of a page, or the host of that page is not allowed.
    EntryPage,
    AuthType,
    Account,
}

impl BindError {
    fn page(self) -> Response {
        let (chinese, english) = match self {
            Self::Action => (
                "参数错误",
                "action must be bindcomponent, and no_scan must be 1.",
            ),
            Self::Component => (
                "component_appid 参数错误",
                "No third-party platform has this component_appid.",
            ),
            Self::PreAuthCode => (
                "预授权码无效或已过期",
                "pre_auth_code is unknown, used or expired.",
            ),
            Self::RedirectUri => (
                "授权后回调页所在域名有误",
                "redirect_uri is no http or https URL, or its host is not one from which accounts may \
                 authorize the platform.",
            ),
            Self::EntryPage => (
                "授权入口页所在域名有误",
                "A link on a page must lead here, from a host from which accounts may authorize the \
                 platform. A redirect, a typed address and a page without Referer do not count.",
            ),
            Self::AuthType => ("auth_type 参数错误", "auth_type must be 1 to 6 or 8."),
            Self::Account => (
                "没有可授权的公众号",
                "The simulator has no such account, or auth_type excludes accounts (公众号).",
            ),
        };
        html_page(
            "无法授权 · Error",
            &format!("<h1>{chinese}</h1><p><small>{english}</small></p>"),
        )
    }
}

/// A link to an authorize page, after all checks.
struct BindRequest<'a> {
    component: AppIndex,
    pre_auth_code: &'a str,
    redirect_uri: &'a str,
    /// The account that the page chooses.
    account: AppIndex,
}

impl<'a> BindRequest<'a> {
    fn parse(params: &'a Params, wechat: &SimulatedWechat) -> Result<Self, BindError> {
        let component = wechat
            .find_platform(params.non_empty("component_appid"))
            .map_err(|_| BindError::Component)?;
        let pre_auth_code = params
            .non_empty("pre_auth_code")
            .filter(|code| wechat.is_pre_auth_code_valid(component, code))
            .ok_or(BindError::PreAuthCode)?;
        let redirect_uri = params
            .non_empty("redirect_uri")
            .filter(|url| is_host_allowed(http_host(url), component, wechat))
            .ok_or(BindError::RedirectUri)?;
        let account = match params.non_empty("biz_appid") {
            Some(app_id) => wechat.known_account(app_id).ok(),
            None => match params.non_empty("auth_type") {
                Some("1" | "3" | "6") | None => first_account(component, wechat),
                Some("2" | "4" | "5" | "8") => None,
                Some(_) => return Err(BindError::AuthType),
            },
        };
        Ok(Self {
            component,
            pre_auth_code,
            redirect_uri,
            account: account.ok_or(BindError::Account)?,
        })
    }
}

fn first_account(component: AppIndex, wechat: &SimulatedWechat) -> Option<AppIndex> {
    let chosen = wechat.platforms.get(component)?.next_account;
    let first = || {
        let mut accounts = wechat
            .apps
            .iter()
            .filter(|app| app.kind == AppKind::Account);
        wechat.apps.find(&accounts.next()?.app_id)
    };
    chosen.or_else(first)
}

/// Returns `true` if pages of this host may open the authorize pages of the platform and be returned to.
fn is_host_allowed(host: Option<String>, component: AppIndex, wechat: &SimulatedWechat) -> bool {
    let Some(host) = host else { return false };
    let platform = wechat.platforms.get(component);
    match platform.and_then(|platform| platform.authorize_hosts.as_ref()) {
        Some(hosts) => hosts.iter().any(|known| known.eq_ignore_ascii_case(&host)),
        None => true,
    }
}

enum PageAction {
    Show(Response),
    Return {
        url: String,
        component: AppIndex,
        account: String,
    },
}

async fn handle(
    State(shared): &SharedSimulator,
    method: &Method,
    params: &Params,
    headers: &HeaderMap,
    body: &[u8],
) -> Response {
    let pressed = (*method == Method::POST).then(|| Params::from_form(body));
    match page_action(shared, params, pressed.as_ref(), headers) {
        PageAction::Show(html) => html,
        PageAction::Return {
            url,
            component,
            account,
        } => {
            send_event(shared, component, account).await;
            redirect(&url)
        }
    }
}

fn page_action(
    shared: &SharedState,
    params: &Params,
    pressed: Option<&Params>,
    headers: &HeaderMap,
) -> PageAction {
    let wechat = &mut *shared.lock();
    let request = match BindRequest::parse(params, wechat) {
        Ok(request) => request,
        Err(mistake) => return PageAction::Show(mistake.page()),
    };
    // A button posts from the page itself. The check is for the link that has opened the page.
    let referer = headers.get(header::REFERER).and_then(|it| it.to_str().ok());
    let is_linked = is_host_allowed(referer.and_then(http_host), request.component, wechat);
    if pressed.is_none() && !is_linked {
        return PageAction::Show(BindError::EntryPage.page());
    }
    let account = match pressed {
        None if wechat.settings.auto_approve => request.account,
        Some(form) if form.non_empty("answer") == Some("allow") => {
            let chosen = form.non_empty("account").unwrap_or_default();
            wechat.known_account(chosen).unwrap_or(request.account)
        }
        Some(form) if form.non_empty("answer") == Some("deny") => {
            return PageAction::Show(denied_page());
        }
        _ => return PageAction::Show(consent_page(wechat, request.account)),
    };
    let code = Some(request.pre_auth_code);
    let code = wechat.authorize_account(request.component, account, None, code);
    let expires_in = wechat.settings.authorization_code_lifetime.as_secs();
    PageAction::Return {
        url: url_with_params(
            request.redirect_uri,
            &[
                ("auth_code", Some(&code)),
                ("expires_in", Some(&expires_in.to_string())),
            ],
        ),
        component: request.component,
        account: wechat.apps[account].app_id.clone(),
    }
}

/// Sends the event of an authorization: before the browser returns, as WeChat normally does, or after the
/// platform's delay.
async fn send_event(shared: &SharedState, component: AppIndex, account: String) {
    let prepared = {
        let mut wechat = shared.lock();
        let push = SimulatedPush::authorized(account);
        let platform = wechat.platform(component);
        let (lost, delay) = (platform.lose_events, platform.event_delay);
        if lost {
            return;
        }
        if !delay.is_zero() {
            wechat.schedule_push(component, &push, delay);
            shared.pushes_due.notify_one();
            return;
        }
        wechat.prepare_push(component, &push)
    };
    // Without a URL, the platform gets no event.
    if let Ok(prepared) = prepared {
        deliver(shared, &prepared).await;
    }
}

fn consent_page(wechat: &SimulatedWechat, chosen: AppIndex) -> Response {
    let chosen = &wechat.apps[chosen].app_id;
    let mut accounts = String::new();
    for app in wechat
        .apps
        .iter()
        .filter(|app| app.kind == AppKind::Account)
    {
        let selected = if app.app_id == *chosen {
            " selected"
        } else {
            ""
        };
        let app_id = escape(&app.app_id);
        accounts.push_str(&format!("<option{selected}>{app_id}</option>"));
    }
    html_page(
        "公众号授权 · Authorize",
        &format!(
            "<h1>授权给第三方平台</h1><p>选择公众号 <small>Choose the account</small></p><form \
             method=\"post\"><label>公众号 <small>Account</small><select \
             name=\"account\">{accounts}</select></label><button id=\"allow\" name=\"answer\" \
             value=\"allow\">授权 Allow</button><button id=\"deny\" name=\"answer\" \
             value=\"deny\">取消 Deny</button></form>"
        ),
    )
}

/// Returns the page after a denial, from which no request goes to the application.
fn denied_page() -> Response {
    html_page(
        "已取消 · Cancelled",
        "<h1>已取消授权</h1><p><small>You may close this page.</small></p>",
    )
}
