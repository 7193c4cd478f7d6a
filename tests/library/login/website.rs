//! Tests of the login with a website app (网站应用) beside an account: the choice of the login by the
//! browser, its callback, its sessions and its users.

use std::time::Duration;

use axum::http::header::VARY;
use axum::routing::get;
use axum::{Json, Router};
use http::Response;
use redis::Commands;
use serde_json::{Value, json};
use tower_wechat::login::{LoginBuilder, LoginUser};
use tower_wechat::redis::Layout;
use tower_wechat::simulator::{Fault, SimulatedApp, SimulatedUser};
use tower_wechat::{
    CookieKeys, Error, ErrorKind, Login, Policy, RedisStore, Rejection, RequestHead, Scope, UserId,
    UserTokens, WechatLayer, WechatUser,
};

use super::harness::{ALICE, EXCHANGE, Harness, Site, USERINFO, pages};
use crate::support::browser::{Browser, Reply, SESSION};
use crate::support::redis_server::RedisServer;

pub(super) const WEBSITE: &str = "wx00000000000000bb";
pub(super) const WEBSITE_SESSION: &str = "wechat_session_wx00000000000000bb_wx0123456789abcdef";
pub(super) const UNIONID: &str = "uAlice0000000000000000000000";

pub(super) const CHROME: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36";
pub(super) const SAFARI_ON_IPHONE: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.0 Mobile/15E148 Safari/604.1";
pub(super) const WECHAT_ON_WINDOWS: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/132.0.0.0 Safari/537.36 NetType/WIFI MicroMessenger/7.0.20.1781(0x6700143B) WindowsWechat(0x63090a13) UnifiedPCWindowsWechat(0xf2541022) XWEB/16467 Flue";
const WECOM_ON_IPHONE: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 16_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148 wxwork/4.1.10 MicroMessenger/7.0.1 Language/zh ColorScheme/Light";

/// An application with an account and a website app.
pub(super) struct TwoApps {
    pub(super) harness: Harness,
    pub(super) website: SimulatedApp,
    website_users: UserTokens,
    pub(super) site: Site,
    /// Alice's openid in the website app.
    pub(super) alice: String,
}

impl TwoApps {
    pub(super) async fn start() -> Self {
        Self::start_with(Harness::new().await, |login| login).await
    }

    async fn start_with(
        harness: Harness,
        change: impl FnOnce(LoginBuilder) -> LoginBuilder,
    ) -> Self {
        Self::mounted(harness, change, two_apps_router).await
    }

    pub(super) async fn mounted(
        harness: Harness,
        change: impl FnOnce(LoginBuilder) -> LoginBuilder,
        app: impl FnOnce(WechatLayer, Login) -> Router,
    ) -> Self {
        let alice = SimulatedUser::new(ALICE)
            .nickname("爱丽丝")
            .unionid(UNIONID);
        harness.sim.add_user(alice);
        let website = harness.sim.add_website(WEBSITE, "secret-of-the-website");
        let website_users = harness.users_of(website.client().unwrap()).await;
        let users = website_users.clone();
        let site = harness
            .mounted(|login| change(login.website(users)), app)
            .await;
        Self {
            alice: website.openid_of(ALICE),
            harness,
            website,
            website_users,
            site,
        }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.site.url)
    }

    /// Asserts how many codes each app has exchanged.
    #[track_caller]
    pub(super) fn has_exchanged(&self, account: u64, website: u64) {
        let exchanges = |app: &SimulatedApp| app.calls_to(EXCHANGE);
        let of_account = self.harness.sim.app(self.harness.sim.app_id()).unwrap();
        assert_eq!(
            (exchanges(&of_account), exchanges(&self.website)),
            (account, website)
        );
    }
}

/// Returns the application of the harness with a page that shows the user's app.
fn two_apps_router(layer: WechatLayer, login: Login) -> Router {
    let layer = layer.login(login);
    Router::new()
        .route("/profile", get(whoami))
        .route_layer(layer.clone().require_scope(Scope::UserInfo))
        .merge(pages())
        .route("/whoami", get(whoami))
        .layer(layer)
}

pub(super) async fn whoami(user: WechatUser) -> Json<Value> {
    Json(json!({
        "app": user.app_id().as_str(),
        "of_users": user.users().app_id().as_str(),
        "id": user.id(),
        "openid": user.openid(),
        "unionid": user.unionid(),
        "scope": user.scope(),
        "userinfo": user.has_granted(Scope::UserInfo),
        "base": user.has_granted(Scope::Base),
    }))
}

pub(super) fn desktop() -> Browser {
    Browser::new().with_header("user-agent", CHROME)
}

fn varies(reply: &Reply) -> bool {
    let values = reply.headers.get_all(VARY).iter();
    values
        .flat_map(|value| value.to_str().unwrap().split(','))
        .any(|name| name.trim().eq_ignore_ascii_case("user-agent"))
}

#[tokio::test]
async fn a_desktop_browser_logs_in_with_the_website() {
    let apps = TwoApps::start().await;
    let browser = desktop();
    let page = browser.open(&apps.url("/whoami?tab=2")).await;
    assert_eq!(page.url.query(), Some("tab=2"));
    assert_eq!(
        page.json(),
        json!({
            "app": WEBSITE, "of_users": WEBSITE, "id": apps.alice, "openid": apps.alice,
            "unionid": UNIONID, "scope": "snsapi_login", "userinfo": true, "base": true,
        })
    );
    assert_ne!(apps.alice, ALICE);
    apps.has_exchanged(0, 1);
    assert!(browser.cookie(WEBSITE_SESSION).is_some());
    assert_eq!(browser.cookie(SESSION), None);
    // The scope suffices for the profile, and no page asks for another one.
    let profile = browser.visit(&apps.url("/profile")).await;
    assert_eq!(
        (profile.status, profile.json()["id"].as_str()),
        (200, Some(&*apps.alice))
    );
    assert_eq!(browser.visit(&apps.url("/nickname")).await.text, "爱丽丝");
    // A user of the website app is not one of the account.
    let id = UserId::new(&*apps.alice).unwrap();
    assert!(apps.website_users.get(&id).await.is_ok());
    assert!(apps.site.users.get(&id).await.is_err());
    apps.has_exchanged(0, 1);
}

#[tokio::test]
async fn the_user_agent_chooses_the_app() {
    let apps = TwoApps::start().await;
    let callback = format!("{}/wechat/callback", apps.site.url);
    for path in [
        "/me",
        "/profile",
        "/wechat/login?return_to=%2Fme&scope=snsapi_base",
    ] {
        for (agent, page, app, scope) in [
            (
                None,
                "/connect/oauth2/authorize",
                apps.harness.sim.app_id(),
                "snsapi_userinfo",
            ),
            (
                Some(WECHAT_ON_WINDOWS),
                "/connect/oauth2/authorize",
                apps.harness.sim.app_id(),
                "snsapi_userinfo",
            ),
            (Some(CHROME), "/connect/qrconnect", WEBSITE, "snsapi_login"),
            (
                Some(WECOM_ON_IPHONE),
                "/connect/qrconnect",
                WEBSITE,
                "snsapi_login",
            ),
            (Some(""), "/connect/qrconnect", WEBSITE, "snsapi_login"),
        ] {
            let mut browser = Browser::new();
            if let Some(agent) = agent {
                browser = browser.with_header("user-agent", agent);
            }
            let reply = browser.visit(&apps.url(path)).await;
            assert_eq!(
                (reply.status, varies(&reply)),
                (302, true),
                "{agent:?} {path}"
            );
            let location = reply.location().unwrap();
            assert_eq!(location.path(), page, "{agent:?} {path}");
            let (names, values): (Vec<_>, Vec<_>) = location.query_pairs().into_owned().unzip();
            assert_eq!(
                names,
                ["appid", "redirect_uri", "response_type", "scope", "state"]
            );
            assert_eq!(
                values[..4],
                [app, &*callback, "code", scope],
                "{agent:?} {path}"
            );
            assert_eq!(location.fragment(), Some("wechat_redirect"));
        }
        let phone = Browser::new().with_header("user-agent", SAFARI_ON_IPHONE);
        let reply = phone.visit(&apps.url(path)).await;
        reply.is_page(403, "请在微信中打开");
        assert!(varies(&reply) && phone.cookie_names().is_empty(), "{path}");
        // A script gets a path of the application, which chooses.
        let script = phone.fetch(&apps.url("/me")).await;
        let login_url = script.is_error(401, "login_required")["login_url"].clone();
        assert!(login_url.as_str().unwrap().starts_with("/wechat/login?"));
        assert!(!varies(&script));
    }
}

#[tokio::test]
async fn only_replies_that_depend_on_the_browser_vary() {
    let harness = Harness::new().await;
    let plain = harness.site().await;
    for agent in [CHROME, SAFARI_ON_IPHONE] {
        let browser = Browser::new().with_header("user-agent", agent);
        let reply = browser.visit(&format!("{}/me", plain.url)).await;
        let location = reply.location().unwrap();
        assert_eq!(location.path(), "/connect/oauth2/authorize");
        assert!(!varies(&reply));
    }
    let strict = harness.site_with(|login| login.wechat_only(true)).await;
    let me = format!("{}/me", strict.url);
    let reply = desktop().visit(&me).await;
    reply.is_page(403, "请在微信中打开");
    assert!(varies(&reply));
    let reply = Browser::new().visit(&me).await;
    assert!(reply.status == 302 && varies(&reply));

    let apps = TwoApps::start().await;
    let browser = desktop();
    let callback = browser.callback_of(&apps.url("/me")).await;
    let reply = browser.visit(&callback).await;
    assert!(reply.status == 302 && !varies(&reply), "the state decides");
    assert!(!varies(&browser.visit(&apps.url("/me")).await));
    let form = Browser::new().with_header("user-agent", CHROME);
    let html = [("accept", "text/html")];
    let reply = form
        .send(reqwest::Method::POST, &apps.url("/me"), &html)
        .await;
    let reply = reply.unwrap();
    assert!(reply.status == 303 && !varies(&reply));
}

/// Both the handler and the renderer set `Vary`.
#[tokio::test]
async fn vary_is_added_to_the_applications_own() {
    let app = |layer: WechatLayer, login: Login| {
        let renderer = |rejection: &Rejection, _: &RequestHead<'_>| {
            let response = Response::builder().status(rejection.status());
            let response = response.header(VARY, "accept-language");
            response.body(axum::body::Body::empty()).unwrap()
        };
        let handler = async |user: Result<WechatUser, Rejection>| {
            user.map(|user| user.id().to_owned())
                .map_err(|rejection| ([(VARY, "origin")], rejection))
        };
        let layer = layer.login(login).policy(Policy::Optional).reject(renderer);
        Router::new().route("/", get(handler)).layer(layer)
    };
    let apps = TwoApps::mounted(Harness::new().await, |login| login, app).await;
    let names = |reply: &Reply| {
        let values = reply.headers.get_all(VARY).iter();
        values
            .map(|value| value.to_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let reply = desktop().visit(&apps.url("/")).await;
    assert_eq!(reply.location().unwrap().path(), "/connect/qrconnect");
    assert_eq!(names(&reply), ["origin", "accept-language", "user-agent"]);
    let reply = desktop().visit(&apps.url("/wechat/login")).await;
    assert_eq!(names(&reply), ["accept-language", "user-agent"]);
    let reply = desktop().fetch(&apps.url("/")).await;
    assert_eq!(names(&reply), ["origin", "accept-language"]);
}

#[tokio::test]
async fn a_logout_everywhere_ends_the_sessions_of_one_app() {
    let apps = TwoApps::start().await;
    let (first, second, phone) = (desktop(), desktop(), Browser::new());
    for browser in [&first, &second, &phone] {
        browser.open(&apps.url("/me")).await;
    }
    apps.harness.advance(Duration::from_secs(60));
    assert_eq!(
        first.post(&apps.url("/logout/everywhere")).await.status,
        204
    );
    second
        .fetch(&apps.url("/me"))
        .await
        .is_error(401, "login_required");
    assert_eq!(phone.visit(&apps.url("/me")).await.json()["id"], ALICE);
    second.open(&apps.url("/me")).await;
    apps.harness.advance(Duration::from_secs(60));
    phone.post(&apps.url("/logout/everywhere")).await;
    assert_eq!(
        second.visit(&apps.url("/me")).await.json()["id"],
        *apps.alice
    );
}

#[tokio::test]
async fn sessions_of_the_website_are_renewed_under_their_own_name() {
    let change = |login: LoginBuilder| login.cookie_name("shop");
    let apps = TwoApps::start_with(Harness::new().await, change).await;
    let browser = desktop();
    browser.open(&apps.url("/me")).await;
    let name = format!("shop_{WEBSITE}");
    assert!(browser.cookie(&name).is_some() && browser.cookie("shop").is_none());
    apps.harness.advance(Duration::from_secs(16 * 86_400));
    let reply = browser.visit(&apps.url("/me")).await;
    assert_eq!(reply.status, 200);
    let renewed = reply.cookies();
    assert!(
        renewed.len() == 1 && renewed[0].starts_with(&format!("{name}=")),
        "{renewed:?}"
    );
    let phone = Browser::new();
    phone.open(&apps.url("/me")).await;
    assert!(phone.cookie("shop").is_some());
}

#[tokio::test]
async fn the_state_chooses_the_app_of_a_callback() {
    let apps = TwoApps::start().await;
    for (begin, end, app) in [
        (CHROME, SAFARI_ON_IPHONE, WEBSITE),
        (CHROME, WECHAT_ON_WINDOWS, WEBSITE),
        (WECHAT_ON_WINDOWS, CHROME, apps.harness.sim.app_id()),
    ] {
        let browser = Browser::new().with_header("user-agent", begin);
        let callback = browser.callback_of(&apps.url("/whoami")).await;
        let changed = browser.copy().with_header("user-agent", end);
        let reply = changed.visit(&callback).await;
        assert_eq!(reply.header("location"), Some("/whoami"));
        assert_eq!(changed.visit(&apps.url("/whoami")).await.json()["app"], app);
        // A copy of the callback gets the same reply.
        assert_eq!(
            changed.visit(&callback).await.header("location"),
            Some("/whoami")
        );
    }
    apps.has_exchanged(1, 2);
}

#[tokio::test]
async fn states_and_codes_of_the_other_app_are_rejected() {
    let apps = TwoApps::start().await;
    let browser = desktop();
    let website = browser.callback_of(&apps.url("/me")).await;
    // The account's login begins in the same browser.
    let wechat = browser.copy();
    let account = wechat.callback_of(&apps.url("/me")).await;
    let (of_website, of_account) = (parameters(&website), parameters(&account));

    let (shorter, last) = of_website.1.split_at(of_website.1.len() - 1);
    let forged = format!("{shorter}{}", if last == "0" { '1' } else { '0' });
    for state in [&forged, "0000", ""] {
        let url = apps.url(&format!(
            "/wechat/callback?code={}&state={state}",
            of_website.0
        ));
        let reply = wechat.fetch(&url).await;
        reply.is_error(400, "invalid_state");
        assert!(reply.cookies().is_empty());
    }
    apps.has_exchanged(0, 0);
    // Crossed codes: each app rejects the code of the other. The logins begin again.
    let crossed = apps.url(&format!(
        "/wechat/callback?code={}&state={}",
        of_website.0, of_account.1
    ));
    let reply = wechat.visit(&crossed).await;
    assert_eq!(
        reply.location().unwrap().path(),
        "/connect/oauth2/authorize"
    );
    assert_eq!(wechat.cookie(SESSION), None);
    // The login with the website is still under way, and so is its code.
    let reply = wechat.visit(&website).await;
    assert_eq!(reply.header("location"), Some("/me"));
    assert!(wechat.cookie(WEBSITE_SESSION).is_some());
}

/// Returns the code and the state of a callback.
fn parameters(callback: &str) -> (String, String) {
    let url = url::Url::parse(callback).unwrap();
    let value = |wanted: &str| {
        let mut pairs = url.query_pairs();
        let found = pairs.find(|(name, _)| name == wanted);
        found.unwrap().1.into_owned()
    };
    (value("code"), value("state"))
}

#[tokio::test]
async fn callbacks_of_the_website_are_checked_like_the_accounts() {
    // A browser outside WeChat keeps its cookies, so that a login without them is never accepted.
    let change = |login: LoginBuilder| login.dangerous_allow_missing_state_cookie(true);
    let apps = TwoApps::start_with(Harness::new().await, change).await;
    let browser = desktop();
    let callback = browser.callback_of(&apps.url("/me")).await;
    let (code, state) = parameters(&callback);
    Browser::new()
        .visit(&callback)
        .await
        .is_page(400, "登录状态无效");
    apps.has_exchanged(0, 0);
    // A proxy sends the callback to another path.
    let misplaced = apps.url(&format!("/elsewhere?code={code}&state={state}"));
    desktop().visit(&misplaced).await.is_page(400, "登录未完成");
    // The user denied access.
    let denied = apps.url(&format!("/wechat/callback?state={state}"));
    browser.visit(&denied).await.is_page(403, "您已取消授权");
    // The code is not lost.
    assert_eq!(
        browser.visit(&callback).await.header("location"),
        Some("/me")
    );
    apps.has_exchanged(0, 1);
    // Another browser cannot use the spent code.
    let other = desktop();
    let (_, state) = parameters(&other.callback_of(&apps.url("/me")).await);
    let stolen = apps.url(&format!("/wechat/callback?code={code}&state={state}"));
    assert_eq!(other.visit(&stolen).await.status, 400);

    let late = desktop();
    let callback = late.callback_of(&apps.url("/me")).await;
    apps.harness.advance(Duration::from_secs(11 * 60));
    late.visit(&callback).await.is_page(400, "登录已过期");
}

/// WeChat could still reject a token for the profile. Another scan of the code would not help.
#[tokio::test]
async fn no_page_asks_a_user_of_the_website_for_a_scope() {
    let apps = TwoApps::start().await;
    let browser = desktop();
    browser.open(&apps.url("/me")).await;
    let fault = Fault::on(USERINFO).app(WEBSITE).errcode(48_001);
    apps.harness.sim.inject(fault);
    let page = browser.visit(&apps.url("/nickname")).await;
    page.is_page(403, "需要您的授权");
    let script = browser.fetch(&apps.url("/nickname")).await;
    script.is_error(403, "login_denied");
    apps.has_exchanged(0, 1);
}

#[tokio::test]
async fn tokens_of_the_website_are_renewed_by_its_own_client() {
    let apps = TwoApps::start().await;
    let browser = desktop();
    browser.open(&apps.url("/me")).await;
    let first = apps.website.current_pair(ALICE).unwrap();
    apps.harness.advance(Duration::from_secs(3 * 3_600));
    let page = browser.visit(&apps.url("/me")).await.json();
    assert_ne!(page["token"], first.access_token);
    assert_eq!(apps.website.calls_to("/sns/oauth2/refresh_token"), 1);
}

#[tokio::test]
async fn ineffective_logins_with_the_website_end() {
    let apps = TwoApps::start().await;
    let browser = desktop()
        .with_header("sec-fetch-mode", "navigate")
        .with_header("sec-fetch-site", "cross-site");
    let mut reply = browser.open(&apps.url("/me")).await;
    for _ in 0..6 {
        // Another program on this host removes the session.
        browser.drop_cookies(|name| name == WEBSITE_SESSION);
        reply = browser.open(&apps.url("/me")).await;
        if reply.status != 200 {
            break;
        }
    }
    reply.is_page(429, "登录没有生效");
    apps.has_exchanged(0, 3);
}

#[tokio::test]
async fn a_hook_can_join_the_users_of_both_apps() {
    let hook = async |user: LoginUser| {
        assert!(user.profile().await?.nickname == "爱丽丝");
        let unionid = user.unionid().unwrap().to_owned();
        Ok::<_, Error>(format!("{}@{unionid}", &user.app_id().as_str()[2..4]))
    };
    let apps = TwoApps::start_with(Harness::new().await, |login| login.on_login(hook)).await;
    let page = desktop().open(&apps.url("/whoami")).await.json();
    assert_eq!(page["id"], format!("00@{UNIONID}"));
    assert_eq!(
        (&page["app"], &page["openid"]),
        (&json!(WEBSITE), &json!(apps.alice))
    );
    let page = Browser::new().open(&apps.url("/whoami")).await.json();
    assert_eq!(page["id"], format!("01@{UNIONID}"));
    assert_eq!(page["openid"], ALICE);
}

/// Both apps share a Redis, also if a row of the application is the user of both.
#[tokio::test]
async fn records_in_redis_are_the_websites_own() {
    let hook = async |_: LoginUser| Ok::<_, Error>(42);
    let harness = Harness::with_redis().await;
    let apps = TwoApps::start_with(harness, |login| login.on_login(hook)).await;
    let (browser, phone) = (desktop(), Browser::new());
    assert_eq!(
        browser.open(&apps.url("/whoami")).await.json()["app"],
        WEBSITE
    );
    let account = apps.harness.sim.app_id();
    assert_eq!(
        phone.open(&apps.url("/whoami")).await.json()["app"],
        account
    );
    let mut redis = apps.harness.redis.as_ref().unwrap().connection();
    let keys: Vec<String> = redis.keys("*").unwrap();
    for app in [WEBSITE, account] {
        let user = format!("wechat:{app}:user:42");
        assert!(keys.contains(&user), "{keys:?}");
        let codes = keys
            .iter()
            .filter(|key| key.contains(app) && key.contains("code"));
        assert!(codes.count() > 0, "{keys:?}");
    }
    apps.harness.advance(Duration::from_secs(60));
    browser.post(&apps.url("/logout/everywhere")).await;
    browser
        .fetch(&apps.url("/me"))
        .await
        .is_error(401, "login_required");
    assert_eq!(
        phone.visit(&apps.url("/whoami")).await.json()["app"],
        account
    );
}

/// Another process of the application ends a login that one process began.
#[tokio::test]
async fn another_process_ends_a_login() {
    let apps = TwoApps::start_with(Harness::with_redis().await, |login| login).await;
    let website_users = apps.harness.users_of(apps.website.client().unwrap()).await;
    let change = |login: LoginBuilder| login.website(website_users);
    let other = apps
        .harness
        .behind(&apps.site.url, change, two_apps_router)
        .await;
    let browser = desktop();
    let callback = browser.callback_of(&apps.url("/whoami")).await;
    let callback = callback.replace(&apps.site.url, &other.url);
    assert_eq!(
        browser.visit(&callback).await.header("location"),
        Some("/whoami")
    );
    for url in [&other.url, &apps.site.url] {
        assert_eq!(
            browser.visit(&format!("{url}/whoami")).await.json()["app"],
            WEBSITE
        );
    }
}

#[tokio::test]
async fn a_layer_without_the_website_does_not_know_its_users() {
    let app = |layer: WechatLayer, login: Login| {
        let own = layer.clone().login(login);
        let session = own.session_cookie().clone();
        let api = pages().layer(layer.identity(session));
        Router::new().nest("/api", api).merge(pages().layer(own))
    };
    let apps = TwoApps::mounted(Harness::new().await, |login| login, app).await;
    let (browser, phone) = (desktop(), Browser::new());
    assert_eq!(
        browser.open(&apps.url("/me")).await.json()["id"],
        *apps.alice
    );
    browser
        .fetch(&apps.url("/api/me"))
        .await
        .is_error(401, "login_required");
    phone.open(&apps.url("/me")).await;
    assert_eq!(phone.fetch(&apps.url("/api/me")).await.json()["id"], ALICE);
}

#[tokio::test]
async fn a_website_that_shares_records_is_refused() {
    let redis = RedisServer::start();
    let harness = Harness::new().await;
    let website = harness.sim.add_website(WEBSITE, "secret-of-the-website");
    let login = |layout: Layout| {
        let (url, client) = (redis.url(), website.client().unwrap());
        async move {
            let store = RedisStore::builder(&url).layout(layout).connect().await;
            Login::builder("https://h5.example.com", CookieKeys::random().unwrap())
                .website(UserTokens::builder(client, store.unwrap()))
        }
    };
    let error = login(Layout::Hashes).await.build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains("{appid}"), "{error}");
    let apart = login(Layout::Keys).await;
    assert!(apart.clone().build().is_ok());
    let error = apart.bind_to_identity(true).build().unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("website and bind_to_identity"),
        "{error}"
    );
}

/// The configuration repeats the account's AppID as that of the website.
#[tokio::test]
async fn a_website_with_the_accounts_appid_is_ignored() {
    let harness = Harness::new().await;
    let users = harness.users().await;
    let site = harness.site_with(|login| login.website(users)).await;
    let reply = desktop().visit(&format!("{}/me", site.url)).await;
    assert_eq!(
        reply.location().unwrap().path(),
        "/connect/oauth2/authorize"
    );
    assert!(!varies(&reply));
}

#[tokio::test]
async fn a_website_session_does_not_pass_for_the_accounts() {
    let apps = TwoApps::start().await;
    let browser = desktop();
    browser.open(&apps.url("/me")).await;
    let value = browser.cookie(WEBSITE_SESSION).unwrap();
    let thief = Browser::new();
    thief.set_cookie(SESSION, "/", &value);
    thief
        .fetch(&apps.url("/me"))
        .await
        .is_error(401, "login_required");
    // Under its own name the session is valid.
    thief.set_cookie(WEBSITE_SESSION, "/", &value);
    assert_eq!(
        thief.fetch(&apps.url("/me")).await.json()["id"],
        *apps.alice
    );
}
