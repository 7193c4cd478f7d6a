//! Locks, atomics and task spawning of the engine, which tests can replace.
//!
//! Outside of tests they are the types of the standard library and tokio. In tests each of them is
//! also a point at which the checker (the crate shuttle, see the module `shuttle`) may switch
//! tasks. Counters whose order does not matter, and the locks that guard the start of background
//! tasks, use the standard types directly.

#[cfg(not(test))]
mod plain {
    pub(in crate::provider) use std::sync::atomic::{AtomicI64, AtomicU16};
    pub(in crate::provider) use std::sync::{Mutex, MutexGuard};

    use tokio_util::task::TaskTracker;

    /// Returns `true` if the checker schedules the tasks.
    pub(in crate::provider) const fn is_under_shuttle() -> bool {
        false
    }

    /// Spawns the task of a call.
    pub(in crate::provider) fn spawn_call(
        tasks: &TaskTracker,
        call: impl Future<Output = ()> + Send + 'static,
    ) {
        tasks.spawn(call);
    }

    /// Spawns the cleanup after a call, unless the tokio runtime has ended.
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
