//! Tests of authorizations: their codes and tokens, their end, and their list.

use std::time::Duration;

use serde_json::json;
use tower_wechat::simulator::IssuedKind;

use super::harness::{COMPONENT, Harnessed, SECRET, SHOP};

const NOT_AUTHORIZED: &str = "component is not authorized by this account";
const INVALID: &str = "invalid credential, access_token is invalid or not latest, could get \
                       access_token by getStableAccessToken, more details at \
                       https://mmbizurl.cn/s/JtxxFh33r";

/// The access token and the refresh token in the reply of `api_query_auth`.
async fn exchanged(it: &Harnessed, component: &str, code: &str) -> (String, String) {
    let reply = it.query_auth(component, code).await.json();
    let text = |name: &str| {
        reply["authorization_info"][name]
            .as_str()
            .unwrap()
            .to_owned()
    };
    (
        text("authorizer_access_token"),
        text("authorizer_refresh_token"),
    )
}

#[tokio::test]
async fn a_code_is_exchanged_once() {
    let it = Harnessed::start().await;
    let component = it.component_token().await;
    let code = it.platform.authorize(SHOP).unwrap();
    let reply = it.query_auth(&component, &code).await.json();
    let info = &reply["authorization_info"];
    assert_eq!(info["authorizer_appid"], SHOP);
    assert_eq!(info["expires_in"], 7200);
    assert_eq!(info["func_info"][0]["funcscope_category"]["id"], 1);
    let token = info["authorizer_access_token"].as_str().unwrap();
    assert_eq!(it.platform.authorizer_token(SHOP).as_deref(), Some(token));
    let again = it.query_auth(&component, &code).await;
    again.refused(61010, "code is expired");
    for made_up in ["", "queryauthcode@@@made-up"] {
        let reply = it.query_auth(&component, made_up).await;
        reply.refused(61009, "code is invalid");
    }
    let late = it.platform.authorize("wx00000000000000ee").unwrap();
    it.advance(3600);
    let reply = it.query_auth(&component, &late).await;
    reply.refused(61010, "code is expired");
}

#[tokio::test]
async fn return_and_event_may_have_two_codes_with_one_result() {
    let it = Harnessed::start().await;
    let component = it.component_token().await;
    it.platform.separate_codes(true);
    let of_return = it.platform.authorize(SHOP).unwrap();
    let issued = it.harness.sim.issued_credentials();
    let of_event = issued
        .iter()
        .filter(|issued| issued.kind == IssuedKind::AuthorizationCode)
        .map(|issued| &issued.secrets[0])
        .find(|code| **code != of_return)
        .unwrap();
    let first = exchanged(&it, &component, &of_return).await;
    let second = exchanged(&it, &component, of_event).await;
    assert_eq!(first.1, second.1);
    // The first access token still has its grace.
    it.jsapi_ticket(&first.0).await.field("ticket");
    it.jsapi_ticket(&second.0).await.field("ticket");
}

#[tokio::test]
async fn an_account_without_permissions_has_no_tokens() {
    let it = Harnessed::start().await;
    let component = it.component_token().await;
    let body = json!({ "authorize": SHOP, "permissions": [] });
    let reply = it.harness.post("/_sim/platform", &body.to_string()).await;
    let code = reply.field("authorization_code");
    let reply = it.query_auth(&component, &code).await.json();
    let expected = json!({ "authorizer_appid": SHOP, "func_info": [] });
    assert_eq!(reply["authorization_info"], expected);
}

#[tokio::test]
async fn a_refresh_token_renews_the_token_of_its_account() {
    let it = Harnessed::start().await;
    it.harness.advance_to_midnight();
    let component = it.component_token().await;
    let code = it.platform.authorize(SHOP).unwrap();
    let (access, refresh) = exchanged(&it, &component, &code).await;
    let reply = it.renew(&component, SHOP, &refresh).await;
    let renewed = reply.field("authorizer_access_token");
    assert_ne!(renewed, access);
    assert_eq!(reply.json()["expires_in"], 7200);
    assert_eq!(reply.field("authorizer_refresh_token"), refresh);
    // The former access token has a grace, and then is superseded.
    it.jsapi_ticket(&access).await.field("ticket");
    it.advance(301);
    it.jsapi_ticket(&access).await.refused(40001, INVALID);
    it.jsapi_ticket(&renewed).await.field("ticket");
    it.advance(7200);
    let component = it.component_token().await;
    it.jsapi_ticket(&renewed)
        .await
        .refused(42001, "access_token expired");
    for wrong in ["", "refreshtoken@@@made-up"] {
        let reply = it.renew(&component, SHOP, wrong).await;
        reply.refused(61023, "refresh_token is invalid");
    }
    let reply = it
        .renew(&component, it.harness.sim.app_id(), &refresh)
        .await;
    reply.refused(61003, NOT_AUTHORIZED);
    it.harness
        .sim
        .settings(|settings| settings.token_daily_quota = 1);
    let reply = it.renew(&component, SHOP, &refresh).await;
    reply.refused(45009, "reach max api daily quota limit");
}

#[tokio::test]
async fn a_rotated_refresh_token_has_a_grace() {
    let it = Harnessed::start().await;
    it.harness
        .sim
        .settings(|settings| settings.rotate_authorizer_refresh_token = true);
    let component = it.component_token().await;
    let code = it.platform.authorize(SHOP).unwrap();
    let (_, first) = exchanged(&it, &component, &code).await;
    let second = it.renew(&component, SHOP, &first).await;
    let second = second.field("authorizer_refresh_token");
    assert_ne!(first, second);
    assert_eq!(it.platform.refresh_token(SHOP).as_ref(), Some(&second));
    it.advance(301);
    let reply = it.renew(&component, SHOP, &first).await;
    reply.refused(61023, "refresh_token is invalid");
    let third = it.renew(&component, SHOP, &second).await;
    let third = third.field("authorizer_refresh_token");
    // Within the grace, the former refresh token works.
    let reply = it.renew(&component, SHOP, &second).await;
    assert_ne!(reply.field("authorizer_refresh_token"), third);
}

#[tokio::test]
async fn another_authorization_ends_the_tokens_before_it() {
    let it = Harnessed::start().await;
    let component = it.component_token().await;
    let code = it.platform.authorize(SHOP).unwrap();
    let (access, refresh) = exchanged(&it, &component, &code).await;
    let unused = it.platform.authorize(SHOP).unwrap();
    it.jsapi_ticket(&access).await.refused(40001, INVALID);
    let reply = it.renew(&component, SHOP, &refresh).await;
    reply.refused(61023, "refresh_token is invalid");
    // The list has the new refresh token, because the account was exchanged before.
    let list = json!({ "offset": 0, "count": 500 });
    let list = it
        .call("api_get_authorizer_list", &component, list)
        .await
        .json();
    let listed = list["list"][0]["refresh_token"].as_str().unwrap();
    assert_ne!(listed, refresh);
    it.renew(&component, SHOP, listed)
        .await
        .field("authorizer_access_token");
    // A code of an earlier authorization has ended.
    it.platform.authorize(SHOP).unwrap();
    let reply = it.query_auth(&component, &unused).await;
    reply.refused(61010, "code is expired");
}

#[tokio::test]
async fn an_account_that_left_has_no_tokens() {
    let it = Harnessed::start().await;
    let component = it.component_token().await;
    let code = it.platform.authorize(SHOP).unwrap();
    let (access, refresh) = exchanged(&it, &component, &code).await;
    let unused = it.platform.authorize(SHOP).unwrap();
    let (access_2, refresh_2) = exchanged(&it, &component, &unused).await;
    assert_ne!((access, refresh), (access_2.clone(), refresh_2.clone()));
    assert!(it.platform.revoke(SHOP) && !it.platform.revoke(SHOP));
    assert!(!it.platform.is_authorized(SHOP));
    it.jsapi_ticket(&access_2)
        .await
        .refused(61003, NOT_AUTHORIZED);
    let reply = it.renew(&component, SHOP, &refresh_2).await;
    reply.refused(61023, "refresh_token is invalid");
    let info = json!({ "authorizer_appid": SHOP });
    let reply = it.call("api_get_authorizer_info", &component, info).await;
    reply.refused(61003, NOT_AUTHORIZED);
    let list = json!({ "offset": 0, "count": 1 });
    let list = it.call("api_get_authorizer_list", &component, list).await;
    assert_eq!(list.json(), json!({ "total_count": 0, "list": [] }));
    // After its return, the account has no refresh token in the list until the code is exchanged.
    it.platform.authorize(SHOP).unwrap();
    let list = json!({ "offset": 0, "count": 1 });
    let list = it.call("api_get_authorizer_list", &component, list).await;
    assert_eq!(list.json()["list"][0]["refresh_token"], "");
}

#[tokio::test]
async fn the_list_has_pages_of_at_most_500_accounts() {
    let it = Harnessed::start().await;
    let component = it.component_token().await;
    let account = |number: u32| format!("wx1{number:015x}");
    let refresh = it.platform.authorize_exchanged(&account(0)).unwrap();
    for number in 1..501 {
        it.platform.authorize(&account(number)).unwrap();
    }
    let page = async |offset: i64, count: i64| {
        let body = json!({ "offset": offset, "count": count });
        it.call("api_get_authorizer_list", &component, body).await
    };
    let list = page(0, 500).await.json();
    assert_eq!(list["total_count"], 501);
    assert_eq!(list["list"].as_array().unwrap().len(), 500);
    assert_eq!(list["list"][0]["refresh_token"], refresh);
    let now = it
        .harness
        .sim
        .now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let authorized_at = Duration::from_secs(list["list"][0]["auth_time"].as_u64().unwrap());
    assert!(now.saturating_sub(authorized_at) < Duration::from_secs(60));
    let list = page(500, 500).await.json();
    assert_eq!(list["list"][0]["authorizer_appid"], account(500));
    assert_eq!(list["list"][0]["refresh_token"], "");
    assert_eq!(page(501, 500).await.json()["list"], json!([]));
    for wrong in [0, -1, 501] {
        page(0, wrong)
            .await
            .refused(40170, "args count exceed count limit");
    }
}

#[tokio::test]
async fn an_account_is_described() {
    let it = Harnessed::start().await;
    let component = it.component_token().await;
    it.platform.authorize(SHOP).unwrap();
    let body = json!({ "authorizer_appid": SHOP });
    let reply = it
        .call("api_get_authorizer_info", &component, body)
        .await
        .json();
    let info = &reply["authorizer_info"];
    assert!(info["user_name"].as_str().unwrap().starts_with("gh_"));
    assert_eq!(info["service_type_info"]["id"], 2);
    assert_eq!(reply["authorization_info"]["authorizer_appid"], SHOP);
    let body = json!({ "component_appid": COMPONENT, "appsecret": SECRET, "appid": SHOP });
    let reply = it.component_call("clear_quota/v2", "", &body).await;
    assert_eq!(reply.json()["errcode"], 0);
}

#[tokio::test]
async fn an_account_sends_messages_of_its_customer_service() {
    let it = Harnessed::start().await;
    let component = it.component_token().await;
    let code = it.platform.authorize(SHOP).unwrap();
    let (access, _) = exchanged(&it, &component, &code).await;
    let openid = it.harness.sim.app(SHOP).unwrap().openid_of("oAlice");
    let send = async |openid: &str| {
        let body = json!({ "touser": openid, "msgtype": "text", "text": { "content": "hello" } });
        let path = format!("/cgi-bin/message/custom/send?access_token={access}");
        it.harness.post(&path, &body.to_string()).await
    };
    assert_eq!(send(&openid).await.json()["errcode"], 0);
    send("oNobody").await.refused(40003, "invalid openid");
    let sent = it.platform.sent_messages(SHOP);
    assert_eq!(sent, [(openid, "hello".to_owned())]);
}
