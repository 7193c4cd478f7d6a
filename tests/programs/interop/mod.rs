//! A service in another language on the same Redis: it does what the published Spring Boot service
//! does with the two hashes, and neither it nor the demo notices a difference.

mod neighbours;

use std::time::Duration;

use crate::support::scene::{REFRESH, now_ms};
use neighbours::{ACCESS_HASH, Neighbours, REFRESH_HASH, TWO_HOURS, USER, as_it_was, renewed};
use serde_json::{Value, json};
use tower_wechat::simulator::{Fault, UserPair};

#[tokio::test(flavor = "multi_thread")]
async fn a_login_there_is_good_here() {
    let two = Neighbours::new().await;
    for user in [USER, "张三 #1:{x}"] {
        let pair = two.java_login(user).await;
        let answer = two.demo.me(user).await;
        answer.has_token(&pair.access_token);
        assert_eq!(answer.field("freshness"), "fresh");
        let left = answer.json()["expires_in_secs"].as_u64().unwrap();
        assert!((7_100..=7_200).contains(&left), "the true expiry: {left}");
    }
    assert_eq!(two.scene.refreshes(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_there_is_good_here() {
    let two = Neighbours::new().await;
    let old = two.java_login(USER).await;
    two.time_passes(TWO_HOURS);
    let new = two.java_token(USER).await;
    assert_ne!(new["token"], old.access_token.as_str());
    assert_eq!(new, renewed(&two.current(USER)));
    two.demo.me(USER).await.has_token(&two.current(USER));
    assert_eq!(two.scene.refreshes(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_here_is_good_there() {
    let two = Neighbours::new().await;
    two.java_login(USER).await;
    two.time_passes(TWO_HOURS);
    two.demo.me(USER).await.has_token(&two.current(USER));
    assert_eq!(two.scene.refreshes(), 1);

    // Two parts, the renewal point 15 minutes before the expiry; details behind the other value.
    let access = two.raw(ACCESS_HASH, USER);
    let (token, ms) = access.split_once('#').unwrap();
    let point = now_ms() + (7_200 - 900) * 1_000;
    assert!(
        (point - 60_000..=point).contains(&ms.parse().unwrap()),
        "{ms} and {point}"
    );
    assert!(
        two.raw(REFRESH_HASH, USER)
            .contains("#scope=snsapi_userinfo")
    );

    assert_eq!(two.java_token(USER).await, as_it_was(token));
    assert!(two.wechat_accepts(USER, token).await);
    assert_eq!(two.scene.refreshes(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn details_behind_the_refresh_token_do_not_disturb() {
    let two = Neighbours::new().await;
    two.scene
        .wechat
        .settings(|settings| settings.rotate_refresh_token = true);
    two.java_login(USER).await;
    two.time_passes(TWO_HOURS);
    let answer = two.demo.me(USER).await;
    assert_eq!(answer.field("scope"), "snsapi_userinfo");

    two.time_passes(TWO_HOURS);
    let there = two.java_token(USER).await;
    assert_eq!(there, renewed(&two.current(USER)));
    assert!(
        !two.raw(REFRESH_HASH, USER).contains("scope"),
        "the other service drops them"
    );
    let answer = two.demo.me(USER).await;
    answer.has_token(&two.current(USER));
    assert_eq!(answer.json()["scope"], Value::Null);
    two.scene.books_balance(USER);
    assert_eq!(two.scene.refreshes(), 2);
}

/// A lifetime below the margin: three parts here, a time long past there.
#[tokio::test(flavor = "multi_thread")]
async fn short_lifetimes() {
    let two = Neighbours::new().await;
    let short = Duration::from_secs(600);
    two.java_login(USER).await;
    two.time_passes(TWO_HOURS);
    two.scene
        .wechat
        .settings(|settings| settings.user_token_lifetime = short);
    two.demo.me(USER).await.has_token(&two.current(USER));
    let token = two.current(USER);
    let value = two.raw(ACCESS_HASH, USER);
    assert_eq!(value.split('#').count(), 3, "{value}");
    assert_eq!(two.java_token(USER).await, as_it_was(&token));
    assert_eq!(two.scene.refreshes(), 1);

    // Past half of the lifetime both take it for due; WeChat prolongs it under the same name.
    two.time_passes(short / 2 + Duration::from_secs(1));
    assert_eq!(two.java_token(USER).await, renewed(&token));
    let value = two.raw(ACCESS_HASH, USER);
    assert_eq!(value.split('#').count(), 2, "{value}");
    assert_eq!(two.scene.refreshes(), 2);
    // What the other service wrote says "long past", and is served here while it lives.
    two.demo.me(USER).await.has_token(&token);
    crate::support::eventually("a renewal in the background", TWO_HOURS / 360, async || {
        two.raw(ACCESS_HASH, USER).split('#').count() == 3
    })
    .await;
    assert_eq!(two.java_token(USER).await, as_it_was(&token));
    two.scene.books_balance(USER);
}

/// WeChat does not say how long a token lives: "expires now" there, a minute here.
#[tokio::test(flavor = "multi_thread")]
async fn a_reply_without_expires_in() {
    let two = Neighbours::new().await;
    let unsaid = |pair: &UserPair| {
        let reply = json!({
            "access_token": "unsaid", "refresh_token": pair.refresh_token,
            "openid": pair.openid, "scope": "snsapi_base",
        });
        Fault::on(REFRESH).body(reply.to_string()).times(1)
    };

    let pair = two.java_login(USER).await;
    two.time_passes(TWO_HOURS);
    two.scene.wechat.inject(unsaid(&pair));
    two.demo.me(USER).await.has_token("unsaid");
    let value = two.raw(ACCESS_HASH, USER);
    let times: Vec<i64> = value
        .split('#')
        .skip(1)
        .map(|part| part.parse().unwrap())
        .collect();
    assert_eq!(times[1] - times[0], 60_000, "{value}");
    assert_eq!(two.java_token(USER).await, renewed(&two.current(USER)));

    let pair = two.java_login("oOther").await;
    two.time_passes(TWO_HOURS);
    two.scene.wechat.inject(unsaid(&pair));
    assert_eq!(two.java_token("oOther").await, renewed("unsaid"));
    let answer = two.demo.me("oOther").await;
    answer.has_token("unsaid");
    assert_eq!(answer.field("freshness"), "stale");
    crate::support::eventually("it is renewed here", Duration::from_secs(20), async || {
        two.raw(ACCESS_HASH, "oOther")
            .starts_with(&two.current("oOther"))
    })
    .await;
    let current = as_it_was(&two.current("oOther"));
    assert_eq!(two.java_token("oOther").await, current);
}

/// In turns, over two days: one renews, the other finds it done.
async fn in_turns(rotate: bool) {
    let two = Neighbours::new().await;
    two.scene
        .wechat
        .settings(|settings| settings.rotate_refresh_token = rotate);
    let users = [USER, "oOther", "张三"];
    for user in users {
        two.java_login(user).await;
    }
    let mut renewals = 0;
    for round in 0..6 {
        // Now and then longer than a token's life, and now and then just past the point.
        let passing = [TWO_HOURS * 4, Duration::from_secs(6_301)][round % 2];
        let before: Vec<String> = users.iter().map(|user| two.current(user)).collect();
        two.time_passes(passing);
        for (at, user) in users.iter().enumerate() {
            renewals += 1;
            if (round + at) % 2 == 0 {
                assert_eq!(
                    two.java_token(user).await,
                    renewed(&two.current(user)),
                    "{round}"
                );
                two.demo.me(user).await.has_token(&two.current(user));
            } else {
                let answer = two.demo.me(user).await;
                assert_eq!(answer.status, 200, "{answer:?}");
                // What is merely due is served while it is renewed.
                crate::support::eventually(
                    "the renewal here",
                    Duration::from_secs(20),
                    async || two.demo.me(user).await.field("freshness") == "fresh",
                )
                .await;
                assert_eq!(
                    two.java_token(user).await,
                    as_it_was(&two.current(user)),
                    "{round}"
                );
            }
            assert_eq!(
                two.current(user) != before[at],
                passing >= TWO_HOURS,
                "{round}"
            );
            assert_eq!(two.scene.refreshes(), renewals, "{round}: one renewal each");
            two.scene.books_balance(user);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_turns_with_one_refresh_token() {
    in_turns(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_turns_with_refresh_tokens_that_rotate() {
    in_turns(true).await;
}

/// The other service knows no lease: it renews while the demo does. What it wrote stays.
#[tokio::test(flavor = "multi_thread")]
async fn both_at_once() {
    for rotate in [false, true] {
        let two = Neighbours::new().await;
        two.scene
            .wechat
            .settings(|settings| settings.rotate_refresh_token = rotate);
        two.java_login(USER).await;
        two.time_passes(TWO_HOURS);
        two.scene.wechat.inject(
            Fault::on(REFRESH)
                .delay(Duration::from_millis(1_500))
                .times(1),
        );
        let http = two.demo.http().clone();
        let here = tokio::spawn(async move { http.me(USER).await });
        two.scene.refreshes_reach(1).await;
        let there = two.java_token(USER).await;
        let written = two.raw(ACCESS_HASH, USER);

        here.await.unwrap().has_token(&two.current(USER));
        assert_eq!(there, renewed(&two.current(USER)));
        assert_eq!(
            two.raw(ACCESS_HASH, USER),
            written,
            "what the other service wrote stays"
        );
        two.scene.books_balance(USER);
        assert_eq!(two.scene.refreshes(), 2);
    }
}

/// The other service cannot open what is sealed. It finds no user, asks for a login, and its own
/// pair is good for both.
#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_pair_is_a_miss_there_and_no_crash() {
    use base64::Engine as _;
    let key = base64::engine::general_purpose::STANDARD.encode([7; 32]);
    let two = Neighbours::with(&[("SEALING_KEY", &key)]).await;
    let old = two.java_login(USER).await;
    two.demo.me(USER).await.has_token(&old.access_token);
    two.time_passes(TWO_HOURS);
    let renewed = two.demo.me(USER).await;
    renewed.has_token(&two.current(USER));
    for hash in [ACCESS_HASH, REFRESH_HASH] {
        assert!(two.raw(hash, USER).starts_with("#0#s1#"));
    }
    assert_eq!(two.java_token(USER).await, json!({"login": true}));
    assert_eq!(two.scene.refreshes(), 1, "WeChat is not asked there");
    two.demo.me(USER).await.has_token(&two.current(USER));

    let pair = two.java_login(USER).await;
    assert_eq!(two.java_token(USER).await, as_it_was(&pair.access_token));
    two.demo.me(USER).await.has_token(&pair.access_token);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_and_strangers() {
    let two = Neighbours::new().await;
    for user in ["", "oStranger"] {
        assert_eq!(two.java_token(user).await, json!({"login": true}));
        two.demo.me(user).await.is_rejected(401, "login_required");
    }
    // An access token that ran out, and nothing to renew it with.
    two.scene.put_access(USER, "token#1");
    assert_eq!(two.java_token(USER).await, json!({"login": true}));
    two.demo.me(USER).await.is_rejected(401, "login_required");
    assert_eq!(two.scene.refreshes(), 0);
}

/// A dead pair is deleted here; there it then means a login too.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_pair_is_dead_for_both() {
    let two = Neighbours::new().await;
    two.java_login(USER).await;
    two.scene.wechat.change_password(USER);
    two.time_passes(TWO_HOURS);
    two.demo.me(USER).await.is_rejected(401, "login_required");
    assert_eq!(two.scene.stored(USER), None);
    assert_eq!(two.java_token(USER).await, json!({"login": true}));
    let pair = two.java_login(USER).await;
    crate::support::eventually(
        "the new login is seen",
        Duration::from_secs(10),
        async || two.demo.me(USER).await.status == 200,
    )
    .await;
    two.demo.me(USER).await.has_token(&pair.access_token);
}

/// What Java's own serialization makes of a text.
fn java_serialized(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap().to_be_bytes();
    [
        &[0xac, 0xed, 0x00, 0x05, 0x74],
        &length[..],
        text.as_bytes(),
    ]
    .concat()
}

/// What a `RedisTemplate` with other serializers makes of a value. One line says so, for any number
/// of users and requests, and names the cure.
#[tokio::test(flavor = "multi_thread")]
async fn values_of_other_spring_serializers_are_told_once() {
    type Serializer = fn(&str) -> Vec<u8>;
    let serializers: [(&str, Serializer); 4] = [
        ("Java's own serialization", java_serialized),
        // Jackson2JsonRedisSerializer, GenericJackson2JsonRedisSerializer, FastJson of a string.
        ("JSON", |value| format!("\"{value}\"").into_bytes()),
        ("JSON", |value| {
            format!("{{\"@type\":\"com.example.Token\",\"value\":\"{value}\"}}").into_bytes()
        }),
        ("JSON", |value| {
            format!("[\"java.lang.String\",\"{value}\"]").into_bytes()
        }),
    ];
    for (named, serialized) in serializers {
        let two = Neighbours::new().await;
        let later = now_ms() + 3_600_000;
        for user in ["oA", "oB", "oC"] {
            two.scene
                .put_access(user, serialized(&format!("access-{user}#{later}")));
            two.scene
                .put_refresh(user, serialized(&format!("refresh-{user}#{later}")));
        }
        for _ in 0..3 {
            for user in ["oA", "oB", "oC"] {
                two.demo.me(user).await.is_rejected(401, "login_required");
            }
        }
        let log = two.demo.log();
        let lines: Vec<&str> = log
            .lines()
            .filter(|line| line.contains("counts as missing"))
            .collect();
        assert_eq!(lines.len(), 1, "{log}");
        assert!(
            lines[0].contains("ERROR") && lines[0].contains(named),
            "{}",
            lines[0]
        );
        assert!(lines[0].contains("StringRedisTemplate"), "{}", lines[0]);
        assert!(
            !log.contains("access-oA") && !log.contains("refresh-oA"),
            "{log}"
        );
        // A login mends the user.
        let pair = two.java_login("oB").await;
        crate::support::eventually("the login is seen", Duration::from_secs(10), async || {
            two.demo.me("oB").await.status == 200
        })
        .await;
        two.demo.me("oB").await.has_token(&pair.access_token);
    }
}

/// Names of fields and of hashes that another serializer has made are never asked for.
#[tokio::test(flavor = "multi_thread")]
async fn names_of_javas_own_serialization_are_told_once() {
    use redis::Commands;

    for whole in [false, true] {
        let two = Neighbours::new().await;
        let later = now_ms() + 3_600_000;
        let mut redis = two.scene.connection();
        for hash in [ACCESS_HASH, REFRESH_HASH] {
            let name = match whole {
                true => java_serialized(hash),
                false => hash.as_bytes().to_vec(),
            };
            let value = format!("token#{later}");
            () = redis.hset(name, java_serialized(USER), value).unwrap();
        }
        for _ in 0..3 {
            two.demo.me(USER).await.is_rejected(401, "login_required");
        }
        two.demo
            .says(
                1,
                &["ERROR", "Java's own serialization", "StringRedisTemplate"],
            )
            .await;
        let log = two.demo.log();
        assert_eq!(log.matches("AC ED 00 05").count(), 1, "{log}");
    }
}

/// A stored token is held to what WeChat's tokens are made of.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_a_token_is_a_miss() {
    let two = Neighbours::new().await;
    let later = now_ms() + 3_600_000;
    for (at, token) in [
        "\u{feff}tok",
        "to k",
        "tok\n",
        "t\u{7}ok",
        "令牌",
        " tok",
        "tok\u{a0}",
    ]
    .iter()
    .enumerate()
    {
        let user = format!("oUser{at}");
        two.scene.put_access(&user, format!("{token}#{later}"));
        two.demo.me(&user).await.is_rejected(401, "login_required");
        // With a good refresh token the user notices nothing.
        let pair = two.scene.wechat.sign_in(&user, "snsapi_base");
        two.scene
            .put_refresh(&user, format!("{}#{later}", pair.refresh_token));
        crate::support::eventually("it is renewed", Duration::from_secs(10), async || {
            two.demo.me(&user).await.status == 200
        })
        .await;
        two.demo.me(&user).await.has_token(&two.current(&user));
        two.scene.books_balance(&user);
    }
    let log = two.demo.log();
    assert_eq!(
        log.matches("its token holds what no token").count(),
        7,
        "{log}"
    );
}
