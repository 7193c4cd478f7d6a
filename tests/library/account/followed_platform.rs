//! Tests of a platform that WxJava keeps, and that a process of this crate only follows.

use std::time::Duration;

use tower_wechat::credential::AppId;
use tower_wechat::platform::{Platform, PushKeys};
use tower_wechat::redis::{ExternalPlatform, Layout};
use tower_wechat::{Accounts, CookieKeys, Error, ErrorKind, Login, RedisStore};

use crate::support::wx_java::{COMPONENT, Java, SHOP, token_name};

const CLUB: &str = "wxa000000000000002";

async fn store(java: &Java) -> RedisStore {
    let url = java.redis.url();
    let builder = RedisStore::builder(&url).layout(Layout::Keys);
    builder.connect().await.unwrap()
}

async fn follower(java: &Java) -> Platform {
    let store = store(java).await;
    Platform::builder(java.platform.client().unwrap(), store.clone())
        .follow(ExternalPlatform::wx_java(), store)
        .build()
        .unwrap()
}

fn app(id: &str) -> AppId {
    AppId::new(id).unwrap()
}

async fn component_token(platform: &Platform) -> Result<String, Error> {
    platform
        .with_component_token(async |token| Ok(token.access_token().expose().to_owned()))
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_wx_java_are_used_and_never_fetched() {
    let java = Java::start().await;
    let before = java.keys();
    java.forget_calls();
    let platform = follower(&java).await;
    platform.prefetch().await.unwrap();
    platform.health().await.unwrap();
    assert_eq!(
        component_token(&platform).await.unwrap(),
        java.platform.component_token().unwrap()
    );
    assert_eq!(platform.app_ids().await.unwrap(), [app(SHOP)]);
    let tokens = platform.account_tokens(&app(SHOP));
    let current = java.platform.authorizer_token(SHOP).unwrap();
    let old = tokens.get().await.unwrap();
    assert_eq!(old.access_token().expose(), current);

    // The owner authorises again, and WeChat ends the token. WxJava stores the next one.
    java.authorize(SHOP).await;
    java.forget_calls();
    let next = tokens.report_invalid(old.access_token()).await.unwrap();
    let current = java.platform.authorizer_token(SHOP).unwrap();
    assert_eq!(next.access_token().expose(), current);

    java.assert_nothing_was_fetched();
    assert_eq!(java.keys(), before, "the follower writes nothing");
    assert!(platform.shutdown(Duration::from_secs(1)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_dead_two_seconds_before_its_key() {
    let java = Java::start().await;
    java.forget_calls();
    let platform = follower(&java).await;
    let component = format!("wechat_component_access_token:{COMPONENT}");
    for (name, ttl) in [(&component, 1), (&token_name(SHOP), 2)] {
        java.set(name, "83_almost_dead", ttl);
    }
    for error in [
        component_token(&platform).await.unwrap_err(),
        platform.account_tokens(&app(SHOP)).get().await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::WechatUnavailable, "{error}");
        assert!(error.to_string().contains("no usable token"), "{error}");
    }
    // A key without a TTL has expired too, as for WxJava.
    java.set(&component, "83_without_ttl", 0);
    component_token(&platform).await.unwrap_err();
    java.set(&component, "83_alive", 60);
    let found = async || {
        component_token(&platform)
            .await
            .is_ok_and(|token| token == "83_alive")
    };
    crate::support::eventually("the next token", Duration::from_secs(10), found).await;
    java.assert_nothing_was_fetched();
}

/// With a wrong prefix, the process finds nothing. The error shows where it has looked.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_token_is_named_by_its_key() {
    let java = Java::start().await;
    let store = store(&java).await;
    let platform = Platform::builder(java.platform.client().unwrap(), store.clone())
        .follow(ExternalPlatform::wx_java().prefix("wx"), store)
        .build()
        .unwrap();
    for (error, name) in [
        (
            platform.health().await.unwrap_err(),
            format!("wx:wechat_component_access_token:{COMPONENT}"),
        ),
        (
            platform.account_tokens(&app(SHOP)).get().await.unwrap_err(),
            format!("wx:{}", token_name(SHOP)),
        ),
    ] {
        let text = error.to_string();
        assert!(text.contains(&format!("under the key {name}: ")), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_are_those_with_a_refresh_token() {
    let java = Java::start().await;
    let platform = follower(&java).await;
    let keys = CookieKeys::random().unwrap();
    let registry = platform.accounts(move |account| {
        let url = format!("https://h5.example.com/{}", account.app_id());
        Ok(account.login(Login::new(url, keys.clone())?))
    });
    let accounts = Accounts::builder(store(&java).await)
        .registry(registry)
        .build()
        .unwrap();
    assert!(accounts.get(&app(SHOP)).await.unwrap().is_some());
    assert!(accounts.get(&app(CLUB)).await.unwrap().is_none());
    java.authorize(CLUB).await;
    let known = async || accounts.get(&app(CLUB)).await.unwrap().is_some();
    crate::support::eventually("the second account", Duration::from_secs(30), known).await;
    assert_eq!(platform.app_ids().await.unwrap(), [app(SHOP), app(CLUB)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_to_wx_java_is_refused() {
    let java = Java::start().await;
    java.forget_calls();
    let platform = follower(&java).await;
    let cookie_keys = CookieKeys::random().unwrap();
    let pages = platform.authorize_pages("https://h5.example.com/authorized", &cookie_keys);
    let error = pages.unwrap_err();
    assert!(error.to_string().contains("no authorize pages"), "{error}");
    for error in [
        platform.authorize("queryauthcode@@@1").await.unwrap_err(),
        platform.reconcile().await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
        assert!(error.to_string().contains("only follows"), "{error}");
    }
    let keys = PushKeys::new(["token"], ["abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"]).unwrap();
    let store = store(&java).await;
    let built = Platform::builder(java.platform.client().unwrap(), store.clone())
        .follow(ExternalPlatform::wx_java(), store)
        .push_keys(keys)
        .build();
    let error = built.unwrap_err();
    assert!(error.to_string().contains("takes no pushes"), "{error}");
    java.assert_nothing_was_fetched();
}

/// A user logs in at the follower. The exchange takes the component token of WxJava.
#[tokio::test(flavor = "multi_thread")]
async fn users_log_in_with_the_component_token_of_wx_java() {
    let java = Java::start().await;
    let platform = follower(&java).await;
    let page = format!(
        "{}/connect/oauth2/authorize?appid={SHOP}&redirect_uri=https%3A%2F%2Fh5.example.com%2F\
         &response_type=code&scope=snsapi_base&state=s&component_appid={COMPONENT}",
        java.wechat.url()
    );
    let browser = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    let request = browser.build().unwrap().get(page);
    let request = request.header("user-agent", "Mozilla/5.0 MicroMessenger/8.0");
    let reply = request.send().await.unwrap();
    let back = reply.headers()["location"].to_str().unwrap().to_owned();
    let code = back
        .split("code=")
        .nth(1)
        .unwrap()
        .split('&')
        .next()
        .unwrap();
    java.forget_calls();
    let pair = platform
        .client(&app(SHOP))
        .exchange_code(code)
        .await
        .unwrap();
    assert!(pair.openid.is_some());
    let calls = java.wechat.calls();
    assert_eq!(
        calls.get("/sns/oauth2/component/access_token"),
        Some(&1),
        "{calls:?}"
    );
    java.assert_nothing_was_fetched();
}
