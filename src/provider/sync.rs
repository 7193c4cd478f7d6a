//! Locks, atomics and task spawning of the engine, which tests can replace.
//!
//! Outside of tests, these items are the types of the standard library and the functions of tokio.
//! In tests, each access is also a point at which the checker (the crate shuttle, see the module
//! `shuttle`) may switch tasks. Counters whose order does not matter, and the locks that guard the
//! start of background tasks, use the standard types directly.

pub(super) use crate::sync::*;

#[cfg(not(test))]
mod plain {
    use tokio_util::task::TaskTracker;

    /// Spawns the task of a call and tracks it, so that a shutdown waits for it.
    pub(in crate::provider) fn spawn_call(
        tasks: &TaskTracker,
        call: impl Future<Output = ()> + Send + 'static,
    ) {
        tasks.spawn(call);
    }

    /// Spawns a task that cleans up after a call, unless no tokio runtime exists. A shutdown waits
    /// for the task.
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
pub(super) use super::shuttle::tasks::*;
