//! The HTTP client of WeChat's API.
//!
//! A call sends at most one request to each configured host. Back-off, leases and stores are
//! outside this module. The client repairs the malformed JSON that WeChat sometimes sends. Errors
//! and logs of the client contain no secret, although WeChat's API carries secrets in query
//! strings.

mod advice;
mod builder;
mod client;
#[cfg(feature = "platform")]
mod component;
#[cfg(feature = "platform")]
mod component_reply;
mod credentials;
pub(crate) mod errcode;
pub(crate) mod error_context;
pub(crate) mod error_text;
mod generic;
mod http;
#[cfg(feature = "platform")]
mod on_behalf;
#[cfg(feature = "platform")]
mod platform_authority;
mod proxy;
pub(crate) mod redaction;
pub(crate) mod reply;
#[cfg(test)]
pub(crate) mod tests;
mod token_response;
mod transport;
mod user_info;

pub use builder::WechatClientBuilder;
pub use client::WechatClient;
#[cfg(feature = "platform")]
pub(crate) use component::MAX_LIST_COUNT;
#[cfg(feature = "platform")]
pub(crate) use component_reply::{AuthorizerToken, ListedAuthorizer, PreAuthCode};
pub(crate) use errcode::with_renewal_delay;
pub(crate) use http::{build_http_client, parse_base_url, root_cause};
#[cfg(feature = "platform")]
pub(crate) use platform_authority::PlatformAuthority;
pub use token_response::{AccountTokenResponse, JsapiTicketResponse, UserTokenResponse};
pub use user_info::{Language, UserInfo};
