//! The control routes (`/_sim`), with which tests in other languages control the simulator.

use std::{fmt::Display, time::Duration};

use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::json;

use super::{
    params::Params,
    route::{CONTROL_PREFIX, SharedSimulator},
    sns::UserTokenReply,
};
use crate::simulator::{
    apps::{App, AppIndex, AppKind},
    clock::MAX_OFFSET,
    faults::Fault,
    settings::SettingsPatch,
    state::{SharedState, SimulatedWechat},
    users::SimulatedUser,
};

pub(super) fn routes() -> Router<std::sync::Arc<SharedState>> {
    Router::new()
        .route("/_sim/apps", get(apps).post(add_app))
        .route("/_sim/calls", get(calls).delete(reset_calls))
        .route(
            "/_sim/faults",
            get(faults).post(add_fault).delete(clear_faults),
        )
        .route("/_sim/clock", get(clock).post(advance))
        .route("/_sim/settings", get(settings).post(change_settings))
        .route("/_sim/users", get(users).post(add_user))
        .route("/_sim/sign_in", post(sign_in))
        .route("/_sim/password_change", post(change_password))
        .route("/_sim/{*path}", axum::routing::any(unknown_route))
}

/// The error for an invalid control request: HTTP 400 with a sentence in the field `error`.
#[derive(Debug)]
struct ControlError(String);

impl<T: Display> From<T> for ControlError {
    fn from(reason: T) -> Self {
        Self(reason.to_string())
    }
}

impl IntoResponse for ControlError {
    fn into_response(self) -> Response {
        let body = Json(json!({ "error": self.0 }));
        (StatusCode::BAD_REQUEST, body).into_response()
    }
}

/// Parses a body as JSON and ignores the content type, because `curl -d` sends the content type of
/// a form.
fn parse_json_body<T: DeserializeOwned>(body: &[u8]) -> Result<T, ControlError> {
    serde_json::from_slice(body)
        .map_err(|error| ControlError(format!("the body is not what this route takes: {error}")))
}

async fn unknown_route() -> Response {
    let routes = "there is no such control route, or not with this method; there are apps, \
                  calls, faults, clock, settings, users, sign_in and password_change";
    (StatusCode::NOT_FOUND, Json(json!({ "error": routes }))).into_response()
}

/// The JSON form of an account or website app.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AppJson {
    app_id: String,
    secret: String,
    #[serde(default = "account_kind")]
    kind: AppKind,
    #[serde(default = "unionid_default")]
    returns_unionid: bool,
    #[serde(default)]
    redirect_hosts: Option<Vec<String>>,
}

fn account_kind() -> AppKind {
    AppKind::Account
}

fn unionid_default() -> bool {
    true
}

impl AppJson {
    fn from_app(app: &App) -> Self {
        Self {
            app_id: app.app_id.clone(),
            secret: app.secret.clone(),
            kind: app.kind,
            returns_unionid: app.returns_unionid,
            redirect_hosts: app.redirect_hosts.clone(),
        }
    }
}

async fn apps(State(shared): SharedSimulator) -> Response {
    let apps: Vec<_> = shared.lock().apps.iter().map(AppJson::from_app).collect();
    Json(apps).into_response()
}

async fn add_app(State(shared): SharedSimulator, body: Bytes) -> Result<Response, ControlError> {
    let AppJson {
        app_id,
        secret,
        kind,
        returns_unionid,
        redirect_hosts,
    } = parse_json_body(&body)?;
    if app_id.is_empty() || secret.is_empty() {
        return Err("`app_id` or `secret` is empty".into());
    }
    let mut wechat = shared.lock();
    let index = wechat.apps.insert_or_replace(app_id, secret, kind);
    let app = &mut wechat.apps[index];
    app.returns_unionid = returns_unionid;
    app.redirect_hosts = redirect_hosts;
    Ok(Json(AppJson::from_app(app)).into_response())
}

async fn calls(State(shared): SharedSimulator, uri: Uri) -> Result<Response, ControlError> {
    let wechat = shared.lock();
    let calls = match app_in_query(&wechat, &uri)? {
        Some(app) => &wechat.apps[app].calls,
        None => &wechat.calls,
    };
    Ok(Json(calls.all()).into_response())
}

/// Returns the app that the parameter `app_id` names, if the query has such a parameter.
fn app_in_query(wechat: &SimulatedWechat, uri: &Uri) -> Result<Option<AppIndex>, ControlError> {
    let params = Params::from_query(uri);
    let app_id = params.raw("app_id");
    app_id.map(|app_id| find_app(wechat, app_id)).transpose()
}

async fn reset_calls(State(shared): SharedSimulator) -> StatusCode {
    shared.lock().reset_calls();
    StatusCode::NO_CONTENT
}

/// The JSON form of a [`Fault`] in control requests and their replies.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultJson {
    path: String,
    #[serde(default)]
    app_id: Option<String>,
    #[serde(default)]
    delay_ms: Option<u64>,
    #[serde(default)]
    errcode: Option<i64>,
    #[serde(default)]
    status: Option<u16>,
    #[serde(default)]
    body: Option<String>,
    /// The body of the faulty reply in base64, for a body that is not text.
    #[serde(default)]
    body_base64: Option<String>,
    #[serde(default)]
    reset: bool,
    #[serde(default)]
    hang: bool,
    #[serde(default)]
    lose_reply: bool,
    #[serde(default)]
    times: Option<u64>,
}

impl FaultJson {
    fn from_fault(fault: &Fault) -> Self {
        let effect = &fault.options;
        let text = effect
            .body
            .as_ref()
            .map(|body| String::from_utf8(body.clone()));
        let (body, body_base64) = match text {
            None => (None, None),
            Some(Ok(text)) => (Some(text), None),
            Some(Err(bytes)) => (None, Some(BASE64.encode(bytes.as_bytes()))),
        };
        Self {
            path: fault.path.clone(),
            app_id: fault.app_id.clone(),
            delay_ms: (!fault.delay.is_zero())
                .then(|| u64::try_from(fault.delay.as_millis()).unwrap_or(u64::MAX)),
            errcode: effect.errcode,
            status: effect.status,
            body,
            body_base64,
            reset: effect.reset,
            hang: effect.hang,
            lose_reply: effect.lose_reply,
            times: fault.times,
        }
    }

    /// Converts the JSON form into a fault.
    ///
    /// # Errors
    /// The path, status, delay, number of times or base64 is invalid, the fault does nothing, or
    /// its effects exclude each other.
    fn into_fault(self) -> Result<Fault, ControlError> {
        let answers = self.errcode.is_some() || self.status.is_some();
        let bodies = [
            self.body.is_some(),
            self.body_base64.is_some(),
            self.errcode.is_some(),
        ];
        let breaks = [self.reset, self.hang, self.lose_reply];
        let number_of = |flags: &[bool]| flags.iter().filter(|flag| **flag).count();
        let (bodies, breaks) = (number_of(&bodies), number_of(&breaks));
        if self.path != "*" && (!self.path.starts_with('/') || self.path.contains('?')) {
            return Err("`path` must be a path without a query, or \"*\" for all".into());
        }
        if self.path.starts_with(CONTROL_PREFIX) {
            return Err("control routes have no faults".into());
        }
        if self.delay_ms.is_none() && !answers && bodies + breaks == 0 {
            return Err(
                "the fault does nothing: give `delay_ms`, `errcode`, `status`, `body`, \
                        `reset`, `hang` or `lose_reply`"
                    .into(),
            );
        }
        if bodies > 1 || breaks > 1 || (breaks == 1 && (answers || bodies > 0)) {
            return Err(
                "only one of `errcode`, `body`, `body_base64`, `reset`, `hang` and \
                        `lose_reply` can happen, and `status` goes with the first three"
                    .into(),
            );
        }
        if self
            .status
            .is_some_and(|status| !(200..600).contains(&status))
        {
            return Err("`status` must be from 200 to 599".into());
        }
        if self.times == Some(0) {
            return Err("`times` must be at least 1; leave it out for all calls".into());
        }
        let mut fault = Fault::on(self.path);
        fault.app_id = self.app_id;
        fault.delay = Duration::from_millis(self.delay_ms.unwrap_or(0));
        if fault.delay > Duration::from_secs(24 * 3600) {
            return Err("`delay_ms` is longer than a day".into());
        }
        fault.times = self.times;
        fault.options.reset = self.reset;
        fault.options.hang = self.hang;
        fault.options.lose_reply = self.lose_reply;
        fault.options.errcode = self.errcode;
        fault.options.status = self.status;
        fault.options.body =
            match (self.body, self.body_base64) {
                (Some(text), _) => Some(text.into_bytes()),
                (None, Some(coded)) => Some(BASE64.decode(coded).map_err(|error| {
                    ControlError(format!("`body_base64` is no Base64: {error}"))
                })?),
                (None, None) => None,
            };
        Ok(fault)
    }
}

async fn faults(State(shared): SharedSimulator) -> Response {
    let faults: Vec<_> = shared
        .lock()
        .faults
        .all()
        .iter()
        .map(FaultJson::from_fault)
        .collect();
    Json(faults).into_response()
}

async fn add_fault(State(shared): SharedSimulator, body: Bytes) -> Result<Response, ControlError> {
    let fault = parse_json_body::<FaultJson>(&body)?.into_fault()?;
    let shown = FaultJson::from_fault(&fault);
    shared.lock().faults.add(fault);
    Ok(Json(shown).into_response())
}

async fn clear_faults(State(shared): SharedSimulator) -> StatusCode {
    shared.lock().faults.clear();
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
    shared.lock().clock.advance(by);
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

fn find_app(wechat: &SimulatedWechat, app_id: &str) -> Result<AppIndex, ControlError> {
    let unknown = || ControlError(format!("the simulator has no app `{app_id}`"));
    wechat.apps.find(app_id).ok_or_else(unknown)
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
