//! Tests of error formats of an application: its JSON, its renderer, its error type and its own
//! rejections.

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::{FromRequestParts, Path};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use bytes::Bytes;
use http::request::Parts;
use http::{Request, StatusCode};
use http_body_util::Full;
use tower::{Layer, ServiceExt, service_fn};
use tower_wechat::layer::JsonRejection;
use tower_wechat::{
    CookieKeys, ErrorKind, JsConfig, Login, Policy, Rejection, RequestHead, UserId, WechatLayer,
    WechatUser,
};

use super::rejections::{ask, form, layer, login, page, routes, script, with_user};
use super::{header, text, users};

/// A renderer that sets nothing but the body and the status.
fn bare(rejection: &Rejection, _: &RequestHead<'_>) -> Response {
    (rejection.status(), rejection.code()).into_response()
}

#[tokio::test]
async fn headers_that_a_renderer_leaves_out_are_added() {
    let own = |rejection: &Rejection, head: &RequestHead<'_>| {
        let headers = [("retry-after", "7"), ("cache-control", "max-age=1")];
        (headers, bare(rejection, head)).into_response()
    };
    let login = layer().await.login(login());
    let [app, own] = [
        routes().layer(login.clone().reject(bare)),
        routes().layer(login.reject(own)),
    ];
    for (request, status, retry) in [
        (script("/me"), 401, None),
        (page("/me"), 302, None),
        (script("/config"), 500, None),
        (script("/token"), 503, Some("1")),
    ] {
        let (parts, body) = ask(&app, request).await;
        assert_eq!(parts.status, status, "{body}");
        let wait = parts.headers.get("retry-after");
        assert_eq!(wait.map(|wait| wait.to_str().unwrap()), retry, "{body}");
        assert_eq!(parts.headers["cache-control"], "no-store");
        assert_eq!(parts.headers.contains_key("location"), status == 302);
    }
    let (parts, _) = ask(&own, script("/token")).await;
    assert_eq!(parts.headers["retry-after"], "7");
    assert_eq!(parts.headers["cache-control"], "max-age=1");
}

/// The JSON of an application, also for bodies of other types.
#[tokio::test]
async fn json_of_the_application_keeps_pages_and_files() {
    let name = "MP_verify_Ab1cD2eF3gH4iJ5k.txt";
    let login = Login::builder("https://h5.example.com", CookieKeys::random().unwrap())
        .verification_file(name, "Ab1cD2eF3gH4iJ5k")
        .build()
        .unwrap();
    let layer = layer().await.login(login);
    let json = |rejection: &Rejection| serde_json::json!({ "code": rejection.code() });
    let renderers = JsonRejection::with(Body::from).json(json);
    for app in [
        routes().layer(layer.clone().reject(JsonRejection::new().json(json))),
        routes().layer(layer.reject(renderers)),
    ] {
        let (parts, body) = ask(&app, script("/token")).await;
        assert_eq!(parts.status, 503);
        assert_eq!(body, r#"{"code":"wechat_unavailable"}"#);
        assert_eq!(parts.headers["content-type"], "application/json");
        assert!(parts.headers.contains_key("retry-after"));
        let (parts, body) = ask(&app, page("/token")).await;
        assert_eq!(parts.status, 503);
        assert!(body.contains("微信暂时没有响应"), "{body}");
        let (parts, body) = ask(&app, page("/me")).await;
        assert_eq!((parts.status.as_u16(), &*body), (302, ""));
        let (parts, body) = ask(&app, script(&format!("/{name}"))).await;
        assert_eq!((parts.status.as_u16(), &*body), (200, "Ab1cD2eF3gH4iJ5k"));
    }
}

/// The application's own error type, made from every error and rejection by one conversion.
enum AppError {
    Rejected(Rejection),
    NotFound,
}

impl<E: Into<Rejection>> From<E> for AppError {
    fn from(error: E) -> Self {
        Self::Rejected(error.into())
    }
}

impl IntoResponse for AppError {
    fn into_response(self) -> Response {
        match self {
            Self::Rejected(rejection) => rejection.into_response(),
            Self::NotFound => {
                Rejection::new(StatusCode::NOT_FOUND, "not_found", "nothing here").into_response()
            }
        }
    }
}

/// An extractor whose rejection is the application's error, as `WithRejection` of axum-extra and
/// derived extractors have.
struct Ours<E>(E);

impl<S: Sync, E: FromRequestParts<S>> FromRequestParts<S> for Ours<E>
where
    AppError: From<E::Rejection>,
{
    type Rejection = AppError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, AppError> {
        Ok(Self(E::from_request_parts(parts, state).await?))
    }
}

#[tokio::test]
async fn an_error_type_of_the_application_converts_everything() {
    async fn handler(
        Path(name): Path<String>,
        user: Result<WechatUser, Rejection>,
    ) -> Result<String, AppError> {
        match &*name {
            "rejection" => Ok(user?.id().to_owned()),
            "error" => Ok(user?.current().await?.user_id().to_string()),
            "identifier" => Ok(UserId::new("")?.to_string()),
            _ => Err(AppError::NotFound),
        }
    }
    let routes = Router::new()
        .route("/{name}", get(handler))
        .route(
            "/config",
            get(async |Ours(config): Ours<JsConfig>| Json(config)),
        )
        .route(
            "/user",
            get(async |Ours(user): Ours<WechatUser>| user.id().to_owned()),
        );
    let app = routes.layer(layer().await.login(login()).reject(form));
    let from = "/wechat/login?return_to=%2Fcards%3Ftab%3D1";
    for (path, status, code) in [
        ("/rejection", 401, "login_required"),
        ("/user", 401, "login_required"),
        ("/config", 500, "configuration"),
        ("/identifier", 400, "bad_request"),
        ("/other", 404, "not_found"),
    ] {
        let (parts, body) = ask(&app, script(path)).await;
        let login = if status == 401 { from } else { "-" };
        let expected = format!("data {code} {login} {path}");
        assert_eq!((parts.status.as_u16(), body), (status, expected));
        let (parts, _) = ask(&app, page(path)).await;
        let page_status = if status == 401 { 302 } else { status };
        assert_eq!(parts.status, page_status, "{path}");
    }
    let (parts, body) = ask(&app, with_user(script("/error"), "oA")).await;
    assert_eq!((parts.status.as_u16(), &*body), (200, "oA"));
}

/// No status of an application's rejection starts a login.
#[tokio::test]
async fn a_rejection_of_the_application_starts_no_login() {
    async fn handler(_: Request<Body>) -> Result<http::Response<Full<Bytes>>, Infallible> {
        let rejection = Rejection::new(StatusCode::UNAUTHORIZED, "pin_required", "Send the PIN.");
        assert_eq!(rejection.kind(), ErrorKind::Application);
        assert_eq!(rejection.to_string(), "Send the PIN.");
        Ok(rejection.response().map(Full::new))
    }
    let layer = WechatLayer::new(users().await)
        .identity(header())
        .login(login());
    let service = layer.layer(service_fn(handler));
    for request in [page("/"), script("/")] {
        let response = service.clone().oneshot(with_user(request, "oA")).await;
        let response = response.unwrap();
        assert_eq!(response.status(), 401);
        let body = text(response).await;
        assert_eq!(
            body,
            r#"{"error":"pin_required","message":"Send the PIN."}"#
        );
    }
}

/// Values with status 200 and 302 also stand for the login's files and redirects, which differ.
#[tokio::test]
async fn a_rejection_of_the_application_keeps_every_status() {
    let statuses = [200_u16, 302, 303, 304, 400, 500, 503];
    let own = |status: u16| {
        let status = StatusCode::from_u16(status).unwrap();
        Rejection::new(status, "moved", "Look elsewhere.")
    };
    let handler = move |Path(status): Path<u16>| async move {
        ([("location", "/elsewhere")], own(status)).into_response()
    };
    let routes = Router::new().route("/{status}", get(handler));
    let json = |rejection: &Rejection| rejection.code().to_owned();
    let layer = layer().await;
    for app in [
        routes.clone(),
        routes.clone().layer(layer.clone()),
        routes.clone().layer(layer.clone().login(login())),
        routes.layer(layer.login(login()).reject(JsonRejection::new().json(json))),
    ] {
        for status in statuses {
            for request in [script(&format!("/{status}")), page(&format!("/{status}"))] {
                let (parts, body) = ask(&app, request).await;
                assert_eq!(parts.status, status, "{body}");
                assert_eq!(parts.headers["location"], "/elsewhere");
                assert!(body.contains("moved"), "{status}: {body:?}");
            }
        }
    }
}

/// A layer for another account further out does not render the rejection again.
#[tokio::test]
async fn a_renderer_may_use_the_response_of_a_rejection() {
    let own = |rejection: &Rejection, _: &RequestHead<'_>| {
        ([("x-service", "h5")], rejection.clone()).into_response()
    };
    let outer = |rejection: &Rejection, _: &RequestHead<'_>| {
        (rejection.status(), "of the outer layer").into_response()
    };
    let outer = layer().await.login(login()).reject(outer);
    for policy in [Policy::Optional, Policy::Required] {
        let inner = layer().await.policy(policy).login(login()).reject(own);
        let alone = routes().layer(inner);
        let nested = alone.clone().layer(outer.clone());
        for request in [script, page] {
            let (expected, body) = ask(&alone, request("/me")).await;
            assert_eq!(expected.headers["x-service"], "h5");
            let (parts, nested_body) = ask(&nested, request("/me")).await;
            assert_eq!((parts.status, nested_body), (expected.status, body));
            assert_eq!(parts.headers["x-service"], "h5");
        }
    }
}
