//! A queue that sends operations together, several in one exchange with a server.
//!
//! # States
//!
//! - *Alone*: no driver runs, and fewer than [`Limits::alone`] operations run. A new operation runs
//!   by itself, in the task of its caller, because it would gain nothing from waiting.
//! - *Batched*: a driver runs. New operations wait. The driver takes up to [`Limits::batch`] of
//!   them, runs them in one exchange, delivers the replies, and takes the next ones. It ends when
//!   no operation waits.
//!
//! A further driver starts when [`Limits::crowd`] operations wait, or when the youngest exchange is
//! older than [`LATE`]. One exchange at a time would add up to a round trip to each operation.
//!
//! # Promises
//!
//! - An operation joins only an exchange that starts later. A caller may therefore note the state
//!   of its cache before it submits a read.
//! - A driver runs in a task of its own, so the others get their replies if a caller is dropped.
//! - If the task of a driver ends early, its operations are lost. If it was the last driver, all
//!   waiting operations are lost. A caller notices the loss at once.
//! - At most [`Limits::waiting`] operations wait.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::store::BoxFuture;

/// Time after which an exchange no longer holds up the operations that wait: one millisecond. An
/// exchange with a server in the same data center takes less.
const LATE: Duration = Duration::from_millis(1);

/// The limits of a [`BatchQueue`], as numbers of operations or drivers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Maximum number of operations that run alone at the same time.
    pub(crate) alone: usize,
    /// Maximum number of operations in one batch.
    pub(crate) batch: usize,
    /// Number of waiting operations for which a further driver starts.
    pub(crate) crowd: usize,
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

    /// Returns `true` if both operations may be in one batch.
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
    drivers: usize,
    /// The time at which the youngest exchange, or the youngest driver, started.
    last_start: Option<Instant>,
}

struct Waiting<R: BatchRunner> {
    operation: R::Operation,
    reply: oneshot::Sender<R::Reply>,
}

/// How an operation runs.
pub(crate) enum Admission<'a, R: BatchRunner> {
    /// The caller runs the operation itself and then drops this permit.
    Alone(AlonePermit<'a, R>),
    /// The operation waits for a batch. The receiver fails if the operation is lost.
    Queued(oneshot::Receiver<R::Reply>),
    /// Too many operations wait.
    Full,
}

/// Counts an operation that runs alone, until it is dropped.
pub(crate) struct AlonePermit<'a, R: BatchRunner>(&'a BatchQueue<R>);

impl<R: BatchRunner> Drop for AlonePermit<'_, R> {
    fn drop(&mut self) {
        self.0.lock().alone -= 1;
    }
}

impl<R: BatchRunner> BatchQueue<R> {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                alone: 0,
                drivers: 0,
                last_start: None,
            }),
            limits,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Admits an operation that arrived at `now`. Calls `operation` only if the operation waits.
    /// `runner` runs the batches of a driver that starts.
    pub(crate) fn admit(
        self: &Arc<Self>,
        now: Instant,
        operation: impl FnOnce() -> R::Operation,
        runner: impl FnOnce() -> R,
    ) -> Admission<'_, R> {
        let mut state = self.lock();
        if state.drivers == 0 && state.alone < self.limits.alone {
            state.alone += 1;
            return Admission::Alone(AlonePermit(self));
        }
        if state.waiting.len() >= self.limits.waiting {
            return Admission::Full;
        }
        let (reply, receiver) = oneshot::channel();
        let operation = operation();
        state.waiting.push_back(Waiting { operation, reply });
        let is_crowded = state.waiting.len() % self.limits.crowd == 0;
        let is_late = state
            .last_start
            .is_none_or(|start| now.saturating_duration_since(start) >= LATE);
        let is_wanted = state.drivers == 0 || is_crowded || is_late;
        let driver = is_wanted.then(|| self.start_driver(&mut state, now));
        // A runtime that shuts down drops the driver inside of `spawn`, and the drop needs the lock.
        drop(state);
        if let Some(driver) = driver.flatten() {
            driver.spawn(&runner());
        }
        Admission::Queued(receiver)
    }

    /// Counts a further driver, unless the maximum number runs.
    fn start_driver(self: &Arc<Self>, state: &mut State<R>, now: Instant) -> Option<Driver<R>> {
        if state.drivers >= self.limits.drivers {
            return None;
        }
        state.drivers += 1;
        state.last_start = Some(now);
        Some(Driver {
            queue: Arc::clone(self),
            has_ended: false,
        })
    }
}

/// A driver that is counted in its queue. Dropping it early loses its operations.
struct Driver<R: BatchRunner> {
    queue: Arc<BatchQueue<R>>,
    /// `true` if the queue no longer counts this driver.
    has_ended: bool,
}

impl<R: BatchRunner> Driver<R> {
    fn spawn(self, runner: &R) {
        runner.spawn(Box::pin(self.run(runner.clone())));
    }

    async fn run(mut self, runner: R) {
        // The tasks that are ready now run first, so that their operations join the batch.
        tokio::task::yield_now().await;
        while let Some(batch) = self.take_batch() {
            let (operations, replies): (Vec<_>, Vec<_>) = batch
                .into_iter()
                .map(|waiting| (waiting.operation, waiting.reply))
                .unzip();
            let mut exchange = runner.run_batch(operations);
            let outcome = match tokio::time::timeout(LATE, &mut exchange).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    self.start_next(&runner);
                    exchange.await
                }
            };
            for (reply, outcome) in replies.into_iter().zip(outcome) {
                // A caller that has given up leaves the reply to its destructor, which wipes it.
                let _ = reply.send(outcome);
            }
        }
    }

    /// Starts another driver for the operations that wait behind a slow exchange.
    fn start_next(&self, runner: &R) {
        let mut state = self.queue.lock();
        if state.waiting.is_empty() {
            return;
        }
        let driver = self.queue.start_driver(&mut state, Instant::now());
        drop(state);
        if let Some(driver) = driver {
            driver.spawn(runner);
        }
    }

    /// Takes the operations of the next batch. Operations whose callers have given up are dropped.
    /// Returns `None` at the end of this driver, when nothing waits.
    fn take_batch(&mut self) -> Option<Vec<Waiting<R>>> {
        let mut dropped = Vec::new();
        let mut state = self.queue.lock();
        let mut batch: Vec<Waiting<R>> = Vec::new();
        let mut others = VecDeque::new();
        while batch.len() < self.queue.limits.batch
            && let Some(waiting) = state.waiting.pop_front()
        {
            if waiting.reply.is_closed() {
                dropped.push(waiting);
            } else if batch
                .first()
                .is_none_or(|first| R::may_share_batch(&first.operation, &waiting.operation))
            {
                batch.push(waiting);
            } else {
                others.push_back(waiting);
            }
        }
        if !others.is_empty() {
            others.append(&mut state.waiting);
            state.waiting = others;
        }
        if batch.is_empty() {
            // In the same step as the look at the queue, so that the next operation finds no
            // driver and starts one.
            state.drivers -= 1;
            self.has_ended = true;
            return None;
        }
        state.last_start = Some(Instant::now());
        Some(batch)
    }
}

impl<R: BatchRunner> Drop for Driver<R> {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        let mut state = self.queue.lock();
        state.drivers -= 1;
        // Nothing would ever take the operations that wait. Without their senders, the receivers
        // of their callers fail.
        let lost = match state.drivers {
            0 => std::mem::take(&mut state.waiting),
            _ => VecDeque::new(),
        };
        drop(state);
        drop(lost);
    }
}
