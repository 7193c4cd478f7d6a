//! The calls for users (`/sns`), which carry a login code or a user's token.

use std::time::Duration;

use axum::{
    http::{Method, Uri},
    response::Response,
};
use serde::Serialize;

use super::{
    params::Params,
    reply::EmptyReply,
    route::{SharedSimulator, get},
};
use crate::simulator::{
    app_index::AppIndex, error_reply::WechatErrorReply, state::SimulatedWechat,
    user_tokens::TokenPair,
};

/// The reply of a code exchange and of a refresh. A successful reply has no errcode.
#[derive(Debug, Serialize)]
pub(super) struct UserTokenReply {
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

impl UserTokenReply {
    pub(super) fn new(pair: TokenPair, now: Duration) -> Self {
        Self {
            expires_in: pair.access_expires_at.saturating_sub(now).as_secs(),
            access_token: pair.access_token,
            refresh_token: pair.refresh_token,
            openid: pair.authorization.openid,
            scope: pair.authorization.scope,
            is_snapshotuser: None,
            unionid: None,
        }
    }

    /// Creates the reply of a code exchange. Unlike the reply of a refresh, this reply marks a
    /// snapshot user, and contains the unionid if the scope covers the profile.
    pub(super) fn from_code_exchange(
        app: AppIndex,
        pair: TokenPair,
        wechat: &SimulatedWechat,
        now: Duration,
    ) -> Self {
        let user = wechat.users.get_in(app, &pair.authorization.openid);
        let unionid = user
            .filter(|_| grants_profile(&pair.authorization.scope))
            .and_then(|user| user.unionid_in(&wechat.apps[app]));
        let is_snapshotuser = pair.authorization.snapshot.then_some(1);
        Self {
            is_snapshotuser,
            unionid,
            ..Self::new(pair, now)
        }
    }
}

/// Returns `true` if a token of this scope may call `sns/userinfo`.
fn grants_profile(scope: &str) -> bool {
    scope
        .split(',')
        .any(|scope| matches!(scope, "snsapi_userinfo" | "snsapi_login"))
}

/// Handles `GET /sns/oauth2/access_token?appid=&secret=&code=&grant_type=authorization_code`, which
/// exchanges a login code of this account or website app for tokens.
pub(super) async fn access_token(shared: SharedSimulator, method: Method, uri: Uri) -> Response {
    get(&shared, &method, &uri, |wechat, params, now| {
        let app = wechat.find_app(params.non_empty("appid"))?;
        wechat.check_secret(app, params.non_empty("secret"))?;
        check_grant_type(params, "authorization_code")?;
        let code = params
            .non_empty("code")
            .ok_or(WechatErrorReply::new(41008))?;
        let pair = wechat.exchange_code(app, code, None, now)?;
        Ok(UserTokenReply::from_code_exchange(app, pair, wechat, now))
    })
}

/// Handles `GET /sns/oauth2/refresh_token?appid=&grant_type=refresh_token&refresh_token=`, which
/// refreshes a user's tokens without the AppSecret.
pub(super) async fn refresh_token(shared: SharedSimulator, method: Method, uri: Uri) -> Response {
    get(&shared, &method, &uri, |wechat, params, now| {
        let app = wechat.find_app(params.non_empty("appid"))?;
        check_grant_type(params, "refresh_token")?;
        let refresh_token = params
            .non_empty("refresh_token")
            .ok_or(WechatErrorReply::new(41003))?;
        let pair = wechat.refresh_pair(app, refresh_token, None, now)?;
        Ok(UserTokenReply::new(pair, now))
    })
}

pub(super) fn check_grant_type(params: &Params, expected: &str) -> Result<(), WechatErrorReply> {
    if params.non_empty("grant_type") == Some(expected) {
        Ok(())
    } else {
        Err(WechatErrorReply::new(40002))
    }
}

/// Returns the pair of tokens to which the access token of a call belongs, with its app. Returns an error if the
/// access token is invalid or the parameter `openid` is another user's.
fn valid_pair<'a>(
    wechat: &'a SimulatedWechat,
    params: &Params,
    now: Duration,
) -> Result<(AppIndex, &'a TokenPair), WechatErrorReply> {
    let access_token = params
        .non_empty("access_token")
        .ok_or(WechatErrorReply::new(41001))?;
    let openid = params
        .non_empty("openid")
        .ok_or(WechatErrorReply::new(41009))?;
    wechat.check_user_token(access_token, openid, now)
}

/// The fields of the reply of `sns/userinfo`. Sex and region have carried no data since October
/// 2021.
#[derive(Serialize)]
struct ProfileReply {
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

/// Handles `GET /sns/userinfo?access_token=&openid=&lang=`, which returns the profile of a user.
pub(super) async fn userinfo(shared: SharedSimulator, method: Method, uri: Uri) -> Response {
    get(&shared, &method, &uri, |wechat, params, now| {
        let (app, pair) = valid_pair(wechat, params, now)?;
        if !grants_profile(&pair.authorization.scope) {
            return Err(WechatErrorReply::new(48001));
        }
        let user = wechat
            .users
            .get_in(app, &pair.authorization.openid)
            .ok_or(WechatErrorReply::new(40003))?;
        Ok(ProfileReply {
            openid: pair.authorization.openid.clone(),
            nickname: user.name().to_owned(),
            sex: 0,
            // The language concerns only the names of places, which are empty here.
            language: match params.non_empty("lang") {
                Some("zh_TW") => "zh_TW",
                Some("en") => "en",
                _ => "zh_CN",
            },
            city: "",
            province: "",
            country: "",
            headimgurl: avatar_url(&pair.authorization.openid),
            privilege: [],
            unionid: user.unionid_in(&wechat.apps[app]),
        })
    })
}

/// Returns a URL like that of a real avatar, which ends in the size (132 pixels). No image exists
/// at this URL.
fn avatar_url(openid: &str) -> String {
    format!("https://thirdwx.qlogo.cn/mmopen/vi_32/{openid}/132")
}

/// Handles `GET /sns/auth?access_token=&openid=`, which checks a user's access token.
pub(super) async fn auth(shared: SharedSimulator, method: Method, uri: Uri) -> Response {
    get(&shared, &method, &uri, |wechat, params, now| {
        valid_pair(wechat, params, now).map(|_| EmptyReply::OK)
    })
}
