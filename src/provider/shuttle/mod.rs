//! Tests of the engine under schedules that a checker, the crate [shuttle], chooses.
//!
//! These tests run the real engine: its cache, its calls, its reads and its renewals, in two
//! simulated processes that share a store. At each lock, at each atomic and at each exchange with
//! the store or WeChat, [shuttle] chooses the task that continues. Most tests run under random
//! schedules and under PCT, which needs few schedules to find errors that take few preemptions. The
//! smallest tests run under all schedules. Each test of the engine runs with a network that sends
//! each operation by itself, and with one that sends operations in batches. The environment variable
//! `SHUTTLE_RANDOM_SEED` repeats a run. The checker prints a schedule that failed.
//!
//! Everything between two such points is one step. `quick_cache`, tokio's channels and semaphores,
//! and the store in memory have locks of their own, which these tests do not check. The clock moves
//! so slowly that no lease and no timeout expires; `tests/model` covers those. `.ci/mutants` puts
//! mistakes into the engine and into the queue of batches, and shows that these tests find them.

mod batched_store;
mod batches;
mod cache;
mod calls;
mod explore;
mod harness;
mod leases;
mod reports;
mod store;
pub(super) mod tasks;
mod wechat;
mod writes;
