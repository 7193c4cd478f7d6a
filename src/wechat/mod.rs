//! The HTTP client of WeChat's API.
//!
//! A call sends at most one request to each configured host. Back-off, leases and stores are
//! outside this module. The client repairs the malformed JSON that WeChat sometimes sends. Errors
//! and logs of the client contain no secret, although WeChat's API carries secrets in query
//! strings.

mod builder;
mod client;
pub(crate) mod errcode;
pub(crate) mod error_text;
mod generic;
mod http;
mod proxy;
pub(crate) mod redaction;
pub(crate) mod reply;
#[cfg(test)]
mod tests;
mod token_response;
mod transport;
mod user_info;

pub use builder::WechatClientBuilder;
pub use client::WechatClient;
pub(crate) use errcode::with_renewal_delay;
pub(crate) use http::{build_http_client, parse_base_url, root_cause};
pub use token_response::{AccountTokenResponse, JsapiTicketResponse, UserTokenResponse};
pub use user_info::{Language, UserInfo};
