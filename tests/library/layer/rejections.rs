//! Tests that the layer renders the rejections of handlers and extractors in the application's
//! format.

use std::convert::Infallible;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode};
use http_body_util::Full;
use serde_json::Value;
use tower::{Layer, ServiceExt, service_fn};
use tower_wechat::client::UserTokenResponse;
use tower_wechat::{
    AccountToken, AccountTokens, CookieKeys, Error, JsConfig, Login, MemoryStore, Policy,
    Rejection, RequestHead, UserTokens, WechatClient, WechatLayer, WechatUser,
};

use super::{header, id, request_of, text, users};

/// Renders a rejection as one line: page or data, the code, the login URL and the path.
pub(super) fn form(rejection: &Rejection, head: &RequestHead<'_>) -> Response {
    let accept = head.headers.get("accept");
    let html = accept.is_some_and(|accept| accept.to_str().unwrap().contains("text/html"));
    let text = format!(
        "{} {} {} {}",
        if html { "page" } else { "data" },
        rejection.code(),
        rejection.login_url().unwrap_or("-"),
        head.uri.path(),
    );
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = rejection.status();
    let ours = HeaderValue::from_static("application/ours");
    response.headers_mut().insert("content-type", ours);
    response
}

pub(super) fn login() -> Login {
    Login::new("https://h5.example.com", CookieKeys::random().unwrap()).unwrap()
}

pub(super) fn page(path: &str) -> Request<Body> {
    let request = Request::get(path).header("accept", "text/html,*/*;q=0.8");
    request.body(Body::empty()).unwrap()
}

/// Returns a request as the script of a page sends it.
pub(super) fn script(path: &str) -> Request<Body> {
    Request::get(path)
        .header("accept", "application/json")
        .header("sec-fetch-mode", "cors")
        .header("referer", "https://h5.example.com/cards?tab=1")
        .body(Body::empty())
        .unwrap()
}

pub(super) fn with_user(mut request: Request<Body>, user: &'static str) -> Request<Body> {
    let user = HeaderValue::from_static(user);
    request.headers_mut().insert("x-user", user);
    request
}

/// A handler that deletes the user's tokens and then requests the current token, which is rejected.
async fn current(user: WechatUser) -> Result<String, Error> {
    user.users().revoke(&id("oA")).await?;
    Ok(user.current().await?.user_id().to_string())
}

pub(super) fn routes() -> Router {
    Router::new()
        .route("/me", get(async |user: WechatUser| user.id().to_owned()))
        .route("/current", get(current))
        .route(
            "/token",
            get(async |token: AccountToken| token.access_token().fingerprint()),
        )
        .route("/config", get(async |config: JsConfig| Json(config)))
        .route(
            "/helped",
            get(async |user: Result<WechatUser, Rejection>| {
                let mut answer = user.unwrap_err().into_response();
                let help = HeaderValue::from_static("/help");
                answer.headers_mut().insert("x-help", help);
                answer
            }),
        )
        .route(
            "/another",
            get(async |user: Result<WechatUser, Rejection>| {
                (StatusCode::IM_A_TEAPOT, user.unwrap_err().into_response())
            }),
        )
}

pub(super) async fn layer() -> WechatLayer<tower_wechat::TrustedHeader> {
    let wechat = WechatClient::builder("wxa", "secret")
        .api_url("http://127.0.0.1:9")
        .build()
        .unwrap();
    WechatLayer::new(users().await)
        .identity(header())
        .policy(Policy::Optional)
        .account(AccountTokens::new(wechat, MemoryStore::new()))
}

pub(super) async fn ask(app: &Router, request: Request<Body>) -> (http::response::Parts, String) {
    let response = app.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    (parts, text(Response::new(body)).await)
}

#[tokio::test]
async fn extractors_and_errors_use_the_applications_format() {
    let app = routes()
        .nest("/nested", routes())
        .layer(layer().await.login(login()).reject(form));
    let from = "/wechat/login?return_to=%2Fcards%3Ftab%3D1";
    for (request, status, expected) in [
        (
            script("/me"),
            401,
            format!("data login_required {from} /me"),
        ),
        (
            script("/nested/me"),
            401,
            format!("data login_required {from} /nested/me"),
        ),
        (
            with_user(script("/current"), "oA"),
            401,
            format!("data login_required {from} /current"),
        ),
        (
            script("/token"),
            503,
            "data wechat_unavailable - /token".to_owned(),
        ),
        (
            page("/token"),
            503,
            "page wechat_unavailable - /token".to_owned(),
        ),
        (
            script("/config"),
            500,
            "data configuration - /config".to_owned(),
        ),
    ] {
        let (parts, body) = ask(&app, request).await;
        let length = parts.headers["content-length"].to_str().unwrap();
        assert_eq!(length, body.len().to_string());
        assert_eq!((parts.status.as_u16(), body), (status, expected));
        assert_eq!(parts.headers["content-type"], "application/ours");
        let count = parts.headers.get_all("content-type").iter().count();
        assert_eq!(count, 1);
    }
}

#[tokio::test]
async fn page_loads_are_redirected_to_the_login() {
    let app = routes()
        .nest("/nested", routes())
        .layer(layer().await.login(login()).reject(form));
    for path in ["/me?a=b", "/nested/me?a=b"] {
        let (parts, body) = ask(&app, page(path)).await;
        assert_eq!(parts.status, StatusCode::FOUND, "{body}");
        let to = parts.headers["location"].to_str().unwrap();
        assert!(to.starts_with("https://open.weixin.qq.com/"), "{to}");
        let cookies = parts.headers.get_all("set-cookie").iter().count();
        assert_eq!(cookies, 1, "one login begins");
        assert_eq!(parts.headers["cache-control"], "no-store");
        assert_eq!(parts.headers["content-type"], "application/ours");
    }
    // The handler's error does not contain the path of the request. The layer adds the login URL for
    // that path.
    for path in ["/current?a=b", "/nested/current?a=b"] {
        let grant = UserTokenResponse::new("token-a").expires_in(7_200);
        let users = users().await;
        users.store(&id("oA"), &grant).await.unwrap();
        let layer = WechatLayer::new(users).identity(header()).login(login());
        let app = routes().nest("/nested", routes()).layer(layer.reject(form));
        let (parts, body) = ask(&app, with_user(page(path), "oA")).await;
        assert_eq!(parts.status, StatusCode::FOUND, "{body}");
        let to = parts.headers["location"].to_str().unwrap();
        let path = path.replace('/', "%2F").replace("?a=b", "%3Fa%3Db");
        assert_eq!(to, format!("/wechat/login?return_to={path}"));
        assert_eq!(parts.headers["cache-control"], "no-store");
    }
}

/// A request with a header of a script is not redirected, although it accepts HTML.
#[tokio::test]
async fn scripts_that_ask_for_html_learn_where_to_log_in() {
    for (name, value) in [
        ("hx-request", "true"),
        ("turbo-frame", "cards"),
        ("sec-fetch-dest", "empty"),
        ("content-type", "application/json"),
        ("transfer-encoding", "chunked"),
        ("x-requested-with", "XMLHttpRequest"),
    ] {
        for method in ["GET", "POST"] {
            for path in ["/me", "/current"] {
                let users = users().await;
                let grant = UserTokenResponse::new("token-a").expires_in(7_200);
                users.store(&id("oA"), &grant).await.unwrap();
                let layer = WechatLayer::new(users)
                    .identity(header())
                    .policy(Policy::Optional);
                let app = Router::new()
                    .route("/current", axum::routing::any(current))
                    .route("/me", axum::routing::any(async |_: WechatUser| "me"))
                    .layer(layer.login(login()));
                let mut request = page(path);
                *request.method_mut() = method.parse().unwrap();
                let headers = request.headers_mut();
                headers.insert(name, HeaderValue::from_static(value));
                if path == "/current" {
                    request = with_user(request, "oA");
                }
                let (parts, body) = ask(&app, request).await;
                assert_eq!(parts.status, 401, "{method} {path} {name}: {body}");
                assert!(body.contains("login_url"), "{method} {path} {name}: {body}");
            }
        }
    }
}

#[tokio::test]
async fn without_a_login_a_rejection_has_no_redirect() {
    let app = routes().layer(layer().await.reject(form));
    for (request, status, expected) in [
        (script("/me"), 401, "data login_required - /me"),
        (page("/me"), 401, "page login_required - /me"),
        (
            with_user(page("/current"), "oA"),
            401,
            "page login_required - /current",
        ),
    ] {
        let (parts, body) = ask(&app, request).await;
        assert_eq!((parts.status.as_u16(), &*body), (status, expected));
    }
}

#[tokio::test]
async fn the_default_form_is_json_and_pages() {
    let plain = routes().layer(layer().await);
    let with_login = routes().layer(layer().await.login(login()));
    for app in [&plain, &with_login] {
        let (parts, body) = ask(app, script("/me")).await;
        assert_eq!(parts.status, 401);
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["error"], "login_required");
        let (parts, body) = ask(app, script("/token")).await;
        assert_eq!(parts.status, 503);
        assert!(parts.headers.contains_key("retry-after"));
        assert!(body.contains("wechat_unavailable"), "{body}");
    }
    let (parts, body) = ask(&with_login, page("/token")).await;
    assert_eq!(parts.status, 503);
    assert!(parts.headers.contains_key("retry-after"));
    assert!(body.contains("微信暂时没有响应"), "{body}");
    assert_eq!(parts.headers["content-type"], "text/html; charset=utf-8");
}

#[tokio::test]
async fn changes_by_a_handler_to_a_rejection_stay() {
    use axum::middleware::map_response;
    let cors = map_response(async |mut response: Response| {
        let origin = HeaderValue::from_static("https://app.example");
        let headers = response.headers_mut();
        headers.insert("access-control-allow-origin", origin);
        headers.append("set-cookie", HeaderValue::from_static("theme=dark"));
        response
    });
    let app = routes()
        .layer(cors)
        .layer(layer().await.login(login()).reject(form));
    for request in [script("/helped"), page("/helped")] {
        let (parts, _) = ask(&app, request).await;
        assert_eq!(parts.headers["x-help"], "/help");
        let origin = &parts.headers["access-control-allow-origin"];
        assert_eq!(origin, "https://app.example");
        let cookies: Vec<_> = parts.headers.get_all("set-cookie").iter().collect();
        assert!(cookies.iter().any(|cookie| *cookie == "theme=dark"));
        let to_wechat = parts.status == StatusCode::FOUND;
        assert_eq!(cookies.len(), if to_wechat { 2 } else { 1 });
    }
    let (parts, body) = ask(&app, page("/another")).await;
    assert_eq!(parts.status, StatusCode::IM_A_TEAPOT);
    assert!(body.contains("login_required"), "{body}");
}

#[tokio::test]
async fn of_two_layers_the_inner_one_renders() {
    let outer = layer().await.login(login()).reject(form);
    let inner = layer()
        .await
        .reject(|rejection: &Rejection, _: &RequestHead<'_>| {
            let response = http::Response::builder().status(rejection.status());
            response.body(Body::from("inner")).unwrap()
        });
    let app = routes().layer(inner).layer(outer.clone());
    for request in [page("/me"), script("/me"), script("/token")] {
        let (_, body) = ask(&app, request).await;
        assert_eq!(body, "inner");
    }
    // The inner layer renders the rejection in the default form, and the outer layer's login is not
    // used.
    let app = routes().layer(layer().await).layer(outer);
    let (parts, body) = ask(&app, page("/me")).await;
    assert_eq!(parts.status, 401);
    assert!(body.contains("login_required"), "{body}");
}

/// A handler without axum gets its user, or the rejection to return, from `WechatUser::required`.
#[tokio::test]
async fn a_function_rejects_for_handlers_without_axum() {
    async fn card(request: Request<Body>) -> Result<http::Response<Full<Bytes>>, Infallible> {
        let user = match WechatUser::required(&request) {
            Ok(user) => user,
            Err(rejection) => return Ok(rejection.response().map(Full::new)),
        };
        user.revoke().await.unwrap();
        let refused = user.current().await.unwrap_err();
        Ok(Rejection::from(&refused).response().map(Full::new))
    }
    let users: UserTokens = users().await;
    let layer = WechatLayer::new(users)
        .identity(header())
        .policy(Policy::Optional)
        .login(login());
    let service = layer.layer(service_fn(card));
    for (user, to) in [
        ("", "https://open.weixin.qq.com/"),
        ("oA", "/wechat/login?return_to=%2Fcard"),
    ] {
        let request = with_user(page("/card"), user);
        let response = service.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::FOUND);
        let location = response.headers()["location"].to_str().unwrap();
        assert!(location.starts_with(to), "{location}");
    }
    // Without a layer around the handler, the response is a 500.
    let response = card(request_of("oA")).await.unwrap();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
}
