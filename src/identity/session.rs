//! The session cookie: it names a user, proves that we said so, and holds nothing secret.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use memchr::memchr;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::keys::{CookieKeys, KeyedMac};
use super::{Identified, Identify, Identity, RequestHead, cookies};
use crate::clock::{Clock, Timestamp};
use crate::credential::{AppId, Base36, UserId, read_base36};
use crate::error::{Error, ErrorKind};

/// What the cookie is called unless something else is set.
const NAME: &str = "wechat_session";

/// How long a session lasts since it was last issued.
const SESSION_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3_600);

/// How long the session of a virtual user of a snapshot page (快照页) lasts. It never slides.
const SNAPSHOT_LIFETIME: Duration = Duration::from_secs(2 * 3_600);

/// How long a session counts as having begun a moment ago: longer than any process remembers that
/// a user has no token.
const LATELY: Duration = Duration::from_secs(2 * 60);

/// How much older than a user's logging out everywhere a session must be to have ended by it. The
/// server that issues the next one may have a clock that is late (R8).
const REVOCATION_SLACK: Duration = Duration::from_secs(2 * 60);

/// A session that claims to be issued later than this from now was not issued by a sane clock.
const CLOCK_DIFFERENCE: Duration = Duration::from_secs(5 * 60);

/// An HMAC-SHA256 in base64.
const TAG_CHARS: usize = 43;

/// What the id of a user may keep in a cookie as it is. Openids have nothing else.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

/// Names the user of a browser in a signed cookie.
///
/// The value is `USER.ISSUED.TAG`: the user id, when it was issued (seconds, base 36), and an
/// HMAC-SHA256 of both under a key that is made of the application's for this cookie's name and
/// AppID alone, so that no other value under the same key passes for it. It holds nothing secret, but whoever has it is the user: treat it
/// like a token in logs.
///
/// The cookie is `HttpOnly`, `SameSite=Lax` and (unless told otherwise) `Secure`. A session lasts
/// 30 days; the cookie is issued anew when half of them have passed. The session of a snapshot
/// page's virtual user (快照页) says so after `ISSUED`, and ends after two hours.
///
/// ```
/// use std::time::Duration;
/// use tower_wechat::{AppId, Clock, CookieKeys, SessionCookie, UserId};
///
/// # fn main() -> Result<(), tower_wechat::Error> {
/// let session = SessionCookie::new(&AppId::new("wx0123456789abcdef")?, &CookieKeys::random()?)
///     .name("h5")?
///     .lifetime(Duration::from_secs(7 * 86_400))
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
pub struct SessionCookie(Arc<Settings>);

#[derive(Clone)]
struct Settings {
    app: AppId,
    keys: CookieKeys,
    name: String,
    secure: bool,
    lifetime: Duration,
    clock: Clock,
    macs: Vec<KeyedMac>,
}

impl SessionCookie {
    /// Sessions of this account's users, under the name `wechat_session`.
    pub fn new(app: &AppId, keys: &CookieKeys) -> Self {
        Self(Arc::new(Settings {
            app: app.clone(),
            keys: keys.clone(),
            name: String::new(),
            secure: true,
            lifetime: SESSION_LIFETIME,
            clock: Clock::system(),
            macs: Vec::new(),
        }))
        .renamed(NAME.to_owned())
    }

    /// Gives the cookie another name.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`]: cookies cannot have that name.
    pub fn name(self, name: &str) -> Result<Self, Error> {
        Self::check_name(name)?;
        Ok(self.renamed(name.to_owned()))
    }

    pub(crate) fn check_name(name: &str) -> Result<(), Error> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
            return Err(misconfigured(format!(
                "{name:?} is no name of a cookie; use letters, digits, '-', '_' and '.'"
            )));
        }
        Ok(())
    }

    fn renamed(self, name: String) -> Self {
        self.with(|settings| {
            let purpose = ["tower-wechat session 1", settings.app.as_str(), &name];
            settings.macs = settings.keys.for_purpose(&purpose);
            settings.name = name;
        })
    }

    /// Whether browsers send the cookie over https only. Default: yes. Say no for development over
    /// plain http.
    #[must_use]
    pub fn secure(self, secure: bool) -> Self {
        self.with(|settings| settings.secure = secure)
    }

    /// How long a session lasts since it was last issued. Default: 30 days.
    #[must_use]
    pub fn lifetime(self, lifetime: Duration) -> Self {
        self.with(|settings| settings.lifetime = lifetime)
    }

    /// The clock that sessions end by. Default: the system's.
    #[must_use]
    pub fn clock(self, clock: Clock) -> Self {
        self.with(|settings| settings.clock = clock)
    }

    fn with(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// The value of a `Set-Cookie` header that signs `user` in.
    pub fn issue(&self, user: &UserId) -> HeaderValue {
        self.issue_str(user.as_str(), Session::default())
    }

    pub(crate) fn issue_for(&self, user: &UserId, session: Session) -> HeaderValue {
        self.issue_str(user.as_str(), session)
    }

    fn issue_str(&self, user: &str, session: Session) -> HeaderValue {
        let issued = self.0.clock.now().as_millis().max(0) / 1_000;
        let mut message = format!("{}.{}", utf8_percent_encode(user, ENCODED), Base36(issued));
        message.push_str(session.marks());
        let tag = self
            .0
            .macs
            .first()
            .map(|mac| mac.sign(message.as_bytes()))
            .unwrap_or_default();
        let value = format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag));
        self.set_cookie(&value, self.lifetime_of(session))
    }

    fn lifetime_of(&self, session: Session) -> Duration {
        if session.snapshot {
            self.0.lifetime.min(SNAPSHOT_LIFETIME)
        } else {
            self.0.lifetime
        }
    }

    /// The value of a `Set-Cookie` header that signs whoever it is out.
    pub fn clear(&self) -> HeaderValue {
        Self::cleared(Some(&self.0.name), self.0.secure)
    }

    /// The same without keys or account.
    pub(crate) fn cleared(name: Option<&str>, secure: bool) -> HeaderValue {
        set_cookie(name.unwrap_or(NAME), "", Duration::ZERO, secure)
    }

    fn set_cookie(&self, value: &str, lifetime: Duration) -> HeaderValue {
        set_cookie(&self.0.name, value, lifetime, self.0.secure)
    }

    /// The user of a cookie's value, when it was issued and what it tells besides; `None` unless
    /// we made it and it has not ended.
    fn read<'a>(&self, value: &'a [u8], now: Timestamp) -> Option<Read<'a>> {
        let (message, tag) = value.split_last_chunk::<TAG_CHARS>()?;
        let message = message.strip_suffix(b".")?;
        let mut bytes = [0; 32];
        if URL_SAFE_NO_PAD.decode_slice(tag, &mut bytes) != Ok(bytes.len()) {
            return None;
        }
        if !self.0.macs.iter().any(|mac| mac.verifies(message, &bytes)) {
            return None;
        }
        let (id, rest) = split_once(message)?;
        let (issued, marks) = split_once(rest).unwrap_or((rest, b""));
        let issued = read_base36(std::str::from_utf8(issued).ok()?)?.checked_mul(1_000)?;
        let issued = Timestamp::from_millis(issued);
        let mut session = Session::marked(marks);
        if now >= issued.after(self.lifetime_of(session)) || now < issued.before(CLOCK_DIFFERENCE) {
            return None;
        }
        session.issued = Some(issued);
        session.lately = now < issued.after(LATELY);
        Some(Read {
            id: decoded(std::str::from_utf8(id).ok()?)?,
            issued,
            session,
        })
    }
}

/// What stands before the first dot, and after it.
fn split_once(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let dot = memchr(b'.', bytes)?;
    Some((&bytes[..dot], &bytes[dot + 1..]))
}

/// Openids stand in a cookie as they are.
fn decoded(id: &str) -> Option<Cow<'_, str>> {
    if memchr(b'%', id.as_bytes()).is_some() {
        percent_decode_str(id).decode_utf8().ok()
    } else {
        Some(Cow::Borrowed(id))
    }
}

/// What a session cookie says.
struct Read<'a> {
    id: Cow<'a, str>,
    issued: Timestamp,
    session: Session,
}

/// What a session is, besides somebody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Session {
    /// Of a virtual user of a snapshot page (快照页).
    pub(crate) snapshot: bool,
    /// The user has been asked for `snsapi_userinfo` and has not granted it: asking again would
    /// be a loop.
    pub(crate) asked_in_vain: bool,
    /// It began a moment ago. Not written: told by the time of issue.
    pub(crate) lately: bool,
    /// When it was issued. Not among the marks: it stands before them.
    pub(crate) issued: Option<Timestamp>,
}

impl Session {
    /// Whether it was void before the user logged in again: they have logged out everywhere since.
    #[inline]
    pub(crate) fn is_revoked(self, sessions_from: Option<Timestamp>) -> bool {
        match (self.issued, sessions_from) {
            (Some(issued), Some(from)) => issued.after(REVOCATION_SLACK) < from,
            _ => false,
        }
    }

    fn marks(self) -> &'static str {
        match (self.snapshot, self.asked_in_vain) {
            (false, false) => "",
            (true, false) => ".s",
            (false, true) => ".v",
            (true, true) => ".sv",
        }
    }

    fn marked(marks: &[u8]) -> Self {
        Self {
            snapshot: marks.contains(&b's'),
            asked_in_vain: marks.contains(&b'v'),
            lately: false,
            issued: None,
        }
    }
}

impl Identify for SessionCookie {
    fn identify<'a>(&self, head: &RequestHead<'a>) -> Identity<'a> {
        let now = self.0.clock.now();
        let mut cookies = cookies::named(head.headers, &self.0.name);
        let Some(read) = cookies.find_map(|value| self.read(value, now)) else {
            return Identity::Nobody;
        };
        let Read {
            id,
            issued,
            session,
        } = read;
        let half_over = !session.snapshot && now >= issued.after(self.0.lifetime / 2);
        let set_cookie = half_over.then(|| self.issue_str(&id, session));
        Identity::User(Identified {
            id,
            set_cookie,
            session,
        })
    }
}

impl fmt::Debug for SessionCookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionCookie")
            .field("name", &self.0.name)
            .field("secure", &self.0.secure)
            .field("lifetime", &self.0.lifetime)
            .field("keys", &self.0.keys)
            .finish_non_exhaustive()
    }
}

fn set_cookie(name: &str, value: &str, lifetime: Duration, secure: bool) -> HeaderValue {
    let secure = if secure { "; Secure" } else { "" };
    let age = lifetime.as_secs();
    let text = format!("{name}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Lax{secure}");
    // Every part is ASCII without control characters.
    let mut header = HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""));
    header.set_sensitive(true);
    header
}

fn misconfigured(message: String) -> Error {
    Error::new(ErrorKind::Configuration, message)
}

#[cfg(test)]
mod tests {
    use super::*;
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

    fn who(session: &SessionCookie, value: &str) -> Option<(String, bool)> {
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
    fn another_key_app_or_name_does_not_pass() {
        let (ours, _) = session(&keys(1));
        let cookie = value(&ours.issue(&UserId::new("oUser").unwrap()));
        assert_eq!(who(&ours, &cookie), Some(("oUser".to_owned(), false)));
        assert_eq!(who(&session(&keys(2)).0, &cookie), None);
        assert_eq!(who(&ours.clone().name("other").unwrap(), &cookie), None);
        let (other_app, _) = session(&keys(1));
        let other_app = other_app.with(|settings| settings.app = AppId::new("wx2").unwrap());
        assert_eq!(
            who(&other_app.renamed("wechat_session".into()), &cookie),
            None
        );
    }

    #[test]
    fn keys_rotate() {
        let (old, _) = session(&keys(1));
        let (new, _) = session(&format!("{},{}", keys(2), keys(1)));
        let cookie = value(&old.issue(&UserId::new("oUser").unwrap()));
        assert!(who(&new, &cookie).is_some());
        let cookie = value(&new.issue(&UserId::new("oUser").unwrap()));
        assert!(who(&session(&keys(2)).0, &cookie).is_some());
        assert!(who(&old, &cookie).is_none());
    }

    #[test]
    fn a_session_slides_past_its_half_and_ends() {
        let (session, clock) = session(&keys(1));
        let cookie = value(&session.issue(&UserId::new("oUser").unwrap()));
        clock.advance(SESSION_LIFETIME / 2 - Duration::from_secs(1));
        assert_eq!(who(&session, &cookie), Some(("oUser".to_owned(), false)));
        clock.advance(Duration::from_secs(1));
        assert_eq!(who(&session, &cookie), Some(("oUser".to_owned(), true)));
        clock.advance(SESSION_LIFETIME / 2);
        assert_eq!(who(&session, &cookie), None);
    }

    #[test]
    fn a_snapshot_users_session_is_short_and_does_not_slide() {
        let (session, clock) = session(&keys(1));
        let marks = Session {
            snapshot: true,
            ..Session::default()
        };
        let cookie = session.issue_for(&UserId::new("oVirtual").unwrap(), marks);
        assert!(cookie.to_str().unwrap().contains("Max-Age=7200"));
        let cookie = value(&cookie);
        clock.advance(SNAPSHOT_LIFETIME - Duration::from_secs(1));
        assert_eq!(who(&session, &cookie), Some(("oVirtual".to_owned(), false)));
        assert!(
            session
                .read(cookie.as_bytes(), clock.now())
                .unwrap()
                .session
                .snapshot
        );
        clock.advance(Duration::from_secs(1));
        assert_eq!(who(&session, &cookie), None);
        // The mark cannot be taken off.
        assert!(cookie.contains(".s."));
        assert_eq!(who(&session, &cookie.replace(".s.", ".")), None);
    }

    #[test]
    fn a_cookie_from_the_future_does_not_pass() {
        let (session, clock) = session(&keys(1));
        let cookie = value(&session.issue(&UserId::new("oUser").unwrap()));
        clock.rewind(Duration::from_secs(60));
        assert!(who(&session, &cookie).is_some());
        clock.rewind(CLOCK_DIFFERENCE);
        assert!(who(&session, &cookie).is_none());
    }

    proptest! {
        #[test]
        fn every_user_reads_back(id in "\\PC{1,60}") {
            let (session, _) = session(&keys(1));
            let user = UserId::new(id.as_str()).unwrap();
            let cookie = session.issue(&user);
            prop_assert!(cookie.to_str().unwrap().contains("HttpOnly; SameSite=Lax; Secure"));
            prop_assert_eq!(who(&session, &value(&cookie)), Some((id, false)));
        }

        #[test]
        fn no_changed_cookie_passes(at in 0usize..100, with in "[A-Za-z0-9._-]") {
            let (session, _) = session(&keys(1));
            let cookie = value(&session.issue(&UserId::new("oUser").unwrap()));
            let at = at % cookie.len();
            let changed = format!("{}{with}{}", &cookie[..at], &cookie[at + 1..]);
            prop_assert!(changed == cookie || who(&session, &changed).is_none());
            prop_assert!(who(&session, &cookie[..at]).is_none());
        }

        #[test]
        fn no_other_text_passes(text in "[ -~&&[^;,]]{0,200}") {
            prop_assert!(who(&session(&keys(1)).0, &text).is_none());
        }
    }
}
