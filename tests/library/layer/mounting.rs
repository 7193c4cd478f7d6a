//! Tests of the login's paths under routers that an application nests or merges.

use axum::Router;
use axum::body::Body;
use axum::routing::{any, get};
use http::{Request, StatusCode};
use tower::{Layer, ServiceExt};
use tower_wechat::{
    CookieKeys, Login, SessionCookie, TrustedHeader, WechatClient, WechatLayer, WechatUser,
};

use super::{header, text, users};

type Signing = WechatLayer<TrustedHeader>;

async fn layer() -> Signing {
    let login = Login::new("https://h5.example.com", CookieKeys::random().unwrap()).unwrap();
    WechatLayer::new(users().await)
        .identity(header())
        .login(login)
}

fn pages() -> Router {
    Router::new().route("/me", get(async |user: WechatUser| user.id().to_owned()))
}

fn others() -> Router {
    Router::new().route("/healthz", get(async || "well"))
}

async fn not_found() -> (StatusCode, &'static str) {
    (StatusCode::NOT_FOUND, "the application's own 404")
}

/// Returns `true` if the application handles the paths of the login, and `false` if it returns a
/// 404 for each.
async fn handles_login(app: &Router) -> bool {
    let ask = async |path: &str| {
        let request = Request::get(path).header("accept", "text/html");
        let request = request.body(Body::empty()).unwrap();
        app.clone().oneshot(request).await.unwrap()
    };
    let begun = ask("/wechat/login?return_to=%2Fme").await;
    let ended = ask("/wechat/callback?code=a&state=b").await;
    match (begun.status().as_u16(), ended.status().as_u16()) {
        (302, 400) => true,
        (404, 404) => false,
        other => panic!("{other:?}"),
    }
}

/// Each composition handles the paths of the login if it contains the login's routes. Some
/// compositions handle these paths without the routes.
#[tokio::test]
async fn the_callback_works_under_nested_routers() {
    type Composition = (&'static str, fn(Signing, Router) -> Router, bool);
    // `routes` is a router with the login's routes, or an empty one. The flag is `true` if the
    // layer itself gets all requests, so that an empty router is enough.
    let compositions: [Composition; 11] = [
        (
            "a layer around the whole router",
            |layer, routes| pages().merge(others()).merge(routes).layer(layer),
            true,
        ),
        (
            "around everything, with a fallback",
            |layer, routes| pages().merge(routes).fallback(not_found).layer(layer),
            true,
        ),
        (
            "a service around the whole router",
            |layer, routes| Router::new().fallback_service(layer.layer(pages().merge(routes))),
            true,
        ),
        (
            "merged into others",
            |layer, routes| others().merge(routes).merge(pages().layer(layer)),
            true,
        ),
        (
            "merged with others",
            |layer, routes| pages().layer(layer).merge(others()).merge(routes),
            false,
        ),
        (
            "routes merged first",
            |layer, routes| routes.merge(pages().layer(layer)).merge(others()),
            false,
        ),
        (
            "merged, and a fallback after it",
            |layer, routes| pages().layer(layer).merge(routes).fallback(not_found),
            false,
        ),
        (
            "merged into one with a fallback",
            |layer, routes| {
                let others = others().merge(routes).fallback(not_found);
                others.merge(pages().layer(layer))
            },
            false,
        ),
        (
            "nested",
            |layer, routes| others().nest("/api", pages().layer(layer)).merge(routes),
            false,
        ),
        (
            "nested as a service",
            |layer, routes| {
                let api = layer.layer(pages());
                others().nest_service("/api", api).merge(routes)
            },
            false,
        ),
        (
            "around routes alone",
            |layer, routes| pages().route_layer(layer).merge(routes),
            false,
        ),
    ];
    for (name, app, alone) in compositions {
        let layer = layer().await;
        let without = app(layer.clone(), Router::new());
        assert_eq!(handles_login(&without).await, alone, "{name}");
        let with = app(layer.clone(), layer.login_routes());
        assert!(handles_login(&with).await, "{name}");
    }
}

/// Public routes, private routes and the login's routes, merged in any order, with and without a
/// fallback, at the root and nested.
#[tokio::test]
async fn the_order_of_merges_changes_nothing() {
    let status = async |app: &Router, path: &str| {
        let request = Request::get(path).header("accept", "application/json");
        let request = request.body(Body::empty()).unwrap();
        app.clone().oneshot(request).await.unwrap().status()
    };
    let orders = [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ];
    for order in orders {
        for (nested, fallback, whole) in (0..8).map(|at| (at & 1 > 0, at & 2 > 0, at & 4 > 0)) {
            let layer = layer().await;
            // `layer` also wraps the fallback of a router, and `route_layer` only its routes.
            let private = match whole {
                true => pages().layer(layer.clone()),
                false => pages().route_layer(layer.clone()),
            };
            let private = match nested {
                true => Router::new().nest("/api", private),
                false => private,
            };
            let mut parts = [Some(private), Some(others()), Some(layer.login_routes())];
            let mut app = order.map(|at| parts[at].take().unwrap()).into_iter();
            let first = app.next().unwrap();
            let mut app = app.fold(first, Router::merge);
            if fallback {
                app = app.fallback(not_found);
            }
            let case = format!("{order:?}, nested {nested}, fallback {fallback}, whole {whole}");
            let me = if nested { "/api/me" } else { "/me" };
            assert!(handles_login(&app).await, "{case}");
            assert_eq!(status(&app, me).await, 401, "{case}");
            assert_eq!(status(&app, "/healthz").await, 200, "{case}");
            if !whole {
                assert_eq!(status(&app, "/other").await, 404, "{case}");
                assert_eq!(status(&app, "/api/other").await, 404, "{case}");
            }
        }
    }
}

/// The login's routes take precedence over a wildcard route of the application, which gets all
/// other paths.
#[tokio::test]
async fn the_login_handles_only_its_routes() {
    let layer = layer().await;
    let app: Router = Router::new()
        .route("/wechat/{*path}", any(not_found))
        .merge(layer.login_routes());
    assert!(handles_login(&app).await);
    let request = Request::get("/wechat/other").body(Body::empty()).unwrap();
    let response = app.oneshot(request).await.unwrap();
    assert_eq!(text(response).await, "the application's own 404");

    let service = layer.login_service::<Body>();
    assert!(service.handles("/wechat/callback") && service.handles("/wechat/login"));
    assert!(!service.handles("/") && !service.handles("/wechat"));
    let request = Request::get("/me").body(Body::empty()).unwrap();
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
}

/// The login handles its paths with the prefix of the public URL and without it, as behind a proxy
/// that removes it.
#[tokio::test]
async fn routes_work_with_and_without_a_prefix() {
    let keys = CookieKeys::random().unwrap();
    let login = Login::new("https://h5.example.com/shop", keys).unwrap();
    let layer = WechatLayer::new(users().await)
        .identity(header())
        .login(login);
    let app: Router = others().merge(layer.login_routes());
    for path in [
        "/wechat/callback",
        "/wechat/callback/",
        "/shop/wechat/callback",
        "/shop/wechat/callback/",
    ] {
        let request = Request::get(format!("{path}?code=a&state=b"));
        let request = request.body(Body::empty()).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{path}");
    }
}

/// The routes of a layer without a login are empty.
#[tokio::test]
async fn without_a_login_there_are_no_routes() {
    let wechat = WechatClient::new("wxa", "secret").unwrap();
    let session = SessionCookie::new(wechat.app_id(), &CookieKeys::random().unwrap());
    let layer = WechatLayer::new(users().await).identity(session);
    assert!(!handles_login(&layer.login_routes()).await);
}
