//! Tests of users in a gateway's header: invalid names, and unusual ones that are valid.

use std::io::{Read, Write};
use std::time::Duration;

use crate::support::demo_process::USER_HEADER;
use crate::support::eventually;
use crate::support::harness::{Age, Harness, Layout};
use crate::support::http_client::Asked;

/// User ids that have a special meaning in Redis, in stored values, in URLs or as JSON.
const ODD: [&str; 22] = [
    "two words",
    "a:b",
    "a:b:c",
    "lease:user:a",
    "#",
    "tok#123",
    "{}",
    "{x}",
    "}{",
    "a%7Bb",
    "a{b",
    "50%",
    "张三",
    "😀",
    "e\u{301}",
    "\u{e9}",
    "*",
    "\"'\\",
    "../../x",
    "user.wxUserAccessToken",
    "$3\\r\\nGET",
    "null",
];

async fn odd_names_work(layout: Layout) {
    let harness = Harness::new(layout).await;
    let [first, second] = harness.demos().await;
    let longest = "x".repeat(256);
    let longest_of_letters = "界".repeat(85);
    let users: Vec<&str> = ODD
        .into_iter()
        .chain([&*longest, &*longest_of_letters])
        .collect();

    for user in &users {
        first.me(user).await.is_rejected(401, "login_required");
    }
    let signed_in: Vec<_> = users
        .iter()
        .map(|user| harness.wechat.sign_in(user, "snsapi_userinfo"))
        .collect();
    harness.wechat.advance(signed_in[0].expires_in);
    for (user, pair) in users.iter().zip(&signed_in) {
        harness.store(user, pair, Age::Expired);
    }
    for user in &users {
        // The process caches the missing token of an earlier request for one second.
        eventually(
            "the user's own token",
            Duration::from_secs(10),
            async || first.me(user).await.status == 200,
        )
        .await;
        let own = harness.wechat.current_pair(user).unwrap();
        for demo in [&first, &second] {
            let answer = demo.me(user).await;
            answer.has_token(&own.access_token);
            assert_eq!(answer.field("user_id"), *user);
            assert_eq!(answer.field("openid"), *user, "the refresh returned it");
        }
        harness.assert_newest_pair_is_stored(user);
    }
    assert_eq!(harness.refreshes(), users.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_names_work_hashes() {
    odd_names_work(Layout::Hashes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_names_work_keys() {
    odd_names_work(Layout::Keys).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_user_names_are_rejected() {
    let harness = Harness::new(Layout::Hashes).await;
    let demo = harness.demo().await;
    let pair = harness.sign_in("oUser", Age::Fresh).await;
    let me = || Asked::get("/api/me");

    demo.ask(me()).await.is_rejected(401, "login_required");
    demo.ask(me().header(USER_HEADER, ""))
        .await
        .is_rejected(401, "login_required");
    for bad in [
        "x".repeat(257).as_bytes(),
        "x".repeat(4096).as_bytes(),
        "界".repeat(86).as_bytes(),
        b"tab\tinside",
        "next line\u{85}inside".as_bytes(),
        b"\xff",
        b"oUser\xc3",
        b"\xed\xa0\x80",
    ] {
        let answer = demo.ask(me().header(USER_HEADER, bad)).await;
        answer.is_rejected(400, "bad_request");
    }
    for (one, other) in [
        ("oUser", "oUser"),
        ("oUser", "oOther"),
        ("oUser", ""),
        ("", "oUser"),
    ] {
        let twice = me().header(USER_HEADER, one).header(USER_HEADER, other);
        demo.ask(twice).await.is_rejected(400, "bad_request");
    }
    demo.me("oUser").await.has_token(&pair.access_token);
    demo.me("ouser").await.is_rejected(401, "login_required");
}

/// The server rejects requests with control characters in a header, and serves others.
#[tokio::test(flavor = "multi_thread")]
async fn control_characters_in_a_name_are_rejected() {
    let harness = Harness::new(Layout::Hashes).await;
    let demo = harness.demo().await;
    let pair = harness.sign_in("oUser", Age::Fresh).await;
    for bad in [&b"a\x01b"[..], b"a\x00b", b"a\x7fb", b"a\rb", b"\x1b[31m"] {
        let address = demo.url.trim_start_matches("http://");
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let mut request = b"GET /api/me HTTP/1.1\r\nhost: a\r\nx-user-id: ".to_vec();
        request.extend(bad);
        request.extend(b"\r\nconnection: close\r\n\r\n");
        stream.write_all(&request).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{bad:?}: {answer}");
    }
    demo.me("oUser").await.has_token(&pair.access_token);
}
