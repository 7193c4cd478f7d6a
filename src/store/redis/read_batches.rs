//! Reads of several credentials in one round trip.
//!
//! A batch sends one `HMGET` for each hash, and one `GET` for each string key. `MGET` would reply
//! nil for a key of another type, and would need another right.
//!
//! A read that a batch cannot answer is sent alone: after an error reply to its command, and if the
//! batch is lost. So each read ends as if it had been sent alone.

use std::sync::{Arc, Weak};
use std::time::Duration;

use redis::{Cmd, Pipeline, Value};
use tokio::time::Instant;

use super::batch_pause::BatchPause;
use super::codec::RawValue;
use super::connection::errors::{ErrorClass, indicates_replica};
use super::connection::optional_value;
use super::raw_values::RawValues;
use super::store::{Inner, RedisStore};
use crate::batch_queue::{Admission, AlonePermit, BatchQueue, BatchRunner, Limits};
use crate::credential::AppId;
use crate::error::Error;
use crate::store::BoxFuture;

/// The limits of reads. Up to eight reads gain nothing from waiting for each other. Further limits
/// keep one connection busy, with batches that Redis executes in some ten microseconds.
const LIMITS: Limits = Limits {
    alone: 8,
    batch: 64,
    crowd: 16,
    large: 8,
    drivers: 32,
    waiting: 65_536,
};

/// The reads of a store that wait for a batch.
pub(super) struct ReadBatches {
    queue: Arc<BatchQueue<ReadRunner>>,
    /// Active after the server has rejected `HMGET`. All reads are then sent alone.
    pause: BatchPause,
}

/// One read in a batch.
pub(super) enum BatchedRead {
    /// A string key.
    Key(Box<str>),
    /// The field of a user in both hashes of an account.
    User { app: AppId, id: Box<str> },
}

/// The reply to a read: its values, the error of the whole batch, or `None` if the read has to be
/// sent alone.
type ReadReply = Result<Option<RawValues>, Error>;

/// How a read is sent.
pub(super) enum ReadAdmission<'a> {
    /// The read is sent alone, and its caller waits for this long. The permit is `None` if the read
    /// does not count.
    Alone(Option<AlonePermit<'a, ReadRunner>>, Duration),
    /// The batch has answered. `None` if it did not within the caller's time.
    Answered(Result<Option<RawValues>, Error>),
}

/// Runs the batches of a store. Does not keep the store alive: a batch holds the store while it
/// runs.
#[derive(Clone)]
pub(super) struct ReadRunner(Weak<Inner>);

impl Default for ReadBatches {
    fn default() -> Self {
        Self {
            queue: Arc::new(BatchQueue::new(LIMITS)),
            pause: BatchPause::new(),
        }
    }
}

impl RedisStore {
    /// Sends a read with others, or lets it be sent alone. Waits for at most `max_wait`.
    pub(super) async fn read_in_batch(
        &self,
        operation: impl FnOnce() -> BatchedRead,
        arrived_at: Instant,
        max_wait: Duration,
    ) -> ReadAdmission<'_> {
        let inner = &*self.0;
        let batches = &inner.read_batches;
        // The keys of a Cluster are on several servers.
        if inner.connection.is_cluster() || batches.pause.is_active(arrived_at) {
            return ReadAdmission::Alone(None, max_wait);
        }
        let runner = || ReadRunner(Arc::downgrade(&self.0));
        let longest = inner.circuit_breaker.longest_wait(inner.command_timeout);
        let deadline = arrived_at + max_wait.min(longest);
        let queue = &batches.queue;
        let reply = match queue.admit(arrived_at, deadline, operation, runner) {
            Admission::Alone(permit) => return ReadAdmission::Alone(Some(permit), max_wait),
            Admission::Full => return ReadAdmission::Answered(Err(self.overloaded())),
            Admission::Queued(reply) => reply,
        };
        match reply.receive().await {
            Some(Ok(Some(values))) => ReadAdmission::Answered(Ok(Some(values))),
            Some(Err(error)) => ReadAdmission::Answered(Err(error)),
            None if deadline <= Instant::now() => ReadAdmission::Answered(Ok(None)),
            // Without a reply, the driver has ended early.
            Some(Ok(None)) | None => {
                let left = deadline.saturating_duration_since(Instant::now());
                ReadAdmission::Alone(None, left)
            }
        }
    }

    /// Reads all keys of a batch in one round trip.
    async fn run_reads(&self, reads: &[BatchedRead]) -> Result<Vec<ReadReply>, Error> {
        let inner = &*self.0;
        let plan = BatchPlan::new(self, reads);
        let exchange = async {
            let count = plan.pipeline.len();
            let send = || inner.connection.commands(&plan.pipeline, 0, count);
            let mut replies = send().await?;
            // The first replies of a former primary lead to a new connection. Reads may be repeated.
            if replies.iter().all(is_replica_error) {
                replies = send().await?;
            }
            plan.check(replies)
        };
        let replies = self.run_command(&[], exchange).await?;
        Ok(self.distribute(reads, &plan.groups, replies))
    }

    /// Returns the reply to each read, in the order of the reads.
    fn distribute(
        &self,
        reads: &[BatchedRead],
        groups: &[AppId],
        replies: Vec<Value>,
    ) -> Vec<ReadReply> {
        let mut replies = replies.into_iter();
        let mut fields: Vec<[HashValues; 2]> = groups
            .iter()
            .map(|_| [(); 2].map(|()| HashValues::new(replies.next())))
            .collect();
        if fields.iter().flatten().any(|values| values.is_forbidden) {
            self.pause_batches(&self.0.read_batches.pause, "HMGET");
        }
        let mut answer = |read: &BatchedRead| match read {
            BatchedRead::Key(_) => {
                let value = optional_value(replies.next()?).ok()?;
                Some(RawValues::One([value]))
            }
            BatchedRead::User { app, .. } => {
                let group = groups.iter().position(|group| group == app)?;
                let [access, refresh] = fields.get_mut(group)?;
                // Both are taken in any case, so that the next read finds its own values.
                match (access.next(), refresh.next()) {
                    (Some(access), Some(refresh)) => Some(RawValues::Two([access, refresh])),
                    (access, refresh) => {
                        // Wipes the value that the other hash has returned.
                        drop(RawValues::Two([access.flatten(), refresh.flatten()]));
                        None
                    }
                }
            }
        };
        reads.iter().map(|read| Ok(answer(read))).collect()
    }
}

/// The values of one hash, in the order of the reads.
struct HashValues {
    values: std::vec::IntoIter<Value>,
    /// `true` if the server does not run `HMGET` for this user.
    is_forbidden: bool,
}

impl HashValues {
    fn new(reply: Option<Value>) -> Self {
        let (values, is_forbidden) = match reply {
            Some(Value::Array(values)) => (values, false),
            Some(Value::ServerError(error)) => {
                let class = ErrorClass::classify_reply(&error);
                let forbidden = [ErrorClass::NotPermitted, ErrorClass::Other].contains(&class);
                (Vec::new(), forbidden)
            }
            _ => (Vec::new(), false),
        };
        Self {
            values: values.into_iter(),
            is_forbidden,
        }
    }

    fn next(&mut self) -> Option<RawValue> {
        optional_value(self.values.next()?).ok()
    }
}

/// The commands of a batch: two `HMGET` for each account, then one `GET` for each string key. Each
/// command has its whole capacity from the start, because reallocations would cost more.
struct BatchPlan {
    pipeline: Pipeline,
    /// The accounts of the reads of hash fields.
    groups: Vec<AppId>,
}

impl BatchPlan {
    fn new(store: &RedisStore, reads: &[BatchedRead]) -> Self {
        let mut groups: Vec<AppId> = Vec::new();
        let mut keys = 0;
        for read in reads {
            match read {
                BatchedRead::Key(_) => keys += 1,
                // A store serves few accounts at the same moment.
                BatchedRead::User { app, .. } if !groups.contains(app) => groups.push(app.clone()),
                BatchedRead::User { .. } => {}
            }
        }
        let mut pipeline = Pipeline::with_capacity(2 * groups.len() + keys);
        for group in &groups {
            let ids_of_group = || {
                reads.iter().filter_map(|read| match read {
                    BatchedRead::User { app, id } if app == group => Some(&**id),
                    BatchedRead::User { .. } | BatchedRead::Key(_) => None,
                })
            };
            let (count, bytes) =
                ids_of_group().fold((0, 0), |(count, bytes), id| (count + 1, bytes + id.len()));
            for hash in store.0.names.user_hashes(group) {
                let mut command = Cmd::with_capacity(2 + count, 5 + hash.len() + bytes);
                command.arg("HMGET").arg(&*hash);
                for id in ids_of_group() {
                    command.arg(id);
                }
                pipeline.add_command(command);
            }
        }
        for read in reads {
            if let BatchedRead::Key(key) = read {
                let mut command = Cmd::with_capacity(2, 3 + key.len());
                command.arg("GET").arg(&**key);
                pipeline.add_command(command);
            }
        }
        Self { pipeline, groups }
    }

    /// Returns an error if the server has rejected every command for a reason that concerns all
    /// commands. The error then counts for the circuit breaker as the error of one command. After
    /// other errors, each read is sent alone and gets its own error.
    fn check(&self, replies: Vec<Value>) -> redis::RedisResult<Vec<Value>> {
        let concerns_all = |reply: &Value| match reply {
            Value::ServerError(error) => match ErrorClass::classify_reply(error) {
                ErrorClass::Busy
                | ErrorClass::Retry
                | ErrorClass::Replica
                | ErrorClass::WritesRejected
                | ErrorClass::WrongNode => true,
                ErrorClass::NotPermitted => error.code() != "NOPERM",
                ErrorClass::WrongType | ErrorClass::Other => false,
            },
            _ => false,
        };
        match replies.iter().all(concerns_all) {
            true => Value::Array(replies).extract_error().map(|_| Vec::new()),
            false => Ok(replies),
        }
    }
}

/// Returns `true` if a reply is an error that indicates that the server has become a replica.
fn is_replica_error(reply: &Value) -> bool {
    matches!(reply, Value::ServerError(error) if indicates_replica(error))
}

impl BatchRunner for ReadRunner {
    type Operation = BatchedRead;
    type Reply = ReadReply;

    fn may_share_batch(_: &BatchedRead, _: &BatchedRead) -> bool {
        true
    }

    fn run_batch(&self, reads: Vec<BatchedRead>) -> BoxFuture<'_, Vec<ReadReply>> {
        Box::pin(async move {
            // Without the store, no caller waits any more.
            let Some(inner) = self.0.upgrade() else {
                return Vec::new();
            };
            let outcome = RedisStore(inner).run_reads(&reads).await;
            outcome.unwrap_or_else(|error| reads.iter().map(|_| Err(error.clone())).collect())
        })
    }

    fn spawn(&self, driver: BoxFuture<'static, ()>) {
        tokio::spawn(driver);
    }
}
