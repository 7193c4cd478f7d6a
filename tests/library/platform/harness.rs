//! A platform over real HTTP: its pushes and its authorize pages on plain hyper, without axum. A
//! simulator replaces WeChat.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tower::{ServiceExt, service_fn};
use tower_wechat::clock::Clock;
use tower_wechat::platform::{AuthorizePages, Customer, Platform, PushKeys};
use tower_wechat::simulator::{SimulatedPlatform, SimulatedPush, Simulator};
use tower_wechat::{CookieKeys, Error, MemoryStore};

use crate::support::browser::{Browser, Reply};
use crate::support::eventually;

pub const COMPONENT: &str = "wx00000000000000c0";
/// The account that the simulator authorizes by default.
pub const SHOP: &str = "wx0123456789abcdef";
pub const CREATE: &str = "/cgi-bin/component/api_create_preauthcode";
pub const QUERY: &str = "/cgi-bin/component/api_query_auth";
/// A header of the test's guard: the customer who is signed in to the application.
pub const CUSTOMER: &str = "x-customer";

/// A platform and its pages.
pub struct World {
    pub sim: Simulator,
    pub wechat: SimulatedPlatform,
    pub platform: Platform,
    pub clock: Clock,
    pub keys: CookieKeys,
    /// The address of the application.
    pub url: String,
    serving: AbortHandle,
    listener: Option<TcpListener>,
}

impl World {
    /// Starts a platform without a ticket. It serves requests after [`serve`](Self::serve).
    pub async fn start() -> Self {
        let sim = Simulator::start().await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let wechat = sim
            .add_platform(COMPONENT, "secret")
            .push_url(format!("{url}/push"));
        let (token, key) = wechat.push_keys();
        let clock = Clock::shifted();
        let platform = Platform::builder(wechat.client().unwrap(), MemoryStore::new())
            .push_keys(PushKeys::new([token], [key]).unwrap())
            .mp_url(sim.url())
            .clock(clock.clone())
            .build()
            .unwrap();
        Self {
            sim,
            wechat,
            platform,
            clock,
            keys: CookieKeys::random().unwrap(),
            url,
            serving: tokio::spawn(async {}).abort_handle(),
            listener: Some(listener),
        }
    }

    /// Starts a platform with a ticket, and serves these pages.
    pub async fn with(
        change: impl FnOnce(AuthorizePages) -> Result<AuthorizePages, Error>,
    ) -> Self {
        let mut world = Self::start().await;
        let pages = change(world.pages()).unwrap();
        world.serve(pages);
        world.push_ticket().await;
        world
    }

    pub fn pages(&self) -> AuthorizePages {
        let return_url = format!("{}/wechat/authorized", self.url);
        self.platform
            .authorize_pages(return_url, &self.keys)
            .unwrap()
    }

    /// Serves the pages at all paths but that of the pushes.
    pub fn serve(&mut self, pages: AuthorizePages) {
        let listener = self.listener.take().unwrap();
        let pushes = self.platform.push_service();
        let app = service_fn(move |mut request: Request<Incoming>| {
            let (pushes, pages) = (pushes.clone(), pages.clone());
            async move {
                // The guard of an application.
                let customer = request.headers().get(CUSTOMER);
                if let Some(customer) = customer.map(|name| name.to_str().unwrap().to_owned()) {
                    request
                        .extensions_mut()
                        .insert(Customer::new(customer).unwrap());
                }
                let response: Result<Response<Full<Bytes>>, Infallible> = match request.uri().path()
                {
                    "/push" => pushes.oneshot(request).await,
                    _ => pages.oneshot(request).await,
                };
                response
            }
        });
        let serving = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let app = TowerToHyperService::new(app.clone());
                tokio::spawn(async move {
                    hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), app)
                        .await
                        .ok();
                });
            }
        });
        self.serving = serving.abort_handle();
    }

    pub async fn push_ticket(&self) {
        let replies = self.wechat.push(SimulatedPush::ticket()).await.unwrap();
        assert!(replies[0].is_success(), "{replies:?}");
    }

    /// Loads the page with the links.
    pub async fn links(&self, browser: &Browser, query: &str) -> Links {
        let reply = browser
            .visit(&format!("{}/wechat/authorize{query}", self.url))
            .await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        Links(reply)
    }

    /// Follows the first link of a page to WeChat, where the owner agrees. Returns the URL to which
    /// WeChat returns.
    pub async fn agree(&self, links: &Links) -> String {
        let referer = format!("{}/", self.url);
        let headers = [("accept", "text/html"), ("referer", &*referer)];
        let browser = Browser::new();
        let link = links.urls()[0].clone();
        let reply = browser
            .send(http::Method::GET, &link, &headers)
            .await
            .unwrap();
        let location = reply.location();
        location.unwrap_or_else(|| panic!("{}", reply.text)).into()
    }

    /// Waits until the account is authorized.
    pub async fn is_authorized(&self, account: &str) {
        let what = format!("{account} is authorized");
        eventually(&what, std::time::Duration::from_secs(5), async || {
            let accounts = self.platform.app_ids().await.unwrap_or_default();
            accounts.iter().any(|known| known.as_str() == account)
        })
        .await;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// A page with links.
pub struct Links(pub Reply);

impl Links {
    /// Returns the URLs of the links, in their order.
    pub fn urls(&self) -> Vec<String> {
        let links = self.0.text.split("<a href=\"").skip(1);
        let urls = links.map(|rest| rest.split('"').next().unwrap().replace("&amp;", "&"));
        urls.collect()
    }

    /// Returns a parameter of the first link.
    pub fn parameter(&self, name: &str) -> String {
        let url = url::Url::parse(&self.urls()[0]).unwrap();
        let value = url.query_pairs().find(|(known, _)| known == name);
        value
            .unwrap_or_else(|| panic!("no {name} in {url}"))
            .1
            .into_owned()
    }
}
