//! The load: callers who send requests as random users and check each response.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::books::Books;
use crate::fleet::{By, Fleet, Member};
use crate::logins;
use crate::run::USERS;
use crate::support::demo_process::USER_HEADER;
use crate::support::harness::Harness;
use crate::support::http_client::{Answer, Asked};

/// Maximum wait of a request on an idle machine, 5 s.
const DEADLINE: Duration = Duration::from_secs(5);

/// Additional time for a request on a loaded machine, 5 s.
const SLACK: Duration = Duration::from_secs(5);

/// State that the callers share.
pub struct Crowd {
    pub fleet: Fleet,
    pub harness: Harness,
    pub books: Books,
    /// Duration of a period, longer than a token's life. In one of three periods a user sends no
    /// requests.
    pub shift: Duration,
    pub started: Instant,
    pub enough: AtomicBool,
    /// `true` if WeChat returns a new refresh token with each refresh. A lost response then loses
    /// the pair, and its user has to log in.
    pub rotates: AtomicBool,
}

impl Crowd {
    /// Sends requests as random users until `enough` is set.
    pub async fn caller(self: Arc<Self>, number: usize, mut rng: fastrand::Rng) {
        while !self.enough.load(Ordering::SeqCst) {
            let user = rng.usize(..USERS);
            if !self.is_here(user) {
                continue;
            }
            if self.books.users[user].signs_in && rng.u32(..400) == 0 {
                self.sign_in(user, &mut rng).await;
            }
            let by = match self.books.users[user].cookie.lock().unwrap().is_some() {
                true if rng.bool() => By::Cookie,
                _ => By::Header,
            };
            let Some(member) = self.fleet.any(by, &mut rng) else {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            };
            let path = match rng.u32(..50) {
                0 => "/api/userinfo",
                _ => "/api/me",
            };
            self.ask(number, user, by, &member, path, &mut rng).await;
        }
    }

    /// Sends requests of the users behind the first [`USERS`], until `enough` is set: one of each
    /// user, all at the same time and to the same process. Their tokens expire in the meantime.
    pub async fn herds(self: Arc<Self>, caller: usize, mut rng: fastrand::Rng) {
        let herd = USERS..self.books.users.len();
        loop {
            let pause = Instant::now();
            while pause.elapsed() < self.shift {
                if self.enough.load(Ordering::SeqCst) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let Some(member) = self.fleet.any(By::Header, &mut rng) else {
                continue;
            };
            let mut requests = tokio::task::JoinSet::new();
            for user in herd.clone() {
                let (crowd, member, mut rng) = (Arc::clone(&self), Arc::clone(&member), rng.fork());
                requests.spawn(async move {
                    let path = "/api/me";
                    crowd
                        .ask(caller, user, By::Header, &member, path, &mut rng)
                        .await
                });
            }
            while let Some(answered) = requests.join_next().await {
                answered.expect("a request fell over");
            }
            self.books.herds.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Returns `true` if the user sends requests in this period. After a period without requests
    /// the user's token has expired, so that runs renew tokens before and after their expiry.
    fn is_here(&self, user: usize) -> bool {
        let shift = self.started.elapsed().as_millis() / self.shift.as_millis();
        !(user as u128 + shift).is_multiple_of(3)
    }

    pub async fn sign_in(&self, user: usize, rng: &mut fastrand::Rng) {
        let user = &self.books.users[user];
        logins::sign_in(&self.fleet, &self.harness.wechat, &self.books, user, rng).await;
    }

    /// Sends one request and checks the response. Returns the status, or 0 if there was no
    /// response.
    pub async fn ask(
        &self,
        caller: usize,
        number: usize,
        by: By,
        member: &Member,
        path: &str,
        rng: &mut fastrand::Rng,
    ) -> u16 {
        let (books, user) = (&self.books, &self.books.users[number]);
        let asked = Asked::get(path).header("accept", "application/json");
        let asked = match by {
            By::Header => asked.header(USER_HEADER, &user.openid),
            By::Cookie => {
                let cookie = user.cookie.lock().unwrap().clone().unwrap_or_default();
                asked.header("cookie", cookie)
            }
        };
        books.requests.fetch_add(1, Ordering::SeqCst);
        let began = Instant::now();
        let answer = member.http.try_ask(asked).await;
        let took = began.elapsed();
        let stood_still = member.stood_still(began, Instant::now());
        let answer = match answer {
            Ok(answer) => answer,
            Err(_) if member.is_ending() => {
                books.broken.fetch_add(1, Ordering::SeqCst);
                return 0;
            }
            Err(error) => {
                books.wrong(|| format!("{} got no answer after {took:?}: {error}", user.openid));
                return 0;
            }
        };
        // The wait at a stopped process does not count for the longest wait.
        if stood_still.is_zero() {
            books.waited(took);
        }
        if took > stood_still + DEADLINE + SLACK {
            books.wrong(|| format!("{} waited {took:?} for {answer:?}", user.openid));
        }
        let status = answer.status;
        books.count(match status {
            200 => "200".to_owned(),
            _ => format!("{status} {}", code(&answer)),
        });
        match status {
            200 => self.judge_token(caller, number, member, path, &answer),
            401 => self.judge_login(number, began, &answer, rng).await,
            503 => judge_trouble(books, &user.openid, &answer),
            _ => books.wrong(|| format!("{}: {answer:?}", user.openid)),
        }
        status
    }

    fn judge_token(
        &self,
        caller: usize,
        number: usize,
        member: &Member,
        path: &str,
        answer: &Answer,
    ) {
        let (books, user) = (&self.books, &self.books.users[number]);
        let json = serde_json::from_str::<serde_json::Value>(&answer.text).unwrap_or_default();
        let field = |name: &str| json[name].as_str().unwrap_or_default();
        let named = match path {
            "/api/me" => "user_id",
            _ => "openid",
        };
        if field(named) != user.openid {
            books.wrong(|| format!("{} was answered as another: {answer:?}", user.openid));
        }
        if path == "/api/me" {
            let token = field("token_fingerprint").to_owned();
            books.saw(caller, member.number, number, token);
        }
    }

    /// Checks a response that asks for a login, and then logs the user in. The response is right
    /// during a login of the user, or if WeChat returns new refresh tokens, of which one may be
    /// lost.
    async fn judge_login(
        &self,
        number: usize,
        began: Instant,
        answer: &Answer,
        rng: &mut fastrand::Rng,
    ) {
        let (books, user) = (&self.books, &self.books.users[number]);
        if answer.field("login_url").is_empty() {
            books.wrong(|| format!("{}: no login_url in {answer:?}", user.openid));
        }
        if user.was_in_question(began) {
            return;
        }
        if !self.rotates.load(Ordering::SeqCst) {
            let stored = self.harness.wechat.current_pair(&user.openid).is_some();
            books.wrong(|| {
                format!(
                    "{} was sent to log in for nothing (WeChat has a pair: {stored}): {answer:?}",
                    user.openid
                )
            });
        }
        if user.signing_in.try_lock().is_ok() {
            let sent = (user.openid.clone(), self.harness.wechat.now());
            books.sent_to_log_in.lock().unwrap().push(sent);
        }
        self.sign_in(number, rng).await;
    }
}

fn judge_trouble(books: &Books, openid: &str, answer: &Answer) {
    let known = matches!(
        code(answer).as_str(),
        "store_unavailable" | "wechat_unavailable"
    );
    let waits = answer.header("retry-after").parse::<u64>();
    if !known || !waits.is_ok_and(|seconds| seconds >= 1) {
        books.wrong(|| format!("{openid}: {answer:?}"));
    }
}

fn code(answer: &Answer) -> String {
    let json = serde_json::from_str::<serde_json::Value>(&answer.text).unwrap_or_default();
    json["error"].as_str().unwrap_or_default().to_owned()
}
