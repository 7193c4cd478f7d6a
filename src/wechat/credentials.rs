//! What a client authenticates itself with: the account's AppSecret, or a third-party platform that
//! the account has authorized.

#[cfg(feature = "platform")]
use std::sync::Arc;

use super::client::WechatClient;
#[cfg(feature = "platform")]
use super::on_behalf::PlatformAuthority;
use super::reply::{InvalidReply, ReplyFields};
use super::transport::ApiRequest;
use crate::credential::AppSecret;
use crate::error::Error;

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

impl WechatClient {
    /// Returns the AppSecret, which the call of `path` sends.
    ///
    /// # Errors
    /// The client works on behalf of the account, and has no AppSecret.
    #[cfg_attr(
        not(feature = "platform"),
        allow(unused_variables, clippy::unnecessary_wraps)
    )]
    pub(super) fn secret(&self, path: &str) -> Result<&AppSecret, Error> {
        match &self.inner.credentials {
            Credentials::Secret(secret) => Ok(secret),
            #[cfg(feature = "platform")]
            Credentials::Platform(_) => Err(Error::configuration(format!(
                "{path}: the client works on behalf of {} and has no AppSecret; take the account's \
                 token from Platform::account_tokens",
                self.app_id()
            ))),
        }
    }

    /// Sends a request. If WeChat answers that the account has not authorized the platform in whose
    /// name this client works, the platform is notified.
    pub(super) async fn send<T>(
        &self,
        call: &ApiRequest<'_>,
        read: impl Fn(&ReplyFields) -> Result<T, InvalidReply>,
    ) -> Result<T, Error> {
        let result = self.inner.transport.send(call, read).await;
        #[cfg(feature = "platform")]
        if let Err(error) = &result {
            self.note_if_not_authorized(error);
        }
        result
    }
}
