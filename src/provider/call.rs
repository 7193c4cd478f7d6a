//! Calls, which fetch a token for several callers at once. This module defines the need of a
//! caller, the published state of a call, and the handle of its task.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::entry::CacheEntry;
use crate::clock::Timestamp;
use crate::credential::AccessToken;
use crate::error::Error;

/// The need of a caller: which token satisfies the caller.
#[derive(Debug, Clone)]
pub(super) enum Wanted {
    /// Any unexpired token satisfies the caller, fresh or stale.
    Any,
    /// Any unexpired token satisfies the caller, except this one, which the caller reported as
    /// invalid (reports compared).
    Replacing(AccessToken),
}

impl Wanted {
    pub(super) fn is_satisfied_by(&self, token: &AccessToken) -> bool {
        match self {
            Self::Any => true,
            Self::Replacing(invalid) => token != invalid,
        }
    }

    pub(super) fn replaced_token(&self) -> Option<&AccessToken> {
        match self {
            Self::Any => None,
            Self::Replacing(invalid) => Some(invalid),
        }
    }
}

/// State of a call, which the task of the call publishes to the callers.
#[derive(Debug, Clone, Default)]
pub(super) struct CallState {
    /// Unexpired token that the call found. Every caller whose need this token satisfies receives
    /// the token before the call ends (stale served). The token stays after the end of the call. If
    /// a renewal after a report fails, callers that did not report the token still receive it.
    pub(super) provisional: Option<CacheEntry>,
    /// Result of the call. `None` until the call has ended.
    pub(super) result: Option<Result<CacheEntry, Error>>,
    /// Time at which the call began to wait for the store. `None` while the call waits for WeChat,
    /// for a permit to call WeChat, or for another process that renews the credential.
    store_wait_since: Option<Instant>,
}

impl CallState {
    /// Returns `true` if the call has waited for the store for longer than `limit`.
    pub(super) fn has_waited_for_store(&self, limit: Duration) -> bool {
        self.store_wait_since
            .is_some_and(|since| since.elapsed() > limit)
    }

    /// Returns the provisional token if it satisfies `wanted` and has not expired.
    pub(super) fn provisional_for(&self, wanted: &Wanted, now: Timestamp) -> Option<&CacheEntry> {
        let usable =
            |entry: &&CacheEntry| wanted.is_satisfied_by(entry.secret()) && entry.is_unexpired(now);
        self.provisional.as_ref().filter(usable)
    }
}

/// The handle through which the task of a call publishes the state of the call.
pub(super) struct CallTask {
    pub(super) id: Box<str>,
    /// Number that distinguishes this call from earlier and later calls for the same credential.
    pub(super) number: u64,
    pub(super) wanted: Wanted,
    state: watch::Sender<CallState>,
}

impl CallTask {
    /// Creates the handle for the task of a call, and the receiver through which callers see the
    /// state of the call.
    pub(super) fn new(
        id: &str,
        number: u64,
        wanted: &Wanted,
    ) -> (Self, watch::Receiver<CallState>) {
        let (state, receiver) = watch::channel(CallState {
            // A call begins with a read of the store.
            store_wait_since: Some(Instant::now()),
            ..CallState::default()
        });
        let task = Self {
            id: id.into(),
            number,
            wanted: wanted.clone(),
            state,
        };
        (task, receiver)
    }

    pub(super) fn publish_provisional(&self, entry: &CacheEntry) {
        self.set_provisional(Some(entry.clone()));
    }

    /// Publishes an unexpired token to the callers of this call. `None` withdraws the published
    /// token.
    pub(super) fn set_provisional(&self, provisional: Option<CacheEntry>) {
        self.state
            .send_modify(|state| state.provisional = provisional);
    }

    /// Records whether the call waits for WeChat, without waking the callers of the call.
    pub(super) fn set_awaits_wechat(&self, awaits_wechat: bool) {
        self.state.send_if_modified(|state| {
            state.store_wait_since = (!awaits_wechat).then(Instant::now);
            false
        });
    }

    /// Publishes the result of the call and wakes all callers.
    pub(super) fn publish_result(&self, result: Result<CacheEntry, Error>) {
        self.state.send_modify(|state| state.result = Some(result));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tests that a commit under way is not reported as a store that does not respond.
    #[tokio::test(start_paused = true)]
    async fn only_a_long_wait_for_the_store_counts() {
        let limit = Duration::from_millis(100);
        let (task, state) = CallTask::new("oUser", 1, &Wanted::Any);
        let has_waited = || state.borrow().has_waited_for_store(limit);
        assert!(!has_waited(), "the call has just begun");
        tokio::time::advance(limit * 2).await;
        assert!(has_waited(), "the first read is slow");
        task.set_awaits_wechat(true);
        tokio::time::advance(limit * 50).await;
        assert!(!has_waited(), "WeChat is slow");
        task.set_awaits_wechat(false);
        assert!(!has_waited(), "the commit has just begun");
        tokio::time::advance(limit * 2).await;
        assert!(has_waited(), "the commit is slow");
    }
}
