//! Tests of an application's own handlers and routes: signed-in users without network, and a browser
//! that logs in through the [`simulator`](crate::simulator).
//!
//! Add the feature `testing` to the dev-dependencies of the application:
//!
//! ```toml
//! [dev-dependencies]
//! tower-wechat = { version = "0.1", features = ["testing"] }
//! ```
//!
//! A [`TestUser`] is a user for handlers and routes without a layer:
//!
//! ```
//! use axum::{Extension, Router, routing::get};
//! use tower_wechat::WechatUser;
//! use tower_wechat::testing::{Browser, TestUser};
//!
//! async fn me(user: WechatUser) -> String {
//!     format!("hello {}", user.id())
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let alice = TestUser::new("oAlice").build();
//! let app = Router::new().route("/me", get(me)).layer(Extension(alice));
//! let page = Browser::new("http://localhost", app).open("/me").await;
//! assert_eq!(page.body(), "hello oAlice");
//! # }
//! ```
//!
//! A [`Browser`] opens a page of the whole application, with its layer. It goes to the simulator's
//! login and comes back, without a port for the application:
//!
//! ```
//! use axum::{Router, routing::get};
//! use tower_wechat::simulator::{SimulatedUser, Simulator};
//! use tower_wechat::testing::Browser;
//! use tower_wechat::{CookieKeys, Login, MemoryStore, UserTokens, WechatLayer, WechatUser};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let simulator = Simulator::start().await?;
//! simulator.add_user(SimulatedUser::new("oAlice"));
//! let users = UserTokens::new(simulator.client()?, MemoryStore::new());
//! let login = Login::new("https://h5.example.com", CookieKeys::random()?)?;
//! let app = Router::new()
//!     .route("/me", get(async |user: WechatUser| user.id().to_owned()))
//!     .layer(WechatLayer::new(users).login(login));
//!
//! let browser = Browser::new("https://h5.example.com", app);
//! assert_eq!(browser.fetch("/me").await.status(), 401);
//! assert_eq!(browser.open("/me").await.body(), "oAlice");
//! assert_eq!(browser.fetch("/me").await.status(), 200);
//! # Ok(()) }
//! ```
//!
//! # Release builds
//!
//! The contents of this module exist only in builds with debug assertions, such as those of
//! `cargo test`. A release build has no fake user, also if its features include `testing`. Tests
//! that also run with `--release` need `debug-assertions = true` in `[profile.release]`, or
//! `#[cfg(debug_assertions)]` on those that name this module.

#[cfg(debug_assertions)]
mod browser;
#[cfg(debug_assertions)]
mod cookies;
#[cfg(debug_assertions)]
mod user;

// The compiler's error in a release build shows the line above the item, with its comment.
#[cfg(debug_assertions)] // A release build has no users and browsers of tests.
pub use self::browser::Browser;
#[cfg(debug_assertions)] // A release build has no users and browsers of tests.
pub use self::user::{TestUser, anonymous};
