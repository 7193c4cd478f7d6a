//! A queue that sends operations together, several in one exchange with a server.
//!
//! # States
//!
//! - *Alone*: no driver runs, fewer than [`Limits::alone`] operations run, and no large batch was
//!   sent in the last [`BUSY_TIME`]. A new operation runs by itself, in the task of its caller,
//!   because it would gain nothing from waiting.
//! - *Batched*: a driver runs. New operations wait. The driver takes up to [`Limits::batch`] of
//!   them, runs them in one exchange, delivers the replies, and takes the next ones. It ends when
//!   no operation waits.
//!
//! A further driver starts when [`Limits::crowd`] operations wait, or when an operation waits and
//! the youngest exchange under way is older than [`LATE`]. One exchange at a time would add up to a
//! round trip to each operation.
//!
//! # Promises
//!
//! - An operation joins only an exchange that starts later. A caller may therefore note the state
//!   of its cache before it submits a read.
//! - A driver runs in a separate task, so the others get their replies if a caller is dropped.
//! - If the task of a driver ends early, its operations are lost. If it was the last driver, all
//!   waiting operations are lost. A caller notices the loss at once.
//! - A batch starts with the operation that has waited longest, so no group of operations starves
//!   another. The operations of one group are sent in the order in which they arrived.
//! - At most [`Limits::waiting`] operations wait.
//! - An operation that is not answered at its deadline is lost within twice [`CHECK_INTERVAL`]. The
//!   drivers check this, and the callers that have started them, because a timer for each operation
//!   would cost as much as the rest of the queue. An overdue operation is not sent.
//! - All batches at one time are driven by the runtime that started the first of them. Operations of
//!   other runtimes run alone, so that none of them depends on a runtime that nobody drives.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::{self, Handle};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::shrink::shrink_deque;
use crate::store::BoxFuture;
use crate::sync::{Mutex, MutexGuard};

/// Time after which an exchange no longer holds up the operations that wait: one millisecond. An
/// exchange with a server in the same data center takes less.
const LATE: Duration = Duration::from_millis(1);

/// Time after a large batch in which no operation runs alone: two milliseconds. The callers of that
/// batch have their replies by then, and the next operations arrive together too.
const BUSY_TIME: Duration = Duration::from_millis(2);

/// Interval at which the drivers look for operations for which no caller waits any more: ten
/// milliseconds.
const CHECK_INTERVAL: Duration = Duration::from_millis(10);

/// Maximum number of operations that a batch passes over because they belong to other groups:
/// 1,024. The limit bounds the time for which a driver holds the lock of the queue.
const MAX_PASSED_OVER: usize = 1_024;

/// The limits of a [`BatchQueue`], as numbers of operations or drivers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Maximum number of operations that run alone at the same time.
    pub(crate) alone: usize,
    /// Maximum number of operations in one batch.
    pub(crate) batch: usize,
    /// Number of waiting operations for which a further driver starts.
    pub(crate) crowd: usize,
    /// Number of operations from which on a batch is large.
    pub(crate) large: usize,
    /// Maximum number of drivers, and so of batches under way.
    pub(crate) drivers: usize,
    /// Maximum number of operations that wait.
    pub(crate) waiting: usize,
}

/// Runs the batches of a queue.
pub(crate) trait BatchRunner: Clone + Send + 'static {
    /// An operation.
    type Operation: Send + 'static;
    /// The reply to an operation.
    type Reply: Send + 'static;

    /// Returns `true` if both operations may be in one batch. Divides all operations into groups,
    /// and returns `true` for two operations of the same group.
    fn may_share_batch(first: &Self::Operation, other: &Self::Operation) -> bool;

    /// Runs the operations in one exchange. Returns their replies in the same order. An operation
    /// without a reply is lost.
    fn run_batch(&self, operations: Vec<Self::Operation>) -> BoxFuture<'_, Vec<Self::Reply>>;

    /// Spawns the task of a driver.
    fn spawn(&self, driver: BoxFuture<'static, ()>);
}

/// A queue of operations that are sent together. See the module for its states.
pub(crate) struct BatchQueue<R: BatchRunner> {
    state: Mutex<State<R>>,
    limits: Limits,
}

struct State<R: BatchRunner> {
    waiting: VecDeque<Waiting<R>>,
    /// Number of operations that run alone.
    alone: usize,
    /// For each driver, the time at which its exchange started. For a new driver, the time at which
    /// the driver was created.
    driver_starts: Vec<Instant>,
    /// The time at which the last large batch was sent.
    large_batch_at: Option<Instant>,
    /// The runtime of the drivers that run. `None` outside of a runtime.
    runtime: Option<runtime::Id>,
    /// The time at which a driver last looked for operations for which no caller waits any more.
    checked_at: Option<Instant>,
}

impl<R: BatchRunner> State<R> {
    /// Returns `true` if a new operation may run alone.
    fn may_run_alone(&self, now: Instant, limits: &Limits) -> bool {
        let is_busy = |at: Instant| now.saturating_duration_since(at) < BUSY_TIME;
        self.driver_starts.is_empty()
            && self.alone < limits.alone
            && !self.large_batch_at.is_some_and(is_busy)
    }

    /// Returns `true` unless a driver is about to take operations: it is new, or its exchange has
    /// started less than [`LATE`] ago. The start of a driver that has ended does not count, because
    /// that driver takes no operations.
    fn is_late(&self, now: Instant) -> bool {
        let mut starts = self.driver_starts.iter();
        starts.all(|start| now.saturating_duration_since(*start) >= LATE)
    }

    /// Removes and returns the operations for which no caller waits any more. Looks for them at most
    /// once in each [`CHECK_INTERVAL`], because many drivers call this function.
    fn take_abandoned(&mut self, now: Instant) -> VecDeque<Waiting<R>> {
        let is_recent = |at: Instant| now.saturating_duration_since(at) < CHECK_INTERVAL;
        if self.checked_at.is_some_and(is_recent) {
            return VecDeque::new();
        }
        self.checked_at = Some(now);
        if !self.waiting.iter().any(|waiting| waiting.is_abandoned(now)) {
            return VecDeque::new();
        }
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        let (abandoned, others) = waiting.partition(|waiting| waiting.is_abandoned(now));
        self.waiting = others;
        abandoned
    }

    /// Removes a driver that started at this time. Drivers of the same time are alike.
    fn remove_driver(&mut self, start: Instant) {
        let index = self.driver_starts.iter().position(|one| *one == start);
        if let Some(index) = index {
            self.driver_starts.swap_remove(index);
        }
    }
}

struct Waiting<R: BatchRunner> {
    operation: R::Operation,
    deadline: Instant,
    reply: oneshot::Sender<R::Reply>,
}

impl<R: BatchRunner> Waiting<R> {
    /// Returns `true` if the caller has given up, or if its deadline has passed.
    fn is_abandoned(&self, now: Instant) -> bool {
        self.deadline <= now || self.reply.is_closed()
    }
}

/// How an operation runs.
pub(crate) enum Admission<'a, R: BatchRunner> {
    /// The caller runs the operation itself and then drops this permit.
    Alone(AlonePermit<'a, R>),
    /// The operation waits for a batch.
    Queued(Receiver<R>),
    /// Too many operations wait.
    Full,
}

/// The receiver of the reply to an operation that waits.
pub(crate) struct Receiver<R: BatchRunner> {
    reply: oneshot::Receiver<R::Reply>,
    /// The queue and the deadline, if this operation has started a driver.
    watched: Option<(Arc<BatchQueue<R>>, Instant)>,
}

impl<R: BatchRunner> Receiver<R> {
    /// Waits for the reply. Returns `None` if the operation is lost: its deadline has passed, or its
    /// driver has ended early.
    ///
    /// A driver checks deadlines from its first step on. A thread that spawns a driver and is then
    /// blocked delays this step, so the caller that has started the driver has a timer too. At its
    /// deadline it drops all operations for which no caller waits any more.
    pub(crate) async fn receive(mut self) -> Option<R::Reply> {
        let Some((queue, deadline)) = self.watched.take() else {
            return self.reply.await.ok();
        };
        match tokio::time::timeout_at(deadline, self.reply).await {
            Ok(reply) => reply.ok(),
            Err(_) => {
                // The lock is released before these are dropped.
                let abandoned = queue.lock().take_abandoned(Instant::now());
                drop(abandoned);
                None
            }
        }
    }
}

/// Counts an operation that runs alone, until it is dropped. Operations of foreign runtimes are not
/// counted.
pub(crate) struct AlonePermit<'a, R: BatchRunner>(Option<&'a BatchQueue<R>>);

impl<R: BatchRunner> Drop for AlonePermit<'_, R> {
    fn drop(&mut self) {
        if let Some(queue) = self.0 {
            queue.lock().alone -= 1;
        }
    }
}

impl<R: BatchRunner> BatchQueue<R> {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                alone: 0,
                driver_starts: Vec::new(),
                large_batch_at: None,
                runtime: None,
                checked_at: None,
            }),
            limits,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Admits an operation that arrived at `now`, and whose caller waits until `deadline`. Calls
    /// `operation` only if the operation waits. `runner` runs the batches of a driver that starts.
    pub(crate) fn admit(
        self: &Arc<Self>,
        now: Instant,
        deadline: Instant,
        operation: impl FnOnce() -> R::Operation,
        runner: impl FnOnce() -> R,
    ) -> Admission<'_, R> {
        let mut state = self.lock();
        if state.may_run_alone(now, &self.limits) {
            state.alone += 1;
            return Admission::Alone(AlonePermit(Some(self)));
        }
        let runtime = Handle::try_current().ok().map(|runtime| runtime.id());
        if state.driver_starts.is_empty() {
            state.runtime = runtime;
        } else if state.runtime != runtime {
            return Admission::Alone(AlonePermit(None));
        }
        if state.waiting.len() >= self.limits.waiting {
            return Admission::Full;
        }
        let (reply, receiver) = oneshot::channel();
        let operation = operation();
        state.waiting.push_back(Waiting {
            operation,
            deadline,
            reply,
        });
        let is_crowded = state.waiting.len().is_multiple_of(self.limits.crowd);
        let is_wanted = is_crowded || state.is_late(now);
        let driver = is_wanted.then(|| self.start_driver(&mut state, now));
        // A runtime that shuts down drops the driver inside of `spawn`, and the drop needs the lock.
        drop(state);
        let driver = driver.flatten();
        let watched = driver.as_ref().map(|_| (Arc::clone(self), deadline));
        if let Some(driver) = driver {
            driver.spawn(&runner());
        }
        Admission::Queued(Receiver {
            reply: receiver,
            watched,
        })
    }

    /// Returns `true` if no operation waits or runs alone, and no driver runs.
    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.lock();
        state.waiting.is_empty() && state.alone == 0 && state.driver_starts.is_empty()
    }

    /// Counts a further driver, unless the maximum number runs.
    fn start_driver(self: &Arc<Self>, state: &mut State<R>, now: Instant) -> Option<Driver<R>> {
        if state.driver_starts.len() >= self.limits.drivers {
            return None;
        }
        state.driver_starts.push(now);
        Some(Driver {
            queue: Arc::clone(self),
            start: Some(now),
        })
    }
}

/// A driver that is counted in its queue. Dropping it early loses its operations.
struct Driver<R: BatchRunner> {
    queue: Arc<BatchQueue<R>>,
    /// The time under which the queue counts this driver. `None` if the driver has ended.
    start: Option<Instant>,
}

impl<R: BatchRunner> Driver<R> {
    fn spawn(self, runner: &R) {
        runner.spawn(Box::pin(self.run(runner.clone())));
    }

    async fn run(mut self, runner: R) {
        run_ready_tasks().await;
        while let Some(batch) = self.take_batch() {
            let (operations, mut replies): (Vec<_>, Vec<_>) = batch
                .into_iter()
                .map(|waiting| (waiting.operation, (waiting.deadline, Some(waiting.reply))))
                .unzip();
            let mut exchange = runner.run_batch(operations);
            let mut wait = LATE;
            let outcome = loop {
                if let Ok(outcome) = tokio::time::timeout(wait, &mut exchange).await {
                    break outcome;
                }
                self.start_next(&runner);
                let now = Instant::now();
                for (deadline, reply) in &mut replies {
                    reply.take_if(|_| *deadline <= now);
                }
                // The lock is released before these are dropped.
                let abandoned = self.queue.lock().take_abandoned(now);
                drop(abandoned);
                wait = CHECK_INTERVAL;
            };
            for ((_, reply), outcome) in replies.into_iter().zip(outcome) {
                if let Some(reply) = reply {
                    // A caller that has given up leaves the reply to its destructor, which wipes
                    // it.
                    let _ = reply.send(outcome);
                }
            }
        }
    }

    /// Starts another driver for the operations that wait behind a slow exchange. Does nothing if a
    /// younger exchange is under way, because its driver will also take them or call this function.
    fn start_next(&self, runner: &R) {
        let mut state = self.queue.lock();
        let now = Instant::now();
        if state.waiting.is_empty() || !state.is_late(now) {
            return;
        }
        let driver = self.queue.start_driver(&mut state, now);
        drop(state);
        if let Some(driver) = driver {
            driver.spawn(runner);
        }
    }

    /// Takes the operations of the next batch. Drops operations for which no caller waits any more.
    /// Returns `None` at the end of this driver, when nothing waits.
    fn take_batch(&mut self) -> Option<Vec<Waiting<R>>> {
        // These are dropped after the lock is released.
        let mut abandoned = VecDeque::new();
        let mut batch: Vec<Waiting<R>> = Vec::new();
        let mut passed_over = Vec::new();
        let limits = &self.queue.limits;
        let mut state = self.queue.lock();
        let now = Instant::now();
        abandoned.append(&mut state.take_abandoned(now));
        while batch.len() < limits.batch
            && passed_over.len() < MAX_PASSED_OVER
            && let Some(waiting) = state.waiting.pop_front()
        {
            let first = batch.first().map(|first| &first.operation);
            if waiting.is_abandoned(now) {
                abandoned.push_back(waiting);
            } else if first.is_none_or(|first| R::may_share_batch(first, &waiting.operation)) {
                batch.push(waiting);
            } else {
                passed_over.push(waiting);
            }
        }
        for waiting in passed_over.into_iter().rev() {
            state.waiting.push_front(waiting);
        }
        shrink_deque(&mut state.waiting);
        if let Some(start) = self.start.take() {
            state.remove_driver(start);
        }
        // A driver without a batch ends in the same step as its look at the queue, so that the next
        // operation finds no driver and starts one.
        if batch.is_empty() {
            return None;
        }
        state.driver_starts.push(now);
        self.start = Some(now);
        if batch.len() >= limits.large {
            state.large_batch_at = Some(now);
        }
        Some(batch)
    }
}

impl<R: BatchRunner> Drop for Driver<R> {
    fn drop(&mut self) {
        let Some(start) = self.start else {
            return;
        };
        let mut state = self.queue.lock();
        state.remove_driver(start);
        // Without a driver, nothing would ever take the operations that wait. Without their
        // senders, the receivers of their callers fail.
        let lost = match state.driver_starts.is_empty() {
            true => std::mem::take(&mut state.waiting),
            false => VecDeque::new(),
        };
        drop(state);
        drop(lost);
    }
}

/// Lets the tasks that are ready now run first, so that their operations join the batch.
///
/// The task goes to the end of the queue of ready tasks, where idle threads find it. The function of
/// tokio for this purpose would keep it with this thread, which another task may block.
async fn run_ready_tasks() {
    let mut has_yielded = false;
    poll_fn(|context| {
        if std::mem::replace(&mut has_yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests;
