//! The calls of a third-party platform: `/cgi-bin/component`, `/sns/oauth2/component`, and the message
//! of the customer service that WeChat's release test asks for.

mod authorizers;
mod oauth;

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::ConnectInfo,
    http::{Method, Uri},
    response::Response,
    routing::any,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    cgi_bin::{non_empty, parse_json_body},
    listener::Peer,
    params::Params,
    reply::EmptyReply,
    route::{SharedSimulator, post},
};
use crate::simulator::{
    app_index::AppIndex,
    error_reply::WechatErrorReply,
    platform::CustomMessage,
    state::{SharedState, SimulatedWechat},
};

pub(super) fn routes() -> Router<Arc<SharedState>> {
    let component = |call: &str| format!("/cgi-bin/component/{call}");
    Router::new()
        .route(&component("api_start_push_ticket"), any(start_push_ticket))
        .route(&component("api_component_token"), any(component_token))
        .route(
            &component("api_create_preauthcode"),
            any(create_preauthcode),
        )
        .route(&component("clear_quota/v2"), any(clear_quota))
        .route(&component("api_query_auth"), any(authorizers::query_auth))
        .route(&component("api_authorizer_token"), any(authorizers::token))
        .route(
            &component("api_get_authorizer_list"),
            any(authorizers::list),
        )
        .route(
            &component("api_get_authorizer_info"),
            any(authorizers::info),
        )
        .route(
            "/sns/oauth2/component/access_token",
            any(oauth::access_token),
        )
        .route(
            "/sns/oauth2/component/refresh_token",
            any(oauth::refresh_token),
        )
        .route("/cgi-bin/message/custom/send", any(custom_send))
}

/// The fields of the calls, each of which uses some of them. A missing or empty text, and `null`, are
/// the same for WeChat.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ComponentRequest {
    component_appid: Option<String>,
    component_appsecret: Option<String>,
    component_secret: Option<String>,
    component_verify_ticket: Option<String>,
    appsecret: Option<String>,
    appid: Option<String>,
    authorization_code: Option<String>,
    authorizer_appid: Option<String>,
    authorizer_refresh_token: Option<String>,
    offset: Option<i64>,
    count: Option<i64>,
}

fn text(field: &Option<String>) -> Option<&str> {
    field.as_deref().and_then(non_empty)
}

/// Returns the platform of a call that a secret authenticates, not a token.
fn platform_by_secret(
    wechat: &SimulatedWechat,
    app_id: &Option<String>,
    secret: &Option<String>,
    peer: &Peer,
) -> Result<AppIndex, WechatErrorReply> {
    let component = wechat.find_platform(text(app_id))?;
    wechat.check_secret(component, text(secret))?;
    wechat.check_registered_ip(peer.ip())?;
    Ok(component)
}

/// Returns the platform of a call with a component token, which must be that of `component_appid`. The
/// older parameter is `component_access_token`, and newer pages say `access_token`.
fn platform_by_token(
    wechat: &SimulatedWechat,
    params: &Params,
    request: &ComponentRequest,
    peer: &Peer,
) -> Result<AppIndex, WechatErrorReply> {
    let token = params.non_empty("component_access_token");
    let token = token.or_else(|| params.non_empty("access_token"));
    let component = wechat.check_component_token(token)?;
    wechat.check_registered_ip(peer.ip())?;
    if wechat.find_platform(text(&request.component_appid))? != component {
        return Err(WechatErrorReply::new(61014));
    }
    Ok(component)
}

/// Runs a call with a component token.
fn with_token<T: Serialize>(
    shared: &SharedSimulator,
    peer: &Peer,
    (method, uri, body): (&Method, &Uri, &[u8]),
    call: impl FnOnce(&mut SimulatedWechat, AppIndex, &ComponentRequest) -> Result<T, WechatErrorReply>,
) -> Response {
    post(shared, method, uri, |wechat, params, _| {
        let request: ComponentRequest = parse(body)?;
        let component = platform_by_token(wechat, params, &request, peer)?;
        call(wechat, component, &request)
    })
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, WechatErrorReply> {
    parse_json_body(body)
}

#[derive(Serialize)]
struct Started {
    errcode: i64,
    errmsg: &'static str,
}

/// Handles `POST api_start_push_ticket`, which starts the pushes of tickets. The simulator pushes one
/// at once, and WeChat within ten minutes.
async fn start_push_ticket(
    shared: SharedSimulator,
    ConnectInfo(peer): ConnectInfo<Peer>,
    method: Method,
    uri: Uri,
    body: Bytes,
) -> Response {
    let response = post(&shared, &method, &uri, |wechat, _, _| {
        let request: ComponentRequest = parse(&body)?;
        // Unlike the other calls, this one says `component_secret`.
        let component = platform_by_secret(
            wechat,
            &request.component_appid,
            &request.component_secret,
            &peer,
        )?;
        let errmsg = if wechat.start_ticket_pushes(component) {
            "ok"
        } else {
            "in a normal state"
        };
        Ok(Started { errcode: 0, errmsg })
    });
    shared.pushes_due.notify_one();
    response
}

#[derive(Serialize)]
struct ComponentToken {
    component_access_token: String,
    expires_in: u64,
}

/// Handles `POST api_component_token`, which issues a new component token at every call.
async fn component_token(
    shared: SharedSimulator,
    ConnectInfo(peer): ConnectInfo<Peer>,
    method: Method,
    uri: Uri,
    body: Bytes,
) -> Response {
    post(&shared, &method, &uri, |wechat, _, _| {
        let request: ComponentRequest = parse(&body)?;
        let component = platform_by_secret(
            wechat,
            &request.component_appid,
            &request.component_appsecret,
            &peer,
        )?;
        let ticket = text(&request.component_verify_ticket);
        let token = wechat.issue_component_token(component, ticket)?;
        Ok(ComponentToken {
            component_access_token: token.access_token,
            expires_in: token.expires_in.as_secs(),
        })
    })
}

#[derive(Serialize)]
struct PreAuthCodeReply {
    pre_auth_code: String,
    expires_in: u64,
}

/// Handles `POST api_create_preauthcode?component_access_token=`.
async fn create_preauthcode(
    shared: SharedSimulator,
    ConnectInfo(peer): ConnectInfo<Peer>,
    method: Method,
    uri: Uri,
    body: Bytes,
) -> Response {
    with_token(
        &shared,
        &peer,
        (&method, &uri, &body),
        |wechat, component, _| {
            Ok(PreAuthCodeReply {
                pre_auth_code: wechat.issue_pre_auth_code(component),
                expires_in: wechat.settings.pre_auth_code_lifetime.as_secs(),
            })
        },
    )
}

/// Handles `POST component/clear_quota/v2`, which resets the count of `api_component_token`, or with
/// `appid` the counts of an authorized account.
async fn clear_quota(
    shared: SharedSimulator,
    ConnectInfo(peer): ConnectInfo<Peer>,
    method: Method,
    uri: Uri,
    body: Bytes,
) -> Response {
    post(&shared, &method, &uri, |wechat, _, now| {
        let request: ComponentRequest = parse(&body)?;
        let component =
            platform_by_secret(wechat, &request.component_appid, &request.appsecret, &peer)?;
        let app = match text(&request.appid) {
            Some(app_id) => {
                let account = wechat.find_app(Some(app_id))?;
                if !wechat.platforms.is_authorized(component, account) {
                    return Err(WechatErrorReply::new(61003));
                }
                account
            }
            None => component,
        };
        wechat.apps[app]
            .account_tokens
            .clear_quota(now)
            .map(|()| EmptyReply::OK)
    })
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CustomMessageRequest {
    touser: String,
    msgtype: String,
    text: TextContent,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct TextContent {
    content: String,
}

/// Handles `POST /cgi-bin/message/custom/send?access_token=`, which sends a message of the customer
/// service. The simulator keeps texts for the test.
async fn custom_send(shared: SharedSimulator, method: Method, uri: Uri, body: Bytes) -> Response {
    post(&shared, &method, &uri, |wechat, params, _| {
        let app = wechat.check_account_token(params.non_empty("access_token"))?;
        let message: CustomMessageRequest = parse(&body)?;
        if wechat.users.get_in(app, &message.touser).is_none() {
            return Err(WechatErrorReply::new(40003));
        }
        if message.msgtype.is_empty() {
            return Err(WechatErrorReply::new(40008));
        }
        let message = CustomMessage {
            app_id: wechat.apps[app].app_id.clone(),
            openid: message.touser,
            content: message.text.content,
        };
        wechat.platforms.record_message(message);
        Ok(EmptyReply::OK)
    })
}
