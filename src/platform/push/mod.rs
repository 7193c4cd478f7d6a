//! The pushes of WeChat to a platform: tickets, authorizations, and messages of the accounts' users.

mod application;
mod body;
pub(crate) mod cipher;
mod envelope;
mod event;
mod fields;
mod keys;
mod layer;
mod message;
mod receiver;
mod refusal;
mod refusal_log;
mod respond;
mod response;
pub(crate) mod signature;
mod xml;

#[cfg(test)]
mod tests;

pub use self::fields::{PushField, PushFields};
pub use self::keys::PushKeys;
pub use self::layer::{NoMessages, PushLayer, PushService};
pub use self::message::PlatformPush;
#[cfg(any(test, fuzzing))]
pub(crate) use self::receiver::PushContent;
pub(crate) use self::receiver::{HandlePlatformEvents, PushReceiver};
