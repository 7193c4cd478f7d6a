//! The registry of a platform's accounts, and requests for accounts that it does not return.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use tower::{Layer, ServiceExt, service_fn};
use tower_wechat::credential::AppId;
use tower_wechat::layer::{AccountRegistry, PlatformAccounts};
use tower_wechat::simulator::SimulatedPush;
use tower_wechat::{Account, Accounts, MemoryStore, Policy, WechatLayer};

use super::harness::{SHOP, World};
use crate::support::log_lines::LogLines;

async fn authorized() -> World {
    let world = World::with(Ok).await;
    world.wechat.authorize(SHOP).unwrap();
    let event = SimulatedPush::authorized(SHOP);
    world.wechat.push(event).await.unwrap();
    world.is_authorized(SHOP).await;
    world
}

fn layered(registry: impl AccountRegistry) -> Accounts {
    let accounts = Accounts::builder(MemoryStore::new()).registry(registry);
    accounts.build().unwrap()
}

async fn status(accounts: &Accounts, method: Method, uri: &str) -> StatusCode {
    let layer = WechatLayer::for_accounts(accounts.clone()).policy(Policy::Optional);
    let service = layer.layer(service_fn(async |_: Request<()>| {
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    }));
    let request = Request::builder().method(method).uri(uri);
    let response = service.oneshot(request.body(()).unwrap()).await.unwrap();
    response.status()
}

async fn get(accounts: &Accounts) -> StatusCode {
    status(accounts, Method::GET, &format!("/{SHOP}/")).await
}

fn collect() -> (LogLines, tracing::subscriber::DefaultGuard) {
    let lines = LogLines::default();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(lines.clone())
        .with_ansi(false)
        .finish();
    (lines, tracing::subscriber::set_default(subscriber))
}

#[tokio::test]
async fn an_application_declines_an_account_or_fails() {
    let world = authorized().await;
    let calls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    let accounts =
        layered(world.platform.accounts(
            move |account| match counted.fetch_add(1, Ordering::Relaxed) {
                0 => Ok(None),
                1 => Err(std::io::Error::other("no rows"))?,
                _ => Ok(Some(account)),
            },
        ));
    let (lines, _guard) = collect();
    assert_eq!(get(&accounts).await, 404);
    assert!(
        lines.text().contains("may not have authorized it"),
        "{}",
        lines.text()
    );
    assert_eq!(get(&accounts).await, 503);
    assert!(lines.text().contains("no rows"), "{}", lines.text());
    assert_eq!(get(&accounts).await, 200);
}

/// A registry of an application, which looks an account up before it serves it.
struct Customers {
    authorized: PlatformAccounts,
    customers: Vec<&'static str>,
}

impl AccountRegistry for Customers {
    type Error = Box<dyn std::error::Error + Send + Sync>;

    async fn find(&self, app_id: AppId) -> Result<Option<Account>, Self::Error> {
        tokio::task::yield_now().await;
        match self.customers.contains(&app_id.as_str()) {
            true => self.authorized.find(app_id).await,
            false => Ok(None),
        }
    }

    async fn next_change(&self) -> AppId {
        self.authorized.next_change().await
    }
}

#[tokio::test]
async fn a_registry_of_the_application_asks_that_of_the_platform() {
    let world = authorized().await;
    for (customers, expected) in [(vec![SHOP], 200), (vec![], 404)] {
        let accounts = layered(Customers {
            authorized: world.platform.accounts(Ok),
            customers,
        });
        assert_eq!(get(&accounts).await, expected);
    }
}

#[tokio::test]
async fn the_log_names_a_push_that_met_the_layer_of_accounts() {
    let starting = World::start().await;
    let listed = authorized().await;
    for (world, expected) in [(starting, 503), (listed, 404)] {
        let accounts = layered(world.platform.accounts(Ok));
        let (lines, _guard) = collect();
        let uri = "/wechat/push?timestamp=1&nonce=n&msg_signature=secret";
        for _ in 0..3 {
            assert_eq!(status(&accounts, Method::POST, uri).await, expected);
        }
        let lines = lines.text();
        assert_eq!(lines.lines().count(), 1, "{lines}");
        let text = "mount the route of Platform::push_layer outside of that layer";
        assert!(
            lines.contains(text) && lines.contains("/wechat/push"),
            "{lines}"
        );
        assert!(!lines.contains("secret"), "{lines}");
    }
}
