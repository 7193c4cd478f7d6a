//! Tests of values and keys that a service in another language writes and the demo cannot read.

use std::time::Duration;

use super::harness::{ACCESS_HASH, InteropHarness, REFRESH_HASH, USER};
use crate::support::harness::now_ms;

/// Returns a text as Java serializes it: a header, the length and the text.
fn java_serialized(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap().to_be_bytes();
    [
        &[0xac, 0xed, 0x00, 0x05, 0x74],
        &length[..],
        text.as_bytes(),
    ]
    .concat()
}

/// Writes values as a `RedisTemplate` with other serializers does. The demo logs one line that
/// names the remedy, for any number of users and requests.
#[tokio::test(flavor = "multi_thread")]
async fn values_of_other_serializers_are_logged_once() {
    type Serializer = fn(&str) -> Vec<u8>;
    let serializers: [(&str, Serializer); 4] = [
        ("Java's own serialization", java_serialized),
        // The formats of Jackson2JsonRedisSerializer, GenericJackson2JsonRedisSerializer and
        // FastJson.
        ("JSON", |value| format!("\"{value}\"").into_bytes()),
        ("JSON", |value| {
            format!("{{\"@type\":\"com.example.Token\",\"value\":\"{value}\"}}").into_bytes()
        }),
        ("JSON", |value| {
            format!("[\"java.lang.String\",\"{value}\"]").into_bytes()
        }),
    ];
    for (named, serialized) in serializers {
        let harness = InteropHarness::new().await;
        let later = now_ms() + 3_600_000;
        for user in ["oA", "oB", "oC"] {
            harness
                .services
                .put_access(user, serialized(&format!("access-{user}#{later}")));
            harness
                .services
                .put_refresh(user, serialized(&format!("refresh-{user}#{later}")));
        }
        for _ in 0..3 {
            for user in ["oA", "oB", "oC"] {
                harness
                    .demo
                    .me(user)
                    .await
                    .is_rejected(401, "login_required");
            }
        }
        let log = harness.demo.log();
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
        // A login replaces an unreadable value.
        let pair = harness.java_login("oB").await;
        crate::support::eventually("the login is seen", Duration::from_secs(10), async || {
            harness.demo.me("oB").await.status == 200
        })
        .await;
        harness.demo.me("oB").await.has_token(&pair.access_token);
    }
}

/// Java has serialized the name of a field or a hash. The demo finds no tokens under its own name,
/// and logs one line.
#[tokio::test(flavor = "multi_thread")]
async fn keys_of_java_serialization_are_logged_once() {
    use redis::Commands;

    for whole in [false, true] {
        let harness = InteropHarness::new().await;
        let later = now_ms() + 3_600_000;
        let mut redis = harness.services.connection();
        for hash in [ACCESS_HASH, REFRESH_HASH] {
            let name = match whole {
                true => java_serialized(hash),
                false => hash.as_bytes().to_vec(),
            };
            let value = format!("token#{later}");
            () = redis.hset(name, java_serialized(USER), value).unwrap();
        }
        for _ in 0..3 {
            harness
                .demo
                .me(USER)
                .await
                .is_rejected(401, "login_required");
        }
        harness
            .demo
            .says(
                1,
                &["ERROR", "Java's own serialization", "StringRedisTemplate"],
            )
            .await;
        let log = harness.demo.log();
        assert_eq!(log.matches("AC ED 00 05").count(), 1, "{log}");
    }
}

/// A stored token with characters that no token of WeChat has counts as missing.
#[tokio::test(flavor = "multi_thread")]
async fn values_that_cannot_be_tokens_are_a_miss() {
    let harness = InteropHarness::new().await;
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
        harness
            .services
            .put_access(&user, format!("{token}#{later}"));
        harness
            .demo
            .me(&user)
            .await
            .is_rejected(401, "login_required");
        // With a valid refresh token, the demo renews the access token without a login.
        let pair = harness.services.wechat.sign_in(&user, "snsapi_base");
        harness
            .services
            .put_refresh(&user, format!("{}#{later}", pair.refresh_token));
        crate::support::eventually("it is renewed", Duration::from_secs(10), async || {
            harness.demo.me(&user).await.status == 200
        })
        .await;
        harness
            .demo
            .me(&user)
            .await
            .has_token(&harness.current(&user));
        harness.services.assert_newest_pair_is_stored(&user);
    }
    let log = harness.demo.log();
    assert_eq!(
        log.matches("its token holds what no token").count(),
        7,
        "{log}"
    );
}
