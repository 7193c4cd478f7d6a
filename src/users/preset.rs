//! Users of the feature `testing`, whose tokens and profiles are set and not fetched.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::source::login_record;
use super::{UserToken, UserTokens};
use crate::credential::UserId;
use crate::error::{Error, ErrorKind};
use crate::wechat::{UserInfo, UserTokenResponse};

impl UserTokens {
    /// Stores the tokens and the profile of a user without waiting. The store must be a
    /// [`MemoryStore`](crate::MemoryStore).
    ///
    /// # Errors
    /// Returns an error if the store cannot write at once.
    pub(crate) fn preset(
        &self,
        user: &UserId,
        response: &UserTokenResponse,
        profile: Option<UserInfo>,
    ) -> Result<UserToken, Error> {
        let provider = &self.0.provider;
        let record = login_record(response, self.clock().now(), provider.config().margin);
        let write = std::pin::pin!(provider.store_login(user.as_str(), &record, false));
        // A future of a `MemoryStore` never waits.
        let entry = match write.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(Some(entry))) => entry,
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Ready(Ok(None)) | Poll::Pending => {
                let message = "the store of a preset user must be a MemoryStore";
                return Err(Error::new(ErrorKind::Configuration, message));
            }
        };
        if let Some(profile) = profile {
            self.0.profiles.insert(user.as_str(), Arc::new(profile));
        }
        Ok(UserToken::new(entry))
    }
}
