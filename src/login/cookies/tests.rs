use super::*;
use crate::login::scope::Scope;
use http::HeaderValue;
use http::header::COOKIE;
use proptest::prelude::*;

use super::super::public_url::PublicUrl;
use super::super::return_origins::ReturnOrigins;
use super::super::state::StateSigner;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const LIFE: Duration = Duration::from_secs(600);

fn page(path: &str) -> ReturnTo {
    let public_url = PublicUrl::parse("https://a.b").unwrap();
    let listed = ReturnOrigins::parse(["https://c.d"], &public_url).unwrap();
    ReturnTo::parse(path.as_bytes(), &public_url, &listed).unwrap()
}

fn login_cookies(app: &str, key: u8) -> LoginCookies {
    let app = AppId::new(app).unwrap();
    LoginCookies::new(
        &app,
        &CookieKeys::for_tests(&[key]),
        "/callback",
        true,
        LIFE,
        page("/"),
    )
}

fn attempt(path: &str, now: Timestamp) -> LoginAttempt {
    let signer = StateSigner::new(
        &AppId::new("wx1").unwrap(),
        &CookieKeys::for_tests(&[1]),
        "/callback",
        LIFE,
    );
    LoginAttempt {
        state: signer.issue(now).unwrap(),
        scope: Scope::Base,
        return_to: page(path),
        status: AttemptStatus::Open,
        repeats: 0,
    }
}

/// The cookies that a browser has stored.
#[derive(Clone, Default)]
struct Jar(std::collections::BTreeMap<String, String>);

impl Jar {
    fn store_cookies(&mut self, set: Vec<(String, u64)>) {
        for (text, lifetime) in set {
            let (name, value) = text.split_once('=').unwrap();
            if lifetime == 0 {
                self.0.remove(name);
            } else {
                self.0.insert(name.to_owned(), value.to_owned());
            }
        }
    }

    fn headers(&self) -> HeaderMap {
        let cookies = self.0.iter().map(|(name, value)| format!("{name}={value}"));
        let mut headers = HeaderMap::new();
        let all = cookies.collect::<Vec<_>>().join("; ");
        headers.insert(COOKIE, HeaderValue::try_from(all).unwrap());
        headers
    }

    fn bytes(&self) -> usize {
        self.headers()[COOKIE].len()
    }

    fn begin(&mut self, cookies: &LoginCookies, attempt: &LoginAttempt, now: Timestamp) {
        let mut browser = cookies.read(&self.headers(), now);
        browser.add_attempt(attempt.clone());
        self.store_cookies(cookies.write(&browser));
    }

    fn end(
        &mut self,
        cookies: &LoginCookies,
        attempt: &LoginAttempt,
        status: AttemptStatus,
        now: Timestamp,
    ) {
        let mut browser = cookies.read(&self.headers(), now);
        let mut attempt = attempt.clone();
        attempt.status = status;
        browser.record_end(&attempt);
        self.store_cookies(cookies.write(&browser));
    }

    fn find_attempt(
        &self,
        cookies: &LoginCookies,
        attempt: &LoginAttempt,
        now: Timestamp,
    ) -> Option<LoginAttempt> {
        cookies
            .read(&self.headers(), now)
            .find_attempt(attempt.state)
    }
}

fn signed_in(now: Timestamp) -> AttemptStatus {
    AttemptStatus::SignedIn {
        at: unix_seconds(now),
        fingerprint: CodeFingerprint::from_hash("hash"),
    }
}

#[test]
fn logins_of_several_tabs_round_trip() {
    let (cookies, mut jar) = (login_cookies("wx1", 1), Jar::default());
    let tabs = [
        attempt("/a?b=c;d,e#f", NOW),
        attempt("/b", NOW),
        attempt(&format!("/c?{}", "x".repeat(2_000)), NOW),
    ];
    for tab in &tabs {
        jar.begin(&cookies, tab, NOW);
    }
    for tab in &tabs {
        assert_eq!(jar.find_attempt(&cookies, tab, NOW).as_ref(), Some(tab));
    }
    jar.end(&cookies, &tabs[1], signed_in(NOW), NOW);
    let known = jar.find_attempt(&cookies, &tabs[1], NOW).unwrap();
    assert_eq!(
        (known.return_to.path(), known.status),
        ("/b", signed_in(NOW))
    );
    assert_eq!(
        jar.find_attempt(&cookies, &tabs[0], NOW).as_ref(),
        Some(&tabs[0])
    );
    assert_eq!(
        jar.find_attempt(&cookies, &tabs[0], NOW.saturating_add(LIFE)),
        None
    );
    for other in [login_cookies("wx1", 2), login_cookies("wx2", 1)] {
        assert!(other.read(&jar.headers(), NOW).is_empty());
    }
}

#[test]
fn late_logins_answer_duplicates_for_ten_minutes() {
    let (cookies, mut jar) = (login_cookies("wx1", 1), Jar::default());
    let tab = attempt("/page?a=b", NOW);
    jar.begin(&cookies, &tab, NOW);
    let late = NOW.saturating_add(LIFE - Duration::from_secs(1));
    jar.end(&cookies, &tab, signed_in(late), late);
    let last = late.saturating_add(LIFE - Duration::from_secs(1));
    assert!(cookies.read(&jar.headers(), last).has_succeeded(tab.state));
    let known = jar.find_attempt(&cookies, &tab, last).unwrap();
    assert_eq!(known.return_to, tab.return_to);
    assert!(
        !cookies
            .read(&jar.headers(), late.saturating_add(LIFE))
            .has_succeeded(tab.state)
    );
}

#[test]
fn cookies_cannot_move_to_another_slot() {
    let (cookies, mut jar) = (login_cookies("wx1", 1), Jar::default());
    let tab = attempt("/a", NOW);
    jar.begin(&cookies, &tab, NOW);
    let (name, value) = jar.0.pop_first().unwrap();
    for slot in 0..SLOT_PAGE_BYTES.len() {
        let renamed = format!("{}{slot}", cookies.prefix());
        let mut forged = Jar::default();
        forged.0.insert(renamed.clone(), value.clone());
        assert_eq!(
            forged.find_attempt(&cookies, &tab, NOW).is_some(),
            renamed == name
        );
    }
    // If a browser sends two cookies of one name, the valid one counts in either order.
    for values in [[value.as_str(), "junk"], ["junk", value.as_str()]] {
        let text = values.map(|value| format!("{name}={value}")).join("; ");
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, HeaderValue::try_from(text).unwrap());
        assert!(
            cookies
                .read(&headers, NOW)
                .find_attempt(tab.state)
                .is_some()
        );
    }
}

#[test]
fn long_and_many_short_pages_are_kept() {
    let (cookies, mut jar) = (login_cookies("wx1", 1), Jar::default());
    let long = [1, 2].map(|tab| attempt(&format!("/?tab={tab}&q={}", "x".repeat(1_000)), NOW));
    let short = [1, 2, 3, 4, 5, 6].map(|tab| attempt(&format!("/me?tab={tab}"), NOW));
    for tab in long.iter().chain(&short) {
        jar.begin(&cookies, tab, NOW);
    }
    for tab in long.iter().chain(&short) {
        assert_eq!(jar.find_attempt(&cookies, tab, NOW).as_ref(), Some(tab));
    }
    let mut many = Jar::default();
    let tabs: Vec<_> = (0..30)
        .map(|tab| attempt(&format!("/me?tab={tab}"), NOW))
        .collect();
    for tab in &tabs {
        many.begin(&cookies, tab, NOW);
    }
    for tab in &tabs {
        assert_eq!(many.find_attempt(&cookies, tab, NOW).as_ref(), Some(tab));
    }
}

/// The slot of a login is random while several slots are empty, so the test runs many times.
#[test]
fn newest_tabs_keep_their_pages() {
    let cookies = login_cookies("wx1", 1);
    for interval in [1, 7, 100, 400, 1_000] {
        for _ in 0..20 {
            let mut jar = Jar::default();
            let tabs: Vec<_> = (0..8)
                .map(|tab| {
                    let now = NOW.saturating_add(Duration::from_millis(tab * interval));
                    attempt(&format!("/?tab={tab}&q={}", "x".repeat(1_000)), now)
                })
                .collect();
            for tab in &tabs {
                let now = Timestamp::from_millis(tab.state.issued_at as i64 * 1_000);
                jar.begin(&cookies, tab, now);
            }
            for tab in &tabs[6..] {
                assert_eq!(
                    jar.find_attempt(&cookies, tab, NOW).as_ref(),
                    Some(tab),
                    "{interval} ms"
                );
            }
        }
    }
}

/// Two tabs that begin before either has a cookie overwrite each other's login only if both get the
/// same slot. A page of another origin has its origin in front, and gets one of several slots too.
#[test]
fn tabs_that_begin_together_seldom_get_one_slot() {
    let cookies = login_cookies("wx1", 1);
    let long = format!("https://c.d/goods/{}?from=singlemessage", "x".repeat(120));
    for path in [
        "/",
        "https://c.d/goods/12345?from=singlemessage#/step/2",
        &long,
    ] {
        let both_kept = || {
            let tabs = [attempt(path, NOW), attempt(path, NOW)];
            let mut jar = Jar::default();
            let begun = tabs.each_ref().map(|tab| {
                let mut browser = cookies.read(&HeaderMap::new(), NOW);
                browser.add_attempt(tab.clone());
                cookies.write(&browser)
            });
            begun.into_iter().for_each(|set| jar.store_cookies(set));
            tabs.iter()
                .all(|tab| jar.find_attempt(&cookies, tab, NOW).is_some())
        };
        // With five slots, four pairs out of five are expected.
        let kept = (0..100).filter(|_| both_kept()).count();
        assert!(kept > 50, "{path}: {kept}");
    }
}

#[test]
fn evicted_logins_return_to_the_start_page() {
    let (cookies, mut jar) = (login_cookies("wx1", 1), Jar::default());
    let tabs: Vec<_> = (0..4)
        .map(|tab| {
            attempt(
                &format!("/{tab}?{}", "x".repeat(2_000)),
                NOW.saturating_add(Duration::from_secs(tab)),
            )
        })
        .collect();
    for tab in &tabs {
        jar.begin(&cookies, tab, NOW);
    }
    assert_eq!(
        jar.find_attempt(&cookies, &tabs[3], NOW).as_ref(),
        Some(&tabs[3])
    );
    for tab in &tabs[..3] {
        let known = jar.find_attempt(&cookies, tab, NOW).unwrap();
        assert_eq!(
            (known.return_to.as_str(), known.status),
            ("/", AttemptStatus::Open)
        );
    }
}

#[test]
fn repeated_page_loads_share_one_login() {
    let (cookies, mut jar) = (login_cookies("wx1", 1), Jar::default());
    let tab = attempt("/a", NOW);
    jar.begin(&cookies, &tab, NOW);
    for repeats in 1..=3 {
        let mut browser = cookies.read(&jar.headers(), NOW);
        let known = browser.reuse_attempt(Scope::Base, &tab.return_to).unwrap();
        assert_eq!((known.state, known.repeats), (tab.state, repeats));
        jar.store_cookies(cookies.write(&browser));
    }
    assert_eq!(jar.0.len(), 1);
    let mut browser = cookies.read(&jar.headers(), NOW);
    assert_eq!(browser.reuse_attempt(Scope::UserInfo, &tab.return_to), None);
    assert_eq!(browser.reuse_attempt(Scope::Base, &page("/b")), None);
    let later = NOW.saturating_add(Duration::from_secs(60));
    let mut browser = cookies.read(&jar.headers(), later);
    assert_eq!(browser.reuse_attempt(Scope::Base, &tab.return_to), None);
    jar.end(
        &cookies,
        &tab,
        AttemptStatus::Retried {
            at: unix_seconds(NOW),
        },
        NOW,
    );
    let mut browser = cookies.read(&jar.headers(), NOW);
    assert_eq!(browser.reuse_attempt(Scope::Base, &tab.return_to), None);
}

#[test]
fn counts_retries_and_logins_of_the_last_minute() {
    let (cookies, mut jar) = (login_cookies("wx1", 1), Jar::default());
    for number in 0..MAX_HISTORY_ENTRIES {
        let tab = attempt(&format!("/{number}"), NOW);
        jar.begin(&cookies, &tab, NOW);
        jar.end(&cookies, &tab, signed_in(NOW), NOW);
    }
    let retried = attempt("/", NOW);
    jar.begin(&cookies, &retried, NOW);
    assert_eq!(
        cookies.read(&jar.headers(), NOW).recent_logins(),
        MAX_HISTORY_ENTRIES
    );
    jar.end(
        &cookies,
        &retried,
        AttemptStatus::Retried {
            at: unix_seconds(NOW),
        },
        NOW,
    );
    let browser = cookies.read(&jar.headers(), NOW);
    assert_eq!(
        (browser.recent_logins(), browser.recent_retries()),
        (MAX_HISTORY_ENTRIES - 1, 1)
    );
    let browser = cookies.read(&jar.headers(), NOW.saturating_add(Duration::from_secs(60)));
    assert_eq!((browser.recent_logins(), browser.recent_retries()), (0, 0));
}

#[test]
fn logins_of_other_accounts_are_found() {
    let (own, other) = (login_cookies("wx1", 1), login_cookies("wx2", 2));
    let (mut jar, tab) = (Jar::default(), attempt("/page", NOW));
    jar.begin(&own, &tab, NOW);
    assert!(other.finds_foreign(&jar.headers(), tab.state));
    assert!(!own.finds_foreign(&jar.headers(), tab.state));
    assert!(!other.finds_foreign(&jar.headers(), attempt("/page", NOW).state));
    // The logins of the two accounts do not count together.
    jar.begin(&other, &attempt("/page", NOW), NOW);
    assert_eq!(jar.0.len(), 2);
    jar.end(&own, &tab, signed_in(NOW), NOW);
    assert_eq!(own.read(&jar.headers(), NOW).recent_logins(), 1);
    assert_eq!(other.read(&jar.headers(), NOW).recent_logins(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The tabs have pages of any length. Some tabs send the cookies that other tabs have set, and
    /// some send older ones. All login cookies and a session stay below 4 KiB together, and no
    /// reply exceeds the headers that nginx accepts.
    #[test]
    fn all_cookies_stay_below_four_kib(
        tabs in prop::collection::vec((0usize..2_030, any::<bool>(), 0u8..4), 1..60)
    ) {
        let (cookies, mut jar) = (login_cookies("wx0123456789abcdef", 1), Jar::default());
        let mut sent = jar.clone();
        let mut last = None;
        for (number, (length, sends_current, kind)) in tabs.into_iter().enumerate() {
            let now = NOW.saturating_add(Duration::from_secs(number as u64));
            let length = if kind == 3 { length % 60 } else { length };
            let origin = if number % 2 == 0 { "https://c.d" } else { "" };
            let tab = attempt(&format!("{origin}/{}", ";".repeat(length)), now);
            if sends_current {
                sent = jar.clone();
            }
            let mut browser = cookies.read(&sent.headers(), now);
            browser.add_attempt(tab.clone());
            let mut set = cookies.write(&browser);
            let reply_bytes: usize = set.iter().map(|(text, _)| text.len() + 90).sum();
            prop_assert!(reply_bytes < 3_400, "{reply_bytes}");
            if kind == 0 {
                let mut tab = tab.clone();
                tab.status = signed_in(now);
                let mut browser = cookies.read(&jar.headers(), now);
                browser.record_end(&tab);
                let history = cookies.write(&browser);
                prop_assert!(history.iter().all(|(text, _)| text.len() < 300));
                set.extend(history);
            }
            jar.store_cookies(set);
            last = Some((tab, now, sends_current));
            let session = "; __Host-wechat_session_wx0123456789abcdef=".len() + 28 + 1 + 6 + 1 + 6 + 3 + 44;
            prop_assert!(jar.bytes() + session < 4_096, "{}", jar.bytes());
        }
        if let Some((tab, now, true)) = last {
            prop_assert_eq!(jar.find_attempt(&cookies, &tab, now).unwrap().return_to, tab.return_to);
        }
    }

    #[test]
    fn tampered_cookies_are_rejected(at in 0usize..300, with in "[A-Za-z0-9._=-]") {
        let (cookies, mut jar) = (login_cookies("wx1", 1), Jar::default());
        let tab = attempt("/page?a=b", NOW);
        jar.begin(&cookies, &tab, NOW);
        jar.end(&cookies, &tab, signed_in(NOW), NOW);
        for (name, value) in jar.0 {
            let at = at % value.len();
            let changed = format!("{}{with}{}", &value[..at], &value[at + 1..]);
            for changed in [changed, value[..at].to_owned()] {
                let mut forged = Jar::default();
                forged.0.insert(name.clone(), changed.clone());
                prop_assert!(changed == value || cookies.read(&forged.headers(), NOW).is_empty());
            }
        }
    }

    #[test]
    fn arbitrary_text_is_rejected(text in "[ -~&&[^;]]{0,200}", suffix in "[0-9t]?") {
        let cookies = login_cookies("wx1", 1);
        let mut forged = Jar::default();
        forged.0.insert(format!("{}{suffix}", cookies.prefix()), text);
        prop_assert!(cookies.read(&forged.headers(), NOW).is_empty());
    }
}

mod several_accounts;
