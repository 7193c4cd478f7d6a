//! A browser in the process of a test.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT, COOKIE, HOST, HeaderName, HeaderValue, LOCATION, REFERER, SET_COOKIE, USER_AGENT,
};
use http::{Request, Response, Uri};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use reqwest::Url;
use tower_service::Service;

use super::cookies::CookieJar;
use crate::store::BoxFuture;
use crate::wechat::build_http_client;

const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// User agent of WeChat on Android.
const USER_AGENT_OF_WECHAT: &str = "Mozilla/5.0 (Linux; Android 13) AppleWebKit/537.36 Chrome/111.0 \
     Mobile Safari/537.36 MicroMessenger/8.0.42.2460(0x28002A35) WeChat/arm64 Weixin NetType/WIFI \
     Language/zh_CN";

/// Maximum number of redirects of one page: 20, as in browsers. A login has three.
const MAX_REDIRECTS: usize = 20;

/// Maximum time for one response: 30 seconds. The layer's own deadlines are shorter.
const TIMEOUT: Duration = Duration::from_secs(30);

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Reply = Result<Response<Bytes>, BoxError>;
type Call = dyn Fn(Request<Full<Bytes>>) -> BoxFuture<'static, Reply> + Send + Sync;

/// WeChat's browser, for tests: it keeps cookies, follows redirects, and logs in at the simulator.
///
/// [`new`](Self::new) takes any [`Service`] of HTTP requests, such as an axum `Router`, and calls it
/// without a port. [`over_http`](Self::over_http) is for an application that listens. Redirects to
/// the simulator go over HTTP, and come back to the application by its public URL.
///
/// At the simulator's login, the browser is the latest user of
/// [`Simulator::add_user`](crate::simulator::Simulator::add_user).
///
/// ```
/// use std::convert::Infallible;
///
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use http_body_util::Full;
/// use tower::ServiceBuilder;
/// use tower_wechat::simulator::Simulator;
/// use tower_wechat::testing::Browser;
/// use tower_wechat::{CookieKeys, Login, MemoryStore, UserTokens, WechatLayer, WechatUser};
///
/// async fn me(request: Request<Full<Bytes>>) -> Result<Response<Full<Bytes>>, Infallible> {
///     Ok(match WechatUser::required(&request) {
///         Ok(user) => Response::new(Full::from(user.id().to_owned())),
///         Err(rejection) => rejection.response().map(Full::new),
///     })
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let simulator = Simulator::start().await?;
/// let users = UserTokens::new(simulator.client()?, MemoryStore::new());
/// let login = Login::new("https://h5.example.com", CookieKeys::random()?)?;
/// let service = ServiceBuilder::new()
///     .layer(WechatLayer::new(users).login(login))
///     .service_fn(me);
///
/// let browser = Browser::new("https://h5.example.com", service);
/// let page = browser.open("/me?tab=2").await;
/// assert!(page.body().starts_with('o'));
/// assert_eq!(browser.url(), "https://h5.example.com/me?tab=2");
/// # Ok(()) }
/// ```
///
/// A test needs no checks of errors: the methods panic with one sentence if there is no response.
pub struct Browser {
    origin: Url,
    /// The application. `None` if it listens at `origin`.
    service: Option<Box<Call>>,
    http: reqwest::Client,
    cookies: Mutex<CookieJar>,
    /// The page that was opened last, after its redirects.
    page: Mutex<Option<Page>>,
    user_agent: String,
}

/// A page that a browser shows.
#[derive(Clone)]
struct Page {
    url: Url,
    html: String,
}

impl Browser {
    /// Creates a browser without cookies for an application in this process.
    ///
    /// `origin` is the public URL of the application's [`Login`](crate::Login), of which the path is
    /// ignored. An application without a login can have any, such as `http://localhost`.
    ///
    /// A service with another request body is adapted by
    /// `tower::ServiceBuilder::map_request`, and a service of hyper's `Incoming` needs
    /// [`over_http`](Self::over_http).
    ///
    /// # Panics
    /// Panics if `origin` is not an http or https URL.
    #[track_caller]
    pub fn new<S, B>(origin: &str, service: S) -> Self
    where
        S: Service<
                Request<Full<Bytes>>,
                Response = Response<B>,
                Future: Send,
                Error: Into<BoxError>,
            > + Clone
            + Send
            + 'static,
        B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        let service = Mutex::new(service);
        let call = move |request| -> BoxFuture<'static, Reply> {
            let mut service = locked(&service).clone();
            Box::pin(async move {
                std::future::poll_fn(|context| service.poll_ready(context))
                    .await
                    .map_err(Into::into)?;
                let response = service.call(request).await.map_err(Into::into)?;
                let (parts, body) = response.into_parts();
                let body = body.collect().await.map_err(Into::into)?;
                Ok(Response::from_parts(parts, body.to_bytes()))
            })
        };
        Self::start(origin, Some(Box::new(call)))
    }

    /// Creates a browser without cookies for an application that listens at `origin`, such as
    /// `http://127.0.0.1:3000`.
    ///
    /// # Panics
    /// Panics if `origin` is not an http URL.
    #[track_caller]
    pub fn over_http(origin: &str) -> Self {
        let browser = Self::start(origin, None);
        assert_eq!(
            browser.origin.scheme(),
            "http",
            "the browser of a test speaks no TLS: start it with an http origin, not with {origin}"
        );
        browser
    }

    #[track_caller]
    fn start(origin: &str, service: Option<Box<Call>>) -> Self {
        let url = Url::parse(origin).ok();
        let Some(origin) = url.filter(|url| url.has_host() && url.scheme().starts_with("http"))
        else {
            panic!("{origin:?} is no origin: start the browser with one like http://localhost");
        };
        let http = match build_http_client(false, TIMEOUT, None) {
            Ok(http) => http,
            Err(error) => panic!("the browser cannot start: {error}"),
        };
        Self {
            origin,
            service,
            http,
            cookies: Mutex::default(),
            page: Mutex::default(),
            user_agent: USER_AGENT_OF_WECHAT.to_owned(),
        }
    }

    /// Sets the header `User-Agent`, for another browser than WeChat's. Default: that of WeChat on
    /// Android.
    ///
    /// A browser of a computer logs in with the login's
    /// [website](crate::login::LoginBuilder::website):
    ///
    /// ```
    /// use axum::{Router, routing::get};
    /// use tower_wechat::simulator::Simulator;
    /// use tower_wechat::testing::Browser;
    /// use tower_wechat::{CookieKeys, Login, MemoryStore, UserTokens, WechatLayer, WechatUser};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let simulator = Simulator::start().await?;
    /// let website = simulator.add_website("wxfedcba9876543210", "secret-of-the-website");
    /// let users = UserTokens::new(simulator.client()?, MemoryStore::new());
    /// let login = Login::builder("https://h5.example.com", CookieKeys::random()?)
    ///     .website(UserTokens::new(website.client()?, MemoryStore::new()))
    ///     .build()?;
    /// let app: Router = Router::new()
    ///     .route("/", get(async |user: WechatUser| user.app_id().to_string()))
    ///     .layer(WechatLayer::new(users).login(login));
    ///
    /// let agent = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/130.0.0.0 Safari/537.36";
    /// let browser = Browser::new("https://h5.example.com", app).user_agent(agent);
    /// assert_eq!(browser.open("/").await.body(), website.app_id());
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn user_agent(mut self, user_agent: impl Into<String>) -> Self {
        self.user_agent = user_agent.into();
        self
    }

    /// Loads a page and follows its redirects, also through WeChat's login. Returns the last
    /// response.
    ///
    /// `path` is a path of the application, with a query if necessary, or a URL.
    ///
    /// # Panics
    /// Panics if the service fails or takes longer than 30 seconds, if the page has more than 20
    /// redirects, and if a redirect leads to the internet.
    pub async fn open(&self, path: &str) -> Response<String> {
        self.navigate(self.resolve(path), None).await
    }

    /// Follows the first link of the last page whose address contains `part`, as a user who clicks it
    /// does: with the origin of the page as the `Referer`. Follows redirects, and returns the last
    /// response.
    ///
    /// [`open`](Self::open) is a typed address without a `Referer`, which WeChat's authorize pages of a
    /// platform reject.
    ///
    /// ```
    /// # use tower_wechat::testing::Browser;
    /// # async fn run(browser: Browser) {
    /// browser.open("/wechat/platform/authorize").await;
    /// let page = browser.click("componentloginpage").await;
    /// assert_eq!(page.status(), 200);
    /// # }
    /// ```
    ///
    /// # Panics
    /// Panics as [`open`](Self::open) does, and if the page has no such link.
    pub async fn click(&self, part: &str) -> Response<String> {
        let Some(page) = locked(&self.page).clone() else {
            panic!("no page has a link with {part:?}: call Browser::open first");
        };
        let links = links(&page.html);
        let Some(link) = links.iter().find(|link| link.contains(part)) else {
            panic!("{} has no link with {part:?}, but {links:?}", page.url);
        };
        match page.url.join(link) {
            Ok(url) => {
                let referer = referer(&page.url, &url);
                self.navigate(url, Some(referer)).await
            }
            Err(why) => panic!("{} has the link {link:?}, which is no URL: {why}", page.url),
        }
    }

    /// Loads a page and follows its redirects, which keep the `Referer`.
    async fn navigate(&self, mut url: Url, referer: Option<String>) -> Response<String> {
        let mut visited = Vec::new();
        loop {
            visited.push(url.to_string());
            let mut request = Request::new(String::new());
            if let Some(referer) = &referer {
                add_missing(&mut request, REFERER, referer);
            }
            add_missing(
                &mut request,
                ACCEPT,
                "text/html,application/xhtml+xml,*/*;q=0.8",
            );
            add_missing(&mut request, SEC_FETCH_MODE, "navigate");
            let response = self.exchange(request, &url).await;
            let location = response.headers().get(LOCATION);
            let Some(location) = location.filter(|_| response.status().is_redirection()) else {
                let html = response.body().clone();
                *locked(&self.page) = Some(Page { url, html });
                return response;
            };
            assert!(
                visited.len() <= MAX_REDIRECTS,
                "{} has more than {MAX_REDIRECTS} redirects:\n{}",
                visited[0],
                visited.join("\n")
            );
            let location = String::from_utf8_lossy(location.as_bytes());
            url = match url.join(&location) {
                Ok(next) => next,
                Err(why) => panic!("{url} redirected to {location:?}, which is no URL: {why}"),
            };
        }
    }

    /// Sends a GET request as the script of a page does, which accepts JSON. Returns the response without
    /// following redirects.
    ///
    /// The page that [`open`](Self::open) loaded last is the `Referer`. Before the first page, the
    /// request has none.
    ///
    /// # Panics
    /// Panics if the service fails or takes longer than 30 seconds.
    pub async fn fetch(&self, path: &str) -> Response<String> {
        let mut request = Request::new(String::new());
        add_missing(&mut request, ACCEPT, "application/json");
        self.send_from_page(request, path).await
    }

    /// Sends a request of any method as the script of a page does. Returns the response without following
    /// redirects.
    ///
    /// The browser adds its cookies, the `Referer` as in [`fetch`](Self::fetch), and other headers
    /// that the request lacks:
    ///
    /// ```
    /// # use http::Request;
    /// # use tower_wechat::testing::Browser;
    /// # async fn run(browser: Browser) {
    /// let request = Request::post("/orders").header("content-type", "application/json");
    /// let response = browser.send(request.body(r#"{"tea": 2}"#).unwrap()).await;
    /// assert_eq!(response.status(), 201);
    /// # }
    /// ```
    ///
    /// # Panics
    /// Panics if the service fails or takes longer than 30 seconds.
    pub async fn send(&self, request: Request<impl Into<String>>) -> Response<String> {
        let path = request.uri().to_string();
        self.send_from_page(request.map(Into::into), &path).await
    }

    /// Sends a request of a script of the page that was opened last.
    async fn send_from_page(&self, mut request: Request<String>, path: &str) -> Response<String> {
        let url = self.resolve(path);
        if let Some(page) = locked(&self.page).as_ref() {
            add_missing(&mut request, REFERER, &referer(&page.url, &url));
        }
        self.exchange(request, &url).await
    }

    /// Returns the URL of the last page that [`open`](Self::open) loaded, after its redirects: the
    /// address that a browser shows.
    pub fn url(&self) -> String {
        let page = locked(&self.page);
        page.as_ref()
            .map_or(&self.origin, |page| &page.url)
            .to_string()
    }

    fn resolve(&self, path: &str) -> Url {
        match self.origin.join(path) {
            Ok(url) => url,
            Err(why) => panic!("{path:?} is no path: {why}"),
        }
    }

    /// Sends the request to `url` with the browser's cookies and user agent, and keeps the cookies of the
    /// response.
    async fn exchange(&self, mut request: Request<String>, url: &Url) -> Response<String> {
        add_missing(&mut request, USER_AGENT, &self.user_agent);
        add_missing(&mut request, SEC_FETCH_MODE, "cors");
        let cookies = locked(&self.cookies).header(url);
        if let Some(cookies) = cookies {
            add_missing(&mut request, COOKIE, &cookies);
        }
        let method = request.method().clone();
        let reply = async {
            match &self.service {
                Some(service) if url.origin() == self.origin.origin() => {
                    service(in_process(request, url)?).await
                }
                _ => self.send_over_http(request, url).await,
            }
        };
        let response = match tokio::time::timeout(TIMEOUT, reply).await {
            Ok(Ok(response)) => response,
            Ok(Err(why)) => panic!("{method} {url} got no response: {why}"),
            Err(_) => panic!("{method} {url} got no response within {TIMEOUT:?}"),
        };
        for cookie in response.headers().get_all(SET_COOKIE) {
            locked(&self.cookies).set(url, &String::from_utf8_lossy(cookie.as_bytes()));
        }
        response.map(|body| String::from_utf8_lossy(&body).into_owned())
    }

    /// Sends the request to the simulator, or to an application that listens. Fails for hosts on the
    /// internet, so that no test calls WeChat.
    async fn send_over_http(&self, request: Request<String>, url: &Url) -> Reply {
        if !is_on_this_machine(url) && url.origin() != self.origin.origin() {
            let host = url.host_str().unwrap_or_default();
            let text = format!(
                "the browser of a test does not call {host}. The WechatClient of the application \
                 must be Simulator::client, and its Login must have the origin {}",
                self.origin.origin().ascii_serialization()
            );
            return Err(text.into());
        }
        let (parts, body) = request.into_parts();
        let sent = self.http.request(parts.method, url.clone()).body(body);
        let response = sent.headers(parts.headers).send().await?;
        let mut reply = Response::new(Bytes::new());
        *reply.status_mut() = response.status();
        *reply.headers_mut() = response.headers().clone();
        *reply.body_mut() = response.bytes().await?;
        Ok(reply)
    }
}

impl fmt::Debug for Browser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The cookies are omitted, because they are as good as a login.
        f.debug_struct("Browser")
            .field("origin", &self.origin.as_str())
            .finish_non_exhaustive()
    }
}

/// Returns the request as a server receives it: with the path and query as its URI, and the host in a
/// header.
fn in_process(request: Request<String>, url: &Url) -> Result<Request<Full<Bytes>>, BoxError> {
    let mut request = request.map(Full::from);
    *request.uri_mut() = match url.query() {
        Some(query) => format!("{}?{query}", url.path()).parse::<Uri>()?,
        None => url.path().parse::<Uri>()?,
    };
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => add_missing(&mut request, HOST, &format!("{host}:{port}")),
        None => add_missing(&mut request, HOST, host),
    }
    Ok(request)
}

/// Returns the addresses of the links in a page, in their order.
fn links(html: &str) -> Vec<String> {
    let anchors = html.split("<a ").skip(1);
    let addresses = anchors.filter_map(|anchor| {
        let (_, address) = anchor.split_once('>')?.0.split_once("href=\"")?;
        Some(address.split_once('"')?.0.replace("&amp;", "&"))
    });
    addresses.collect()
}

/// Returns the `Referer` of a request to `url` from `page`, as browsers shorten it by
/// default: the origin alone for a request to another origin.
fn referer(page: &Url, url: &Url) -> String {
    if page.origin() != url.origin() {
        return format!("{}/", page.origin().ascii_serialization());
    }
    let page = page.as_str();
    page.split_once('#')
        .map_or(page, |(page, _)| page)
        .to_owned()
}

/// Adds a header, unless the request has one of this name.
fn add_missing<B>(request: &mut Request<B>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        request.headers_mut().entry(name).or_insert(value);
    }
}

fn is_on_this_machine(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let ip = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || ip.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
