//! The current tokens of a user, in the form in which a test reads them.

use std::time::Duration;

use super::user_tokens::TokenPair;

/// The current tokens of one user.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// use tower_wechat::simulator::Simulator;
///
/// let sim = Simulator::start().await?;
/// let pair = sim.sign_in("oAlice", "snsapi_userinfo");
/// assert_eq!(pair.expires_in.as_secs(), 7200);
/// assert_eq!(sim.current_pair("oAlice"), Some(pair));
/// # sim.stop().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct UserPair {
    /// The user's openid.
    pub openid: String,
    /// The granted scope, such as `snsapi_base` or `snsapi_userinfo`.
    pub scope: String,
    /// The user's current access token.
    pub access_token: String,
    /// The user's current refresh token.
    pub refresh_token: String,
    /// The time until the access token expires, in whole seconds as in WeChat's replies, or zero
    /// after the expiry.
    pub expires_in: Duration,
}

impl UserPair {
    pub(super) fn from_pair(pair: &TokenPair, now: Duration) -> Self {
        Self {
            openid: pair.authorization.openid.clone(),
            scope: pair.authorization.scope.clone(),
            access_token: pair.access_token.clone(),
            refresh_token: pair.refresh_token.clone(),
            expires_in: Duration::from_secs(pair.access_expires_at.saturating_sub(now).as_secs()),
        }
    }
}

/// Compares the two tokens alone, because the remaining lifetime changes with the clock.
impl PartialEq for UserPair {
    fn eq(&self, other: &Self) -> bool {
        self.access_token == other.access_token && self.refresh_token == other.refresh_token
    }
}

impl Eq for UserPair {}
