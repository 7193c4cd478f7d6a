//! Tests that each example starts and does what it demonstrates.

#[path = "../../examples/sessions.rs"]
#[allow(dead_code, unreachable_pub)]
mod sessions;
#[path = "../support/switched_store.rs"]
mod switched_store;

use std::time::Duration;

use crate::support::browser::Browser;
use crate::support::demo_process::DemoProcess;
use crate::support::eventually;
use crate::support::harness::variables;
use crate::support::http_client::Asked;
use crate::support::redis_server::RedisServer;

async fn example(name: &str) -> DemoProcess {
    DemoProcess::of(name, &[]).await
}

/// Opens a page in a new browser and follows the redirects, through WeChat's page, to the end.
/// Returns the browser and the text of the last page.
async fn signed_in(program: &DemoProcess, path: &str) -> (Browser, String) {
    let browser = Browser::new();
    let page = browser.open(&format!("{}{path}", program.url)).await;
    assert_eq!(page.status, 200, "{page:?}");
    (browser, page.text)
}

#[tokio::test(flavor = "multi_thread")]
async fn minimal_and_hyper_greet_the_user() {
    for name in ["minimal", "hyper"] {
        let program = example(name).await;
        let (browser, text) = signed_in(&program, "/").await;
        assert!(text.starts_with("hello o"), "{name}: {text}");
        // The browser stays logged in, and a client without its cookie is not.
        let again = browser.fetch(&program.url).await;
        assert_eq!(again.text, text, "{name}");
        let anonymous = program.ask(Asked::get("/")).await;
        match name {
            "hyper" => assert_eq!(anonymous.field("code"), "login_required"),
            _ => anonymous.is_rejected(401, "login_required"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hyper_asks_for_a_profile_and_has_one_error_format() {
    let program = example("hyper").await;
    let (browser, text) = signed_in(&program, "/").await;
    let id = text.strip_prefix("hello ").unwrap();
    let card = format!("{}/card", program.url);
    let script = browser.fetch(&card).await;
    assert_eq!(script.status, 401, "{script:?}");
    let login_url = script.json()["login_url"].as_str().unwrap().to_owned();
    assert!(login_url.ends_with("scope=snsapi_userinfo"), "{login_url}");
    let page = browser.open(&card).await;
    assert_eq!(page.status, 200, "{page:?}");
    assert!(!page.text.contains(id), "a nickname: {}", page.text);
    let missing = browser.fetch(&format!("{}/other", program.url)).await;
    assert_eq!(missing.status, 404);
    assert_eq!(missing.json()["code"], "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_greets_the_users_of_both_accounts() {
    let program = example("accounts").await;
    let browser = Browser::new();
    let apps = ["wx0123456789abcdef", "wxfedcba9876543210"];
    for _ in 0..2 {
        for app in apps {
            let page = browser.open(&format!("{}/{app}/", program.url)).await;
            assert!(page.text.starts_with("hello o"), "{}", page.text);
            assert!(page.text.ends_with(&format!(" of {app}")), "{}", page.text);
        }
    }
    let unknown = program.ask(Asked::get("/wx1/")).await;
    unknown.is_rejected(404, "unknown_account");
}

#[tokio::test(flavor = "multi_thread")]
async fn gateway_trusts_the_header() {
    let program = example("gateway").await;
    let known = program
        .ask(Asked::get("/me").header("x-user-id", "42"))
        .await;
    assert_eq!(known.text, "user 42 is oUserNumber42");
    let other = program
        .ask(Asked::get("/me").header("x-user-id", "43"))
        .await;
    other.is_rejected(401, "login_required");
    let anonymous = program.ask(Asked::get("/me")).await;
    anonymous.is_rejected(401, "login_required");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_remember_the_user() {
    let program = example("sessions").await;
    let me = format!("{}/me", program.url);
    assert_eq!(Browser::new().fetch(&me).await.status, 401);
    let (browser, text) = signed_in(&program, "/sign-in").await;
    assert!(text.starts_with("hello o"), "{text}");
    // After the login, the browser has a cookie of tower-sessions and no session cookie of this
    // crate.
    let of_wechat = |name: &String| name.contains("wechat_session");
    assert!(!browser.cookie_names().iter().any(of_wechat));
    assert_eq!(browser.fetch(&me).await.text, text);
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_end_by_a_post() {
    let program = example("sessions").await;
    let me = format!("{}/me", program.url);
    let (browser, text) = signed_in(&program, "/sign-in").await;
    let copy = browser.copy();
    let out = format!("{}/sign-out", program.url);
    // A GET request does not log the user out.
    assert_eq!(browser.visit(&out).await.status, 405);
    assert_eq!(browser.fetch(&me).await.text, text);
    assert_eq!(browser.post(&out).await.status, 200);
    assert_eq!(browser.fetch(&me).await.status, 401);
    assert_eq!(copy.fetch(&me).await.status, 401, "a copy of the cookie");
    // After the logout, a login redirects to WeChat. The former user is not logged in again.
    let next = browser.visit(&format!("{}/sign-in", program.url)).await;
    assert_eq!(next.status, 302, "{next:?}");
    let location = next.location().expect("WeChat's page");
    assert_eq!(location.path(), "/connect/oauth2/authorize");
}

/// While the session store is down, requests get a 503, also those of users who are logged in.
#[tokio::test(flavor = "multi_thread")]
async fn unreadable_sessions_are_not_anonymous() {
    let store = switched_store::Switched::default();
    let simulator = tower_wechat::simulator::Simulator::start().await.unwrap();
    let (origin, _app) = switched_store::serve(&simulator, store.clone()).await;
    let browser = Browser::new();
    let me = format!("{origin}/me");
    let page = browser.open(&format!("{origin}/sign-in")).await;
    assert_eq!(page.status, 200, "{page:?}");

    store.fail(true);
    for answer in [
        browser.fetch(&me).await,
        browser.visit(&me).await,
        browser.post(&format!("{origin}/sign-out")).await,
    ] {
        assert_eq!(answer.status, 503, "{answer:?}");
        assert_eq!(answer.headers["retry-after"], "1", "{answer:?}");
    }
    // While the session store is down, a login gets a 503 too.
    let other = Browser::new().open(&format!("{origin}/sign-in")).await;
    assert_eq!(other.status, 503, "{other:?}");

    store.fail(false);
    assert_eq!(browser.fetch(&me).await.text, page.text);
    assert_eq!(
        browser.post(&format!("{origin}/sign-out")).await.status,
        200
    );
    assert_eq!(browser.fetch(&me).await.status, 401);
}

/// SIGTERM stops an example after it has finished the requests that are under way.
#[tokio::test(flavor = "multi_thread")]
async fn examples_stop_on_sigterm() {
    let stopping = [
        "center_client",
        "gateway",
        "hyper",
        "opentelemetry",
        "sessions",
        "simulator",
        "spring_boot",
    ];
    for name in stopping {
        let program = example(name).await;
        program.signal("TERM");
        let (status, log) = program.ended(Duration::from_secs(30)).await;
        assert_eq!(status.code(), Some(0), "{name}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_simulator_serves_the_apps_of_its_variables() {
    let program = DemoProcess::of(
        "simulator",
        &variables(&[
            (
                "WECHAT_ACCOUNTS",
                "wx00000000000000aa:one, wx00000000000000bb:t:wo",
            ),
            ("WEBSITE_APPID", "wx00000000000000cc"),
            ("WEBSITE_SECRET", "three"),
            ("PLATFORM_APPID", "wx00000000000000dd"),
            ("PLATFORM_SECRET", "four"),
            ("PLATFORM_TOKEN", "a token, the one before"),
            ("PLATFORM_PUSH_URL", "http://127.0.0.1:9/push"),
        ]),
    )
    .await;
    let apps = program.ask(Asked::get("/_sim/apps")).await.json();
    let apps: Vec<_> = apps.as_array().unwrap().iter().collect();
    let apps = apps
        .iter()
        .map(|app| ["app_id", "secret", "kind"].map(|name| app[name].as_str().unwrap()));
    assert!(apps.eq([
        ["wx00000000000000aa", "one", "account"],
        ["wx00000000000000bb", "t:wo", "account"],
        ["wx00000000000000cc", "three", "website"],
        ["wx00000000000000dd", "four", "platform"],
    ]));
    let platforms = program.ask(Asked::get("/_sim/platform")).await.json();
    assert_eq!(platforms[0]["token"], "a token");
    assert_eq!(platforms[0]["push_url"], "http://127.0.0.1:9/push");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_center_and_its_client() {
    let secret = "a-long-random-secret";
    let center = DemoProcess::of("token_center", &variables(&[("CENTER_TOKEN", secret)])).await;
    let bearer = format!("Bearer {secret}");
    let token = center
        .ask(Asked::get("/access_token").header("authorization", &bearer))
        .await;
    let token = token.field("access_token");
    assert!(!token.is_empty());

    // One example is a client of the center above, and another starts its own center.
    let asking = variables(&[
        ("CENTER_URL", &center.url),
        ("CENTER_TOKEN", secret),
        ("WECHAT_APPID", "wx0123456789abcdef"),
    ]);
    let client = DemoProcess::of("center_client", &asking).await;
    let shown = client.ask(Asked::get("/token")).await.text;
    let print = crate::support::http_client::fingerprint(&token);
    assert!(shown.starts_with(&print), "{shown} and {print}");

    let alone = example("center_client").await;
    let page = format!("/js-config?url={}/page", alone.url);
    let config = alone.ask(Asked::get(&page)).await;
    assert_eq!(config.status, 200, "{config:?}");
    assert_eq!(config.field("signature").len(), 40, "{config:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn spring_boot_stores_tokens_for_the_java_service() {
    let redis = RedisServer::start();
    let program = DemoProcess::of("spring_boot", &variables(&[("REDIS_URL", &redis.url())])).await;
    let (_, text) = signed_in(&program, "/me").await;
    let (openid, print) = text.split_once(" has the token ").expect("its sentence");
    let stored: String =
        redis::Commands::hget(&mut redis.connection(), "user.wxUserAccessToken", openid).unwrap();
    let (token, millis) = stored.split_once('#').expect("TOKEN#MS");
    assert_eq!(crate::support::http_client::fingerprint(token), print);
    assert!(millis.parse::<i64>().is_ok(), "{stored}");

    let alone = example("spring_boot").await;
    let (_, text) = signed_in(&alone, "/me").await;
    assert!(text.contains(" has the token "), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn testing_runs_as_a_program_too() {
    let program = example("testing").await;
    let (_, text) = signed_in(&program, "/").await;
    assert!(text.starts_with("你好，"), "{text}");
}

/// OpenTelemetry receives the layer's spans below the span of their request, and no secret.
#[tokio::test(flavor = "multi_thread")]
async fn opentelemetry_receives_the_spans_of_a_login() {
    let program = example("opentelemetry").await;
    let (_, text) = signed_in(&program, "/").await;
    assert!(text.starts_with("hello o"), "{text}");
    let spans = ["wechat.login", "wechat.call", "request"];
    eventually("the spans", Duration::from_secs(20), async || {
        let out = program.log();
        spans
            .iter()
            .all(|span| out.contains(&format!(": {span}\n")))
    })
    .await;
    let out = program.log();
    assert!(out.contains("sns/oauth2/access_token"), "{out}");
    for hidden in ["code=", "secret=", "access_token=", "refresh_token="] {
        assert!(!out.contains(hidden), "{hidden} in {out}");
    }
}

/// Fails if an example is not listed in this file.
#[test]
fn no_example_is_left_out() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let this = std::fs::read_to_string(folder.join("../tests/programs/examples.rs")).unwrap();
    // Other test files run these examples.
    let elsewhere = ["demo", "simulator", "observability", "recipes"];
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let known = elsewhere.contains(&name) || this.contains(&format!("\"{name}\""));
        assert!(known, "nothing runs examples/{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn platform_serves_an_account_that_its_owner_authorizes() {
    let program = example("platform").await;
    let owner = Browser::new();
    let page = format!("{}/authorize", program.url);
    let mut links = String::new();
    // The simulator pushes a ticket soon after the start.
    eventually(
        "the platform has started",
        Duration::from_secs(10),
        async || {
            let reply = owner.visit(&page).await;
            links = reply.text;
            reply.status == 200
        },
    )
    .await;
    let account = "wx0123456789abcdef";
    let unknown = program.ask(Asked::get(&format!("/{account}/"))).await;
    assert_ne!(unknown.status, 200);
    let link = links.split("<a href=\"").nth(1).expect("a link");
    let link = link.split('"').next().unwrap().replace("&amp;", "&");
    let referer = [("accept", "text/html"), ("referer", &*page)];
    let agreed = owner.send(reqwest::Method::GET, &link, &referer).await;
    let back = agreed.unwrap().location().expect("a return");
    owner.visit(back.as_str()).await.is_page(200, account);
    eventually(
        "the account is served",
        Duration::from_secs(5),
        async || {
            let reply = program.ask(Asked::get(&format!("/{account}/"))).await;
            reply.status == 401
        },
    )
    .await;
    let (_, text) = signed_in(&program, &format!("/{account}/")).await;
    assert!(
        text.starts_with("hello o") && text.ends_with(account),
        "{text}"
    );
}
