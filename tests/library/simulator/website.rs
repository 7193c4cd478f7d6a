//! Tests of website login: the page with the QR code, its frame, and the script that makes it.

use tower_wechat::simulator::{SimulatedApp, SimulatedUser};

use super::harness::{Harness, Reply};

/// The percent-encoded form of `https://h5.example.com/cb`.
const REDIRECT_URI: &str = "https%3A%2F%2Fh5.example.com%2Fcb";

/// A simulator with a website app, and a user.
async fn start() -> (Harness, SimulatedApp) {
    let harness = Harness::start().await;
    harness
        .sim
        .add_user(SimulatedUser::new("oAlice").nickname("Alice"));
    let site = harness
        .sim
        .add_website("wx00000000000000bb", "secret-of-the-site");
    (harness, site)
}

fn link(app_id: &str, rest: &str) -> String {
    format!(
        "/connect/qrconnect?appid={app_id}&redirect_uri={REDIRECT_URI}&response_type=code&scope=snsapi_login{rest}"
    )
}

/// The link that `wxLogin.js` makes: another order, and no `response_type`.
fn frame_link(app_id: &str, self_redirect: &str) -> String {
    format!(
        "/connect/qrconnect?appid={app_id}&scope=snsapi_login&redirect_uri={REDIRECT_URI}&state=abc&login_type=jssdk&self_redirect={self_redirect}"
    )
}

#[track_caller]
fn is_mistake(reply: &Reply, text: &str) {
    assert_eq!((reply.status, &reply.location), (200, &None));
    assert!(reply.content_type.starts_with("text/html"));
    assert!(reply.text.contains(text), "{}", reply.text);
}

/// Returns the callback to which the script of the page navigates. Asserts that its link is the
/// same.
#[track_caller]
fn navigation(page: &Reply, window: &str, target: &str) -> String {
    assert_eq!((page.status, &page.location), (200, &None));
    let script = format!("<script>{window}.location.href=\"");
    let (_, rest) = page.text.split_once(&script).unwrap();
    let (url, _) = rest.split_once('"').unwrap();
    let href = url.replace('&', "&amp;");
    let link = format!("<a id=\"continue\" target=\"{target}\" href=\"{href}\">");
    assert!(page.text.contains(&link), "{}", page.text);
    url.to_owned()
}

impl Harness {
    /// Exchanges the code of a callback's URL as this app.
    async fn openid_at(&self, app: &SimulatedApp, callback: &str) -> String {
        let (_, rest) = callback.split_once("?code=").unwrap();
        let (code, state) = rest.split_once('&').unwrap();
        assert_eq!(state, "state=abc");
        let (app_id, secret) = (app.app_id(), app.app_secret());
        self.get(&format!(
            "/sns/oauth2/access_token?appid={app_id}&secret={secret}&code={code}&grant_type=authorization_code"
        ))
        .await
        .field("openid")
    }
}

#[tokio::test]
async fn a_scan_returns_with_a_code_for_ten_minutes() {
    let (harness, site) = start().await;
    let state = "s".repeat(200);
    let reply = harness
        .get(&link(site.app_id(), &format!("&state={state}&lang=en")))
        .await;
    assert_eq!(reply.status, 302);
    assert_eq!(reply.callback("state"), Some(state));
    let code = reply.callback("code").unwrap();
    harness.sim.advance(std::time::Duration::from_secs(500));
    let client = site.client().unwrap();
    let response = client.exchange_code(&code).await.unwrap();
    assert_eq!(
        (response.openid.as_deref(), response.scope.as_deref()),
        (Some(&*site.openid_of("oAlice")), Some("snsapi_login"))
    );
    // The scope is enough for the profile.
    let profile = harness
        .userinfo(response.access_token.expose(), &site.openid_of("oAlice"))
        .await;
    assert_eq!(profile.field("nickname"), "Alice");
}

#[tokio::test]
async fn only_a_website_app_may_show_the_code() {
    let (harness, site) = start().await;
    let site = site.redirect_hosts(["h5.example.com"]);
    let scope = "Scope 参数错误或没有 Scope 权限";
    let account = harness.sim.app_id();
    is_mistake(&harness.get(&link(account, "&state=a")).await, scope);
    let right = link(site.app_id(), "&state=a");
    for wrong in ["snsapi_userinfo", "snsapi_base"] {
        let path = right.replace("snsapi_login", wrong);
        is_mistake(&harness.get(&path).await, scope);
    }
    for (wrong, text) in [
        (link("wx0", ""), "appid 参数错误"),
        (
            right.replace("h5.example", "www.example"),
            "redirect_uri 参数错误",
        ),
        (right.replace("https", "ftp"), "redirect_uri 参数错误"),
        (right.replace("=code", "=token"), "response_type 参数错误"),
        (
            right.replace("&response_type=code", ""),
            "response_type 参数错误",
        ),
    ] {
        is_mistake(&harness.get(&wrong).await, text);
    }
    // The page inside WeChat refuses a website app.
    let inside = right.replace("qrconnect", "oauth2/authorize");
    is_mistake(&harness.get(&inside).await, "10005");
    let inside = inside.replace("snsapi_login", "snsapi_userinfo");
    is_mistake(&harness.get(&inside).await, "10005");
}

#[tokio::test]
async fn the_page_asks_who_scans() {
    let (harness, site) = start().await;
    harness
        .sim
        .settings(|settings| settings.auto_approve = false);
    harness.sim.add_user(SimulatedUser::new("oBob"));
    let link = link(site.app_id(), "&state=abc");
    let page = harness.get(&link).await;
    assert_eq!(page.status, 200);
    assert!(page.text.contains("Scanned by") && page.text.contains(">Alice</option>"));
    for (form, openid) in [("", "oBob"), ("openid=oAlice&", "oAlice")] {
        let reply = harness.post(&link, &format!("{form}answer=allow")).await;
        assert_eq!(reply.status, 302);
        let callback = reply.location.unwrap();
        assert_eq!(
            harness.openid_at(&site, &callback).await,
            site.openid_of(openid)
        );
    }
}

#[tokio::test]
async fn after_a_denial_nothing_comes_back() {
    let (harness, site) = start().await;
    harness
        .sim
        .settings(|settings| settings.auto_approve = false);
    let path = link(site.app_id(), "&state=abc");
    let page = harness.post(&path, "answer=deny").await;
    assert_eq!((page.status, &page.location), (200, &None));
    assert!(page.text.contains("Scan again"));
    // The old form: `state` without a code.
    harness
        .sim
        .settings(|settings| settings.qr_deny_redirects = true);
    let reply = harness.post(&path, "answer=deny").await;
    assert_eq!(
        reply.location.as_deref(),
        Some("https://h5.example.com/cb?state=abc")
    );
    let page = harness
        .post(&frame_link(site.app_id(), "true"), "answer=deny")
        .await;
    assert_eq!(
        navigation(&page, "window", "_self"),
        "https://h5.example.com/cb?state=abc"
    );
}

#[tokio::test]
async fn a_frame_navigates_by_script() {
    let (harness, site) = start().await;
    for (self_redirect, window, target) in [
        ("default", "window.top", "_top"),
        ("false", "window.top", "_top"),
        ("true", "window", "_self"),
    ] {
        let path = frame_link(site.app_id(), self_redirect);
        let callback = navigation(&harness.get(&path).await, window, target);
        assert_eq!(
            harness.openid_at(&site, &callback).await,
            site.openid_of("oAlice")
        );
        // The same with a question first.
        harness
            .sim
            .settings(|settings| settings.auto_approve = false);
        assert!(harness.get(&path).await.text.contains("Scanned by"));
        let callback = navigation(&harness.post(&path, "answer=allow").await, window, target);
        assert!(callback.starts_with("https://h5.example.com/cb?code="));
        harness
            .sim
            .settings(|settings| settings.auto_approve = true);
    }
    let tricky = frame_link(site.app_id(), "true")
        .replace("cb&", "cb%3F%3C%2Fscript%3E%22%27%23%3C%2Fscript%3E&");
    let page = harness.get(&tricky).await;
    assert_eq!(page.text.matches("</script>").count(), 1, "{}", page.text);
}

#[tokio::test]
async fn the_page_may_be_framed() {
    let (harness, site) = start().await;
    let url = format!("{}{}", harness.sim.url(), frame_link(site.app_id(), "true"));
    let response = harness.client.get(url).send().await.unwrap();
    for name in ["x-frame-options", "content-security-policy", "set-cookie"] {
        assert_eq!(response.headers().get(name), None);
    }
}

#[tokio::test]
async fn the_script_makes_a_frame() {
    let (harness, _) = start().await;
    let script = harness
        .get("/connect/zh_CN/htmledition/js/wxLogin.js")
        .await;
    assert_eq!(script.status, 200);
    assert!(script.content_type.starts_with("text/javascript"));
    assert!(script.text.contains("window.WxLogin = WxLogin"));
}
