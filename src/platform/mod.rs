//! The third-party platform (第三方平台): accounts (公众号) that their owners have authorized to it.
//!
//! ```no_run
//! use axum::Router;
//! use tower_wechat::platform::{Platform, PushKeys};
//! use tower_wechat::{Accounts, CookieKeys, Login, RedisStore, WechatClient, WechatLayer};
//!
//! # fn run(store: RedisStore, keys: CookieKeys) -> Result<(), tower_wechat::Error> {
//! let component = WechatClient::new("wx00000000000000c0", "component-secret")?;
//! let push_keys = PushKeys::new(["token"], ["abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"])?;
//! let platform = Platform::builder(component, store.clone()).push_keys(push_keys).build()?;
//! let cookie_keys = keys.clone();
//! let registry = platform.accounts(move |account| {
//!     let url = format!("https://h5.example.com/{}", account.app_id());
//!     Ok(account.login(Login::new(url, cookie_keys.clone())?))
//! });
//! let accounts = Accounts::builder(store).registry(registry).build()?;
//! let pages: Router = Router::new().layer(WechatLayer::for_accounts(accounts));
//!
//! // Outside of the layer of the accounts:
//! let app: Router = Router::new()
//!     .route_service("/wechat/platform/push", platform.push_service())
//!     .fallback_service(pages);
//! # Ok(()) }
//! ```

mod authorizations;
mod authorize;
mod authorizer;
mod builder;
mod changes;
mod component_source;
mod component_token;
mod event;
mod events;
mod exchange;
mod followed;
mod handle;
mod lists;
mod outcome;
pub(crate) mod push;
mod pushes;
mod refresh_tokens;
mod running_list;
mod state;
#[cfg(all(test, feature = "simulator"))]
mod tests;
mod ticket;
mod upkeep;

pub(crate) use self::authorizations::AccountStatus;
pub use self::authorize::{AuthorizePages, AuthorizedAccount, Customer};
pub(crate) use self::authorizer::not_authorized;
pub use self::builder::PlatformBuilder;
pub(crate) use self::changes::ChangeQueue;
#[cfg(any(test, fuzzing))]
pub(crate) use self::event::PlatformEvent;
pub use self::handle::Platform;
pub(crate) use self::outcome::pre_auth_code_hash;
pub use self::push::{
    NoMessages, PlatformPush, PushField, PushFields, PushKeys, PushLayer, PushService,
};
pub(crate) use self::state::PlatformState;
