//! Tests that a login returns to the requested page, with any characters in its URL.

use super::harness::Harness;
use crate::support::browser::Browser;

/// Each pair is a `return_to`, which the test encodes once, and the page on which the user arrives.
#[tokio::test]
async fn safe_return_targets_are_kept() {
    let harness = Harness::new().await;
    let site = harness.site().await;
    let long = format!("/me?q={}", "x".repeat(1_994));
    for (asked, landed) in [
        ("/me?q=茶", "/me?q=%E8%8C%B6"),
        ("/me?q=a b", "/me?q=a%20b"),
        ("/me?q=👍🏽", "/me?q=%F0%9F%91%8D%F0%9F%8F%BD"),
        ("/me?q=\"<a>\"", "/me?q=%22%3Ca%3E%22"),
        ("/me?a=1;b=2,3&c^d", "/me?a=1;b=2,3&c%5Ed"),
        ("/me?q=%E8%8C%B6%", "/me?q=%E8%8C%B6%"),
        (&format!("{}/me?a=b", site.url), "/me?a=b"),
        (&format!("{}?a=b", site.url.to_uppercase()), "/?a=b"),
        (&long, &long),
    ] {
        let encoded: String = url::form_urlencoded::byte_serialize(asked.as_bytes()).collect();
        let login = format!("{}/wechat/login?return_to={encoded}", site.url);
        let page = Browser::new().open(&login).await;
        assert_eq!(page.json()["uri"], landed, "{asked}");
    }
    // A page whose query is not UTF-8 stays the same byte for byte.
    let login = format!("{}/wechat/login?return_to=/me?q=%C4%E3", site.url);
    let page = Browser::new().open(&login).await;
    assert_eq!(page.json()["uri"], "/me?q=%C4%E3");
}

#[tokio::test]
async fn unsafe_return_targets_lead_to_the_start_page() {
    let harness = Harness::new().await;
    let site = harness.site().await;
    let host = site.url.trim_start_matches("http://");
    for trick in [
        "//evil.example",
        "/\\evil.example",
        "/\t/evil.example",
        "/a\r\nSet-Cookie: a=b",
        "/./me",
        "/me/../me",
        "/%2e%2e//evil.example",
        "/%2f/evil.example",
        "/%5cevil.example",
        "/..%2f..%2fme",
        "https://evil.example/",
        &format!("//{host}/me"),
        &format!("https://{host}/me"),
        &format!("http://{host}@evil.example/"),
        &format!("http://{host}.evil.example/"),
        &format!("http://{host}\\@evil.example/"),
        &format!("http://user@{host}/me"),
        "javascript:alert(1)",
        "/wechat/login",
        "/wechat/%63allback/",
        &format!("/me?q={}", "x".repeat(2_100)),
    ] {
        let encoded: String = url::form_urlencoded::byte_serialize(trick.as_bytes()).collect();
        let login = format!("{}/wechat/login?return_to={encoded}", site.url);
        let page = Browser::new().open(&login).await;
        assert_eq!(
            (page.json()["uri"].as_str(), page.url.path()),
            (Some("/"), "/"),
            "{trick}"
        );
    }
}

#[tokio::test]
async fn a_login_returns_to_the_requested_page() {
    let harness = Harness::new().await;
    let site = harness.site().await;
    let longest = format!("/me?q={}", "x".repeat(2_042));
    for page in [
        "/me?q=%E8%8C%B6&empty=&flag",
        "/me?a=1;b=2,3&list[]=%22x%22",
        "/me?json={\"a\":[1,2]}|x",
        &longest,
    ] {
        let sent = url::Url::parse(&format!("{}{page}", site.url)).unwrap();
        let landed = Browser::new().open(sent.as_str()).await;
        assert_eq!(landed.url, sent);
    }
    // A longer page is reached without its query.
    let landed = Browser::new()
        .open(&format!("{}{longest}x", site.url))
        .await;
    assert_eq!(landed.json()["uri"], "/me");
}

/// In a link that is not encoded, parameters after the first `&` belong to the page, unless they
/// are the login's own or WeChat's.
#[tokio::test]
async fn an_unencoded_return_to_keeps_its_parameters() {
    let harness = Harness::new().await;
    let site = harness.site().await;
    for (asked, landed) in [
        ("/me?x=1&y=2", "/me?x=1&y=2"),
        ("/me?x=1&y=2&scope=snsapi_userinfo", "/me?x=1&y=2"),
        (
            "/me?x=1&scope=snsapi_userinfo&y=a+b%26c",
            "/me?x=1&y=a+b%26c",
        ),
        ("/me?scope=mine&scope=yours", "/me?scope=mine&scope=yours"),
        ("/me?flag&list[]=%E8%8C%B6&&", "/me?flag&list[]=%E8%8C%B6"),
        ("/me%3Fx=1&y=2", "/me?x=1&y=2"),
        (&format!("{}/me?x=1&y=2", site.url), "/me?x=1&y=2"),
        ("/me?x=1&return_to=/me?z=3&y=2", "/me?z=3&y=2"),
        // The page is encoded, and the parameter that WeChat adds to a shared link does not belong
        // to the page.
        ("%2Fme%3Fx%3D1%26y%3D2&from=singlemessage", "/me?x=1&y=2"),
        ("/me?x%3D1%26y%3D2", "/me?x=1&y=2"),
        ("/me&from=timeline&isappinstalled=0", "/me"),
        ("//evil.example/?a=b&c=d", "/"),
        ("/me?x=1&y=\\evil", "/"),
    ] {
        let login = format!("{}/wechat/login?return_to={asked}", site.url);
        let page = Browser::new().open(&login).await;
        assert_eq!(page.json()["uri"], landed, "{asked}");
    }
}
