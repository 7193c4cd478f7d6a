//! Tests that a demo shows no secret: it uses all features, and each kind of failure occurs.

use std::time::Duration;

use tower_wechat::simulator::{Fault, SimulatedUser};
use url::Url;

use super::search::Secrets;
use crate::support::browser::{Browser, Reply, SESSION};
use crate::support::demo_process::{DemoProcess, USER_HEADER};
use crate::support::eventually;
use crate::support::harness::{Harness, Layout, REFRESH, USERINFO};
use crate::support::http_client::Asked;
use crate::support::redis_server::RedisServer;

const PASSWORD: &str = "s3cret-of-redis-5f2a";
const BEARER: &str = "a-long-random-bearer-secret-of-the-center";
const COOKIE_KEYS: &str = "bmV3LWtleS1uZXcta2V5LW5ldy1rZXktbmV3LWtleS1uZXcta2V5LW5ldy1rZXktbmV3LWtleS1uZXcta2V5LW5ldy1rZXk=,b2xkLWtleS1vbGQta2V5LW9sZC1rZXktb2xkLWtleS1vbGQta2V5LW9sZC1rZXktb2xkLWtleS1vbGQta2V5LW9sZC1rZXk=";
const EXCHANGE: &str = "/sns/oauth2/access_token";
const STABLE: &str = "/cgi-bin/stable_token";

/// A user with a browser. Keeps the bodies of all responses and the secrets in cookies and
/// redirects.
struct Person {
    browser: Browser,
    bodies: String,
    secrets: Secrets,
}

impl Person {
    fn new() -> Self {
        Self {
            browser: Browser::new(),
            bodies: String::new(),
            secrets: Secrets::default(),
        }
    }

    fn note(&mut self, reply: &Reply) {
        self.bodies.push_str(&reply.text);
        self.bodies.push('\n');
        for cookie in reply.cookies() {
            let value = cookie.split(';').next().unwrap().split_once('=').unwrap().1;
            if !value.is_empty() {
                self.secrets.add("a cookie", value);
            }
        }
        let Some(to) = reply.location() else { return };
        for (name, value) in to.query_pairs() {
            if matches!(&*name, "state" | "code") {
                self.secrets.add("a state or a code", value);
            }
        }
    }

    async fn visit(&mut self, url: &str) -> Reply {
        let reply = self.browser.visit(url).await;
        self.note(&reply);
        reply
    }

    async fn fetch(&mut self, url: &str) -> Reply {
        let reply = self.browser.fetch(url).await;
        self.note(&reply);
        reply
    }

    async fn post(&mut self, url: &str) -> Reply {
        let reply = self.browser.post(url).await;
        self.note(&reply);
        reply
    }

    /// Opens a page and follows redirects to the end. Returns the last response, and the URL of the
    /// last callback among the redirects.
    async fn open(&mut self, url: &str) -> (Reply, Option<String>) {
        let (mut reply, mut callback) = (self.visit(url).await, None);
        for _ in 0..12 {
            let Some(next) = reply.location() else {
                return (reply, callback);
            };
            if next.path() == "/wechat/callback" {
                callback = Some(next.to_string());
            }
            reply = self.visit(next.as_str()).await;
        }
        panic!("redirects without end, last to {}", reply.url);
    }
}

/// Starts a demo with all settings that logs at level `trace`.
async fn demo_at_trace(harness: &Harness, by_header: bool) -> DemoProcess {
    let mut variables = harness.environment();
    if !by_header {
        variables.retain(|(name, _)| name != "TRUSTED_USER_HEADER");
    }
    let at = format!("127.0.0.1:{}", harness.redis.port());
    for (name, value) in [
        ("REDIS_URL", format!("redis://:{PASSWORD}@{at}/")),
        ("RUST_LOG", "trace".to_owned()),
        ("COOKIE_KEY", COOKIE_KEYS.to_owned()),
        ("CENTER_TOKEN", BEARER.to_owned()),
        ("CACHE_TTL_SECS", "1".to_owned()),
        ("RUST_BACKTRACE", "1".to_owned()),
    ] {
        variables.push((name.to_owned(), value));
    }
    DemoProcess::start(&variables).await
}

async fn full_run(layout: Layout) {
    let redis = RedisServer::with_options(&["--requirepass", PASSWORD, "--appendonly", "yes"]);
    let mut harness = Harness::on(redis, layout).await;
    harness
        .wechat
        .settings(|settings| settings.rotate_refresh_token = true);
    harness.wechat.add_user(
        SimulatedUser::new("oLin")
            .nickname("林晓雨")
            .unionid("uLin"),
    );
    let demo = demo_at_trace(&harness, false).await;
    let (site, mut person) = (demo.url.clone(), Person::new());
    let api = |path: &str| format!("{site}{path}");

    // A login, attacks on its callback, and failures of the exchange.
    let (page, callback) = person.open(&api("/")).await;
    assert_eq!(page.status, 200, "{page:?}");
    attacks_on(&mut person, &callback.unwrap()).await;
    failures_of_the_exchange(&harness, &api("/")).await;

    // Requests that use each token.
    for path in [
        "/",
        "/api/me",
        "/api/userinfo",
        "/api/account",
        "/page/life",
    ] {
        assert_eq!(person.fetch(&api(path)).await.status, 200, "{path}");
    }
    let signed = person
        .fetch(&api(&format!("/api/jssdk?url={site}/page")))
        .await;
    assert_eq!(signed.status, 200, "{signed:?}");
    person
        .fetch(&api("/api/jssdk?url=https://evil.example/"))
        .await;
    harness.wechat.advance(Duration::from_secs(7_200));
    person.post(&api("/page/renew")).await;
    person.post(&api("/page/refuse")).await;
    harness.wechat.advance(Duration::from_secs(7_200));
    assert_eq!(person.fetch(&api("/api/userinfo")).await.status, 200);
    let center = center(&demo, &mut person).await;

    // WeChat's failures, with secrets in the responses.
    let current = harness.wechat.current_pair("oLin").unwrap();
    let (access, refresh) = (&current.access_token, &current.refresh_token);
    for body in [
        format!("<html>GET /sns?access_token={access}&refresh_token={refresh}</html>"),
        format!("{{\"access_token\":\"{access}\",\"refresh_token\":\"{refresh}\",\"expires_in\":"),
        format!("{{\"errcode\":40030,\"errmsg\":\"invalid refresh_token {refresh}\"}}"),
        format!(
            "{{\"errcode\":-1,\"errmsg\":\"{access} {}\"}}",
            harness.wechat.app_secret()
        ),
        String::new(),
    ] {
        for path in [REFRESH, USERINFO, STABLE] {
            harness
                .wechat
                .inject(Fault::on(path).body(body.clone()).times(1));
        }
        person.fetch(&api("/api/userinfo")).await;
        harness.wechat.advance(Duration::from_secs(7_200));
        person.fetch(&api("/api/userinfo")).await;
        person.fetch(&api("/api/account")).await;
    }
    for fault in [
        Fault::on("*").reset().times(2),
        Fault::on("*").status(502).times(2),
        Fault::on(USERINFO).errcode(40001).times(2),
        Fault::on(REFRESH).lose_reply().times(1),
        Fault::on("*").errcode(40125).times(2),
    ] {
        harness.wechat.advance(Duration::from_secs(7_200));
        harness.wechat.inject(fault);
        person.fetch(&api("/api/userinfo")).await;
        person.fetch(&api("/api/me")).await;
        harness.wechat.clear_faults();
    }

    // Requests while Redis is down.
    harness.redis.kill();
    for path in ["/api/me", "/", "/api/account", "/healthz"] {
        person.fetch(&api(path)).await;
    }
    let (_, anonymous) = (
        person.visit(&api("/wechat/login?return_to=%2F")).await,
        Browser::new(),
    );
    person
        .bodies
        .push_str(&anonymous.visit(&api("/")).await.text);
    harness.redis.run();
    eventually(
        "Redis is found again",
        Duration::from_secs(30),
        async || demo.ask(Asked::get("/healthz")).await.status == 200,
    )
    .await;

    // A second demo identifies its user by a header and logs the user's id. The search below must
    // find that id.
    let canary = "oCanary-search-in-the-log";
    let other = demo_at_trace(&harness, true).await;
    let pair = harness.wechat.sign_in(canary, "snsapi_userinfo");
    let long_ago = crate::support::harness::now_ms() - 3_600_000;
    put(
        &harness,
        canary,
        &pair.access_token,
        long_ago,
        &pair.refresh_token,
    );
    harness.wechat.advance(Duration::from_secs(7_200));
    let served = other.me(canary).await;
    assert_eq!(served.status, 200, "{served:?}");
    person.bodies.push_str(&served.text);
    harness.wechat.change_password(canary);
    other
        .ask(Asked::post("/page/renew").header(USER_HEADER, canary))
        .await;

    // Logouts of one session, of all sessions, and with a wrong parameter.
    person.open(&api("/")).await;
    person.post(&api("/logout?everywhere=perhaps")).await;
    person.post(&api("/logout?everywhere=true")).await;
    person.open(&api("/")).await;
    person.post(&api("/logout")).await;
    let metrics = demo.ask(Asked::get("/metrics")).await.text;

    let mut logs = String::new();
    for demo in [demo, other] {
        demo.signal("TERM");
        let (status, log) = demo.ended(Duration::from_secs(30)).await;
        assert_eq!(status.code(), Some(0), "{log}");
        logs.push_str(&log);
    }
    let mut secrets = person.secrets;
    secrets.add_all_of(&harness.wechat);
    secrets.add("Redis' password", PASSWORD);
    secrets.add("the center's secret", BEARER);
    for key in COOKIE_KEYS.split(',') {
        secrets.add("a cookie key", key);
    }
    assert!(secrets.count() > 40, "{}", secrets.count());
    secrets.are_not_in("the logs", &logs);
    secrets.are_not_in("a body", &person.bodies);
    secrets.are_not_in("the metrics", &metrics);

    // Checks the search itself: all parts have logged at `trace`, and the search finds a known text
    // in the logs and in the bodies.
    for crate_name in [
        "tower_wechat::renewal",
        "tower_wechat::login",
        "reqwest",
        "hyper_util",
    ] {
        let is_of = |line: &&str| line.contains(crate_name);
        assert!(
            logs.lines().any(|line| is_of(&line)),
            "{crate_name} is silent"
        );
    }
    assert!(logs.contains(" TRACE "), "not at trace");
    let mut search = Secrets::default();
    search.add("the canary", canary);
    assert!(
        !search.found_in(&logs).is_empty(),
        "the canary is not in the logs"
    );
    assert!(
        !search.found_in(&person.bodies).is_empty(),
        "nor in the bodies"
    );
    assert!(metrics.contains("wechat_renewals_total"), "{metrics}");
    // An authorized client of the center gets tokens in responses, and the search finds them.
    assert!(
        !secrets.found_in(&center).is_empty(),
        "the center sends no token"
    );
}

/// Sends the callback again, in several ways: forged, from another browser, and with foreign
/// cookies.
async fn attacks_on(person: &mut Person, callback: &str) {
    person.visit(callback).await;
    person.visit(&callback.replace("state=", "state=0")).await;
    person.visit(&callback.replace("code=", "code=0")).await;
    let anonymous = Browser::new();
    let reply = anonymous.visit(callback).await;
    person.note(&reply);
    let (mut url, session) = (
        Url::parse(callback).unwrap(),
        person.browser.cookie(SESSION),
    );
    url.set_query(None);
    url.set_path("/api/me");
    let forger = Browser::new();
    let session = session.expect("they are signed in");
    for forged in [
        format!("{session}A"),
        session.replace('.', ".x"),
        "oLin.nonsense".to_owned(),
    ] {
        forger.set_cookie(SESSION, "/", &forged);
        let reply = forger.fetch(url.as_str()).await;
        reply.is_error(401, "login_required");
        person.note(&reply);
    }
}

/// New users log in while WeChat rejects the exchange of their codes or fails.
async fn failures_of_the_exchange(harness: &Harness, url: &str) {
    for fault in [
        Fault::on(EXCHANGE).errcode(40029).times(1),
        Fault::on(EXCHANGE).errcode(-1).times(1),
        Fault::on(EXCHANGE)
            .body("{\"access_token\":\"83_half")
            .times(1),
        Fault::on(EXCHANGE).reset().times(1),
    ] {
        harness.wechat.inject(fault);
        Browser::new().open(url).await;
        harness.wechat.clear_faults();
    }
}

/// Returns the center's responses to a client with the right secret. Also sends requests without
/// it, which are rejected.
async fn center(demo: &DemoProcess, person: &mut Person) -> String {
    let mut sent = String::new();
    for path in ["/center/access_token", "/center/jsapi_ticket"] {
        for bearer in [BEARER, "another-secret-that-is-wrong"] {
            let asked = Asked::get(path).header("authorization", format!("Bearer {bearer}"));
            let answer = demo.ask(asked).await;
            match bearer {
                BEARER => sent.push_str(&answer.text),
                _ => person.bodies.push_str(&answer.text),
            }
        }
    }
    sent
}

/// Writes a pair as another service would, into a Redis with a password.
fn put(harness: &Harness, user: &str, access: &str, renew_at: i64, refresh: &str) {
    let at = format!("redis://:{PASSWORD}@127.0.0.1:{}/", harness.redis.port());
    let mut redis = redis::Client::open(at).unwrap().get_connection().unwrap();
    let due = renew_at + 29 * 24 * 3_600_000;
    let mut writes = redis::pipe();
    match harness.layout {
        Layout::Hashes => {
            writes.hset(
                "user.wxUserAccessToken",
                user,
                format!("{access}#{renew_at}"),
            );
            writes.hset("user.wxUserRefreshToken", user, format!("{refresh}#{due}"));
        }
        Layout::Keys => {
            let expires_at = renew_at + 900_000;
            let record = format!("1#{access}#{renew_at}#{expires_at}#{refresh}#{due}");
            writes.set(harness.key(user), record);
        }
    }
    let () = writes.query(&mut redis).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_shown_in_a_full_run_hashes() {
    full_run(Layout::Hashes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_shown_in_a_full_run_keys() {
    full_run(Layout::Keys).await;
}

/// A demo that fails to start names the reason without a secret.
#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_shown_in_a_failed_start() {
    let redis = RedisServer::with_options(&["--requirepass", "another"]);
    let harness = Harness::on(redis, Layout::Hashes).await;
    let mut variables = harness.environment();
    let url = format!("redis://:{PASSWORD}@127.0.0.1:{}/", harness.redis.port());
    variables.push(("REDIS_URL".to_owned(), url));
    variables.push(("RUST_LOG".to_owned(), "trace".to_owned()));
    let ended = DemoProcess::start_in_vain(&variables).await;
    assert_eq!(ended.status.code(), Some(1));
    let mut secrets = Secrets::default();
    secrets.add("Redis' password", PASSWORD);
    secrets.add_all_of(&harness.wechat);
    secrets.are_not_in("what it said", &(ended.stdout + &ended.stderr));
    assert!(ended.stderr.contains(" TRACE ") || ended.stderr.contains("demo: "));
}
