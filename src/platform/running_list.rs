//! The list of accounts that this process reads at the moment, which its callers share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::backoff::delay_after;
use crate::credential::{AppId, RefreshToken};
use crate::error::Error;

/// What a list has said.
#[derive(Debug)]
pub(super) struct AccountsListed {
    /// The listed accounts, with the refresh tokens that the list contains.
    pub(super) accounts: HashMap<AppId, Option<RefreshToken>>,
}

/// The outcome of a list: `None` if another process reads one, or has read one a moment ago.
pub(super) type ListOutcome = Result<Option<Arc<AccountsListed>>, Error>;

/// First and longest wait after a list that could not be read: one second and one minute.
const MIN_RETRY_DELAY: Duration = Duration::from_secs(1);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(60);

/// The list that this process reads at the moment, and the back-off after lists that failed.
#[derive(Default)]
pub(super) struct RunningList(Mutex<ListState>);

#[derive(Default)]
struct ListState {
    running: Option<watch::Receiver<Option<ListOutcome>>>,
    failures: u32,
    /// The last failure, with the end of its back-off. This process then has the right to read the list
    /// again.
    failed: Option<(Error, Instant)>,
}

impl RunningList {
    /// Returns the outcome of the list that this process reads. Without such a list, returns the sender of
    /// the outcome too, and the caller reads the list.
    pub(super) fn join_or_start(
        &self,
    ) -> (
        watch::Receiver<Option<ListOutcome>>,
        Option<watch::Sender<Option<ListOutcome>>>,
    ) {
        let mut state = self.lock();
        // A sender that is gone belongs to a list that has ended.
        if let Some(outcome) = state.running.as_ref().filter(|it| it.has_changed().is_ok()) {
            return (outcome.clone(), None);
        }
        let (sender, receiver) = watch::channel(None);
        state.running = Some(receiver.clone());
        (receiver, Some(sender))
    }

    /// Returns `true` if the last list of this process has failed and its back-off has ended, so that the
    /// list may be read again.
    ///
    /// # Errors
    /// The last failure, during its back-off.
    pub(super) fn may_repeat(&self) -> Result<bool, Error> {
        let state = self.lock();
        match &state.failed {
            None => Ok(false),
            Some((error, until)) => match until.checked_duration_since(Instant::now()) {
                Some(left) => Err(error.clone_with_retry_after(left)),
                None => Ok(true),
            },
        }
    }

    /// Forgets the outcome of a list that has ended.
    pub(super) fn forget(&self) {
        let mut state = self.lock();
        if state
            .running
            .as_ref()
            .is_some_and(|it| it.has_changed().is_err())
        {
            state.running = None;
        }
    }

    pub(super) fn note_failure(&self, error: &Error) {
        let mut state = self.lock();
        state.failures = state.failures.saturating_add(1);
        let wait = delay_after(state.failures, MIN_RETRY_DELAY, MAX_RETRY_DELAY);
        state.failed = Some((error.clone(), Instant::now() + wait));
    }

    pub(super) fn note_success(&self) {
        let mut state = self.lock();
        (state.failures, state.failed) = (0, None);
    }

    /// Ends the back-off after a failure.
    pub(super) fn end_backoff(&self) {
        if let Some((_, until)) = &mut self.lock().failed {
            *until = Instant::now();
        }
    }

    fn lock(&self) -> MutexGuard<'_, ListState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
