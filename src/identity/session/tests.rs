use super::builder::DEFAULT_LIFETIME;
use super::*;
use crate::base36::Base36;
use crate::clock::MAX_CLOCK_SKEW;
use crate::identity::{Identify, Identity, RequestHead};
use http::HeaderMap;
use http::header::COOKIE;
use proptest::prelude::*;

fn session(keys: &[u8]) -> (SessionCookie, Clock) {
    let clock = Clock::manual(Timestamp::from_millis(1_700_000_000_000));
    let session = builder("wx1", keys, &clock).build().unwrap();
    (session, clock)
}

fn builder(app: &str, keys: &[u8], clock: &Clock) -> SessionCookieBuilder {
    let app = AppId::new(app).unwrap();
    let keys = CookieKeys::for_tests(keys);
    SessionCookie::builder(&app, &keys).clock(clock.clone())
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
    let (own, clock) = session(&[1]);
    let cookie = value(&own.issue(&UserId::new("oUser").unwrap()));
    assert_eq!(
        identify_cookie(&own, &cookie),
        Some(("oUser".to_owned(), false))
    );
    assert_eq!(identify_cookie(&session(&[2]).0, &cookie), None);
    let own_builder = || builder("wx1", &[1], &clock);
    let other_app = builder("wx2", &[1], &clock);
    let same_name = other_app.clone().name("wechat_session_wx1");
    // With plain http, any host of the domain can set the cookie. Its keys therefore differ from
    // the keys with https.
    for other in [
        own_builder().name("other"),
        own_builder().secure(false),
        other_app,
        same_name,
    ] {
        let other = other.build().unwrap();
        assert_eq!(identify_cookie(&other, &cookie), None, "{other:?}");
    }
}

#[test]
fn sessions_of_other_keys_are_foreign() {
    let (own, clock) = session(&[1]);
    let user = UserId::new("oUser").unwrap();
    let finds = |value: &str| {
        let cookie = format!("{}={value}", own.0.name);
        let request = http::Request::builder().header(COOKIE, cookie);
        let request = request.body(()).unwrap();
        own.finds_foreign(&RequestHead::from_request(&request))
    };
    let foreign = value(&session(&[2]).0.issue(&user));
    assert!(finds(&foreign));
    assert!(!finds(&value(&own.issue(&user))));
    assert!(!finds("") && !finds("theme.dark") && !finds(&foreign[1..foreign.len() / 2]));
    clock.advance(DEFAULT_LIFETIME);
    assert!(!finds(&foreign), "expired sessions are not foreign");
}

#[test]
fn accepts_cookies_of_the_previous_key() {
    let (old, _) = session(&[1]);
    let (new, _) = session(&[2, 1]);
    let cookie = value(&old.issue(&UserId::new("oUser").unwrap()));
    assert!(identify_cookie(&new, &cookie).is_some());
    let cookie = value(&new.issue(&UserId::new("oUser").unwrap()));
    assert!(identify_cookie(&session(&[2]).0, &cookie).is_some());
    assert!(identify_cookie(&old, &cookie).is_none());
}

#[test]
fn sessions_are_issued_again_after_half_their_lifetime() {
    let (session, clock) = session(&[1]);
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
    let (session, clock) = session(&[1]);
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
    // The session would not last longer if it were issued again.
    assert_eq!(
        identify_cookie(&session, &cookie),
        Some(("oUser".to_owned(), false))
    );
    clock.advance(Duration::from_secs(1));
    assert_eq!(identify_cookie(&session, &cookie), None);
    let bounded = builder("wx1", &[1], &clock)
        .max_lifetime(Duration::from_secs(3_600))
        .build()
        .unwrap();
    let cookie = bounded.issue(&UserId::new("oUser").unwrap());
    assert!(cookie.to_str().unwrap().contains("; Max-Age=3600;"));
    let unbounded = builder("wx1", &[1], &clock)
        .max_lifetime(Duration::MAX)
        .lifetime(Duration::MAX)
        .build()
        .unwrap();
    let cookie = value(&unbounded.issue(&UserId::new("oUser").unwrap()));
    assert!(identify_cookie(&unbounded, &cookie).is_some());
}

/// These formats were in use before the release of version 0.1.
#[test]
fn old_session_formats_stay_valid() {
    let (_, clock) = session(&[1]);
    let session = builder("wx1", &[1], &clock).secure(false);
    let session = session.build().unwrap();
    let issued = Base36(clock.now().as_millis() / 1_000);
    for flags in ["", ".v"] {
        let message = format!("oUser.{issued}{flags}");
        let tag = session.0.macs[0].sign(message.as_bytes());
        let old = format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag));
        assert_eq!(
            identify_cookie(&session, &old),
            Some(("oUser".to_owned(), false))
        );
        let read = session.verify(old.as_bytes(), clock.now()).unwrap();
        assert_eq!(read.session.scope_declined, !flags.is_empty());
        let logout = |millis| Some(Timestamp::from_millis(clock.now().as_millis() + millis));
        assert!(read.session.is_revoked(logout(1)));
        assert!(!read.session.is_revoked(logout(-1)) && !read.session.is_revoked(None));
    }
}

#[test]
fn default_names_contain_the_app_id() {
    let (_, clock) = session(&[1]);
    for (secure, expected) in [
        (true, "__Host-wechat_session_wx_2-A=;"),
        (false, "wechat_session_wx_2-A=;"),
    ] {
        let cookie = builder("wx_2-A", &[1], &clock).secure(secure);
        let cleared = cookie.build().unwrap().clear();
        assert!(cleared.to_str().unwrap().starts_with(expected));
    }
}

#[test]
fn host_prefix_is_added_once_under_https_only() {
    let (_, clock) = session(&[1]);
    let named = |name| builder("wx1", &[1], &clock).name(name);
    for (name, https, http) in [
        ("h5", "__Host-h5=", "h5="),
        ("__Host-h5", "__Host-h5=", "h5="),
        ("__host-h5", "__Host-h5=", "h5="),
    ] {
        for (secure, expected) in [(true, https), (false, http)] {
            let cookie = named(name).secure(secure).build().unwrap();
            let user = UserId::new("oUser").unwrap();
            for set in [cookie.issue(&user), cookie.clear()] {
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
    assert!(named("__Host-").build().is_err());
}

#[test]
fn snapshot_sessions_are_short_and_not_extended() {
    let (session, clock) = session(&[1]);
    let virtual_user = Session {
        snapshot: true,
        ..Session::default()
    };
    let cookie = session.issue_with(&UserId::new("oVirtual").unwrap(), virtual_user);
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
    // The flag `s` is signed, so a cookie without it is not valid.
    assert!(cookie.contains(".s-"));
    assert_eq!(
        identify_cookie(&session, &cookie.replace(".s-", ".-")),
        None
    );
}

#[test]
fn rejects_cookies_from_the_future() {
    let (session, clock) = session(&[1]);
    let cookie = value(&session.issue(&UserId::new("oUser").unwrap()));
    clock.rewind(Duration::from_secs(60));
    assert!(identify_cookie(&session, &cookie).is_some());
    clock.rewind(MAX_CLOCK_SKEW);
    assert!(identify_cookie(&session, &cookie).is_none());
}

proptest! {
    #[test]
    fn user_ids_round_trip(id in "\\PC{1,60}") {
        let (session, _) = session(&[1]);
        let user = UserId::new(id.as_str()).unwrap();
        let cookie = session.issue(&user);
        prop_assert!(cookie.to_str().unwrap().contains("HttpOnly; SameSite=Lax; Secure"));
        prop_assert_eq!(identify_cookie(&session, &value(&cookie)), Some((id, false)));
    }

    #[test]
    fn tampered_cookies_are_rejected(at in 0usize..100, with in "[A-Za-z0-9._-]") {
        let (session, _) = session(&[1]);
        let cookie = value(&session.issue(&UserId::new("oUser").unwrap()));
        let at = at % cookie.len();
        let changed = format!("{}{with}{}", &cookie[..at], &cookie[at + 1..]);
        prop_assert!(changed == cookie || identify_cookie(&session, &changed).is_none());
        prop_assert!(identify_cookie(&session, &cookie[..at]).is_none());
    }

    #[test]
    fn arbitrary_text_is_rejected(text in "[ -~&&[^;,]]{0,200}") {
        prop_assert!(identify_cookie(&session(&[1]).0, &text).is_none());
    }
}

/// Returns the user that a session cookie finds in a request with these cookies, and whether the
/// session is the website's.
fn identify_all(session: &SessionCookie, cookies: &[HeaderValue]) -> Option<(String, bool)> {
    let mut request = http::Request::builder();
    for cookie in cookies {
        let pair = cookie.to_str().unwrap().split(';').next().unwrap();
        request = request.header(COOKIE, pair);
    }
    let request = request.body(()).unwrap();
    match session.identify(&RequestHead::from_request(&request)) {
        Identity::User(user) => Some((user.id.into_owned(), user.session.website)),
        _ => None,
    }
}

#[test]
fn the_accounts_session_precedes_the_websites() {
    let clock = Clock::manual(Timestamp::from_millis(1_700_000_000_000));
    let website = builder("wx2", &[1], &clock).build().unwrap();
    let account = builder("wx1", &[1], &clock);
    let account = account.website(Some(website.clone())).build().unwrap();
    let issue = |cookie: &SessionCookie, user| cookie.issue(&UserId::new(user).unwrap());
    let (of_account, of_website) = (issue(&account, "oA"), issue(&website, "oW"));
    let website_user = Some(("oW".to_owned(), true));
    let account_user = Some(("oA".to_owned(), false));
    for (cookies, expected) in [
        (vec![&of_website], website_user.clone()),
        (vec![&of_account], account_user.clone()),
        (vec![&of_website, &of_account], account_user),
        (vec![], None),
        // With sessions of two users of the account, the request has no user.
        (vec![&of_account, &issue(&account, "oB"), &of_website], None),
        (vec![&of_website, &issue(&website, "oX")], None),
    ] {
        let cookies: Vec<_> = cookies.into_iter().cloned().collect();
        assert_eq!(identify_all(&account, &cookies), expected, "{cookies:?}");
    }
    assert_eq!(
        identify_all(&website, std::slice::from_ref(&of_account)),
        None
    );
    // A session that has ended is not the account's.
    clock.advance(DEFAULT_LIFETIME);
    let of_website = issue(&website, "oW");
    assert_eq!(
        identify_all(&account, &[of_account, of_website]),
        website_user
    );
    let removed: Vec<_> = account.clear_with_website().collect();
    assert_eq!(removed, [account.clear(), website.clear()]);
}
