//! The WeChat user of a request, and a fresh access_token, in every handler.
#![cfg_attr(docsrs, feature(doc_cfg))]
// Nothing that input or the network can reach may panic; tests may.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

mod accounts;
mod center;
mod clock;
mod credential;
mod error;
#[cfg(feature = "axum")]
mod extract;
mod identity;
pub mod jssdk;
mod keeper;
mod layer;
mod observe;
mod reaction;
#[cfg(feature = "simulator")]
#[cfg_attr(docsrs, doc(cfg(feature = "simulator")))]
pub mod simulator;
mod store;
mod tickets;
mod users;
mod wechat;

pub use accounts::{
    AccountToken, AccountTokens, AccountTokensBuilder, TokenCenterSource, TokenMode,
};
pub use center::TokenCenter;
pub use clock::{Clock, Timestamp};
pub use credential::{
    AccessToken, AppId, AppSecret, BearerSecret, Freshness, InvalidIdentifier, Lifetime,
    RefreshToken, UserId,
};
pub use error::{Error, ErrorKind, TokenRefusal};
#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
pub use extract::{MissingAccount, MissingUser};
pub use identity::{
    CookieKeys, ExtensionIdentity, Identified, Identify, Identity, NoIdentity, RequestHead,
    SessionCookie, TrustedHeader,
};
pub use jssdk::JsConfig;
pub use layer::{
    JsonRejection, Policy, Reject, Rejection, ResponseFuture, WechatAccount, WechatLayer,
    WechatService, WechatUser,
};
pub use reaction::Reaction;
#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
pub use store::{FollowedToken, Layout, RedisNames, RedisStore, RedisStoreBuilder, Swept};
pub use store::{MemoryStore, Store};
pub use tickets::{JsapiTicket, Tickets};
pub use users::{UserToken, UserTokens, UserTokensBuilder};
pub use wechat::{
    AccountGrant, Language, TicketGrant, UserGrant, UserInfo, WechatClient, WechatClientBuilder,
};
