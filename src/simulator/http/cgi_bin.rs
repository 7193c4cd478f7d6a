//! `/cgi-bin`: the account's tokens and ticket, and some calls that use them.

use std::time::Duration;

use axum::{
    body::Bytes,
    extract::ConnectInfo,
    http::{Method, Uri},
    response::Response,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Sim, listener::Peer, params::Params, reply, sns::Done};
use crate::simulator::{account_tokens::Handed, refusal::Refusal, world::World};

/// The method that a call demands, and the errcode for another one.
#[derive(Clone, Copy)]
enum Verb {
    Get,
    Post,
}

impl Verb {
    fn check(self, method: &Method) -> Result<(), Refusal> {
        match self {
            Self::Get if *method != Method::GET => Err(Refusal::new(43001)),
            Self::Post if *method != Method::POST => Err(Refusal::new(43002)),
            Self::Get | Self::Post => Ok(()),
        }
    }
}

/// Runs one call on the world, under its lock.
fn run<T, F>(shared: &Sim, (verb, method): (Verb, &Method), uri: &Uri, call: F) -> Response
where
    T: Serialize,
    F: FnOnce(&mut World, &Params, Duration) -> Result<T, Refusal>,
{
    let mut world = shared.world();
    let now = world.now();
    let result = verb
        .check(method)
        .and_then(|()| call(&mut world, &Params::of(uri), now));
    reply::answer(uri.path(), result, now)
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    if body.is_empty() {
        return Err(Refusal::new(44002));
    }
    serde_json::from_slice(body).map_err(|_| Refusal::new(47001))
}

/// An empty string counts as missing.
fn given(value: &str) -> Option<&str> {
    Some(value).filter(|value| !value.is_empty())
}

/// What both token calls check before they look at a token.
fn check_caller(
    world: &World,
    (app_id, secret, grant_type): (Option<&str>, Option<&str>, Option<&str>),
    peer: &Peer,
) -> Result<(), Refusal> {
    if grant_type != Some("client_credential") {
        return Err(Refusal::new(40002));
    }
    world.check_app_id(app_id)?;
    world.check_secret(secret)?;
    world.check_ip(peer.ip())?;
    if world.settings.account_frozen {
        Err(Refusal::new(50007))
    } else {
        Ok(())
    }
}

#[derive(Serialize)]
struct TokenReply {
    access_token: String,
    expires_in: u64,
}

impl From<Handed> for TokenReply {
    fn from(handed: Handed) -> Self {
        Self {
            access_token: handed.access_token,
            expires_in: handed.expires_in.as_secs(),
        }
    }
}

/// `GET /cgi-bin/token?grant_type=client_credential&appid=&secret=`.
pub(super) async fn token(
    shared: Sim,
    ConnectInfo(peer): ConnectInfo<Peer>,
    method: Method,
    uri: Uri,
) -> Response {
    run(&shared, (Verb::Get, &method), &uri, |world, params, now| {
        let caller = (
            params.get("appid"),
            params.get("secret"),
            params.get("grant_type"),
        );
        check_caller(world, caller, &peer)?;
        let World {
            account_tokens,
            settings,
            ..
        } = world;
        account_tokens.token(settings, now).map(TokenReply::from)
    })
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StableRequest {
    grant_type: String,
    appid: String,
    secret: String,
    force_refresh: bool,
}

/// `POST /cgi-bin/stable_token` with a JSON body.
pub(super) async fn stable_token(
    shared: Sim,
    ConnectInfo(peer): ConnectInfo<Peer>,
    method: Method,
    uri: Uri,
    body: Bytes,
) -> Response {
    run(&shared, (Verb::Post, &method), &uri, |world, _, now| {
        let request: StableRequest = read(&body)?;
        let StableRequest {
            grant_type,
            appid,
            secret,
            force_refresh,
        } = &request;
        check_caller(
            world,
            (given(appid), given(secret), given(grant_type)),
            &peer,
        )?;
        let World {
            account_tokens,
            settings,
            ..
        } = world;
        account_tokens
            .stable_token(*force_refresh, settings, now)
            .map(TokenReply::from)
    })
}

#[derive(Serialize)]
struct TicketReply {
    errcode: i64,
    errmsg: &'static str,
    ticket: String,
    expires_in: u64,
}

/// `GET /cgi-bin/ticket/getticket?access_token=&type=jsapi`.
pub(super) async fn getticket(shared: Sim, method: Method, uri: Uri) -> Response {
    run(&shared, (Verb::Get, &method), &uri, |world, params, now| {
        world.check_account_token(params.get("access_token"))?;
        let kind = params
            .get("type")
            .filter(|kind| matches!(*kind, "jsapi" | "wx_card"));
        let kind = kind.ok_or(Refusal::new(40097))?;
        let World {
            account_tokens,
            settings,
            ..
        } = world;
        Ok(TicketReply {
            errcode: 0,
            errmsg: "ok",
            ticket: account_tokens.ticket(kind, settings, now),
            // The full life, not what is left of it: that is what WeChat says.
            expires_in: settings.ticket_lifetime.as_secs(),
        })
    })
}

/// When everybody began to follow the account, in Unix seconds.
const SUBSCRIBED_AT: u64 = 1_700_000_000;

/// The fields of `cgi-bin/user/info`. Of somebody who does not follow the account, WeChat tells
/// `subscribe: 0` and the ids only.
#[derive(Serialize)]
struct UserInfo {
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

/// `GET /cgi-bin/user/info?access_token=&openid=&lang=`.
pub(super) async fn user_info(shared: Sim, method: Method, uri: Uri) -> Response {
    run(&shared, (Verb::Get, &method), &uri, |world, params, _| {
        world.check_account_token(params.get("access_token"))?;
        let openid = params.get("openid").ok_or(Refusal::new(41009))?;
        let user = world.users.get(openid).ok_or(Refusal::new(40003))?;
        let follows = user.is_subscribed();
        Ok(UserInfo {
            subscribe: u8::from(follows),
            openid: user.openid().to_owned(),
            language: follows.then_some("zh_CN"),
            subscribe_time: follows.then_some(SUBSCRIBED_AT),
            unionid: user.union().map(str::to_owned),
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

/// `POST /cgi-bin/message/template/send?access_token=` with a JSON body. Any template exists.
pub(super) async fn template_send(shared: Sim, method: Method, uri: Uri, body: Bytes) -> Response {
    run(&shared, (Verb::Post, &method), &uri, |world, params, _| {
        world.check_account_token(params.get("access_token"))?;
        let message: TemplateMessage = read(&body)?;
        let user = world
            .users
            .get(&message.touser)
            .ok_or(Refusal::new(40003))?;
        if message.template_id.is_empty() {
            return Err(Refusal::new(40037));
        }
        if !user.is_subscribed() {
            return Err(Refusal::new(43004));
        }
        // WeChat's own ids need more than 32 bits.
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

/// `GET /cgi-bin/get_api_domain_ip?access_token=` and `getcallbackip`, which have the same form,
/// with addresses reserved for documentation.
pub(super) async fn get_api_domain_ip(shared: Sim, method: Method, uri: Uri) -> Response {
    run(&shared, (Verb::Get, &method), &uri, |world, params, _| {
        world.check_account_token(params.get("access_token"))?;
        Ok(IpList {
            ip_list: ["203.0.113.10", "203.0.113.11"],
        })
    })
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ClearRequest {
    appid: String,
    appsecret: String,
}

/// `POST /cgi-bin/clear_quota?access_token=` with the appid in a JSON body.
pub(super) async fn clear_quota(shared: Sim, method: Method, uri: Uri, body: Bytes) -> Response {
    run(
        &shared,
        (Verb::Post, &method),
        &uri,
        |world, params, now| {
            world.check_account_token(params.get("access_token"))?;
            let request: ClearRequest = read(&body)?;
            world.check_app_id(given(&request.appid))?;
            world.account_tokens.clear_quota(now).map(|()| Done::OK)
        },
    )
}

/// `POST /cgi-bin/clear_quota/v2`, with appid and appsecret in the query, as the documentation's
/// example has it, or in a JSON body, as its table has it.
pub(super) async fn clear_quota_v2(shared: Sim, method: Method, uri: Uri, body: Bytes) -> Response {
    run(
        &shared,
        (Verb::Post, &method),
        &uri,
        |world, params, now| {
            let request: ClearRequest = if body.is_empty() {
                ClearRequest::default()
            } else {
                read(&body)?
            };
            world.check_app_id(params.get("appid").or(given(&request.appid)))?;
            world.check_secret(params.get("appsecret").or(given(&request.appsecret)))?;
            world.account_tokens.clear_quota(now).map(|()| Done::OK)
        },
    )
}
