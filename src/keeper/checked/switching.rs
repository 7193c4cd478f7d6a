//! The engine's locks and atomics as points where the checker may let another task go on. Outside
//! of a schedule they are the standard library's, so that all other tests use them as they are.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::sync::{LockResult, PoisonError};
use std::task::{Context, Poll};

use tokio_util::task::TaskTracker;

/// Whether the checker decides who goes on.
pub(in crate::keeper) fn in_schedule() -> bool {
    shuttle::current::try_get_current_task().is_some()
}

#[derive(Default)]
pub(in crate::keeper) struct Mutex<T> {
    value: std::sync::Mutex<T>,
    /// The checker's lock, which stands for the other one.
    turn: shuttle::sync::Mutex<()>,
}

pub(in crate::keeper) struct MutexGuard<'a, T> {
    // In this order they are dropped.
    value: std::sync::MutexGuard<'a, T>,
    _turn: Option<shuttle::sync::MutexGuard<'a, ()>>,
}

impl<T> Mutex<T> {
    pub(in crate::keeper) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        let turn = || self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let _turn = in_schedule().then(turn);
        match self.value.lock() {
            Ok(value) => Ok(MutexGuard { value, _turn }),
            Err(poisoned) => {
                let value = poisoned.into_inner();
                Err(PoisonError::new(MutexGuard { value, _turn }))
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
pub(in crate::keeper) struct Atomic<A> {
    value: A,
    turn: shuttle::sync::atomic::AtomicBool,
}

pub(in crate::keeper) type AtomicI64 = Atomic<std::sync::atomic::AtomicI64>;
pub(in crate::keeper) type AtomicU16 = Atomic<std::sync::atomic::AtomicU16>;

impl AtomicI64 {
    pub(in crate::keeper) fn new(value: i64) -> Self {
        Self {
            value: value.into(),
            turn: Default::default(),
        }
    }
}

impl<A> Deref for Atomic<A> {
    type Target = A;

    fn deref(&self) -> &A {
        if in_schedule() {
            self.turn.load(std::sync::atomic::Ordering::SeqCst);
        }
        &self.value
    }
}

thread_local! {
    /// After how many steps flights end without a word, if the checker wants that.
    static ENDING_AFTER: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Has the flights that start from now on end in the middle, as one does that panics and those of
/// a runtime that is torn down.
pub(super) fn flights_end_after(steps: Option<u32>) {
    ENDING_AFTER.set(steps);
}

/// Starts a flight.
pub(in crate::keeper) fn launch(
    tasks: &TaskTracker,
    flight: impl Future<Output = ()> + Send + 'static,
) {
    if in_schedule() {
        let flight = Flight {
            course: Some(Box::pin(flight)),
            steps_left: ENDING_AFTER.get(),
        };
        drop(shuttle::future::spawn(tasks.track_future(flight)));
    } else {
        tasks.spawn(flight);
    }
}

/// Starts what a flight leaves behind when it ends. The checker does not end it in the middle.
pub(in crate::keeper) fn launch_last(
    tasks: &TaskTracker,
    work: impl Future<Output = ()> + Send + 'static,
) {
    if in_schedule() {
        drop(shuttle::future::spawn(tasks.track_future(work)));
    } else if tokio::runtime::Handle::try_current().is_ok() {
        tasks.spawn(work);
    }
}

struct Flight<F> {
    course: Option<Pin<Box<F>>>,
    steps_left: Option<u32>,
}

impl<F: Future<Output = ()>> Future for Flight<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.steps_left == Some(0) {
            self.course = None;
        }
        self.steps_left = self.steps_left.map(|left| left.saturating_sub(1));
        match &mut self.course {
            Some(course) => course.as_mut().poll(context),
            None => Poll::Ready(()),
        }
    }
}
