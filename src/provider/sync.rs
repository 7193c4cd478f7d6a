//! The locks and atomics through which the tasks of a process meet in this engine, and the tasks
//! that its flights are.
//!
//! They are the standard library's and tokio's. In the crate's own tests each of them is also a
//! point where a checker may let another task go on, so that it can run the engine under schedules
//! of its choice: see `checked`.

#[cfg(not(test))]
mod plain {
    pub(in crate::provider) use std::sync::atomic::{AtomicI64, AtomicU16};
    pub(in crate::provider) use std::sync::{Mutex, MutexGuard};

    use tokio_util::task::TaskTracker;

    /// Returns `true` if a checker decides which task goes on.
    pub(in crate::provider) const fn is_under_shuttle() -> bool {
        false
    }

    /// Starts a flight.
    pub(in crate::provider) fn spawn_call(
        tasks: &TaskTracker,
        call: impl Future<Output = ()> + Send + 'static,
    ) {
        tasks.spawn(call);
    }

    /// Starts what a flight leaves behind when it ends, if there still is a runtime to run it.
    pub(in crate::provider) fn spawn_cleanup(
        tasks: &TaskTracker,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        if tokio::runtime::Handle::try_current().is_ok() {
            tasks.spawn(work);
        }
    }
}

#[cfg(not(test))]
pub(super) use plain::*;

#[cfg(test)]
pub(super) use super::shuttle::switch_points::*;
