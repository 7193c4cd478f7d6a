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
pub(super) mod switching;
mod world;

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, Runner};
use tokio::runtime::Runtime;

use self::switching::flights_end_after;
use self::world::{Age, ID, World};
use super::Failure;
use crate::error::{Error, ErrorKind};

/// Schedules of each test, for each way to choose them. `SCHEDULES` in the environment sets
/// another number.
const SCHEDULES: usize = 400;

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
fn time_passes() {
    TIME.with(|time| time.block_on(tokio::time::sleep(Duration::from_millis(1))));
}

fn run(name: &str, scheduler: impl Scheduler + 'static, schedule: fn()) {
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

fn check(name: &str, schedule: fn()) {
    let schedules = std::env::var("SCHEDULES").ok();
    let schedules = schedules.map_or(SCHEDULES, |number| number.parse().unwrap());
    run(name, RandomScheduler::new(schedules), schedule);
    run(name, PctScheduler::new(PREEMPTIONS, schedules), schedule);
}

type Task = shuttle::future::JoinHandle<()>;

fn start<F: Future<Output = ()> + Send + 'static>(
    world: &Arc<World>,
    task: impl FnOnce(Arc<World>) -> F,
) -> Task {
    shuttle::future::spawn(task(Arc::clone(world)))
}

/// Waits for all of them. Meanwhile time passes, but little: no deadline comes before those who
/// can go on have gone on.
async fn all<const N: usize>(tasks: [Task; N]) {
    while tasks.iter().any(|task| !task.is_finished()) {
        time_passes();
        shuttle::future::yield_now().await;
    }
}

/// A number that the schedule chooses.
fn draw(among: Range<u32>) -> u32 {
    shuttle::rand::Rng::gen_range(&mut shuttle::rand::thread_rng(), among)
}

/// What the tasks of one schedule do, from a pair of this age.
fn world<F: Future<Output = ()>>(age: Age, lenient: bool, play: impl FnOnce(Arc<World>) -> F) {
    flights_end_after(None);
    shuttle::future::block_on(async {
        let world = World::new(age, lenient).await;
        play(world).await;
    });
}

#[test]
fn a_crowd_asks_once() {
    check("a crowd", || {
        world(Age::Expired, false, async |world| {
            let crowd =
                [0, 0, 0, 1].map(|at| start(&world, async move |world| world.get(at).await));
            all(crowd).await;
            world.comes_to_rest(false).await;
            assert_eq!(world.renewals(0), 1, "R1");
        });
    });
}

#[test]
fn a_login_elsewhere_crosses_reads_and_a_renewal() {
    for age in [
        || a_login_crosses(Age::Fresh),
        || a_login_crosses(Age::Stale),
        || a_login_crosses(Age::Expired),
    ] {
        check("a login elsewhere", age);
    }
}

fn a_login_crosses(age: Age) {
    world(age, false, async |world| {
        world.listen(0);
        world.listen(1);
        let tasks = [
            start(&world, async |world| world.get(0).await),
            start(&world, async |world| {
                world.get(0).await;
                world.get(0).await;
            }),
            start(&world, async |world| world.log_in(1).await),
            start(&world, async |world| world.get_after_login(0).await),
        ];
        all(tasks).await;
        world.comes_to_rest(true).await;
        world.get(0).await;
        world.get(1).await;
    });
}

#[test]
fn a_login_here_leaves_flights_behind() {
    check("a login here", || {
        world(Age::Expired, false, async |world| {
            let tasks = [
                start(&world, async |world| world.get(0).await),
                start(&world, async |world| world.get(0).await),
                start(&world, async |world| {
                    world.log_in(0).await;
                    world.get(0).await;
                }),
                start(&world, async |world| world.report(0).await),
            ];
            all(tasks).await;
            world.comes_to_rest(false).await;
            world.get(0).await;
        });
    });
}

/// A flight that was left behind ends while its successor is under way.
#[test]
fn who_ends_takes_only_itself_off_the_list() {
    check("a successor", || {
        world(Age::Expired, true, async |world| {
            world.close(true);
            flights_end_after(Some(draw(0..6)));
            world.join();
            world.leave_behind();
            flights_end_after(None);
            let successor = world.join();
            let joins = [0, 1].map(|_| {
                start(&world, async move |world| {
                    for _ in 0..4 {
                        assert_eq!(world.join(), successor, "R1: two flights at once");
                        shuttle::future::yield_now().await;
                    }
                })
            });
            all(joins).await;
            world.close(false);
            world.comes_to_rest(false).await;
        });
    });
}

#[test]
fn the_cache_lets_nothing_older_in() {
    check("no news", || {
        world(Age::Fresh, false, async |world| {
            let tasks = [
                start(&world, async |world| world.get_unheard(0).await),
                start(&world, async |world| {
                    world.get_unheard(0).await;
                    world.get_unheard(0).await;
                }),
                start(&world, async |world| world.log_in(1).await),
                start(&world, async |world| {
                    world.get_unheard(0).await;
                    world.get_unheard(0).await;
                }),
            ];
            all(tasks).await;
            world.comes_to_rest(false).await;
        });
    });
}

#[test]
fn reports_of_one_token_renew_once() {
    check("reports", || {
        world(Age::Fresh, false, async |world| {
            let tasks = [0, 0, 1].map(|at| {
                start(&world, async move |world| {
                    world.get(at).await;
                    world.report(at).await;
                })
            });
            all(tasks).await;
            world.comes_to_rest(false).await;
            assert_eq!(world.renewals(0), 1, "R6");
        });
    });
}

#[test]
fn reports_that_fail_make_no_other_caller_fail() {
    for refusal in [
        || {
            reports_fail(|| {
                let error = Error::new(ErrorKind::LoginRequired, "the refresh token is dead");
                Failure::Dead(error)
            });
        },
        || {
            reports_fail(|| {
                let error = Error::new(ErrorKind::WechatConfig, "the quota is spent");
                Failure::Operator(error)
            });
        },
    ] {
        check("reports that fail", refusal);
    }
}

fn reports_fail(refusal: fn() -> Failure) {
    world(Age::Fresh, false, async |world| {
        world.refuse(refusal);
        let tasks = [
            start(&world, async |world| {
                for _ in 0..4 {
                    world.report_without_success(0).await;
                }
            }),
            start(&world, async |world| {
                world.get(0).await;
                world.get(0).await;
                world.get(0).await;
            }),
            start(&world, async |world| {
                world.get(0).await;
                world.get(1).await;
            }),
            start(&world, async |world| world.report_without_success(1).await),
        ];
        all(tasks).await;
        world.comes_to_rest(false).await;
        for keeper in &world.keepers {
            let served = keeper.get(ID).await;
            assert!(served.is_ok(), "R6: a report took the pair from the others");
        }
    });
}

#[test]
fn what_is_forgotten_stays_so() {
    check("forgotten", || {
        world(Age::Stale, false, async |world| {
            world.listen(0);
            world.listen(1);
            let tasks = [
                start(&world, async |world| world.get(0).await),
                start(&world, async |world| {
                    world.get(1).await;
                    world.get(1).await;
                }),
                start(&world, async |world| {
                    world.forget(1).await;
                    world.get(1).await;
                }),
                start(&world, async |world| {
                    world.get(0).await;
                    world.get(0).await;
                }),
            ];
            all(tasks).await;
            world.comes_to_rest(true).await;
            world.get(0).await;
        });
    });
}

/// A flight that begins with what was read before is not joined by who comes after.
#[test]
fn a_logout_crosses_the_first_read_of_a_flight() {
    check("a logout", || {
        world(Age::Stale, false, async |world| {
            let tasks = [
                start(&world, async |world| world.get(0).await),
                start(&world, async |world| {
                    world.forget(0).await;
                    world.get(0).await;
                }),
            ];
            all(tasks).await;
            world.comes_to_rest(false).await;
            world.get(0).await;
        });
    });
}

#[test]
fn what_was_read_before_news_was_missed_is_believed_no_longer() {
    check("missed news", || {
        world(Age::Fresh, false, async |world| {
            let tasks = [
                start(&world, async |world| {
                    world.get_unheard(0).await;
                    world.get_unheard(0).await;
                }),
                start(&world, async |world| world.get_unheard(0).await),
                start(&world, async |world| world.log_in(1).await),
                start(&world, async |world| {
                    world.lose_news(0);
                    world.get_unheard(0).await;
                }),
            ];
            all(tasks).await;
            world.comes_to_rest(false).await;
        });
    });
}

#[test]
fn flights_that_end_in_the_middle_and_callers_who_hang_up_leave_nothing_behind() {
    check("ends", || {
        world(Age::Expired, true, async |world| {
            flights_end_after(Some(draw(0..12)));
            let hangs_up = start(&world, async |world| world.get(0).await);
            let stay = [0, 0].map(|at| start(&world, async move |world| world.get(at).await));
            hangs_up.abort();
            all(stay).await;
            flights_end_after(None);
            // A flight that died while it asked leaves a task that gives its lease back.
            all([start(&world, async |world| world.get(0).await)]).await;
            world.comes_to_rest(false).await;
        });
    });
}

#[test]
fn lost_replies_lose_no_grant() {
    check("lost replies", || {
        world(Age::Stale, true, async |world| {
            world.listen(0);
            world.listen(1);
            world.may_lose(3);
            let tasks = [
                start(&world, async |world| world.get(0).await),
                start(&world, async |world| world.get(0).await),
                start(&world, async |world| world.get(1).await),
            ];
            all(tasks).await;
            world.comes_to_rest(true).await;
            world.get(0).await;
            world.get(1).await;
        });
    });
}

/// Two processes renew at once, since the store has lost a lease. One is granted a pair, which kills
/// the refresh token that the other one asks with.
#[test]
fn a_lost_lease_loses_no_pair_and_sends_nobody_to_log_in() {
    check("a lost lease", || {
        world(Age::Expired, true, async |world| {
            let tasks = [
                start(&world, async |world| world.get(0).await),
                start(&world, async |world| world.get(1).await),
                start(&world, async |world| world.lose_lease().await),
            ];
            all(tasks).await;
            world.comes_to_rest(false).await;
            let (written, granted) = world.history();
            assert_eq!(written.last(), Some(&Some(granted)), "R3: {written:?}");
            assert!(!written.contains(&None), "{written:?}");
        });
    });
}

#[test]
fn a_logout_beside_a_lost_lease_is_final() {
    check("a logout beside a lost lease", || {
        world(Age::Expired, true, async |world| {
            let tasks = [
                start(&world, async |world| world.get(0).await),
                start(&world, async |world| world.get(1).await),
                start(&world, async |world| {
                    world.lose_lease().await;
                    world.forget(1).await;
                }),
            ];
            all(tasks).await;
            world.comes_to_rest(false).await;
            let (written, _) = world.history();
            assert_eq!(written.last(), Some(&None), "R2: {written:?}");
        });
    });
}

#[test]
fn news_while_replies_are_lost_is_not_overwritten() {
    check("news and lost replies", || {
        world(Age::Expired, true, async |world| {
            world.listen(0);
            world.may_lose(6);
            let tasks = [
                start(&world, async |world| {
                    world.get(0).await;
                    world.get(0).await;
                }),
                start(&world, async |world| world.log_in(1).await),
                start(&world, async |world| {
                    world.get(0).await;
                    world.get(0).await;
                }),
            ];
            all(tasks).await;
            world.comes_to_rest(false).await;
        });
    });
}

/// Nobody else renews meanwhile, so that a lease which is left stands for its whole time.
#[test]
fn a_claim_without_an_answer_is_given_back() {
    check("a lost claim", || {
        world(Age::Expired, true, async |world| {
            world.may_lose(1);
            all([start(&world, async |world| world.get(0).await)]).await;
            world.comes_to_rest(false).await;
        });
    });
}

#[test]
fn a_flight_that_was_left_behind_keeps_its_lease() {
    check("a lease of a flight that was left behind", || {
        world(Age::Expired, false, async |world| {
            let tasks = [
                start(&world, async |world| world.get(0).await),
                start(&world, async |world| {
                    world.leave_behind();
                    world.get(0).await;
                }),
            ];
            all(tasks).await;
            world.comes_to_rest(false).await;
            assert_eq!(world.renewals(0), 1, "R1");
        });
    });
}
