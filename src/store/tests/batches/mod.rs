//! Tests of reads and steps in batches. Each operation in a batch ends as if it were sent alone.

mod callers;
mod circuit;
mod damaged_replies;
mod late_replies;
mod reads;
mod refusals;
mod rights;
mod same_user;
mod slow_callers;
mod step_cases;
mod steps;
mod twins;
mod usage;

use ::redis::Connection;
use futures_util::future::join_all;

use super::*;
use crate::credential::RecordView;
use crate::error::{Error, ErrorKind};

/// Number of concurrent operations in most tests: 48. More than run alone, and fewer than the
/// largest batch has.
const MANY: usize = 48;

/// The accounts of the tests with several accounts.
const ACCOUNTS: [&str; 3] = ["wx1", "wx2", "wx3"];

const BOTH: [Layout; 2] = [Layout::Hashes, Layout::Keys];

/// Returns the slots of `MANY` users of the account `wx1`.
fn users() -> Vec<CredentialSlot> {
    let user = |number| slot(CredentialKind::User, &format!("o{number}"));
    (0..MANY).map(user).collect()
}

/// Returns the token of a user in this generation.
fn token_of(slot: &CredentialSlot, generation: &str) -> String {
    let id = slot.key.id.chars().filter(char::is_ascii_alphanumeric);
    format!("{generation}-{}", id.collect::<String>())
}

/// Returns a record with its own token and refresh token for each user.
fn record_of(slot: &CredentialSlot, generation: &str) -> Record {
    let token = token_of(slot, generation);
    let mut record = record(CredentialKind::User, &token);
    if let Some(refresh) = &mut record.refresh {
        refresh.secret = RefreshToken::from(format!("r-{token}"));
    }
    record
}

/// Stores the first record of each user. Returns the stored values.
async fn store_first(store: &RedisStore, slots: &[CredentialSlot]) -> Vec<Expected> {
    let mut values = Vec::with_capacity(slots.len());
    for slot in slots {
        store.overwrite(slot, &record_of(slot, "t1")).await.unwrap();
        values.push(store.load(slot).await.unwrap().expected);
    }
    values
}

/// Reads all slots at the same time.
async fn load_all(
    store: &RedisStore,
    slots: &[CredentialSlot],
) -> Vec<Result<StoredRecord, Error>> {
    join_all(slots.iter().map(|slot| store.load(slot))).await
}

/// Acquires the leases of all slots at the same time, each for its own owner.
async fn acquire_all(
    store: &RedisStore,
    slots: &[CredentialSlot],
    expected: &[Expected],
    owners: &[LeaseOwner],
) -> Vec<Result<LeaseResult, Error>> {
    let all = slots.iter().zip(expected).zip(owners);
    join_all(all.map(|((slot, expected), owner)| store.acquire_lease(slot, expected, owner, LEASE)))
        .await
}

/// Commits a record of this generation to all slots at the same time.
async fn commit_all(
    store: &RedisStore,
    slots: &[CredentialSlot],
    expected: &[Expected],
    owners: &[LeaseOwner],
    generation: &str,
) -> Vec<Result<CommitResult, Error>> {
    let commit = |((slot, expected), owner): ((_, _), _)| async move {
        let record = record_of(slot, generation);
        store.commit(slot, expected, &record, owner).await
    };
    join_all(slots.iter().zip(expected).zip(owners).map(commit)).await
}

fn owners(slots: &[CredentialSlot]) -> Vec<LeaseOwner> {
    slots.iter().map(|_| LeaseOwner::unique()).collect()
}

/// Renews the tokens of all users: leases and commits, each at the same time.
async fn renew_all(
    store: &RedisStore,
    slots: &[CredentialSlot],
    expected: &[Expected],
    generation: &str,
) {
    let owners = owners(slots);
    for result in acquire_all(store, slots, expected, &owners).await {
        assert!(matches!(result.unwrap(), LeaseResult::Acquired));
    }
    for result in commit_all(store, slots, expected, &owners, generation).await {
        assert!(matches!(result.unwrap(), CommitResult::Committed));
    }
}

/// Checks that each user has the record of this generation.
#[track_caller]
fn assert_all_read(
    slots: &[CredentialSlot],
    read: Vec<Result<StoredRecord, Error>>,
    generation: &str,
) {
    assert_eq!(slots.len(), read.len());
    for (slot, read) in slots.iter().zip(read) {
        let token = read.unwrap().record.token.expect("a token").secret;
        assert_eq!(token.expose(), token_of(slot, generation));
    }
}

/// Runs a command of an operator.
fn operate<T: ::redis::FromRedisValue>(connection: &mut Connection, words: &[&str]) -> T {
    let mut command = ::redis::cmd(words[0]);
    command.arg(&words[1..]).query(connection).unwrap()
}

/// Creates the Redis user `app` with these rights, and returns the URL with which it connects.
fn create_user(server: &RedisServer, rights: &[&str]) -> String {
    let mut words = vec!["ACL", "SETUSER", "app", "reset", "on", ">word"];
    words.extend(rights);
    let _: () = operate(&mut server.connection(), &words);
    server.url().replace("redis://", "redis://app:word@")
}

/// A recorder of the metrics of this thread, which counts the exchanges with Redis: single commands
/// and batches.
struct Exchanges(metrics_exporter_prometheus::PrometheusRecorder);

impl Exchanges {
    fn new() -> Self {
        let builder = metrics_exporter_prometheus::PrometheusBuilder::new();
        Self(builder.build_recorder())
    }

    /// Records the metrics of this thread while the guard lives.
    fn record(&self) -> metrics::LocalRecorderGuard<'_> {
        metrics::set_default_local_recorder(&self.0)
    }

    /// Returns the number of exchanges with this result, `ok` or `failed`.
    fn count(&self, result: &str) -> u64 {
        self.value(&format!(
            "wechat_store_seconds_count{{result=\"{result}\"}} "
        ))
    }

    /// Returns the number behind the name of a metric.
    fn value(&self, name: &str) -> u64 {
        let text = self.0.handle().render();
        let value = text.lines().find_map(|line| line.strip_prefix(name));
        value.map_or(0, |value| value.parse().unwrap())
    }
}

/// The end of a read in a form that can be compared.
#[derive(Debug, PartialEq)]
enum ReadEnd {
    Loaded(Record, Expected),
    /// The visitor has accepted this record.
    Accepted(Record),
    /// The visitor has rejected the first record. The read has returned the second one.
    Rejected(Record, Record, Expected),
    TimedOut,
    Failed(ErrorKind, String),
}

/// The way in which a test reads.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Manner {
    Load,
    VisitAndAccept,
    VisitAndReject,
}

impl Manner {
    async fn read(self, store: &RedisStore, slot: &CredentialSlot, timeout: Duration) -> ReadEnd {
        let failed = |error: Error| ReadEnd::Failed(error.kind(), error.to_string());
        if self == Self::Load {
            let loaded = store.load(slot).await;
            return loaded.map_or_else(failed, |stored| {
                ReadEnd::Loaded(stored.record, stored.expected)
            });
        }
        let mut visited = Vec::new();
        let mut visit = |record: &RecordView<'_>| {
            visited.push(record.to_record());
            self == Self::VisitAndAccept
        };
        let outcome = store.read_with(slot, timeout, &mut visit).await;
        assert!(visited.len() < 2, "one visit of a read at most");
        match (outcome, visited.pop()) {
            (Err(error), None) => failed(error),
            (Ok(ReadOutcome::TimedOut), None) => ReadEnd::TimedOut,
            (Ok(ReadOutcome::Accepted), Some(seen)) => ReadEnd::Accepted(seen),
            (Ok(ReadOutcome::Rejected(stored)), Some(seen)) => {
                ReadEnd::Rejected(seen, stored.record, stored.expected)
            }
            (outcome, seen) => panic!("{outcome:?} after a visit of {seen:?}"),
        }
    }
}
