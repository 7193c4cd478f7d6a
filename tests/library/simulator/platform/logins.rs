//! Tests of logins on behalf of an account: `component_appid` in the link, and
//! `/sns/oauth2/component`.

use tower_wechat::simulator::SimulatedUser;

use super::harness::{COMPONENT, Harnessed, SHOP};
use crate::simulator::harness::Reply;

fn link(account: &str, component: &str) -> String {
    format!(
        "/connect/oauth2/authorize?appid={account}&redirect_uri=https%3A%2F%2Fh5.example.com%2Fback\
         &response_type=code&scope=snsapi_userinfo&state=S&component_appid={component}"
    )
}

impl Harnessed {
    async fn exchange(&self, account: &str, code: &str, token: &str) -> Reply {
        let path = format!(
            "/sns/oauth2/component/access_token?appid={account}&code={code}\
             &grant_type=authorization_code&component_appid={COMPONENT}&component_access_token={token}"
        );
        self.harness.get(&path).await
    }

    async fn refresh(&self, refresh_token: &str, token: &str) -> Reply {
        let path = format!(
            "/sns/oauth2/component/refresh_token?appid={SHOP}&grant_type=refresh_token\
             &component_appid={COMPONENT}&component_access_token={token}&refresh_token={refresh_token}"
        );
        self.harness.get(&path).await
    }

    async fn code(&self) -> String {
        let reply = self.harness.get(&link(SHOP, COMPONENT)).await;
        reply.callback("code").unwrap()
    }
}

#[tokio::test]
async fn a_user_logs_in_on_behalf_of_an_account() {
    let it = Harnessed::start().await;
    it.harness
        .sim
        .add_user(SimulatedUser::new("oAlice").unionid("uAlice"));
    let token = it.component_token().await;
    it.platform.authorize(SHOP).unwrap();
    let reply = it.harness.get(&link(SHOP, COMPONENT)).await;
    assert_eq!(reply.callback("state").as_deref(), Some("S"));
    assert_eq!(reply.callback("appid").as_deref(), Some(SHOP));
    let code = reply.callback("code").unwrap();
    let reply = it.exchange(SHOP, &code, &token).await;
    let shop = it.harness.sim.app(SHOP).unwrap();
    assert_eq!(reply.field("openid"), shop.openid_of("oAlice"));
    assert_eq!(reply.field("unionid"), "uAlice");
    let again = it.exchange(SHOP, &code, &token).await;
    again.refused(40163, "code been used");
    let refreshed = it.refresh(&reply.field("refresh_token"), &token).await;
    assert_eq!(refreshed.field("access_token"), reply.field("access_token"));
    // The account itself cannot refresh the pair, and the platform cannot refresh that of the account.
    let path = format!(
        "/sns/oauth2/refresh_token?appid={SHOP}&grant_type=refresh_token&refresh_token={}",
        reply.field("refresh_token")
    );
    it.harness
        .get(&path)
        .await
        .refused(40030, "invalid refresh_token");
    let own = shop.sign_in("oAlice", "snsapi_userinfo");
    let reply = it.refresh(&own.refresh_token, &token).await;
    reply.refused(40030, "invalid refresh_token");
}

#[tokio::test]
async fn a_code_belongs_to_the_platform_or_to_the_account() {
    let it = Harnessed::start().await;
    let token = it.component_token().await;
    it.platform.authorize(SHOP).unwrap();
    let shop = it.harness.sim.app(SHOP).unwrap();
    let own = shop.authorize("oAlice", "snsapi_base");
    let reply = it.exchange(SHOP, &own, &token).await;
    reply.refused(40029, "invalid code");
    let code = it.code().await;
    assert!(shop.client().unwrap().exchange_code(&code).await.is_err());
    // Neither attempt has spent a code.
    it.exchange(SHOP, &code, &token).await.field("access_token");
    shop.client().unwrap().exchange_code(&own).await.unwrap();
}

#[tokio::test]
async fn a_login_needs_the_account_and_a_component_token() {
    let it = Harnessed::start().await;
    let token = it.component_token().await;
    let error = it.harness.get(&link(SHOP, COMPONENT)).await;
    assert!(error.location.is_none() && error.text.contains("has not authorized"));
    it.platform.authorize(SHOP).unwrap();
    for unknown in ["wx0", SHOP] {
        let error = it.harness.get(&link(SHOP, unknown)).await;
        assert!(error.text.contains("component_appid"), "{}", error.text);
    }
    // The parameter stands behind the state.
    let early = link(SHOP, COMPONENT).replace("&state=S", "") + "&state=S";
    assert!(it.harness.get(&early).await.location.is_none());
    let (code, pair) = (it.code().await, it.code().await);
    let pair = it.exchange(SHOP, &pair, &token).await;
    let wrong = it.exchange(SHOP, &code, "x").await;
    wrong.refused(40014, "invalid access_token");
    let of_account = it.platform.authorizer_token(SHOP);
    assert_eq!(of_account, None);
    it.platform.revoke(SHOP);
    let text = "component is not authorized by this account";
    it.exchange(SHOP, &code, &token).await.refused(61003, text);
    let reply = it.refresh(&pair.field("refresh_token"), &token).await;
    reply.refused(61003, text);
}

#[tokio::test]
async fn the_hosts_of_callbacks_are_those_of_the_platform() {
    let it = Harnessed::start().await;
    it.platform.authorize(SHOP).unwrap();
    it.harness
        .sim
        .settings(|settings| settings.redirect_hosts = Some(vec!["shop.test".to_owned()]));
    let error = it.harness.get(&link(SHOP, COMPONENT)).await;
    assert!(error.text.contains("10003"), "{}", error.text);
    let _ = it.platform.clone().redirect_hosts(["h5.example.com"]);
    it.code().await;
}
