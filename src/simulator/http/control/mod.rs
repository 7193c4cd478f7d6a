//! The control routes (`/_sim`), with which tests in other languages control the simulator.

mod apps;
mod faults;
#[cfg(feature = "platform")]
mod platform;
mod reply;

use std::time::Duration;

use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::json;

use self::{
    apps::{app_in_query, find_app},
    reply::{ControlError, parse_json_body},
};
use super::{route::SharedSimulator, sns::UserTokenReply};
use crate::simulator::{
    app_index::AppIndex, apps::AppKind, clock::MAX_OFFSET, settings::SettingsPatch,
    state::SharedState, users::SimulatedUser,
};

pub(super) fn routes() -> Router<std::sync::Arc<SharedState>> {
    let routes = Router::new();
    #[cfg(feature = "platform")]
    let routes = routes.route(
        "/_sim/platform",
        get(platform::platforms).post(platform::steer),
    );
    routes
        .route("/_sim/apps", get(apps::apps).post(apps::add_app))
        .route("/_sim/calls", get(calls).delete(reset_calls))
        .route(
            "/_sim/faults",
            get(faults::faults)
                .post(faults::add_fault)
                .delete(faults::clear_faults),
        )
        .route("/_sim/clock", get(clock).post(advance))
        .route("/_sim/settings", get(settings).post(change_settings))
        .route("/_sim/users", get(users).post(add_user))
        .route("/_sim/sign_in", post(sign_in))
        .route("/_sim/password_change", post(change_password))
        .route("/_sim/{*path}", axum::routing::any(unknown_route))
}

async fn unknown_route() -> Response {
    let routes = "there is no such control route, or not with this method; there are apps, \
                  calls, faults, clock, settings, users, sign_in, password_change and, with the \
                  feature `platform`, platform";
    (StatusCode::NOT_FOUND, Json(json!({ "error": routes }))).into_response()
}

async fn calls(State(shared): SharedSimulator, uri: Uri) -> Result<Response, ControlError> {
    let wechat = shared.lock();
    let calls = match app_in_query(&wechat, &uri)? {
        Some(app) => &wechat.apps[app].calls,
        None => &wechat.calls,
    };
    Ok(Json(calls.all()).into_response())
}

async fn reset_calls(State(shared): SharedSimulator) -> StatusCode {
    shared.lock().reset_calls();
    StatusCode::NO_CONTENT
}

async fn clock(State(shared): SharedSimulator) -> Response {
    let wechat = shared.lock();
    let (now, offset) = (wechat.now().as_secs(), wechat.clock.offset().as_secs());
    Json(json!({ "now_secs": now, "advanced_secs": offset })).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AdvanceRequest {
    advance_secs: u64,
}

async fn advance(shared: SharedSimulator, body: Bytes) -> Result<Response, ControlError> {
    let by = Duration::from_secs(parse_json_body::<AdvanceRequest>(&body)?.advance_secs);
    if by > MAX_OFFSET {
        return Err("`advance_secs` is longer than a hundred years".into());
    }
    shared.advance(by);
    Ok(clock(shared).await)
}

async fn settings(State(shared): SharedSimulator) -> Response {
    Json(shared.lock().settings.to_json()).into_response()
}

async fn change_settings(shared: SharedSimulator, body: Bytes) -> Result<Response, ControlError> {
    let change: SettingsPatch = parse_json_body(&body)?;
    change.apply(&mut shared.lock().settings)?;
    Ok(settings(shared).await)
}

/// Returns all users. With the parameter `app_id`, their openids are those of that app.
async fn users(State(shared): SharedSimulator, uri: Uri) -> Result<Response, ControlError> {
    let mut wechat = shared.lock();
    let app = app_in_query(&wechat, &uri)?.unwrap_or(AppIndex::FIRST);
    let users = wechat.users.all().to_vec();
    let users: Vec<_> = users
        .into_iter()
        .map(|user| {
            let openid = wechat.openid_in(app, user.openid());
            user.with_openid(openid)
        })
        .collect();
    Ok(Json(users).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UserJson {
    openid: Option<String>,
    nickname: Option<String>,
    unionid: Option<String>,
    snapshot: Option<bool>,
    subscribed: Option<bool>,
}

async fn add_user(State(shared): SharedSimulator, body: Bytes) -> Result<Response, ControlError> {
    let form: UserJson = parse_json_body(&body)?;
    let mut user = form
        .openid
        .map_or_else(SimulatedUser::random, SimulatedUser::new);
    check_openid(user.openid())?;
    if let Some(nickname) = form.nickname {
        user = user.nickname(nickname);
    }
    if let Some(unionid) = form.unionid {
        user = user.unionid(unionid);
    }
    let user = user
        .snapshot(form.snapshot.unwrap_or(false))
        .subscribed(form.subscribed.unwrap_or(true));
    let mut wechat = shared.lock();
    wechat.users.set_active(user.openid());
    wechat.users.insert_or_replace(user.clone());
    Ok(Json(user).into_response())
}

fn check_openid(openid: &str) -> Result<(), ControlError> {
    if openid.is_empty() {
        Err("`openid` is empty".into())
    } else {
        Ok(())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SignInRequest {
    openid: String,
    scope: Option<String>,
    app_id: Option<String>,
}

async fn sign_in(State(shared): SharedSimulator, body: Bytes) -> Result<Response, ControlError> {
    let SignInRequest {
        openid,
        scope,
        app_id,
    } = parse_json_body(&body)?;
    check_openid(&openid)?;
    let mut wechat = shared.lock();
    let now = wechat.now();
    let app = match app_id {
        Some(app_id) => find_app(&wechat, &app_id)?,
        None => AppIndex::FIRST,
    };
    let scope = scope.as_deref().unwrap_or(match wechat.apps[app].kind {
        AppKind::Account => "snsapi_userinfo",
        AppKind::Website => "snsapi_login",
        #[cfg(feature = "platform")]
        AppKind::Platform => return Err("a third-party platform has no users".into()),
    });
    let pair = wechat.sign_in(app, &openid, scope);
    Ok(Json(UserTokenReply::from_code_exchange(app, pair, &wechat, now)).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PasswordChangeRequest {
    openid: String,
}

async fn change_password(
    State(shared): SharedSimulator,
    body: Bytes,
) -> Result<StatusCode, ControlError> {
    let PasswordChangeRequest { openid } = parse_json_body(&body)?;
    shared.lock().change_password(&openid);
    Ok(StatusCode::NO_CONTENT)
}
