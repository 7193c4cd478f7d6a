//! The builder of a session cookie.

use std::sync::Arc;
use std::time::Duration;

use super::name::{check_name, default_name, prefixed_name, strip_host_prefix};
use super::{SessionCookie, SessionSettings};
use crate::clock::Clock;
use crate::credential::AppId;
use crate::error::Error;
use crate::identity::CookieKeys;
use crate::users::sessions::{DEFAULT_MAX_SESSION_LIFETIME, note_session_lifetime};

/// Default time that a session lasts after it was issued: 30 days.
pub(super) const DEFAULT_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3_600);

/// Upper limit of a session's maximum lifetime: ten years. Processes keep logouts everywhere for as
/// long as a session may last.
const MAX_LIFETIME_LIMIT: Duration = Duration::from_secs(3_650 * 24 * 3_600);

/// Builder of a [`SessionCookie`].
///
/// A setter that gets an invalid value keeps the first error, and [`build`](Self::build) returns
/// it.
///
/// ```
/// use std::time::Duration;
/// use tower_wechat::clock::Clock;
/// use tower_wechat::credential::AppId;
/// use tower_wechat::{CookieKeys, SessionCookie};
///
/// # fn main() -> Result<(), tower_wechat::Error> {
/// let app = AppId::new("wx0123456789abcdef")?;
/// let session = SessionCookie::builder(&app, &CookieKeys::random()?)
///     .name("h5")
///     .lifetime(Duration::from_secs(7 * 86_400))
///     .max_lifetime(Duration::from_secs(30 * 86_400))
///     .clock(Clock::system())
///     .secure(false) // plain http, in development
///     .build()?;
/// assert!(session.clear().to_str().unwrap().starts_with("h5=;"));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct SessionCookieBuilder {
    app: AppId,
    keys: CookieKeys,
    /// The name without `__Host-`, or the error of a name that cookies cannot have.
    base_name: Result<String, Error>,
    secure: bool,
    lifetime: Duration,
    max_lifetime: Duration,
    clock: Clock,
    website: Option<SessionCookie>,
}

impl SessionCookieBuilder {
    /// Creates a builder with default settings.
    pub(super) fn new(app: &AppId, keys: &CookieKeys) -> Self {
        Self {
            app: app.clone(),
            keys: keys.clone(),
            base_name: Ok(default_name(app)),
            secure: true,
            lifetime: DEFAULT_LIFETIME,
            max_lifetime: DEFAULT_MAX_SESSION_LIFETIME,
            clock: Clock::system(),
            website: None,
        }
    }

    /// Sets the name of the cookie. If the cookie is [`secure`](Self::secure), `build` puts
    /// `__Host-` in front, unless the name begins with it. Default: `wechat_session_` and the AppID,
    /// so that the sessions of several accounts on one host do not replace each other.
    ///
    /// `build` fails if cookies cannot have this name.
    pub fn name(mut self, name: &str) -> Self {
        if self.base_name.is_ok() {
            self.base_name = check_name(name).map(|()| strip_host_prefix(name).to_owned());
        }
        self
    }

    /// Sets whether browsers send the cookie over https only, under a name that begins with
    /// `__Host-`. `false` is for development over plain http. Default: `true`.
    pub fn secure(mut self, secure: bool) -> Self {
        self.secure = secure;
        self
    }

    /// Sets how long a session lasts after it was issued. Default: 30 days.
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// Sets how long a session lasts after its login, however often it is issued again. Values
    /// above ten years count as ten years. Default: 90 days.
    ///
    /// A process keeps logouts everywhere for the longest maximum lifetime of its session cookies,
    /// and for 90 days at least. All processes that share a store should set the same value.
    pub fn max_lifetime(mut self, max_lifetime: Duration) -> Self {
        self.max_lifetime = max_lifetime.min(MAX_LIFETIME_LIMIT);
        self
    }

    /// Sets the clock by which sessions expire. Default: the system's clock.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Sets the session cookie of the website app (网站应用) beside the account. The identity reads
    /// it if a request has no session of the account.
    pub(crate) fn website(mut self, cookie: Option<SessionCookie>) -> Self {
        self.website = cookie;
        self
    }

    /// Creates the session cookie.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration): cookies cannot have the
    /// [name](Self::name) that was set.
    pub fn build(mut self) -> Result<SessionCookie, Error> {
        let base_name = std::mem::replace(&mut self.base_name, Ok(String::new()))?;
        Ok(self.with_base_name(&base_name))
    }

    /// Creates the session cookie under a name that the caller has checked, or under the default
    /// name for `None`.
    pub(crate) fn build_named(self, name: Option<&str>) -> SessionCookie {
        let default = default_name(&self.app);
        self.with_base_name(name.map_or(&default, strip_host_prefix))
    }

    /// Creates the session cookie. `base_name` is a name that has been checked, without `__Host-`.
    fn with_base_name(self, base_name: &str) -> SessionCookie {
        note_session_lifetime(self.max_lifetime);
        let name = prefixed_name(base_name, self.secure);
        // The keys depend on the whole name, prefix included: a cookie that was signed for plain
        // http is not valid with https.
        let purpose = ["tower-wechat session 1", self.app.as_str(), &name];
        SessionCookie(Arc::new(SessionSettings {
            macs: self.keys.derive_macs(&purpose),
            name,
            app: self.app,
            keys: self.keys,
            secure: self.secure,
            lifetime: self.lifetime,
            max_lifetime: self.max_lifetime,
            clock: self.clock,
            website: self.website,
            log_limiter: Arc::default(),
        }))
    }
}
