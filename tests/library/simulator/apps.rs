//! Tests of several accounts and website apps in one simulator: everything is kept by AppID.

use reqwest::Method;
use tower_wechat::simulator::{Fault, IssuedKind, SimulatedApp, SimulatedUser};

use super::harness::{Harness, Reply};

const SHOP: &str = "wx00000000000000aa";
const SITE: &str = "wx00000000000000bb";

/// A simulator with its first account, a second account and a website app.
struct Apps {
    harness: Harness,
    first: SimulatedApp,
    shop: SimulatedApp,
    site: SimulatedApp,
}

impl Apps {
    async fn start() -> Self {
        let harness = Harness::start().await;
        Self {
            first: harness.sim.app(harness.sim.app_id()).unwrap(),
            shop: harness.sim.add_account(SHOP, "secret of the shop"),
            site: harness.sim.add_website(SITE, "secret of the site"),
            harness,
        }
    }

    async fn exchange_with(&self, app_id: &str, secret: &str, code: &str) -> Reply {
        self.harness
            .get(&format!(
                "/sns/oauth2/access_token?appid={app_id}&secret={secret}&code={code}&grant_type=authorization_code"
            ))
            .await
    }

    async fn exchange(&self, app: &SimulatedApp, code: &str) -> Reply {
        self.exchange_with(app.app_id(), &app.app_secret(), code)
            .await
    }

    async fn refresh(&self, app: &SimulatedApp, refresh_token: &str) -> Reply {
        let app_id = app.app_id();
        self.harness
            .get(&format!(
                "/sns/oauth2/refresh_token?appid={app_id}&grant_type=refresh_token&refresh_token={refresh_token}"
            ))
            .await
    }

    async fn stable_token(&self, app: &SimulatedApp) -> Reply {
        let body = serde_json::json!({
            "grant_type": "client_credential", "appid": app.app_id(), "secret": app.app_secret(),
        });
        self.harness
            .post("/cgi-bin/stable_token", &body.to_string())
            .await
    }

    async fn token(&self, app: &SimulatedApp) -> Reply {
        let (app_id, secret) = (app.app_id(), app.app_secret());
        self.harness
            .get(&format!(
                "/cgi-bin/token?grant_type=client_credential&appid={app_id}&secret={secret}"
            ))
            .await
    }

    async fn ticket(&self, access_token: &str) -> String {
        self.harness
            .get(&format!(
                "/cgi-bin/ticket/getticket?access_token={access_token}&type=jsapi"
            ))
            .await
            .field("ticket")
    }
}

#[tokio::test]
async fn a_code_of_another_app_is_refused_and_not_spent() {
    let apps = Apps::start().await;
    for (app, others, scope) in [
        (&apps.first, [&apps.shop, &apps.site], "snsapi_userinfo"),
        (&apps.shop, [&apps.first, &apps.site], "snsapi_userinfo"),
        (&apps.site, [&apps.first, &apps.shop], "snsapi_login"),
    ] {
        let code = app.authorize("oAlice", scope);
        for other in others {
            apps.exchange(other, &code)
                .await
                .refused(40029, "invalid code");
        }
        let reply = apps.exchange(app, &code).await;
        assert_eq!(reply.field("openid"), app.openid_of("oAlice"));
        assert_eq!(reply.field("scope"), scope);
    }
}

#[tokio::test]
async fn a_secret_is_that_of_its_appid() {
    let apps = Apps::start().await;
    let code = apps.shop.authorize("oAlice", "snsapi_base");
    let first_secret = apps.first.app_secret();
    apps.exchange_with(SHOP, &first_secret, &code)
        .await
        .refused(40125, "invalid appsecret");
    for unknown in ["wx00000000000000cc", "WX00000000000000AA", "wx%0A"] {
        apps.exchange_with(unknown, "secret of the shop", &code)
            .await
            .refused(40013, "invalid appid");
    }
    // A new secret replaces the old one, and codes stay valid.
    apps.harness.sim.add_account(SHOP, "another secret");
    apps.exchange_with(SHOP, "secret of the shop", &code)
        .await
        .refused(40125, "invalid appsecret");
    let reply = apps.exchange(&apps.shop, &code).await;
    assert!(reply.json().get("access_token").is_some());
}

#[tokio::test]
async fn a_user_has_one_openid_in_each_app_and_one_unionid() {
    let apps = Apps::start().await;
    apps.harness
        .sim
        .add_user(SimulatedUser::new("oAlice").unionid("uAlice"));
    let mut openids = Vec::new();
    for (app, scope) in [
        (&apps.first, "snsapi_userinfo"),
        (&apps.shop, "snsapi_userinfo"),
        (&apps.site, "snsapi_login"),
    ] {
        let mut seen = Vec::new();
        for _ in 0..2 {
            let reply = apps.exchange(app, &app.authorize("oAlice", scope)).await;
            let openid = reply.field("openid");
            let profile = apps
                .harness
                .userinfo(&reply.field("access_token"), &openid)
                .await;
            assert_eq!(reply.field("unionid"), "uAlice");
            assert_eq!(profile.field("unionid"), "uAlice");
            assert_eq!(profile.field("openid"), openid);
            seen.push(openid);
        }
        assert_eq!(seen, [app.openid_of("oAlice"), app.openid_of("oAlice")]);
        assert_eq!(app.sign_in(&seen[0], scope).openid, seen[0]);
        openids.extend(seen.pop());
    }
    assert_eq!(openids[0], "oAlice");
    assert!(openids[1..].iter().all(|openid| openid.len() == 28));
    assert_ne!(openids[1], openids[2]);
    // The openid depends on the AppID and the user alone.
    let elsewhere = Apps::start().await;
    assert_eq!(elsewhere.shop.openid_of("oAlice"), openids[1]);
}

#[tokio::test]
async fn only_an_open_platform_gives_unionids() {
    let apps = Apps::start().await;
    let shop = apps.shop.clone().returns_unionid(false);
    apps.harness
        .sim
        .add_user(SimulatedUser::new("oAlice").unionid("uAlice"));
    apps.harness.sim.add_user(SimulatedUser::new("oBob"));
    let unionid_of = async |app: &SimulatedApp, openid: &str, scope: &str| {
        let reply = apps.exchange(app, &app.authorize(openid, scope)).await;
        reply.json()["unionid"].as_str().map(str::to_owned)
    };
    assert_eq!(unionid_of(&shop, "oAlice", "snsapi_userinfo").await, None);
    assert_eq!(
        unionid_of(&apps.first, "oBob", "snsapi_userinfo").await,
        None
    );
    // A website app always belongs to an open platform.
    let site = apps.site.clone().returns_unionid(false);
    assert_eq!(
        unionid_of(&site, "oAlice", "snsapi_login").await.as_deref(),
        Some("uAlice")
    );
    let bobs = unionid_of(&site, "oBob", "snsapi_login").await;
    assert!(bobs.is_some() && bobs == unionid_of(&site, "oBob", "snsapi_login").await);
}

#[tokio::test]
async fn users_tokens_are_those_of_one_app() {
    let apps = Apps::start().await;
    let first = apps.first.sign_in("oAlice", "snsapi_userinfo");
    let shop = apps.shop.sign_in("oAlice", "snsapi_userinfo");
    let site = apps.site.sign_in("oAlice", "snsapi_login");
    // No sign-in has invalidated the pair of another app.
    for pair in [&first, &shop, &site] {
        let profile = apps
            .harness
            .userinfo(&pair.access_token, &pair.openid)
            .await;
        assert_eq!(profile.field("openid"), pair.openid);
        let (token, openid) = (&pair.access_token, &pair.openid);
        let check = apps
            .harness
            .get(&format!("/sns/auth?access_token={token}&openid={openid}"))
            .await;
        assert_eq!(check.json()["errcode"], 0);
    }
    apps.harness
        .userinfo(&shop.access_token, "oAlice")
        .await
        .refused(40003, "invalid openid");
    apps.refresh(&apps.first, &shop.refresh_token)
        .await
        .refused(40030, "invalid refresh_token");
    for (app, pair) in [(&apps.shop, &shop), (&apps.site, &site)] {
        let reply = apps.refresh(app, &pair.refresh_token).await;
        assert_eq!(reply.field("openid"), pair.openid);
    }
    // A password is that of the user, and so invalidates the tokens of all apps.
    apps.harness.sim.change_password("oAlice");
    for (app, pair) in [(&apps.first, &first), (&apps.shop, &shop)] {
        apps.refresh(app, &pair.refresh_token)
            .await
            .refused(42007, "access_token and refresh_token exception");
    }
}

#[tokio::test]
async fn account_tokens_and_tickets_are_those_of_one_account() {
    let apps = Apps::start().await;
    let first = apps.stable_token(&apps.first).await.field("access_token");
    let shop = apps.stable_token(&apps.shop).await.field("access_token");
    assert_ne!(first, shop);
    assert_ne!(apps.ticket(&first).await, apps.ticket(&shop).await);
    assert_eq!(apps.shop.account_token().as_ref(), Some(&shop));
    assert!(apps.shop.is_account_token_valid(&shop));
    assert!(!apps.shop.is_account_token_valid(&first));
    // A follower of the shop has an openid there.
    let alice = apps.shop.openid_of("oAlice");
    let info = |token: &str, openid: &str| {
        format!("/cgi-bin/user/info?access_token={token}&openid={openid}")
    };
    let reply = apps.harness.get(&info(&shop, &alice)).await;
    assert_eq!(reply.field("openid"), alice);
    apps.harness
        .get(&info(&first, &alice))
        .await
        .refused(40003, "invalid openid");
    apps.harness
        .get(&info(&shop, "oAlice"))
        .await
        .refused(40003, "invalid openid");
    // A website app has no token of its own.
    let text = "token api forbidden";
    apps.stable_token(&apps.site).await.refused(50004, text);
    apps.token(&apps.site).await.refused(50004, text);
}

#[tokio::test]
async fn a_token_of_the_wrong_kind_is_refused_in_every_app() {
    let apps = Apps::start().await;
    let of_user = apps.shop.sign_in("oAlice", "snsapi_userinfo");
    let of_account = apps.stable_token(&apps.shop).await.field("access_token");
    let ticket = format!(
        "/cgi-bin/ticket/getticket?access_token={}&type=jsapi",
        of_user.access_token
    );
    for reply in [
        apps.harness.get(&ticket).await,
        apps.harness.userinfo(&of_account, &of_user.openid).await,
    ] {
        let json = reply.json();
        assert_eq!((reply.status, &json["errcode"]), (200, &40001.into()));
    }
}

#[tokio::test]
async fn a_virtual_user_of_another_account_has_an_openid_there() {
    let apps = Apps::start().await;
    let link = format!(
        "/connect/oauth2/authorize?appid={SHOP}&redirect_uri=http%3A%2F%2Fa%2F&response_type=code&scope=snsapi_userinfo&state=s&forceSnapShot=true"
    );
    let code = apps.harness.get(&link).await.callback("code").unwrap();
    let reply = apps.exchange(&apps.shop, &code).await;
    assert_eq!(reply.json()["is_snapshotuser"], 1);
    let (token, openid) = (reply.field("access_token"), reply.field("openid"));
    let profile = apps.harness.userinfo(&token, &openid).await;
    assert_eq!(profile.field("openid"), openid);
}

#[tokio::test]
async fn quotas_are_counted_by_account() {
    let apps = Apps::start().await;
    apps.harness.advance_to_midnight();
    apps.harness
        .sim
        .settings(|settings| settings.token_daily_quota = 1);
    let token = apps.token(&apps.shop).await.field("access_token");
    let limit = "reach max api daily quota limit";
    apps.token(&apps.shop).await.refused(45009, limit);
    let first = apps.token(&apps.first).await.field("access_token");
    // `clear_quota` resets the account of its token and appid, which must be the same.
    let clear = async |token: &str, app: &SimulatedApp| {
        let path = format!("/cgi-bin/clear_quota?access_token={token}");
        let body = format!(r#"{{"appid":"{}"}}"#, app.app_id());
        apps.harness.post(&path, &body).await
    };
    clear(&first, &apps.shop)
        .await
        .refused(40013, "invalid appid");
    assert_eq!(clear(&token, &apps.shop).await.json()["errcode"], 0);
    assert!(
        apps.token(&apps.shop)
            .await
            .json()
            .get("access_token")
            .is_some()
    );
    apps.token(&apps.first).await.refused(45009, limit);
    // The call by appid and secret, too, concerns one account.
    let clear = |app: &SimulatedApp, secret: &str| {
        let app_id = app.app_id();
        format!("/cgi-bin/clear_quota/v2?appid={app_id}&appsecret={secret}")
    };
    let secret = apps.shop.app_secret().replace(' ', "%20");
    apps.harness
        .post(&clear(&apps.first, &secret), "")
        .await
        .refused(40125, "invalid appsecret");
    let cleared = apps.harness.post(&clear(&apps.shop, &secret), "").await;
    assert_eq!(cleared.json()["errcode"], 0);
    apps.token(&apps.first).await.refused(45009, limit);
}

#[tokio::test]
async fn calls_and_faults_are_counted_by_app() {
    let apps = Apps::start().await;
    let busy = Fault::on("*").app(SHOP).errcode(-1);
    apps.harness.sim.inject(busy);
    let pair = apps.shop.sign_in("oAlice", "snsapi_userinfo");
    // An app is known by `appid` in the query or the body, and by the access token.
    apps.refresh(&apps.shop, &pair.refresh_token)
        .await
        .refused(-1, "system error");
    apps.stable_token(&apps.shop)
        .await
        .refused(-1, "system error");
    apps.harness
        .userinfo(&pair.access_token, &pair.openid)
        .await
        .refused(-1, "system error");
    let pair = apps.first.sign_in("oAlice", "snsapi_userinfo");
    for _ in 0..2 {
        apps.refresh(&apps.first, &pair.refresh_token)
            .await
            .field("access_token");
    }
    apps.refresh_unknown().await;

    let refresh = "/sns/oauth2/refresh_token";
    let sim = &apps.harness.sim;
    assert_eq!(sim.calls_to(refresh), 4);
    assert_eq!(apps.first.calls_to(refresh), 2);
    let calls = apps.shop.calls();
    let calls: Vec<_> = calls
        .iter()
        .map(|(path, count)| (&**path, *count))
        .collect();
    assert_eq!(
        calls,
        [
            ("/cgi-bin/stable_token", 1),
            (refresh, 1),
            ("/sns/userinfo", 1)
        ]
    );
    sim.reset_calls();
    assert!(apps.shop.calls().is_empty() && sim.calls().is_empty());
}

impl Apps {
    async fn refresh_unknown(&self) {
        self.harness
            .get("/sns/oauth2/refresh_token?appid=wx0&grant_type=refresh_token&refresh_token=x")
            .await
            .refused(40013, "invalid appid");
    }
}

#[tokio::test]
async fn issued_credentials_name_their_app() {
    let apps = Apps::start().await;
    apps.first.sign_in("oAlice", "snsapi_base");
    apps.site.authorize("oAlice", "snsapi_login");
    apps.stable_token(&apps.shop).await;
    let issued = apps.harness.sim.issued_credentials();
    let issued: Vec<_> = issued
        .iter()
        .map(|credential| (credential.kind, &*credential.app_id))
        .collect();
    assert_eq!(
        issued,
        [
            (IssuedKind::SignIn, apps.first.app_id()),
            (IssuedKind::Code, SITE),
            (IssuedKind::AccountToken, SHOP)
        ]
    );
}

#[tokio::test]
async fn each_app_has_its_own_callback_hosts() {
    let apps = Apps::start().await;
    let link = |app: &SimulatedApp, host: &str| {
        let app_id = app.app_id();
        format!(
            "/connect/oauth2/authorize?appid={app_id}&redirect_uri=https%3A%2F%2F{host}%2Fcb&response_type=code&scope=snsapi_base&state=s"
        )
    };
    apps.harness
        .sim
        .settings(|settings| settings.redirect_hosts = Some(vec!["a.example".to_owned()]));
    let shop = apps.shop.clone().redirect_hosts(["b.example"]);
    for (app, host, status) in [
        (&apps.first, "a.example", 302),
        (&apps.first, "b.example", 200),
        (&shop, "a.example", 200),
        (&shop, "B.example", 302),
    ] {
        let reply = apps
            .harness
            .try_send(Method::GET, &link(app, host), None)
            .await
            .unwrap();
        assert_eq!(reply.status, status, "{host}");
    }
}
