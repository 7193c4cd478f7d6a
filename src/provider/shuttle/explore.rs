//! Runs of the checker: schedules, their clock and their tasks.

use std::ops::Range;
use std::time::{Duration, Instant};

use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, Runner};
use tokio::runtime::Runtime;

/// Number of schedules of each test for each scheduler. The environment variable `SCHEDULES` sets
/// another number.
const DEFAULT_SCHEDULES: usize = 400;

/// Number of preemptions in a schedule of PCT. Most concurrency errors need one or two.
const PREEMPTIONS: usize = 3;

thread_local! {
    /// Runtime with a clock that only [`advance_time`] moves. It is leaked, because a failed
    /// schedule may leave timers in it.
    static TIME: &'static Runtime = Box::leak(Box::new(
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap(),
    ));
}

/// Advances the clock by a millisecond, for tasks that back off.
pub(super) fn advance_time() {
    TIME.with(|time| time.block_on(tokio::time::sleep(Duration::from_millis(1))));
}

/// Runs a test under the schedules of one scheduler, and prints their number.
pub(super) fn run_schedules(name: &str, scheduler: impl Scheduler + 'static, schedule: fn()) {
    let started = Instant::now();
    let mut config = Config::new();
    // The engine's futures are larger than the default stack allows.
    config.stack_size = 0x8_0000;
    let schedules = TIME.with(|time| {
        // Timers of the schedule use the clock of this runtime.
        let _runtime = time.enter();
        Runner::new(scheduler, config).run(schedule)
    });
    println!("{name}: {schedules} schedules, {:.1?}", started.elapsed());
}

/// Runs a test under random schedules and under schedules of PCT.
pub(super) fn explore(name: &str, schedule: fn()) {
    let schedules = std::env::var("SCHEDULES").ok();
    let schedules = schedules.map_or(DEFAULT_SCHEDULES, |number| number.parse().unwrap());
    run_schedules(name, RandomScheduler::new(schedules), schedule);
    run_schedules(name, PctScheduler::new(PREEMPTIONS, schedules), schedule);
}

pub(super) type Task = shuttle::future::JoinHandle<()>;

/// Waits for all tasks. The clock advances meanwhile, but so little that no deadline passes before
/// the tasks that can continue have continued.
pub(super) async fn join_all<const N: usize>(tasks: [Task; N]) {
    while tasks.iter().any(|task| !task.is_finished()) {
        advance_time();
        shuttle::future::yield_now().await;
    }
}

/// Returns a number that the schedule chooses.
pub(super) fn random_number(range: Range<u32>) -> u32 {
    shuttle::rand::Rng::gen_range(&mut shuttle::rand::thread_rng(), range)
}
