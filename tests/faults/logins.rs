//! Logins as a browser performs them. Each request goes to a random process.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tower_wechat::simulator::Simulator;

use crate::books::{Books, User};
use crate::fleet::{By, Fleet};
use crate::support::http_client::{Answer, Asked};

/// Maximum time for which a user tries to log in: 90 s. All faults of a run are shorter.
const PATIENCE: Duration = Duration::from_secs(90);

/// Logs a user in, and retries for up to 90 s.
pub async fn sign_in(
    fleet: &Fleet,
    wechat: &Simulator,
    books: &Books,
    user: &User,
    rng: &mut fastrand::Rng,
) {
    let _one_at_a_time = user.signing_in.lock().await;
    let give_up = Instant::now() + PATIENCE;
    while !attempt(fleet, wechat, books, user, rng).await {
        books.logins_failed.fetch_add(1, Ordering::SeqCst);
        if Instant::now() > give_up {
            books.wrong(|| format!("{} could not sign in for {PATIENCE:?}", user.openid));
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    books.logins.fetch_add(1, Ordering::SeqCst);
}

/// Runs one login. Returns `true` if it ended with a session.
async fn attempt(
    fleet: &Fleet,
    wechat: &Simulator,
    books: &Books,
    user: &User,
    rng: &mut fastrand::Rng,
) -> bool {
    let Some(begin) = ask(fleet, rng, Asked::get("/wechat/login?return_to=%2F")).await else {
        return false;
    };
    let Some(state) = begin
        .header("location")
        .split(['?', '&', '#'])
        .find_map(|part| part.strip_prefix("state="))
    else {
        return false;
    };
    let cookies: Vec<&str> = set_cookies(&begin).collect();
    // The simulator returns the code directly, without the page on which a user consents.
    user.login_begins();
    let code = wechat.authorize(&user.openid, "snsapi_userinfo");
    let callback = Asked::get(&format!("/wechat/callback?code={code}&state={state}"))
        .header("accept", "text/html")
        .header("cookie", cookies.join("; "));
    let Some(answer) = ask(fleet, rng, callback).await else {
        return false;
    };
    let session = set_cookies(&answer).find(|cookie| cookie.starts_with("wechat_session_"));
    match (answer.status, session) {
        (302, Some(session)) => {
            *user.cookie.lock().unwrap() = Some(session.to_owned());
            user.login_is_stored();
            true
        }
        // The login redirects to WeChat again, or a page reports a failure.
        (302 | 502 | 503, _) => false,
        _ => {
            books.wrong(|| format!("{} was answered at the callback: {answer:?}", user.openid));
            false
        }
    }
}

/// Returns the response of a process that has logins. Returns `None` if no such process runs or if
/// there is no response.
async fn ask(fleet: &Fleet, rng: &mut fastrand::Rng, asked: Asked) -> Option<Answer> {
    let member = fleet.any(By::Cookie, rng)?;
    member.http.try_ask(asked).await.ok()
}

fn set_cookies(answer: &Answer) -> impl Iterator<Item = &str> {
    let cookies = answer.headers.get_all("set-cookie").iter();
    cookies
        .filter_map(|cookie| cookie.to_str().ok()?.split(';').next())
        .filter(|cookie| !cookie.ends_with('='))
}
