//! Tests of the login on behalf of an account that has authorized a third-party platform (第三方平台):
//! the authorize URL, the callback's `appid`, and the platform's token around the code.

use std::time::Duration;

use axum::Router;
use axum::routing::post;
use tower_wechat::credential::AppId;
use tower_wechat::platform::{Platform, PushKeys};
use tower_wechat::simulator::{
    Fault, SimulatedApp, SimulatedPlatform, SimulatedPush, SimulatedUser, Simulator,
};
use tower_wechat::{
    AccountTokens, CookieKeys, ErrorKind, Login, MemoryStore, Tickets, UserTokens, WechatLayer,
};
use url::Url;

use super::harness::{ALICE, listen, router, serve};
use crate::support::browser::Browser;
use crate::support::eventually;

const COMPONENT: &str = "wx00000000000000cc";
const SHOP: &str = "wx00000000000000aa";
const EXCHANGE: &str = "/sns/oauth2/component/access_token";
const REFRESH: &str = "/sns/oauth2/component/refresh_token";
const COMPONENT_TOKEN: &str = "/cgi-bin/component/api_component_token";

/// A platform that logs in users on behalf of a shop.
struct Town {
    sim: Simulator,
    /// The platform at WeChat, which does not know the URL of pushes yet.
    simulated: SimulatedPlatform,
    shop: SimulatedApp,
    platform: Platform,
    url: String,
    users: UserTokens,
}

impl Town {
    /// Starts the platform, with a ticket and with the shop's authorization.
    async fn start() -> Self {
        let town = Self::without_ticket().await;
        town.push_ticket().await;
        let code = town.simulated.authorize(SHOP).unwrap();
        town.platform.authorize(&code).await.unwrap();
        town
    }

    async fn without_ticket() -> Self {
        let sim = Simulator::start().await.unwrap();
        sim.add_user(SimulatedUser::new(ALICE).nickname("爱丽丝"));
        let shop = sim.add_account(SHOP, "secret-of-the-shop");
        let (listener, url) = listen().await;
        let simulated = sim.add_platform(COMPONENT, "secret-of-the-platform");
        let (token, aes_key) = simulated.push_keys();
        let store = MemoryStore::new();
        let platform = Platform::builder(simulated.client().unwrap(), store.clone())
            .push_keys(PushKeys::new([token], [aes_key]).unwrap())
            .build()
            .unwrap();
        let users = UserTokens::new(platform.client(&AppId::new(SHOP).unwrap()), store);
        let login = Login::new(&url, CookieKeys::random().unwrap()).unwrap();
        let pushes = Router::new()
            .route("/push", post(async || ""))
            .layer(platform.push_layer());
        let app = router(WechatLayer::new(users.clone()), login);
        serve(listener, pushes.merge(app));
        Self {
            sim,
            simulated,
            shop,
            platform,
            url,
            users,
        }
    }

    async fn push_ticket(&self) {
        self.push(SimulatedPush::ticket()).await;
    }

    async fn push(&self, push: SimulatedPush) {
        let simulated = self
            .simulated
            .clone()
            .push_url(format!("{}/push", self.url));
        let replies = simulated.push(push).await.unwrap();
        assert!(
            replies.iter().all(|reply| reply.is_success()),
            "{replies:?}"
        );
    }

    fn page(&self) -> String {
        format!("{}/me", self.url)
    }

    /// Returns the number of calls of the platform and of the account to a path.
    fn calls(&self, path: &str) -> u64 {
        self.sim.calls_to(path)
    }
}

/// Returns `url` with its parameter `appid` replaced by these values.
fn with_appid(url: &str, values: &[&str]) -> String {
    let mut url = Url::parse(url).unwrap();
    let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    let mut query = url.query_pairs_mut();
    query.clear();
    query.extend_pairs(pairs.iter().filter(|(name, _)| name != "appid"));
    query.extend_pairs(values.iter().map(|value| ("appid", value)));
    drop(query);
    url.into()
}

#[tokio::test]
async fn a_user_logs_in_on_behalf_of_an_account() {
    let town = Town::start().await;
    let browser = Browser::new();
    let start = browser.visit(&town.page()).await;
    let authorize = start.location().unwrap();
    let names: Vec<String> = authorize
        .query_pairs()
        .map(|(name, _)| name.into_owned())
        .collect();
    assert_eq!(
        names,
        [
            "appid",
            "redirect_uri",
            "response_type",
            "scope",
            "state",
            "component_appid"
        ]
    );
    assert!(
        authorize
            .as_str()
            .ends_with(&format!("&component_appid={COMPONENT}#wechat_redirect")),
        "{authorize}"
    );
    let page = browser.open(&town.page()).await;
    assert_eq!(page.status, 200, "{}", page.text);
    assert!(
        page.text.contains(&town.shop.openid_of(ALICE)),
        "{}",
        page.text
    );
    assert_eq!(town.calls(EXCHANGE), 1);

    // The pair is renewed through the platform too.
    let user = town.shop.openid_of(ALICE).try_into().unwrap();
    let token = town.users.get(&user).await.unwrap();
    let next = town.users.report_invalid(&user, token.access_token()).await;
    next.unwrap();
    assert_eq!(town.calls(REFRESH), 1);
}

#[tokio::test]
async fn a_callback_for_another_account_does_not_spend_the_code() {
    let town = Town::start().await;
    let browser = Browser::new();
    let callback = browser.callback_of(&town.page()).await;
    assert!(callback.contains(&format!("appid={SHOP}")), "{callback}");
    for values in [
        &[][..],
        &[""],
        &["wx00000000000000bb"],
        &[SHOP, "wx00000000000000bb"],
        &["wx00000000000000bb", SHOP],
        &["WX00000000000000AA"],
        &[COMPONENT],
    ] {
        let bad = with_appid(&callback, values);
        browser.fetch(&bad).await.is_error(400, "bad_request");
        browser.visit(&bad).await.is_page(400, "请求无效");
    }
    assert_eq!(town.calls(EXCHANGE), 0);

    // The URL of a callback may have the parameter itself.
    let twice = browser.visit(&with_appid(&callback, &[SHOP, SHOP])).await;
    assert_eq!(twice.status, 302, "{}", twice.text);
    assert_eq!(town.calls(EXCHANGE), 1);
    // A copy of the callback without the account is no copy.
    let replay = with_appid(&callback, &[]);
    browser.fetch(&replay).await.is_error(400, "bad_request");
    assert_eq!(browser.visit(&callback).await.status, 302);
    assert_eq!(town.calls(EXCHANGE), 1);
}

#[tokio::test]
async fn a_stale_component_token_costs_no_login() {
    let town = Town::start().await;
    town.sim.inject(Fault::on(EXCHANGE).errcode(40001).times(1));
    let page = Browser::new().open(&town.page()).await;
    assert_eq!(page.status, 200, "{}", page.text);
    assert_eq!((town.calls(EXCHANGE), town.calls(COMPONENT_TOKEN)), (2, 2));
}

#[tokio::test]
async fn a_rejected_component_token_leaves_the_code_for_another_try() {
    let town = Town::start().await;
    let browser = Browser::new();
    let callback = browser.callback_of(&town.page()).await;
    town.sim.inject(Fault::on(EXCHANGE).errcode(40001).times(2));
    let away = browser.visit(&callback).await;
    assert_eq!(away.status, 503, "{}", away.text);
    assert_eq!(town.calls(EXCHANGE), 2, "there is never a third call");
    // The failure is kept for two seconds, for copies of the callback.
    tokio::time::sleep(Duration::from_millis(2_200)).await;
    assert_eq!(browser.visit(&callback).await.status, 302);
    assert_eq!(town.calls(EXCHANGE), 3);
}

#[tokio::test]
async fn without_a_ticket_the_code_stays_unspent() {
    let town = Town::without_ticket().await;
    town.simulated.authorize(SHOP).unwrap();
    let browser = Browser::new();
    let callback = browser.callback_of(&town.page()).await;
    let starting = browser.visit(&callback).await;
    assert_eq!(starting.status, 503, "{}", starting.text);
    assert!(starting.header("retry-after").is_some());
    assert_eq!((town.calls(EXCHANGE), town.calls(COMPONENT_TOKEN)), (0, 0));
    town.push_ticket().await;
    tokio::time::sleep(Duration::from_millis(2_200)).await;
    assert_eq!(browser.visit(&callback).await.status, 302);
    assert_eq!(town.calls(EXCHANGE), 1);
}

#[tokio::test]
async fn an_account_that_left_gets_its_own_failure() {
    let town = Town::start().await;
    let browser = Browser::new();
    let callback = browser.callback_of(&town.page()).await;
    town.sim.inject(Fault::on(EXCHANGE).errcode(61003).times(1));
    let page = browser.visit(&callback).await;
    assert_eq!(page.status, 502, "{}", page.text);
}

#[tokio::test]
async fn an_account_has_one_token_and_tickets() {
    let town = Town::start().await;
    let shop = AppId::new(SHOP).unwrap();
    let tokens: AccountTokens = town.platform.account_tokens(&shop);
    let token = tokens.get().await.unwrap();
    assert_eq!(
        town.simulated.authorizer_token(SHOP).as_deref(),
        Some(token.access_token().expose())
    );
    let ticket = Tickets::new(&tokens, ["h5.example.com"])
        .unwrap()
        .get()
        .await
        .unwrap();
    assert!(!ticket.ticket().expose().is_empty());

    // The owner authorizes again, which revokes the token. The time of events has whole seconds.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    town.simulated.authorize(SHOP).unwrap();
    let error = town
        .platform
        .client(&shop)
        .get_json::<serde_json::Value>("cgi-bin/user/info", token.access_token(), &[])
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TokenRefused, "{error}");
    town.push(SimulatedPush::authorized(SHOP)).await;
    let current = town.simulated.authorizer_token(SHOP);
    let is_replaced = async || {
        let next = tokens.get().await.unwrap();
        current.as_deref() == Some(next.access_token().expose())
    };
    eventually(
        "the next token is used",
        Duration::from_secs(5),
        is_replaced,
    )
    .await;
}
