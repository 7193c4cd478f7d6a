//! Tests of the login of browsers outside WeChat: in a frame, in the whole window, and on a phone.
//!
//! The application is at `localhost` and WeChat at `127.0.0.1`, which are two sites to a browser.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::middleware::{Next, from_fn};
use axum::response::{Html, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tower_wechat::simulator::{SimulatedUser, Simulator};
use tower_wechat::{
    CookieKeys, Login, MemoryStore, Policy, Rejection, RequestHead, UserTokens, WechatLayer,
    WechatUser,
};

use crate::EXCHANGE;
use crate::chromium::{Chromium, Tab};
use crate::screen::Screen;

const WEBSITE: &str = "wxfedcba9876543210";
const SESSION: &str = "wechat_session_wxfedcba9876543210_wx0123456789abcdef";

/// A request for the callback, with what the browser sent and what it got.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Callback {
    dest: String,
    site: String,
    has_cookies: bool,
    status: u16,
    sets_session: bool,
}

/// The changes to an application.
#[derive(Debug, Clone, Copy, Default)]
struct Changes {
    /// The layer does not see that a callback is in a frame.
    hides_frames: bool,
    /// Rejections are rendered as JSON, without pages.
    renders_json: bool,
    self_redirect: bool,
}

struct Site {
    url: String,
    sim: Simulator,
    callbacks: Arc<Mutex<Vec<Callback>>>,
}

/// Returns the first block of code of the guide that contains `part`.
fn guide(part: &str) -> String {
    let guide = include_str!("../../src/guide/login.md");
    let blocks = guide.split("```html\n").skip(1);
    let mut blocks = blocks.filter_map(|block| block.split("```").next());
    blocks
        .find(|block| block.contains(part))
        .unwrap()
        .to_owned()
}

impl Site {
    async fn start(changes: Changes) -> Self {
        let sim = Simulator::start().await.unwrap();
        sim.settings(|settings| settings.auto_approve = false);
        sim.add_user(SimulatedUser::new("oLin000000000000000000000000").nickname("林晓雨"));
        let website = sim.add_website(WEBSITE, "secret-of-the-website");
        let users = |client| UserTokens::new(client, MemoryStore::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://localhost:{}", listener.local_addr().unwrap().port());
        let login = Login::builder(&url, CookieKeys::random().unwrap())
            .website(users(website.client().unwrap()))
            .build()
            .unwrap();
        let layer = WechatLayer::new(users(sim.client().unwrap())).login(login);
        let pages = Self::pages(sim.url(), changes.self_redirect);
        let me = Router::new().route("/me", get(me));
        let app = match changes.renders_json {
            false => pages
                .layer(layer.clone().policy(Policy::Optional))
                .merge(me.layer(layer)),
            true => {
                let layer = layer.reject(as_json);
                pages
                    .layer(layer.clone().policy(Policy::Optional))
                    .merge(me.layer(layer))
            }
        };
        let callbacks = Arc::default();
        let record = {
            let callbacks = Arc::clone(&callbacks);
            move |request, next| record(Arc::clone(&callbacks), changes, request, next)
        };
        let app = app.layer(from_fn(record));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self {
            url,
            sim,
            callbacks,
        }
    }

    /// Returns the pages of the application, with those of the guide.
    fn pages(wechat: &str, self_redirect: bool) -> Router {
        let qr_code = guide("new WxLogin")
            .replace("https://res.wx.qq.com", wechat)
            .replace(
                "self_redirect: true",
                &format!("self_redirect: {self_redirect}"),
            );
        let frame = "<iframe src=\"/wechat/login?return_to=%2Fsigned-in\"></iframe><script>\
                     window.addEventListener('message', () => location.reload())</script>";
        // The policy of the guide, for WeChat's pages at the simulator.
        let policy = format!(
            "default-src 'self'; script-src 'unsafe-inline' {wechat}; frame-src 'self' {wechat}"
        );
        let page = move |content: String| {
            let policy = policy.clone();
            async move |user: Option<WechatUser>| {
                let content = match user {
                    Some(user) => format!("<p>hello {}</p>", user.id()),
                    None => content,
                };
                ([("content-security-policy", policy)], Html(content))
            }
        };
        let signed_in = guide("parent.postMessage");
        Router::new()
            .route("/", get(page(qr_code)))
            .route("/frame", get(page(frame.to_owned())))
            .route("/signed-in", get(async move || Html(signed_in)))
    }

    /// Returns the requests for the callback, in order.
    fn callbacks(&self) -> Vec<Callback> {
        self.callbacks.lock().unwrap().clone()
    }

    /// Returns the text of a page that knows the user.
    fn hello(&self) -> String {
        let app = self.sim.app(WEBSITE).unwrap();
        format!("hello {}", app.openid_of("oLin000000000000000000000000"))
    }

    /// Stands for the user who scans the QR code in a frame of the page.
    async fn scan(&self, browser: &Chromium) {
        let frame = browser.frame("/connect/qrconnect").await;
        frame.shows("代替扫码").await;
        frame
            .value("document.querySelector('#allow').click()")
            .await;
    }

    async fn has_session(&self, tab: &Tab) -> bool {
        let cookies = tab.cookies(&self.url).await;
        cookies.iter().any(|(name, _)| name == SESSION)
    }
}

async fn me(user: WechatUser) -> String {
    format!("hello {}", user.id())
}

/// Renders each rejection as JSON, and forbids frames.
fn as_json(rejection: &Rejection, _: &RequestHead<'_>) -> Response {
    Response::builder()
        .status(rejection.status())
        .header("content-type", "application/json")
        .header("x-frame-options", "DENY")
        .body(Body::from(format!(
            "{{\"error\":\"{}\"}}",
            rejection.code()
        )))
        .unwrap()
}

/// Records the requests for the callback.
async fn record(
    callbacks: Arc<Mutex<Vec<Callback>>>,
    changes: Changes,
    mut request: Request,
    next: Next,
) -> Result<Response, Infallible> {
    let is_callback = request.uri().path() == "/wechat/callback";
    let text = |headers: &HeaderMap, name: &str| -> String {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let (dest, site, cookies) = {
        let text = |name| text(request.headers(), name);
        (
            text("sec-fetch-dest"),
            text("sec-fetch-site"),
            text("cookie"),
        )
    };
    if changes.hides_frames {
        request.headers_mut().remove("sec-fetch-dest");
    }
    let response = next.run(request).await;
    if is_callback {
        let set = response.headers().get_all("set-cookie").iter();
        callbacks.lock().unwrap().push(Callback {
            dest,
            site,
            has_cookies: cookies.contains("wechat_login_"),
            status: response.status().as_u16(),
            sets_session: set
                .into_iter()
                .any(|cookie| cookie.to_str().unwrap().starts_with(SESSION)),
        });
    }
    Ok(response)
}

fn callback(
    dest: &str,
    site: &str,
    has_cookies: bool,
    status: u16,
    sets_session: bool,
) -> Callback {
    Callback {
        dest: dest.to_owned(),
        site: site.to_owned(),
        has_cookies,
        status,
        sets_session,
    }
}

/// Returns the requests of a login in a frame.
fn two_requests() -> Vec<Callback> {
    vec![
        callback("iframe", "cross-site", false, 200, false),
        callback("iframe", "same-origin", true, 302, true),
    ]
}

/// Signs in with a page of the guide, in its frame.
async fn signs_in_at(path: &str, changes: Changes) {
    let site = Site::start(changes).await;
    let browser = Chromium::start_on(Screen::Computer);
    let tab = browser.tab_on(Screen::Computer).await;
    let page = format!("{}{path}", site.url);
    tab.open(&page).await;
    site.scan(&browser).await;
    tab.shows(&site.hello()).await;
    assert_eq!(site.callbacks(), two_requests());
    assert_eq!(tab.url().await, page);
    assert!(site.has_session(&tab).await);
    assert_eq!(site.sim.calls_to(EXCHANGE), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_qr_code_inside_a_page_signs_in() {
    let changes = Changes {
        self_redirect: true,
        ..Changes::default()
    };
    signs_in_at("/", changes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_without_a_script_signs_in() {
    signs_in_at("/frame", Changes::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renderer_without_pages_keeps_the_frame_working() {
    let changes = Changes {
        renders_json: true,
        ..Changes::default()
    };
    signs_in_at("/frame", changes).await;
}

/// The whole window goes to the callback, with the cookies of the login.
#[tokio::test(flavor = "multi_thread")]
async fn a_qr_code_that_redirects_the_window_signs_in() {
    let site = Site::start(Changes::default()).await;
    let browser = Chromium::start_on(Screen::Computer);
    let tab = browser.tab_on(Screen::Computer).await;
    tab.open(&format!("{}/", site.url)).await;
    site.scan(&browser).await;
    tab.shows(&site.hello()).await;
    assert_eq!(tab.url().await, format!("{}/", site.url));
    assert_eq!(
        site.callbacks(),
        [callback("document", "cross-site", true, 302, true)]
    );
    tab.open(&format!("{}/me", site.url)).await;
    tab.shows(&site.hello()).await;
}

/// Without the page that loads the callback again, the frame has no cookies and the login fails.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_second_request_no_frame_signs_in() {
    let changes = Changes {
        hides_frames: true,
        self_redirect: true,
        ..Changes::default()
    };
    let site = Site::start(changes).await;
    let browser = Chromium::start_on(Screen::Computer);
    let tab = browser.tab_on(Screen::Computer).await;
    tab.open(&format!("{}/", site.url)).await;
    site.scan(&browser).await;
    let give_up = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    while site.callbacks().is_empty() {
        assert!(tokio::time::Instant::now() < give_up, "no callback");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(
        site.callbacks(),
        [callback("iframe", "cross-site", false, 400, false)]
    );
    assert!(!site.has_session(&tab).await);
    assert_eq!(site.sim.calls_to(EXCHANGE), 0);
}

/// A page of another site cannot frame the callback: the page in its frame does not load it again.
#[tokio::test(flavor = "multi_thread")]
async fn another_site_cannot_frame_the_callback() {
    let site = Site::start(Changes::default()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let evil = format!("http://{}", listener.local_addr().unwrap());
    let framed = format!(
        "<p>evil</p><iframe src=\"{}/wechat/callback?code=a&state=b\"></iframe>\
         <script>onload = () => document.body.append('loaded')</script>",
        site.url
    );
    let app = Router::new().fallback(async move || Html(framed.clone()));
    tokio::spawn(async move { axum::serve(listener, app).await });
    let browser = Chromium::start_on(Screen::Computer);
    let tab = browser.tab_on(Screen::Computer).await;
    tab.open(&evil).await;
    tab.shows("loaded").await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(
        site.callbacks(),
        [callback("iframe", "cross-site", false, 200, false)]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_computer_signs_in_with_a_qr_code_in_its_window() {
    let site = Site::start(Changes::default()).await;
    let browser = Chromium::start_on(Screen::Computer);
    let tab = browser.tab_on(Screen::Computer).await;
    let page = format!("{}/me?a=b", site.url);
    tab.open(&page).await;
    tab.shows("代替扫码").await;
    tab.press("#allow").await;
    tab.shows(&site.hello()).await;
    assert_eq!(tab.url().await.trim_end_matches("#wechat_redirect"), page);
    assert_eq!(
        site.callbacks(),
        [callback("document", "cross-site", true, 302, true)]
    );
}

/// A phone cannot scan its own screen. The page with the QR code leads to the same hint.
#[tokio::test(flavor = "multi_thread")]
async fn a_phone_outside_wechat_is_asked_to_open_wechat() {
    let site = Site::start(Changes::default()).await;
    let browser = Chromium::start_on(Screen::PhoneBrowser);
    let tab = browser.tab_on(Screen::PhoneBrowser).await;
    for path in ["/me", "/"] {
        tab.open(&format!("{}{path}", site.url)).await;
        tab.shows("请在微信中打开").await;
    }
    assert!(site.callbacks().is_empty());
    assert_eq!(site.sim.calls_to("/connect/qrconnect"), 0);
}

/// In WeChat on a computer, the page with the QR code leads to the login of the account.
#[tokio::test(flavor = "multi_thread")]
async fn wechat_needs_no_qr_code() {
    let site = Site::start(Changes::default()).await;
    let browser = Chromium::start_on(Screen::Desktop);
    let tab = browser.tab_on(Screen::Desktop).await;
    tab.open(&format!("{}/", site.url)).await;
    tab.shows("申请使用").await;
    tab.press("#allow").await;
    tab.shows("hello oLin000000000000000000000000").await;
}
