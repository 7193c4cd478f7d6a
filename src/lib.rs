//! The WeChat user of a request, and a fresh access_token, in every handler.
//!
//! A [Tower](https://docs.rs/tower) layer for the back ends of WeChat Official Accounts (公众号 H5).
//! For every request it finds out which WeChat user is asking, gets that user's web-authorization
//! `access_token` from Redis, has it renewed when its time comes (once, however many processes
//! there are), and puts it into the request's extensions.
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
//!     format!("hello {}", user.id()) // user.access_token() is fresh
//! }
//! # Ok(()) }
//! ```
//!
//! That is the whole integration: a page opened in WeChat signs its user in and returns to where
//! they were going; a script that asks without a session gets a 401 that says where to log in.
//!
//! # What happens when
//!
//! A token is *fresh* until 15 minutes before its expiry, then *stale*, then *expired*.
//!
//! | | the user's token is fresh | stale | expired | nobody is signed in |
//! |---|---|---|---|---|
//! | all is well | served from memory, or by one round trip to Redis | served at once, renewed in the background | the request waits for the renewal, 5 s at most | a page load goes to WeChat and back, anything else gets 401 with `login_url` |
//! | WeChat is down or slow | served | **served**; the renewal is tried again with back-off | 503 `wechat_unavailable` within 5 s, with `Retry-After` | the login ends with a page that says so, 503 |
//! | WeChat refuses the account (secret, IP, quota) | served | served | 503 `wechat_config`; one line of level ERROR | the login ends with a page, 502 |
//! | Redis is down or frozen | served where it is in memory, else 503 `store_unavailable` within a second | the same | the same 503 | as ever; a login cannot end before Redis is back |
//! | the refresh token is dead | served | served, and deleted when the renewal finds out | 401, or the way to WeChat; exactly that pair is deleted | |
//! | a process dies while it renews | served | served | waits; after 10 s at most another process renews | |
//! | the client hangs up, or the process is told to stop | | the renewal goes on, and its result reaches Redis | the same | |
//!
//! # Guides
//!
//! [Signing users in](guide::login) · [Redis](guide::redis) ·
//! [the account's token and the JS-SDK](guide::account) · [testing](guide::testing) ·
//! [failures and timeouts](guide::failures) · [operations](guide::operations) ·
//! [observability](guide::observability) · [the command line](guide::program) ·
//! [encrypted values](guide::sealing) · [from Spring Boot or WxJava](guide::spring_boot) ·
//! [scaling](guide::scaling) · [the demo](guide::demo)
//!
//! # What is promised
//!
//! For one user's token, any number of processes and tasks, any of them dying at any point:
//!
//! - **R1 one renewal.** However many requests ask at once, WeChat is asked once.
//! - **R2 the newest wins.** A slow renewer never overwrites what came after it; a login beats
//!   every renewal that began before it.
//! - **R3 nothing is lost.** A pair that WeChat has granted reaches the store even if the client
//!   that asked has hung up. Call [`UserTokens::shutdown`] before the process ends.
//! - **R4 stale is served.** In the last 15 minutes of a token's life nobody waits: it is used,
//!   and renewed in the background. The same holds while WeChat or Redis is away.
//! - **R5 failures are sorted.** A dead refresh token leads to a new login, a passing failure to
//!   another try with back-off, an operator's mistake to a rest and one loud line.
//! - **R6 reports are compared.** A thousand calls that were refused with one token cause one
//!   renewal ([`WechatUser::with_token`]).
//! - **R7 followers wait cheaply.** Who waits for another process's renewal holds no connection
//!   and no thread, and gives up at its deadline.
//! - **R8 clocks may differ.** App servers a minute apart change nothing that a user can see.
//!
//! # The pieces
//!
//! | piece | what it does |
//! |---|---|
//! | [`WechatLayer`] | the layer itself; its page says what happens to which request |
//! | [`WechatUser`] | what a handler gets |
//! | [`Login`] | signs users in with WeChat: the redirect, the callback, the session |
//! | [`SessionCookie`], [`TrustedHeader`], [`ExtensionIdentity`], closures | who is asking |
//! | [`UserTokens`] | users' tokens without a layer: jobs, other frameworks |
//! | [`RedisStore`], [`MemoryStore`] | where they are kept |
//! | [`AccountTokens`], [`Tickets`] | the account's own access_token and jsapi_ticket |
//! | [`JsConfig`], [`jssdk`] | signatures that pages need for the JS-SDK |
//! | [`TokenCenter`], [`TokenCenterClient`] | one service that keeps the account's token for others |
//! | [`WechatClient`] | WeChat's API |
//! | [`health()`] | whether a process can do its work |
#![cfg_attr(
    feature = "simulator",
    doc = "| [`simulator`] | a WeChat of your own, to test an application against |"
)]
//!
//! # Redis
//!
//! By default tokens lie as a published Spring Boot service lays them, byte for byte, so that an
//! existing Java service and this crate can share one Redis: the hashes `user.wxUserAccessToken`
//! and `user.wxUserRefreshToken`, a field for each user, `TOKEN#MILLISECONDS`. [`Layout::Keys`]
//! keeps one key for each user, with a TTL.
//!
//! # Features
//!
//! | feature | default | what it brings |
//! |---|---|---|
//! | `axum` | yes | extractors for [`WechatUser`] and `Option<WechatUser>`; [`Error`] as a response |
//! | `redis` | yes | [`RedisStore`], with TLS |
//! | `cli` | no | the program `tower-wechat`: an operator's look at the tokens in Redis |
//! | `cluster` | no | `redis+cluster://` |
//! | `metrics` | no | counters, gauges and histograms through the `metrics` facade ([`guide::observability`]) |
//! | `sealing` | no | `SealingKeys`: values in Redis that only a holder of the key can read |
//! | `simulator` | no | `simulator`: WeChat's endpoints with their real rules, faults and a clock |
//!
//! TLS, to WeChat and to Redis, is rustls. Where the application has installed no provider of
//! cryptography for it, the crate installs *ring* when the first client is built.
#![cfg_attr(docsrs, feature(doc_cfg))]
// Nothing that input or the network can reach may panic; tests may.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

mod accounts;
mod backoff;
mod base36;
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
pub mod guide;
pub mod health;
pub mod identity;
pub mod jssdk;
pub mod layer;
mod log_limiter;
pub mod login;
mod metrics;
mod navigation;
mod provider;
mod shrink;
#[cfg(feature = "simulator")]
#[cfg_attr(docsrs, doc(cfg(feature = "simulator")))]
pub mod simulator;
mod store;
mod tickets;
mod users;
mod wechat;

pub mod account {
    //! The account's own access token and `jsapi_ticket`, and the token center.

    pub use crate::accounts::{
        AccountSource, AccountToken, AccountTokens, AccountTokensBuilder, TokenCenterClient,
        TokenMode,
    };
    pub use crate::center::TokenCenter;
    pub use crate::tickets::{JsapiTicket, Tickets};
}

pub mod client {
    //! The client of WeChat's API, and what its calls return.

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

    pub use crate::store::{
        ExternalToken, Layout, RedisNames, RedisStore, RedisStoreBuilder, SweepReport,
    };
    #[cfg(feature = "sealing")]
    #[cfg_attr(docsrs, doc(cfg(feature = "sealing")))]
    pub use crate::store::{SealingKeys, SealingMode};
}

pub mod user {
    //! Access tokens of users, without a layer.

    pub use crate::users::{UserToken, UserTokens, UserTokensBuilder};
}

pub use accounts::{
    AccountSource, AccountToken, AccountTokens, AccountTokensBuilder, TokenCenterClient, TokenMode,
};
pub use center::TokenCenter;
pub use clock::{Clock, Timestamp};
pub use credential::{
    AccessToken, AppId, AppSecret, BearerSecret, Freshness, InvalidIdentifier, Lifetime,
    RefreshToken, UserId,
};
pub use error::{Error, ErrorKind, InvalidToken, RecommendedAction};
#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
pub use extract::{WechatAccountRejection, WechatUserRejection};
pub use health::{AccountTokenHealth, Health, ServiceLevel, health};
pub use identity::{
    CookieKeys, ExtensionIdentity, IdentifiedUser, Identify, Identity, NoIdentity, RequestHead,
    SessionCookie, SessionCookieBuilder, TrustedHeader,
};
pub use jssdk::JsConfig;
pub use layer::{
    JsonRejection, LoginService, Policy, Reject, Rejection, ResponseFuture, WechatAccount,
    WechatLayer, WechatService, WechatUser,
};
pub use login::{Login, LoginBuilder, Scope, SnapshotPolicy};
#[cfg(feature = "cli")]
#[doc(hidden)]
pub use store::admin;
#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
pub use store::{ExternalToken, Layout, RedisNames, RedisStore, RedisStoreBuilder, SweepReport};
pub use store::{MemoryStore, Store};
#[cfg(feature = "sealing")]
#[cfg_attr(docsrs, doc(cfg(feature = "sealing")))]
pub use store::{SealingKeys, SealingMode};
pub use tickets::{JsapiTicket, Tickets};
pub use users::{UserToken, UserTokens, UserTokensBuilder};
pub use wechat::{
    AccountTokenResponse, JsapiTicketResponse, Language, UserInfo, UserTokenResponse, WechatClient,
    WechatClientBuilder,
};
