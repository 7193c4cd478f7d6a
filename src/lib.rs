//! The WeChat user of a request, and a fresh access_token, in every handler.
#![cfg_attr(docsrs, feature(doc_cfg))]
// Nothing that input or the network can reach may panic; tests may.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

mod clock;
mod credential;
mod error;
#[cfg(feature = "axum")]
mod extract;
mod identity;
mod keeper;
mod layer;
mod login;
mod observe;
mod reaction;
#[cfg(feature = "simulator")]
#[cfg_attr(docsrs, doc(cfg(feature = "simulator")))]
pub mod simulator;
mod store;
mod users;
mod wechat;

pub use clock::{Clock, Timestamp};
pub use credential::{
    AccessToken, AppId, AppSecret, Freshness, InvalidIdentifier, Lifetime, RefreshToken, UserId,
};
pub use error::{Error, ErrorKind};
#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
pub use extract::MissingUser;
pub use identity::{
    CookieKeys, ExtensionIdentity, Identified, Identify, Identity, NoIdentity, RequestHead,
    SessionCookie, TrustedHeader,
};
pub use layer::{
    JsonRejection, Policy, Reject, Rejection, ResponseFuture, WechatLayer, WechatService,
    WechatUser,
};
pub use login::{Login, Scope, SnapshotPolicy};
pub use reaction::Reaction;
#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
pub use store::{Layout, RedisNames, RedisStore, RedisStoreBuilder, Swept};
pub use store::{MemoryStore, Store};
pub use users::{TokenRefusal, UserToken, UserTokens, UserTokensBuilder};
pub use wechat::{
    AccountGrant, Language, TicketGrant, UserGrant, UserInfo, WechatClient, WechatClientBuilder,
};
