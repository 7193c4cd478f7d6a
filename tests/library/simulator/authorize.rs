//! Tests of the simulator's pages, and of the redirect to the application.

use std::sync::{Arc, Mutex};

use axum::{Router, http::HeaderMap, routing::get};
use tower_wechat::simulator::SimulatedUser;

use super::harness::{Harness, Reply};

/// The percent-encoded form of `https://h5.example.com/cb?a=1`.
const REDIRECT_URI: &str = "https%3A%2F%2Fh5.example.com%2Fcb%3Fa%3D1";

fn link(harness: &Harness, scope: &str, rest: &str) -> String {
    let id = harness.sim.app_id();
    format!(
        "/connect/oauth2/authorize?appid={id}&redirect_uri={REDIRECT_URI}&response_type=code&scope={scope}{rest}"
    )
}

impl Harness {
    async fn asking() -> Self {
        let harness = Self::start().await;
        harness
            .sim
            .settings(|settings| settings.auto_approve = false);
        harness
    }
}

#[track_caller]
fn is_question(reply: &Reply) {
    assert_eq!(reply.status, 200);
    assert!(reply.content_type.starts_with("text/html"));
    assert!(reply.text.contains("允许 Allow") && reply.text.contains("拒绝 Deny"));
}

#[track_caller]
fn is_mistake(reply: &Reply, text: &str) {
    assert_eq!((reply.status, &reply.location), (200, &None));
    assert!(reply.content_type.starts_with("text/html"));
    assert!(reply.text.contains(text), "{}", reply.text);
}

#[tokio::test]
async fn approval_redirects_with_code_and_state() {
    let harness = Harness::start().await;
    harness.sim.add_user(SimulatedUser::new("oAlice"));
    let reply = harness
        .get(&link(
            &harness,
            "snsapi_userinfo",
            "&state=abc123#wechat_redirect",
        ))
        .await;
    assert_eq!(reply.status, 302);
    let code = reply.callback("code").unwrap();
    let expected = format!("https://h5.example.com/cb?a=1&code={code}&state=abc123");
    assert_eq!(reply.location, Some(expected));
    assert_eq!(harness.exchange(&code).await.field("openid"), "oAlice");
}

#[tokio::test]
async fn code_and_state_come_before_a_fragment() {
    let harness = Harness::start().await;
    let id = harness.sim.app_id();
    for (redirect_uri, before, after) in [
        (
            "http%3A%2F%2Fa%2F%23%2Fhome",
            "http://a/?code=",
            "&state=s#/home",
        ),
        (
            "http%3A%2F%2Fa%2F%3Fb%23c",
            "http://a/?b&code=",
            "&state=s#c",
        ),
        (
            "http%3A%2F%2Fa%2F%E4%B8%AD%0D%0A",
            "http://a/%E4%B8%AD%0D%0A?code=",
            "&state=s",
        ),
    ] {
        let path = format!(
            "/connect/oauth2/authorize?appid={id}&redirect_uri={redirect_uri}&response_type=code&scope=snsapi_base&state=s"
        );
        let location = harness.get(&path).await.location.unwrap();
        assert!(
            location.starts_with(before) && location.ends_with(after),
            "{location}"
        );
    }
}

#[tokio::test]
async fn the_state_is_returned_unchanged() {
    let harness = Harness::start().await;
    let reply = harness
        .get(&link(
            &harness,
            "snsapi_base",
            "&state=a%26b%3Dc%23%E4%B8%AD",
        ))
        .await;
    assert_eq!(reply.callback("state").as_deref(), Some("a&b=c#中"));
    let reply = harness.get(&link(&harness, "snsapi_base", "")).await;
    assert_eq!(reply.callback("state"), None);
    assert!(reply.callback("code").is_some());
}

#[tokio::test]
async fn a_wrong_link_shows_wechats_error_page() {
    let harness = Harness::start().await;
    let long = format!("&state={}", "a".repeat(129));
    is_mistake(
        &harness.get(&link(&harness, "snsapi_base", &long)).await,
        "state 参数过长",
    );
    let longest = format!("&state={}", "a".repeat(128));
    assert_eq!(
        harness
            .get(&link(&harness, "snsapi_base", &longest))
            .await
            .status,
        302
    );
    is_mistake(
        &harness.get(&link(&harness, "snsapi_base", "&state=")).await,
        "10013",
    );
    is_mistake(
        &harness
            .get(&link(&harness, "snsapi_login", "&state=a"))
            .await,
        "10005",
    );
    is_mistake(&harness.get(&link(&harness, "", "&state=a")).await, "10010");

    let id = harness.sim.app_id();
    let path = "/connect/oauth2/authorize";
    for (query, text) in [
        (
            format!("appid=&redirect_uri={REDIRECT_URI}&response_type=code&scope=snsapi_base"),
            "10012",
        ),
        (
            format!("appid=wx0&redirect_uri={REDIRECT_URI}&response_type=code&scope=snsapi_base"),
            "appid",
        ),
        (
            format!("appid={id}&redirect_uri=&response_type=code&scope=snsapi_base"),
            "10011",
        ),
        (
            format!("appid={id}&redirect_uri=%2Fcb&response_type=code&scope=snsapi_base"),
            "10003",
        ),
        (
            format!("appid={id}&redirect_uri=javascript%3Aa&response_type=code&scope=snsapi_base"),
            "10003",
        ),
        (
            format!("appid={id}&redirect_uri={REDIRECT_URI}&response_type=token&scope=snsapi_base"),
            "response_type",
        ),
        // Parameters in another order or misspelt, and a `redirect_uri` whose own parameter is not
        // encoded.
        (
            format!("redirect_uri={REDIRECT_URI}&appid={id}&response_type=code&scope=snsapi_base"),
            "顺序",
        ),
        (
            format!(
                "appid={id}&redirect_uri={REDIRECT_URI}&state=s&response_type=code&scope=snsapi_base"
            ),
            "顺序",
        ),
        (
            format!("appId={id}&redirect_uri={REDIRECT_URI}&response_type=code&scope=snsapi_base"),
            "顺序",
        ),
        (
            format!(
                "appid={id}&redirect_uri=http://a/?b=1&c=2&response_type=code&scope=snsapi_base"
            ),
            "顺序",
        ),
        (String::new(), "顺序"),
    ] {
        is_mistake(&harness.get(&format!("{path}?{query}")).await, text);
    }
}

#[tokio::test]
async fn a_redirect_to_a_host_that_is_not_registered_is_refused() {
    let harness = Harness::start().await;
    let register = |host: &str| {
        harness
            .sim
            .settings(|settings| settings.redirect_hosts = Some(vec![host.to_owned()]));
    };
    // A parent domain does not cover its subdomains.
    register("example.com");
    is_mistake(
        &harness
            .get(&link(&harness, "snsapi_base", "&state=a"))
            .await,
        "10003",
    );
    register("h5.example.com");
    assert_eq!(
        harness
            .get(&link(&harness, "snsapi_base", "&state=a"))
            .await
            .status,
        302
    );
}

#[tokio::test]
async fn the_user_can_approve() {
    let harness = Harness::asking().await;
    harness
        .sim
        .add_user(SimulatedUser::new("oAlice").nickname("<Alice>"));
    let link = link(&harness, "snsapi_userinfo", "&state=abc");
    let page = harness.get(&link).await;
    is_question(&page);
    assert!(page.text.contains("&lt;Alice>"));
    let reply = harness.post(&link, "answer=allow").await;
    assert_eq!(
        (reply.status, reply.callback("state").as_deref()),
        (302, Some("abc"))
    );
    let code = reply.callback("code").unwrap();
    assert_eq!(harness.exchange(&code).await.field("openid"), "oAlice");
}

#[tokio::test]
async fn another_user_can_answer() {
    let harness = Harness::asking().await;
    for name in ["oAlice", "oBob"] {
        harness.sim.add_user(SimulatedUser::new(name));
    }
    let link = link(&harness, "snsapi_userinfo", "&state=abc");
    for (form, openid) in [
        ("", "oBob"),
        ("openid=oAlice&", "oAlice"),
        ("openid=oNobody&", "oBob"),
    ] {
        let code = harness
            .post(&link, &format!("{form}answer=allow"))
            .await
            .callback("code")
            .unwrap();
        assert_eq!(harness.exchange(&code).await.field("openid"), openid);
    }
}

#[tokio::test]
async fn the_user_can_deny() {
    let harness = Harness::asking().await;
    let link = link(&harness, "snsapi_userinfo", "&state=abc");
    let reply = harness.post(&link, "answer=deny").await;
    assert_eq!(
        reply.location.as_deref(),
        Some("https://h5.example.com/cb?a=1&state=abc")
    );
    harness
        .sim
        .settings(|settings| settings.deny_redirects = false);
    let reply = harness.post(&link, "answer=deny").await;
    assert_eq!((reply.status, reply.location), (200, None));
    is_question(&harness.post(&link, "answer=perhaps").await);
}

#[tokio::test]
async fn the_base_scope_is_silent_and_force_popup_asks() {
    let harness = Harness::asking().await;
    let base = link(&harness, "snsapi_base", "&state=a&forcePopup=true");
    assert_eq!(harness.get(&base).await.status, 302);
    harness
        .sim
        .settings(|settings| settings.auto_approve = true);
    assert_eq!(
        harness
            .get(&link(&harness, "snsapi_userinfo", "&state=a"))
            .await
            .status,
        302
    );
    is_question(
        &harness
            .get(&link(
                &harness,
                "snsapi_userinfo",
                "&state=a&forcePopup=true",
            ))
            .await,
    );
}

#[tokio::test]
async fn snapshot_mode_hides_the_user_behind_a_virtual_one() {
    let harness = Harness::start().await;
    harness.sim.add_user(SimulatedUser::new("oAlice"));
    let forced = link(&harness, "snsapi_userinfo", "&state=a&forceSnapShot=true");
    let reply = harness
        .exchange(&harness.get(&forced).await.callback("code").unwrap())
        .await;
    assert_eq!(reply.json()["is_snapshotuser"], 1);
    assert_ne!(reply.field("openid"), "oAlice");
    assert_eq!(reply.field("openid").len(), 28);
    // Without `forceSnapShot`, the next login is that of the real user.
    let again = harness
        .get(&link(&harness, "snsapi_userinfo", "&state=a"))
        .await;
    let reply = harness
        .exchange(&again.callback("code").unwrap())
        .await
        .json();
    assert_eq!(
        (&reply["openid"], reply.get("is_snapshotuser")),
        (&"oAlice".into(), None)
    );
}

#[tokio::test]
async fn a_prefetch_requests_the_callback_first() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let callback = move |uri: axum::http::Uri, headers: HeaderMap| async move {
        log.lock()
            .unwrap()
            .push((uri.to_string(), headers.contains_key("cookie")));
        "hello"
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = tokio::spawn(async move {
        axum::serve(listener, Router::new().route("/cb", get(callback)))
            .await
            .unwrap();
    });

    let harness = Harness::start().await;
    harness
        .sim
        .settings(|settings| settings.callback_twice = true);
    let id = harness.sim.app_id();
    let reply = harness
        .get(&format!(
            "/connect/oauth2/authorize?appid={id}&redirect_uri=http%3A%2F%2F{address}%2Fcb&response_type=code&scope=snsapi_base&state=s"
        ))
        .await;
    let code = reply.callback("code").unwrap();
    assert_eq!(
        *seen.lock().unwrap(),
        [(format!("/cb?code={code}&state=s"), false)]
    );
    app.abort();
}
