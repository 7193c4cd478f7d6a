//! Steps of several renewals in one call of a script: leases and commits.
//!
//! The caller sends a step alone if the batch has not applied it. The scripts of single steps thus
//! decide about every conflict, and a step that was lost on the way finds its own result.

use std::sync::{Arc, Weak};
use std::time::Duration;

use redis::RedisResult;
use tokio::time::Instant;

use super::batch_pause::BatchPause;
use super::connection::errors::{ErrorClass, rejects_credentials};
use super::scripts::{BatchedReply, PublishMode, ScriptCall, ScriptReply};
use super::store::{Inner, RedisStore};
use crate::batch_queue::{Admission, BatchQueue, BatchRunner, Limits};
use crate::error::Error;
use crate::store::BoxFuture;

/// The limits of steps. Only a lone renewal gains by sending its step at once. One script with 64
/// steps takes Redis less than a millisecond.
const LIMITS: Limits = Limits {
    alone: 1,
    batch: 64,
    crowd: 16,
    large: 8,
    drivers: 8,
    waiting: 65_536,
};

/// The steps of a store that wait for a batch.
pub(super) struct StepBatches {
    queue: Arc<BatchQueue<StepRunner>>,
    /// Active after the server has rejected a script of a batch. All steps are then sent alone.
    pause: BatchPause,
}

/// The reply to a step, or the error of the whole batch.
type StepReply = Result<BatchedReply, Error>;

/// Runs the batches of a store. Does not keep the store alive: a batch holds the store while it
/// runs.
#[derive(Clone)]
struct StepRunner(Weak<Inner>);

impl Default for StepBatches {
    fn default() -> Self {
        Self {
            queue: Arc::new(BatchQueue::new(LIMITS)),
            pause: BatchPause::new(),
        }
    }
}

impl RedisStore {
    /// Runs a step in a batch with other steps. Otherwise runs it by `send_alone`.
    pub(super) async fn run_step(
        &self,
        call: &Arc<ScriptCall>,
        send_alone: impl Future<Output = RedisResult<ScriptReply>> + Send,
    ) -> Result<ScriptReply, Error> {
        let inner = &*self.0;
        let batches = &inner.step_batches;
        // The scripts of batches publish, and their keys may be on several servers of a Cluster.
        let arrived_at = Instant::now();
        let is_batchable = call.is_batchable()
            && !inner.connection.is_cluster()
            && !batches.pause.is_active(arrived_at)
            && inner.publish_state.mode() == PublishMode::InScript;
        let (mut permit, mut max_wait) = (None, Duration::MAX);
        if is_batchable {
            let runner = || StepRunner(Arc::downgrade(&self.0));
            let operation = || Arc::clone(call);
            let longest = inner.circuit_breaker.longest_wait(inner.command_timeout);
            let deadline = arrived_at + longest;
            let queue = &batches.queue;
            match queue.admit(arrived_at, deadline, operation, runner) {
                Admission::Alone(alone) => permit = Some(alone),
                Admission::Full => return Err(self.overloaded()),
                Admission::Queued(reply) => match reply.receive().await {
                    Some(Ok(BatchedReply::Applied)) => return Ok(ScriptReply::Applied),
                    Some(Ok(BatchedReply::AppliedUnpublished)) => {
                        return Ok(ScriptReply::AppliedUnpublished);
                    }
                    Some(Err(error)) => return Err(error),
                    // If there is no reply, the deadline has passed, or the driver has ended early.
                    Some(Ok(BatchedReply::SendAlone)) | None => {
                        max_wait = deadline.saturating_duration_since(Instant::now());
                    }
                },
            }
        }
        let reply = self.run_command_within(call.first_key(), max_wait, send_alone);
        let reply = reply.await;
        drop(permit);
        reply?.ok_or_else(|| self.overloaded())
    }

    /// Runs the steps of a batch in one call of a script.
    async fn run_steps(&self, steps: &[Arc<ScriptCall>]) -> Result<Vec<BatchedReply>, Error> {
        let batch = ScriptCall::batch(steps);
        let mut connection = self.0.connection.clone();
        let exchange = async {
            match batch.invoke::<Vec<BatchedReply>>(&mut connection).await {
                Err(error) if rejects_credentials(&error) => Err(error),
                Err(error) => match ErrorClass::classify(&error) {
                    Some(class) if !class.is_transient() => {
                        // The script needs one right more than those of single steps, and some
                        // servers inspect the text of scripts.
                        if matches!(class, ErrorClass::NotPermitted | ErrorClass::Other) {
                            self.pause_batches(
                                &self.0.step_batches.pause,
                                "a script for several users",
                            );
                        }
                        Ok(vec![BatchedReply::SendAlone; steps.len()])
                    }
                    Some(_) | None => Err(error),
                },
                replies => replies,
            }
        };
        self.run_command(batch.first_key(), exchange).await
    }

    /// Lets reads or steps be sent alone for a time. Logs this once. `rejected` names what the
    /// server has rejected.
    pub(super) fn pause_batches(&self, pause: &BatchPause, rejected: &str) {
        if pause.start(Instant::now()) {
            tracing::info!(
                target: "tower_wechat::store",
                address = self.0.address,
                "Redis rejected a batch ({rejected}); users are read and renewed one by one, and batches are \
                 tried again every minute"
            );
        }
    }
}

impl BatchRunner for StepRunner {
    type Operation = Arc<ScriptCall>;
    type Reply = StepReply;

    fn may_share_batch(first: &Arc<ScriptCall>, other: &Arc<ScriptCall>) -> bool {
        first.may_share_batch(other)
    }

    fn run_batch(&self, steps: Vec<Arc<ScriptCall>>) -> BoxFuture<'_, Vec<StepReply>> {
        Box::pin(async move {
            // Without the store, no caller waits any more.
            let Some(inner) = self.0.upgrade() else {
                return Vec::new();
            };
            match RedisStore(inner).run_steps(&steps).await {
                Ok(replies) => replies.into_iter().map(Ok).collect(),
                Err(error) => steps.iter().map(|_| Err(error.clone())).collect(),
            }
        })
    }

    fn spawn(&self, driver: BoxFuture<'static, ()>) {
        tokio::spawn(driver);
    }
}
