//! Steps of several renewals in one call of a script: leases and commits.
//!
//! The caller sends a step alone if the batch has not applied it. The scripts of single steps thus
//! decide about every conflict, and a step that was lost on the way finds its own result.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use redis::RedisResult;
use tokio::time::Instant;

use super::connection::errors::ErrorClass;
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
    /// `true` after the server has rejected a script of a batch. All steps are then sent alone.
    is_rejected: AtomicBool,
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
            is_rejected: AtomicBool::new(false),
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
        let is_batchable = call.is_batchable()
            && !inner.connection.is_cluster()
            && !batches.is_rejected.load(Ordering::Relaxed)
            && inner.publish_state.mode() == PublishMode::InScript;
        let mut permit = None;
        if is_batchable {
            let runner = || StepRunner(Arc::downgrade(&self.0));
            let arrived_at = Instant::now();
            let operation = || Arc::clone(call);
            let longest = inner.circuit_breaker.longest_wait(inner.command_timeout);
            let deadline = arrived_at + longest;
            let queue = &batches.queue;
            match queue.admit(arrived_at, deadline, operation, runner) {
                Admission::Alone(alone) => permit = Some(alone),
                Admission::Full => return Err(self.overloaded()),
                Admission::Queued(reply) => match reply.await {
                    Ok(Ok(BatchedReply::Applied)) => return Ok(ScriptReply::Applied),
                    Ok(Ok(BatchedReply::AppliedUnpublished)) => {
                        return Ok(ScriptReply::AppliedUnpublished);
                    }
                    Ok(Ok(BatchedReply::SendAlone)) => {}
                    Ok(Err(error)) => return Err(error),
                    // The driver has ended early.
                    Err(_) if Instant::now() < deadline => {}
                    Err(_) => return Err(self.overloaded()),
                },
            }
        }
        let reply = self.run_command(call.first_key(), send_alone).await;
        drop(permit);
        reply
    }

    /// Runs the steps of a batch in one call of a script.
    async fn run_steps(&self, steps: &[Arc<ScriptCall>]) -> Result<Vec<BatchedReply>, Error> {
        let batch = ScriptCall::batch(steps);
        let mut connection = self.0.connection.clone();
        let exchange = async {
            match batch.invoke::<Vec<BatchedReply>>(&mut connection).await {
                Err(error) => match ErrorClass::classify(&error) {
                    Some(class) if !class.is_transient() => {
                        self.note_rejection(class);
                        Ok(vec![BatchedReply::SendAlone; steps.len()])
                    }
                    Some(_) | None => Err(error),
                },
                replies => replies,
            }
        };
        self.run_command(batch.first_key(), exchange).await
    }

    /// Lets all later steps be sent alone, if the server rejects the script of a batch for good. The
    /// script needs one right more than those of single steps, and some servers inspect the text of
    /// scripts.
    fn note_rejection(&self, class: ErrorClass) {
        if matches!(class, ErrorClass::NotPermitted | ErrorClass::Other) {
            let is_rejected = &self.0.step_batches.is_rejected;
            is_rejected.store(true, Ordering::Relaxed);
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
