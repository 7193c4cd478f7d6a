#[path = "../../../examples/recipes/other_origin.rs"]
mod recipe;

use http::Method;
use url::Url;

use super::Recipe;
use crate::support::browser::Browser;

const PAGES: &str = "http://127.0.0.1:3001";

/// The requests are those that a browser sends for the recipe's page. `tests/browser` drives the
/// page itself.
#[tokio::test(flavor = "multi_thread")]
async fn pages_of_another_origin_log_in_and_call_the_service() {
    let site = Recipe::serve(async |users, login| recipe::app(users, login, PAGES).unwrap()).await;
    let browser = Browser::new();
    let me = format!("{}/me", site.url);
    let script = [
        ("origin", PAGES),
        ("referer", "http://127.0.0.1:3001/"),
        ("accept", "*/*"),
    ];
    let call = async || browser.send(Method::GET, &me, &script).await.unwrap();

    let reply = call().await;
    assert_eq!(reply.header("access-control-allow-origin"), Some(PAGES));
    assert_eq!(
        reply.header("access-control-allow-credentials"),
        Some("true")
    );
    let json = reply.is_error(401, "login_required");
    let mut login = Url::parse(json["login_url"].as_str().unwrap()).unwrap();
    assert_eq!(
        login.query(),
        Some("return_to=http%3A%2F%2F127.0.0.1%3A3001%2F")
    );
    // As `searchParams.set("return_to", location.href)` does.
    let page = format!("{PAGES}/shop?a=b#/cart");
    login
        .query_pairs_mut()
        .clear()
        .append_pair("return_to", &page);
    let callback = browser.callback_of(login.as_str()).await;
    assert_eq!(
        browser.visit(&callback).await.header("location"),
        Some(page.as_str())
    );

    let reply = call().await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(reply.json().as_str().unwrap().starts_with('o'));
    assert_eq!(
        browser.visit(&site.url).await.header("location"),
        Some(PAGES)
    );
    assert_eq!(site.simulator.calls_to("/sns/oauth2/access_token"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn preflights_pass_and_other_origins_read_nothing() {
    let site = Recipe::serve(async |users, login| recipe::app(users, login, PAGES).unwrap()).await;
    let me = format!("{}/me", site.url);
    for (origin, allowed) in [(PAGES, true), ("http://evil.example", false)] {
        let browser = Browser::new();
        let headers = [("origin", origin), ("access-control-request-method", "GET")];
        let reply = browser.send(Method::OPTIONS, &me, &headers).await.unwrap();
        assert_eq!(reply.status, 200);
        let answered = reply.header("access-control-allow-origin");
        assert_eq!(answered == Some(origin), allowed, "{reply:?}");
        let reply = browser
            .send(Method::GET, &me, &[("origin", origin)])
            .await
            .unwrap();
        let answered = reply.header("access-control-allow-origin");
        assert_eq!(answered == Some(origin), allowed, "{reply:?}");
        let json = reply.is_error(401, "login_required");
        let login_url = json["login_url"].as_str().unwrap();
        assert_eq!(login_url.starts_with("http"), allowed, "{login_url}");
    }
}
