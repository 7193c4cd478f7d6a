//! Tests of the engine under schedules that a checker, the crate [shuttle], chooses.
//!
//! These tests run the real engine: its cache, its calls, its reads and renewals, in two processes
//! that share a store. [shuttle] chooses the task that continues at each lock, at each atomic and
//! at each exchange with the store or WeChat. It chooses at random, by PCT, which finds errors that
//! need few preemptions in few schedules, and exhaustively in the smallest case.
//! `SHUTTLE_RANDOM_SEED` repeats a run. A failed schedule is printed.
//!
//! Everything between two such points is one step: `quick_cache`, tokio's channels and semaphores,
//! and the store in memory have their own locks, which these tests do not check. The clock moves so
//! slowly that no lease and no timeout expires; `tests/model` covers those. `.ci/mutants` puts
//! mistakes into the engine and shows that these tests find them.

mod cache;
mod calls;
mod explore;
mod harness;
mod leases;
mod reports;
mod store;
pub(super) mod switch_points;
mod wechat;
mod writes;
