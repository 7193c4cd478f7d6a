//! Loading of a token that this process does not hold in memory.

use std::borrow::Cow;
use std::time::Duration;

use tracing::Instrument;

use super::Policy;
use super::shared::Shared;
use crate::error::{Error, ErrorKind};
use crate::identity::Session;
use crate::store::BoxFuture;
use crate::users::UserToken;

/// The time that a request under [`Policy::Optional`] waits for a token. It suffices for a renewal
/// while WeChat responds normally, and delays a page that works without the user only a little.
const OPTIONAL_LOAD_TIMEOUT: Duration = Duration::from_secs(1);

impl<I, R> Shared<I, R> {
    /// Returns the future that loads a token, which this process does not hold in memory.
    ///
    /// Under [`Policy::Optional`] the future ends after [`OPTIONAL_LOAD_TIMEOUT`]. The renewal of
    /// the token continues.
    pub(super) fn load_token(
        &self,
        id: Cow<'static, str>,
        session: Session,
    ) -> BoxFuture<'static, Result<UserToken, Error>> {
        let users = self.users.for_user(session.snapshot).clone();
        let span = tracing::debug_span!(
            target: "tower_wechat::layer",
            "wechat.resolve",
            app = %users.app_id(),
            user = ?id,
        );
        let optional = self.policy == Policy::Optional;
        if session.recent_login || optional || !span.is_disabled() {
            let token = async move {
                let token = async {
                    match session.recent_login {
                        true => users.get_after_login(&id).await,
                        false => users.get_uncached(id.into()).await,
                    }
                };
                match optional {
                    true => within_optional_timeout(token).await,
                    false => token.await,
                }
            };
            return Box::pin(token.instrument(span));
        }
        // The span is disabled, as it is in production: the future is smaller without it.
        Box::pin(async move { users.get_uncached(id.into()).await })
    }
}

/// Waits for a token up to [`OPTIONAL_LOAD_TIMEOUT`].
async fn within_optional_timeout(
    token: impl Future<Output = Result<UserToken, Error>>,
) -> Result<UserToken, Error> {
    match tokio::time::timeout(OPTIONAL_LOAD_TIMEOUT, token).await {
        Ok(token) => token,
        Err(_) => {
            let message = format!(
                "no token came within {OPTIONAL_LOAD_TIMEOUT:?}, and the page can do without"
            );
            let error = Error::new(ErrorKind::WechatUnavailable, message);
            Err(error.with_retry_after(OPTIONAL_LOAD_TIMEOUT))
        }
    }
}
