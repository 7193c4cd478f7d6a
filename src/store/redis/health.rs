//! Health checks: reads and writes in Redis.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::try_join_all;
use redis::{Cmd, Value};
use tokio::time::Instant;

use super::locations::RedisKey;
use super::scripts;
use super::store::RedisStore;
use crate::clock::duration_millis;
use crate::credential::AppId;
use crate::error::Error;
use crate::store::{CredentialKey, CredentialKind};

/// The time for which a result is reused. It bounds the commands that load balancers cause.
const HOLDS_FOR: Duration = Duration::from_secs(1);

/// The TTL of the key of a check, for the case that the script fails before it deletes the key.
const KEY_LIVES: Duration = Duration::from_secs(60);

/// The reason of an error whose text is not known. Servers report missing permissions inside a script
/// in different words.
const REFUSED: &str = "Redis refuses a script of ours: this user lacks the right to a command in it, \
                       or the server has rules for scripts";

/// The hashes that a check accesses.
type Looked = Vec<String>;

/// The results of the last checks.
#[derive(Default)]
pub(super) struct HealthCache(Mutex<HashMap<Looked, Answer>>);

struct Answer {
    came: Instant,
    said: Result<(), Error>,
}

impl Answer {
    fn holds(&self) -> bool {
        self.came.elapsed() < HOLDS_FOR
    }
}

impl HealthCache {
    fn last(&self, looked: &Looked) -> Option<Result<(), Error>> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = last.get(looked).filter(|answer| answer.holds())?;
        Some(answer.said.clone())
    }

    fn keep(&self, looked: Looked, said: &Result<(), Error>) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.retain(|_, answer| answer.holds());
        let (came, said) = (Instant::now(), said.clone());
        last.insert(looked, Answer { came, said });
    }

    /// Removes all results, because a command has failed since.
    pub(super) fn clear(&self) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.clear();
    }
}

/// The hashes that contain credentials of one kind.
struct Hashes {
    read: Looked,
    written: Looked,
}

impl RedisStore {
    /// Returns the key that checks read and write, which is also the field that they access in hashes.
    /// No user has this field, because user ids of WeChat contain no colon.
    fn check_key(&self) -> String {
        format!("{}ping", self.0.names.prefix)
    }

    fn hashes(&self, app: &AppId, kind: CredentialKind) -> Hashes {
        let (names, layout, mirror) = (&self.0.names, self.0.layout, self.0.dual_write);
        let (app, id) = (app.clone(), self.check_key().into());
        let name = CredentialKey { app, kind, id };
        let places = names.locations(layout, mirror, &name);
        let hashes = |cells: &[RedisKey<'_>]| -> Looked {
            let hashes = cells.iter().filter(|cell| cell.field.is_some());
            hashes.map(|cell| cell.key.to_string()).collect()
        };
        Hashes {
            read: hashes(&places.read.keys),
            written: places
                .with_targets()
                .flat_map(|(place, _)| hashes(&place.keys))
                .collect(),
        }
    }

    /// Checks that this process can read and write credentials of a kind. The result may be one second
    /// old.
    ///
    /// A read does not find a full memory, a disk error, too few replicas, a primary that has become a
    /// replica, or a missing permission. The check therefore also runs a script that writes. It also
    /// accesses the hashes by name, because they may be of another type or forbidden.
    pub(super) async fn check_writing(
        &self,
        app: &AppId,
        kind: CredentialKind,
    ) -> Result<(), Error> {
        let hashes = self.hashes(app, kind);
        if let Some(said) = self.0.health_cache.last(&hashes.written) {
            return said;
        }
        let key = self.check_key();
        let get = Cmd::get(&key);
        let fields = |command: &str, hashes: &Looked| -> Vec<Cmd> {
            let one = |hash| redis::cmd(command).arg(hash).arg(&key).to_owned();
            hashes.iter().map(one).collect()
        };
        let (reads, writes) = (
            fields("HGET", &hashes.read),
            fields("HDEL", &hashes.written),
        );
        let (answers, reads, writes, script) = tokio::join!(
            self.command::<Value>(&get),
            try_join_all(reads.iter().map(|read| self.command::<Value>(read))),
            try_join_all(writes.iter().map(|write| self.command::<Value>(write))),
            self.check_script(&key, !hashes.written.is_empty()),
        );
        let said = match (answers, reads, script, writes) {
            // Not cached: while Redis is down, the circuit breaker bounds the commands.
            (Err(error), ..) => return Err(error),
            (Ok(_), Err(error), ..) => Err(error),
            (_, _, Err(error), _) | (_, _, _, Err(error)) => Err(error.with_reads_served()),
            (Ok(_), Ok(_), Ok(()), Ok(_)) => Ok(()),
        };
        self.0.health_cache.keep(hashes.written, &said);
        said
    }

    /// Runs the commands of a login and a renewal on the key of checks.
    async fn check_script(&self, key: &str, hashes: bool) -> Result<(), Error> {
        let mut call = scripts::CHECK.key(key);
        call.arg(duration_millis(KEY_LIVES)).arg(i32::from(hashes));
        let ran = self.run_script::<Value>(&call).await;
        ran.map(drop)
            .map_err(|error| error.with_reason_if_none(REFUSED))
    }

    /// Checks that this process can read, for tokens of another system. The ACL user may lack the
    /// permission to read this crate's keys. The error `NOPERM` then shows that Redis replies.
    pub(super) async fn check_reading(&self) -> Result<(), Error> {
        let key = self.check_key();
        let answers = async {
            let mut connection = self.0.connection.clone();
            match Cmd::get(&key).exec_async(&mut connection).await {
                Err(error) if error.code() == Some("NOPERM") => Ok(()),
                answer => answer,
            }
        };
        self.run_command(key.as_bytes(), answers).await
    }
}
