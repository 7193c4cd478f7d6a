//! Functions that run a test under many schedules of the checker, and that advance the clock and
//! wait for tasks in a schedule.

use std::ops::Range;
use std::time::{Duration, Instant};

use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, Runner};
use tokio::runtime::Runtime;

use super::batched_store::Network;

/// Number of schedules for each test and each of the two schedulers: 400. The environment variable
/// `SCHEDULES` sets another number.
const DEFAULT_SCHEDULES: usize = 400;

/// Number of preemptions in a schedule of PCT: three. Most concurrency errors need one or two
/// preemptions.
const PREEMPTIONS: usize = 3;

thread_local! {
    /// Runtime with a clock that only [`advance_time`] moves. The runtime is leaked, because a
    /// failed schedule may leave timers in it.
    static TIME: &'static Runtime = Box::leak(Box::new(
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap(),
    ));
}

/// Advances the clock of tokio by a millisecond, so that the timers of tasks that back off expire.
pub(super) fn advance_time() {
    TIME.with(|time| time.block_on(tokio::time::sleep(Duration::from_millis(1))));
}

/// Runs a test under all schedules that `scheduler` produces, and prints the number of schedules
/// and the duration.
pub(super) fn run_schedules(
    name: &str,
    scheduler: impl Scheduler + 'static,
    schedule: impl Fn() + Send + Sync + 'static,
) {
    let started = Instant::now();
    let mut config = Config::new();
    // The engine's futures are larger than the default stack allows.
    config.stack_size = 0x8_0000;
    let schedules = TIME.with(|time| {
        // The timers that a schedule creates use the clock of this runtime.
        let _runtime = time.enter();
        Runner::new(scheduler, config).run(schedule)
    });
    println!("{name}: {schedules} schedules, {:.1?}", started.elapsed());
}

/// Returns the number of schedules for each test and each of the two schedulers.
fn schedule_count() -> usize {
    let count = std::env::var("SCHEDULES").ok();
    count.map_or(DEFAULT_SCHEDULES, |number| number.parse().unwrap())
}

/// Runs a test under random schedules and under schedules of PCT.
pub(super) fn explore(name: &str, schedule: fn()) {
    explore_times(schedule_count(), name, schedule);
}

fn explore_times(count: usize, name: &str, schedule: impl Fn() + Copy + Send + Sync + 'static) {
    run_schedules(name, RandomScheduler::new(count), schedule);
    run_schedules(name, PctScheduler::new(PREEMPTIONS, count), schedule);
}

/// Runs a test of the engine with each network, as [`explore`] does. Schedules with batches have more
/// steps, so there are only two thirds as many of them.
pub(super) fn explore_networks(name: &str, schedule: fn(Network)) {
    let count = schedule_count();
    let networks = [(Network::Direct, count), (Network::Batched, count * 2 / 3)];
    for (network, count) in networks {
        let name = format!("{name}, {network:?}");
        explore_times(count, &name, move || schedule(network));
    }
}

pub(super) type Task = shuttle::future::JoinHandle<()>;

/// Waits until all tasks have finished. The clock advances by a millisecond at each step of the
/// wait, so that the tasks that can continue have continued before any deadline passes.
pub(super) async fn join_all<const N: usize>(tasks: [Task; N]) {
    while tasks.iter().any(|task| !task.is_finished()) {
        advance_time();
        shuttle::future::yield_now().await;
    }
}

/// Returns a random number in `range`. The number belongs to the schedule, so that a repeated
/// schedule gets the same number.
pub(super) fn random_number(range: Range<u32>) -> u32 {
    shuttle::rand::Rng::gen_range(&mut shuttle::rand::thread_rng(), range)
}
