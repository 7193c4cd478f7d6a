//! The control routes of accounts and website apps, and the app that a control request names.

use axum::{
    Json,
    body::Bytes,
    extract::State,
    http::Uri,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};

use super::reply::{ControlError, parse_json_body};
use crate::simulator::{
    app_index::AppIndex,
    apps::{App, AppKind},
    http::{params::Params, route::SharedSimulator},
    state::SimulatedWechat,
};

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

pub(super) async fn apps(State(shared): SharedSimulator) -> Response {
    let apps: Vec<_> = shared.lock().apps.iter().map(AppJson::from_app).collect();
    Json(apps).into_response()
}

pub(super) async fn add_app(
    State(shared): SharedSimulator,
    body: Bytes,
) -> Result<Response, ControlError> {
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
    #[cfg(feature = "platform")]
    if kind == AppKind::Platform {
        return Err("add a third-party platform with `POST /_sim/platform`".into());
    }
    let mut wechat = shared.lock();
    let index = wechat.apps.insert_or_replace(app_id, secret, kind);
    let app = &mut wechat.apps[index];
    app.returns_unionid = returns_unionid;
    app.redirect_hosts = redirect_hosts;
    Ok(Json(AppJson::from_app(app)).into_response())
}

/// Returns the app that the parameter `app_id` names, if the query has such a parameter.
pub(super) fn app_in_query(
    wechat: &SimulatedWechat,
    uri: &Uri,
) -> Result<Option<AppIndex>, ControlError> {
    let params = Params::from_query(uri);
    let app_id = params.raw("app_id");
    app_id.map(|app_id| find_app(wechat, app_id)).transpose()
}

/// Returns the app with this AppID.
pub(super) fn find_app(wechat: &SimulatedWechat, app_id: &str) -> Result<AppIndex, ControlError> {
    let unknown = || ControlError(format!("the simulator has no app `{app_id}`"));
    wechat.apps.find(app_id).ok_or_else(unknown)
}
