//! Users of tests, in handlers and routes without a layer.

use axum::routing::get;
use axum::{Extension, Router};
use http::StatusCode;
use tower_wechat::client::{Language, UserInfo};
use tower_wechat::credential::{AppId, Freshness};
use tower_wechat::layer::GrantedUserInfo;
use tower_wechat::testing::{Browser, TestUser, anonymous};
use tower_wechat::{Error, ErrorKind, Scope, UserToken, WechatUser};

async fn me(user: WechatUser) -> String {
    user.id().to_owned()
}

async fn greet(user: Option<WechatUser>) -> String {
    user.map_or("nobody".to_owned(), |user| user.id().to_owned())
}

async fn nickname(user: WechatUser) -> Result<String, Error> {
    Ok(user.profile().await?.nickname.clone())
}

async fn card(GrantedUserInfo(user): GrantedUserInfo) -> String {
    user.id().to_owned()
}

fn routes() -> Router {
    Router::new()
        .route("/card", get(card))
        .route("/me", get(me))
        .route("/greet", get(greet))
        .route("/nickname", get(nickname))
}

/// Returns a browser of the routes behind this extension, without a layer.
fn browser<T: Clone + Send + Sync + 'static>(extension: T) -> Browser {
    Browser::new("http://localhost", routes().layer(Extension(extension)))
}

#[tokio::test]
async fn handlers_receive_the_user() {
    let browser = browser(TestUser::new("oAlice").nickname("Alice").build());
    assert_eq!(browser.fetch("/me").await.body(), "oAlice");
    assert_eq!(browser.fetch("/greet").await.body(), "oAlice");
    assert_eq!(browser.fetch("/nickname").await.body(), "Alice");
}

#[tokio::test]
async fn without_a_user_handlers_reject_as_behind_a_layer() {
    let stranger = browser(anonymous());
    assert_eq!(stranger.fetch("/greet").await.body(), "nobody");
    let rejected = stranger.fetch("/me").await;
    assert_eq!(rejected.status(), StatusCode::UNAUTHORIZED);
    assert!(rejected.body().contains("login_required"), "{rejected:?}");
    // Without the extension, the route looks like one without a layer.
    let outside = Browser::new("http://localhost", routes());
    assert_eq!(outside.fetch("/me").await.status(), 500);
    assert_eq!(outside.fetch("/greet").await.status(), 500);
}

#[tokio::test]
async fn users_have_granted_what_was_set() {
    let rejected = browser(TestUser::new("oAlice").build())
        .fetch("/card")
        .await;
    assert_eq!(rejected.status(), StatusCode::UNAUTHORIZED);
    let granted = TestUser::new("oAlice").scope(Scope::UserInfo).build();
    assert_eq!(browser(granted).fetch("/card").await.body(), "oAlice");
}

#[test]
fn users_have_what_was_set() {
    let user = TestUser::new("42")
        .app_id("wxfedcba9876543210")
        .openid("oAlice")
        .unionid("uAlice")
        .scope(Scope::UserInfo)
        .build();
    assert_eq!(user.id(), "42");
    assert_eq!(user.openid(), Some("oAlice"));
    assert_eq!(user.unionid(), Some("uAlice"));
    assert_eq!(user.has_granted(Scope::UserInfo), Some(true));
    assert_eq!(user.freshness(), Freshness::Fresh);
    assert!(!user.is_snapshot());
    let account = AppId::new("wxfedcba9876543210").unwrap();
    assert!(user.for_app(&account).is_some());
    assert!(!format!("{user:?}").contains(user.access_token().expose()));

    let user = TestUser::new("oAlice").build();
    assert_eq!(user.openid(), Some("oAlice"));
    assert_eq!(user.unionid(), None);
    assert_eq!(user.has_granted(Scope::UserInfo), Some(false));
    assert!(TestUser::new("oAlice").snapshot(true).build().is_snapshot());
    let known = TestUser::new("oAlice").avatar("https://cdn.example/a.png");
    assert_eq!(known.build().has_granted(Scope::UserInfo), Some(true));
}

#[tokio::test]
async fn profiles_are_served_without_wechat() {
    let user = TestUser::new("42").openid("oAlice").unionid("uAlice");
    let user = user.nickname("Alice").avatar("https://cdn.example/a.png");
    let profile = user.build().profile().await.unwrap();
    assert_eq!((&*profile.openid, &*profile.nickname), ("oAlice", "Alice"));
    assert_eq!(profile.unionid.as_deref(), Some("uAlice"));
    assert_eq!(profile.headimgurl, "https://cdn.example/a.png");
    // A user whose profile no test has set.
    let error = TestUser::new("oBob").build().profile().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains("TestUser"), "{error}");
}

#[tokio::test]
async fn calls_receive_the_token_and_reach_no_network() {
    for user in [
        TestUser::new("oAlice"),
        TestUser::new("oAlice").snapshot(true),
    ] {
        let user = user.build();
        let current = user.current().await.unwrap();
        assert_eq!(current.access_token(), user.access_token());
        let shown: Result<_, Error> = user
            .with_token(async |token: UserToken| Ok(token.access_token().clone()))
            .await;
        assert_eq!(shown.unwrap(), *user.access_token());

        let wechat = user.users().wechat();
        let called: Result<UserInfo, Error> = user
            .with_token(async |token: UserToken| {
                wechat
                    .user_info(token.access_token(), "oAlice", Language::En)
                    .await
            })
            .await;
        assert_eq!(called.unwrap_err().kind(), ErrorKind::Configuration);
    }
}

#[tokio::test]
async fn a_rejected_token_leads_to_a_login() {
    let user = TestUser::new("oAlice").build();
    let error = user.report_invalid().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LoginRequired);
}

#[tokio::test]
async fn a_revoked_user_has_no_token() {
    let user = TestUser::new("oAlice").nickname("Alice").build();
    user.revoke().await.unwrap();
    let error = user.current().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LoginRequired);
    let error = user.profile().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LoginRequired);
}

#[test]
#[should_panic(expected = "a test user cannot have the id \"\"")]
fn an_empty_id_panics() {
    let _ = TestUser::new("").build();
}
