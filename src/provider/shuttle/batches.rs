//! Tests of the queue that sends operations together ([`BatchQueue`]), without the engine.
//!
//! Each operation must be executed once at most. Its caller must get the reply to this operation, or
//! must notice that the operation is lost. An operation may only be lost if a driver was aborted, or
//! if its deadline has passed.
//! When no operation waits, no driver may be left.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::batched_store::{random_limits, spawn_driver};
use super::explore::{advance_time, explore, join_all, random_number};
use crate::batch_queue::{Admission, BatchQueue, BatchRunner, Limits};
use crate::store::BoxFuture;

/// The group and the number of an operation. Operations of several groups may not share a batch.
type Operation = (u32, u32);

/// A simulated server. Its version grows with each write.
struct Server {
    /// `true` if some drivers are aborted.
    aborts_drivers: bool,
    limits: Limits,
    version: AtomicUsize,
    executed: Mutex<HashSet<Operation>>,
}

#[derive(Clone)]
struct Runner(Arc<Server>);

impl BatchRunner for Runner {
    type Operation = Operation;
    /// The operation, and the version of the server at its execution.
    type Reply = (Operation, usize);

    fn may_share_batch(first: &Operation, other: &Operation) -> bool {
        first.0 == other.0
    }

    fn run_batch(&self, operations: Vec<Operation>) -> BoxFuture<'_, Vec<Self::Reply>> {
        Box::pin(async move {
            assert!(operations.len() <= self.0.limits.batch);
            let (group, _) = operations[0];
            wait().await;
            let version = self.0.version.load(Ordering::Relaxed);
            for operation in &operations {
                assert_eq!(operation.0, group, "two groups share a batch");
                let is_first = self.0.executed.lock().unwrap().insert(*operation);
                assert!(is_first, "{operation:?} is executed twice");
            }
            wait().await;
            let replies = operations.into_iter();
            replies.map(|operation| (operation, version)).collect()
        })
    }

    fn spawn(&self, driver: BoxFuture<'static, ()>) {
        match self.0.aborts_drivers {
            true => spawn_driver(driver),
            false => drop(shuttle::future::spawn(driver)),
        }
    }
}

/// A queue and its server.
struct QueueAndServer {
    queue: Arc<BatchQueue<Runner>>,
    server: Arc<Server>,
}

impl QueueAndServer {
    fn new(aborts_drivers: bool) -> Arc<Self> {
        let limits = random_limits();
        Arc::new(Self {
            queue: Arc::new(BatchQueue::new(limits)),
            server: Arc::new(Server {
                aborts_drivers,
                limits,
                version: AtomicUsize::new(0),
                executed: Mutex::default(),
            }),
        })
    }

    /// Runs an operation, and checks its reply. Some callers do not wait for the reply.
    async fn call(&self, operation: Operation) {
        let before = self.server.version.load(Ordering::Relaxed);
        let runner = || Runner(Arc::clone(&self.server));
        let now = Instant::now();
        // One caller in four waits for a short time.
        let deadline = match random_number(0..4) {
            0 => now + Duration::from_millis(random_number(0..30).into()),
            _ => now + Duration::from_secs(3_600),
        };
        let admission = self.queue.admit(now, deadline, || operation, runner);
        let reply = match admission {
            Admission::Queued(reply) => reply,
            Admission::Alone(_permit) => return wait().await,
            Admission::Full => panic!("too many operations wait"),
        };
        if random_number(0..4) == 0 {
            return wait().await;
        }
        match reply.receive().await {
            Some((answered, version)) => {
                assert_eq!(answered, operation, "the reply to another operation");
                assert!(version >= before, "the exchange began before the operation");
            }
            None => {
                let is_overdue = Instant::now() >= deadline;
                let may_be_lost = is_overdue || self.server.aborts_drivers;
                assert!(may_be_lost, "{operation:?} is lost");
            }
        }
    }
}

/// Lets other tasks run for a random time, as an exchange does.
async fn wait() {
    for _ in 0..random_number(0..3) {
        shuttle::future::yield_now().await;
    }
}

fn race_operations(aborts_drivers: bool) {
    shuttle::future::block_on(async {
        let both = QueueAndServer::new(aborts_drivers);
        let callers = [0, 10, 20, 30].map(|first| {
            let both = Arc::clone(&both);
            shuttle::future::spawn(async move {
                for number in first..first + 3 {
                    both.call((random_number(0..2), number)).await;
                    both.server.version.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        join_all(callers).await;
        while !both.queue.is_idle() {
            advance_time();
            shuttle::future::yield_now().await;
        }
    });
}

#[test]
fn each_operation_is_answered() {
    explore("a queue", || race_operations(false));
}

#[test]
fn aborted_drivers_leave_no_operation_behind() {
    explore("aborted drivers", || race_operations(true));
}
