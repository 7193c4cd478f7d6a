//! A header that a gateway sets.

use http::HeaderName;

use super::{Identify, Identity, RequestHead};
use crate::credential::InvalidIdentifier;
use crate::error::Error;

/// Takes the user from a header that a gateway in front of the service sets.
///
/// **Whoever can reach the service past the gateway can be any user.** Use it only where the
/// gateway removes this header from every request that comes from outside, and where nothing but
/// the gateway can reach the service.
///
/// The value names the user as it stands: 1 to 256 bytes of UTF-8 without control characters.
/// Anything else, and a header that comes twice, is answered with 400; an empty or absent header
/// is nobody.
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
    /// Trusts the header of this name.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration): no header can have that name.
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
