//! Tests of tickets and component tokens.

use std::time::Duration;

use serde_json::{Value, json};
use tower_wechat::simulator::Fault;

use super::harness::{COMPONENT, Harnessed, SECRET, SHOP};

const API: &str = "/cgi-bin/component/api_component_token";

#[tokio::test]
async fn a_component_token_needs_a_recent_ticket() {
    let it = Harnessed::start().await;
    for none in [Value::Null, "".into(), "ticket@@@made-up".into()] {
        let reply = it.token_for(none).await;
        reply.refused(61006, "component ticket is invalid");
    }
    let first = it.ticket().await;
    assert!(first.starts_with("ticket@@@"));
    it.advance(11 * 3600);
    let second = it.ticket().await;
    assert_ne!(first, second);
    // Any recent ticket works.
    for ticket in [&first, &second, &first] {
        let reply = it.token_for(ticket.as_str().into()).await;
        assert_eq!(reply.json()["expires_in"], 7200);
    }
    it.advance(3600);
    let reply = it.token_for(first.into()).await;
    reply.refused(61005, "component ticket is expired");
    let reply = it.token_for(second.into()).await;
    assert_eq!(reply.json().get("errcode"), None);
}

#[tokio::test]
async fn the_credentials_of_the_platform_are_checked() {
    let it = Harnessed::start().await;
    let ticket = it.ticket().await;
    let send = async |app_id: &str, secret: &str| {
        let body = json!({
            "component_appid": app_id, "component_appsecret": secret,
            "component_verify_ticket": ticket,
        });
        it.component_call("api_component_token", "", &body).await
    };
    send("", SECRET).await.refused(41002, "appid missing");
    send("wx0", SECRET).await.refused(40013, "invalid appid");
    send(SHOP, SECRET).await.refused(61011, "invalid component");
    send(COMPONENT, "")
        .await
        .refused(41004, "appsecret missing");
    send(COMPONENT, "x")
        .await
        .refused(40125, "invalid appsecret");
    let loopback = || Some(vec![[10, 0, 0, 1].into()]);
    it.harness
        .sim
        .settings(|settings| settings.ip_whitelist = loopback());
    let text = "access clientip is not registered requestIP: 127.0.0.1";
    send(COMPONENT, SECRET).await.refused(61004, text);
    it.harness
        .sim
        .settings(|settings| settings.ip_whitelist = None);
    assert_eq!(send(COMPONENT, SECRET).await.json().get("errcode"), None);
    let reply = it.harness.get(API).await;
    reply.refused(43002, "require POST method");
}

#[tokio::test]
async fn every_call_issues_another_component_token() {
    let it = Harnessed::start().await;
    let first = it.component_token().await;
    let second = it.component_token().await;
    assert_ne!(first, second);
    assert_eq!(it.platform.component_token().as_ref(), Some(&second));
    // The former token has a grace of five minutes.
    it.pre_auth_code(&first).await;
    it.advance(301);
    let text = "invalid credential, access_token is invalid or not latest, could get access_token by \
                getStableAccessToken, more details at https://mmbizurl.cn/s/JtxxFh33r";
    let call = async |token: &str| it.call("api_create_preauthcode", token, json!({})).await;
    call(&first).await.refused(40001, text);
    assert!(it.platform.is_component_token_valid(&second));
    it.advance(7200);
    call(&second).await.refused(42001, "access_token expired");
    call("x").await.refused(40014, "invalid access_token");
    call("").await.refused(41001, "access_token missing");
    // Without the grace, the former token ends at once.
    it.harness
        .sim
        .settings(|settings| settings.component_token_overlap = Duration::ZERO);
    let third = it.component_token().await;
    it.component_token().await;
    call(&third).await.refused(40001, text);
}

#[tokio::test]
async fn component_tokens_have_a_quota_that_a_call_resets() {
    let it = Harnessed::start().await;
    it.harness.advance_to_midnight();
    it.harness
        .sim
        .settings(|settings| settings.component_token_daily_quota = 2);
    let ticket = it.ticket().await;
    let fetch = async || it.token_for(ticket.as_str().into()).await;
    for _ in 0..2 {
        assert_eq!(fetch().await.json().get("errcode"), None);
    }
    fetch()
        .await
        .refused(45009, "reach max api daily quota limit");
    let body = json!({ "component_appid": COMPONENT, "appsecret": SECRET });
    for _ in 0..10 {
        let reply = it.component_call("clear_quota/v2", "", &body).await;
        assert_eq!(reply.json()["errcode"], 0);
    }
    assert_eq!(fetch().await.json().get("errcode"), None);
    let reply = it.component_call("clear_quota/v2", "", &body).await;
    reply.refused(48006, "forbid to clear quota because of reaching the limit");
    // An account's counts are reset only if the account is authorized.
    let body = json!({ "component_appid": COMPONENT, "appsecret": SECRET, "appid": SHOP });
    let reply = it.component_call("clear_quota/v2", "", &body).await;
    reply.refused(61003, "component is not authorized by this account");
}

#[tokio::test]
async fn tokens_of_another_kind_are_refused() {
    let it = Harnessed::start().await;
    let component = it.component_token().await;
    let text = "must use biz token for not component api";
    it.jsapi_ticket(&component).await.refused(61015, text);
    it.harness
        .post(
            "/cgi-bin/stable_token",
            &json!({ "grant_type": "client_credential", "appid": COMPONENT, "secret": SECRET })
                .to_string(),
        )
        .await
        .refused(
            61024,
            "must use api(api_component_token) to get token for component acct",
        );
    let path = format!("/cgi-bin/token?grant_type=client_credential&appid={COMPONENT}&secret=x");
    let text = "must use api(api_component_token) to get token for component acct";
    it.harness.get(&path).await.refused(61024, text);
    let path = format!(
        "/cgi-bin/token?grant_type=client_credential&appid={SHOP}&secret=secret-of-the-shop"
    );
    let of_account = it.harness.get(&path).await.field("access_token");
    let text = "must use component token for component api";
    let reply = it
        .call("api_create_preauthcode", &of_account, json!({}))
        .await;
    reply.refused(61014, text);
    // A token of another platform.
    let other = it.harness.sim.add_platform("wx00000000000000dd", "secret");
    let body = json!({ "component_appid": other.app_id() });
    let query = format!("?component_access_token={component}");
    let reply = it
        .component_call("api_create_preauthcode", &query, &body)
        .await;
    reply.refused(61014, text);
    // The newer name of the parameter works too.
    let query = format!("?access_token={component}");
    let body = json!({ "component_appid": COMPONENT });
    let reply = it
        .component_call("api_create_preauthcode", &query, &body)
        .await;
    assert!(reply.field("pre_auth_code").starts_with("preauthcode@@@"));
}

#[tokio::test]
async fn a_call_starts_the_pushes_of_tickets() {
    let it = Harnessed::start().await;
    let start = async || {
        let body = json!({ "component_appid": COMPONENT, "component_secret": SECRET });
        it.component_call("api_start_push_ticket", "", &body).await
    };
    let reply = start().await.json();
    assert_eq!(
        (&reply["errcode"], &reply["errmsg"]),
        (&json!(0), &json!("in a normal state"))
    );
    it.receiver.wait_for(1).await;
    it.platform.stop_ticket_pushes();
    it.advance(3600);
    tokio::time::sleep(Duration::from_millis(200)).await;
    it.receiver.wait_for(1).await;
    assert_eq!(start().await.json()["errmsg"], "ok");
    it.receiver.wait_for(2).await;
    // The name of the secret is not that of the other calls.
    let body = json!({ "component_appid": COMPONENT, "component_appsecret": SECRET });
    let reply = it.component_call("api_start_push_ticket", "", &body).await;
    reply.refused(41004, "appsecret missing");
}

#[tokio::test]
async fn tickets_come_every_ten_minutes_of_the_clock() {
    let it = Harnessed::start().await;
    it.advance(599);
    tokio::time::sleep(Duration::from_millis(200)).await;
    it.receiver.wait_for(0).await;
    for pushes in 1..4 {
        it.advance(600);
        let received = it.receiver.wait_for(pushes).await;
        assert_eq!(received[pushes - 1].path, "/events");
    }
    it.harness
        .sim
        .settings(|settings| settings.ticket_push_interval = Duration::ZERO);
    it.advance(6000);
    tokio::time::sleep(Duration::from_millis(200)).await;
    it.receiver.wait_for(3).await;
    assert_eq!(it.platform.pushes().len(), 3);
}

#[tokio::test]
async fn calls_are_counted_and_failed_for_platforms_and_accounts() {
    let it = Harnessed::start().await;
    it.harness
        .sim
        .inject(Fault::on(API).app(COMPONENT).errcode(-1).times(1));
    it.harness
        .sim
        .inject(Fault::on("*").app(SHOP).errcode(-1000));
    let reply = it.token_for("x".into()).await;
    reply.refused(-1, "system error");
    let token = it.component_token().await;
    it.platform.authorize(SHOP).unwrap();
    it.platform.authorize("wx00000000000000ee").unwrap();
    let refresh = |account: &str| it.platform.refresh_token(account).unwrap();
    let reply = it.renew(&token, SHOP, &refresh(SHOP)).await;
    reply.refused(-1000, "system error");
    let other = "wx00000000000000ee";
    let reply = it.renew(&token, other, &refresh(other)).await;
    reply.field("authorizer_access_token");
    // A renewal belongs to the platform and to the account.
    let app = it.platform.app();
    let path = "/cgi-bin/component/api_authorizer_token";
    assert_eq!((app.calls_to(API), app.calls_to(path)), (2, 2));
    let shop = it.harness.sim.app(SHOP).unwrap();
    assert_eq!((shop.calls_to(path), it.harness.sim.calls_to(path)), (1, 2));
}
