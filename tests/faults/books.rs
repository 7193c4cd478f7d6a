//! Records of requests and responses, and checks of the responses.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use tower_wechat::simulator::{IssuedCredential, IssuedKind};

use crate::support::http_client::fingerprint;

/// Time after a login in which a process may still report its tokens as missing: 4 s. Processes
/// cache a missing token for one second; the rest is for slow machines.
const ABSENCE: Duration = Duration::from_secs(4);

/// Maximum number of wrong responses that a failed run describes: 20. The run counts all of them.
const DESCRIBED: usize = 20;

/// A simulated user.
pub struct User {
    pub openid: String,
    /// `true` if the user sometimes logs in without being asked to.
    pub signs_in: bool,
    /// The session cookie. `None` until the user has logged in at a process.
    pub cookie: Mutex<Option<String>>,
    login: Mutex<Login>,
    /// Held during a login, so that a user has one login at a time.
    pub signing_in: tokio::sync::Mutex<()>,
}

/// State of a user's login. In question: a code was issued, and Redis may not have its pair yet.
/// Settled: the time at which the last login ended with a session.
#[derive(Clone, Copy)]
enum Login {
    Settled(Option<Instant>),
    InQuestion,
}

#[derive(Default)]
pub struct Books {
    pub users: Vec<User>,
    pub requests: AtomicU64,
    /// Number of times at which all users of the herd have sent a request.
    pub herds: AtomicU64,
    pub answered: Mutex<BTreeMap<String, u64>>,
    /// Connections that broke because their process was killed or ended.
    pub broken: AtomicU64,
    pub logins: AtomicU64,
    pub logins_failed: AtomicU64,
    /// Users who were sent to log in although they had a pair, with the time of WeChat's clock.
    pub sent_to_log_in: Mutex<Vec<(String, SystemTime)>>,
    wrong: Mutex<Vec<String>>,
    wrongs: AtomicU64,
    longest: Mutex<Duration>,
    seen: Mutex<HashSet<(usize, String)>>,
    /// Different tokens in a row, in the order of their arrival, by caller, process and user.
    sights: Mutex<HashMap<(usize, u64, usize), Vec<String>>>,
}

impl User {
    pub fn new(openid: String, signs_in: bool) -> Self {
        Self {
            openid,
            signs_in,
            cookie: Mutex::new(None),
            login: Mutex::new(Login::Settled(None)),
            signing_in: tokio::sync::Mutex::default(),
        }
    }

    pub fn login_begins(&self) {
        *self.login.lock().unwrap() = Login::InQuestion;
    }

    pub fn login_is_stored(&self) {
        *self.login.lock().unwrap() = Login::Settled(Some(Instant::now()));
    }

    /// Returns `true` if "log in" may be the right response to a request that began at `since`:
    /// during a login and for [`ABSENCE`] after its end.
    pub fn was_in_question(&self, since: Instant) -> bool {
        match *self.login.lock().unwrap() {
            Login::InQuestion => true,
            Login::Settled(None) => false,
            Login::Settled(Some(until)) => until + ABSENCE > since,
        }
    }
}

impl Books {
    pub fn of(users: impl Iterator<Item = User>) -> Self {
        Self {
            users: users.collect(),
            ..Self::default()
        }
    }

    pub fn wrong(&self, what: impl FnOnce() -> String) {
        self.wrongs.fetch_add(1, Ordering::SeqCst);
        let mut wrong = self.wrong.lock().unwrap();
        if wrong.len() < DESCRIBED {
            wrong.push(what());
        }
    }

    pub fn wrongs(&self) -> (u64, Vec<String>) {
        let described = self.wrong.lock().unwrap().clone();
        (self.wrongs.load(Ordering::SeqCst), described)
    }

    pub fn count(&self, answer: impl Into<String>) {
        *self
            .answered
            .lock()
            .unwrap()
            .entry(answer.into())
            .or_default() += 1;
    }

    pub fn waited(&self, took: Duration) {
        let mut longest = self.longest.lock().unwrap();
        *longest = took.max(*longest);
    }

    pub fn longest_wait(&self) -> Duration {
        *self.longest.lock().unwrap()
    }

    /// Records that a process returned this user's token to a caller.
    pub fn saw(&self, caller: usize, process: u64, user: usize, token: String) {
        self.seen.lock().unwrap().insert((user, token.clone()));
        let mut sights = self.sights.lock().unwrap();
        let sights = sights.entry((caller, process, user)).or_default();
        if sights.last() != Some(&token) {
            sights.push(token);
        }
    }

    /// Compares the tokens in responses with those that WeChat issued. Counts as wrong: a token of
    /// another user, an unknown token, and an older token after a newer one.
    pub fn compare(&self, issued: &[IssuedCredential]) {
        let mut owners = HashMap::new();
        for (at, pair) in issued.iter().enumerate() {
            if matches!(pair.kind, IssuedKind::SignIn | IssuedKind::Refresh) {
                let token = fingerprint(&pair.secrets[0]);
                owners.entry(token).or_insert((pair.openid.as_str(), at));
            }
        }
        for (user, token) in self.seen.lock().unwrap().iter() {
            let user = &self.users[*user].openid;
            match owners.get(token) {
                Some((owner, _)) if owner == user => {}
                owner => self.wrong(|| format!("{user} was served {token}, which is {owner:?}'s")),
            }
        }
        for ((caller, process, user), tokens) in self.sights.lock().unwrap().iter() {
            let ages = tokens.iter().filter_map(|token| owners.get(token));
            let ages: Vec<usize> = ages.map(|(_, at)| *at).collect();
            if !ages.is_sorted() {
                let user = &self.users[*user].openid;
                self.wrong(|| {
                    format!(
                        "caller {caller} saw an older token of {user} after a newer one \
                         at process {process}: {ages:?}"
                    )
                });
            }
        }
    }
}

/// Counts the renewals that WeChat received earlier than `least_apart` after the user's former
/// pair. Returns how many followed a lost response, and how many have no such reason.
pub fn granted_too_early(
    issued: &[IssuedCredential],
    least_apart: Duration,
    was_lost: impl Fn(&IssuedCredential) -> bool,
) -> (u64, u64) {
    let mut last: HashMap<&str, &IssuedCredential> = HashMap::new();
    let (mut after_a_loss, mut unexplained) = (0, 0);
    for pair in issued {
        if !matches!(pair.kind, IssuedKind::SignIn | IssuedKind::Refresh) {
            continue;
        }
        if pair.kind == IssuedKind::Refresh
            && let Some(before) = last.get(&*pair.openid)
            && pair.issued_at < before.issued_at + least_apart
        {
            match was_lost(before) {
                true => after_a_loss += 1,
                false => unexplained += 1,
            }
        }
        last.insert(&pair.openid, pair);
    }
    (after_a_loss, unexplained)
}
