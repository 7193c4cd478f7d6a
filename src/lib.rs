//! The WeChat user of a request, and a fresh access_token, in every handler.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod clock;
mod credential;
mod error;
mod keeper;
mod store;

pub use clock::{Clock, Timestamp};
pub use credential::{
    AccessToken, AppId, AppSecret, Details, Freshness, InvalidIdentifier, Lifetime, Record,
    Refresh, RefreshToken, Token, UserId,
};
pub use error::{Error, ErrorKind};
#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
pub use store::{Layout, RedisNames, RedisStore, RedisStoreBuilder, Swept};
pub use store::{MemoryStore, Store};
