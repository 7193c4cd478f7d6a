//! Whether this process can read and write in Redis now, for health checks.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use redis::{Cmd, Value};
use tokio::time::Instant;

use super::RedisStore;
use super::guard::millis;
use super::scripts::{Call, Step};
use crate::error::Error;

/// An answer holds for this long, however many load balancers ask.
const HOLDS_FOR: Duration = Duration::from_secs(1);

/// How long the key of a check stays: long enough for nobody to miss it, and gone when the process
/// is.
const KEY_LIVES: Duration = Duration::from_secs(60);

/// The last answer, and when it came.
#[derive(Default)]
pub(super) struct Ready(Mutex<Option<(Instant, Result<(), Error>)>>);

impl Ready {
    fn last(&self) -> Option<Result<(), Error>> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, said) = last.as_ref()?;
        (at.elapsed() < HOLDS_FOR).then(|| said.clone())
    }

    fn keep(&self, said: &Result<(), Error>) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some((Instant::now(), said.clone()));
    }

    /// Forgets the answer: a command has failed since.
    pub(super) fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl RedisStore {
    /// The key that checks read and write.
    fn check_key(&self) -> String {
        format!("{}ping", self.0.names.prefix)
    }

    /// Returns whether this process can read and write, from an answer that is a second old at most.
    ///
    /// A write tells what no reading does: a full memory, a disk that cannot be saved to, too few
    /// replicas, a primary that has become a replica. A script tells whether leases and logins can be
    /// written, which the right to set a key alone does not allow.
    pub(super) async fn check_writing(&self) -> Result<(), Error> {
        if let Some(said) = self.0.ready.last() {
            return said;
        }
        let key = self.check_key();
        let mut write = redis::cmd("SET");
        write.arg(&key).arg("").arg("PX").arg(millis(KEY_LIVES));
        let read = Cmd::get(&key);
        let (read, write) =
            tokio::join!(self.command::<Value>(&read), self.command::<Value>(&write),);
        // The key holds nothing, as the script compares, so that it deletes the key.
        let mut script = Call::of(Step::Release);
        script.lease(&key).arg("");
        let write = match write {
            Ok(_) => self.script::<i64>(&script).await.map(drop),
            Err(error) => Err(error),
        };
        let said = match (read, write) {
            // Not kept: while Redis is away, the guard bounds how often it is asked.
            (Err(error), _) => return Err(error),
            (Ok(_), Err(error)) => Err(error.with_reads_served()),
            (Ok(_), Ok(_)) => Ok(()),
        };
        self.0.ready.keep(&said);
        said
    }

    /// Returns whether this process can read: all that is needed to follow another system's token.
    /// Its user may lack the right to read this crate's own keys, which says that Redis answers.
    pub(super) async fn check_reading(&self) -> Result<(), Error> {
        let key = self.check_key();
        let answers = async {
            let mut connection = self.0.connection.clone();
            match Cmd::get(&key).exec_async(&mut connection).await {
                Err(error) if error.code() == Some("NOPERM") => Ok(()),
                answer => answer,
            }
        };
        self.run(key.as_bytes(), answers).await
    }
}
