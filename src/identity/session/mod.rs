//! The session cookie: it names a user, proves that we said so, and holds nothing secret.

mod value;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;

pub(crate) use self::value::Session;
use super::keys::{CookieKeys, KeyedMac};
use super::{IdentifiedUser, Identify, Identity, RequestHead, cookies};
use crate::clock::{Clock, Timestamp};
use crate::credential::{AppId, UserId};
use crate::error::Error;
use crate::users::UserToken;

/// What the cookie is called unless something else is set.
const DEFAULT_NAME: &str = "wechat_session";

/// What its name begins with under https. Browsers take a cookie of such a name from this very host
/// only, so that no other host of the domain can plant one.
const HOST_PREFIX: &str = "__Host-";

/// How long a session lasts since it was last issued.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3_600);

/// How long a session lasts since its login, however often it was issued anew.
const DEFAULT_MAX_LIFETIME: Duration = Duration::from_secs(90 * 24 * 3_600);

/// The most that this can be set to: as long as that, logouts everywhere have to be remembered.
const MAX_LIFETIME_LIMIT: Duration = Duration::from_secs(3_650 * 24 * 3_600);

/// How long the session of a virtual user of a snapshot page (快照页) lasts. It never slides.
pub(crate) const SNAPSHOT_SESSION_LIFETIME: Duration = Duration::from_secs(2 * 3_600);

/// How long a login counts as one of a moment ago: longer than any process remembers that a user
/// has no token.
const RECENT_LOGIN: Duration = Duration::from_secs(2 * 60);

/// A session that claims to be issued later than this from now was not issued by a sane clock.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

/// How often it is logged that requests carry the sessions of two users.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// An HMAC-SHA256 in base64.
const TAG_CHARS: usize = 43;

/// The longest that any session of this process can last since its login, in seconds.
static LONGEST_SESSION_SECONDS: AtomicU64 = AtomicU64::new(DEFAULT_MAX_LIFETIME.as_secs());

/// Returns how long a logout everywhere has to be remembered: as long as any session of before it
/// could last.
pub(crate) fn longest_session_lifetime() -> Duration {
    Duration::from_secs(LONGEST_SESSION_SECONDS.load(Ordering::Relaxed))
}

/// Names the user of a browser in a signed cookie.
///
/// The value names the user, when it was issued, when the user logged in, and the last logout
/// everywhere that the login knew of. An HMAC-SHA256 of all that follows, under a key that is made of
/// the application's for this cookie's name and AppID alone, so that no other value under the same
/// key passes for it. It holds nothing secret, but whoever has it is the user: treat it like a token
/// in logs.
///
/// The cookie is `HttpOnly`, `SameSite=Lax` and (unless told otherwise) `Secure`. With `Secure` its
/// name begins with `__Host-`: browsers take such a cookie from this host only, so that no other host
/// of the domain can plant one. A request with valid sessions of two users has none.
///
/// A session lasts 30 days; the cookie is issued anew when half of them have passed. It ends 90 days
/// after the login at the latest, and when the user logs out everywhere
/// ([`UserTokens::revoke`](crate::UserTokens::revoke)), whatever copies of it were issued anew by
/// then. The session of a snapshot page's virtual user (快照页) ends after two hours.
///
/// ```
/// use std::time::Duration;
/// use tower_wechat::{AppId, Clock, CookieKeys, SessionCookie, UserId};
///
/// # fn main() -> Result<(), tower_wechat::Error> {
/// let session = SessionCookie::new(&AppId::new("wx0123456789abcdef")?, &CookieKeys::random()?)
///     .name("h5")?
///     .lifetime(Duration::from_secs(7 * 86_400))
///     .max_lifetime(Duration::from_secs(30 * 86_400))
///     .clock(Clock::system())
///     .secure(false); // plain http, in development
///
/// // After the application has found out who the user is:
/// let set_cookie = session.issue(&UserId::new("oUser")?);
/// assert!(set_cookie.to_str().unwrap().starts_with("h5=oUser."));
/// // When they sign out:
/// assert!(session.clear().to_str().unwrap().contains("Max-Age=0"));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct SessionCookie(Arc<SessionSettings>);

#[derive(Clone)]
struct SessionSettings {
    app: AppId,
    keys: CookieKeys,
    /// As it was set, without a prefix.
    base_name: String,
    /// As browsers know it.
    name: String,
    secure: bool,
    lifetime: Duration,
    max_lifetime: Duration,
    clock: Clock,
    macs: Vec<KeyedMac>,
    /// When it was last logged that a request carried two users' sessions, in milliseconds.
    user_conflict_logged_at: Arc<AtomicI64>,
}

impl SessionCookie {
    /// Sessions of this account's users, under the name `__Host-wechat_session`; without
    /// [`secure`](Self::secure), `wechat_session`.
    pub fn new(app: &AppId, keys: &CookieKeys) -> Self {
        Self(Arc::new(SessionSettings {
            app: app.clone(),
            keys: keys.clone(),
            base_name: DEFAULT_NAME.to_owned(),
            name: String::new(),
            secure: true,
            lifetime: DEFAULT_LIFETIME,
            max_lifetime: DEFAULT_MAX_LIFETIME,
            clock: Clock::system(),
            macs: Vec::new(),
            user_conflict_logged_at: Arc::new(AtomicI64::new(i64::MIN)),
        }))
        .with_derived_keys()
    }

    /// Gives the cookie another name. Where it is [`secure`](Self::secure), `__Host-` is put in
    /// front, unless it is there already.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration): cookies cannot have that name.
    pub fn name(self, name: &str) -> Result<Self, Error> {
        Self::check_name(name)?;
        let base = strip_host_prefix(name).to_owned();
        Ok(self
            .modify(|settings| settings.base_name = base)
            .with_derived_keys())
    }

    pub(crate) fn check_name(name: &str) -> Result<(), Error> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let base = strip_host_prefix(name);
        if base.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
            return Err(Error::configuration(format!(
                "{name:?} is no name of a cookie; use letters, digits, '-', '_' and '.'"
            )));
        }
        Ok(())
    }

    /// Derives what follows from the name.
    fn with_derived_keys(self) -> Self {
        self.modify(|settings| {
            settings.name = prefixed_name(&settings.base_name, settings.secure);
            // The whole name, so that what was signed for plain http means nothing under https.
            let purpose = [
                "tower-wechat session 1",
                settings.app.as_str(),
                &settings.name,
            ];
            settings.macs = settings.keys.derive_macs(&purpose);
        })
    }

    /// Whether browsers send the cookie over https only, under a name that begins with `__Host-`.
    /// Default: yes. Say no for development over plain http.
    #[must_use]
    pub fn secure(self, secure: bool) -> Self {
        self.modify(|settings| settings.secure = secure)
            .with_derived_keys()
    }

    /// How long a session lasts since it was last issued. Default: 30 days.
    #[must_use]
    pub fn lifetime(self, lifetime: Duration) -> Self {
        self.modify(|settings| settings.lifetime = lifetime)
    }

    /// Sets how long a session lasts since its login, however often it is issued anew. At most ten
    /// years. Default: 90 days.
    ///
    /// Logouts everywhere are remembered for the longest of these times that this process has seen,
    /// and for 90 days at least: all processes that share a store should set the same.
    #[must_use]
    pub fn max_lifetime(self, max_lifetime: Duration) -> Self {
        let max_lifetime = max_lifetime.min(MAX_LIFETIME_LIMIT);
        LONGEST_SESSION_SECONDS.fetch_max(max_lifetime.as_secs(), Ordering::Relaxed);
        self.modify(|settings| settings.max_lifetime = max_lifetime)
    }

    /// The clock that sessions end by. Default: the system's.
    #[must_use]
    pub fn clock(self, clock: Clock) -> Self {
        self.modify(|settings| settings.clock = clock)
    }

    fn modify(mut self, change: impl FnOnce(&mut SessionSettings)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// The value of a `Set-Cookie` header that signs `user` in.
    ///
    /// Logouts everywhere are told from this login by the clocks of the servers that issue and log
    /// out. Where the user's token is at hand, [`issue_for`](Self::issue_for) does without clocks.
    pub fn issue(&self, user: &UserId) -> HeaderValue {
        let session = Session {
            last_known_logout: Some(self.0.clock.now()),
            ..Session::default()
        };
        self.issue_for_id(user.as_str(), session)
    }

    /// The same for the user of a token that has just been stored or read. A logout everywhere from
    /// then on ends the session, one of before does not, whatever the servers' clocks say.
    ///
    /// ```
    /// use tower_wechat::{Error, SessionCookie, UserTokenResponse, UserId, UserTokens};
    ///
    /// async fn signed_in(
    ///     users: &UserTokens,
    ///     session: &SessionCookie,
    ///     grant: &UserTokenResponse,
    /// ) -> Result<http::HeaderValue, Error> {
    ///     let user = UserId::new("oUser")?;
    ///     let token = users.store(&user, grant).await?;
    ///     Ok(session.issue_for(&token))
    /// }
    /// ```
    pub fn issue_for(&self, token: &UserToken) -> HeaderValue {
        let session = Session {
            last_known_logout: token.sessions_valid_from(),
            ..Session::default()
        };
        self.issue_for_id(token.user_id(), session)
    }

    /// The same of a login that knows more of the session.
    pub(crate) fn issue_with(&self, user: &UserId, session: Session) -> HeaderValue {
        self.issue_for_id(user.as_str(), session)
    }

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
        let (name, secure) = (&self.0.name, self.0.secure);
        set_cookie_header(name, &value, now.duration_until(end), secure)
    }

    /// When a session ends.
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

    /// The value of a `Set-Cookie` header that signs whoever it is out.
    pub fn clear(&self) -> HeaderValue {
        Self::removal_cookie(Some(&self.0.name), self.0.secure)
    }

    /// The same without keys or account.
    pub(crate) fn removal_cookie(name: Option<&str>, secure: bool) -> HeaderValue {
        let name = prefixed_name(strip_host_prefix(name.unwrap_or(DEFAULT_NAME)), secure);
        set_cookie_header(&name, "", Duration::ZERO, secure)
    }

    /// The session of a cookie's value; `None` unless we made it and it has not ended. What can be
    /// seen without a MAC is looked at first: any number of values can stand before the right one.
    fn verify<'a>(&self, value: &'a [u8], now: Timestamp) -> Option<VerifiedSession<'a>> {
        let (message, tag) = value.split_last_chunk::<TAG_CHARS>()?;
        let message = message.strip_suffix(b".")?;
        let text = value::decode(message)?;
        let end = self.expiry(text.issued_at, text.logged_in_at, text.session);
        if now >= end || now < text.issued_at.saturating_sub(MAX_CLOCK_SKEW) {
            return None;
        }
        let mut bytes = [0; 32];
        if URL_SAFE_NO_PAD.decode_slice(tag, &mut bytes) != Ok(bytes.len()) {
            return None;
        }
        if !self.0.macs.iter().any(|mac| mac.verifies(message, &bytes)) {
            return None;
        }
        Some(VerifiedSession {
            id: text.user()?,
            issued_at: text.issued_at,
            logged_in_at: text.logged_in_at,
            expires_at: end,
            session: Session {
                recent_login: now < text.logged_in_at.saturating_add(RECENT_LOGIN),
                ..text.session
            },
        })
    }

    /// The session among all cookies of its name: the one of the latest login, where they are all
    /// of one user.
    fn find_session<'a>(
        &self,
        head: &RequestHead<'a>,
        now: Timestamp,
    ) -> Option<VerifiedSession<'a>> {
        let mut found: Option<VerifiedSession<'a>> = None;
        for value in cookies::values_named(head.headers, &self.0.name) {
            let Some(read) = self.verify(value, now) else {
                continue;
            };
            match &found {
                Some(other) if !other.is_same_user(&read) => {
                    self.log_user_conflict(now);
                    return None;
                }
                Some(other) if other.recency() >= read.recency() => {}
                Some(_) | None => found = Some(read),
            }
        }
        found
    }

    /// Returns `true` if a request brings a session under this cookie's name that somebody else has
    /// signed: another application of this host, another account's, or this one with a former key.
    pub(crate) fn finds_foreign(&self, head: &RequestHead<'_>) -> bool {
        let now = self.0.clock.now();
        let mut values = cookies::values_named(head.headers, &self.0.name);
        values.any(|value| {
            let message = value.split_last_chunk::<TAG_CHARS>();
            let message = message.and_then(|(message, _)| message.strip_suffix(b"."));
            let text = message.and_then(value::decode);
            let lasts = |text: value::SessionText<'_>| {
                now < self.expiry(text.issued_at, text.logged_in_at, text.session)
            };
            text.is_some_and(lasts) && self.verify(value, now).is_none()
        })
    }

    /// Whoever can set cookies for this host can cause this at will, so it is one line a minute.
    #[cold]
    fn log_user_conflict(&self, now: Timestamp) {
        let logged = self.0.user_conflict_logged_at.load(Ordering::Relaxed);
        let interval_passed = now.saturating_sub(LOG_INTERVAL) >= Timestamp::from_millis(logged);
        // A clock that was set back ends the rest too.
        if interval_passed || now < Timestamp::from_millis(logged) {
            self.0
                .user_conflict_logged_at
                .store(now.as_millis(), Ordering::Relaxed);
            tracing::warn!(
                target: "tower_wechat::login",
                app = %self.0.app,
                "a request carried valid sessions of two users and counts as nobody's: \
                 another host of the domain may have planted one"
            );
        }
    }
}

/// What a session cookie says.
struct VerifiedSession<'a> {
    id: Cow<'a, str>,
    issued_at: Timestamp,
    logged_in_at: Timestamp,
    expires_at: Timestamp,
    session: Session,
}

impl VerifiedSession<'_> {
    fn is_same_user(&self, other: &Self) -> bool {
        (&self.id, self.session.snapshot) == (&other.id, other.session.snapshot)
    }

    /// What orders the sessions of one user: a logout everywhere ends those of former epochs.
    fn recency(&self) -> (Option<Timestamp>, Timestamp, Timestamp) {
        (
            self.session.last_known_logout,
            self.logged_in_at,
            self.issued_at,
        )
    }
}

impl Identify for SessionCookie {
    fn identify<'a>(&self, head: &RequestHead<'a>) -> Identity<'a> {
        let now = self.0.clock.now();
        let Some(read) = self.find_session(head, now) else {
            return Identity::Anonymous;
        };
        let is_past_half =
            !read.session.snapshot && now >= read.issued_at.saturating_add(self.0.lifetime / 2);
        let extends_session =
            is_past_half && self.expiry(now, read.logged_in_at, read.session) > read.expires_at;
        let VerifiedSession { id, session, .. } = read;
        let set_cookie = extends_session.then(|| self.issue_for_id(&id, session));
        Identity::User(IdentifiedUser {
            id,
            set_cookie,
            session,
        })
    }
}

/// The name of a cookie without the prefix, in whatever case: browsers know it in any.
fn strip_host_prefix(name: &str) -> &str {
    match name.split_at_checked(HOST_PREFIX.len()) {
        Some((prefix, base)) if prefix.eq_ignore_ascii_case(HOST_PREFIX) => base,
        _ => name,
    }
}

fn prefixed_name(base: &str, secure: bool) -> String {
    match secure {
        true => format!("{HOST_PREFIX}{base}"),
        false => base.to_owned(),
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

fn set_cookie_header(name: &str, value: &str, lifetime: Duration, secure: bool) -> HeaderValue {
    let secure = if secure { "; Secure" } else { "" };
    let age = lifetime.as_secs();
    let text = format!("{name}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Lax{secure}");
    // Every part is ASCII without control characters.
    let mut header = HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""));
    header.set_sensitive(true);
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base36::Base36;
    use base64::engine::general_purpose::STANDARD;
    use http::HeaderMap;
    use http::header::COOKIE;
    use proptest::prelude::*;

    fn keys(fill: u8) -> String {
        STANDARD.encode([fill; 64])
    }

    fn session(keys: &str) -> (SessionCookie, Clock) {
        let clock = Clock::manual(Timestamp::from_millis(1_700_000_000_000));
        let app = AppId::new("wx1").unwrap();
        let keys = CookieKeys::from_base64(keys).unwrap();
        (SessionCookie::new(&app, &keys).clock(clock.clone()), clock)
    }

    fn value(header: &HeaderValue) -> String {
        let text = header.to_str().unwrap().split(';').next().unwrap();
        text.split_once('=').unwrap().1.to_owned()
    }

    fn identify_cookie(session: &SessionCookie, value: &str) -> Option<(String, bool)> {
        let mut headers = HeaderMap::new();
        let cookie = format!("{}={value}", session.0.name);
        headers.insert(COOKIE, HeaderValue::try_from(cookie).unwrap());
        let (method, uri, extensions) = Default::default();
        let head = RequestHead {
            method: &method,
            uri: &uri,
            headers: &headers,
            extensions: &extensions,
        };
        match session.identify(&head) {
            Identity::User(user) => Some((user.id.into_owned(), user.set_cookie.is_some())),
            _ => None,
        }
    }

    #[test]
    fn rejects_cookies_of_other_keys_apps_or_names() {
        let (ours, _) = session(&keys(1));
        let cookie = value(&ours.issue(&UserId::new("oUser").unwrap()));
        assert_eq!(
            identify_cookie(&ours, &cookie),
            Some(("oUser".to_owned(), false))
        );
        assert_eq!(identify_cookie(&session(&keys(2)).0, &cookie), None);
        assert_eq!(
            identify_cookie(&ours.clone().name("other").unwrap(), &cookie),
            None
        );
        let (other_app, _) = session(&keys(1));
        let other_app = other_app.modify(|settings| settings.app = AppId::new("wx2").unwrap());
        assert_eq!(
            identify_cookie(&other_app.with_derived_keys(), &cookie),
            None
        );
        // Nor what was signed for plain http, where any host of the domain can set it.
        assert_eq!(identify_cookie(&ours.clone().secure(false), &cookie), None);
    }

    #[test]
    fn a_session_that_somebody_else_has_signed_is_foreign() {
        let (ours, clock) = session(&keys(1));
        let user = UserId::new("oUser").unwrap();
        let finds = |value: &str| {
            let cookie = format!("{}={value}", ours.0.name);
            let request = http::Request::builder().header(COOKIE, cookie);
            let request = request.body(()).unwrap();
            ours.finds_foreign(&RequestHead::from_request(&request))
        };
        let theirs = value(&session(&keys(2)).0.issue(&user));
        assert!(finds(&theirs));
        assert!(!finds(&value(&ours.issue(&user))));
        assert!(!finds("") && !finds("theme.dark") && !finds(&theirs[1..theirs.len() / 2]));
        clock.advance(DEFAULT_LIFETIME);
        assert!(!finds(&theirs), "one that has ended");
    }

    #[test]
    fn accepts_cookies_of_the_previous_key() {
        let (old, _) = session(&keys(1));
        let (new, _) = session(&format!("{},{}", keys(2), keys(1)));
        let cookie = value(&old.issue(&UserId::new("oUser").unwrap()));
        assert!(identify_cookie(&new, &cookie).is_some());
        let cookie = value(&new.issue(&UserId::new("oUser").unwrap()));
        assert!(identify_cookie(&session(&keys(2)).0, &cookie).is_some());
        assert!(identify_cookie(&old, &cookie).is_none());
    }

    #[test]
    fn sessions_are_reissued_after_half_their_life() {
        let (session, clock) = session(&keys(1));
        let cookie = value(&session.issue(&UserId::new("oUser").unwrap()));
        clock.advance(DEFAULT_LIFETIME / 2 - Duration::from_secs(1));
        assert_eq!(
            identify_cookie(&session, &cookie),
            Some(("oUser".to_owned(), false))
        );
        clock.advance(Duration::from_secs(1));
        assert_eq!(
            identify_cookie(&session, &cookie),
            Some(("oUser".to_owned(), true))
        );
        clock.advance(DEFAULT_LIFETIME / 2);
        assert_eq!(identify_cookie(&session, &cookie), None);
    }

    #[test]
    fn sessions_end_ninety_days_after_login() {
        let (session, clock) = session(&keys(1));
        let session = session.lifetime(DEFAULT_LIFETIME);
        let mut cookie = value(&session.issue(&UserId::new("oUser").unwrap()));
        let step = Duration::from_secs(16 * 86_400);
        for days in [16, 32, 48, 64, 80] {
            clock.advance(step);
            let read = session.verify(cookie.as_bytes(), clock.now()).unwrap();
            let renewed = session.issue_for_id(&read.id, read.session);
            let ends_in = 30.min(90 - days) * 86_400;
            let age = format!("; Max-Age={ends_in};");
            assert!(renewed.to_str().unwrap().contains(&age), "day {days}");
            cookie = value(&renewed);
        }
        clock.advance(Duration::from_secs(10 * 86_400 - 1));
        // Issued anew it would not last any longer.
        assert_eq!(
            identify_cookie(&session, &cookie),
            Some(("oUser".to_owned(), false))
        );
        clock.advance(Duration::from_secs(1));
        assert_eq!(identify_cookie(&session, &cookie), None);
        let bounded = session.clone().max_lifetime(Duration::from_secs(3_600));
        let cookie = bounded.issue(&UserId::new("oUser").unwrap());
        assert!(cookie.to_str().unwrap().contains("; Max-Age=3600;"));
        let unbounded = session.max_lifetime(Duration::MAX).lifetime(Duration::MAX);
        let cookie = value(&unbounded.issue(&UserId::new("oUser").unwrap()));
        assert!(identify_cookie(&unbounded, &cookie).is_some());
    }

    /// As version 0.1 before its release wrote them.
    #[test]
    fn old_session_formats_stay_valid() {
        let (session, clock) = session(&keys(1));
        let session = session.secure(false);
        let issued = Base36(clock.now().as_millis() / 1_000);
        for marks in ["", ".v"] {
            let message = format!("oUser.{issued}{marks}");
            let tag = session.0.macs[0].sign(message.as_bytes());
            let old = format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag));
            assert_eq!(
                identify_cookie(&session, &old),
                Some(("oUser".to_owned(), false))
            );
            let read = session.verify(old.as_bytes(), clock.now()).unwrap();
            assert_eq!(read.session.scope_declined, !marks.is_empty());
            let logout = |millis| Some(Timestamp::from_millis(clock.now().as_millis() + millis));
            assert!(read.session.is_revoked(logout(1)));
            assert!(!read.session.is_revoked(logout(-1)) && !read.session.is_revoked(None));
        }
    }

    #[test]
    fn host_prefix_is_added_once_under_https_only() {
        let (session, _) = session(&keys(1));
        for (name, https, http) in [
            ("h5", "__Host-h5=", "h5="),
            ("__Host-h5", "__Host-h5=", "h5="),
            ("__host-h5", "__Host-h5=", "h5="),
        ] {
            let session = session.clone().name(name).unwrap();
            for (secure, expected) in [(true, https), (false, http)] {
                let cookie = session.clone().secure(secure);
                let user = UserId::new("oUser").unwrap();
                let cleared = SessionCookie::removal_cookie(Some(name), secure);
                for set in [cookie.issue(&user), cookie.clear(), cleared] {
                    let set = set.to_str().unwrap();
                    assert!(set.starts_with(expected), "{set}");
                    assert!(
                        set.contains("; Path=/;") && !set.contains("Domain"),
                        "{set}"
                    );
                    assert_eq!(set.contains("; Secure"), secure, "{set}");
                }
            }
        }
        assert!(session.name("__Host-").is_err());
    }

    #[test]
    fn snapshot_sessions_are_short_and_not_extended() {
        let (session, clock) = session(&keys(1));
        let marks = Session {
            snapshot: true,
            ..Session::default()
        };
        let cookie = session.issue_with(&UserId::new("oVirtual").unwrap(), marks);
        assert!(cookie.to_str().unwrap().contains("Max-Age=7200"));
        let cookie = value(&cookie);
        clock.advance(SNAPSHOT_SESSION_LIFETIME - Duration::from_secs(1));
        assert_eq!(
            identify_cookie(&session, &cookie),
            Some(("oVirtual".to_owned(), false))
        );
        assert!(
            session
                .verify(cookie.as_bytes(), clock.now())
                .unwrap()
                .session
                .snapshot
        );
        clock.advance(Duration::from_secs(1));
        assert_eq!(identify_cookie(&session, &cookie), None);
        // The mark cannot be taken off.
        assert!(cookie.contains(".s-"));
        assert_eq!(
            identify_cookie(&session, &cookie.replace(".s-", ".-")),
            None
        );
    }

    #[test]
    fn rejects_cookies_from_the_future() {
        let (session, clock) = session(&keys(1));
        let cookie = value(&session.issue(&UserId::new("oUser").unwrap()));
        clock.rewind(Duration::from_secs(60));
        assert!(identify_cookie(&session, &cookie).is_some());
        clock.rewind(MAX_CLOCK_SKEW);
        assert!(identify_cookie(&session, &cookie).is_none());
    }

    proptest! {
        #[test]
        fn user_ids_round_trip(id in "\\PC{1,60}") {
            let (session, _) = session(&keys(1));
            let user = UserId::new(id.as_str()).unwrap();
            let cookie = session.issue(&user);
            prop_assert!(cookie.to_str().unwrap().contains("HttpOnly; SameSite=Lax; Secure"));
            prop_assert_eq!(identify_cookie(&session, &value(&cookie)), Some((id, false)));
        }

        #[test]
        fn tampered_cookies_are_rejected(at in 0usize..100, with in "[A-Za-z0-9._-]") {
            let (session, _) = session(&keys(1));
            let cookie = value(&session.issue(&UserId::new("oUser").unwrap()));
            let at = at % cookie.len();
            let changed = format!("{}{with}{}", &cookie[..at], &cookie[at + 1..]);
            prop_assert!(changed == cookie || identify_cookie(&session, &changed).is_none());
            prop_assert!(identify_cookie(&session, &cookie[..at]).is_none());
        }

        #[test]
        fn arbitrary_text_is_rejected(text in "[ -~&&[^;,]]{0,200}") {
            prop_assert!(identify_cookie(&session(&keys(1)).0, &text).is_none());
        }
    }
}
