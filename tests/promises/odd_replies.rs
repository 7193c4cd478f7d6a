//! Tests of responses of WeChat that differ from its documentation.

use std::time::Duration;

use tower_wechat::simulator::Fault;
use tower_wechat::{ErrorKind, UserTokens};

use crate::harness::{Harness, REFRESH, id, text};

crate::for_each_store!(
    odd_lifetimes_are_corrected,
    odd_bytes_are_read_leniently,
    a_nonsense_reply_is_an_error_without_effect,
);

/// Renews a token with this response. Returns the seconds until the stored token's renewal point
/// and until its expiry.
async fn renewed_from(
    harness: &Harness,
    users: &UserTokens,
    reply: impl Into<Vec<u8>>,
) -> (i64, i64) {
    harness.expired(users, &["oA"]).await;
    harness
        .simulator
        .inject(Fault::on(REFRESH).body_bytes(reply).times(1));
    let now = harness.clock.now().as_millis();
    let token = users.get(&id("oA")).await.unwrap();
    assert_eq!(text(&token), "83_odd");
    // Another process reads the stored token with the same times.
    let theirs = harness.process().await;
    // The second process renews a token that is due at once in the background. The delay lets the
    // test read the token before.
    harness
        .simulator
        .inject(Fault::on(REFRESH).delay(Duration::from_millis(300)));
    let read = theirs.get(&id("oA")).await.unwrap();
    assert_eq!(text(&read), "83_odd");
    let life = read.lifetime();
    assert_eq!(life, token.lifetime());
    assert!(theirs.shutdown(Duration::from_secs(5)).await);
    harness.simulator.clear_faults();
    let seconds = |at: tower_wechat::clock::Timestamp| (at.as_millis() - now + 500) / 1_000;
    (seconds(life.renew_at()), seconds(life.expires_at()))
}

async fn odd_lifetimes_are_corrected(harness: Harness) {
    let users = harness.process().await;
    for (expires_in, expected) in [
        (r#""expires_in":7200"#, (6_300, 7_200)),
        (r#""expires_in":"7200""#, (6_300, 7_200)),
        (r#""expires_in":600"#, (300, 600)),
        (r#""x":1"#, (0, 60)),
        (r#""expires_in":0"#, (0, 60)),
        (r#""expires_in":-1"#, (0, 60)),
        (r#""expires_in":99999999999999"#, (6_300, 7_200)),
    ] {
        let reply = format!(r#"{{"access_token":"83_odd",{expires_in},"openid":"oA"}}"#);
        assert_eq!(
            renewed_from(&harness, &users, reply).await,
            expected,
            "{expires_in}"
        );
        users.shutdown(Duration::from_secs(5)).await;
        harness.advance(Duration::from_secs(16));
    }
}

async fn odd_bytes_are_read_leniently(harness: Harness) {
    let users = harness.process().await;
    for reply in [
        &b"\xef\xbb\xbf{\"access_token\":\"83_odd\",\"expires_in\":7200}"[..],
        b"{\"access_token\":\"83_odd\",\"expires_in\":7200,\"nickname\":\"a\x07\x0ab\xff\xfe\"}",
        b"{\"access_token\":\"83_odd\",\"expires_in\":7200,\"refresh_token\":\"\"}",
        b"{\"errcode\":0,\"errmsg\":\"ok\",\"access_token\":\"83_odd\",\"expires_in\":7200}",
    ] {
        assert_eq!(renewed_from(&harness, &users, reply).await, (6_300, 7_200));
    }
}

async fn a_nonsense_reply_is_an_error_without_effect(harness: Harness) {
    let users = harness
        .process_with(|builder| builder.lease_duration(Duration::from_millis(600)))
        .await;
    let ten_megabytes = vec![b'x'; 10 << 20];
    let replies = [
        &b""[..],
        b"<html>proxy</html>",
        b"{\"expires_in\":7200}",
        b"{\"access_token\":\"\"}",
        b"{\"access_token\":\"a#b\",\"expires_in\":7200}",
        b"{\"access_token\":\"tru",
        b"[]",
        b"null",
        &ten_megabytes,
    ];
    for (at, reply) in replies.into_iter().enumerate() {
        let openid = format!("oUser{at}");
        harness.expired(&users, &[&openid]).await;
        harness
            .simulator
            .inject(Fault::on(REFRESH).body_bytes(reply));
        let error = users.get(&id(&openid)).await.unwrap_err();
        assert_eq!(
            error.kind(),
            ErrorKind::WechatUnavailable,
            "reply {at}: {error}"
        );
        harness.simulator.clear_faults();
        assert_eq!(
            harness.stored_token(&openid).await.unwrap(),
            harness.live_token(&openid)
        );
    }
}
