//! Tests of the simulator's `/sns` routes: codes, user tokens and profiles.

use std::time::Duration;

use tower_wechat::simulator::SimulatedUser;

use super::harness::Harness;

const NOT_LATEST: &str = "invalid credential, access_token is invalid or not latest, could get \
                          access_token by getStableAccessToken, more details at \
                          https://mmbizurl.cn/s/JtxxFh33r";
const USERINFO: &str = "snsapi_userinfo";

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

#[tokio::test]
async fn a_code_becomes_a_pair() {
    let harness = Harness::start().await;
    harness
        .sim
        .add_user(SimulatedUser::new("oAlice").unionid("uAlice"));
    let reply = harness
        .exchange(&harness.sim.authorize("oAlice", USERINFO))
        .await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.content_type, "text/plain");
    let json = reply.json();
    assert_eq!(json.get("errcode"), None);
    assert_eq!(json.get("is_snapshotuser"), None);
    assert_eq!(json["expires_in"], 7200);
    assert_eq!(json["openid"], "oAlice");
    assert_eq!(json["scope"], USERINFO);
    assert_eq!(json["unionid"], "uAlice");
    for token in [reply.field("access_token"), reply.field("refresh_token")] {
        assert!(token.starts_with("83_") && token.len() == 103, "{token}");
        assert!(
            token
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
        );
    }
    let pair = harness.sim.current_pair("oAlice").unwrap();
    assert_eq!(pair.access_token, reply.field("access_token"));
    assert_eq!(pair.refresh_token, reply.field("refresh_token"));
}

#[tokio::test]
async fn the_unionid_requires_userinfo() {
    let harness = Harness::start().await;
    harness
        .sim
        .add_user(SimulatedUser::new("oAlice").unionid("uAlice"));
    let base = harness
        .exchange(&harness.sim.authorize("oAlice", "snsapi_base"))
        .await
        .json();
    assert_eq!(base["scope"], "snsapi_base");
    assert_eq!(base.get("unionid"), None);
}

#[tokio::test]
async fn a_snapshot_user_is_marked() {
    let harness = Harness::start().await;
    harness
        .sim
        .add_user(SimulatedUser::new("oGhost").snapshot(true));
    let reply = harness
        .exchange(&harness.sim.authorize("oGhost", USERINFO))
        .await
        .json();
    assert_eq!(reply["is_snapshotuser"], 1);
}

#[tokio::test]
async fn a_code_works_once() {
    let harness = Harness::start().await;
    let code = harness.sim.authorize("oAlice", USERINFO);
    assert_eq!(harness.exchange(&code).await.json().get("errcode"), None);
    harness
        .exchange(&code)
        .await
        .refused(40163, "code been used");
}

#[tokio::test]
async fn a_code_expires_after_five_minutes() {
    let harness = Harness::start().await;
    let (in_time, too_late) = (
        harness.sim.authorize("oAlice", USERINFO),
        harness.sim.authorize("oAlice", USERINFO),
    );
    harness.sim.advance(secs(240));
    assert_eq!(harness.exchange(&in_time).await.json().get("errcode"), None);
    harness.sim.advance(secs(60));
    harness
        .exchange(&too_late)
        .await
        .refused(40029, "invalid code");
    harness
        .exchange("0neverseen")
        .await
        .refused(40029, "invalid code");
}

#[tokio::test]
async fn a_wrong_caller_does_not_use_up_a_code() {
    let harness = Harness::start().await;
    let (id, secret) = (
        harness.sim.app_id().to_owned(),
        harness.sim.app_secret().to_owned(),
    );
    let code = harness.sim.authorize("oAlice", USERINFO);
    let grant = "grant_type=authorization_code";
    for (query, errcode, text) in [
        (
            format!("secret={secret}&code={code}&{grant}"),
            41002,
            "appid missing",
        ),
        (
            format!("appid=wx0&secret={secret}&code={code}&{grant}"),
            40013,
            "invalid appid",
        ),
        (
            format!("appid={id}&code={code}&{grant}"),
            41004,
            "appsecret missing",
        ),
        (
            format!("appid={id}&secret=x&code={code}&{grant}"),
            40125,
            "invalid appsecret",
        ),
        (
            format!("appid={id}&secret={secret}&code={code}"),
            40002,
            "invalid grant_type",
        ),
        (
            format!("appid={id}&secret={secret}&code=&{grant}"),
            41008,
            "missing code",
        ),
    ] {
        harness
            .get(&format!("/sns/oauth2/access_token?{query}"))
            .await
            .refused(errcode, text);
    }
    harness
        .sim
        .settings(|settings| settings.secret_frozen = true);
    harness
        .exchange(&code)
        .await
        .refused(40243, "appsecret is frozen");
    harness
        .sim
        .settings(|settings| settings.secret_frozen = false);
    assert_eq!(harness.exchange(&code).await.json().get("errcode"), None);
}

#[tokio::test]
async fn a_new_exchange_revokes_the_old_pair() {
    let harness = Harness::start().await;
    let old = harness.sim.sign_in("oAlice", USERINFO);
    harness
        .exchange(&harness.sim.authorize("oAlice", "snsapi_base"))
        .await;
    harness
        .userinfo(&old.access_token, "oAlice")
        .await
        .refused(40001, NOT_LATEST);
    harness
        .refresh(&old.refresh_token)
        .await
        .refused(40030, "invalid refresh_token");
}

#[tokio::test]
async fn a_refresh_before_expiry_renews_the_same_token() {
    let harness = Harness::start().await;
    let old = harness.sim.sign_in("oAlice", USERINFO);
    harness.sim.advance(secs(7000));
    let reply = harness.refresh(&old.refresh_token).await;
    let json = reply.json();
    assert_eq!(json["expires_in"], 7200);
    assert_eq!(json["scope"], USERINFO);
    assert_eq!(json.get("unionid"), None);
    assert_eq!(reply.field("access_token"), old.access_token);
    assert_eq!(reply.field("refresh_token"), old.refresh_token);
    harness.sim.advance(secs(7000));
    assert_eq!(
        harness
            .userinfo(&old.access_token, "oAlice")
            .await
            .field("openid"),
        "oAlice"
    );
}

#[tokio::test]
async fn a_refresh_after_expiry_gives_a_new_token() {
    let harness = Harness::start().await;
    let old = harness.sim.sign_in("oAlice", USERINFO);
    harness.sim.advance(secs(7200));
    harness
        .userinfo(&old.access_token, "oAlice")
        .await
        .refused(42001, "access_token expired");
    let new = harness.refresh(&old.refresh_token).await;
    assert_ne!(new.field("access_token"), old.access_token);
    assert_eq!(new.field("refresh_token"), old.refresh_token);
    harness
        .userinfo(&old.access_token, "oAlice")
        .await
        .refused(42001, "access_token expired");
    assert_eq!(
        harness
            .userinfo(&new.field("access_token"), "oAlice")
            .await
            .field("openid"),
        "oAlice"
    );
    // A second refresh with the same refresh token returns the same access token.
    let again = harness.refresh(&old.refresh_token).await;
    assert_eq!(again.field("access_token"), new.field("access_token"));
}

#[tokio::test]
async fn refreshing_does_not_extend_a_refresh_token() {
    let harness = Harness::start().await;
    let pair = harness.sim.sign_in("oAlice", USERINFO);
    harness.sim.advance(secs(29 * 24 * 3600));
    assert_eq!(
        harness
            .refresh(&pair.refresh_token)
            .await
            .json()
            .get("errcode"),
        None
    );
    harness.sim.advance(secs(24 * 3600));
    harness
        .refresh(&pair.refresh_token)
        .await
        .refused(42002, "refresh_token expired");
}

#[tokio::test]
async fn an_unlimited_lifetime_works() {
    let harness = Harness::start().await;
    harness.sim.settings(|settings| {
        settings.code_lifetime = Duration::MAX;
        settings.user_token_lifetime = Duration::MAX;
        settings.refresh_token_lifetime = Duration::MAX;
    });
    let pair = harness
        .exchange(&harness.sim.authorize("oAlice", USERINFO))
        .await;
    harness.sim.advance(Duration::MAX);
    harness
        .refresh(&pair.field("refresh_token"))
        .await
        .field("access_token");
}

#[tokio::test]
async fn a_rotated_refresh_token_is_dead() {
    let harness = Harness::start().await;
    harness
        .sim
        .settings(|settings| settings.rotate_refresh_token = true);
    let old = harness.sim.sign_in("oAlice", USERINFO);
    let new = harness.refresh(&old.refresh_token).await;
    assert_eq!(new.field("access_token"), old.access_token);
    assert_ne!(new.field("refresh_token"), old.refresh_token);
    harness
        .refresh(&old.refresh_token)
        .await
        .refused(40030, "invalid refresh_token");
    harness
        .refresh(&new.field("refresh_token"))
        .await
        .field("access_token");
}

#[tokio::test]
async fn a_refresh_needs_its_parameters() {
    let harness = Harness::start().await;
    let id = harness.sim.app_id().to_owned();
    harness
        .refresh("")
        .await
        .refused(41003, "refresh_token missing");
    harness
        .refresh("83_unknown")
        .await
        .refused(40030, "invalid refresh_token");
    let path = "/sns/oauth2/refresh_token";
    harness
        .get(&format!("{path}?refresh_token=x"))
        .await
        .refused(41002, "appid missing");
    harness
        .get(&format!("{path}?appid={id}&refresh_token=x"))
        .await
        .refused(40002, "invalid grant_type");
    harness
        .post(&format!("{path}?appid={id}"), "")
        .await
        .refused(43001, "require GET method");
}

#[tokio::test]
async fn a_new_password_ends_both_tokens() {
    let harness = Harness::start().await;
    let pair = harness.sim.sign_in("oAlice", USERINFO);
    harness.sim.change_password("oAlice");
    let text = "access_token and refresh_token exception";
    harness
        .refresh(&pair.refresh_token)
        .await
        .refused(42007, text);
    harness
        .userinfo(&pair.access_token, "oAlice")
        .await
        .refused(42007, text);
    assert_eq!(harness.sim.current_pair("oAlice"), None);
}

#[tokio::test]
async fn userinfo_tells_the_profile() {
    let harness = Harness::start().await;
    harness.sim.add_user(
        SimulatedUser::new("oAlice")
            .nickname("爱丽丝")
            .unionid("uAlice"),
    );
    let pair = harness.sim.sign_in("oAlice", USERINFO);
    let reply = harness.userinfo(&pair.access_token, "oAlice").await;
    let json = reply.json();
    assert_eq!(json["nickname"], "爱丽丝");
    assert_eq!(json["unionid"], "uAlice");
    assert_eq!(json["sex"], 0);
    assert_eq!(json["privilege"], serde_json::json!([]));
    assert!(
        reply.text.contains(r"https:\/\/thirdwx.qlogo.cn\/mmopen"),
        "{}",
        reply.text
    );
    let path = format!(
        "/sns/userinfo?access_token={}&openid=oAlice&lang=en",
        pair.access_token
    );
    assert_eq!(harness.get(&path).await.json()["language"], "en");
}

#[tokio::test]
async fn control_characters_of_a_nickname_arrive_raw() {
    let harness = Harness::start().await;
    harness
        .sim
        .add_user(SimulatedUser::new("oAlice").nickname("a\u{14}b"));
    let pair = harness.sim.sign_in("oAlice", USERINFO);
    let reply = harness.userinfo(&pair.access_token, "oAlice").await;
    assert!(reply.text.contains("\"a\u{14}b\""), "{}", reply.text);
    assert!(serde_json::from_str::<serde_json::Value>(&reply.text).is_err());
}

#[tokio::test]
async fn userinfo_and_auth_refuse_what_wechat_refuses() {
    let harness = Harness::start().await;
    let pair = harness.sim.sign_in("oAlice", USERINFO);
    let base = harness.sim.sign_in("oBob", "snsapi_base");
    harness
        .userinfo(&base.access_token, "oBob")
        .await
        .refused(48001, "api unauthorized");
    for path in ["/sns/userinfo", "/sns/auth"] {
        for (token, openid, errcode, text) in [
            ("", "oAlice", 41001, "access_token missing"),
            (pair.access_token.as_str(), "", 41009, "missing openid"),
            (pair.access_token.as_str(), "oBob", 40003, "invalid openid"),
            ("83_unknown", "oAlice", 40014, "invalid access_token"),
        ] {
            let path = format!("{path}?access_token={token}&openid={openid}");
            harness.get(&path).await.refused(errcode, text);
        }
    }
    let auth = format!("/sns/auth?access_token={}&openid=oBob", base.access_token);
    assert_eq!(
        harness.get(&auth).await.text,
        r#"{"errcode":0,"errmsg":"ok"}"#
    );
    harness.sim.advance(secs(7200));
    harness
        .get(&auth)
        .await
        .refused(42001, "access_token expired");
}
