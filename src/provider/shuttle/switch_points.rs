//! The engine's locks and atomics as points where the checker may let another task go on. Outside
//! of a schedule they are the standard library's, so that all other tests use them as they are.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::sync::{LockResult, PoisonError};
use std::task::{Context, Poll};

use tokio_util::task::TaskTracker;

/// Whether the checker decides who goes on.
pub(in crate::provider) fn is_under_shuttle() -> bool {
    shuttle::current::try_get_current_task().is_some()
}

#[derive(Default)]
pub(in crate::provider) struct Mutex<T> {
    value: std::sync::Mutex<T>,
    /// The checker's lock, which stands for the other one.
    switch_point: shuttle::sync::Mutex<()>,
}

pub(in crate::provider) struct MutexGuard<'a, T> {
    // In this order they are dropped.
    value: std::sync::MutexGuard<'a, T>,
    _switch_point: Option<shuttle::sync::MutexGuard<'a, ()>>,
}

impl<T> Mutex<T> {
    pub(in crate::provider) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        let turn = || {
            self.switch_point
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        let _turn = is_under_shuttle().then(turn);
        match self.value.lock() {
            Ok(value) => Ok(MutexGuard {
                value,
                _switch_point: _turn,
            }),
            Err(poisoned) => {
                let value = poisoned.into_inner();
                Err(PoisonError::new(MutexGuard {
                    value,
                    _switch_point: _turn,
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

/// An atomic, before each access to which another task may go on. Schedules are orders of such
/// accesses: what a weaker ordering than the order of the program would show, is not shown.
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
    /// After how many steps flights end without a word, if the checker wants that.
    static ABORT_AFTER_STEPS: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Has the flights that start from now on end in the middle, as one does that panics and those of
/// a runtime that is torn down.
pub(super) fn abort_calls_after(steps: Option<u32>) {
    ABORT_AFTER_STEPS.set(steps);
}

/// Starts a flight.
pub(in crate::provider) fn spawn_call(
    tasks: &TaskTracker,
    call: impl Future<Output = ()> + Send + 'static,
) {
    if is_under_shuttle() {
        let flight = AbortableCall {
            future: Some(Box::pin(call)),
            steps_left: ABORT_AFTER_STEPS.get(),
        };
        drop(shuttle::future::spawn(tasks.track_future(flight)));
    } else {
        tasks.spawn(call);
    }
}

/// Starts what a flight leaves behind when it ends. The checker does not end it in the middle.
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
            Some(course) => course.as_mut().poll(context),
            None => Poll::Ready(()),
        }
    }
}
