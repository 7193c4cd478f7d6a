//! Tests that `Debug` output and panic messages contain no secret.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use tower_wechat::account::{TokenCenter, TokenCenterClient};
use tower_wechat::client::UserTokenResponse;
use tower_wechat::simulator::{Fault, Simulator};
use tower_wechat::{
    AccountTokens, CookieKeys, Login, MemoryStore, RedisStore, SessionCookie, Tickets,
    TrustedHeader, UserId, UserTokens, WechatClient, WechatLayer, WechatUser,
};

use super::search::Secrets;
use crate::support::demo_process::USER_HEADER;
use crate::support::harness::REFRESH;
use crate::support::http_client::HttpClient;
use crate::support::redis_server::RedisServer;

const PASSWORD: &str = "s3cret-of-redis-5f2a";
const BEARER: &str = "a-long-random-bearer-secret-of-the-center";

/// A handler that panics with a message that contains the user, the user's token and the handle of
/// all tokens.
async fn panics(user: WechatUser) -> String {
    panic!(
        "a handler panicked with {user:?} {:?} {:#?}",
        user.token(),
        user.users()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn debug_output_and_panics_show_no_secret() {
    let said = Arc::new(Mutex::new(String::new()));
    let (panic_log, before) = (Arc::clone(&said), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |panic| {
        panic_log.lock().unwrap().push_str(&format!("{panic}\n"));
        before(panic);
    }));

    let redis = RedisServer::with_options(&["--requirepass", PASSWORD]);
    let url = format!("redis://:{PASSWORD}@127.0.0.1:{}/", redis.port());
    let wechat = Simulator::start().await.unwrap();
    let client = WechatClient::builder(wechat.app_id(), wechat.app_secret())
        .api_url(wechat.url())
        .open_url(wechat.url());
    let mut shown = format!("{client:?}\n{:?}\n", RedisStore::builder(&url));
    let client = client.build().unwrap();
    let store = RedisStore::connect(&url).await.unwrap();
    let users = UserTokens::new(client.clone(), store.clone());
    let key =
        "Y29va2llLWtleS1jb29raWUta2V5LWNvb2tpZS1rZXktY29va2llLWtleS1jb29raWUta2V5LWNvb2tpZS1rZXk=";
    let keys = CookieKeys::from_base64(key).unwrap();
    let login = Login::new("http://127.0.0.1:1", keys.clone()).unwrap();
    let session = SessionCookie::new(client.app_id(), &keys);
    let accounts = AccountTokens::new(client.clone(), MemoryStore::new());
    let tickets = Tickets::new(&accounts, ["h5.example.com"]).unwrap();
    let center = TokenCenter::new(accounts.clone(), [BEARER]).unwrap();
    let source = TokenCenterClient::new(wechat.app_id(), wechat.url(), BEARER.to_owned()).unwrap();
    let layer = WechatLayer::new(users.clone())
        .identity(TrustedHeader::new(USER_HEADER).unwrap())
        .login(login.clone())
        .account(tickets.clone());
    shown += &format!(
        "{client:?}\n{store:?}\n{users:?}\n{keys:?}\n{login:?}\n{session:?}\n{center:?}\n\
         {source:?}\n{layer:?}\n{:?}\n{:?}\n{:?}\n",
        accounts.get().await,
        tickets.get().await,
        tickets.js_config("https://h5.example.com/").await,
    );

    // The user is served, gets a panicking handler, and is rejected by WeChat in several ways.
    let user = UserId::new("oUser").unwrap();
    let code = wechat.authorize("oUser", "snsapi_userinfo");
    let grant: UserTokenResponse = client.exchange_code(&code).await.unwrap();
    shown += &format!("{grant:?}\n");
    users.store(&user, &grant).await.unwrap();
    let token = users.get(&user).await.unwrap();
    shown += &format!(
        "{token:?}\n{:?}\n{:?}\n",
        token.access_token(),
        client.exchange_code(&code).await
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let site = HttpClient::new(&format!("http://{}", listener.local_addr().unwrap()));
    let app = Router::new().route("/api/me", get(panics)).layer(layer);
    tokio::spawn(async move { axum::serve(listener, app).await });
    let asked = crate::support::http_client::Asked::get("/api/me").header(USER_HEADER, "oUser");
    assert!(site.try_ask(asked).await.is_err(), "the handler panicked");
    for fault in [
        Fault::on(REFRESH).errcode(40125),
        Fault::on(REFRESH).errcode(40030),
    ] {
        wechat.advance(Duration::from_secs(7_200));
        wechat.inject(fault.times(1));
        let rejected = users.report_invalid(&user, token.access_token()).await;
        shown += &format!("{rejected:?}\n");
    }

    let mut secrets = Secrets::default();
    secrets.add_all_of(&wechat);
    secrets.add("Redis' password", PASSWORD);
    secrets.add("the center's secret", BEARER);
    secrets.add("the cookie key", key);
    secrets.are_not_in("Debug output", &shown);
    let said = said.lock().unwrap().clone();
    secrets.are_not_in("a panic", &said);
    assert!(
        said.contains("a handler panicked with") && said.contains("oUser"),
        "{said}"
    );
    assert!(shown.lines().count() > 14, "{shown}");
}
