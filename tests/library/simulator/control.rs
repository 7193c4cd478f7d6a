//! Tests of `/_sim`, the control interface.

use serde_json::{Value, json};

use super::harness::Harness;

#[tokio::test]
async fn every_call_is_counted_by_its_path() {
    let harness = Harness::start().await;
    assert_eq!(harness.get("/_sim/calls").await.json(), json!({}));
    harness.get("/sns/auth?access_token=x&openid=y").await;
    harness.get("/sns/auth").await;
    harness.post("/cgi-bin/stable_token", "{}").await;
    harness.sim.sign_in("oAlice", "snsapi_base");
    let counted = harness.get("/_sim/calls").await.json();
    assert_eq!(
        counted,
        json!({ "/cgi-bin/stable_token": 1, "/sns/auth": 2 })
    );
    assert_eq!(harness.sim.calls()["/sns/auth"], 2);
    assert_eq!(harness.delete("/_sim/calls").await.status, 204);
    assert_eq!(harness.sim.calls_to("/sns/auth"), 0);
    harness.get("/sns/auth").await;
    harness.sim.reset_calls();
    assert!(harness.sim.calls().is_empty());
}

#[tokio::test]
async fn faults_are_set_up_listed_and_cleared() {
    let harness = Harness::start().await;
    let fault = json!({ "path": "/sns/auth", "errcode": 40014, "times": 1, "delay_ms": 1 });
    let reply = harness.post("/_sim/faults", &fault.to_string()).await;
    assert_eq!(reply.status, 200);
    let listed = harness.get("/_sim/faults").await.json();
    for (name, value) in fault.as_object().unwrap() {
        assert_eq!(&listed[0][name], value);
    }
    harness
        .get("/sns/auth")
        .await
        .refused(40014, "invalid access_token");
    harness
        .get("/sns/auth")
        .await
        .refused(41001, "access_token missing");
    assert_eq!(harness.get("/_sim/faults").await.json(), json!([]));

    let bytes = json!({ "path": "/sns/auth", "status": 503, "body_base64": "/3s=" });
    harness.post("/_sim/faults", &bytes.to_string()).await;
    assert_eq!(
        harness.get("/_sim/faults").await.json()[0]["body_base64"],
        "/3s="
    );
    assert_eq!(harness.get("/sns/auth").await.status, 503);
    harness
        .post("/_sim/faults", r#"{"path":"/sns/auth","body":"oops"}"#)
        .await;
    assert_eq!(harness.get("/sns/auth").await.text, "oops");
    harness
        .post(
            "/_sim/faults",
            r#"{"path":"/sns/auth","reset":true,"times":1}"#,
        )
        .await;
    let url = format!("{}/sns/auth", harness.sim.url());
    assert!(harness.client.get(url).send().await.is_err());
    assert_eq!(harness.delete("/_sim/faults").await.status, 204);
    harness
        .get("/sns/auth")
        .await
        .refused(41001, "access_token missing");
}

#[tokio::test]
async fn the_clock_moves() {
    let harness = Harness::start().await;
    let pair = harness.sim.sign_in("oAlice", "snsapi_userinfo");
    let before = harness.get("/_sim/clock").await.json();
    let after = harness
        .post("/_sim/clock", r#"{"advance_secs":7200}"#)
        .await
        .json();
    assert_eq!(
        (&before["advanced_secs"], &after["advanced_secs"]),
        (&json!(0), &json!(7200))
    );
    let secs = |clock: &Value| clock["now_secs"].as_u64().unwrap();
    assert!(secs(&after) >= secs(&before) + 7200);
    harness
        .userinfo(&pair.access_token, "oAlice")
        .await
        .refused(42001, "access_token expired");
}

#[tokio::test]
async fn settings_change_and_are_shown() {
    let harness = Harness::start().await;
    let change = json!({
        "user_token_secs": 60,
        "refresh_token_secs": 61,
        "code_secs": 62,
        "account_token_secs": 63,
        "account_token_overlap_secs": 64,
        "ticket_secs": 65,
        "rotate_refresh_token": true,
        "auto_approve": false,
        "deny_redirects": false,
        "qr_deny_redirects": true,
        "callback_twice": true,
        "redirect_hosts": ["h5.example.com"],
        "ip_whitelist": ["10.0.0.1", "::1"],
        "secret_frozen": true,
        "account_frozen": true,
        "token_daily_quota": 66,
        "stable_token_daily_quota": 67,
        "component_token_secs": 68,
        "component_token_overlap_secs": 69,
        "component_token_daily_quota": 70,
        "verify_ticket_secs": 71,
        "ticket_push_secs": 72,
        "pre_auth_code_secs": 73,
        "authorization_code_secs": 74,
        "rotate_authorizer_refresh_token": true,
        "authorizer_refresh_token_grace_secs": 75,
    });
    assert_eq!(
        harness
            .post("/_sim/settings", &change.to_string())
            .await
            .json(),
        change
    );
    assert_eq!(harness.get("/_sim/settings").await.json(), change);
    assert_eq!(
        harness
            .sim
            .sign_in("oAlice", "snsapi_base")
            .expires_in
            .as_secs(),
        60
    );
    // A field that is absent stays unchanged, and `null` removes a restriction.
    let lifted = harness
        .post("/_sim/settings", r#"{"ip_whitelist":null}"#)
        .await
        .json();
    assert_eq!(lifted["ip_whitelist"], Value::Null);
    assert_eq!(lifted["redirect_hosts"], change["redirect_hosts"]);
}

#[tokio::test]
async fn users_are_added_and_answer_next() {
    let harness = Harness::start().await;
    let alice = json!({
        "openid": "oAlice", "nickname": "Alice", "unionid": "uAlice", "snapshot": true,
        "subscribed": false,
    });
    assert_eq!(
        harness.post("/_sim/users", &alice.to_string()).await.json(),
        alice
    );
    let link = format!(
        "/connect/oauth2/authorize?appid={}&redirect_uri=http%3A%2F%2Fa%2F&response_type=code&scope=snsapi_userinfo&state=s",
        harness.sim.app_id()
    );
    let code = harness.get(&link).await.callback("code").unwrap();
    let reply = harness.exchange(&code).await.json();
    assert_eq!(
        (&reply["openid"], &reply["is_snapshotuser"]),
        (&json!("oAlice"), &json!(1))
    );
    let openid = harness.post("/_sim/users", "{}").await.field("openid");
    assert!(openid.starts_with('o') && openid.len() == 28);
    let code = harness.get(&link).await.callback("code").unwrap();
    assert_eq!(harness.exchange(&code).await.field("openid"), openid);
    assert_eq!(harness.get("/_sim/users").await.json()[1], alice);
}

#[tokio::test]
async fn a_user_signs_in_and_changes_the_password() {
    let harness = Harness::start().await;
    let reply = harness
        .post("/_sim/sign_in", r#"{"openid":"oAlice"}"#)
        .await;
    assert_eq!(reply.json()["scope"], "snsapi_userinfo");
    assert_eq!(
        harness.sim.current_pair("oAlice").unwrap().access_token,
        reply.field("access_token")
    );
    let base = r#"{"openid":"oAlice","scope":"snsapi_base"}"#;
    let reply = harness.post("/_sim/sign_in", base).await;
    assert_eq!(
        harness
            .post("/_sim/password_change", r#"{"openid":"oAlice"}"#)
            .await
            .status,
        204
    );
    harness
        .refresh(&reply.field("refresh_token"))
        .await
        .refused(42007, "access_token and refresh_token exception");
    assert_eq!(
        harness.get("/_sim/calls").await.json()["/sns/oauth2/access_token"],
        Value::Null
    );
}

#[tokio::test]
async fn invalid_control_requests_get_an_error() {
    let harness = Harness::start().await;
    for (route, body) in [
        ("faults", ""),
        ("faults", "{}"),
        ("faults", "[]"),
        ("faults", r#"{"path":"/sns/auth"}"#),
        (
            "faults",
            r#"{"path":"/sns/auth","app_id":"wx0","errcode":-1}"#,
        ),
        ("faults", r#"{"path":"sns/auth","reset":true}"#),
        ("faults", r#"{"path":"/sns/auth?a=b","reset":true}"#),
        ("faults", r#"{"path":"/_sim/calls","reset":true}"#),
        ("faults", r#"{"path":"/sns/auth","errcode":"x"}"#),
        ("faults", r#"{"path":"/sns/auth","errcode":1,"body":"x"}"#),
        ("faults", r#"{"path":"/sns/auth","errcode":1,"reset":true}"#),
        ("faults", r#"{"path":"/sns/auth","reset":true,"hang":true}"#),
        ("faults", r#"{"path":"/sns/auth","status":99}"#),
        ("faults", r#"{"path":"/sns/auth","status":-1}"#),
        ("faults", r#"{"path":"/sns/auth","delay_ms":-1}"#),
        ("faults", r#"{"path":"/sns/auth","delay_ms":99999999999}"#),
        ("faults", r#"{"path":"/sns/auth","reset":true,"times":0}"#),
        ("faults", r#"{"path":"/sns/auth","body_base64":"*"}"#),
        ("faults", r#"{"path":"/sns/auth","delay":1}"#),
        ("clock", "{}"),
        ("clock", r#"{"advance_secs":-1}"#),
        ("clock", r#"{"advance_secs":18446744073709551615}"#),
        ("clock", r#"{"advance_secs":1,"to":2}"#),
        ("settings", r#"{"user_token_secs":"60"}"#),
        ("settings", r#"{"user_token_secs":18446744073709551615}"#),
        ("settings", r#"{"auto_approve":1}"#),
        ("settings", r#"{"ip_whitelist":["here"]}"#),
        ("settings", r#"{"colour":"red"}"#),
        ("users", r#"{"openid":""}"#),
        ("users", r#"{"openId":"oAlice"}"#),
        ("sign_in", "{}"),
        ("sign_in", r#"{"openid":""}"#),
        ("password_change", "{}"),
    ] {
        let reply = harness.post(&format!("/_sim/{route}"), body).await;
        assert_eq!(reply.status, 400, "{route} {body}: {}", reply.text);
        assert!(reply.field("error").contains(' '), "{body}: {}", reply.text);
    }
    // The rejected requests had no effect.
    assert_eq!(harness.get("/_sim/faults").await.json(), json!([]));
    assert_eq!(harness.get("/_sim/clock").await.json()["advanced_secs"], 0);
    assert_eq!(
        harness.get("/_sim/settings").await.json()["user_token_secs"],
        7200
    );
    assert_eq!(harness.get("/_sim/nothing").await.status, 404);
}

#[tokio::test]
async fn apps_are_added_and_shown() {
    let harness = Harness::start().await;
    let site = json!({
        "app_id": "wx00000000000000bb",
        "secret": "secret-of-the-site",
        "kind": "website",
        "returns_unionid": true,
        "redirect_hosts": ["www.example.com"],
    });
    let reply = harness.post("/_sim/apps", &site.to_string()).await;
    assert_eq!(reply.json(), site);
    let account = r#"{"app_id":"wx00000000000000aa","secret":"s"}"#;
    let account = harness.post("/_sim/apps", account).await.json();
    assert_eq!(
        account,
        json!({
            "app_id": "wx00000000000000aa", "secret": "s", "kind": "account",
            "returns_unionid": true, "redirect_hosts": null,
        })
    );
    let apps = harness.get("/_sim/apps").await.json();
    assert_eq!(apps[0]["app_id"], harness.sim.app_id());
    assert_eq!((&apps[1], &apps[2]), (&site, &account));
    for wrong in [
        r#"{"app_id":"","secret":"s"}"#,
        r#"{"app_id":"wx0","secret":"s","kind":"mini"}"#,
    ] {
        assert_eq!(harness.post("/_sim/apps", wrong).await.status, 400);
    }
}

#[tokio::test]
async fn one_app_is_named_by_its_app_id() {
    let harness = Harness::start().await;
    let site = harness
        .sim
        .add_website("wx00000000000000bb", "secret-of-the-site");
    let reply = harness
        .post(
            "/_sim/sign_in",
            r#"{"openid":"oAlice","app_id":"wx00000000000000bb"}"#,
        )
        .await;
    let openid = site.openid_of("oAlice");
    assert_eq!(reply.field("openid"), openid);
    assert_eq!(reply.field("scope"), "snsapi_login");
    assert!(reply.json().get("unionid").is_some());

    let users = harness.get("/_sim/users?app_id=wx00000000000000bb").await;
    assert_eq!(users.json()[1]["openid"], openid);
    assert_eq!(
        harness.get("/_sim/users").await.json()[1]["openid"],
        "oAlice"
    );

    let fault =
        json!({ "path": "/sns/auth", "app_id": "wx00000000000000bb", "errcode": -1, "times": 1 });
    let fault = harness.post("/_sim/faults", &fault.to_string()).await;
    assert_eq!(fault.json()["app_id"], "wx00000000000000bb");
    let token = reply.field("access_token");
    harness
        .get(&format!("/sns/auth?access_token={token}&openid={openid}"))
        .await
        .refused(-1, "system error");
    let calls = harness.get("/_sim/calls?app_id=wx00000000000000bb").await;
    assert_eq!(calls.json(), json!({ "/sns/auth": 1 }));
    let none = format!("/_sim/calls?app_id={}", harness.sim.app_id());
    assert_eq!(harness.get(&none).await.json(), json!({}));
    for unknown in ["/_sim/calls?app_id=wx0", "/_sim/users?app_id="] {
        assert_eq!(harness.get(unknown).await.status, 400);
    }
}
