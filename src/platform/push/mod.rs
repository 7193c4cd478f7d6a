//! The pushes of WeChat to a platform: tickets, authorizations, and messages of the accounts' users.

#[allow(dead_code)]
pub(crate) mod cipher;
#[allow(dead_code)]
mod keys;
#[allow(dead_code)]
pub(crate) mod signature;

pub use self::keys::PushKeys;
