//! Locks and atomics that tests can replace.
//!
//! Outside of tests, these are the types of the standard library. In tests, each access is also a
//! point at which a checker of schedules (the crate shuttle, see `provider::shuttle`) may switch
//! tasks. Code whose order does not matter for these tests uses the standard types directly.

#[cfg(not(test))]
mod plain {
    pub(crate) use std::sync::atomic::{AtomicI64, AtomicU16};
    pub(crate) use std::sync::{Mutex, MutexGuard};

    /// Returns `true` if the checker (the crate shuttle) schedules the tasks. Outside of tests
    /// there is no checker.
    pub(crate) const fn is_under_shuttle() -> bool {
        false
    }
}

#[cfg(not(test))]
pub(crate) use plain::*;

#[cfg(test)]
mod switch_points;

#[cfg(test)]
pub(crate) use switch_points::*;
