//! Tests of the login cookies of several accounts in one browser.

use super::super::other_accounts::{MAX_COOKIES, MAX_TOTAL_BYTES};
use super::*;

/// Returns the login cookies of as many accounts, each with its keys.
fn accounts(count: usize) -> Vec<LoginCookies> {
    (0..count)
        .map(|number| login_cookies(&format!("wx{number:016x}"), number as u8))
        .collect()
}

fn after(seconds: u64) -> Timestamp {
    NOW.saturating_add(Duration::from_secs(seconds))
}

fn long_page(number: usize, length: usize) -> String {
    format!("/{number}?{}", "x".repeat(length))
}

#[test]
fn usual_logins_of_ten_accounts_are_kept() {
    let (accounts, mut jar) = (accounts(10), Jar::default());
    let tabs: Vec<_> = (0..10)
        .map(|number| attempt(&long_page(number, 80), after(number as u64)))
        .collect();
    for (cookies, tab) in accounts.iter().zip(&tabs) {
        jar.begin(cookies, tab, after(10));
    }
    for (cookies, tab) in accounts.iter().zip(&tabs) {
        assert_eq!(
            jar.find_attempt(cookies, tab, after(10)).as_ref(),
            Some(tab)
        );
    }
}

#[test]
fn ended_logins_of_other_accounts_are_removed_first() {
    let (accounts, mut jar) = (accounts(4), Jar::default());
    let tabs: Vec<_> = (0..4)
        .map(|number| attempt(&long_page(number, 1_200), after(number as u64)))
        .collect();
    for number in 0..3 {
        jar.begin(&accounts[number], &tabs[number], after(number as u64));
    }
    jar.end(&accounts[1], &tabs[1], signed_in(after(3)), after(3));
    jar.begin(&accounts[3], &tabs[3], after(3));
    for number in [0, 2, 3] {
        let known = jar.find_attempt(&accounts[number], &tabs[number], after(3));
        assert_eq!(known.as_ref(), Some(&tabs[number]));
    }
    // The history still answers a duplicate of the callback.
    let browser = accounts[1].read(&jar.headers(), after(3));
    assert!(browser.has_succeeded(tabs[1].state));
}

#[test]
fn the_oldest_open_logins_of_other_accounts_are_removed() {
    let (accounts, mut jar) = (accounts(5), Jar::default());
    let tabs: Vec<_> = (0..5)
        .map(|number| attempt(&long_page(number, 1_200), after(number as u64)))
        .collect();
    for (number, tab) in tabs.iter().enumerate() {
        jar.begin(&accounts[number], tab, after(number as u64));
    }
    let kept = |number: usize| {
        let known = jar.find_attempt(&accounts[number], &tabs[number], after(4));
        known.is_some()
    };
    assert_eq!([0, 1, 2, 3, 4].map(kept), [false, false, true, true, true]);
}

/// The history of an account has its logins that were evicted from their slot. It remains if other
/// accounts need the slots.
#[test]
fn open_logins_in_a_kept_history_lead_to_the_start_page() {
    let (accounts, mut jar) = (accounts(3), Jar::default());
    let tabs: Vec<_> = (0..5)
        .map(|number| attempt(&long_page(number, 1_800), after(number as u64)))
        .collect();
    for (number, tab) in tabs.iter().enumerate() {
        let account = number.saturating_sub(2);
        jar.begin(&accounts[account], tab, after(number as u64));
    }
    for tab in &tabs[..2] {
        let known = jar.find_attempt(&accounts[0], tab, after(5)).unwrap();
        assert_eq!(known.return_to.as_str(), "/");
        assert_eq!(known.status, AttemptStatus::Open);
    }
    assert_eq!(jar.find_attempt(&accounts[0], &tabs[2], after(5)), None);
    let newest = jar.find_attempt(&accounts[2], &tabs[4], after(5));
    assert_eq!(newest.as_ref(), Some(&tabs[4]));
}

/// Logins of several tabs that begin together exceed the limit. The next logins restore it.
#[test]
fn the_next_logins_restore_an_exceeded_limit() {
    let (accounts, mut jar) = (accounts(40), Jar::default());
    for (number, cookies) in accounts.iter().enumerate() {
        let mut browser = cookies.read(&HeaderMap::new(), NOW);
        browser.add_attempt(attempt(&long_page(number, 200), NOW));
        jar.store_cookies(cookies.write(&browser));
    }
    assert!(jar.bytes() > 10_000);
    for number in 0..4 {
        jar.begin(&accounts[0], &attempt(&long_page(number, 20), NOW), NOW);
    }
    assert!(jar.bytes() < MAX_TOTAL_BYTES, "{}", jar.bytes());
}

#[test]
fn cookies_of_an_application_are_not_removed() {
    let (accounts, mut jar) = (accounts(1), Jar::default());
    let text = "x".repeat(2_000);
    let names = [
        "shop",
        "0123456",
        "0123456789",
        "0123456g0",
        "0123456789t",
        "01234567T",
        "",
    ];
    for name in names {
        jar.0
            .insert(format!("__Host-wechat_login_{name}"), text.clone());
    }
    // An unreadable login cookie is removed.
    jar.0
        .insert("__Host-wechat_login_01234567t".to_owned(), text);
    let mut browser = accounts[0].read(&jar.headers(), NOW);
    browser.add_attempt(attempt(&long_page(0, 2_030), NOW));
    let set = accounts[0].write(&browser);
    assert_eq!(set[1..], [("__Host-wechat_login_01234567t=".to_owned(), 0)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// After each begin of a login, the login cookies of all accounts stay below 4 KiB together,
    /// the newest login has its page, and the reply fits into the headers that nginx accepts.
    #[test]
    fn login_cookies_of_all_accounts_stay_below_four_kib(
        count in 1usize..60,
        page_limit in prop::sample::select(vec![1usize, 40, 150, 600, 2_030]),
        tabs in prop::collection::vec((any::<u16>(), any::<u16>(), 0u64..30, 0u8..5), 1..120)
    ) {
        let (accounts, mut jar) = (accounts(count), Jar::default());
        let mut now = NOW;
        for (account, length, pause, kind) in tabs {
            now = now.saturating_add(Duration::from_secs(pause));
            let cookies = &accounts[usize::from(account) % count];
            let limit = if kind == 0 { 2_030 } else { page_limit };
            let tab = attempt(&format!("/{}", ";".repeat(usize::from(length) % limit)), now);
            let mut browser = cookies.read(&jar.headers(), now);
            browser.add_attempt(tab.clone());
            let set = cookies.write(&browser);
            let reply_bytes: usize = set.iter().map(|(text, _)| text.len() + 70).sum();
            prop_assert!(reply_bytes < 3_300, "{reply_bytes}");
            jar.store_cookies(set);
            prop_assert!(jar.bytes() < MAX_TOTAL_BYTES, "{}", jar.bytes());
            prop_assert!(jar.0.len() <= MAX_COOKIES, "{}", jar.0.len());
            let known = jar.find_attempt(cookies, &tab, now);
            prop_assert_eq!(known.as_ref(), Some(&tab));
            if kind % 2 == 0 {
                jar.end(cookies, &tab, signed_in(now), now);
                prop_assert!(jar.bytes() < MAX_TOTAL_BYTES, "{}", jar.bytes());
            }
        }
    }
}
