//! Middleware for the back ends of WeChat Official Accounts (公众号 H5): the WeChat user of a request,
//! and a fresh access token of that user, in every handler.
//!
//! [`WechatLayer`] is a [Tower](https://docs.rs/tower) layer. For each request it resolves the
//! WeChat user and reads that user's web-authorization `access_token` from memory or from Redis. It
//! inserts a [`WechatUser`] into the request's extensions. Of all processes that share a store, one
//! renews a token ahead of its expiry.
//!
//! ```no_run
//! use axum::{Router, routing::get};
//! use tower_wechat::{
//!     CookieKeys, Login, RedisStore, UserTokens, WechatClient, WechatLayer, WechatUser,
//! };
//!
//! # async fn run(cookie_key: &str) -> Result<(), tower_wechat::Error> {
//! let wechat = WechatClient::new("wx0123456789abcdef", "your-app-secret")?;
//! let store = RedisStore::connect("redis://127.0.0.1/").await?;
//! let users = UserTokens::new(wechat, store);
//! let login = Login::new("https://h5.example.com", CookieKeys::from_base64(cookie_key)?)?;
//!
//! let app: Router = Router::new()
//!     .route("/me", get(me))
//!     .layer(WechatLayer::new(users).login(login));
//!
//! async fn me(user: WechatUser) -> String {
//!     format!("hello {}", user.id()) // user.access_token() has not expired
//! }
//! # Ok(()) }
//! ```
//!
//! With this set-up, a page that is opened in WeChat logs its user in and then loads. A script's
//! request without a session receives 401 with the URL of the login.
//!
//! A token is *fresh* until 15 minutes before its expiry, then *stale*, then *expired*. Fresh and
//! stale tokens are served at once. [`guide::failures`] lists the response to a request in each
//! situation, also while WeChat, Redis or a process fails.
//!
//! # Guides
//!
//! | guide | contents |
//! |---|---|
//! | [`guide::recipes`] | nine small applications to start from |
//! | [`guide::login`] | logins with WeChat, from the account's settings to a greeting page |
//! | [`guide::accounts`] | several accounts behind one layer, a website app for users outside WeChat |
//! | [`guide::platform`] | a third-party platform (第三方平台), from the console's settings to the release test |
//! | [`guide::account`] | the account's own token and ticket, JS-SDK signatures, the token center |
//! | [`guide::redis`] | connections, topologies, layouts and settings of Redis |
//! | [`guide::failures`] | responses while WeChat, Redis or a process fails, and all timeouts |
//! | [`guide::production`] | what to do and to try before users come |
//! | [`guide::operations`] | health, errcodes, proxies, shutdown |
//! | [`guide::observability`] | metrics, spans and log events |
//! | [`guide::program`] | the command line for operators |
//! | [`guide::sealing`] | encrypted values in Redis |
//! | [`guide::scaling`] | growth to many processes and users |
//! | [`guide::spring_boot`] | sharing Redis with a Spring Boot service, moving from WxJava |
//! | [`guide::testing`] | tests of an application against the simulator |
//! | [`guide::demo`] | the demo, its routes and variables |
//!
//! # Guarantees
//!
//! These guarantees hold for each user's token, with any number of processes, even if any of them
//! crashes at any point:
//!
//! - **One renewal.** Concurrent requests and processes cause one call to WeChat.
//! - **The newest wins.** A slow renewal never overwrites the token of a later login or renewal.
//! - **Nothing is lost.** Tokens that WeChat has issued reach the store even if the client
//!   disconnects. Call [`UserTokens::shutdown`] before the process ends.
//! - **Stale tokens are served** while they are renewed, and while WeChat or Redis is unreachable.
//! - **Failures are sorted.** A revoked refresh token leads to a login, and a transient failure to
//!   retries with back-off. A failure that only the operator can fix leads to a pause and one log
//!   line.
//! - **Reports are compared.** A thousand calls with a token that WeChat rejects cause one renewal
//!   ([`WechatUser::with_token`]).
//! - **Followers are bounded.** A request that waits for the renewal of another process holds no
//!   connection and no thread, and fails at its deadline.
//! - **Clocks may differ.** Servers whose clocks differ by a minute serve users without a visible
//!   effect.
//!
//! # Modules
//!
//! The types that most applications use are at the root. The other types are in modules:
//!
//! | module | contents |
//! |---|---|
//! | [`layer`] | [`WechatLayer`], [`WechatUser`], the account of a request, renderers of rejections |
//! | [`login`] | [`Login`]: the redirect to WeChat, the callback, the session |
//! | [`identity`] | sources of a request's user: [`SessionCookie`], [`TrustedHeader`], extensions, closures |
//! | [`user`] | [`UserTokens`]: users' tokens in jobs and other frameworks |
//! | [`account`] | [`AccountTokens`] and [`Tickets`]: the account's own token and `jsapi_ticket`; the token center |
//! | [`jssdk`] | [`JsConfig`]: signatures for pages that use the JS-SDK |
//! | [`client`] | [`WechatClient`]: WeChat's API |
#![cfg_attr(
    feature = "redis",
    doc = "| [`redis`] | [`RedisStore`]: its builder, layouts and encryption |"
)]
//! | [`credential`] | secrets, ids and lifetimes |
//! | [`clock`] | points in time, and a clock that tests can set |
//! | [`mod@health`] | [`health()`]: readiness of a process |
#![cfg_attr(
    feature = "simulator",
    doc = "| [`simulator`] | a WeChat server for tests of an application |"
)]
#![cfg_attr(
    feature = "testing",
    doc = "| [`testing`] | signed-in users and a browser for tests of an application |"
)]
//!
//! # Features
//!
//! | feature | default | contents |
//! |---|---|---|
//! | `axum` | yes | extractors for [`WechatUser`] and `Option<WechatUser>`; [`Error`] as a response |
//! | `redis` | yes | `RedisStore`, with TLS |
//! | `cli` | no | the program `tower-wechat`, with which an operator inspects the tokens in Redis |
//! | `cluster` | no | `redis+cluster://` |
//! | `metrics` | no | counters, gauges and histograms through the `metrics` facade ([`guide::observability`]) |
//! | `platform` | no | `platform`: a third-party platform (第三方平台), and the accounts that their owners authorize to it |
//! | `sealing` | no | `SealingKeys`: encryption of the values in Redis |
//! | `simulator` | no | `simulator`: WeChat's endpoints with their real rules, injected faults and a clock |
//! | `testing` | no | `testing`: signed-in users and a browser for tests, not in release builds; contains `simulator` |
//! | `anyhow` | no | `with_token` for calls that return `anyhow::Error` |
//!
//! TLS to WeChat and to Redis uses rustls. If the application has not installed a crypto provider
//! for rustls, the crate installs *ring* when it builds its first client.
#![cfg_attr(docsrs, feature(doc_cfg))]
// Code that input or the network can reach must not panic. Tests may panic.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

mod accounts;
mod background_task;
mod backoff;
mod base36;
#[cfg(feature = "redis")]
mod batch_queue;
mod bytes;
mod center;
pub mod clock;
pub mod credential;
mod error;
#[cfg(feature = "axum")]
mod extract;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
#[allow(missing_docs, unreachable_pub)]
pub mod fuzzing;
mod guarded_call;
pub mod guide;
pub mod health;
mod html_page;
pub mod identity;
pub mod jssdk;
pub mod layer;
mod log_limiter;
pub mod login;
mod metrics;
mod navigation;
#[cfg(feature = "platform")]
#[cfg_attr(docsrs, doc(cfg(feature = "platform")))]
pub mod platform;
mod provider;
mod shrink;
#[cfg(feature = "simulator")]
#[cfg_attr(docsrs, doc(cfg(feature = "simulator")))]
pub mod simulator;
mod store;
mod sync;
#[cfg(feature = "testing")]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
pub mod testing;
mod tickets;
mod users;
mod wechat;

pub mod account {
    //! The account's own access token and `jsapi_ticket`, and the token center.
    //!
    //! ```
    //! use tower_wechat::{AccountTokens, MemoryStore, WechatClient};
    //!
    //! /// Sends one text message to a follower of the account.
    //! async fn greet(wechat: &WechatClient, account: &AccountTokens) -> Result<(), tower_wechat::Error> {
    //!     let body = serde_json::json!({
    //!         "touser": "oUser", "msgtype": "text", "text": { "content": "hello" },
    //!     });
    //!     let path = "cgi-bin/message/custom/send";
    //!     let _: serde_json::Value = account
    //!         .with_token(async |token| wechat.post_json(path, token.access_token(), &body).await)
    //!         .await?;
    //!     Ok(())
    //! }
    //!
    //! # fn main() -> Result<(), tower_wechat::Error> {
    //! let wechat = WechatClient::new("wx0123456789abcdef", "secret")?;
    //! let account = AccountTokens::new(wechat, MemoryStore::new());
    //! # let _ = account;
    //! # Ok(()) }
    //! ```

    pub use crate::accounts::{
        AccountSource, AccountToken, AccountTokens, AccountTokensBuilder, TokenCenterClient,
        TokenMode,
    };
    pub use crate::center::TokenCenter;
    pub use crate::tickets::{JsapiTicket, Tickets};
}

pub mod client {
    //! The client of WeChat's API, and what its calls return.
    //!
    //! ```
    //! use tower_wechat::WechatClient;
    //! use tower_wechat::client::Language;
    //!
    //! /// Returns the nickname of the user who has just returned from WeChat with `code`.
    //! async fn nickname(wechat: &WechatClient, code: &str) -> Result<Option<String>, tower_wechat::Error> {
    //!     let response = wechat.exchange_code(code).await?;
    //!     let Some(openid) = &response.openid else { return Ok(None) };
    //!     let info = wechat.user_info(&response.access_token, openid, Language::ZhCn).await?;
    //!     Ok(Some(info.nickname))
    //! }
    //! ```

    pub use crate::error::{InvalidToken, RecommendedAction};
    pub use crate::wechat::{
        AccountTokenResponse, JsapiTicketResponse, Language, UserInfo, UserTokenResponse,
        WechatClient, WechatClientBuilder,
    };
}

#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
pub mod redis {
    //! The store in Redis, and its settings.
    //!
    //! ```no_run
    //! use tower_wechat::RedisStore;
    //! use tower_wechat::redis::Layout;
    //!
    //! # async fn run() -> Result<(), tower_wechat::Error> {
    //! let store = RedisStore::builder("rediss://app:password@redis.example.com:6380/2")
    //!     .layout(Layout::Keys)
    //!     .connect()
    //!     .await?;
    //! # let _ = store;
    //! # Ok(()) }
    //! ```

    #[cfg(feature = "platform")]
    #[cfg_attr(docsrs, doc(cfg(feature = "platform")))]
    pub use crate::store::ExternalPlatform;
    pub use crate::store::{
        ExternalToken, Layout, RedisNames, RedisStore, RedisStoreBuilder, SweepReport,
    };
    #[cfg(feature = "sealing")]
    #[cfg_attr(docsrs, doc(cfg(feature = "sealing")))]
    pub use crate::store::{SealingKeys, SealingMode};
}

pub mod user {
    //! Access tokens of users, without a layer.
    //!
    //! ```
    //! use tower_wechat::{Error, UserId, UserTokens};
    //!
    //! /// Returns a user's nickname, for example in a job that runs at night.
    //! async fn nickname(users: &UserTokens, user: &UserId) -> Result<String, Error> {
    //!     Ok(users.profile(user).await?.nickname.clone())
    //! }
    //! ```

    pub use crate::users::{UserToken, UserTokens, UserTokensBuilder};
}

#[doc(inline)]
pub use account::{AccountToken, AccountTokens, Tickets};
#[doc(inline)]
pub use client::WechatClient;
#[doc(inline)]
pub use credential::{AccessToken, UserId};
pub use error::{Error, ErrorKind};
#[doc(inline)]
pub use health::health;
#[doc(inline)]
pub use identity::{CookieKeys, RequestHead, SessionCookie, TrustedHeader};
#[doc(inline)]
pub use jssdk::JsConfig;
#[doc(inline)]
pub use layer::{
    Account, AccountSelector, Accounts, Logout, Policy, Rejection, WechatLayer, WechatUser,
};
#[doc(inline)]
pub use login::{Login, Scope};
#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
#[doc(inline)]
pub use redis::RedisStore;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub use store::admin;
pub use store::{MemoryStore, Store};
#[doc(inline)]
pub use user::{UserToken, UserTokens};
