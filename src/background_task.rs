//! A background task, such as the maintenance of the cache of an engine. Requests start the task,
//! and dropping the handle of the task aborts it.
//!
//! # States
//!
//! - Not started: [`BackgroundTask::start`] spawns the task if there is a tokio runtime. Leads to
//!   Running, or to Disabled if `create` returns no task.
//! - Running: the task was spawned. If the task ends, for example because its runtime was shut
//!   down, the next `start` spawns a new one.
//! - Disabled: `create` returned no task, or [`BackgroundTask::stop`] was called. This state is
//!   final.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio::task::AbortHandle;

/// Handle of a background task, which may not have been started yet. Dropping the handle aborts the
/// task.
#[derive(Debug, Default)]
pub(crate) struct BackgroundTask(Mutex<TaskState>);

#[derive(Debug, Default)]
enum TaskState {
    #[default]
    NotStarted,
    Running(AbortHandle),
    Disabled,
}

impl BackgroundTask {
    /// Spawns the task that `create` returns, unless the task already runs, is disabled, or there
    /// is no tokio runtime. If `create` returns `None`, the task is disabled.
    pub(crate) fn start<F>(&self, create: impl FnOnce() -> Option<F>)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        // The lock is held until the task is spawned, so that two requests do not start two tasks.
        let mut state = self.lock();
        let is_idle = match &*state {
            TaskState::NotStarted => true,
            TaskState::Running(task) => task.is_finished(),
            TaskState::Disabled => false,
        };
        if !is_idle {
            return;
        }
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        *state = match create() {
            Some(task) => TaskState::Running(runtime.spawn(task).abort_handle()),
            None => TaskState::Disabled,
        };
    }

    /// Aborts the task if it runs. A later [`start`](Self::start) has no effect.
    pub(crate) fn stop(&self) {
        let state = std::mem::replace(&mut *self.lock(), TaskState::Disabled);
        if let TaskState::Running(task) = state {
            task.abort();
        }
    }

    fn lock(&self) -> MutexGuard<'_, TaskState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for BackgroundTask {
    fn drop(&mut self) {
        self.stop();
    }
}
