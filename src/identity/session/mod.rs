//! The session cookie: a signed cookie that names the user of a browser and contains no secret.

mod builder;
mod name;
mod value;
mod verify;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;

pub use self::builder::SessionCookieBuilder;
pub(crate) use self::value::Session;
use super::RequestHead;
use super::cookies::{self, set_cookie_header};
use super::keys::{CookieKeys, KeyedMac};
use crate::clock::{Clock, Timestamp};
use crate::credential::{AppId, UserId};
use crate::error::Error;
use crate::log_limiter::LogLimiter;
use crate::users::UserToken;
use crate::users::sessions::SNAPSHOT_SESSION_LIFETIME;

/// Identity that reads the user of a request from a signed cookie.
///
/// The cookie's value contains the user's id, the times of the issue and of the login, and an
/// HMAC-SHA256. The value also contains the time after which a logout everywhere ends the session.
/// The key of the HMAC is derived from the application's key for this cookie's name and this AppID.
/// No other value that was signed with the same key is therefore accepted. The value contains no
/// secret, but it signs in everybody who has it: keep it out of logs, like a token.
///
/// The cookie is `HttpOnly`, `SameSite=Lax` and, by default, `Secure`. With `Secure` its name
/// begins with `__Host-`. Browsers accept such a cookie from this host only, so no other host of
/// the domain can set one. A request with valid sessions of two users has no user.
///
/// A session lasts 30 days, and the layer issues the cookie again when half of that time has
/// passed. A session ends 90 days after its login at the latest. A logout everywhere
/// ([`UserTokens::revoke`](crate::UserTokens::revoke)) ends the session and all its copies. The
/// session of a snapshot page's virtual user (快照页) lasts two hours.
///
/// ```
/// use tower_wechat::credential::AppId;
/// use tower_wechat::{CookieKeys, SessionCookie, UserId};
///
/// # fn main() -> Result<(), tower_wechat::Error> {
/// let session = SessionCookie::new(&AppId::new("wx0123456789abcdef")?, &CookieKeys::random()?);
///
/// // When the application has identified the user:
/// let set_cookie = session.issue(&UserId::new("oUser")?);
/// let name = "__Host-wechat_session_wx0123456789abcdef";
/// assert!(set_cookie.to_str().unwrap().starts_with(&format!("{name}=oUser.")));
/// // When the user signs out:
/// assert!(session.clear().to_str().unwrap().contains("Max-Age=0"));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct SessionCookie(Arc<SessionSettings>);

struct SessionSettings {
    app: AppId,
    keys: CookieKeys,
    /// The name of the cookie as browsers know it, with `__Host-` if the cookie is secure.
    name: String,
    secure: bool,
    lifetime: Duration,
    max_lifetime: Duration,
    clock: Clock,
    macs: Vec<KeyedMac>,
    /// The session cookie of the website app (网站应用) beside the account.
    website: Option<SessionCookie>,
    log_limiter: Arc<LogLimiter>,
}

impl SessionCookie {
    /// Creates the session cookie of this account's users with default settings: secure, and named
    /// `__Host-wechat_session_APPID`.
    pub fn new(app: &AppId, keys: &CookieKeys) -> Self {
        SessionCookieBuilder::new(app, keys).build_named(None)
    }

    /// Returns a builder of the session cookie of this account's users.
    pub fn builder(app: &AppId, keys: &CookieKeys) -> SessionCookieBuilder {
        SessionCookieBuilder::new(app, keys)
    }

    /// Returns an error if cookies cannot have this name.
    pub(crate) fn check_name(name: &str) -> Result<(), Error> {
        name::check_name(name)
    }

    /// Returns a `Set-Cookie` header that signs `user` in.
    ///
    /// A later logout everywhere ends this session. The clocks of the servers decide whether the
    /// logout or the session came later. If the application has the user's token,
    /// [`issue_for`](Self::issue_for) does not depend on the servers' clocks.
    pub fn issue(&self, user: &UserId) -> HeaderValue {
        let session = Session {
            last_known_logout: Some(self.0.clock.now()),
            ..Session::default()
        };
        self.issue_for_id(user.as_str(), session)
    }

    /// Returns a `Set-Cookie` header that signs in the user of a token that has just been stored or
    /// read.
    ///
    /// A logout everywhere ends the session if it comes after the token was stored or read. An
    /// earlier logout does not, even if the servers' clocks differ.
    ///
    /// ```
    /// use tower_wechat::client::UserTokenResponse;
    /// use tower_wechat::{Error, SessionCookie, UserId, UserTokens};
    ///
    /// async fn sign_in(
    ///     users: &UserTokens,
    ///     session: &SessionCookie,
    ///     response: &UserTokenResponse,
    /// ) -> Result<http::HeaderValue, Error> {
    ///     let user = UserId::new("oUser")?;
    ///     let token = users.store(&user, response).await?;
    ///     Ok(session.issue_for(&token))
    /// }
    /// ```
    pub fn issue_for(&self, token: &UserToken) -> HeaderValue {
        let session = Session {
            last_known_logout: token.sessions_valid_from(),
            ..Session::default()
        };
        self.issue_for_id(token.user_id_text(), session)
    }

    /// Returns a `Set-Cookie` header that signs `user` in with a session that a login has filled
    /// in.
    pub(crate) fn issue_with(&self, user: &UserId, session: Session) -> HeaderValue {
        self.issue_for_id(user.as_str(), session)
    }

    /// Signs a session with the first key, and returns its `Set-Cookie` header.
    fn issue_for_id(&self, user: &str, session: Session) -> HeaderValue {
        let now = self.0.clock.now();
        let message = value::encode(user, now, session);
        let tag = self
            .0
            .macs
            .first()
            .map(|mac| mac.sign(message.as_bytes()))
            .unwrap_or_default();
        let value = format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag));
        let end = self.expiry(now, session.logged_in_at.unwrap_or(now), session);
        let cookie = format!("{}={value}", self.0.name);
        set_cookie_header(
            &cookie,
            "/",
            now.duration_until(end).as_secs(),
            self.0.secure,
        )
    }

    /// Returns when a session ends: its lifetime after the issue, and at the latest the maximum
    /// lifetime after the login.
    fn expiry(&self, issued: Timestamp, login: Timestamp, session: Session) -> Timestamp {
        let lifetime = if session.snapshot {
            self.0.lifetime.min(SNAPSHOT_SESSION_LIFETIME)
        } else {
            self.0.lifetime
        };
        issued
            .saturating_add(lifetime)
            .min(login.saturating_add(self.0.max_lifetime))
    }

    /// Returns a `Set-Cookie` header that ends the session of the browser that receives it.
    ///
    /// The header does not end the session of a login's
    /// [website](crate::login::LoginBuilder::website), which has another cookie. A
    /// [`Logout`](crate::Logout) ends both.
    pub fn clear(&self) -> HeaderValue {
        set_cookie_header(&format!("{}=", self.0.name), "/", 0, self.0.secure)
    }

    /// Returns the header of [`clear`](Self::clear) if a request has a cookie with this name, valid
    /// or not.
    pub(crate) fn removal_from(&self, head: &RequestHead<'_>) -> Option<HeaderValue> {
        let mut sent = cookies::values_named(head.headers, &self.0.name);
        sent.next().map(|_| self.clear())
    }

    /// Returns the `Set-Cookie` headers that end the sessions of this cookie and of the website's.
    pub(crate) fn clear_with_website(&self) -> impl Iterator<Item = HeaderValue> + '_ {
        [Some(self), self.0.website.as_ref()]
            .into_iter()
            .flatten()
            .map(Self::clear)
    }
}

impl fmt::Debug for SessionCookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionCookie")
            .field("name", &self.0.name)
            .field("secure", &self.0.secure)
            .field("lifetime", &self.0.lifetime)
            .field("max_lifetime", &self.0.max_lifetime)
            .field("keys", &self.0.keys)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
