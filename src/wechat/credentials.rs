//! What a client authenticates itself with: the account's AppSecret, or a third-party platform that
//! the account has authorized.

#[cfg(feature = "platform")]
use std::sync::Arc;

#[cfg(feature = "platform")]
use super::platform_authority::PlatformAuthority;
use crate::credential::AppSecret;

/// The credentials of a client.
pub(super) enum Credentials {
    /// The AppSecret of the account.
    Secret(AppSecret),
    /// The platform in whose name the client works on behalf of the account.
    #[cfg(feature = "platform")]
    Platform(Arc<dyn PlatformAuthority>),
}

/// Compares AppSecrets in constant time. Two platforms are equal if they are one object.
impl PartialEq for Credentials {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Secret(own), Self::Secret(other)) => own == other,
            #[cfg(feature = "platform")]
            (Self::Platform(own), Self::Platform(other)) => {
                std::ptr::addr_eq(Arc::as_ptr(own), Arc::as_ptr(other))
            }
            #[cfg(feature = "platform")]
            (Self::Secret(_), Self::Platform(_)) | (Self::Platform(_), Self::Secret(_)) => false,
        }
    }
}
