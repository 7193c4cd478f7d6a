use super::*;
use crate::login::scope::Scope;
use http::HeaderValue;
use http::header::COOKIE;
use proptest::prelude::*;

use super::super::public_url::PublicUrl;
use super::super::state::StateSigner;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const LIFE: Duration = Duration::from_secs(600);

fn page(path: &str) -> ReturnTo {
    ReturnTo::parse(path.as_bytes(), &PublicUrl::parse("https://a.b").unwrap()).unwrap()
}

fn ours(app: &str, key: u8) -> LoginCookies {
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
    let states = StateSigner::new(
        &AppId::new("wx1").unwrap(),
        &CookieKeys::for_tests(&[1]),
        "/callback",
        LIFE,
    );
    LoginAttempt {
        state: states.issue(now).unwrap(),
        scope: Scope::Base,
        return_to: page(path),
        status: AttemptStatus::Open,
        repeats: 0,
    }
}

/// A browser that keeps what it is told.
#[derive(Clone, Default)]
struct Jar(std::collections::BTreeMap<String, String>);

impl Jar {
    fn store_cookies(&mut self, set: Vec<(String, u64)>) {
        for (text, life) in set {
            let (name, value) = text.split_once('=').unwrap();
            if life == 0 {
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
        progress: AttemptStatus,
        now: Timestamp,
    ) {
        let mut browser = cookies.read(&self.headers(), now);
        let mut attempt = attempt.clone();
        attempt.status = progress;
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
    let (ours, mut jar) = (ours("wx1", 1), Jar::default());
    let tabs = [
        attempt("/a?b=c;d,e#f", NOW),
        attempt("/b", NOW),
        attempt(&format!("/c?{}", "x".repeat(2_000)), NOW),
    ];
    for tab in &tabs {
        jar.begin(&ours, tab, NOW);
    }
    for tab in &tabs {
        assert_eq!(jar.find_attempt(&ours, tab, NOW).as_ref(), Some(tab));
    }
    jar.end(&ours, &tabs[1], signed_in(NOW), NOW);
    let known = jar.find_attempt(&ours, &tabs[1], NOW).unwrap();
    assert_eq!(
        (known.return_to.path(), known.status),
        ("/b", signed_in(NOW))
    );
    assert_eq!(
        jar.find_attempt(&ours, &tabs[0], NOW).as_ref(),
        Some(&tabs[0])
    );
    assert_eq!(
        jar.find_attempt(&ours, &tabs[0], NOW.saturating_add(LIFE)),
        None
    );
    for other in [self::ours("wx1", 2), self::ours("wx2", 1)] {
        assert!(other.read(&jar.headers(), NOW).is_empty());
    }
}

#[test]
fn late_logins_answer_duplicates_for_ten_minutes() {
    let (ours, mut jar) = (ours("wx1", 1), Jar::default());
    let tab = attempt("/page?a=b", NOW);
    jar.begin(&ours, &tab, NOW);
    let late = NOW.saturating_add(LIFE - Duration::from_secs(1));
    jar.end(&ours, &tab, signed_in(late), late);
    let last = late.saturating_add(LIFE - Duration::from_secs(1));
    assert!(ours.read(&jar.headers(), last).has_succeeded(tab.state));
    let known = jar.find_attempt(&ours, &tab, last).unwrap();
    assert_eq!(known.return_to, tab.return_to);
    assert!(
        !ours
            .read(&jar.headers(), late.saturating_add(LIFE))
            .has_succeeded(tab.state)
    );
}

#[test]
fn cookies_cannot_move_to_another_slot() {
    let (ours, mut jar) = (ours("wx1", 1), Jar::default());
    let tab = attempt("/a", NOW);
    jar.begin(&ours, &tab, NOW);
    let (name, value) = jar.0.pop_first().unwrap();
    for place in 0..SLOT_PAGE_BYTES.len() {
        let renamed = format!("{}{place}", ours.prefix());
        let mut forged = Jar::default();
        forged.0.insert(renamed.clone(), value.clone());
        assert_eq!(
            forged.find_attempt(&ours, &tab, NOW).is_some(),
            renamed == name
        );
    }
    // Where one cookie came twice, the true one counts in whatever order.
    for order in [["", "junk"], ["junk", ""]] {
        let text = order.map(|value_| {
            let value = if value_.is_empty() { &value } else { value_ };
            format!("{name}={value}")
        });
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, HeaderValue::try_from(text.join("; ")).unwrap());
        assert!(ours.read(&headers, NOW).find_attempt(tab.state).is_some());
    }
}

#[test]
fn long_and_many_short_pages_are_kept() {
    let (ours, mut jar) = (ours("wx1", 1), Jar::default());
    let long = [1, 2].map(|tab| attempt(&format!("/?tab={tab}&q={}", "x".repeat(1_000)), NOW));
    let short = [1, 2, 3, 4, 5, 6].map(|tab| attempt(&format!("/me?tab={tab}"), NOW));
    for tab in long.iter().chain(&short) {
        jar.begin(&ours, tab, NOW);
    }
    for tab in long.iter().chain(&short) {
        assert_eq!(jar.find_attempt(&ours, tab, NOW).as_ref(), Some(tab));
    }
    let mut many = Jar::default();
    let tabs: Vec<_> = (0..30)
        .map(|tab| attempt(&format!("/me?tab={tab}"), NOW))
        .collect();
    for tab in &tabs {
        many.begin(&ours, tab, NOW);
    }
    for tab in &tabs {
        assert_eq!(many.find_attempt(&ours, tab, NOW).as_ref(), Some(tab));
    }
}

/// Chance decides which place an empty browser fills first, hence the many rounds.
#[test]
fn newest_tabs_keep_their_pages() {
    let ours = ours("wx1", 1);
    for apart in [1, 7, 100, 400, 1_000] {
        for _ in 0..20 {
            let mut jar = Jar::default();
            let tabs: Vec<_> = (0..8)
                .map(|tab| {
                    let now = NOW.saturating_add(Duration::from_millis(tab * apart));
                    attempt(&format!("/?tab={tab}&q={}", "x".repeat(1_000)), now)
                })
                .collect();
            for tab in &tabs {
                let now = Timestamp::from_millis(tab.state.issued_at as i64 * 1_000);
                jar.begin(&ours, tab, now);
            }
            for tab in &tabs[6..] {
                assert_eq!(
                    jar.find_attempt(&ours, tab, NOW).as_ref(),
                    Some(tab),
                    "{apart} ms"
                );
            }
        }
    }
}

#[test]
fn evicted_logins_return_to_the_start_page() {
    let (ours, mut jar) = (ours("wx1", 1), Jar::default());
    let tabs: Vec<_> = (0..4)
        .map(|tab| {
            attempt(
                &format!("/{tab}?{}", "x".repeat(2_000)),
                NOW.saturating_add(Duration::from_secs(tab)),
            )
        })
        .collect();
    for tab in &tabs {
        jar.begin(&ours, tab, NOW);
    }
    assert_eq!(
        jar.find_attempt(&ours, &tabs[3], NOW).as_ref(),
        Some(&tabs[3])
    );
    for tab in &tabs[..3] {
        let known = jar.find_attempt(&ours, tab, NOW).unwrap();
        assert_eq!(
            (known.return_to.as_str(), known.status),
            ("/", AttemptStatus::Open)
        );
    }
}

#[test]
fn repeated_page_loads_share_one_login() {
    let (ours, mut jar) = (ours("wx1", 1), Jar::default());
    let tab = attempt("/a", NOW);
    jar.begin(&ours, &tab, NOW);
    for again in 1..=3 {
        let mut browser = ours.read(&jar.headers(), NOW);
        let known = browser.reuse_attempt(Scope::Base, &tab.return_to).unwrap();
        assert_eq!((known.state, known.repeats), (tab.state, again));
        jar.store_cookies(ours.write(&browser));
    }
    assert_eq!(jar.0.len(), 1);
    let mut browser = ours.read(&jar.headers(), NOW);
    assert_eq!(browser.reuse_attempt(Scope::UserInfo, &tab.return_to), None);
    assert_eq!(browser.reuse_attempt(Scope::Base, &page("/b")), None);
    let later = NOW.saturating_add(Duration::from_secs(60));
    let mut browser = ours.read(&jar.headers(), later);
    assert_eq!(browser.reuse_attempt(Scope::Base, &tab.return_to), None);
    jar.end(
        &ours,
        &tab,
        AttemptStatus::Retried {
            at: unix_seconds(NOW),
        },
        NOW,
    );
    let mut browser = ours.read(&jar.headers(), NOW);
    assert_eq!(browser.reuse_attempt(Scope::Base, &tab.return_to), None);
}

#[test]
fn counts_retries_and_logins_of_the_last_minute() {
    let (ours, mut jar) = (ours("wx1", 1), Jar::default());
    for number in 0..MAX_HISTORY_ENTRIES {
        let tab = attempt(&format!("/{number}"), NOW);
        jar.begin(&ours, &tab, NOW);
        jar.end(&ours, &tab, signed_in(NOW), NOW);
    }
    let restarted = attempt("/", NOW);
    jar.begin(&ours, &restarted, NOW);
    assert_eq!(
        ours.read(&jar.headers(), NOW).recent_logins(),
        MAX_HISTORY_ENTRIES
    );
    jar.end(
        &ours,
        &restarted,
        AttemptStatus::Retried {
            at: unix_seconds(NOW),
        },
        NOW,
    );
    let browser = ours.read(&jar.headers(), NOW);
    assert_eq!(
        (browser.recent_logins(), browser.recent_retries()),
        (MAX_HISTORY_ENTRIES - 1, 1)
    );
    let browser = ours.read(&jar.headers(), NOW.saturating_add(Duration::from_secs(60)));
    assert_eq!((browser.recent_logins(), browser.recent_retries()), (0, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Tabs that see each other's cookies and tabs that do not, in any mixture and of any length:
    /// with a session beside them they stay below 4 KiB, and no answer has more than nginx takes.
    #[test]
    fn all_cookies_stay_below_four_kib(
        tabs in prop::collection::vec((0usize..2_040, any::<bool>(), 0u8..4), 1..60)
    ) {
        let (ours, mut jar) = (ours("wx0123456789abcdef", 1), Jar::default());
        let mut seen = jar.clone();
        let mut last = None;
        for (number, (length, sees, ends)) in tabs.into_iter().enumerate() {
            let now = NOW.saturating_add(Duration::from_secs(number as u64));
            let length = if ends == 3 { length % 60 } else { length };
            let tab = attempt(&format!("/{}", ";".repeat(length)), now);
            if sees {
                seen = jar.clone();
            }
            let mut browser = ours.read(&seen.headers(), now);
            browser.add_attempt(tab.clone());
            let mut set = ours.write(&browser);
            let answer: usize = set.iter().map(|(text, _)| text.len() + 90).sum();
            prop_assert!(answer < 3_400, "{answer}");
            if ends == 0 {
                let mut tab = tab.clone();
                tab.status = signed_in(now);
                let mut browser = ours.read(&jar.headers(), now);
                browser.record_end(&tab);
                let trail = ours.write(&browser);
                prop_assert!(trail.iter().all(|(text, _)| text.len() < 300));
                set.extend(trail);
            }
            jar.store_cookies(set);
            last = Some((tab, now, sees));
            let session = "; __Host-wechat_session=".len() + 28 + 1 + 6 + 1 + 6 + 3 + 44;
            prop_assert!(jar.bytes() + session < 4_096, "{}", jar.bytes());
        }
        if let Some((tab, now, true)) = last {
            prop_assert_eq!(jar.find_attempt(&ours, &tab, now).unwrap().return_to, tab.return_to);
        }
    }

    #[test]
    fn tampered_cookies_are_rejected(at in 0usize..300, with in "[A-Za-z0-9._=-]") {
        let (ours, mut jar) = (ours("wx1", 1), Jar::default());
        let tab = attempt("/page?a=b", NOW);
        jar.begin(&ours, &tab, NOW);
        jar.end(&ours, &tab, signed_in(NOW), NOW);
        for (name, value) in jar.0 {
            let at = at % value.len();
            let changed = format!("{}{with}{}", &value[..at], &value[at + 1..]);
            for changed in [changed, value[..at].to_owned()] {
                let mut forged = Jar::default();
                forged.0.insert(name.clone(), changed.clone());
                prop_assert!(changed == value || ours.read(&forged.headers(), NOW).is_empty());
            }
        }
    }

    #[test]
    fn arbitrary_text_is_rejected(text in "[ -~&&[^;]]{0,200}", place in "[0-9t]?") {
        let ours = ours("wx1", 1);
        let mut forged = Jar::default();
        forged.0.insert(format!("{}{place}", ours.prefix()), text);
        prop_assert!(ours.read(&forged.headers(), NOW).is_empty());
    }
}
