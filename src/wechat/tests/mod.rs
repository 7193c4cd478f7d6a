//! Tests of the client over real connections, against a server with scripted replies.

#[cfg(feature = "platform")]
pub(crate) mod authority;
#[cfg(feature = "platform")]
mod component;
mod connections;
mod fixtures;
mod hosts;
mod logging;
#[cfg(feature = "platform")]
mod on_behalf;
mod replies;
mod requests;
pub(crate) mod server;
