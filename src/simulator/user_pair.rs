//! A user's tokens, as a test sees them.

use std::time::Duration;

use super::user_tokens::TokenPair;

/// The live tokens of one user, as WeChat would know them.
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
    /// The user.
    pub openid: String,
    /// What the user agreed to: `snsapi_base` or `snsapi_userinfo`.
    pub scope: String,
    /// The access token.
    pub access_token: String,
    /// The refresh token.
    pub refresh_token: String,
    /// How much longer the access token lives, in whole seconds as WeChat says it; zero once it
    /// has expired.
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

/// Two pairs are the same if their tokens are: what is left of their lives runs down by itself.
impl PartialEq for UserPair {
    fn eq(&self, other: &Self) -> bool {
        self.access_token == other.access_token && self.refresh_token == other.refresh_token
    }
}

impl Eq for UserPair {}
