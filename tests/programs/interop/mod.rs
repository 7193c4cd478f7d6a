//! Tests of the demo beside a service in another language on one Redis. That service uses the two
//! hashes as the published Spring Boot service does.

mod harness;
mod unreadable_values;

use std::time::Duration;

use crate::support::harness::{REFRESH, now_ms};
use harness::{ACCESS_HASH, InteropHarness, REFRESH_HASH, TWO_HOURS, USER, as_it_was, renewed};
use serde_json::{Value, json};
use tower_wechat::simulator::{Fault, UserPair};

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_accepts_a_login_of_the_java_service() {
    let harness = InteropHarness::new().await;
    for user in [USER, "张三 #1:{x}"] {
        let pair = harness.java_login(user).await;
        let answer = harness.demo.me(user).await;
        answer.has_token(&pair.access_token);
        assert_eq!(answer.field("freshness"), "fresh");
        let left = answer.json()["expires_in_secs"].as_u64().unwrap();
        assert!((7_100..=7_200).contains(&left), "the true expiry: {left}");
    }
    assert_eq!(harness.services.refreshes(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_accepts_a_renewal_of_the_java_service() {
    let harness = InteropHarness::new().await;
    let old = harness.java_login(USER).await;
    harness.time_passes(TWO_HOURS);
    let new = harness.java_token(USER).await;
    assert_ne!(new["token"], old.access_token.as_str());
    assert_eq!(new, renewed(&harness.current(USER)));
    harness
        .demo
        .me(USER)
        .await
        .has_token(&harness.current(USER));
    assert_eq!(harness.services.refreshes(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_java_service_accepts_a_renewal_of_the_demo() {
    let harness = InteropHarness::new().await;
    harness.java_login(USER).await;
    harness.time_passes(TWO_HOURS);
    harness
        .demo
        .me(USER)
        .await
        .has_token(&harness.current(USER));
    assert_eq!(harness.services.refreshes(), 1);

    // The access value has two parts, the token and the renewal point, which is 15 minutes before
    // the expiry. The refresh value also has the scope.
    let access = harness.raw(ACCESS_HASH, USER);
    let (token, ms) = access.split_once('#').unwrap();
    let point = now_ms() + (7_200 - 900) * 1_000;
    assert!(
        (point - 60_000..=point).contains(&ms.parse().unwrap()),
        "{ms} and {point}"
    );
    assert!(
        harness
            .raw(REFRESH_HASH, USER)
            .contains("#scope=snsapi_userinfo")
    );

    assert_eq!(harness.java_token(USER).await, as_it_was(token));
    assert!(harness.wechat_accepts(USER, token).await);
    assert_eq!(harness.services.refreshes(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_java_service_ignores_further_fields() {
    let harness = InteropHarness::new().await;
    harness
        .services
        .wechat
        .settings(|settings| settings.rotate_refresh_token = true);
    harness.java_login(USER).await;
    harness.time_passes(TWO_HOURS);
    let answer = harness.demo.me(USER).await;
    assert_eq!(answer.field("scope"), "snsapi_userinfo");

    harness.time_passes(TWO_HOURS);
    let there = harness.java_token(USER).await;
    assert_eq!(there, renewed(&harness.current(USER)));
    assert!(
        !harness.raw(REFRESH_HASH, USER).contains("scope"),
        "the other service drops them"
    );
    let answer = harness.demo.me(USER).await;
    answer.has_token(&harness.current(USER));
    assert_eq!(answer.json()["scope"], Value::Null);
    harness.services.assert_newest_pair_is_stored(USER);
    assert_eq!(harness.services.refreshes(), 2);
}

/// Tests a lifetime of 600 s, which is shorter than the margin. The demo writes a value of three
/// parts. The other service writes a renewal point in the past.
#[tokio::test(flavor = "multi_thread")]
async fn short_lifetimes() {
    let harness = InteropHarness::new().await;
    let short = Duration::from_secs(600);
    harness.java_login(USER).await;
    harness.time_passes(TWO_HOURS);
    harness
        .services
        .wechat
        .settings(|settings| settings.user_token_lifetime = short);
    harness
        .demo
        .me(USER)
        .await
        .has_token(&harness.current(USER));
    let token = harness.current(USER);
    let value = harness.raw(ACCESS_HASH, USER);
    assert_eq!(value.split('#').count(), 3, "{value}");
    assert_eq!(harness.java_token(USER).await, as_it_was(&token));
    assert_eq!(harness.services.refreshes(), 1);

    // Past half of the lifetime, the token is due for both services. WeChat extends its lifetime
    // and returns the same token.
    harness.time_passes(short / 2 + Duration::from_secs(1));
    assert_eq!(harness.java_token(USER).await, renewed(&token));
    let value = harness.raw(ACCESS_HASH, USER);
    assert_eq!(value.split('#').count(), 2, "{value}");
    assert_eq!(harness.services.refreshes(), 2);
    // The renewal point that the other service wrote has passed. The demo serves the token until it
    // expires.
    harness.demo.me(USER).await.has_token(&token);
    crate::support::eventually("a renewal in the background", TWO_HOURS / 360, async || {
        harness.raw(ACCESS_HASH, USER).split('#').count() == 3
    })
    .await;
    assert_eq!(harness.java_token(USER).await, as_it_was(&token));
    harness.services.assert_newest_pair_is_stored(USER);
}

/// Tests a token response without a lifetime. For the other service the token expires at once, and
/// for the demo in one minute.
#[tokio::test(flavor = "multi_thread")]
async fn a_reply_without_expires_in() {
    let harness = InteropHarness::new().await;
    let unsaid = |pair: &UserPair| {
        let reply = json!({
            "access_token": "unsaid", "refresh_token": pair.refresh_token,
            "openid": pair.openid, "scope": "snsapi_base",
        });
        Fault::on(REFRESH).body(reply.to_string()).times(1)
    };

    let pair = harness.java_login(USER).await;
    harness.time_passes(TWO_HOURS);
    harness.services.wechat.inject(unsaid(&pair));
    harness.demo.me(USER).await.has_token("unsaid");
    let value = harness.raw(ACCESS_HASH, USER);
    let times: Vec<i64> = value
        .split('#')
        .skip(1)
        .map(|part| part.parse().unwrap())
        .collect();
    assert_eq!(times[1] - times[0], 60_000, "{value}");
    assert_eq!(
        harness.java_token(USER).await,
        renewed(&harness.current(USER))
    );

    let pair = harness.java_login("oOther").await;
    harness.time_passes(TWO_HOURS);
    harness.services.wechat.inject(unsaid(&pair));
    assert_eq!(harness.java_token("oOther").await, renewed("unsaid"));
    let answer = harness.demo.me("oOther").await;
    answer.has_token("unsaid");
    assert_eq!(answer.field("freshness"), "stale");
    crate::support::eventually("it is renewed here", Duration::from_secs(20), async || {
        harness
            .raw(ACCESS_HASH, "oOther")
            .starts_with(&harness.current("oOther"))
    })
    .await;
    let current = as_it_was(&harness.current("oOther"));
    assert_eq!(harness.java_token("oOther").await, current);
}

/// Runs both services: for each user, one service renews the tokens and the other one reads them.
async fn in_turns(rotate: bool) {
    let harness = InteropHarness::new().await;
    harness
        .services
        .wechat
        .settings(|settings| settings.rotate_refresh_token = rotate);
    let users = [USER, "oOther", "张三"];
    for user in users {
        harness.java_login(user).await;
    }
    let mut renewals = 0;
    for round in 0..6 {
        // In one round the tokens expire, and in the next round they only become stale.
        let passing = [TWO_HOURS * 4, Duration::from_secs(6_301)][round % 2];
        let before: Vec<String> = users.iter().map(|user| harness.current(user)).collect();
        harness.time_passes(passing);
        for (at, user) in users.iter().enumerate() {
            renewals += 1;
            if (round + at) % 2 == 0 {
                assert_eq!(
                    harness.java_token(user).await,
                    renewed(&harness.current(user)),
                    "{round}"
                );
                harness
                    .demo
                    .me(user)
                    .await
                    .has_token(&harness.current(user));
            } else {
                let answer = harness.demo.me(user).await;
                assert_eq!(answer.status, 200, "{answer:?}");
                // The demo serves the stale token until the renewal in the background ends.
                crate::support::eventually(
                    "the renewal here",
                    Duration::from_secs(20),
                    async || harness.demo.me(user).await.field("freshness") == "fresh",
                )
                .await;
                assert_eq!(
                    harness.java_token(user).await,
                    as_it_was(&harness.current(user)),
                    "{round}"
                );
            }
            assert_eq!(
                harness.current(user) != before[at],
                passing >= TWO_HOURS,
                "{round}"
            );
            assert_eq!(
                harness.services.refreshes(),
                renewals,
                "{round}: one renewal each"
            );
            harness.services.assert_newest_pair_is_stored(user);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_renew_in_turns_with_one_refresh_token() {
    in_turns(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_renew_in_turns_with_rotating_refresh_tokens() {
    in_turns(true).await;
}

/// Tests a renewal of the other service during a renewal of the demo. The other service uses no
/// lease, and the tokens that it writes stay in Redis.
#[tokio::test(flavor = "multi_thread")]
async fn both_renew_at_once() {
    for rotate in [false, true] {
        let harness = InteropHarness::new().await;
        harness
            .services
            .wechat
            .settings(|settings| settings.rotate_refresh_token = rotate);
        harness.java_login(USER).await;
        harness.time_passes(TWO_HOURS);
        harness.services.wechat.inject(
            Fault::on(REFRESH)
                .delay(Duration::from_millis(1_500))
                .times(1),
        );
        let http = harness.demo.http().clone();
        let here = tokio::spawn(async move { http.me(USER).await });
        harness.services.refreshes_reach(1).await;
        let there = harness.java_token(USER).await;
        let written = harness.raw(ACCESS_HASH, USER);

        here.await.unwrap().has_token(&harness.current(USER));
        assert_eq!(there, renewed(&harness.current(USER)));
        assert_eq!(
            harness.raw(ACCESS_HASH, USER),
            written,
            "what the other service wrote stays"
        );
        harness.services.assert_newest_pair_is_stored(USER);
        assert_eq!(harness.services.refreshes(), 2);
    }
}

/// Tests a sealed value, which the other service cannot open. That service starts a login, and both
/// services accept its tokens.
#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_pair_is_a_miss_for_the_java_service() {
    use base64::Engine as _;
    let key = base64::engine::general_purpose::STANDARD.encode([7; 32]);
    let harness = InteropHarness::with(&[("SEALING_KEY", &key)]).await;
    let old = harness.java_login(USER).await;
    harness.demo.me(USER).await.has_token(&old.access_token);
    harness.time_passes(TWO_HOURS);
    let renewed = harness.demo.me(USER).await;
    renewed.has_token(&harness.current(USER));
    for hash in [ACCESS_HASH, REFRESH_HASH] {
        assert!(harness.raw(hash, USER).starts_with("#0#s1#"));
    }
    assert_eq!(harness.java_token(USER).await, json!({"login": true}));
    assert_eq!(harness.services.refreshes(), 1, "WeChat is not asked there");
    harness
        .demo
        .me(USER)
        .await
        .has_token(&harness.current(USER));

    let pair = harness.java_login(USER).await;
    assert_eq!(
        harness.java_token(USER).await,
        as_it_was(&pair.access_token)
    );
    harness.demo.me(USER).await.has_token(&pair.access_token);
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_users_are_a_miss_for_both() {
    let harness = InteropHarness::new().await;
    for user in ["", "oUnknown"] {
        assert_eq!(harness.java_token(user).await, json!({"login": true}));
        harness
            .demo
            .me(user)
            .await
            .is_rejected(401, "login_required");
    }
    // A value with an expired access token, for a user without a refresh token.
    harness.services.put_access(USER, "token#1");
    assert_eq!(harness.java_token(USER).await, json!({"login": true}));
    harness
        .demo
        .me(USER)
        .await
        .is_rejected(401, "login_required");
    assert_eq!(harness.services.refreshes(), 0);
}

/// Tests that the demo deletes a user's tokens after WeChat has rejected them. The Java service then
/// also starts a login.
#[tokio::test(flavor = "multi_thread")]
async fn an_expired_pair_means_a_login_for_both() {
    let harness = InteropHarness::new().await;
    harness.java_login(USER).await;
    harness.services.wechat.change_password(USER);
    harness.time_passes(TWO_HOURS);
    harness
        .demo
        .me(USER)
        .await
        .is_rejected(401, "login_required");
    assert_eq!(harness.services.stored(USER), None);
    assert_eq!(harness.java_token(USER).await, json!({"login": true}));
    let pair = harness.java_login(USER).await;
    crate::support::eventually(
        "the new login is seen",
        Duration::from_secs(10),
        async || harness.demo.me(USER).await.status == 200,
    )
    .await;
    harness.demo.me(USER).await.has_token(&pair.access_token);
}
