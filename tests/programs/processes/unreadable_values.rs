//! Tests of stored values that cannot be read: they count as missing and are logged once. A key of
//! another Redis type causes a 503 and one error line.

use std::time::Duration;

use crate::support::demo_process::DemoProcess;
use crate::support::eventually;
use crate::support::harness::{Age, Harness, Layout, now_ms};

const UNREADABLE: &str = "a stored value cannot be read";
const WRONG_TYPE: &str = "holds a value of another type";

fn unreadable() -> Vec<Vec<u8>> {
    let huge = vec![b'x'; 1 << 20];
    [
        &b"abc"[..],
        b"tok#",
        b"#123",
        b"tok#12x",
        b"",
        b"#",
        b"\xff\x00\x01#1",
        b"tok# 12",
        &huge,
    ]
    .map(<[u8]>::to_vec)
    .to_vec()
}

/// Waits until exactly one warning names this user.
async fn warned_once(demo: &DemoProcess, user: &str) {
    demo.says(1, &["WARN", UNREADABLE, &format!("user={user:?}")])
        .await;
}

/// Waits for 1.1 s, longer than a process caches a missing token.
async fn missing_tokens_expire() {
    tokio::time::sleep(Duration::from_millis(1_100)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_access_value_without_a_refresh_value() {
    let harness = Harness::new(Layout::Hashes).await;
    let demo = harness.demo().await;
    for (number, value) in unreadable().iter().enumerate() {
        harness.put_access(&format!("oUser{number}"), value);
    }
    for _ in 0..2 {
        for number in 0..unreadable().len() {
            demo.me(&format!("oUser{number}"))
                .await
                .is_rejected(401, "login_required");
        }
        missing_tokens_expire().await;
    }
    for number in 0..unreadable().len() {
        let user = format!("oUser{number}");
        warned_once(&demo, &user).await;
    }
    assert_eq!(harness.refreshes(), 0);
    assert!(!demo.log().contains("12x"), "a value may be a secret");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_access_value_beside_a_good_refresh_value() {
    let harness = Harness::new(Layout::Hashes).await;
    let demo = harness.demo().await;
    for (number, value) in unreadable().iter().enumerate() {
        let user = format!("oUser{number}");
        let pair = harness.sign_in(&user, Age::Expired).await;
        harness.put_access(&user, value);
        let answer = demo.me(&user).await;
        let current = harness.wechat.current_pair(&user).unwrap();
        assert_ne!(current.access_token, pair.access_token);
        answer.has_token(&current.access_token);
        harness.assert_newest_pair_is_stored(&user);
        assert_eq!(harness.refreshes(), number as u64 + 1);
        warned_once(&demo, &user).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_value() {
    let harness = Harness::new(Layout::Hashes).await;
    let demo = harness.demo().await;
    let fresh = now_ms() + 3_600_000;
    for (number, value) in unreadable().iter().enumerate() {
        let (good, expired) = (format!("oGood{number}"), format!("oExpired{number}"));
        harness.put_refresh(&good, value);
        harness.put_access(&good, format!("token{number}#{fresh}"));
        demo.me(&good).await.has_token(&format!("token{number}"));
        harness.put_refresh(&expired, value);
        harness.put_access(&expired, "token#1");
        demo.me(&expired).await.is_rejected(401, "login_required");
        warned_once(&demo, &good).await;
        warned_once(&demo, &expired).await;
    }
    assert_eq!(harness.refreshes(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_the_key_layout() {
    let harness = Harness::new(Layout::Keys).await;
    let demo = harness.demo().await;
    let mut records = unreadable();
    for record in [
        "9#a#1#2#r#3",
        "1#a#1",
        "1##1#2#r#3",
        "1#a#x#2#r#3",
        "1#a#2#1#r#3",
        "2#a#!#2#r#3",
        "2#a#2#-1#r#3",
        "1",
    ] {
        records.push(record.as_bytes().to_vec());
    }
    for (number, record) in records.iter().enumerate() {
        harness.put_record(&format!("oUser{number}"), record);
    }
    for _ in 0..2 {
        for number in 0..records.len() {
            demo.me(&format!("oUser{number}"))
                .await
                .is_rejected(401, "login_required");
        }
        missing_tokens_expire().await;
    }
    for number in 0..records.len() {
        let user = format!("oUser{number}");
        warned_once(&demo, &user).await;
    }
    // A login replaces an unreadable record.
    let pair = harness.sign_in("oUser0", Age::Fresh).await;
    eventually(
        "the new record is read",
        Duration::from_secs(5),
        async || demo.me("oUser0").await.status == 200,
    )
    .await;
    demo.me("oUser0").await.has_token(&pair.access_token);
}

/// An operator has written a key of another type. After its removal, the demo works without a
/// restart.
async fn another_type(layout: Layout, spoil: impl Fn(&Harness) -> (String, redis::Cmd)) {
    let harness = Harness::new(layout).await;
    let demo = harness.demo().await;
    let (key, command) = spoil(&harness);
    () = command.query(&mut harness.connection()).unwrap();
    for _ in 0..3 {
        demo.me("oUser").await.is_rejected(503, "store_unavailable");
    }
    demo.says(1, &["ERROR", WRONG_TYPE]).await;

    () = redis::cmd("DEL")
        .arg(&key)
        .query(&mut harness.connection())
        .unwrap();
    let pair = harness.sign_in("oUser", Age::Fresh).await;
    demo.me("oUser").await.has_token(&pair.access_token);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hash_name_that_holds_a_string() {
    for name in ["user.wxUserAccessToken", "user.wxUserRefreshToken"] {
        another_type(Layout::Hashes, |_| {
            let mut command = redis::cmd("SET");
            command.arg(name).arg("oUser");
            (name.to_owned(), command)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_a_hash() {
    another_type(Layout::Keys, |harness| {
        let key = harness.key("oUser");
        let mut command = redis::cmd("HSET");
        command.arg(&key).arg("field").arg("value");
        (key, command)
    })
    .await;
}
