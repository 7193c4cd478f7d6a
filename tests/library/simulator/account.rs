//! Tests of `/cgi-bin`: the account's tokens and ticket, and calls that use them.

use std::time::Duration;

use serde_json::{Value, json};

use super::harness::{Harness, Reply};

const STABLE: &str = "/cgi-bin/stable_token";
const NOT_LATEST: &str = "invalid credential, access_token is invalid or not latest, could get \
                          access_token by getStableAccessToken, more details at \
                          https://mmbizurl.cn/s/JtxxFh33r";

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

impl Harness {
    async fn token(&self) -> Reply {
        let (id, secret) = (self.sim.app_id(), self.sim.app_secret());
        self.get(&format!(
            "/cgi-bin/token?grant_type=client_credential&appid={id}&secret={secret}"
        ))
        .await
    }

    fn stable_body(&self) -> Value {
        json!({
            "grant_type": "client_credential",
            "appid": self.sim.app_id(),
            "secret": self.sim.app_secret(),
        })
    }

    async fn stable(&self) -> Reply {
        self.post(STABLE, &self.stable_body().to_string()).await
    }

    async fn forced(&self) -> Reply {
        let mut body = self.stable_body();
        body["force_refresh"] = json!(true);
        self.post(STABLE, &body.to_string()).await
    }

    /// Calls an API that only needs a valid token.
    async fn using(&self, token: &str) -> Reply {
        self.get(&format!("/cgi-bin/get_api_domain_ip?access_token={token}"))
            .await
    }

    async fn works(&self, token: &str) -> bool {
        let works = self.using(token).await.json().get("ip_list").is_some();
        assert_eq!(works, self.sim.is_account_token_valid(token));
        works
    }
}

#[tokio::test]
async fn an_old_token_is_valid_for_five_more_minutes() {
    let harness = Harness::start().await;
    let reply = harness.token().await;
    assert_eq!(reply.content_type, "application/json; encoding=utf-8");
    assert_eq!(reply.json()["expires_in"], 7200);
    assert_eq!(reply.json().get("errcode"), None);
    let old = reply.field("access_token");
    let new = harness.token().await.field("access_token");
    assert_ne!(old, new);
    assert_eq!(harness.sim.account_token(), Some(new.clone()));
    harness.sim.advance(secs(240));
    assert!(harness.works(&old).await && harness.works(&new).await);
    harness.sim.advance(secs(60));
    harness.using(&old).await.refused(40001, NOT_LATEST);
    assert!(harness.works(&new).await);
    harness.sim.advance(secs(6900));
    harness
        .using(&new)
        .await
        .refused(42001, "access_token expired");
}

#[tokio::test]
async fn the_daily_quota_of_token_ends_and_comes_back() {
    let harness = Harness::start().await;
    harness.advance_to_midnight();
    harness
        .sim
        .settings(|settings| settings.token_daily_quota = 2);
    let token = harness.token().await.field("access_token");
    harness.token().await.field("access_token");
    harness
        .token()
        .await
        .refused(45009, "reach max api daily quota limit");
    let clear = format!("/cgi-bin/clear_quota?access_token={token}");
    let body = json!({ "appid": harness.sim.app_id() }).to_string();
    assert_eq!(
        harness.post(&clear, &body).await.text,
        r#"{"errcode":0,"errmsg":"ok"}"#
    );
    harness.token().await.field("access_token");
    harness.token().await.field("access_token");
    harness
        .token()
        .await
        .refused(45009, "reach max api daily quota limit");
    harness.sim.advance(secs(24 * 3600));
    harness.token().await.field("access_token");
}

#[tokio::test]
async fn quotas_are_cleared_ten_times_a_month() {
    let harness = Harness::start().await;
    harness.advance_to_midnight();
    let (id, secret) = (
        harness.sim.app_id().to_owned(),
        harness.sim.app_secret().to_owned(),
    );
    let v2 = format!("/cgi-bin/clear_quota/v2?appid={id}&appsecret={secret}");
    for _ in 0..9 {
        assert_eq!(harness.post(&v2, "").await.json()["errcode"], 0);
    }
    let in_body = json!({ "appid": id, "appsecret": secret }).to_string();
    assert_eq!(
        harness
            .post("/cgi-bin/clear_quota/v2", &in_body)
            .await
            .json()["errcode"],
        0
    );
    let text = "forbid to clear quota because of reaching the limit";
    harness.post(&v2, "").await.refused(48006, text);
    harness
        .post(
            &format!("/cgi-bin/clear_quota/v2?appid={id}&appsecret=x"),
            "",
        )
        .await
        .refused(40125, "invalid appsecret");
    let token = harness.stable().await.field("access_token");
    let v1 = format!("/cgi-bin/clear_quota?access_token={token}");
    harness
        .post(&v1, &json!({ "appid": id }).to_string())
        .await
        .refused(48006, text);
    harness
        .post(&v1, r#"{"appid":"wx0"}"#)
        .await
        .refused(40013, "invalid appid");
    harness
        .post(&v1, "")
        .await
        .refused(44002, "empty post data");
    harness.get(&v1).await.refused(43002, "require POST method");
}

#[tokio::test]
async fn the_stable_token_is_repeated_with_the_time_that_is_left() {
    let harness = Harness::start().await;
    let first = harness.stable().await;
    assert_eq!(first.json()["expires_in"], 7200);
    harness.sim.advance(secs(6800));
    let again = harness.stable().await;
    assert_eq!(again.field("access_token"), first.field("access_token"));
    let left = again.json()["expires_in"].as_u64().unwrap();
    assert!((390..=400).contains(&left), "{left}");
}

#[tokio::test]
async fn a_stable_token_overlaps_its_successor() {
    let harness = Harness::start().await;
    let old = harness.stable().await.field("access_token");
    harness.sim.advance(secs(6900));
    let reply = harness.stable().await;
    let new = reply.field("access_token");
    assert_ne!(new, old);
    assert_eq!(reply.json()["expires_in"], 7200);
    assert!(harness.works(&old).await && harness.works(&new).await);
    harness.sim.advance(secs(300));
    harness
        .using(&old)
        .await
        .refused(42001, "access_token expired");
    assert!(harness.works(&new).await);
}

#[tokio::test]
async fn a_short_stable_token_repeats_for_half_its_lifetime() {
    let harness = Harness::start().await;
    harness
        .sim
        .settings(|settings| settings.account_token_lifetime = secs(60));
    let old = harness.stable().await.field("access_token");
    harness.sim.advance(secs(20));
    assert_eq!(harness.stable().await.field("access_token"), old);
    harness.sim.advance(secs(10));
    assert_ne!(harness.stable().await.field("access_token"), old);
}

#[tokio::test]
async fn force_revokes_the_old_token_after_thirty_seconds() {
    let harness = Harness::start().await;
    let leaked = harness.stable().await.field("access_token");
    let new = harness.forced().await.field("access_token");
    assert_ne!(new, leaked);
    harness.using(&leaked).await.refused(40001, NOT_LATEST);
    harness.sim.advance(secs(20));
    assert_eq!(harness.forced().await.field("access_token"), new);
    harness.sim.advance(secs(10));
    assert_ne!(harness.forced().await.field("access_token"), new);
    harness.using(&new).await.refused(40001, NOT_LATEST);
}

#[tokio::test]
async fn force_works_twenty_times_a_day() {
    let harness = Harness::start().await;
    harness.advance_to_midnight();
    for _ in 0..20 {
        harness.forced().await.field("access_token");
        harness.sim.advance(secs(31));
    }
    harness
        .forced()
        .await
        .refused(45009, "reach max api daily quota limit");
    harness.stable().await.field("access_token");
}

#[tokio::test]
async fn the_two_kinds_of_token_are_independent() {
    let harness = Harness::start().await;
    let stable = harness.stable().await.field("access_token");
    let classic = harness.token().await.field("access_token");
    harness.token().await;
    harness.forced().await;
    harness.sim.advance(secs(200));
    assert!(harness.works(&classic).await);
    assert!(!harness.works(&stable).await);
    let stable = harness.stable().await.field("access_token");
    harness.token().await;
    harness.sim.advance(secs(1000));
    assert!(harness.works(&stable).await);
}

#[tokio::test]
async fn the_stable_token_validates_its_request() {
    let harness = Harness::start().await;
    harness
        .get(STABLE)
        .await
        .refused(43002, "require POST method");
    harness
        .post(STABLE, "")
        .await
        .refused(44002, "empty post data");
    harness
        .post(STABLE, "appid=x")
        .await
        .refused(47001, "data format error");
    for (field, value, errcode, text) in [
        ("grant_type", "", 40002, "invalid grant_type"),
        ("appid", "", 41002, "appid missing"),
        ("appid", "wx0", 40013, "invalid appid"),
        ("secret", "", 41004, "appsecret missing"),
        ("secret", "x", 40125, "invalid appsecret"),
    ] {
        let mut body = harness.stable_body();
        body[field] = json!(value);
        harness
            .post(STABLE, &body.to_string())
            .await
            .refused(errcode, text);
    }
    harness
        .sim
        .settings(|settings| settings.stable_token_daily_quota = 0);
    harness
        .stable()
        .await
        .refused(45009, "reach max api daily quota limit");
}

#[tokio::test]
async fn callers_and_accounts_can_be_rejected() {
    let harness = Harness::start().await;
    harness
        .sim
        .settings(|settings| settings.ip_whitelist = Some(vec![[10, 0, 0, 1].into()]));
    let text = "invalid ip 127.0.0.1 ipv6 ::ffff:127.0.0.1, not in whitelist";
    harness.token().await.refused(40164, text);
    harness.stable().await.refused(40164, text);
    harness
        .sim
        .settings(|settings| settings.ip_whitelist = Some(vec![[127, 0, 0, 1].into()]));
    harness.token().await.field("access_token");
    harness
        .sim
        .settings(|settings| settings.account_frozen = true);
    harness.token().await.refused(50007, "account is frozen");
    harness.stable().await.refused(50007, "account is frozen");
    harness
        .sim
        .settings(|settings| settings.secret_frozen = true);
    harness.stable().await.refused(40243, "appsecret is frozen");
}

#[tokio::test]
async fn a_repeated_ticket_has_its_full_lifetime() {
    let harness = Harness::start().await;
    let path = |token: &str, kind: &str| {
        format!("/cgi-bin/ticket/getticket?access_token={token}&type={kind}")
    };
    let token = harness.stable().await.field("access_token");
    let first = harness.get(&path(&token, "jsapi")).await;
    let json = first.json();
    assert_eq!(
        (&json["errcode"], &json["errmsg"]),
        (&json!(0), &json!("ok"))
    );
    assert_eq!(json["expires_in"], 7200);
    assert_ne!(
        harness.get(&path(&token, "wx_card")).await.field("ticket"),
        first.field("ticket")
    );
    harness
        .get(&path(&token, "x"))
        .await
        .refused(40097, "invalid args");
    harness
        .get(&path("", "jsapi"))
        .await
        .refused(41001, "access_token missing");

    harness.sim.advance(secs(7000));
    let token = harness.stable().await.field("access_token");
    let again = harness.get(&path(&token, "jsapi")).await;
    assert_eq!(again.field("ticket"), first.field("ticket"));
    assert_eq!(again.json()["expires_in"], 7200);
    harness.sim.advance(secs(200));
    assert_ne!(
        harness.get(&path(&token, "jsapi")).await.field("ticket"),
        first.field("ticket")
    );
}

#[tokio::test]
async fn calls_that_use_the_token() {
    let harness = Harness::start().await;
    let token = harness.stable().await.field("access_token");
    harness.sim.sign_in("oAlice", "snsapi_base");
    let stranger = tower_wechat::simulator::SimulatedUser::new("oBob").subscribed(false);
    harness.sim.add_user(stranger);
    let info = |openid: &str| format!("/cgi-bin/user/info?access_token={token}&openid={openid}");
    assert_eq!(harness.get(&info("oAlice")).await.json()["subscribe"], 1);
    assert_eq!(
        harness.get(&info("oBob")).await.text,
        r#"{"subscribe":0,"openid":"oBob"}"#
    );
    harness
        .get(&info("oNobody"))
        .await
        .refused(40003, "invalid openid");

    let send = format!("/cgi-bin/message/template/send?access_token={token}");
    let message = |to: &str| json!({ "touser": to, "template_id": "T", "data": {} }).to_string();
    let sent = harness.post(&send, &message("oAlice")).await.json();
    assert_eq!(sent["errcode"], 0);
    assert!(sent["msgid"].is_u64());
    harness
        .post(&send, &message("oBob"))
        .await
        .refused(43004, "require subscribe");
    harness
        .get(&send)
        .await
        .refused(43002, "require POST method");
    harness
        .using("83_unknown")
        .await
        .refused(40014, "invalid access_token");
}

#[tokio::test]
async fn tokens_of_the_other_kind_are_refused() {
    let harness = Harness::start().await;
    let of_account = harness.stable().await.field("access_token");
    let of_user = harness
        .sim
        .sign_in("oAlice", "snsapi_userinfo")
        .access_token;
    harness.using(&of_user).await.refused(40001, NOT_LATEST);
    harness
        .userinfo(&of_account, "oAlice")
        .await
        .refused(40001, NOT_LATEST);
}

/// A token of another account or another kind is "not the latest" (40001). Text that cannot be a
/// token is "invalid" (40014).
#[tokio::test]
async fn unknown_tokens_and_malformed_ones_differ() {
    let (harness, other) = (Harness::start().await, Harness::start().await);
    let theirs = other.stable().await.field("access_token");
    let user = other.sim.sign_in("oAlice", "snsapi_userinfo").access_token;
    harness.sim.sign_in("oAlice", "snsapi_userinfo");
    for token in [
        theirs.as_str(),
        &user,
        &format!("102_{}", "aZ09_-".repeat(20)),
    ] {
        harness.using(token).await.refused(40001, NOT_LATEST);
        harness
            .userinfo(token, "oAlice")
            .await
            .refused(40001, NOT_LATEST);
    }
    for token in [
        "x",
        "83_short",
        // Without the digits of its prefix.
        &theirs[2..],
        &theirs[..20],
        "83_%23%20",
        "null",
    ] {
        harness
            .using(token)
            .await
            .refused(40014, "invalid access_token");
        harness
            .userinfo(token, "oAlice")
            .await
            .refused(40014, "invalid access_token");
    }
}

#[tokio::test]
async fn a_misspelt_path_is_an_invalid_url() {
    let harness = Harness::start().await;
    harness
        .get("/cgi-bin/nothing")
        .await
        .refused(40066, "invalid url");
    assert_eq!(harness.get("/elsewhere").await.status, 404);
}
