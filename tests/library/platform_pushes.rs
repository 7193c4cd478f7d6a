//! Pushes of the simulated WeChat to a platform, over real HTTP: the simulator and the platform have
//! each their own cipher.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::routing::post;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tower::ServiceBuilder;
use tower_wechat::platform::{Platform, PlatformPush, PushKeys};
use tower_wechat::simulator::{SimulatedPlatform, SimulatedPush as Push, Simulator};
use tower_wechat::{ErrorKind, MemoryStore};

const COMPONENT: &str = "wx00000000000000cc";
const SHOP: &str = "wx00000000000000aa";
const TOKEN: &str = "the-token-of-pushes";
const KEY: &str = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG";
const NEXT_KEY: &str = "zyxwvutsrqponmlkjihgfedcba9876543210ZYXWVUT";

/// Returns the simulator with one platform and one account.
async fn simulated_wechat() -> (Simulator, SimulatedPlatform) {
    let sim = Simulator::start().await.unwrap();
    sim.add_account(SHOP, "secret-of-the-shop");
    let wechat = sim
        .add_platform(COMPONENT, "secret-of-the-platform")
        .token(TOKEN)
        .aes_key(KEY);
    (sim, wechat)
}

fn platform_with(wechat: &SimulatedPlatform, keys: PushKeys) -> Platform {
    let builder = Platform::builder(wechat.client().unwrap(), MemoryStore::new());
    builder.push_keys(keys).build().unwrap()
}

fn platform(wechat: &SimulatedPlatform) -> Platform {
    platform_with(wechat, PushKeys::new([TOKEN], [KEY]).unwrap())
}

/// Serves a router, and returns its URL.
async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

#[tokio::test]
async fn a_ticket_starts_the_platform() {
    let (_sim, wechat) = simulated_wechat().await;
    let platform = platform(&wechat);
    let error = platform.prefetch().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PlatformStarting);
    let router = Router::new().route_service("/push", platform.push_service());
    let wechat = wechat.push_url(format!("{}/push", serve(router).await));
    let replies = wechat.push(Push::ticket().repeat(2)).await.unwrap();
    assert_eq!(replies.len(), 3);
    assert!(
        replies.iter().all(|reply| reply.is_success()),
        "{replies:?}"
    );
    platform.prefetch().await.unwrap();
    // Without an application, users' messages have no reply.
    let wechat = wechat.clone().message_url(replies[0].url.clone());
    let replies = wechat
        .push(Push::text(SHOP, "oAlice", "hello"))
        .await
        .unwrap();
    assert!(replies[0].is_success(), "{replies:?}");
}

#[tokio::test]
async fn an_account_comes_and_goes_with_its_events() {
    let (_sim, wechat) = simulated_wechat().await;
    let platform = platform(&wechat);
    let router = Router::new().route_service("/push", platform.push_service());
    let wechat = wechat.push_url(format!("{}/push", serve(router).await));
    wechat.push(Push::ticket()).await.unwrap();
    wechat.authorize(SHOP).unwrap();
    let replies = wechat.push(Push::authorized(SHOP)).await.unwrap();
    assert!(replies[0].is_success(), "{replies:?}");
    let accounts = platform.app_ids().await.unwrap();
    assert_eq!(accounts.len(), 1);
    platform.account_tokens(&accounts[0]).get().await.unwrap();

    // An event of an hour ago does not end the authorization, and is answered like all others.
    let late = Push::unauthorized(SHOP).age(Duration::from_secs(3_600));
    let replies = wechat.push(late).await.unwrap();
    assert!(replies[0].is_success(), "{replies:?}");
    assert_eq!(platform.app_ids().await.unwrap(), accounts);
    wechat.revoke(SHOP);
    let replies = wechat.push(Push::unauthorized(SHOP)).await.unwrap();
    assert!(replies[0].is_success(), "{replies:?}");
    assert!(platform.app_ids().await.unwrap().is_empty());
}

#[tokio::test]
async fn the_simulator_reads_the_reply_of_a_handler() {
    async fn messages(Path(account): Path<String>, push: PlatformPush) -> String {
        let (Some("text"), Some(content)) = (push.msg_type(), push.text("Content")) else {
            return String::new();
        };
        format!(
            "<xml><MsgType>text</MsgType><Content><![CDATA[{account}: {content}]]></Content></xml>"
        )
    }
    let (_sim, wechat) = simulated_wechat().await;
    let platform = platform(&wechat);
    let handler = post(messages).layer(platform.push_layer());
    let url = serve(Router::new().route("/{account}/push", handler)).await;
    let wechat = wechat
        .push_url(format!("{url}/events/push"))
        .message_url(format!("{url}/$APPID$/push"));
    wechat.authorize(SHOP).unwrap();
    let replies = wechat
        .push(Push::text(SHOP, "oAlice", "你好 <b>"))
        .await
        .unwrap();
    assert_eq!(replies[0].status, Some(200), "{replies:?}");
    let message = replies[0].message.as_deref().unwrap();
    assert!(message.contains(&format!("{SHOP}: 你好 <b>")), "{message}");
    let replies = wechat
        .push(Push::user_event(SHOP, "oAlice", "subscribe"))
        .await
        .unwrap();
    assert!(replies[0].is_success(), "{replies:?}");
    let unknown = Push::event("notify_of_next_year", [("Field", "value")]);
    assert!(wechat.push(unknown).await.unwrap()[0].is_success());
}

#[tokio::test]
async fn keys_rotate_without_a_lost_push() {
    let (_sim, wechat) = simulated_wechat().await;
    let keys = PushKeys::new(["next-token", TOKEN], [NEXT_KEY, KEY]).unwrap();
    let platform = platform_with(&wechat, keys);
    let reply = post(async || "<xml><Content>hello</Content></xml>").layer(platform.push_layer());
    let url = format!("{}/push", serve(Router::new().route("/push", reply)).await);
    let wechat = wechat.push_url(url.clone()).message_url(url);
    wechat.authorize(SHOP).unwrap();
    let message = || Push::text(SHOP, "oAlice", "hello");
    for former in [false, true, true] {
        let (ticket, message) = match former {
            false => (Push::ticket(), message()),
            true => (Push::ticket().former_keys(), message().former_keys()),
        };
        assert!(wechat.push(ticket).await.unwrap()[0].is_success());
        let replies = wechat.push(message).await.unwrap();
        assert!(replies[0].message.is_some(), "{replies:?}");
        wechat.rotate_keys("next-token", NEXT_KEY);
    }
    // A platform without the new keys refuses them.
    let old = platform_with(&wechat, PushKeys::new([TOKEN], [KEY]).unwrap());
    let router = Router::new().route_service("/push", old.push_service());
    let wechat = wechat.push_url(format!("{}/push", serve(router).await));
    assert_eq!(
        wechat.push(Push::ticket()).await.unwrap()[0].status,
        Some(401)
    );
}

#[tokio::test]
async fn forged_foreign_and_unsafe_pushes_change_nothing() {
    let (_sim, wechat) = simulated_wechat().await;
    let platform = platform(&wechat);
    let router = Router::new().route_service("/push", platform.push_service());
    let wechat = wechat.push_url(format!("{}/push", serve(router).await));
    assert!(wechat.push(Push::ticket()).await.unwrap()[0].is_success());
    wechat.authorize(SHOP).unwrap();
    assert!(wechat.push(Push::authorized(SHOP)).await.unwrap()[0].is_success());
    let xxe = "<!DOCTYPE x [<!ENTITY e SYSTEM \"file:///etc/passwd\">]>\
        <xml><InfoType>component_verify_ticket</InfoType>\
        <ComponentVerifyTicket>&e;</ComponentVerifyTicket></xml>";
    let empty = "<xml><InfoType>component_verify_ticket</InfoType>\
        <ComponentVerifyTicket><![CDATA[]]></ComponentVerifyTicket></xml>";
    for (push, status) in [
        (Push::ticket().wrong_signature(), 401),
        (Push::unauthorized(SHOP).wrong_signature(), 401),
        (
            Push::unauthorized(SHOP).component("wx00000000000000dd"),
            400,
        ),
        (Push::ticket().component("wx00000000000000dd"), 400),
        (Push::xml(xxe), 400),
        (Push::xml(empty), 400),
        (Push::xml("not XML"), 400),
        (
            Push::xml(format!("<xml><a>{}</a></xml>", "x".repeat(64 * 1024))),
            413,
        ),
    ] {
        let replies = wechat.push(push).await.unwrap();
        assert_eq!(replies[0].status, Some(status), "{replies:?}");
    }
    let accounts = platform.app_ids().await.unwrap();
    assert_eq!(accounts.len(), 1, "{accounts:?}");
}

#[tokio::test]
async fn a_process_without_keys_takes_no_push() {
    let (_sim, wechat) = simulated_wechat().await;
    let platform = Platform::builder(wechat.client().unwrap(), MemoryStore::new());
    let platform = platform.build().unwrap();
    let router = Router::new().route_service("/push", platform.push_service());
    let wechat = wechat.push_url(format!("{}/push", serve(router).await));
    assert_eq!(
        wechat.push(Push::ticket()).await.unwrap()[0].status,
        Some(503)
    );
}

#[tokio::test]
async fn a_hyper_service_receives_messages() {
    let (_sim, wechat) = simulated_wechat().await;
    let platform = platform(&wechat);
    let service = ServiceBuilder::new()
        .layer(platform.push_layer())
        .service_fn(echo);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/push", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = TowerToHyperService::new(service.clone());
            tokio::spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    let wechat = wechat.push_url(url.clone()).message_url(url);
    wechat.authorize(SHOP).unwrap();
    assert!(wechat.push(Push::ticket()).await.unwrap()[0].is_success());
    let replies = wechat
        .push(Push::text(SHOP, "oAlice", "hello"))
        .await
        .unwrap();
    let message = replies[0].message.as_deref().unwrap();
    assert!(message.contains("hello"), "{message}");
}

/// Replies with the message itself.
async fn echo(request: Request<Full<Bytes>>) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = request.into_body().collect().await?.to_bytes();
    Ok(Response::new(Full::new(body)))
}

/// A handler on a route without the layer is a mistake of the application.
#[tokio::test]
async fn a_push_outside_of_the_layer_is_a_mistake() {
    let router = Router::new().route("/push", post(async |_: PlatformPush| ""));
    let mut service = router.into_service::<axum::body::Body>();
    let request = Request::post("/push")
        .body(axum::body::Body::empty())
        .unwrap();
    let response = tower::Service::call(&mut service, request).await.unwrap();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
}
