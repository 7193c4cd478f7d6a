//! Loading of a token that is not in this process's memory.

use std::borrow::Cow;
use std::time::Duration;

use tracing::Instrument;

use super::Policy;
use super::account_layer::AccountLayer;
use crate::error::{Error, ErrorKind};
use crate::identity::Session;
use crate::store::BoxFuture;
use crate::users::UserToken;

/// Maximum time that a request under [`Policy::Optional`] waits for a token: one second. A renewal
/// takes less while WeChat responds normally, and a page that works without the user is delayed
/// only a little.
const OPTIONAL_LOAD_TIMEOUT: Duration = Duration::from_secs(1);

impl<I, R> AccountLayer<I, R> {
    /// Returns a future that loads a token from the store, and waits for a renewal if the token has
    /// expired.
    ///
    /// Under [`Policy::Optional`] the future ends after [`OPTIONAL_LOAD_TIMEOUT`]; the renewal continues.
    /// Shortly after a login, the future reads the store even if this process has cached that the user
    /// has no tokens.
    pub(super) fn load_token(
        &self,
        id: Cow<'static, str>,
        session: Session,
    ) -> BoxFuture<'static, Result<UserToken, Error>> {
        let users = self.parts.users_for(session).clone();
        let span = tracing::debug_span!(
            target: "tower_wechat::layer",
            "wechat.resolve",
            app = %users.app_id(),
            user = ?id,
        );
        let optional = self.settings.policy == Policy::Optional;
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
        // In production the span is usually disabled. The future is smaller without the span.
        Box::pin(async move { users.get_uncached(id.into()).await })
    }
}

/// Waits for a token up to [`OPTIONAL_LOAD_TIMEOUT`], and then returns an error.
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
