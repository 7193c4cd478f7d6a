//! Tests of external tokens: the crate reads the values of other SDKs and never fetches a token.
//!
//! Sources of the values:
//! - wechatpy 1.8.18 and 2.0.0a26 (PyPI): `WeChatClient(appid, secret, session=RedisStorage(..))`
//!   fetched a token from the simulator. The values are what `GET` and `TTL` returned afterwards,
//!   with a shorter token. `tests/programs/interop/wechatpy_client.py` does the same at each run.
//! - WxJava, silenceper/wechat, PowerWeChat and EasyWeChat: the code that writes the values, which
//!   is `WxMpRedisConfigImpl.updateAccessToken`, `DefaultAccessToken.GetAccessTokenContext` with
//!   `cache/redis.go`, `AccessToken.SetToken` with PowerLibs' `GRedis.Set`, and
//!   `OfficialAccount\AccessToken::getToken` with PHP's `serialize`.
//! - igbinary: the output of PHP 8.2 with igbinary 3.2 for the same text.

use redis::Commands;
use tower_wechat::credential::Freshness;
use tower_wechat::redis::ExternalToken;
use tower_wechat::simulator::Fault;
use tower_wechat::{AccountTokens, ErrorKind};

use super::harness::{CALL, Harness, PLAIN, STABLE, TICKET, secs};
use crate::support::redis_server::RedisServer;

async fn follow(harness: &Harness, server: &RedisServer, token: ExternalToken) -> AccountTokens {
    let store = harness.redis(&server.url()).await;
    AccountTokens::builder(token.source(harness.wechat(), store.clone()), store)
        .clock(harness.clock.clone())
        .build()
}

fn nothing_was_fetched(harness: &Harness) {
    assert_eq!(
        (harness.sim.calls_to(STABLE), harness.sim.calls_to(PLAIN)),
        (0, 0)
    );
}

#[tokio::test]
async fn values_of_other_sdks_are_read() {
    let harness = Harness::start().await;
    let server = RedisServer::start();
    let (app, secret) = (harness.sim.app_id(), harness.sim.app_secret());
    let mut redis = server.connection();
    let now = harness.clock.now().as_millis() / 1_000;
    let power = "powerwechat.access_token.edc5f6181730baffc0b88cf96658aeff";
    let cases = [
        (
            ExternalToken::wx_java(),
            format!("wx:access_token:{app}"),
            "83_wx-java",
            "83_wx-java",
            7_200,
            7_200,
        ),
        (
            ExternalToken::wx_java_redisson(),
            format!("wx:access_token:{app}"),
            "83_redisson",
            "83_redisson",
            7_000,
            7_200,
        ),
        (
            ExternalToken::silenceper(),
            format!("gowechat_officialaccount__access_token_{app}"),
            "83_silenceper",
            "83_silenceper",
            5_700,
            6_000,
        ),
        (
            ExternalToken::silenceper(),
            format!("gowechat_officialaccount__access_token_{app}"),
            "\"83_silenceper-of-old\"",
            "83_silenceper-of-old",
            5_700,
            6_000,
        ),
        (
            ExternalToken::power_wechat(power),
            power.to_owned(),
            r#"{"access_token":"83_power","expires_in":7200}"#,
            "83_power",
            7_200,
            7_200,
        ),
        (
            ExternalToken::wechatpy(),
            format!("wechatpy:{app}_access_token"),
            "\"83_9JlLEYUWhx\"",
            "83_9JlLEYUWhx",
            7_200,
            7_200,
        ),
        (
            ExternalToken::easy_wechat(),
            format!("official_account.access_token.{app}"),
            r#"s:7:"83_easy";"#,
            "83_easy",
            7_200,
            7_200,
        ),
        (
            ExternalToken::easy_wechat()
                .key("laravel_cache_:official_account.access_token.{appid}"),
            format!("laravel_cache_:official_account.access_token.{app}"),
            r#"s:10:"83_laravel";"#,
            "83_laravel",
            7_200,
            7_200,
        ),
        (
            ExternalToken::easy_wechat_6_15(secret, false),
            format!("official_account.access_token.{app}.{secret}.0"),
            r#"s:12:"83_easy_6.15";"#,
            "83_easy_6.15",
            7_200,
            7_200,
        ),
        (
            ExternalToken::easy_wechat_6_15(secret, true).key_prefix("app_cache_:"),
            format!("app_cache_:official_account.access_token.{app}.{secret}.1"),
            "\0\0\0\x02\x11\x0b83_igbinary",
            "83_igbinary",
            7_200,
            7_200,
        ),
    ];
    for (form, key, value, token, ttl, life) in cases {
        let _: () = redis.set_ex(&key, value, ttl).unwrap();
        let accounts = follow(&harness, &server, form).await;
        let read = accounts.get().await.unwrap();
        assert_eq!(read.access_token().expose(), token);
        let expires_in = read.expires_in().as_secs();
        assert!(expires_in.abs_diff(life) <= 2, "{token}: {expires_in}");
        assert_eq!(
            read.lifetime().freshness(harness.clock.now()),
            Freshness::Fresh
        );
    }

    // wechatpy 2 stores the expiry in a second key. The first key does not expire in Redis.
    let _: () = redis
        .set(format!("wechatpy:{app}_access_token"), "\"83_two-keys\"")
        .unwrap();
    let _: () = redis
        .set(format!("wechatpy:{app}_access_token_expires_at"), now + 500)
        .unwrap();
    let accounts = follow(&harness, &server, ExternalToken::wechatpy()).await;
    let read = accounts.get().await.unwrap();
    assert_eq!(read.access_token().expose(), "83_two-keys");
    assert!(read.expires_in().as_secs().abs_diff(500) <= 2);
    nothing_was_fetched(&harness);
}

#[tokio::test]
async fn a_missing_value_is_an_error_and_fetches_nothing() {
    let harness = Harness::start().await;
    let server = RedisServer::start();
    let key = format!("wx:access_token:{}", harness.sim.app_id());
    let accounts = follow(&harness, &server, ExternalToken::wx_java()).await;
    for garbage in [
        None,
        Some("{\"a\":1}"),
        Some(""),
        Some("two words"),
        Some("\u{feff}"),
    ] {
        if let Some(garbage) = garbage {
            let _: () = server.connection().set_ex(&key, garbage, 100).unwrap();
        }
        let error = accounts.get().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WechatUnavailable);
        assert!(
            error.to_string().contains("keeps the account's token"),
            "{error}"
        );
        harness.advance(secs(2));
    }
    let _: () = server.connection().set_ex(&key, "83_good", 100).unwrap();
    harness.advance(secs(2));
    assert_eq!(
        accounts.get().await.unwrap().access_token().expose(),
        "83_good"
    );
    nothing_was_fetched(&harness);
}

#[tokio::test]
async fn the_next_token_of_the_owner_is_used() {
    let harness = Harness::start().await;
    let server = RedisServer::start();
    let key = format!("wx:access_token:{}", harness.sim.app_id());
    let write = |token: &str| {
        let _: () = server.connection().set_ex(&key, token, 7_000).unwrap();
    };
    let accounts = follow(&harness, &server, ExternalToken::wx_java()).await;
    // The owner of the token is another process, which uses cgi-bin/token.
    let owner = harness.wechat();
    let first = owner.account_token().await.unwrap().access_token;
    write(first.expose());
    harness.call(&accounts).await.unwrap();
    harness.tickets(&accounts).get().await.unwrap();
    assert_eq!(harness.sim.calls_to(TICKET), 1);
    let second = owner.account_token().await.unwrap().access_token;
    write(second.expose());
    harness.advance(secs(61));
    harness.call(&accounts).await.unwrap();
    assert_eq!(*accounts.get().await.unwrap().access_token(), second);

    // WeChat rejects a token that has been replaced in Redis. The call is repeated with the new
    // token.
    let third = owner.account_token().await.unwrap().access_token;
    write(third.expose());
    harness.sim.inject(Fault::on(CALL).errcode(40001).times(1));
    harness.call(&accounts).await.unwrap();
    assert_eq!(*accounts.get().await.unwrap().access_token(), third);

    // WeChat rejects the token, and Redis has no other. The call fails and is not repeated.
    harness.sim.reset_calls();
    harness.sim.inject(Fault::on(CALL).errcode(42001).times(1));
    let error = harness.call(&accounts).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TokenRefused);
    assert_eq!(harness.sim.calls_to(CALL), 1);
    nothing_was_fetched(&harness);
    let stored: String = server.connection().get(&key).unwrap();
    assert_eq!(stored, third.expose(), "the value of the owner is kept");
}

#[tokio::test]
async fn a_token_outlasts_the_expiry_of_its_key_not_its_deletion() {
    let harness = Harness::start().await;
    let server = RedisServer::start();
    let key = format!("wx:access_token:{}", harness.sim.app_id());
    let accounts = follow(&harness, &server, ExternalToken::wx_java_redisson()).await;
    let _: () = server.connection().pset_ex(&key, "83_late", 500).unwrap();
    accounts.get().await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    // WxJava lets the key expire 200 seconds before the token. The token is served until its own
    // expiry.
    for _ in 0..3 {
        harness.advance(secs(61));
        let late = accounts.get().await.unwrap();
        assert_eq!(late.access_token().expose(), "83_late");
    }
    harness.advance(secs(18));
    assert!(accounts.get().await.is_err());

    let _: () = server.connection().set_ex(&key, "83_next", 7_000).unwrap();
    harness.advance(secs(2));
    let next = accounts.get().await.unwrap();
    assert_eq!(next.access_token().expose(), "83_next");
    let _: () = server.connection().del(&key).unwrap();
    for late in [61, 6_950] {
        harness.advance(secs(late));
        assert!(accounts.get().await.is_err(), "its owner has deleted it");
    }
}
