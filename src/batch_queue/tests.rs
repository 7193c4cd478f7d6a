//! Tests of the queue. A test sees each exchange when it starts, and ends it with or without
//! replies.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use proptest::prelude::*;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{AbortHandle, yield_now};
use tokio::time::{sleep, timeout};

use super::*;
use crate::shrink::MIN_CAPACITY;

/// The group and the number of an operation. Operations of several groups may not share a batch.
/// The reply to an operation is the operation itself.
type Operation = (u32, u32);

type Reply = oneshot::Receiver<Operation>;

/// Limits under which all operations wait for a batch, and only a slow exchange starts a further
/// driver.
const LIMITS: Limits = Limits {
    alone: 0,
    batch: 4,
    crowd: 1_000,
    large: 1_000_000,
    drivers: 3,
    waiting: 1_000_000,
};

/// Time that no test exceeds.
const LONG: Duration = Duration::from_secs(3_600);

thread_local! {
    /// Number of calls of `may_share_batch`.
    static COMPARISONS: Cell<usize> = const { Cell::new(0) };
}

/// An exchange that has started. Its runner panics if it is dropped.
struct Exchange {
    started_at: Instant,
    operations: Vec<Operation>,
    replies: oneshot::Sender<Vec<Operation>>,
}

impl Exchange {
    fn numbers(&self) -> Vec<u32> {
        self.operations.iter().map(|(_, number)| *number).collect()
    }

    /// Replies to all operations.
    fn finish(self) {
        let _ = self.replies.send(self.operations);
    }

    /// Replies to the first operations only.
    fn finish_first(mut self, count: usize) {
        self.operations.truncate(count);
        self.finish();
    }
}

#[derive(Clone)]
struct TestRunner {
    exchanges: UnboundedSender<Exchange>,
    runtime: Handle,
    spawned: Arc<Spawned>,
}

/// The drivers that a runner has spawned.
#[derive(Default)]
struct Spawned {
    count: AtomicUsize,
    last: Mutex<Option<AbortHandle>>,
    /// `true` if `spawn` drops further drivers, as a runtime that shuts down does.
    is_shut_down: AtomicBool,
}

impl BatchRunner for TestRunner {
    type Operation = Operation;
    type Reply = Operation;

    fn may_share_batch(first: &Operation, other: &Operation) -> bool {
        COMPARISONS.set(COMPARISONS.get() + 1);
        first.0 == other.0
    }

    fn run_batch(&self, operations: Vec<Operation>) -> BoxFuture<'_, Vec<Operation>> {
        let (replies, receiver) = oneshot::channel();
        let exchange = Exchange {
            started_at: Instant::now(),
            operations,
            replies,
        };
        assert!(self.exchanges.send(exchange).is_ok(), "the test has ended");
        Box::pin(async move {
            let replies = receiver.await;
            // Unlike a macro for panics, this prints no message.
            replies.unwrap_or_else(|error| std::panic::resume_unwind(Box::new(error)))
        })
    }

    fn spawn(&self, driver: BoxFuture<'static, ()>) {
        self.spawned.count.fetch_add(1, Ordering::Relaxed);
        if self.spawned.is_shut_down.load(Ordering::Relaxed) {
            return;
        }
        let task = self.runtime.spawn(driver);
        *self.spawned.last.lock().unwrap() = Some(task.abort_handle());
    }
}

/// A queue, its runner and the exchanges that have started.
struct TestQueue {
    queue: Arc<BatchQueue<TestRunner>>,
    runner: TestRunner,
    exchanges: tokio::sync::Mutex<UnboundedReceiver<Exchange>>,
}

impl TestQueue {
    /// Creates a queue whose drivers run in the current runtime.
    fn new(limits: Limits) -> Self {
        Self::with_runtime(limits, Handle::current())
    }

    fn with_runtime(limits: Limits, runtime: Handle) -> Self {
        let (sender, exchanges) = unbounded_channel();
        Self {
            queue: Arc::new(BatchQueue::new(limits)),
            runner: TestRunner {
                exchanges: sender,
                runtime,
                spawned: Arc::default(),
            },
            exchanges: tokio::sync::Mutex::new(exchanges),
        }
    }

    fn admit_for(&self, max_wait: Duration, operation: Operation) -> Admission<'_, TestRunner> {
        let (now, runner) = (Instant::now(), || self.runner.clone());
        self.queue.admit(now, now + max_wait, || operation, runner)
    }

    fn admit(&self, operation: Operation) -> Admission<'_, TestRunner> {
        self.admit_for(LONG, operation)
    }

    /// Submits an operation that waits for a batch, for at most this time.
    fn submit_for(&self, max_wait: Duration, operation: Operation) -> Reply {
        match self.admit_for(max_wait, operation) {
            Admission::Queued(receiver) => receiver.reply,
            Admission::Alone(_) => panic!("{operation:?} runs alone"),
            Admission::Full => panic!("too many operations wait for {operation:?}"),
        }
    }

    fn submit_to(&self, group: u32, number: u32) -> Reply {
        self.submit_for(LONG, (group, number))
    }

    fn submit(&self, number: u32) -> Reply {
        self.submit_to(0, number)
    }

    fn submit_all(&self, numbers: impl IntoIterator<Item = u32>) -> Vec<Reply> {
        numbers
            .into_iter()
            .map(|number| self.submit(number))
            .collect()
    }

    /// Waits for the next exchange, and panics if none starts within a second.
    async fn next_exchange(&self) -> Exchange {
        let mut exchanges = self.exchanges.lock().await;
        let exchange = timeout(Duration::from_secs(1), exchanges.recv());
        exchange.await.expect("an exchange starts").unwrap()
    }

    /// Returns the next exchange that starts before any time passes.
    async fn exchange_now(&self) -> Option<Exchange> {
        run_ready_tasks().await;
        self.exchanges.lock().await.try_recv().ok()
    }

    fn drivers_spawned(&self) -> usize {
        self.runner.spawned.count.load(Ordering::Relaxed)
    }

    fn abort_last_driver(&self) {
        let task = self.runner.spawned.last.lock().unwrap().take();
        task.unwrap().abort();
    }
}

/// Lets all tasks run that can run before time passes. The clock of the runtime is paused.
async fn run_ready_tasks() {
    for _ in 0..20 {
        yield_now().await;
    }
}

/// Waits for a reply. Returns `None` if the operation is lost.
async fn reply_to(reply: Reply) -> Option<u32> {
    let reply = timeout(Duration::from_secs(1), reply).await;
    let reply = reply.expect("the operation was answered or lost").ok();
    reply.map(|(_, number)| number)
}

fn is_waiting(reply: &mut Reply) -> bool {
    reply.try_recv() == Err(oneshot::error::TryRecvError::Empty)
}

#[tokio::test(start_paused = true)]
async fn some_operations_run_alone_and_the_next_waits() {
    let test = TestQueue::new(Limits { alone: 2, ..LIMITS });
    let alone = [1, 2].map(|number| test.admit((0, number)));
    for admission in &alone {
        assert!(matches!(admission, Admission::Alone(_)));
    }
    let third = test.submit(3);
    let exchange = test.next_exchange().await;
    assert_eq!(exchange.numbers(), [3]);
    exchange.finish();
    assert_eq!(reply_to(third).await, Some(3));
    drop(alone);
    assert!(matches!(test.admit((0, 4)), Admission::Alone(_)));
    assert!(test.queue.is_idle());
}

#[tokio::test(start_paused = true)]
async fn operations_of_ready_tasks_share_the_first_batch() {
    let test = Arc::new(TestQueue::new(LIMITS));
    let tasks = [1, 2, 3].map(|number| {
        let test = Arc::clone(&test);
        tokio::spawn(async move { reply_to(test.submit(number)).await })
    });
    let exchange = test.next_exchange().await;
    assert_eq!(exchange.numbers(), [1, 2, 3]);
    exchange.finish();
    for (task, number) in tasks.into_iter().zip(1..) {
        assert_eq!(task.await.unwrap(), Some(number));
    }
}

#[tokio::test(start_paused = true)]
async fn an_operation_waits_while_a_driver_runs() {
    let test = TestQueue::new(Limits { alone: 1, ..LIMITS });
    let alone = test.admit((0, 1));
    let second = test.submit(2);
    let first_exchange = test.next_exchange().await;
    drop(alone);
    // Now no operation runs alone, but the driver will take this one.
    let third = test.submit(3);
    assert!(test.exchange_now().await.is_none());
    first_exchange.finish();
    let second_exchange = test.next_exchange().await;
    assert_eq!(second_exchange.numbers(), [3]);
    second_exchange.finish();
    assert_eq!(reply_to(second).await, Some(2));
    assert_eq!(reply_to(third).await, Some(3));
    assert_eq!(test.drivers_spawned(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_operation_never_joins_an_exchange_that_has_begun() {
    let test = TestQueue::new(LIMITS);
    let first = test.submit(1);
    let exchange = test.next_exchange().await;
    let mut second = test.submit(2);
    run_ready_tasks().await;
    assert_eq!(exchange.numbers(), [1]);
    exchange.finish();
    assert_eq!(reply_to(first).await, Some(1));
    assert!(is_waiting(&mut second), "its exchange has just begun");
    test.next_exchange().await.finish();
    assert_eq!(reply_to(second).await, Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_batch_holds_the_limit_at_most() {
    let test = TestQueue::new(LIMITS);
    let replies = test.submit_all(1..=9);
    for numbers in [vec![1, 2, 3, 4], vec![5, 6, 7, 8], vec![9]] {
        let exchange = test.next_exchange().await;
        assert_eq!(exchange.numbers(), numbers);
        exchange.finish();
    }
    for (reply, number) in replies.into_iter().zip(1..) {
        assert_eq!(reply_to(reply).await, Some(number));
    }
}

#[tokio::test(start_paused = true)]
async fn a_crowd_starts_a_further_driver() {
    let test = TestQueue::new(Limits { crowd: 3, ..LIMITS });
    let first = test.submit(1);
    let first_exchange = test.next_exchange().await;
    let mut others = test.submit_all([2, 3]);
    assert!(test.exchange_now().await.is_none());
    others.push(test.submit(4));
    let second_exchange = test.exchange_now().await.expect("a further driver");
    assert_eq!(second_exchange.numbers(), [2, 3, 4]);
    second_exchange.finish();
    for (reply, number) in others.into_iter().zip(2..) {
        assert_eq!(reply_to(reply).await, Some(number));
    }
    first_exchange.finish();
    assert_eq!(reply_to(first).await, Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_slow_exchange_does_not_hold_up_a_later_operation() {
    let test = TestQueue::new(LIMITS);
    let _first = test.submit(1);
    let _slow = test.next_exchange().await;
    sleep(2 * LATE).await;
    let second = test.submit(2);
    let exchange = test.exchange_now().await.expect("a further driver");
    assert_eq!(exchange.numbers(), [2]);
    exchange.finish();
    assert_eq!(reply_to(second).await, Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_slow_exchange_does_not_hold_up_one_that_waits() {
    let test = TestQueue::new(LIMITS);
    let _first = test.submit(1);
    let _slow = test.next_exchange().await;
    let second = test.submit(2);
    assert!(test.exchange_now().await.is_none());
    sleep(2 * LATE).await;
    let exchange = test.exchange_now().await.expect("a further driver");
    assert_eq!(exchange.numbers(), [2]);
    exchange.finish();
    assert_eq!(reply_to(second).await, Some(2));
}

/// The youngest exchange has just begun, but its driver has ended. All drivers that run are busy
/// with slow exchanges.
#[tokio::test(start_paused = true)]
async fn a_driver_that_has_ended_takes_no_operation() {
    let test = TestQueue::new(LIMITS);
    let _first = test.submit(1);
    let _slow = test.next_exchange().await;
    let second = test.submit(2);
    test.next_exchange().await.finish();
    assert_eq!(reply_to(second).await, Some(2));
    let third = test.submit(3);
    let exchange = test.exchange_now().await.expect("a further driver");
    assert_eq!(exchange.numbers(), [3]);
    exchange.finish();
    assert_eq!(reply_to(third).await, Some(3));
}

#[tokio::test(start_paused = true)]
async fn two_slow_exchanges_start_one_driver() {
    let test = TestQueue::new(Limits {
        crowd: 2,
        drivers: 4,
        ..LIMITS
    });
    let _first = test.submit(1);
    let _slow = test.next_exchange().await;
    let _others = test.submit_all([2, 3]);
    let _also_slow = test.exchange_now().await.expect("a further driver");
    let _fourth = test.submit(4);
    assert_eq!(test.drivers_spawned(), 2);
    sleep(2 * LATE).await;
    assert_eq!(test.next_exchange().await.numbers(), [4]);
    assert_eq!(test.drivers_spawned(), 3);
}

#[tokio::test(start_paused = true)]
async fn no_more_drivers_than_the_limit_run() {
    let test = TestQueue::new(Limits {
        batch: 1,
        crowd: 1,
        drivers: 2,
        ..LIMITS
    });
    let _replies = test.submit_all(1..=6);
    sleep(10 * LATE).await;
    let running = [test.next_exchange().await, test.next_exchange().await];
    assert_eq!(running.each_ref().map(Exchange::numbers), [[1], [2]]);
    assert!(test.exchange_now().await.is_none());
    let [first, _second] = running;
    first.finish();
    let third = test.next_exchange().await;
    assert_eq!(third.numbers(), [3]);
    sleep(10 * LATE).await;
    assert!(test.exchange_now().await.is_none());
    assert_eq!(test.drivers_spawned(), 2);
}

#[tokio::test(start_paused = true)]
async fn operations_are_lost_soon_after_their_deadlines() {
    let test = TestQueue::new(Limits {
        batch: 2,
        drivers: 1,
        ..LIMITS
    });
    let began = Instant::now();
    // Two are under way, and two wait.
    let [brief, long, waits_briefly, waits_long] = [(1, 100), (2, 1_000), (3, 100), (4, 1_000)]
        .map(|(number, millis)| test.submit_for(Duration::from_millis(millis), (0, number)));
    let exchange = test.next_exchange().await;
    assert_eq!(exchange.numbers(), [1, 2]);
    for reply in [brief, waits_briefly] {
        assert!(reply.await.is_err());
        let waited = began.elapsed();
        assert!(waited >= Duration::from_millis(100), "{waited:?}");
        assert!(
            waited <= Duration::from_millis(100) + 2 * CHECK_INTERVAL,
            "{waited:?}"
        );
    }
    exchange.finish();
    assert_eq!(long.await, Ok((0, 2)));
    let exchange = test.next_exchange().await;
    assert_eq!(exchange.numbers(), [4]);
    exchange.finish();
    assert_eq!(waits_long.await, Ok((0, 4)));
}

/// Each exchange is fast, but there are so many that an operation waits for longer than its caller.
#[tokio::test(start_paused = true)]
async fn an_overdue_operation_is_not_sent() {
    let test = TestQueue::new(Limits {
        batch: 1,
        drivers: 1,
        ..LIMITS
    });
    let _others = test.submit_all(0..100);
    let mut overdue = test.submit_for(Duration::from_millis(5), (0, 100));
    for number in 0..100 {
        let exchange = test.next_exchange().await;
        assert_eq!(exchange.numbers(), [number]);
        tokio::time::advance(LATE / 2).await;
        exchange.finish();
        if number == 40 {
            assert!(!is_waiting(&mut overdue), "its caller still waits");
        }
    }
    assert!(test.exchange_now().await.is_none());
    // This one is overdue before any driver looks for such operations again.
    let exchange_of = |number, millis| {
        let max_wait = Duration::from_millis(millis);
        test.submit_for(max_wait, (0, number))
    };
    let _first = exchange_of(101, 1_000);
    let exchange = test.next_exchange().await;
    let overdue = exchange_of(102, 1);
    tokio::time::advance(LATE).await;
    exchange.finish();
    assert_eq!(reply_to(overdue).await, None);
    assert!(test.exchange_now().await.is_none());
}

#[test]
fn a_driver_that_never_runs_does_not_extend_deadlines() {
    let (callers, blocked) = (
        single_threaded_runtime(true),
        single_threaded_runtime(false),
    );
    let test = TestQueue::with_runtime(LIMITS, blocked.handle().clone());
    let max_wait = Duration::from_millis(5);
    callers.block_on(async {
        let receivers = [1, 2].map(|number| match test.admit_for(max_wait, (0, number)) {
            Admission::Queued(receiver) => receiver.receive(),
            Admission::Alone(_) | Admission::Full => panic!("{number} does not wait"),
        });
        let admitted_at = Instant::now();
        for receiver in receivers {
            let reply = timeout(Duration::from_secs(1), receiver).await;
            assert_eq!(reply.expect("the operation is lost"), None);
        }
        assert!(admitted_at.elapsed() < max_wait + CHECK_INTERVAL);
    });
}

#[tokio::test(start_paused = true)]
async fn after_a_large_batch_no_operation_runs_alone_for_a_while() {
    let test = TestQueue::new(Limits {
        alone: 1,
        large: 2,
        ..LIMITS
    });
    let alone = test.admit((0, 1));
    let _replies = test.submit_all(2..=3);
    drop(alone);
    test.next_exchange().await.finish();
    run_ready_tasks().await;
    let reply = test.submit_all(4..=4);
    test.next_exchange().await.finish();
    drop(reply);
    run_ready_tasks().await;
    sleep(BUSY_TIME).await;
    assert!(matches!(test.admit((0, 5)), Admission::Alone(_)));
}

#[test]
fn operations_of_another_runtime_run_alone() {
    let runtimes = [(); 2].map(|()| Builder::new_current_thread().enable_all().build().unwrap());
    let test = runtimes[0].block_on(async { TestQueue::new(LIMITS) });
    let reply = runtimes[0].block_on(async { test.submit_all(1..=1) });
    // The first runtime is not driven any more, so its driver would never answer.
    runtimes[1].block_on(async {
        assert!(matches!(test.admit((0, 2)), Admission::Alone(_)));
    });
    drop(reply);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_rejects_operations() {
    let test = TestQueue::new(Limits {
        waiting: 2,
        ..LIMITS
    });
    let _first = test.submit(1);
    let exchange = test.next_exchange().await;
    let _waiting = test.submit_all([2, 3]);
    let (now, unused) = (Instant::now(), || unreachable!("the operation is rejected"));
    let admission = test.queue.admit(now, now + LONG, unused, || unreachable!());
    assert!(matches!(admission, Admission::Full));
    exchange.finish();
    assert_eq!(test.next_exchange().await.numbers(), [2, 3]);
    test.submit(4);
}

/// The only driver waits for a slow exchange, so it takes none of the operations.
#[tokio::test(start_paused = true)]
async fn operations_of_dropped_callers_do_not_fill_the_queue() {
    let test = TestQueue::new(Limits {
        drivers: 1,
        waiting: 10,
        ..LIMITS
    });
    let _first = test.submit(0);
    let slow = test.next_exchange().await;
    drop(test.submit_all(1..=9));
    let _waiting = test.submit(10);
    assert!(matches!(test.admit((0, 11)), Admission::Full));
    sleep(2 * CHECK_INTERVAL).await;
    let _twelfth = test.submit(12);
    slow.finish();
    assert_eq!(test.next_exchange().await.numbers(), [10, 12]);
}

#[tokio::test(start_paused = true)]
async fn the_operation_of_a_dropped_caller_is_not_sent() {
    let test = TestQueue::new(LIMITS);
    let _first = test.submit(1);
    let exchange = test.next_exchange().await;
    let [dropped, _third] = [2, 3].map(|number| test.submit(number));
    drop(dropped);
    exchange.finish();
    let exchange = test.next_exchange().await;
    assert_eq!(exchange.numbers(), [3]);
    drop(test.submit(4));
    exchange.finish();
    assert!(test.exchange_now().await.is_none(), "no caller waits");
    assert!(test.queue.is_idle());
}

#[tokio::test(start_paused = true)]
async fn a_dropped_caller_does_not_hold_up_its_batch() {
    let test = TestQueue::new(LIMITS);
    let [dropped, second] = [1, 2].map(|number| test.submit(number));
    let exchange = test.next_exchange().await;
    assert_eq!(exchange.numbers(), [1, 2]);
    drop(dropped);
    exchange.finish();
    assert_eq!(reply_to(second).await, Some(2));
}

#[tokio::test(start_paused = true)]
async fn an_operation_without_a_reply_is_lost() {
    let test = TestQueue::new(LIMITS);
    let [first, second] = [1, 2].map(|number| test.submit(number));
    test.next_exchange().await.finish_first(1);
    assert_eq!(reply_to(first).await, Some(1));
    assert_eq!(reply_to(second).await, None);
    assert!(test.queue.is_idle());
}

#[tokio::test(start_paused = true)]
async fn a_panic_loses_one_batch_if_another_driver_runs() {
    let test = TestQueue::new(Limits { crowd: 2, ..LIMITS });
    let first = test.submit(1);
    let panicking = test.next_exchange().await;
    let others = test.submit_all([2, 3]);
    let running = test.next_exchange().await;
    let mut waiting = test.submit(4);
    drop(panicking);
    assert_eq!(reply_to(first).await, None);
    assert!(is_waiting(&mut waiting));
    running.finish();
    for (reply, number) in others.into_iter().zip(2..) {
        assert_eq!(reply_to(reply).await, Some(number));
    }
    test.next_exchange().await.finish();
    assert_eq!(reply_to(waiting).await, Some(4));
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_last_driver_loses_all_that_wait() {
    let test = TestQueue::new(LIMITS);
    let first = test.submit(1);
    let exchange = test.next_exchange().await;
    let waiting = test.submit(2);
    drop(exchange);
    assert_eq!(reply_to(first).await, None);
    assert_eq!(reply_to(waiting).await, None);
    assert!(test.queue.is_idle());
    let next = test.submit(3);
    test.next_exchange().await.finish();
    assert_eq!(reply_to(next).await, Some(3));
}

#[tokio::test(start_paused = true)]
async fn an_aborted_driver_loses_its_batch_and_all_that_wait() {
    let test = TestQueue::new(LIMITS);
    let first = test.submit(1);
    let _exchange = test.next_exchange().await;
    let waiting = test.submit(2);
    test.abort_last_driver();
    assert_eq!(reply_to(first).await, None);
    assert_eq!(reply_to(waiting).await, None);
    // This driver is aborted before it has taken an operation.
    let third = test.submit(3);
    test.abort_last_driver();
    assert_eq!(reply_to(third).await, None);
    let next = test.submit(4);
    test.next_exchange().await.finish();
    assert_eq!(reply_to(next).await, Some(4));
    assert!(test.queue.is_idle());
}

/// Creates a runtime of one thread.
fn single_threaded_runtime(is_paused: bool) -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_time().start_paused(is_paused);
    builder.build().unwrap()
}

#[test]
fn the_end_of_a_runtime_fails_the_receivers() {
    let (callers, drivers) = (single_threaded_runtime(false), Runtime::new().unwrap());
    let mut test = TestQueue::with_runtime(LIMITS, drivers.handle().clone());
    let running = test.submit(1);
    let exchange = callers.block_on(test.next_exchange());
    assert_eq!(exchange.numbers(), [1]);
    let waiting = test.submit(2);
    drop(drivers);
    assert_eq!(callers.block_on(reply_to(running)), None);
    assert_eq!(callers.block_on(reply_to(waiting)), None);
    // The driver of this operation is dropped while it is spawned.
    let next = test.submit(3);
    assert_eq!(callers.block_on(reply_to(next)), None);
    test.runner.runtime = callers.handle().clone();
    callers.block_on(async {
        let next = test.submit(4);
        test.next_exchange().await.finish();
        assert_eq!(reply_to(next).await, Some(4));
    });
    assert!(test.queue.is_idle());
}

#[tokio::test(start_paused = true)]
async fn a_driver_may_be_dropped_while_it_is_spawned() {
    let test = TestQueue::new(LIMITS);
    let is_shut_down = &test.runner.spawned.is_shut_down;
    is_shut_down.store(true, Ordering::Relaxed);
    assert_eq!(reply_to(test.submit(1)).await, None);
    is_shut_down.store(false, Ordering::Relaxed);
    let second = test.submit(2);
    let slow = test.next_exchange().await;
    let third = test.submit(3);
    // The driver of the slow exchange spawns the next one.
    is_shut_down.store(true, Ordering::Relaxed);
    sleep(2 * LATE).await;
    assert!(test.exchange_now().await.is_none());
    assert_eq!(test.drivers_spawned(), 3);
    slow.finish();
    assert_eq!(reply_to(second).await, Some(2));
    test.next_exchange().await.finish();
    assert_eq!(reply_to(third).await, Some(3));
    assert!(test.queue.is_idle());
}

#[tokio::test(start_paused = true)]
async fn groups_are_sent_in_batches_of_their_own_in_order() {
    let test = TestQueue::new(LIMITS);
    let operations = [(1, 1), (2, 2), (1, 3), (3, 4), (2, 5), (1, 6)];
    let replies = operations.map(|(group, number)| test.submit_to(group, number));
    for numbers in [vec![1, 3, 6], vec![2, 5], vec![4]] {
        let exchange = test.next_exchange().await;
        assert_eq!(exchange.numbers(), numbers);
        exchange.finish();
    }
    for (reply, number) in replies.into_iter().zip(1..) {
        assert_eq!(reply_to(reply).await, Some(number));
    }
}

#[tokio::test(start_paused = true)]
async fn a_busy_group_does_not_starve_another() {
    let test = TestQueue::new(Limits { batch: 2, ..LIMITS });
    let _busy = test.submit(1);
    let mut exchange = test.next_exchange().await;
    let _rare = test.submit_to(1, 1_000);
    let mut sent = 0;
    while exchange.operations[0].0 == 0 {
        sent += 1;
        let _more = test.submit_all([2, 3]);
        exchange.finish();
        exchange = test.next_exchange().await;
    }
    assert_eq!(sent, 1);
}

#[tokio::test(start_paused = true)]
async fn the_time_for_a_batch_does_not_grow_with_the_queue() {
    let test = TestQueue::new(LIMITS);
    let count = 20_000;
    let _replies: Vec<_> = (0..count)
        .map(|number| test.submit_to(number, number))
        .collect();
    for number in 0..100 {
        let exchange = test.next_exchange().await;
        assert_eq!(exchange.numbers(), [number]);
        exchange.finish();
    }
    let comparisons = COMPARISONS.get() / 100;
    assert!(comparisons < 2_000, "{comparisons} for each batch");
}

#[tokio::test(start_paused = true)]
async fn the_queue_releases_memory_after_a_peak() {
    let test = TestQueue::new(Limits {
        batch: 64,
        ..LIMITS
    });
    let replies = test.submit_all(0..10_000);
    let peak = test.queue.lock().waiting.capacity();
    for _ in 0..10_000_usize.div_ceil(64) {
        test.next_exchange().await.finish();
    }
    for (reply, number) in replies.into_iter().zip(0..) {
        assert_eq!(reply_to(reply).await, Some(number));
    }
    let capacity = test.queue.lock().waiting.capacity();
    assert!(peak >= 10_000 && capacity <= 4 * MIN_CAPACITY, "{capacity}");
}

/// A step of the property test.
#[derive(Debug, Clone)]
enum TestStep {
    /// Submits an operation of this group, whose caller waits for so many milliseconds.
    Submit(u32, u64),
    /// Drops the caller of one of the operations.
    DropCaller(prop::sample::Index),
    /// Ends one of the exchanges that run.
    Finish(prop::sample::Index),
    /// Lets one of the exchanges that run panic.
    Panic(prop::sample::Index),
    RunTasks,
    /// Makes all exchanges that run slow.
    MakeLate,
}

fn test_steps() -> impl Strategy<Value = Vec<TestStep>> {
    let index = any::<prop::sample::Index>;
    let step = prop_oneof![
        8 => (0..3_u32, prop_oneof![3 => Just(1_000_000), 1 => 0..40_u64])
            .prop_map(|(group, millis)| TestStep::Submit(group, millis)),
        2 => index().prop_map(TestStep::DropCaller),
        3 => index().prop_map(TestStep::Finish),
        1 => index().prop_map(TestStep::Panic),
        4 => Just(TestStep::RunTasks),
        1 => Just(TestStep::MakeLate),
    ];
    prop::collection::vec(step, 0..120)
}

fn test_limits() -> impl Strategy<Value = Limits> {
    (0..3_usize, 1..5_usize, 1..6_usize, 1..4_usize, 1..20_usize).prop_map(
        |(alone, batch, crowd, drivers, waiting)| Limits {
            alone,
            batch,
            crowd,
            large: batch,
            drivers,
            waiting,
        },
    )
}

/// A caller that waits for the reply to its operation.
struct Caller {
    group: u32,
    deadline: Instant,
    reply: Reply,
}

/// The operations of the property test, and what the test knows about them.
struct PropertyTest {
    test: TestQueue,
    limits: Limits,
    /// The operations whose callers wait, by their numbers.
    callers: HashMap<u32, Caller>,
    running: Vec<Exchange>,
    /// For each group, the number of the last operation that was sent.
    last_sent: HashMap<u32, u32>,
    submitted: u32,
    has_panicked: bool,
}

impl PropertyTest {
    fn new(limits: Limits) -> Self {
        Self {
            test: TestQueue::new(limits),
            limits,
            callers: HashMap::new(),
            running: Vec::new(),
            last_sent: HashMap::new(),
            submitted: 0,
            has_panicked: false,
        }
    }

    fn submit(&mut self, group: u32, millis: u64) {
        self.submitted += 1;
        let waiting = self.test.queue.lock().waiting.len();
        let max_wait = Duration::from_millis(millis);
        let deadline = Instant::now() + max_wait;
        match self.test.admit_for(max_wait, (group, self.submitted)) {
            Admission::Alone(_) => assert!(self.limits.alone > 0),
            Admission::Full => assert_eq!(waiting, self.limits.waiting),
            Admission::Queued(receiver) => {
                let caller = Caller {
                    group,
                    deadline,
                    reply: receiver.reply,
                };
                self.callers.insert(self.submitted, caller);
            }
        }
    }

    /// Takes the exchanges that have started since the last call, and checks them.
    async fn note_exchanges(&mut self) {
        while let Some(exchange) = self.test.exchange_now().await {
            let (group, _) = exchange.operations[0];
            assert!(exchange.operations.len() <= self.limits.batch);
            for (other, number) in &exchange.operations {
                assert_eq!(group, *other, "two groups share a batch");
                let caller = self.callers.get(number);
                let caller = caller.unwrap_or_else(|| panic!("no caller waits for {number}"));
                assert!(exchange.started_at < caller.deadline, "{number} is overdue");
                let last = self.last_sent.insert(group, *number);
                assert!(last.is_none_or(|last| last < *number), "{number} is late");
            }
            self.running.push(exchange);
        }
        assert!(self.running.len() <= self.limits.drivers);
    }

    /// Takes one of the exchanges that run.
    fn take_running(&mut self, index: &prop::sample::Index) -> Option<Exchange> {
        match self.running.len() {
            0 => None,
            count => Some(self.running.swap_remove(index.index(count))),
        }
    }

    /// Checks the callers whose operations have ended.
    fn note_replies(&mut self) {
        let (now, has_panicked) = (Instant::now(), self.has_panicked);
        self.callers
            .retain(|number, caller| match caller.reply.try_recv() {
                Ok(reply) => {
                    let operation = (caller.group, *number);
                    assert_eq!(reply, operation, "the reply to another operation");
                    false
                }
                Err(oneshot::error::TryRecvError::Closed) => {
                    let may_be_lost = has_panicked || caller.deadline <= now;
                    assert!(may_be_lost, "{number} is lost");
                    false
                }
                Err(oneshot::error::TryRecvError::Empty) => {
                    let latest = caller.deadline + 2 * CHECK_INTERVAL;
                    assert!(now <= latest, "{number} waits for too long");
                    true
                }
            });
    }

    async fn run(&mut self, step: TestStep) {
        match step {
            TestStep::Submit(group, millis) => self.submit(group, millis),
            TestStep::DropCaller(index) => {
                // The exchanges that have started are noted first, because they may hold it.
                self.note_exchanges().await;
                let mut numbers: Vec<_> = self.callers.keys().copied().collect();
                numbers.sort_unstable();
                if !numbers.is_empty() {
                    self.callers.remove(index.get(&numbers));
                }
            }
            TestStep::Finish(index) => {
                if let Some(exchange) = self.take_running(&index) {
                    exchange.finish();
                }
            }
            TestStep::Panic(index) => {
                let panicking = self.take_running(&index);
                self.has_panicked |= panicking.is_some();
                drop(panicking);
            }
            TestStep::RunTasks => {
                self.note_exchanges().await;
                self.note_replies();
            }
            TestStep::MakeLate => {
                // Also after a panic, a driver looks at the queue within this time.
                sleep(CHECK_INTERVAL + 2 * LATE).await;
                self.note_exchanges().await;
                self.note_replies();
                let waits = !self.test.queue.lock().waiting.is_empty();
                let may_wait = self.running.len() == self.limits.drivers;
                assert!(!waits || may_wait, "a slow exchange holds up operations");
            }
        }
    }

    /// Ends all exchanges, and checks that each operation was answered or lost.
    async fn finish(mut self) {
        loop {
            self.note_exchanges().await;
            let running = std::mem::take(&mut self.running);
            if running.is_empty() {
                break;
            }
            running.into_iter().for_each(Exchange::finish);
        }
        self.note_replies();
        assert!(self.callers.is_empty(), "{:?}", self.callers.keys());
        assert!(self.test.queue.is_idle());
    }
}

proptest! {
    #[test]
    fn each_caller_gets_its_own_reply(limits in test_limits(), steps in test_steps()) {
        single_threaded_runtime(true).block_on(async {
            let mut test = PropertyTest::new(limits);
            for step in steps {
                test.run(step).await;
            }
            test.finish().await;
        });
    }
}
