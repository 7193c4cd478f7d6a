//! The identity that reads a gateway's header.

use http::HeaderName;

use super::{Identify, Identity, RequestHead};
use crate::credential::InvalidIdentifier;
use crate::error::Error;

/// Identity that reads the user from a header that a gateway in front of the service sets.
///
/// **A client that can reach the service without the gateway can be any user.** Use this identity
/// only if the gateway removes this header from every request, and if only the gateway can reach
/// the service.
///
/// The value is the user's id: 1 to 256 bytes of UTF-8 without control characters. The layer
/// answers other values, and a header that occurs twice, with 400. A request with an empty header,
/// or without the header, has no user.
///
/// ```
/// use tower_wechat::{MemoryStore, TrustedHeader, UserTokens, WechatClient, WechatLayer};
///
/// # fn main() -> Result<(), tower_wechat::Error> {
/// # let users = UserTokens::new(WechatClient::new("wx01", "secret")?, MemoryStore::new());
/// let layer = WechatLayer::new(users).identity(TrustedHeader::new("x-user-id")?);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct TrustedHeader(HeaderName);

impl TrustedHeader {
    /// Creates an identity that trusts the header with this name.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration): headers cannot have this
    /// name.
    pub fn new(name: &str) -> Result<Self, Error> {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| {
            let message = format!("{name:?} is no name of a header; use letters, digits and '-'");
            Error::configuration(message)
        })?;
        Ok(Self(name))
    }
}

impl Identify for TrustedHeader {
    fn identify<'a>(&self, head: &RequestHead<'a>) -> Identity<'a> {
        let mut values = head.headers.get_all(&self.0).iter();
        let Some(value) = values.next() else {
            return Identity::Anonymous;
        };
        if values.next().is_some() {
            return Identity::Invalid(InvalidIdentifier::Ambiguous);
        }
        match std::str::from_utf8(value.as_bytes()) {
            Ok("") => Identity::Anonymous,
            Ok(id) => Identity::user(id),
            Err(_) => Identity::Invalid(InvalidIdentifier::NotUtf8),
        }
    }
}
