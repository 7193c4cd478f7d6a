//! Reading sessions: from a request's cookies to a verified session.

use std::borrow::Cow;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::value::Session;
use super::{SessionCookie, value};
use crate::clock::{MAX_CLOCK_SKEW, Timestamp};
use crate::identity::{IdentifiedUser, Identify, Identity, RequestHead, cookies};

/// Time after a login for which the login counts as recent: two minutes. A process caches for one
/// second that a user has no token, and the servers' clocks may differ by a minute.
const RECENT_LOGIN: Duration = Duration::from_secs(2 * 60);

/// Length of an HMAC-SHA256 in base64 without padding: 43 characters.
const TAG_CHARS: usize = 43;

impl SessionCookie {
    /// Returns the session of a cookie's value. Returns `None` if this application did not sign the
    /// value, or if the session has ended or is issued too far in the future.
    ///
    /// The checks that need no MAC come first, because a request can carry many other values in
    /// front of the valid one.
    pub(super) fn verify<'a>(
        &self,
        value: &'a [u8],
        now: Timestamp,
    ) -> Option<VerifiedSession<'a>> {
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

    /// Returns the valid session among all cookies with the session cookie's name. If one user has
    /// several sessions, returns the [most recent](VerifiedSession::recency) one.
    ///
    /// # Errors
    /// [`UserConflict`], with a warning in the log: there are sessions of two users.
    fn find_session<'a>(
        &self,
        head: &RequestHead<'a>,
        now: Timestamp,
    ) -> Result<Option<VerifiedSession<'a>>, UserConflict> {
        let mut found: Option<VerifiedSession<'a>> = None;
        for value in cookies::values_named(head.headers, &self.0.name) {
            let Some(read) = self.verify(value, now) else {
                continue;
            };
            match &found {
                Some(other) if !other.is_same_user(&read) => {
                    self.log_user_conflict(now);
                    return Err(UserConflict);
                }
                Some(other) if other.recency() >= read.recency() => {}
                Some(_) | None => found = Some(read),
            }
        }
        Ok(found)
    }

    /// Returns `true` if a request has an unexpired session under this cookie's name that this
    /// cookie does not accept. The signer may be another application of this host, another account,
    /// or this application with a former key.
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

    /// Logs that a request has sessions of two users, at most once a minute. Every host that can
    /// set this cookie can cause such requests.
    #[cold]
    fn log_user_conflict(&self, now: Timestamp) {
        let limiter = &self.0.log_limiter;
        if limiter.allow_line_by_clock("user_conflict", now).is_some() {
            tracing::warn!(
                target: "tower_wechat::login",
                app = %self.0.app,
                "a request with valid sessions of two users was treated as anonymous; \
                 another host of the domain may have set one of the cookies: use https, where no \
                 other host can set this cookie"
            );
        }
    }
}

/// A session whose signature is valid and that has not ended.
pub(super) struct VerifiedSession<'a> {
    pub(super) id: Cow<'a, str>,
    pub(super) issued_at: Timestamp,
    pub(super) logged_in_at: Timestamp,
    pub(super) expires_at: Timestamp,
    pub(super) session: Session,
}

impl VerifiedSession<'_> {
    /// Returns `true` if both sessions have the same user. A real and a virtual user with one id
    /// are different users.
    fn is_same_user(&self, other: &Self) -> bool {
        (&self.id, self.session.snapshot) == (&other.id, other.session.snapshot)
    }

    /// Returns the order of sessions of one user. The last known logout comes first, because a
    /// logout everywhere ends the sessions that do not contain it. The time of the login decides
    /// ties, and then the time of the issue.
    fn recency(&self) -> (Option<Timestamp>, Timestamp, Timestamp) {
        (
            self.session.last_known_logout,
            self.logged_in_at,
            self.issued_at,
        )
    }
}

/// A request has valid sessions of two users under one name, so that it has no user.
struct UserConflict;

impl SessionCookie {
    /// Returns the user of this cookie's session. Ignores the session of the website.
    pub(crate) fn identify_own<'a>(&self, head: &RequestHead<'a>) -> Identity<'a> {
        let now = self.0.clock.now();
        match self.find_session(head, now) {
            Ok(Some(read)) => Identity::User(self.user_of(read, now)),
            Ok(None) | Err(UserConflict) => Identity::Anonymous,
        }
    }

    /// Returns the user of a session, with the cookie that renews the session if it is due.
    fn user_of<'a>(&self, read: VerifiedSession<'a>, now: Timestamp) -> IdentifiedUser<'a> {
        // The session is issued again only if that extends the session. Near the end of the maximum
        // lifetime, issuing it again would not.
        let is_past_half =
            !read.session.snapshot && now >= read.issued_at.saturating_add(self.0.lifetime / 2);
        let extends_session =
            is_past_half && self.expiry(now, read.logged_in_at, read.session) > read.expires_at;
        let VerifiedSession { id, session, .. } = read;
        let set_cookie = extends_session.then(|| self.issue_for_id(&id, session));
        IdentifiedUser {
            id,
            set_cookie,
            session,
        }
    }
}

impl Identify for SessionCookie {
    /// Returns the user of the account's session. Only a request that has none, of any user, can
    /// have the user of the website's session.
    fn identify<'a>(&self, head: &RequestHead<'a>) -> Identity<'a> {
        let now = self.0.clock.now();
        match (self.find_session(head, now), &self.0.website) {
            (Ok(Some(read)), _) => Identity::User(self.user_of(read, now)),
            (Ok(None), Some(website)) => match website.identify_own(head) {
                Identity::User(mut user) => {
                    user.session.website = true;
                    Identity::User(user)
                }
                other @ (Identity::Anonymous | Identity::Invalid(_)) => other,
            },
            (Ok(None), None) | (Err(UserConflict), _) => Identity::Anonymous,
        }
    }

    fn session_cookie(&self) -> Option<&SessionCookie> {
        Some(self)
    }
}
