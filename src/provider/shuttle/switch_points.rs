//! Locks, atomics and task spawning of the engine for tests. Under the checker (the crate shuttle),
//! each use is a point at which the checker may switch tasks. In all other tests, these items
//! behave like those of the standard library and tokio.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::sync::{LockResult, PoisonError};
use std::task::{Context, Poll};

use tokio_util::task::TaskTracker;

/// Returns `true` if the checker (the crate shuttle) schedules the current task.
pub(in crate::provider) fn is_under_shuttle() -> bool {
    shuttle::current::try_get_current_task().is_some()
}

#[derive(Default)]
pub(in crate::provider) struct Mutex<T> {
    value: std::sync::Mutex<T>,
    /// Lock of the checker. Under the checker, it is acquired before the real lock.
    switch_point: shuttle::sync::Mutex<()>,
}

pub(in crate::provider) struct MutexGuard<'a, T> {
    // The fields are dropped in this order. The checker may switch tasks when its own lock is
    // released, so the real lock must be released first.
    value: std::sync::MutexGuard<'a, T>,
    _switch_point: Option<shuttle::sync::MutexGuard<'a, ()>>,
}

impl<T> Mutex<T> {
    pub(in crate::provider) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
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
pub(in crate::provider) struct Atomic<A> {
    value: A,
    switch_point: shuttle::sync::atomic::AtomicBool,
}

pub(in crate::provider) type AtomicI64 = Atomic<std::sync::atomic::AtomicI64>;
pub(in crate::provider) type AtomicU16 = Atomic<std::sync::atomic::AtomicU16>;

impl AtomicI64 {
    pub(in crate::provider) fn new(value: i64) -> Self {
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

thread_local! {
    /// Number of polls after which a call is aborted. `None` aborts no call.
    static ABORT_AFTER_STEPS: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Sets the number of polls after which each later call is aborted; `None` aborts no call. An
/// aborted call ends without a result, like a call that panics or whose runtime shuts down.
pub(super) fn abort_calls_after(steps: Option<u32>) {
    ABORT_AFTER_STEPS.set(steps);
}

/// Spawns the task of a call. Under the checker, the call may be aborted; see
/// [`abort_calls_after`].
pub(in crate::provider) fn spawn_call(
    tasks: &TaskTracker,
    call: impl Future<Output = ()> + Send + 'static,
) {
    if is_under_shuttle() {
        let call = AbortableCall {
            future: Some(Box::pin(call)),
            steps_left: ABORT_AFTER_STEPS.get(),
        };
        drop(shuttle::future::spawn(tasks.track_future(call)));
    } else {
        tasks.spawn(call);
    }
}

/// Spawns a task that cleans up after a call, if a runtime exists. Under the checker, this task is
/// never aborted.
pub(in crate::provider) fn spawn_cleanup(
    tasks: &TaskTracker,
    work: impl Future<Output = ()> + Send + 'static,
) {
    if is_under_shuttle() {
        drop(shuttle::future::spawn(tasks.track_future(work)));
    } else if tokio::runtime::Handle::try_current().is_ok() {
        tasks.spawn(work);
    }
}

struct AbortableCall<F> {
    future: Option<Pin<Box<F>>>,
    steps_left: Option<u32>,
}

impl<F: Future<Output = ()>> Future for AbortableCall<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.steps_left == Some(0) {
            self.future = None;
        }
        self.steps_left = self.steps_left.map(|left| left.saturating_sub(1));
        match &mut self.future {
            Some(future) => future.as_mut().poll(context),
            None => Poll::Ready(()),
        }
    }
}
