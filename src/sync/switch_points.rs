//! Locks and atomics for tests. Under the checker (the crate shuttle), each use is a point at which
//! the checker may switch tasks. In all other tests, these types behave like those of the standard
//! library.

use std::ops::{Deref, DerefMut};
use std::sync::{LockResult, PoisonError};

/// Returns `true` if the checker (the crate shuttle) schedules the current task.
pub(crate) fn is_under_shuttle() -> bool {
    shuttle::current::try_get_current_task().is_some()
}

#[derive(Default)]
pub(crate) struct Mutex<T> {
    value: std::sync::Mutex<T>,
    /// Lock of the checker. Under the checker, it is acquired before the real lock.
    switch_point: shuttle::sync::Mutex<()>,
}

pub(crate) struct MutexGuard<'a, T> {
    // The fields are dropped in this order. The checker may switch tasks when its own lock is
    // released, so the real lock must be released first.
    value: std::sync::MutexGuard<'a, T>,
    _switch_point: Option<shuttle::sync::MutexGuard<'a, ()>>,
}

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            value: std::sync::Mutex::new(value),
            switch_point: shuttle::sync::Mutex::default(),
        }
    }

    pub(crate) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        let acquire = || {
            self.switch_point
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        let switch_point = is_under_shuttle().then(acquire);
        match self.value.lock() {
            Ok(value) => Ok(MutexGuard {
                value,
                _switch_point: switch_point,
            }),
            Err(poisoned) => {
                let value = poisoned.into_inner();
                Err(PoisonError::new(MutexGuard {
                    value,
                    _switch_point: switch_point,
                }))
            }
        }
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

/// An atomic. The checker may switch tasks before each access. The checker runs all accesses in one
/// order, so it does not find errors that only weaker memory orderings cause.
#[derive(Default)]
pub(crate) struct Atomic<A> {
    value: A,
    switch_point: shuttle::sync::atomic::AtomicBool,
}

pub(crate) type AtomicI64 = Atomic<std::sync::atomic::AtomicI64>;
pub(crate) type AtomicU16 = Atomic<std::sync::atomic::AtomicU16>;

impl AtomicI64 {
    pub(crate) fn new(value: i64) -> Self {
        Self {
            value: value.into(),
            switch_point: Default::default(),
        }
    }
}

impl<A> Deref for Atomic<A> {
    type Target = A;

    fn deref(&self) -> &A {
        if is_under_shuttle() {
            self.switch_point.load(std::sync::atomic::Ordering::SeqCst);
        }
        &self.value
    }
}
