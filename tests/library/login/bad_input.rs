//! Tests of forged, broken and old requests: a bad callback or session gets an error, as a page or
//! as JSON, and no exchange of a code starts. Oversized cookies may make a login fail.

use std::time::Duration;

use url::Url;

use super::harness::{ALICE, Harness, Site};
use crate::support::browser::{Browser, SESSION};

struct Begun {
    harness: Harness,
    site: Site,
    browser: Browser,
    callback: String,
    code: String,
    state: String,
}

/// Starts a login up to its callback, which the browser has not opened.
async fn begun() -> Begun {
    let harness = Harness::with_redis().await;
    let site = harness.site().await;
    let browser = Browser::new();
    let callback = browser.callback_of(&format!("{}/me", site.url)).await;
    let value = |name: &str| {
        let url = Url::parse(&callback).unwrap();
        url.query_pairs()
            .find(|(known, _)| known == name)
            .unwrap()
            .1
            .into_owned()
    };
    let (code, state) = (value("code"), value("state"));
    Begun {
        harness,
        site,
        browser,
        callback,
        code,
        state,
    }
}

impl Begun {
    /// Asserts that the callback with this query gets an error as JSON and as a page, and sets no
    /// cookie.
    #[track_caller]
    fn is_rejected(&self, query: &str, code: &str) -> impl Future<Output = ()> {
        let url = format!("{}/wechat/callback?{query}", self.site.url);
        let query = query.chars().take(120).collect::<String>();
        async move {
            let json = self.browser.fetch(&url).await;
            assert_eq!(json.status, 400, "{query}");
            json.is_error(400, code);
            let page = self.browser.visit(&url).await;
            page.is_page(400, "登录");
            for reply in [json, page] {
                assert!(
                    reply.cookies().is_empty() && !reply.text.contains(&self.state),
                    "{query}"
                );
            }
            assert_eq!(self.harness.exchanges(), 0, "{query}");
        }
    }
}

#[tokio::test]
async fn bad_states_and_codes_reach_neither_wechat_nor_the_store() {
    let begun = begun().await;
    let (code, state) = (&begun.code, &begun.state);
    let flipped = if state.ends_with('0') { "1" } else { "0" };
    let forged = format!("{}{flipped}", &state[..state.len() - 1]);
    for bad in [
        forged.as_str(),
        &state[..20],
        &format!("{state}0"),
        &state.to_uppercase(),
        "0123456789abcdef0123456789abcdef",
        "STATE",
        "%00%0d%0a",
        &"a".repeat(4_096),
    ] {
        begun
            .is_rejected(&format!("code={code}&state={bad}"), "invalid_state")
            .await;
    }
    begun
        .is_rejected(&format!("code={code}"), "invalid_state")
        .await;
    begun
        .is_rejected(&format!("code={code}&state="), "invalid_state")
        .await;

    let page = |query: String| {
        let url = format!("{}/wechat/callback?{query}", begun.site.url);
        let browser = &begun.browser;
        async move { browser.fetch(&url).await }
    };
    for query in [
        String::new(),
        format!("code={}&state={state}", "c".repeat(4_096)),
        format!("code=a%0d%0ab&state={state}"),
        format!("code=%00&state={state}"),
        format!("code=a%20b&state={state}"),
        format!("code=%E4%BD%A0&state={state}"),
        format!("code={code}&code={code}&state={state}"),
        format!("code={code}&state={state}&state={state}"),
    ] {
        page(query).await.is_error(400, "bad_request");
    }
    begun
        .browser
        .post(&begun.callback)
        .await
        .is_error(400, "bad_request");
    // A callback with a state and without a code means that the user has denied. A forged state is
    // rejected.
    page(format!("state={state}"))
        .await
        .is_error(403, "login_denied");
    page(format!("state={forged}"))
        .await
        .is_error(400, "invalid_state");

    assert_eq!(begun.harness.exchanges(), 0);
    let mut redis = begun.harness.redis.as_ref().unwrap().connection();
    let stored: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut redis).unwrap();
    assert_eq!(stored, [""; 0], "nothing is stored");
    // The rejected callbacks have not ended the login, which still succeeds.
    assert_eq!(
        begun.browser.open(&begun.callback).await.json()["id"],
        ALICE
    );
}

#[tokio::test]
async fn the_state_of_another_server_is_rejected() {
    let begun = begun().await;
    let other = Browser::new();
    other.callback_of(&format!("{}/me", begun.site.url)).await;
    other
        .fetch(&begun.callback)
        .await
        .is_error(400, "invalid_state");
    // The cookie of another browser's login does not help, even under the name of this login's
    // cookie.
    let cookies: Vec<_> = begun.browser.cookie_names();
    let theirs = other.cookie_names();
    let value = other.cookie(&theirs[0]).unwrap();
    other.set_cookie(&cookies[0], "/", &value);
    other
        .fetch(&begun.callback)
        .await
        .is_error(400, "invalid_state");
    assert_eq!(begun.harness.exchanges(), 0);
}

#[tokio::test]
async fn an_old_state_is_rejected() {
    let begun = begun().await;
    begun.harness.clock.advance(Duration::from_secs(600));
    begun
        .browser
        .visit(&begun.callback)
        .await
        .is_page(400, "登录已过期");
    begun
        .browser
        .fetch(&begun.callback)
        .await
        .is_error(400, "invalid_state");
    assert_eq!(begun.harness.exchanges(), 0);
}

#[tokio::test]
async fn truncated_or_changed_cookies_are_rejected() {
    let begun = begun().await;
    let name = begun.browser.cookie_names().remove(0);
    let value = begun.browser.cookie(&name).unwrap();
    for bad in [
        &value[..value.len() - 1],
        &value[1..],
        "",
        "....",
        &format!("{value}a"),
    ] {
        begun.browser.set_cookie(&name, "/", bad);
        begun
            .browser
            .fetch(&begun.callback)
            .await
            .is_error(400, "invalid_state");
    }
    begun.browser.set_cookie(&name, "/", &value);
    assert_eq!(
        begun.browser.open(&begun.callback).await.json()["id"],
        ALICE
    );
}

#[tokio::test]
async fn foreign_sessions_identify_no_user() {
    let harness = Harness::new().await;
    let site = harness.site().await;
    let me = format!("{}/me", site.url);
    let browser = Browser::new();
    assert_eq!(browser.open(&me).await.json()["id"], ALICE);
    let session = browser.cookie(SESSION).unwrap();

    let other = Harness::new().await;
    let elsewhere = other.site().await;
    let other = Browser::new();
    other.open(&format!("{}/me", elsewhere.url)).await;
    let foreign = other.cookie(SESSION).unwrap();
    let renamed = session.replace("oAlice", "oBobby");
    let login = browser
        .cookie_names()
        .into_iter()
        .find(|name| name.starts_with("wechat_login_"));
    let login = browser.cookie(&login.unwrap()).unwrap();
    for bad in [
        &foreign,
        &renamed,
        &login,
        &session[..session.len() - 2],
        &"x".repeat(5_000),
    ] {
        let forger = Browser::new();
        forger.set_cookie(SESSION, "/", bad);
        forger.fetch(&me).await.is_error(401, "login_required");
    }
}

#[tokio::test]
async fn many_cookies_do_not_break_a_login() {
    let begun = begun().await;
    // The server may reject these headers before the layer sees them.
    for number in 0..60 {
        let (name, value) = (format!("wechat_login_{number:016x}"), "x".repeat(3_000));
        begun.browser.set_cookie(&name, "/", &value);
    }
    begun.browser.set_cookie(SESSION, "/", &"y".repeat(60_000));
    let reply = begun.browser.fetch(&begun.callback).await;
    assert!([302, 400, 431].contains(&reply.status), "{}", reply.status);
    let huge = "z".repeat(1_000_000);
    let headers = [("accept", "text/html"), ("cookie", huge.as_str())];
    let reply = Browser::new()
        .send(http::Method::GET, &begun.callback, &headers)
        .await;
    if let Ok(reply) = reply {
        assert!([400, 431].contains(&reply.status), "{}", reply.status);
    }
    assert!(begun.harness.exchanges() <= 1);
}
