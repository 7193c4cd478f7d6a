//! Task spawning of the engine for tests. Under the checker (the crate shuttle), the checker schedules
//! the tasks and may abort them. In all other tests, the tasks are tasks of tokio.

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio_util::task::TaskTracker;

use crate::sync::is_under_shuttle;

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
        let call = Abortable::new(call, ABORT_AFTER_STEPS.get());
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

/// A future that is dropped after a number of polls, as a task that is aborted. `None` polls it to
/// its end.
pub(super) struct Abortable<F> {
    future: Option<Pin<Box<F>>>,
    steps_left: Option<u32>,
}

impl<F> Abortable<F> {
    pub(super) fn new(future: F, steps: Option<u32>) -> Self {
        Self {
            future: Some(Box::pin(future)),
            steps_left: steps,
        }
    }
}

impl<F: Future<Output = ()>> Future for Abortable<F> {
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
