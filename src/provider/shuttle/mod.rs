//! The engine under schedules of a checker.
//!
//! What follows runs the real engine: its cache, its flights, its reads and renewals, in two
//! processes that share a store. Who goes on at each lock, at each atomic and at each exchange
//! with the store or WeChat is chosen by [shuttle], at random and by PCT, which finds in few
//! schedules what needs few preemptions; and one by one for the smallest case. `SHUTTLE_RANDOM_SEED`
//! repeats a run; a schedule that fails is printed.
//!
//! What is between two such points is one step: `quick_cache`, tokio's channels and semaphores, and
//! the store in memory have their own locks, which are not the engine's to get wrong. Time passes
//! slowly: no lease and no wait runs out, that is the model's (`tests/model`). That the
//! checker sees something is shown by `.ci/mutants`, which breaks the engine on purpose.

mod cache;
mod harness;
pub(super) mod switch_points;

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, Runner};
use tokio::runtime::Runtime;

use self::harness::{Harness, ID, TokenAge};
use self::switch_points::abort_calls_after;
use super::RenewalFailure;
use crate::error::{Error, ErrorKind};

/// Schedules of each test, for each way to choose them. `SCHEDULES` in the environment sets
/// another number.
const DEFAULT_SCHEDULES: usize = 400;

/// How many preemptions PCT places.
const PREEMPTIONS: usize = 3;

thread_local! {
    /// A time that passes only when the checker says so.
    /// It outlives its thread, since a schedule that fails may leave timers in it.
    static TIME: &'static Runtime = Box::leak(Box::new(
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap(),
    ));
}

/// Lets a little time pass, for those who rest.
fn advance_time() {
    TIME.with(|time| time.block_on(tokio::time::sleep(Duration::from_millis(1))));
}

fn run_schedules(name: &str, scheduler: impl Scheduler + 'static, schedule: fn()) {
    let started = Instant::now();
    let mut config = Config::new();
    // The engine's futures are larger than the library expects.
    config.stack_size = 0x8_0000;
    let schedules = TIME.with(|time| {
        let _deadlines_are_taken = time.enter();
        Runner::new(scheduler, config).run(schedule)
    });
    println!("{name}: {schedules} schedules, {:.1?}", started.elapsed());
}

fn explore(name: &str, schedule: fn()) {
    let schedules = std::env::var("SCHEDULES").ok();
    let schedules = schedules.map_or(DEFAULT_SCHEDULES, |number| number.parse().unwrap());
    run_schedules(name, RandomScheduler::new(schedules), schedule);
    run_schedules(name, PctScheduler::new(PREEMPTIONS, schedules), schedule);
}

type Task = shuttle::future::JoinHandle<()>;

fn spawn<F: Future<Output = ()> + Send + 'static>(
    world: &Arc<Harness>,
    task: impl FnOnce(Arc<Harness>) -> F,
) -> Task {
    shuttle::future::spawn(task(Arc::clone(world)))
}

/// Waits for all of them. Meanwhile time passes, but little: no deadline comes before those who
/// can go on have gone on.
async fn join_all<const N: usize>(tasks: [Task; N]) {
    while tasks.iter().any(|task| !task.is_finished()) {
        advance_time();
        shuttle::future::yield_now().await;
    }
}

/// A number that the schedule chooses.
fn random_number(among: Range<u32>) -> u32 {
    shuttle::rand::Rng::gen_range(&mut shuttle::rand::thread_rng(), among)
}

/// What the tasks of one schedule do, from a pair of this age.
fn with_harness<F: Future<Output = ()>>(
    age: TokenAge,
    allows_failures: bool,
    body: impl FnOnce(Arc<Harness>) -> F,
) {
    abort_calls_after(None);
    shuttle::future::block_on(async {
        let world = Harness::new(age, allows_failures).await;
        body(world).await;
    });
}

#[test]
fn concurrent_requests_renew_once() {
    explore("a crowd", || {
        with_harness(TokenAge::Expired, false, async |world| {
            let crowd =
                [0, 0, 0, 1].map(|at| spawn(&world, async move |world| world.get(at).await));
            join_all(crowd).await;
            world.assert_quiescent(false).await;
            assert_eq!(world.renewals(0), 1, "R1");
        });
    });
}

#[test]
fn a_remote_login_races_reads_and_a_renewal() {
    for age in [
        || remote_login_race(TokenAge::Fresh),
        || remote_login_race(TokenAge::Stale),
        || remote_login_race(TokenAge::Expired),
    ] {
        explore("a login elsewhere", age);
    }
}

fn remote_login_race(age: TokenAge) {
    with_harness(age, false, async |world| {
        world.listen(0);
        world.listen(1);
        let tasks = [
            spawn(&world, async |world| world.get(0).await),
            spawn(&world, async |world| {
                world.get(0).await;
                world.get(0).await;
            }),
            spawn(&world, async |world| world.log_in(1).await),
            spawn(&world, async |world| world.get_after_login(0).await),
        ];
        join_all(tasks).await;
        world.assert_quiescent(true).await;
        world.get(0).await;
        world.get(1).await;
    });
}

#[test]
fn a_local_login_detaches_running_calls() {
    explore("a login here", || {
        with_harness(TokenAge::Expired, false, async |world| {
            let tasks = [
                spawn(&world, async |world| world.get(0).await),
                spawn(&world, async |world| world.get(0).await),
                spawn(&world, async |world| {
                    world.log_in(0).await;
                    world.get(0).await;
                }),
                spawn(&world, async |world| world.report(0).await),
            ];
            join_all(tasks).await;
            world.assert_quiescent(false).await;
            world.get(0).await;
        });
    });
}

/// A flight that was left behind ends while its successor is under way.
#[test]
fn a_finished_call_removes_only_itself() {
    explore("a successor", || {
        with_harness(TokenAge::Expired, true, async |world| {
            world.block_store(true);
            abort_calls_after(Some(random_number(0..6)));
            world.join_call();
            world.detach_calls();
            abort_calls_after(None);
            let successor = world.join_call();
            let joins = [0, 1].map(|_| {
                spawn(&world, async move |world| {
                    for _ in 0..4 {
                        assert_eq!(world.join_call(), successor, "R1: two flights at once");
                        shuttle::future::yield_now().await;
                    }
                })
            });
            join_all(joins).await;
            world.block_store(false);
            world.assert_quiescent(false).await;
        });
    });
}

#[test]
fn the_cache_accepts_nothing_older() {
    explore("no news", || {
        with_harness(TokenAge::Fresh, false, async |world| {
            let tasks = [
                spawn(&world, async |world| {
                    world.get_without_invalidations(0).await;
                }),
                spawn(&world, async |world| {
                    world.get_without_invalidations(0).await;
                    world.get_without_invalidations(0).await;
                }),
                spawn(&world, async |world| world.log_in(1).await),
                spawn(&world, async |world| {
                    world.get_without_invalidations(0).await;
                    world.get_without_invalidations(0).await;
                }),
            ];
            join_all(tasks).await;
            world.assert_quiescent(false).await;
        });
    });
}

#[test]
fn reports_of_one_token_renew_once() {
    explore("reports", || {
        with_harness(TokenAge::Fresh, false, async |world| {
            let tasks = [0, 0, 1].map(|at| {
                spawn(&world, async move |world| {
                    world.get(at).await;
                    world.report(at).await;
                })
            });
            join_all(tasks).await;
            world.assert_quiescent(false).await;
            assert_eq!(world.renewals(0), 1, "R6");
        });
    });
}

#[test]
fn failed_reports_fail_no_other_caller() {
    for refusal in [
        || {
            failing_reports(|| {
                let error = Error::new(ErrorKind::LoginRequired, "the refresh token is dead");
                RenewalFailure::InvalidGrant(error)
            });
        },
        || {
            failing_reports(|| {
                let error = Error::new(ErrorKind::WechatConfig, "the quota is spent");
                RenewalFailure::Operator(error)
            });
        },
    ] {
        explore("reports that fail", refusal);
    }
}

fn failing_reports(refusal: fn() -> RenewalFailure) {
    with_harness(TokenAge::Fresh, false, async |world| {
        world.fail_renewals_with(refusal);
        let tasks = [
            spawn(&world, async |world| {
                for _ in 0..4 {
                    world.report_without_success(0).await;
                }
            }),
            spawn(&world, async |world| {
                world.get(0).await;
                world.get(0).await;
                world.get(0).await;
            }),
            spawn(&world, async |world| {
                world.get(0).await;
                world.get(1).await;
            }),
            spawn(&world, async |world| world.report_without_success(1).await),
        ];
        join_all(tasks).await;
        world.assert_quiescent(false).await;
        for provider in &world.providers {
            let served = provider.get(ID).await;
            assert!(served.is_ok(), "R6: a report took the pair from the others");
        }
    });
}

#[test]
fn a_revoked_pair_stays_revoked() {
    explore("forgotten", || {
        with_harness(TokenAge::Stale, false, async |world| {
            world.listen(0);
            world.listen(1);
            let tasks = [
                spawn(&world, async |world| world.get(0).await),
                spawn(&world, async |world| {
                    world.get(1).await;
                    world.get(1).await;
                }),
                spawn(&world, async |world| {
                    world.revoke(1).await;
                    world.get(1).await;
                }),
                spawn(&world, async |world| {
                    world.get(0).await;
                    world.get(0).await;
                }),
            ];
            join_all(tasks).await;
            world.assert_quiescent(true).await;
            world.get(0).await;
        });
    });
}

/// A flight that begins with what was read before is not joined by who comes after.
#[test]
fn a_logout_races_the_first_read_of_a_call() {
    explore("a logout", || {
        with_harness(TokenAge::Stale, false, async |world| {
            let tasks = [
                spawn(&world, async |world| world.get(0).await),
                spawn(&world, async |world| {
                    world.revoke(0).await;
                    world.get(0).await;
                }),
            ];
            join_all(tasks).await;
            world.assert_quiescent(false).await;
            world.get(0).await;
        });
    });
}

#[test]
fn a_missed_invalidation_invalidates_earlier_reads() {
    explore("missed news", || {
        with_harness(TokenAge::Fresh, false, async |world| {
            let tasks = [
                spawn(&world, async |world| {
                    world.get_without_invalidations(0).await;
                    world.get_without_invalidations(0).await;
                }),
                spawn(&world, async |world| {
                    world.get_without_invalidations(0).await;
                }),
                spawn(&world, async |world| world.log_in(1).await),
                spawn(&world, async |world| {
                    world.lose_invalidations(0);
                    world.get_without_invalidations(0).await;
                }),
            ];
            join_all(tasks).await;
            world.assert_quiescent(false).await;
        });
    });
}

#[test]
fn aborted_calls_and_callers_leave_nothing_behind() {
    explore("ends", || {
        with_harness(TokenAge::Expired, true, async |world| {
            abort_calls_after(Some(random_number(0..12)));
            let hangs_up = spawn(&world, async |world| world.get(0).await);
            let stay = [0, 0].map(|at| spawn(&world, async move |world| world.get(at).await));
            hangs_up.abort();
            join_all(stay).await;
            abort_calls_after(None);
            // A flight that died while it asked leaves a task that gives its lease back.
            join_all([spawn(&world, async |world| world.get(0).await)]).await;
            world.assert_quiescent(false).await;
        });
    });
}

#[test]
fn lost_replies_lose_no_renewed_pair() {
    explore("lost replies", || {
        with_harness(TokenAge::Stale, true, async |world| {
            world.listen(0);
            world.listen(1);
            world.lose_replies(3);
            let tasks = [
                spawn(&world, async |world| world.get(0).await),
                spawn(&world, async |world| world.get(0).await),
                spawn(&world, async |world| world.get(1).await),
            ];
            join_all(tasks).await;
            world.assert_quiescent(true).await;
            world.get(0).await;
            world.get(1).await;
        });
    });
}

/// Two processes renew at once, since the store has lost a lease. One is granted a pair, which kills
/// the refresh token that the other one asks with.
#[test]
fn a_lost_lease_loses_no_pair_and_forces_no_login() {
    explore("a lost lease", || {
        with_harness(TokenAge::Expired, true, async |world| {
            let tasks = [
                spawn(&world, async |world| world.get(0).await),
                spawn(&world, async |world| world.get(1).await),
                spawn(&world, async |world| world.lose_lease().await),
            ];
            join_all(tasks).await;
            world.assert_quiescent(false).await;
            let (written, granted) = world.history();
            assert_eq!(written.last(), Some(&Some(granted)), "R3: {written:?}");
            assert!(!written.contains(&None), "{written:?}");
        });
    });
}

#[test]
fn a_logout_beside_a_lost_lease_is_final() {
    explore("a logout beside a lost lease", || {
        with_harness(TokenAge::Expired, true, async |world| {
            let tasks = [
                spawn(&world, async |world| world.get(0).await),
                spawn(&world, async |world| world.get(1).await),
                spawn(&world, async |world| {
                    world.lose_lease().await;
                    world.revoke(1).await;
                }),
            ];
            join_all(tasks).await;
            world.assert_quiescent(false).await;
            let (written, _) = world.history();
            assert_eq!(written.last(), Some(&None), "R2: {written:?}");
        });
    });
}

#[test]
fn lost_replies_do_not_undo_an_invalidation() {
    explore("news and lost replies", || {
        with_harness(TokenAge::Expired, true, async |world| {
            world.listen(0);
            world.lose_replies(6);
            let tasks = [
                spawn(&world, async |world| {
                    world.get(0).await;
                    world.get(0).await;
                }),
                spawn(&world, async |world| world.log_in(1).await),
                spawn(&world, async |world| {
                    world.get(0).await;
                    world.get(0).await;
                }),
            ];
            join_all(tasks).await;
            world.assert_quiescent(false).await;
        });
    });
}

/// Nobody else renews meanwhile, so that a lease which is left stands for its whole time.
#[test]
fn a_lease_request_without_reply_is_released() {
    explore("a lost claim", || {
        with_harness(TokenAge::Expired, true, async |world| {
            world.lose_replies(1);
            join_all([spawn(&world, async |world| world.get(0).await)]).await;
            world.assert_quiescent(false).await;
        });
    });
}

#[test]
fn a_detached_call_keeps_its_lease() {
    explore("a lease of a flight that was left behind", || {
        with_harness(TokenAge::Expired, false, async |world| {
            let tasks = [
                spawn(&world, async |world| world.get(0).await),
                spawn(&world, async |world| {
                    world.detach_calls();
                    world.get(0).await;
                }),
            ];
            join_all(tasks).await;
            world.assert_quiescent(false).await;
            assert_eq!(world.renewals(0), 1, "R1");
        });
    });
}
