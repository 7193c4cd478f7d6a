//! The HTTP server of the simulator: the routes, and the middleware that counts calls and applies
//! faults.

mod authorize;
mod authorize_request;
#[cfg(feature = "platform")]
mod bind_page;
mod callback_prefetch;
mod cgi_bin;
#[cfg(feature = "platform")]
mod component;
mod control;
mod listener;
mod pages;
mod params;
mod reply;
mod route;
mod sns;

use std::{future::IntoFuture, sync::Arc};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{ConnectInfo, Request, State},
    http::{Method, StatusCode, Uri},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use serde::Deserialize;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use self::{
    listener::{BreakableListener, Peer},
    params::Params,
    route::{CONTROL_PREFIX, SharedSimulator},
};
#[cfg(feature = "platform")]
use super::platform::send_pushes;
use super::{
    app_index::AppIndex,
    error_reply::WechatErrorReply,
    faults::Effect,
    state::{SharedState, SimulatedWechat},
};

/// Maximum size of the body of a POST to `/cgi-bin`: 1 MiB. A larger body gets HTTP 413.
const MAX_POSTED_BYTES: usize = 1024 * 1024;

/// Starts the task of the server. The server ends when `finish` is cancelled and the calls in
/// progress are done, or when [`SharedState::force_stop`] is cancelled.
pub(super) fn serve(
    listener: TcpListener,
    shared: &Arc<SharedState>,
    finish: CancellationToken,
) -> JoinHandle<()> {
    let listener = BreakableListener::new(listener, shared.force_stop.clone());
    let service = router(Arc::clone(shared)).into_make_service_with_connect_info::<Peer>();
    #[cfg(feature = "platform")]
    let (shared, stopped) = (Arc::clone(shared), finish.clone());
    let server = axum::serve(listener, service)
        .with_graceful_shutdown(async move { finish.cancelled().await });
    tokio::spawn(async move {
        // The result is never an error, because a listener that cannot accept waits and tries
        // again.
        let server = async { drop(server.into_future().await) };
        #[cfg(feature = "platform")]
        let server = async {
            tokio::join!(server, send_pushes(shared, stopped));
        };
        server.await;
    })
}

fn router(shared: Arc<SharedState>) -> Router {
    let routes = Router::new();
    #[cfg(feature = "platform")]
    let routes = routes.merge(component::routes()).merge(bind_page::routes());
    routes
        .route("/connect/oauth2/authorize", any(authorize::in_wechat))
        .route("/connect/qrconnect", any(authorize::qr_code))
        .route(
            "/connect/zh_CN/htmledition/js/wxLogin.js",
            get(authorize::wx_login_script),
        )
        .route("/sns/oauth2/access_token", any(sns::access_token))
        .route("/sns/oauth2/refresh_token", any(sns::refresh_token))
        .route("/sns/userinfo", any(sns::userinfo))
        .route("/sns/auth", any(sns::auth))
        .route("/cgi-bin/token", any(cgi_bin::token))
        .route("/cgi-bin/stable_token", any(cgi_bin::stable_token))
        .route("/cgi-bin/ticket/getticket", any(cgi_bin::getticket))
        .route("/cgi-bin/user/info", any(cgi_bin::user_info))
        .route(
            "/cgi-bin/message/template/send",
            any(cgi_bin::template_send),
        )
        .route(
            "/cgi-bin/get_api_domain_ip",
            any(cgi_bin::get_api_domain_ip),
        )
        .route("/cgi-bin/getcallbackip", any(cgi_bin::get_api_domain_ip))
        .route("/cgi-bin/clear_quota", any(cgi_bin::clear_quota))
        .route("/cgi-bin/clear_quota/v2", any(cgi_bin::clear_quota_v2))
        .merge(control::routes())
        .fallback(unknown_path)
        .layer(middleware::from_fn_with_state(
            Arc::clone(&shared),
            count_and_apply_fault,
        ))
        .with_state(shared)
}

/// Counts the call, and applies a fault of its path if a test has injected one. Control requests
/// are not counted and get no fault.
async fn count_and_apply_fault(
    State(shared): SharedSimulator,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path().to_owned();
    if path.starts_with(CONTROL_PREFIX) {
        return next.run(request).await;
    }
    // The lock is released before the delay, so that other calls continue while the delayed call
    // waits.
    let (request, body) = match read_posted_body(request).await {
        Ok(read) => read,
        Err(response) => return response,
    };
    let fault = {
        let wechat = &mut *shared.lock();
        let apps = named_apps(wechat, request.uri(), &body);
        wechat.count_call(&path, &apps);
        let app_ids: Vec<_> = apps.iter().map(|app| &*wechat.apps[*app].app_id).collect();
        wechat.faults.take_for(&path, &app_ids)
    };
    let Some((delay, effect)) = fault else {
        return next.run(request).await;
    };
    tokio::select! {
        () = tokio::time::sleep(delay) => {}
        () = shared.force_stop.cancelled() => return peer.reset(),
    }
    match effect {
        Effect::NormalReply => next.run(request).await,
        Effect::LoseReply => {
            next.run(request).await;
            peer.reset()
        }
        Effect::Reset => peer.reset(),
        Effect::Hang => {
            shared.force_stop.cancelled().await;
            peer.reset()
        }
        Effect::Errcode { errcode, status } => {
            let response =
                reply::error_response(&path, &WechatErrorReply::new(errcode), shared.lock().now());
            with_status(response, status)
        }
        Effect::Body { body, status } => {
            let content_type = reply::content_type(&path);
            with_status(([content_type], body).into_response(), status)
        }
    }
}

/// Reads the body of a POST to `/cgi-bin`, which may contain the appid. Returns the request with its
/// body, and the body. Another request stays unread and has an empty body here.
async fn read_posted_body(request: Request) -> Result<(Request, Bytes), Response> {
    if request.method() != Method::POST || !request.uri().path().starts_with("/cgi-bin/") {
        return Ok((request, Bytes::new()));
    }
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, MAX_POSTED_BYTES)
        .await
        .map_err(|_| StatusCode::PAYLOAD_TOO_LARGE.into_response())?;
    Ok((Request::from_parts(head, Body::from(body.clone())), body))
}

/// Returns the apps that a call names. An account or website app is named by `appid` in the query,
/// by its access token, or by `appid` or `authorizer_appid` in a JSON body. A third-party platform is
/// named by `component_appid` or by its component token.
fn named_apps(wechat: &SimulatedWechat, uri: &Uri, body: &[u8]) -> Vec<AppIndex> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct NamedApps {
        appid: String,
        authorizer_appid: String,
        component_appid: String,
    }

    let params = Params::from_query(uri);
    let named: NamedApps = serde_json::from_slice(body).unwrap_or_default();
    let app = if let Some(app_id) = params.non_empty("appid") {
        wechat.apps.find(app_id)
    } else if let Some(access_token) = params.non_empty("access_token") {
        wechat.app_of_token(access_token)
    } else {
        let by_body = [&named.appid, &named.authorizer_appid];
        by_body.into_iter().find_map(|id| wechat.apps.find(id))
    };
    let component = params
        .non_empty("component_appid")
        .or(Some(&named.component_appid))
        .and_then(|app_id| wechat.apps.find(app_id))
        .or_else(|| wechat.app_of_token(params.non_empty("component_access_token")?));
    let component = component.filter(|component| Some(*component) != app);
    app.into_iter().chain(component).collect()
}

fn with_status(mut response: Response, status: u16) -> Response {
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}

/// Returns 40066 for an unknown path of the API, as WeChat does, and HTTP 404 for any other unknown
/// path.
async fn unknown_path(State(shared): SharedSimulator, request: Request) -> Response {
    let path = request.uri().path();
    if path.starts_with("/cgi-bin/") || path.starts_with("/sns/") {
        reply::error_response(path, &WechatErrorReply::new(40066), shared.lock().now())
    } else {
        (StatusCode::NOT_FOUND, "the simulator has nothing here\n").into_response()
    }
}
