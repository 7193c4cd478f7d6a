//! Tests of callers that give up, and of drivers that end early.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::runtime::{Builder, Runtime};

use super::*;

/// Time for which a paused server sends no replies: 400 ms.
const PAUSE: Duration = Duration::from_millis(400);

fn pause(server: &RedisServer) {
    let millis = PAUSE.as_millis().to_string();
    let _: () = operate(
        &mut server.connection(),
        &["CLIENT", "PAUSE", &millis, "ALL"],
    );
}

/// Polls each future once.
async fn poll_each<F: Future>(futures: &mut [Pin<Box<F>>]) {
    poll_fn(|context| {
        for future in &mut *futures {
            assert!(future.as_mut().poll(context).is_pending());
        }
        Poll::Ready(())
    })
    .await;
}

/// Returns every second element, and the other ones.
fn halves<T>(all: Vec<T>) -> (Vec<T>, Vec<T>) {
    let (mut even, mut odd) = (Vec::new(), Vec::new());
    for (at, element) in all.into_iter().enumerate() {
        if at % 2 == 0 {
            even.push(element);
        } else {
            odd.push(element);
        }
    }
    (even, odd)
}

#[tokio::test]
async fn reads_of_callers_that_give_up_are_not_sent() {
    let server = RedisServer::start();
    let (store, users) = (connect_redis(&server, Layout::Keys).await, users());
    store_first(&store, &users).await;
    let before = server.calls("get");
    let mut reads: Vec<_> = users
        .iter()
        .map(|user| Box::pin(store.load(user)))
        .collect();
    poll_each(&mut reads).await;
    // The first eight reads are sent alone, and the others wait for the driver. Neither of them are
    // sent before this task waits.
    let (reads, dropped) = halves(reads);
    drop(dropped);
    let (remaining, _) = halves(users.clone());
    assert_all_read(&remaining, join_all(reads).await, "t1");
    assert_eq!(server.calls("get") - before, MANY as u64 / 2);
}

#[tokio::test]
async fn a_caller_that_gives_up_takes_no_replies_of_others() {
    let server = RedisServer::start();
    for layout in BOTH {
        let (store, users) = (connect_redis(&server, layout).await, users());
        store_first(&store, &users).await;
        pause(&server);
        let mut reads: Vec<_> = users
            .iter()
            .map(|user| Box::pin(store.load(user)))
            .collect();
        poll_each(&mut reads).await;
        // The batch is sent now, and its reply is late.
        tokio::time::sleep(PAUSE / 4).await;
        let (dropped, reads) = halves(reads);
        drop(dropped);
        let (_, remaining) = halves(users.clone());
        assert_all_read(&remaining, join_all(reads).await, "t1");
        assert_all_read(&users, load_all(&store, &users).await, "t1");
    }
}

/// The steps of dropped callers take effect if they were sent. Nobody else is affected.
#[tokio::test]
async fn a_step_takes_effect_without_its_caller() {
    let server = RedisServer::start();
    for layout in BOTH {
        let (store, users) = (connect_redis(&server, layout).await, users());
        let expected = store_first(&store, &users).await;
        let owners = owners(&users);
        for result in acquire_all(&store, &users, &expected, &owners).await {
            assert!(matches!(result.unwrap(), LeaseResult::Acquired));
        }
        pause(&server);
        let commits = users.iter().zip(&expected).zip(&owners);
        let commits = commits.map(|((user, expected), owner)| {
            let record = record_of(user, "t2");
            let store = &store;
            Box::pin(async move { store.commit(user, expected, &record, owner).await })
        });
        let mut commits: Vec<_> = commits.collect();
        poll_each(&mut commits).await;
        tokio::time::sleep(PAUSE / 4).await;
        let (dropped, commits) = halves(commits);
        drop(dropped);
        for result in join_all(commits).await {
            assert!(matches!(result.unwrap(), CommitResult::Committed));
        }
        // The first commit was sent alone, and was dropped before the server has read it or after.
        let rest = &users[1..];
        assert_all_read(rest, load_all(&store, rest).await, "t2");
    }
}

/// A runtime on another thread, with the driver of a queue of this test's store.
struct DriverElsewhere(Runtime);

impl DriverElsewhere {
    /// Polls operations once on the other runtime. They start a driver there, which runs in
    /// [`run_and_end`](Self::run_and_end).
    fn start<F: Future + Send>(operations: &mut [Pin<Box<F>>]) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.unwrap();
        on_another_thread(|| runtime.block_on(poll_each(operations)));
        Self(runtime)
    }

    /// Lets the driver send its batch. The runtime ends before the reply.
    fn run_and_end(self) {
        on_another_thread(|| {
            let running = async { tokio::time::sleep(Duration::from_millis(20)).await };
            self.0.block_on(running);
            drop(self.0);
        });
    }
}

fn on_another_thread(work: impl FnOnce() + Send) {
    std::thread::scope(|scope| scope.spawn(work).join().unwrap());
}

/// Tests of an application may use a store on several runtimes. No operation waits for a driver on
/// another runtime, which may not run.
#[tokio::test]
async fn operations_do_not_depend_on_another_runtime() {
    let server = RedisServer::start();
    for layout in BOTH {
        let (store, users) = (connect_redis(&server, layout).await, users());
        let expected = store_first(&store, &users).await;
        let mut reads: Vec<_> = users
            .iter()
            .map(|user| Box::pin(store.load(user)))
            .collect();
        let driver = DriverElsewhere::start(&mut reads);
        assert_all_read(&users, load_all(&store, &users).await, "t1");
        renew_all(&store, &users, &expected, "t2").await;
        drop(reads);
        driver.run_and_end();
        let batches = server.calls("mget");
        let read = load_all(&store, &users).await.into_iter();
        let expected: Vec<_> = read.map(|read| read.unwrap().expected).collect();
        renew_all(&store, &users, &expected, "t3").await;
        assert!(
            server.calls("mget") > batches,
            "batches work on this runtime"
        );
        assert_all_read(&users, load_all(&store, &users).await, "t3");
    }
}

/// The reads of a batch are sent alone if its driver ends with its runtime.
#[tokio::test]
async fn reads_survive_the_runtime_of_their_driver() {
    let server = RedisServer::start();
    for layout in BOTH {
        let (store, users) = (connect_redis(&server, layout).await, users());
        store_first(&store, &users).await;
        for _ in 0..3 {
            let mut reads: Vec<_> = users
                .iter()
                .map(|user| Box::pin(store.load(user)))
                .collect();
            let driver = DriverElsewhere::start(&mut reads);
            driver.run_and_end();
            // The timers of the reads that are sent alone have ended with the runtime.
            let reads = reads.split_off(8);
            assert_all_read(&users[8..], join_all(reads).await, "t1");
        }
        let batches = server.calls("hmget");
        assert_all_read(&users, load_all(&store, &users).await, "t1");
        let uses_batches = server.calls("hmget") > batches;
        assert_eq!(uses_batches, layout == Layout::Hashes);
    }
}

/// The batch takes effect, and its replies are lost with the driver. Each commit is sent again, and
/// finds its own record.
#[tokio::test]
async fn commits_survive_the_runtime_of_their_driver() {
    let server = Arc::new(RedisServer::start());
    // The connection sends its commands on another thread, also while the test's thread waits.
    let connecting = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    for layout in BOTH {
        let (for_store, users) = (Arc::clone(&server), users());
        let store = connecting.spawn(async move { connect_redis(&for_store, layout).await });
        let store = store.await.unwrap();
        let expected = store_first(&store, &users).await;
        let owners = owners(&users);
        for result in acquire_all(&store, &users, &expected, &owners).await {
            assert!(matches!(result.unwrap(), LeaseResult::Acquired));
        }
        let commit = |at: usize| {
            let (store, user, expected, owner) = (&store, &users[at], &expected[at], &owners[at]);
            let record = record_of(user, "t2");
            Box::pin(async move { store.commit(user, expected, &record, owner).await })
        };
        // The server knows the script of a batch from now on.
        for result in join_all((20..MANY).map(commit)).await {
            assert!(matches!(result.unwrap(), CommitResult::Committed));
        }
        pause(&server);
        // No large batch is recent, so the first commit is sent alone.
        tokio::time::sleep(PAUSE / 8).await;
        let mut commits: Vec<_> = (0..16).map(commit).collect();
        let driver = DriverElsewhere::start(&mut commits);
        driver.run_and_end();
        let results = join_all(commits.split_off(1)).await;
        for (user, result) in users[1..16].iter().zip(results) {
            let CommitResult::Conflict(now) = result.unwrap() else {
                panic!("the batch has not committed {:?}", user.key);
            };
            let token = now.record.token.unwrap().secret;
            assert_eq!(token.expose(), token_of(user, "t2"));
        }
        let users = &users[1..16];
        assert_all_read(users, load_all(&store, users).await, "t2");
    }
    connecting.shutdown_background();
}
