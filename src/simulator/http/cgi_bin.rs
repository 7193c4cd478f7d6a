//! The calls for an account (`/cgi-bin`): the calls that return tokens and tickets, and some calls
//! that use tokens.

use axum::{
    body::Bytes,
    extract::ConnectInfo,
    http::{Method, Uri},
    response::Response,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    listener::Peer,
    reply::EmptyReply,
    route::{SharedSimulator, get, post},
};
use crate::simulator::{
    account_tokens::AccountTokenResult, app_index::AppIndex, apps::AppKind,
    error_reply::WechatErrorReply, state::SimulatedWechat,
};

pub(super) fn parse_json_body<T: DeserializeOwned>(body: &[u8]) -> Result<T, WechatErrorReply> {
    if body.is_empty() {
        return Err(WechatErrorReply::new(44002));
    }
    serde_json::from_slice(body).map_err(|_| WechatErrorReply::new(47001))
}

/// Returns the text, or `None` if it is empty, because WeChat treats an empty text as missing.
pub(super) fn non_empty(value: &str) -> Option<&str> {
    Some(value).filter(|value| !value.is_empty())
}

/// Returns the account of a request for an account token. Checks the grant type, AppID, secret and
/// IP address, and that the account is not frozen. A website app has no such token.
fn check_token_request(
    wechat: &SimulatedWechat,
    (app_id, secret, grant_type): (Option<&str>, Option<&str>, Option<&str>),
    peer: &Peer,
) -> Result<AppIndex, WechatErrorReply> {
    if grant_type != Some("client_credential") {
        return Err(WechatErrorReply::new(40002));
    }
    let app = wechat.find_app(app_id)?;
    #[cfg(feature = "platform")]
    if wechat.apps[app].kind == AppKind::Platform {
        return Err(WechatErrorReply::new(61024));
    }
    wechat.check_secret(app, secret)?;
    wechat.check_ip(peer.ip())?;
    match wechat.apps[app].kind {
        AppKind::Account if wechat.settings.account_frozen => Err(WechatErrorReply::new(50007)),
        AppKind::Account => Ok(app),
        AppKind::Website => Err(WechatErrorReply::new(50004)),
        #[cfg(feature = "platform")]
        AppKind::Platform => Err(WechatErrorReply::new(61024)),
    }
}

#[derive(Serialize)]
struct AccountTokenReply {
    access_token: String,
    expires_in: u64,
}

impl From<AccountTokenResult> for AccountTokenReply {
    fn from(result: AccountTokenResult) -> Self {
        Self {
            access_token: result.access_token,
            expires_in: result.expires_in.as_secs(),
        }
    }
}

/// Handles `GET /cgi-bin/token?grant_type=client_credential&appid=&secret=`, which issues a new
/// access token of the account.
pub(super) async fn token(
    shared: SharedSimulator,
    ConnectInfo(peer): ConnectInfo<Peer>,
    method: Method,
    uri: Uri,
) -> Response {
    get(&shared, &method, &uri, |wechat, params, now| {
        let caller = (
            params.non_empty("appid"),
            params.non_empty("secret"),
            params.non_empty("grant_type"),
        );
        let app = check_token_request(wechat, caller, &peer)?;
        wechat
            .issue_account_token(app, now)
            .map(AccountTokenReply::from)
    })
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StableTokenRequest {
    grant_type: String,
    appid: String,
    secret: String,
    force_refresh: bool,
}

/// Handles `POST /cgi-bin/stable_token` with a JSON body, which returns the current access token of
/// the account.
pub(super) async fn stable_token(
    shared: SharedSimulator,
    ConnectInfo(peer): ConnectInfo<Peer>,
    method: Method,
    uri: Uri,
    body: Bytes,
) -> Response {
    post(&shared, &method, &uri, |wechat, _, now| {
        let request: StableTokenRequest = parse_json_body(&body)?;
        let StableTokenRequest {
            grant_type,
            appid,
            secret,
            force_refresh,
        } = &request;
        let app = check_token_request(
            wechat,
            (non_empty(appid), non_empty(secret), non_empty(grant_type)),
            &peer,
        )?;
        wechat
            .issue_stable_token(app, *force_refresh, now)
            .map(AccountTokenReply::from)
    })
}

#[derive(Serialize)]
struct TicketReply {
    errcode: i64,
    errmsg: &'static str,
    ticket: String,
    expires_in: u64,
}

/// Handles `GET /cgi-bin/ticket/getticket?access_token=&type=jsapi`, which returns a ticket of the
/// type `jsapi` or `wx_card`.
pub(super) async fn getticket(shared: SharedSimulator, method: Method, uri: Uri) -> Response {
    get(&shared, &method, &uri, |wechat, params, now| {
        let app = wechat.check_account_token(params.non_empty("access_token"))?;
        let kind = params
            .non_empty("type")
            .filter(|kind| matches!(*kind, "jsapi" | "wx_card"));
        let kind = kind.ok_or(WechatErrorReply::new(40097))?;
        Ok(TicketReply {
            errcode: 0,
            errmsg: "ok",
            ticket: wechat.ticket(app, kind, now),
            // WeChat's replies contain the full lifetime of the ticket, and not the time that is
            // left.
            expires_in: wechat.settings.ticket_lifetime.as_secs(),
        })
    })
}

/// The time at which every follower began to follow the account, in Unix seconds: 14 November 2023.
const SUBSCRIBED_AT: u64 = 1_700_000_000;

/// The fields of the reply of `cgi-bin/user/info`. For a user who does not follow the account, the
/// reply has only `subscribe: 0`, the openid and the unionid.
#[derive(Serialize)]
struct FollowerReply {
    subscribe: u8,
    openid: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    language: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscribe_time: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unionid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscribe_scene: Option<&'static str>,
}

/// Handles `GET /cgi-bin/user/info?access_token=&openid=&lang=`, which says whether a user follows
/// the account.
pub(super) async fn user_info(shared: SharedSimulator, method: Method, uri: Uri) -> Response {
    get(&shared, &method, &uri, |wechat, params, _| {
        let app = wechat.check_account_token(params.non_empty("access_token"))?;
        let openid = params
            .non_empty("openid")
            .ok_or(WechatErrorReply::new(41009))?;
        let user = wechat
            .users
            .get_in(app, openid)
            .ok_or(WechatErrorReply::new(40003))?;
        let follows = user.is_subscribed();
        Ok(FollowerReply {
            subscribe: u8::from(follows),
            openid: openid.to_owned(),
            language: follows.then_some("zh_CN"),
            subscribe_time: follows.then_some(SUBSCRIBED_AT),
            unionid: user.unionid_in(&wechat.apps[app]),
            subscribe_scene: follows.then_some("ADD_SCENE_SEARCH"),
        })
    })
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct TemplateMessage {
    touser: String,
    template_id: String,
}

#[derive(Serialize)]
struct MessageSent {
    errcode: i64,
    errmsg: &'static str,
    msgid: u64,
}

/// Handles `POST /cgi-bin/message/template/send?access_token=` with a JSON body. Any template id is
/// accepted, and no message is sent.
pub(super) async fn template_send(
    shared: SharedSimulator,
    method: Method,
    uri: Uri,
    body: Bytes,
) -> Response {
    post(&shared, &method, &uri, |wechat, params, _| {
        let app = wechat.check_account_token(params.non_empty("access_token"))?;
        let message: TemplateMessage = parse_json_body(&body)?;
        let user = wechat
            .users
            .get_in(app, &message.touser)
            .ok_or(WechatErrorReply::new(40003))?;
        if message.template_id.is_empty() {
            return Err(WechatErrorReply::new(40037));
        }
        if !user.is_subscribed() {
            return Err(WechatErrorReply::new(43004));
        }
        // The id has more than 32 bits, as WeChat's own message ids have.
        Ok(MessageSent {
            errcode: 0,
            errmsg: "ok",
            msgid: fastrand::u64(1 << 40..1 << 41),
        })
    })
}

#[derive(Serialize)]
struct IpList {
    ip_list: [&'static str; 2],
}

/// Handles `GET /cgi-bin/get_api_domain_ip?access_token=` and `getcallbackip`, which return two IP
/// addresses that are reserved for documentation.
pub(super) async fn get_api_domain_ip(
    shared: SharedSimulator,
    method: Method,
    uri: Uri,
) -> Response {
    get(&shared, &method, &uri, |wechat, params, _| {
        wechat.check_account_token(params.non_empty("access_token"))?;
        Ok(IpList {
            ip_list: ["203.0.113.10", "203.0.113.11"],
        })
    })
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ClearQuotaRequest {
    appid: String,
    appsecret: String,
}

/// Handles `POST /cgi-bin/clear_quota?access_token=` with the appid in a JSON body, which resets
/// the counts of calls. The token and the appid must be of the same account.
pub(super) async fn clear_quota(
    shared: SharedSimulator,
    method: Method,
    uri: Uri,
    body: Bytes,
) -> Response {
    post(&shared, &method, &uri, |wechat, params, now| {
        let app = wechat.check_account_token(params.non_empty("access_token"))?;
        let request: ClearQuotaRequest = parse_json_body(&body)?;
        if wechat.find_app(non_empty(&request.appid))? != app {
            return Err(WechatErrorReply::new(40013));
        }
        wechat.apps[app]
            .account_tokens
            .clear_quota(now)
            .map(|()| EmptyReply::OK)
    })
}

/// Handles `POST /cgi-bin/clear_quota/v2` with appid and appsecret in the query or in a JSON body.
/// WeChat's documentation shows the query in an example and the body in a table.
pub(super) async fn clear_quota_v2(
    shared: SharedSimulator,
    method: Method,
    uri: Uri,
    body: Bytes,
) -> Response {
    post(&shared, &method, &uri, |wechat, params, now| {
        let request: ClearQuotaRequest = if body.is_empty() {
            ClearQuotaRequest::default()
        } else {
            parse_json_body(&body)?
        };
        let app = wechat.find_app(params.non_empty("appid").or(non_empty(&request.appid)))?;
        wechat.check_secret(
            app,
            params
                .non_empty("appsecret")
                .or(non_empty(&request.appsecret)),
        )?;
        wechat.apps[app]
            .account_tokens
            .clear_quota(now)
            .map(|()| EmptyReply::OK)
    })
}
