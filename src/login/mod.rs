//! Login with WeChat: the redirect to the authorize page, and the callback.
//!
//! An application sets up a [`Login`] and gives it to its layer. The layer binds the login to the
//! users of its account, and answers the login's own paths.
//!
//! ```
//! use tower_wechat::{CookieKeys, Login, MemoryStore, UserTokens, WechatClient, WechatLayer};
//!
//! # fn main() -> Result<(), tower_wechat::Error> {
//! let wechat = WechatClient::new("wx0123456789abcdef", "secret")?;
//! let users = UserTokens::new(wechat, MemoryStore::new());
//!
//! // All processes of a service have the same keys, for example from an environment variable.
//! let keys = CookieKeys::random()?;
//! let layer = WechatLayer::new(users).login(Login::new("https://h5.example.com", keys)?);
//! # let _ = layer;
//! # Ok(()) }
//! ```

mod authorize;
mod builder;
mod callback;
mod context;
pub(crate) mod cookies;
mod door;
pub(crate) mod exchange;
mod failure;
mod frame_page;
mod granted_scope;
mod handler;
mod hook;
mod ineffective;
mod limits;
mod misrouted;
mod on_login;
mod origin;
mod page;
pub(crate) mod public_url;
mod qr_code;
pub(crate) mod query;
mod redirect;
mod reply;
pub(crate) mod return_origins;
pub(crate) mod return_to;
mod routes;
mod scope;
mod settings;
mod setup;
pub(crate) mod state;
mod verification_file;
mod website;

pub use self::builder::LoginBuilder;
pub(crate) use self::frame_page::FramePage;
pub(crate) use self::handler::LoginHandler;
pub use self::hook::LoginUser;
pub(crate) use self::page::FailurePage;
pub(crate) use self::reply::{HandlerReply, LoginReply, ReplyContent};
pub use self::scope::Scope;
pub use self::settings::SnapshotPolicy;
pub use self::setup::Login;
