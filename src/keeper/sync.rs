//! The locks and atomics through which the tasks of a process meet in this engine, and the tasks
//! that its flights are.
//!
//! They are the standard library's and tokio's. In the crate's own tests each of them is also a
//! point where a checker may let another task go on, so that it can run the engine under schedules
//! of its choice: see `checked`.

#[cfg(not(test))]
mod plain {
    pub(in crate::keeper) use std::sync::atomic::{AtomicI64, AtomicU16};
    pub(in crate::keeper) use std::sync::{Mutex, MutexGuard};

    use tokio_util::task::TaskTracker;

    /// Starts a flight.
    pub(in crate::keeper) fn launch(
        tasks: &TaskTracker,
        flight: impl Future<Output = ()> + Send + 'static,
    ) {
        tasks.spawn(flight);
    }
}

#[cfg(not(test))]
pub(super) use plain::*;

#[cfg(test)]
pub(super) use super::checked::switching::*;
