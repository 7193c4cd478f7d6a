//! Middleware that resolves the WeChat user of a request and inserts a [`WechatUser`] into its
//! extensions.
//!
//! [`WechatLayer`] lists what happens to each kind of request.
//!
//! ```
//! use axum::{Router, routing::get};
//! use tower_wechat::{MemoryStore, TrustedHeader, UserTokens, WechatClient, WechatLayer, WechatUser};
//!
//! async fn me(user: WechatUser) -> String {
//!     format!("hello {}", user.id()) // user.access_token() has not expired
//! }
//!
//! # fn main() -> Result<(), tower_wechat::Error> {
//! let wechat = WechatClient::new("wx0123456789abcdef", "secret")?;
//! let users = UserTokens::new(wechat, MemoryStore::new());
//! let layer = WechatLayer::new(users).identity(TrustedHeader::new("x-user-id")?);
//! let app: Router = Router::new().route("/me", get(me)).layer(layer);
//! # Ok(()) }
//! ```

mod account;
mod account_layer;
mod account_session;
mod cache_control;
mod call;
mod framing;
mod future;
mod layer_accounts;
mod load_token;
mod login_service;
mod logout;
mod outer;
mod policy;
mod registry;
mod rejection;
mod respond;
mod retained_head;
mod service;
mod settings;
mod user;
mod wechat_layer;

pub use self::account::WechatAccount;
pub use self::account_session::AccountSession;
pub use self::future::ResponseFuture;
pub use self::login_service::LoginService;
pub use self::logout::Logout;
pub use self::policy::Policy;
#[cfg(feature = "platform")]
pub use self::registry::PlatformAccounts;
pub use self::registry::{Account, AccountRegistry, AccountSelector, Accounts, AccountsBuilder};
pub use self::rejection::{JsonRejection, Reject, Rejection};
pub use self::service::WechatService;
#[cfg(any(feature = "axum", all(feature = "testing", debug_assertions)))]
pub(crate) use self::user::AnonymousRequest;
pub use self::user::WechatUser;
pub use self::wechat_layer::WechatLayer;
#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
pub use crate::extract::GrantedUserInfo;
