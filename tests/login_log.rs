//! Tests of the log lines about logins: each login is logged, and no line contains a secret. These
//! tests are a separate program, because tracing caches for a whole process which lines are
//! enabled.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

#[path = "library/login/harness.rs"]
mod harness;
mod support;

use tower_wechat::login::LoginBuilder;
use tower_wechat::simulator::{Fault, Simulator};
use tower_wechat::{
    CookieKeys, Login, MemoryStore, TrustedHeader, UserTokens, WechatClient, WechatLayer,
};
use tracing::subscriber::DefaultGuard;
use url::Url;

use harness::{ALICE, EXCHANGE, Harness};
use support::browser::{Browser, SESSION};
use support::log_lines::LogLines;

/// Collects the lines that this thread logs at `level` and above, until the guard is dropped. The
/// servers of a test run on its thread too.
fn capture(level: &str) -> (LogLines, DefaultGuard) {
    let lines = LogLines::default();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(format!("tower_wechat={level}"))
        .with_ansi(false)
        .with_writer(lines.clone())
        .finish();
    (lines, tracing::subscriber::set_default(subscriber))
}

#[tokio::test(flavor = "current_thread")]
async fn lines_about_logins_contain_no_secrets() {
    let (lines, _guard) = capture("trace");
    let harness = Harness::new().await;
    let site = harness.site().await;
    let mut secrets = Vec::new();
    for errcode in [0, 40029, 40125, -1] {
        harness.sim.clear_faults();
        if errcode != 0 {
            harness
                .sim
                .inject(Fault::on(EXCHANGE).errcode(errcode).times(1));
        }
        let browser = Browser::new();
        let callback = browser
            .callback_of(&format!("{}/me?secret=in-query", site.url))
            .await;
        let url = Url::parse(&callback).unwrap();
        secrets.extend(url.query_pairs().map(|(_, value)| value.into_owned()));
        browser.visit(&callback).await;
        Browser::new().visit(&callback).await;
        Browser::new()
            .visit(&callback.replace("state=", "state=0"))
            .await;
        secrets.extend(
            browser
                .cookie_names()
                .iter()
                .filter_map(|name| browser.cookie(name)),
        );
    }
    let pair = harness.sim.current_pair(ALICE).unwrap();
    secrets.extend([pair.access_token, pair.refresh_token, "in-query".to_owned()]);
    secrets.push(harness.sim.app_secret().to_owned());

    let log = lines.text();
    for secret in secrets {
        assert!(!log.contains(&secret), "{secret} in {log}");
    }
    for line in [
        "logged in",
        "a callback was rejected",
        "WeChat did not exchange a code",
    ] {
        assert!(log.contains(line), "{log}");
    }
}

/// The lines name the error of a hook with its causes, and the rule that an invalid id breaks.
#[tokio::test(flavor = "current_thread")]
async fn a_failing_hook_logs_its_error_and_no_secret() {
    let (lines, _guard) = capture("trace");
    let harness = Harness::new().await;
    let mut secrets = vec![harness.sim.app_secret().to_owned()];
    for fails in [true, false] {
        let site = harness
            .site_with(|login| {
                login.on_login(move |user: tower_wechat::login::LoginUser| async move {
                    let away = std::io::Error::other("the pool is closed");
                    let error =
                        Box::<dyn std::error::Error + Send + Sync>::from(format!("{user:?}"));
                    let error = FindUser(error, away);
                    if fails { Err(error) } else { Ok("a\nb") }
                })
            })
            .await;
        for _ in 0..3 {
            let browser = Browser::new();
            let callback = browser.callback_of(&format!("{}/me", site.url)).await;
            browser.visit(&callback).await;
            let url = Url::parse(&callback).unwrap();
            secrets.extend(url.query_pairs().map(|(_, value)| value.into_owned()));
            let pair = harness.sim.current_pair(ALICE).unwrap();
            secrets.extend([pair.access_token, pair.refresh_token]);
        }
    }
    let log = lines.text();
    for secret in secrets {
        assert!(!log.contains(&secret), "{secret} in {log}");
    }
    for (line, error) in [
        ("the hook of on_login failed", "LoginUser"),
        (
            "the hook of on_login failed",
            "is not found: the pool is closed",
        ),
        (
            "the hook of on_login returned an invalid user id",
            "a control character",
        ),
    ] {
        let mut found = log.lines().filter(|logged| logged.contains(line));
        assert!(
            found.next().is_some_and(|logged| logged.contains(error)),
            "{log}"
        );
        assert_eq!(found.count(), 0, "{log}");
    }
}

/// An error with a message and a cause.
#[derive(Debug)]
struct FindUser(Box<dyn std::error::Error + Send + Sync>, std::io::Error);

impl std::fmt::Display for FindUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} is not found", self.0)
    }
}

impl std::error::Error for FindUser {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.1)
    }
}

/// Clients can repeat a failure without end, so each kind of failure is logged once.
#[tokio::test(flavor = "current_thread")]
async fn repeated_failures_log_one_line_each() {
    let (lines, _guard) = capture("info");
    let harness = Harness::new().await;
    let site = harness.site().await;
    for number in 0..20 {
        let browser = Browser::new();
        let callback = browser.callback_of(&format!("{}/me", site.url)).await;
        let url = Url::parse(&callback).unwrap();
        let state = url
            .query_pairs()
            .find(|(name, _)| name == "state")
            .unwrap()
            .1;
        for code in 0..3 {
            let forged = format!("?code=none-{number}-{code}&state={state}");
            let copy = browser.copy();
            copy.visit(&format!("{}/wechat/callback{forged}", site.url))
                .await;
            copy.visit(&format!("{}/stripped{forged}", site.url))
                .await
                .is_page(400, "登录未完成");
        }
        Browser::new().visit(&callback).await;
        Browser::new()
            .visit(&format!("{}/wechat/callback", site.url))
            .await;
        let page = format!("{}/wechat/login?return_to=//evil.example/secret", site.url);
        browser.visit(&page).await;
        let page = format!("{}/wechat/login?return_to=/me?a=secret&b=secret", site.url);
        browser.visit(&page).await;
        // A parameter that WeChat adds to a shared link is not taken for a part of an unencoded
        // page.
        let page = format!(
            "{}/wechat/login?return_to=%2Fshared&from=timeline",
            site.url
        );
        browser.visit(&page).await;
    }
    let log = lines.text();
    for line in [
        "WeChat did not exchange a code",
        "a browser was rejected after too many logins, retries or codes",
        "WeChat sent a user back to a path that is not the callback",
        "a callback had neither code nor state",
        "the return page of a login was shortened or replaced",
        "encode the page with encodeURIComponent",
    ] {
        assert_eq!(log.matches(line).count(), 1, "{line} in {log}");
    }
    assert!(log.contains("came=\"/stripped\"") && log.contains("expected=\"/wechat/callback\""));
    assert!(log.contains("path=\"/me\""), "{log}");
    assert!(!log.contains("secret") && !log.contains("none-"), "{log}");
    assert!(log.lines().count() < 15, "{log}");
}

/// One line names an origin that is not listed, also if a callback finds it in its cookie. The line
/// contains no other part of the page.
#[tokio::test(flavor = "current_thread")]
async fn unlisted_return_origins_are_logged_once() {
    let (lines, _guard) = capture("warn");
    let harness = Harness::new().await;
    let list = |login: LoginBuilder| login.return_origins(["https://www.example.com"]);
    let old = harness.site_with(list).await;
    let new = harness
        .behind(&old.url, |login| login, harness::router)
        .await;
    let browser = Browser::new();
    let page = "https://www.example.com/secret?secret";
    let login = format!("{}/wechat/login?return_to={page}", old.url);
    let callback = browser.callback_of(&login).await;
    assert_eq!(lines.text(), "");
    for _ in 0..3 {
        browser.visit(&callback.replace(&old.url, &new.url)).await;
        browser.visit(&login.replace(&old.url, &new.url)).await;
    }
    let log = lines.text();
    assert_eq!(log.lines().count(), 1, "{log}");
    assert!(
        log.contains("its origin is not in LoginBuilder::return_origins"),
        "{log}"
    );
    assert!(log.contains("origin=\"https://www.example.com\""), "{log}");
    assert!(!log.contains("secret"), "{log}");
}

/// Characters that would begin a new line, colour the line or hide its end.
const CONTROL_CHARACTERS: &str =
    "x\n2026-01-01T00:00:00Z  INFO forged: all is well\r\u{1b}[2K\u{85}\u{2028}\u{202e}";

/// Text from clients and from WeChat is escaped, so that a client cannot add lines to the log.
#[tokio::test(flavor = "current_thread")]
async fn clients_cannot_forge_log_lines() {
    let (lines, _guard) = capture("trace");
    let harness = Harness::new().await;
    let site = harness.site().await;
    let encoded: String = CONTROL_CHARACTERS
        .bytes()
        .map(|byte| format!("%{byte:02X}"))
        .collect();

    // Clients send the text in the state, the code, the path and the cookies.
    let browser = Browser::new();
    let callback = browser.callback_of(&format!("{}/me", site.url)).await;
    for forged in [
        format!("{}/wechat/callback?state={encoded}&code=c", site.url),
        format!(
            "{}&code={encoded}",
            callback.split("&code=").next().unwrap()
        ),
        callback.replace("code=", &format!("code={encoded}")),
        format!(
            "{}/wechat/login?return_to=/{encoded}&scope={encoded}",
            site.url
        ),
        format!("{}/me/{encoded}?{encoded}", site.url),
    ] {
        browser.copy().visit(&forged).await;
    }
    browser.set_cookie(SESSION, "/", "x.y\u{2028}\u{202e}z");
    browser.fetch(&format!("{}/me", site.url)).await;

    // WeChat returns the text in an errmsg and in the fields of a token response.
    let text = serde_json::to_string(CONTROL_CHARACTERS).unwrap();
    for body in [
        format!(r#"{{"errcode":40029,"errmsg":{text}}}"#),
        format!(r#"{{"errcode":-1,"errmsg":{text}}}"#),
        format!(r#"{{"errcode":40125,"errmsg":{text}}}"#),
        format!(r#"{{"errcode":987654,"errmsg":{text}}}"#),
        CONTROL_CHARACTERS.to_owned(),
        format!(r#"{{"access_token":"a","expires_in":7200,"refresh_token":"r","openid":{text}}}"#),
        format!(
            r#"{{"access_token":"a","expires_in":7200,"refresh_token":"r","openid":"o","scope":{text}}}"#
        ),
    ] {
        harness.sim.clear_faults();
        let browser = Browser::new();
        let callback = browser.callback_of(&format!("{}/me", site.url)).await;
        harness.sim.inject(Fault::on(EXCHANGE).body(body).times(1));
        browser.visit(&callback).await;
    }

    // The gateway sends the text as the user's id.
    let wechat = WechatClient::builder(harness.sim.app_id(), harness.sim.app_secret())
        .api_url(harness.sim.url())
        .build()
        .unwrap();
    let layer = WechatLayer::new(UserTokens::new(wechat, MemoryStore::new()))
        .identity(TrustedHeader::new("x-user-id").unwrap());
    for id in ["\u{85}forged", "\u{2028}\u{202e}forged", "o\u{9b}2Kforged"] {
        let service = tower::service_fn(async |_: http::Request<()>| {
            Ok::<_, std::convert::Infallible>(http::Response::new(axum::body::Body::empty()))
        });
        let mut request = http::Request::new(());
        let value = http::HeaderValue::from_bytes(id.as_bytes()).unwrap();
        request.headers_mut().insert("x-user-id", value);
        let layered = tower::Layer::layer(&layer, service);
        tower::ServiceExt::oneshot(layered, request).await.unwrap();
    }

    let log = lines.text();
    for line in [
        "a callback was rejected",
        "WeChat did not exchange a code",
        "logged in",
    ] {
        assert!(log.contains(line), "{line} was not logged: {log}");
    }
    for line in log.lines() {
        let is_of_this_crate = line.contains(" tower_wechat::");
        let plain = |c: char| {
            !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}')
        };
        assert!(is_of_this_crate && line.chars().all(plain), "{line:?}");
    }
}

/// One browser uses two applications at two paths of one host. Each visit ends on its page, and
/// replaced sessions are logged.
#[tokio::test(flavor = "current_thread")]
async fn replaced_sessions_of_other_applications_are_logged() {
    for (shares_keys, name, logins, expected_lines) in [
        (true, None, 1, 0),
        (false, None, 6, 2),
        (false, Some("club_session"), 2, 0),
    ] {
        let (lines, _guard) = capture("info");
        let harness = Harness::new().await;
        let address = format!("127.0.0.1:{}", support::free_port());
        let of = |path: &str| format!("http://{address}{path}");
        let shop = harness
            .behind(&of("/shop"), |login| login, harness::router)
            .await;
        let club = of("/club");
        let change = |login: LoginBuilder| {
            let login = match shares_keys {
                true => login,
                false => Login::builder(&club, CookieKeys::random().unwrap()),
            };
            match name {
                Some(name) => login.cookie_name(name),
                None => login,
            }
        };
        let other = harness.behind(&club, change, harness::router).await;
        let server = format!(
            "location /shop/ {{ proxy_pass {}/; }} location /club/ {{ proxy_pass {}/; }}",
            shop.url, other.url
        );
        let _nginx = support::nginx::Nginx::start(&address, &server);
        let browser = Browser::new();
        for _ in 0..3 {
            for path in ["/shop/me", "/club/me"] {
                assert_eq!(browser.open(&of(path)).await.json()["id"], ALICE);
            }
        }
        assert_eq!(harness.exchanges(), logins);
        // Each of the two applications logs the line once.
        let line = "a login replaced a session that this application cannot read";
        assert_eq!(
            lines.text().matches(line).count(),
            expected_lines,
            "{}",
            lines.text()
        );
    }
}

/// Two accounts around one route, whose logins have the same callback: the outer layer answers the
/// callbacks of both. The log names the cure.
#[tokio::test(flavor = "current_thread")]
async fn callbacks_of_another_account_are_rejected_and_logged() {
    let line =
        "its login belongs to another account on this host; give each account a callback_path";
    for (callback_path, status) in [("/wechat/callback", 400), ("/club/wechat/callback", 200)] {
        let (lines, _guard) = capture("warn");
        let (harness, club) = (Harness::new().await, Simulator::builder());
        let club = club.app("wxclub", "secret").start().await.unwrap();
        let club_users = UserTokens::new(club.client().unwrap(), MemoryStore::new());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let builder = || Login::builder(&origin, CookieKeys::random().unwrap());
        let of_club = builder()
            .callback_path(callback_path)
            .login_path("/club/login");
        let app = harness::pages()
            .layer(WechatLayer::new(club_users).login(of_club.build().unwrap()))
            .layer(WechatLayer::new(harness.users().await).login(builder().build().unwrap()));
        tokio::spawn(async { axum::serve(listener, app).await });

        // The browser is signed in to the account of the outer layer, then to that of the inner one.
        let browser = Browser::new();
        let url = format!("{origin}/me");
        let page = browser.open(&url).await;
        assert_eq!(page.status, status, "{page:?}");
        if status == 400 {
            browser
                .fetch(page.url.as_str())
                .await
                .is_error(400, "invalid_state");
        }
        let expected = usize::from(status == 400);
        assert_eq!(
            lines.text().matches(line).count(),
            expected,
            "{}",
            lines.text()
        );
    }
}

/// A login repeats if its session is not used or its callback is lost. The application logs one
/// line for each case, with the usual cause.
#[tokio::test(flavor = "current_thread")]
async fn loops_log_one_line_with_their_usual_causes() {
    let (lines, _guard) = capture("warn");
    let harness = Harness::new().await;
    let follow_to_failure = async |url: String| {
        let browser = Browser::new();
        let mut reply = browser.visit(&url).await;
        while let Some(next) = reply.location() {
            reply = browser.visit(next.as_str()).await;
        }
        assert_eq!(reply.status, 429, "{reply:?}");
    };
    let header = TrustedHeader::new("x-user").unwrap();
    let unnamed = harness
        .mounted(
            |login| login,
            |layer, login| harness::pages().layer(layer.login(login).identity(header)),
        )
        .await;
    let address = format!("127.0.0.1:{}", support::free_port());
    let lost = harness
        .behind(&format!("http://{address}"), |login| login, harness::router)
        .await;
    let server = format!(
        "location / {{ proxy_pass {0}; }}\n\
         location /wechat/callback {{ rewrite ^ /? break; proxy_pass {0}; }}",
        lost.url
    );
    let nginx = support::nginx::Nginx::start(&address, &server);
    for _ in 0..3 {
        follow_to_failure(format!("{}/me", unnamed.url)).await;
        follow_to_failure(format!("{}/", nginx.url)).await;
    }
    let log = lines.text();
    for line in [
        "the layer's identity does not read",
        "rewrites the path or drops the query",
    ] {
        assert_eq!(log.matches(line).count(), 1, "{log}");
    }
    assert_eq!(log.lines().count(), 2, "{log}");
}
