//! The state, the cookies, the callback and the return path of a login.

use std::time::Duration;

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue, Uri};

use super::fixtures::{NOW, altered, headers, keys, unused_account};
use crate::login::Scope;
use crate::login::callback::code_and_state;
use crate::login::cookies::{Attempt, LoginCookies, Progress};
use crate::login::exchange::Verdict;
use crate::login::public_url::PublicUrl;
use crate::login::return_to::ReturnTo;
use crate::login::state::States;

const LIFETIME: Duration = Duration::from_secs(600);

/// Leads only to paths of the application's own origin, and accepts no state and no cookie that
/// this crate has not signed.
pub fn login(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Ok(ours) = PublicUrl::parse("https://h5.example.com/app") else {
        return;
    };
    for page in [
        ReturnTo::read(data, &ours).ok(),
        ReturnTo::of_referer(data, &ours),
    ]
    .into_iter()
    .flatten()
    {
        let path = page.as_str();
        assert!(path.starts_with("/app") && !path.contains('\\'));
        assert!(HeaderValue::from_str(path).is_ok(), "{path:?}");
        assert_eq!(ReturnTo::stored(path), Some(page));
    }
    if let Ok(uri) = Uri::try_from(data) {
        if let Ok((Some(code), _)) = code_and_state(&uri) {
            assert!(code.len() <= 1_024 && code.bytes().all(|byte| byte.is_ascii_graphic()));
        }
        let (page, _) = ReturnTo::of_uri(&uri, &ours);
        assert!(HeaderValue::from_str(page.as_str()).is_ok());
    }
    Verdict::read(&text);

    let (app, keys) = keys();
    let states = |app| States::new(app, keys, "/callback", LIFETIME);
    let cookies = |app| {
        let root = ReturnTo::root(&ours);
        LoginCookies::new(app, keys, "/callback", false, LIFETIME, root)
    };
    let unused = unused_account();
    let foreign = states(&unused);
    assert!(foreign.read(&text, NOW).is_err(), "a forged state: {text}");
    let (foreign, mut whole) = (cookies(&unused), data.to_vec());
    for prefix in ["", "wechat_login_", foreign.prefix()] {
        whole.splice(..0, prefix.bytes());
        let browser = foreign.read(&headers(COOKIE, &whole), NOW);
        assert!(browser.is_empty(), "a forged cookie: {text}");
        whole.drain(..prefix.len());
    }
    let (states, cookies) = (states(app), cookies(app));
    let Some(issued) = states.begin(NOW) else {
        return;
    };
    let state = states.text(issued);
    assert_eq!(states.read(&state, NOW), Ok(issued));
    if let Some(altered) = altered(&state, data) {
        let altered = String::from_utf8_lossy(&altered);
        assert!(states.read(&altered, NOW).is_err(), "{altered} for {state}");
    }
    let mut browser = cookies.read(&HeaderMap::new(), NOW);
    browser.begin(Attempt {
        issued,
        scope: Scope::Base,
        return_to: ReturnTo::root(&ours),
        progress: Progress::Open,
        again: 0,
    });
    for (cookie, _) in cookies.write(&browser) {
        if let Some(altered) = altered(&cookie, data) {
            let browser = cookies.read(&headers(COOKIE, &altered), NOW);
            // A blank or a semicolon at its end leaves a cookie as it was.
            let same = altered.starts_with(cookie.as_bytes());
            assert!(same || browser.is_empty(), "{altered:?} for {cookie}");
        }
    }
}
