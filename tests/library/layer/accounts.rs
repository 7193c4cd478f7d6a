//! Tests of layers of two accounts on one route.

use std::convert::Infallible;

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower::{ServiceBuilder, ServiceExt};
use tower_wechat::credential::AppId;
use tower_wechat::{MemoryStore, Policy, UserTokens, WechatClient, WechatLayer, WechatUser};

use super::{header, request_of, text, users_of};

#[tokio::test]
async fn two_accounts_on_one_route_do_not_overwrite_each_other() {
    let inner = WechatLayer::new(users_of("wxa", "token-a").await).identity(header());
    let outer = WechatLayer::new(users_of("wxb", "token-b").await).identity(header());
    let service = ServiceBuilder::new().layer(outer).layer(inner).service_fn(
        async |request: Request<Body>| {
            let user = request.extensions().get::<WechatUser>().unwrap();
            let token = |app: &str| {
                let user = user.for_app(&AppId::new(app).unwrap()).unwrap();
                user.access_token().expose().to_owned()
            };
            assert!(user.for_app(&AppId::new("wxc").unwrap()).is_none());
            let text = format!("{} {} {}", user.app_id(), token("wxa"), token("wxb"));
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(text)))
        },
    );
    assert_eq!(
        text(service.oneshot(request_of("oA")).await.unwrap()).await,
        "wxa token-a token-b"
    );
}

#[tokio::test]
async fn a_layer_of_another_account_keeps_the_outer_user() {
    let a = WechatLayer::new(users_of("wxa", "token-a").await).identity(header());
    let b = WechatLayer::new(users_of("wxb", "token-b").await).identity(header());
    let service = ServiceBuilder::new()
        .layer(b)
        .layer(a.clone())
        .layer(a)
        .service_fn(async |request: Request<Body>| {
            let user =
                WechatUser::from_extensions(request.extensions(), &AppId::new("wxb").unwrap());
            let text = user.map_or("lost".to_owned(), |user| user.id().to_owned());
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(text)))
        });
    assert_eq!(
        text(service.oneshot(request_of("oA")).await.unwrap()).await,
        "oA"
    );
}

#[tokio::test]
async fn accounts_do_not_share_users() {
    let none = UserTokens::new(WechatClient::new("wxa", "s").unwrap(), MemoryStore::new());
    let inner = WechatLayer::new(none)
        .identity(header())
        .policy(Policy::Optional);
    let outer = WechatLayer::new(users_of("wxb", "token-b").await).identity(header());
    let service = ServiceBuilder::new().layer(outer).layer(inner).service_fn(
        async |request: Request<Body>| {
            assert!(request.extensions().get::<WechatUser>().is_none());
            let of = |app| {
                WechatUser::from_extensions(request.extensions(), &AppId::new(app).unwrap())
                    .is_some()
            };
            let text = format!("{} {}", of("wxa"), of("wxb"));
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(text)))
        },
    );
    assert_eq!(
        text(service.oneshot(request_of("oA")).await.unwrap()).await,
        "false true"
    );
}
