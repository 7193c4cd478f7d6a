//! The WeChat user of a request, and a fresh access_token, in every handler.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod clock;
mod credential;
mod error;
mod reaction;
mod wechat;

pub use clock::{Clock, Timestamp};
pub use credential::{
    AccessToken, AppId, AppSecret, Details, Freshness, InvalidIdentifier, Lifetime, Record,
    Refresh, RefreshToken, Token, UserId,
};
pub use error::{Error, ErrorKind};
pub use reaction::Reaction;
pub use wechat::{
    AccountGrant, Language, TicketGrant, UserGrant, UserInfo, WechatClient, WechatClientBuilder,
};
