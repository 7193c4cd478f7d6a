//! Tests of handlers that block a worker thread of the runtime. The other threads answer the
//! operations of other handlers meanwhile.

use std::sync::{Arc, Barrier};
use std::thread::sleep;
use std::time::Instant;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use super::*;

/// Time for which a handler blocks its thread: 400 ms.
const BLOCK: Duration = Duration::from_millis(400);

/// Minimum time of an operation that has waited for a blocked thread.
const SLOW: Duration = Duration::from_millis(200);

fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

/// Runs `operations` in a task, whose thread runs a task that blocks as soon as they wait. Returns
/// the time until the operations have ended.
///
/// The other thread is busy for 20 ms, so that it takes none of these tasks. It is then free for
/// the replies.
async fn time_beside_a_blocked_thread(
    operations: impl Future<Output = ()> + Send + 'static,
) -> Duration {
    let both_run = Arc::new(Barrier::new(2));
    let other = Arc::clone(&both_run);
    let busy = tokio::spawn(async move {
        other.wait();
        sleep(Duration::from_millis(20));
    });
    let timed = tokio::spawn(async move {
        both_run.wait();
        let blocking = tokio::spawn(async { sleep(BLOCK) });
        let started_at = Instant::now();
        operations.await;
        let took = started_at.elapsed();
        blocking.await.unwrap();
        took
    });
    busy.await.unwrap();
    timed.await.unwrap()
}

#[test]
fn a_blocked_thread_holds_up_no_operations() {
    let (server, runtime) = (RedisServer::start(), runtime());
    for layout in BOTH {
        let store = runtime.block_on(connect_redis(&server, layout));
        // So few operations start one driver.
        let users = users()[..12].to_vec();
        let expected = runtime.block_on(store_first(&store, &users));
        for _ in 0..2 {
            let (reader, readers) = (store.clone(), users.clone());
            let reads = async move {
                let read = load_all(&reader, &readers).await;
                assert_all_read(&readers, read, "t1");
            };
            let took = runtime.block_on(time_beside_a_blocked_thread(reads));
            assert!(took < SLOW, "{layout:?}: reads took {took:?}");
        }
        let (owners, writer) = (owners(&users), store.clone());
        let leases = async move {
            for result in acquire_all(&writer, &users, &expected, &owners).await {
                assert!(matches!(result.unwrap(), LeaseResult::Acquired));
            }
        };
        let took = runtime.block_on(time_beside_a_blocked_thread(leases));
        assert!(took < SLOW, "{layout:?}: leases took {took:?}");
    }
}

/// While 64 handlers read without a pause, another one reads and blocks its thread, again and
/// again. A reply may reach a handler that waits for the blocked thread, but few of them do.
#[test]
fn a_blocked_thread_holds_up_few_reads_in_traffic() {
    let (server, runtime) = (RedisServer::start(), runtime());
    let store = runtime.block_on(connect_redis(&server, Layout::Hashes));
    let users = Arc::new(users());
    runtime.block_on(store_first(&store, &users));
    let until = Instant::now() + Duration::from_secs(2);
    let (reads, slow) = runtime.block_on(async move {
        let mut running = JoinSet::new();
        for handler in 0..64 {
            let (store, users) = (store.clone(), Arc::clone(&users));
            running.spawn(async move {
                let (mut reads, mut slow) = (0, 0);
                while Instant::now() < until {
                    let started_at = Instant::now();
                    store.load(&users[handler % MANY]).await.unwrap();
                    reads += 1;
                    slow += usize::from(started_at.elapsed() > SLOW);
                }
                (reads, slow)
            });
        }
        running.spawn(async move {
            while Instant::now() < until {
                store.load(&users[0]).await.unwrap();
                sleep(BLOCK);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            (0, 0)
        });
        let all = running.join_all().await.into_iter();
        all.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    });
    // Each block lasts as long as hundreds of reads.
    assert!(slow * 100 <= reads, "{slow} of {reads} reads were slow");
}
