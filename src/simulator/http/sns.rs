//! `/sns`: the calls that a user's code and tokens are for.

use std::time::Duration;

use axum::{
    http::{Method, Uri},
    response::Response,
};
use serde::Serialize;

use super::{Sim, params::Params, reply};
use crate::simulator::{refusal::Refusal, user_tokens::Pair, users::SimulatedUser, world::World};

/// The reply of both token calls. A success has no errcode.
#[derive(Debug, Serialize)]
pub(super) struct TokenReply {
    access_token: String,
    expires_in: u64,
    refresh_token: String,
    openid: String,
    scope: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_snapshotuser: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unionid: Option<String>,
}

impl TokenReply {
    fn new(pair: Pair, now: Duration) -> Self {
        Self {
            expires_in: pair.access_expires_at.saturating_sub(now).as_secs(),
            access_token: pair.access_token,
            refresh_token: pair.refresh_token,
            openid: pair.grant.openid,
            scope: pair.grant.scope,
            is_snapshotuser: None,
            unionid: None,
        }
    }

    /// A code exchange tells more than a refresh: the mark of a snapshot user, and, where the
    /// user agreed to show the profile, the unionid.
    pub(super) fn of_exchange(pair: Pair, world: &World, now: Duration) -> Self {
        let user = world.users.get(&pair.grant.openid);
        let unionid = user
            .filter(|_| shows_profile(&pair.grant.scope))
            .and_then(SimulatedUser::union)
            .map(str::to_owned);
        let is_snapshotuser = pair.grant.snapshot.then_some(1);
        Self {
            is_snapshotuser,
            unionid,
            ..Self::new(pair, now)
        }
    }
}

/// Whether a token of this scope opens `sns/userinfo`.
fn shows_profile(scope: &str) -> bool {
    scope
        .split(',')
        .any(|scope| matches!(scope, "snsapi_userinfo" | "snsapi_login"))
}

/// Runs one call on the world, under its lock.
fn run<T, F>(shared: &Sim, method: &Method, uri: &Uri, call: F) -> Response
where
    T: Serialize,
    F: FnOnce(&mut World, &Params, Duration) -> Result<T, Refusal>,
{
    let mut world = shared.world();
    let now = world.now();
    let result = if *method == Method::GET {
        call(&mut world, &Params::of(uri), now)
    } else {
        Err(Refusal::new(43001))
    };
    reply::answer(uri.path(), result, now)
}

/// `GET /sns/oauth2/access_token?appid=&secret=&code=&grant_type=authorization_code`.
pub(super) async fn access_token(shared: Sim, method: Method, uri: Uri) -> Response {
    run(&shared, &method, &uri, |world, params, now| {
        world.check_app_id(params.get("appid"))?;
        world.check_secret(params.get("secret"))?;
        check_grant_type(params, "authorization_code")?;
        let code = params.get("code").ok_or(Refusal::new(41008))?;
        let World {
            user_tokens,
            settings,
            ..
        } = world;
        let pair = user_tokens.exchange(code, settings, now)?;
        Ok(TokenReply::of_exchange(pair, world, now))
    })
}

/// `GET /sns/oauth2/refresh_token?appid=&grant_type=refresh_token&refresh_token=`, which takes no
/// secret.
pub(super) async fn refresh_token(shared: Sim, method: Method, uri: Uri) -> Response {
    run(&shared, &method, &uri, |world, params, now| {
        world.check_app_id(params.get("appid"))?;
        check_grant_type(params, "refresh_token")?;
        let refresh_token = params.get("refresh_token").ok_or(Refusal::new(41003))?;
        let World {
            user_tokens,
            settings,
            ..
        } = world;
        let pair = user_tokens.refresh(refresh_token, settings, now)?;
        Ok(TokenReply::new(pair, now))
    })
}

fn check_grant_type(params: &Params, expected: &str) -> Result<(), Refusal> {
    if params.get("grant_type") == Some(expected) {
        Ok(())
    } else {
        Err(Refusal::new(40002))
    }
}

/// The live pair behind a call in the name of a user.
fn authorized<'a>(world: &'a World, params: &Params, now: Duration) -> Result<&'a Pair, Refusal> {
    let access_token = params.get("access_token").ok_or(Refusal::new(41001))?;
    let openid = params.get("openid").ok_or(Refusal::new(41009))?;
    if world.account_tokens.issued(access_token) {
        // The three kinds of access tokens are never interchangeable.
        return Err(Refusal::new(40001));
    }
    world.user_tokens.check(access_token, openid, now)
}

/// The fields of `sns/userinfo`. Sex and region have carried no data since October 2021.
#[derive(Serialize)]
struct UserInfo {
    openid: String,
    nickname: String,
    sex: u8,
    language: &'static str,
    city: &'static str,
    province: &'static str,
    country: &'static str,
    headimgurl: String,
    privilege: [String; 0],
    #[serde(skip_serializing_if = "Option::is_none")]
    unionid: Option<String>,
}

/// `GET /sns/userinfo?access_token=&openid=&lang=`.
pub(super) async fn userinfo(shared: Sim, method: Method, uri: Uri) -> Response {
    run(&shared, &method, &uri, |world, params, now| {
        let pair = authorized(world, params, now)?;
        if !shows_profile(&pair.grant.scope) {
            return Err(Refusal::new(48001));
        }
        let user = world
            .users
            .get(&pair.grant.openid)
            .ok_or(Refusal::new(40003))?;
        Ok(UserInfo {
            openid: user.openid().to_owned(),
            nickname: user.name().to_owned(),
            sex: 0,
            // The language of place names, which are empty: it changes nothing else.
            language: match params.get("lang") {
                Some("zh_TW") => "zh_TW",
                Some("en") => "en",
                _ => "zh_CN",
            },
            city: "",
            province: "",
            country: "",
            headimgurl: avatar(user),
            privilege: [],
            unionid: user.union().map(str::to_owned),
        })
    })
}

/// An address like those of real avatars, which end in the size (132 pixels). Nothing is there.
fn avatar(user: &SimulatedUser) -> String {
    format!(
        "https://thirdwx.qlogo.cn/mmopen/vi_32/{}/132",
        user.openid()
    )
}

/// Success without content.
#[derive(Serialize)]
pub(super) struct Done {
    errcode: i64,
    errmsg: &'static str,
}

impl Done {
    pub(super) const OK: Self = Self {
        errcode: 0,
        errmsg: "ok",
    };
}

/// `GET /sns/auth?access_token=&openid=`.
pub(super) async fn auth(shared: Sim, method: Method, uri: Uri) -> Response {
    run(&shared, &method, &uri, |world, params, now| {
        authorized(world, params, now).map(|_| Done::OK)
    })
}
