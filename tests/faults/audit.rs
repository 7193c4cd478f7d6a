//! The end of a run: checks that each process serves each user and exits without an error, and
//! compares all tokens and calls with WeChat's records.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use tower_wechat::simulator::{IssuedCredential, IssuedKind};

use crate::books::granted_too_early;
use crate::chaos::Chaos;
use crate::crowd::Crowd;
use crate::fleet::Usage;
use crate::run::{HERD, LIFE, MARGIN, Size};
use crate::support::eventually;

/// Returns the minimum time between two pairs of one user. A process renews a token before its
/// expiry by the margin and a random part of it, at most a fifth. Lifetimes are in whole seconds.
fn least_apart() -> Duration {
    LIFE - MARGIN - MARGIN / 5 - Duration::from_secs(1)
}

/// Maximum time between WeChat's response and its commit, 16 s. While Redis is unreachable, a
/// process retries the commit.
const UNCOMMITTED: Duration = Duration::from_secs(16);

/// Maximum growth of a process between a tenth of the requests and all of them: 48 MiB and 100 open
/// files. Waiting callers need memory, and connections to WeChat need files.
const GROWTH_KIB: u64 = 48 * 1024;
const MORE_FILES: usize = 100;

/// Open files of a process that the first herd adds: for each of its users, a connection from the
/// test and one to WeChat.
const FILES_OF_HERD: usize = 2 * HERD;

pub struct Audit<'a> {
    pub crowd: &'a Crowd,
    pub chaos: &'a Chaos,
    pub took: Duration,
    pub size: Size,
}

impl Crowd {
    /// Returns the resource usage of the first process, which runs from start to end.
    pub fn usage(&self) -> Usage {
        let member = self.fleet.member(0).expect("it is never killed");
        member.usage()
    }
}

/// Users who were sent to log in although they had a pair, by reason.
#[derive(Default, Debug)]
struct Sent {
    lost_on_the_wire: u64,
    held_by_a_stuck_process: u64,
    unexplained: Vec<String>,
}

impl Audit<'_> {
    pub async fn close_the_books(&self, first: Usage, last: Usage, rng: &mut fastrand::Rng) {
        self.everybody_is_served(rng).await;
        self.all_end_in_order().await;

        let (books, done) = (&self.crowd.books, &self.chaos.done);
        let issued = self.crowd.harness.wechat.issued_credentials();
        books.compare(&issued);
        for user in &books.users {
            let known = self.crowd.harness.wechat.current_pair(&user.openid);
            let known = known.map(|pair| (pair.access_token, pair.refresh_token));
            let stored = self.crowd.harness.stored(&user.openid);
            // A renewal before the access token is due returns the same access token with another
            // refresh token. If the response is lost, the stored refresh token is revoked.
            let must_log_in = match (&stored, &known) {
                (None, Some(_)) => true,
                (Some((access, refresh)), Some((newest_access, newest_refresh))) => {
                    access == newest_access && refresh != newest_refresh
                }
                (None | Some(_), None) => false,
            };
            if must_log_in {
                // The user will have to log in, and the audit has to find the reason.
                let sent = (user.openid.clone(), SystemTime::now());
                books.sent_to_log_in.lock().unwrap().push(sent);
            } else if stored != known {
                let openid = &user.openid;
                books.wrong(|| format!("stored for {openid}: {stored:?}, WeChat has {known:?}"));
            }
        }
        let wire = &self.chaos.wires.wechat;
        let lost =
            |pair: &IssuedCredential| pair.secrets.iter().any(|secret| wire.has_lost(secret));
        let (again, too_early) = granted_too_early(&issued, least_apart(), lost);
        let sent = self.why_sent_to_log_in(&issued);
        let grants = issued
            .iter()
            .filter(|pair| pair.kind == IssuedKind::Refresh);
        let grants = grants.count() as u64;
        let calls = self.crowd.harness.refreshes();
        let allowed = grants + done.failing_replies + self.refusals_allowed(&sent);

        // Only the scripts for several users run `MGET`.
        let batches = self.crowd.harness.redis.calls("mget");
        let herds = books.herds.load(Ordering::SeqCst);
        let (wrong, described) = books.wrongs();
        println!(
            "{}",
            self.report(&[
                ("wrong answers", wrong.to_string()),
                (
                    "calls of refresh_token, and the bound",
                    format!("{calls} of {allowed}")
                ),
                ("tokens granted for them", grants.to_string()),
                (
                    "granted again, the answer was lost on its way",
                    again.to_string()
                ),
                ("granted too early for no reason", too_early.to_string()),
                (
                    "herds, and MGET in scripts for several users",
                    format!("{herds}, {batches}")
                ),
                ("sent to log in", format!("{sent:?}")),
                (
                    "memory first, last",
                    format!("{}, {} KiB", first.resident_kib, last.resident_kib)
                ),
                (
                    "open files first, last",
                    format!("{}, {}", first.open_files, last.open_files)
                ),
            ])
        );
        let seed = self.size.seed;
        assert_eq!(wrong, 0, "FAULT_RUN_SEED={seed}: {described:#?}");
        assert_eq!(done.bad_ends, Vec::<String>::new(), "FAULT_RUN_SEED={seed}");
        assert_eq!(
            sent.unexplained,
            Vec::<String>::new(),
            "FAULT_RUN_SEED={seed}"
        );
        assert_eq!(too_early, 0, "FAULT_RUN_SEED={seed}");
        // A short run on a busy machine may end before its first herd.
        assert!(
            herds == 0 || batches > 0,
            "FAULT_RUN_SEED={seed}: {herds} herds, {batches} MGET"
        );
        assert!(
            calls <= allowed,
            "FAULT_RUN_SEED={seed}: {calls} > {allowed}"
        );
        assert!(
            last.resident_kib < first.resident_kib + GROWTH_KIB
                && last.open_files < first.open_files + MORE_FILES + FILES_OF_HERD,
            "FAULT_RUN_SEED={seed}: {first:?} became {last:?}"
        );
    }

    /// Waits until each process serves each user with a token that WeChat accepts. Users who have
    /// to log in do so.
    async fn everybody_is_served(&self, rng: &mut fastrand::Rng) {
        let crowd = self.crowd;
        for number in 0..crowd.books.users.len() {
            let what = format!("user {number} is served by all");
            eventually(&what, Duration::from_secs(60), async || {
                let mut well = true;
                for place in 0..crowd.fleet.places.len() {
                    let member = crowd
                        .fleet
                        .member(place)
                        .expect("nobody is killed any more");
                    let by = crowd.fleet.places[place].by;
                    // `/api/userinfo` calls WeChat with the token, and the process replaces a token
                    // that WeChat rejects.
                    for path in ["/api/userinfo", "/api/me"] {
                        well &= crowd.ask(usize::MAX, number, by, &member, path, rng).await == 200;
                    }
                }
                well
            })
            .await;
        }
    }

    /// Sends SIGTERM to each process. Checks that each exits with 0 and does not panic.
    async fn all_end_in_order(&self) {
        for place in 0..self.crowd.fleet.places.len() {
            let (code, log) = self.crowd.fleet.vacate(place).terminate().await;
            assert_eq!(code, Some(0), "{log}");
            assert!(!log.contains("panicked"), "{log}");
        }
    }

    /// Counts the users who were sent to log in, by reason. The response with a user's latest pair
    /// was lost on a connection, or a process that was killed or stopped had it.
    fn why_sent_to_log_in(&self, issued: &[IssuedCredential]) -> Sent {
        let mut sent = Sent::default();
        let (wire, stuck) = (&self.chaos.wires.wechat, &self.chaos.done.stuck);
        for (openid, at) in self.crowd.books.sent_to_log_in.lock().unwrap().iter() {
            let theirs = |pair: &&IssuedCredential| {
                matches!(pair.kind, IssuedKind::SignIn | IssuedKind::Refresh)
                    && pair.openid == *openid
                    && pair.issued_at <= *at
            };
            let Some(latest) = issued.iter().rfind(theirs) else {
                continue;
            };
            let held_back = |(from, until): &(SystemTime, SystemTime)| {
                latest.issued_at + UNCOMMITTED >= *from && latest.issued_at <= *until
            };
            if latest.secrets.iter().any(|secret| wire.has_lost(secret)) {
                sent.lost_on_the_wire += 1;
            } else if stuck.iter().any(held_back) {
                sent.held_by_a_stuck_process += 1;
            } else {
                sent.unexplained.push(format!(
                    "{openid}, granted {:?}, asked {at:?}",
                    latest.issued_at
                ));
            }
        }
        sent
    }

    /// Returns how many refresh calls WeChat may have rejected. A login revokes the user's former
    /// pair, and a process may then call WeChat once with that pair. A lost response causes one
    /// more rejected call.
    fn refusals_allowed(&self, sent: &Sent) -> u64 {
        let books = &self.crowd.books;
        let logins = books.logins.load(Ordering::SeqCst);
        let failed = books.logins_failed.load(Ordering::SeqCst);
        sent.lost_on_the_wire + sent.held_by_a_stuck_process + logins + failed
    }

    fn report(&self, figures: &[(&str, String)]) -> String {
        let (books, wires) = (&self.crowd.books, &self.chaos.wires);
        let number =
            |count: &std::sync::atomic::AtomicU64| count.load(Ordering::SeqCst).to_string();
        let answers: &BTreeMap<_, _> = &books.answered.lock().unwrap();
        let mut lines = vec![
            ("requests", number(&books.requests)),
            ("time", format!("{:?}", self.took)),
            ("answers", format!("{answers:?}")),
            ("connections broken by a kill", number(&books.broken)),
            ("longest wait", format!("{:?}", books.longest_wait())),
            ("processes started", self.crowd.fleet.started().to_string()),
            ("misfortunes", format!("{:?}", self.chaos.done.times)),
            ("before Redis", format!("{:?}", wires.redis.damage())),
            ("before WeChat", format!("{:?}", wires.wechat.damage())),
            ("logins", number(&books.logins)),
            (
                "logins that failed and were tried again",
                number(&books.logins_failed),
            ),
        ];
        lines.extend(figures.iter().map(|(name, value)| (*name, value.clone())));
        let lines = lines
            .iter()
            .map(|(name, value)| format!("fault-run | {name} | {value}"));
        lines.collect::<Vec<_>>().join("\n")
    }
}
