//! The HTTP client of WeChat's API.
//!
//! One call is one question to WeChat: back-off, leases and stores are the business of others.
//! What comes back is read with patience, since WeChat's replies are not always the JSON that the
//! documentation promises, and what goes wrong is told without a secret: they ride in the query
//! strings of this API.

mod builder;
mod client;
pub(crate) mod errcode;
mod generic;
mod proxy;
pub(crate) mod redaction;
pub(crate) mod reply;
#[cfg(test)]
mod tests;
mod token_response;
mod transport;
mod user_info;

pub use builder::WechatClientBuilder;
pub(crate) use builder::{build_http_client, parse_base_url, root_cause};
pub use client::WechatClient;
pub(crate) use errcode::with_renewal_delay;
pub use token_response::{AccountTokenResponse, JsapiTicketResponse, UserTokenResponse};
pub use user_info::{Language, UserInfo};
