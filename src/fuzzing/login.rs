//! Fuzzing of a login: its state, its cookies, the parameters of its callback and its return path.

use std::time::Duration;

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue, Uri};

use super::fixtures::{NOW, alter, fixed_keys, header_map, other_app_id};
use crate::login::cookies::{AttemptStatus, LoginAttempt, LoginCookies};
use crate::login::exchange::ExchangeOutcome;
use crate::login::public_url::PublicUrl;
use crate::login::query::parse_code_and_state;
use crate::login::return_origins::ReturnOrigins;
use crate::login::return_to::ReturnTo;
use crate::login::state::StateSigner;
use crate::login::{FramePage, Scope};

const LIFETIME: Duration = Duration::from_secs(600);

/// Checks that a login keeps a return path within the application, and accepts a code of at most
/// 1,024 printable bytes. The page of a frame leads to the callback with the same code and state. A state or cookie that this crate has not signed is rejected.
pub fn login(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Ok(ours) = PublicUrl::parse("https://h5.example.com/app") else {
        return;
    };
    let Ok(listed) = ReturnOrigins::parse(["https://www.example.com"], &ours) else {
        return;
    };
    for page in [
        ReturnTo::parse(data, &ours, &listed).ok(),
        ReturnTo::from_referer(data, &ours, &listed),
    ]
    .into_iter()
    .flatten()
    {
        let path = page.as_str();
        let fronts = ["/app", "https://www.example.com/"];
        assert!(fronts.iter().any(|front| path.starts_with(front)) && !path.contains('\\'));
        assert!(HeaderValue::from_str(path).is_ok(), "{path:?}");
        assert_eq!(ReturnTo::from_stored(path), Some(page));
    }
    if let Ok(uri) = Uri::try_from(data) {
        if let Ok((Some(code), _)) = parse_code_and_state(&uri) {
            assert!(code.len() <= 1_024 && code.bytes().all(|byte| byte.is_ascii_graphic()));
        }
        let (page, _) = ReturnTo::from_uri(&uri, &ours);
        assert!(HeaderValue::from_str(page.as_str()).is_ok());
        frame_page(&uri);
    }
    ExchangeOutcome::from_json(&text);

    let (app, keys) = fixed_keys();
    let states = |app| StateSigner::new(app, keys, "/callback", LIFETIME);
    let cookies = |app| {
        let root = ReturnTo::start_page(&ours);
        LoginCookies::new(app, keys, "/callback", false, LIFETIME, root)
    };
    let unused = other_app_id();
    let foreign = states(&unused);
    assert!(
        foreign.verify(&text, NOW).is_err(),
        "a forged state: {text}"
    );
    let (foreign, mut whole) = (cookies(&unused), data.to_vec());
    for prefix in ["", "wechat_login_", foreign.prefix()] {
        whole.splice(..0, prefix.bytes());
        let browser = foreign.read(&header_map(COOKIE, &whole), NOW);
        assert!(browser.is_empty(), "a forged cookie: {text}");
        whole.drain(..prefix.len());
    }
    let (states, cookies) = (states(app), cookies(app));
    let Some(issued) = states.issue(NOW) else {
        return;
    };
    let state = states.encode(issued);
    assert_eq!(states.verify(&state, NOW), Ok(issued));
    if let Some(altered) = alter(&state, data) {
        let altered = String::from_utf8_lossy(&altered);
        assert!(
            states.verify(&altered, NOW).is_err(),
            "{altered} for {state}"
        );
    }
    let mut browser = cookies.read(&HeaderMap::new(), NOW);
    browser.add_attempt(LoginAttempt {
        state: issued,
        scope: Scope::Base,
        return_to: ReturnTo::start_page(&ours),
        status: AttemptStatus::Open,
        repeats: 0,
    });
    for (cookie, _) in cookies.write(&browser) {
        if let Some(altered) = alter(&cookie, data) {
            let browser = cookies.read(&header_map(COOKIE, &altered), NOW);
            // A blank or a semicolon at the end does not change the value of a cookie.
            let same = altered.starts_with(cookie.as_bytes());
            assert!(same || browser.is_empty(), "{altered:?} for {cookie}");
        }
    }
}

/// Checks that the page of a frame leads to the callback with the code and state of its request, and
/// that nothing of the query leaves its attribute.
fn frame_page(uri: &Uri) {
    let page = FramePage::new("/app/callback", uri.query().unwrap_or_default());
    let html = page.html();
    let url = html
        .split_once("content=\"0;url=")
        .and_then(|(_, rest)| rest.split_once("\"><title>"));
    let Some((url, rest)) = url else {
        panic!("no URL: {html}");
    };
    assert!(
        url.starts_with("/app/callback?") && rest.ends_with("</title></head><body></body></html>")
    );
    assert!(
        !url.contains(['"', '\'', '<', '>', '\\', ' ']) && url.is_ascii(),
        "{url}"
    );
    let again = Uri::try_from(url.replace("&amp;", "&"));
    let again = again.map(|again| parse_code_and_state(&again));
    assert_eq!(again.ok(), Some(parse_code_and_state(uri)), "{url}");
    if let Some(refresh) = page.refresh_header() {
        assert!(HeaderValue::from_str(&refresh).is_ok() && refresh.is_ascii());
    }
}
