//! The token that a caller needs, and the call that fetches it: the state and the task of the call.

use tokio::sync::watch;

use super::entry::CacheEntry;
use crate::clock::Timestamp;
use crate::credential::AccessToken;
use crate::error::Error;

/// The token that a caller needs.
#[derive(Debug, Clone)]
pub(super) enum Wanted {
    /// Any usable token, fresh or stale.
    Any,
    /// A token other than this one, which the caller reported as invalid (reports compared).
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

/// State of a call, which its task publishes to its callers.
#[derive(Debug, Clone, Default)]
pub(super) struct CallState {
    /// Unexpired token that the call found, for all callers whose need it satisfies (stale served).
    /// It stays after the end of the call: a renewal after a report may fail although the stored
    /// token is accepted.
    pub(super) provisional: Option<CacheEntry>,
    /// Result of the call, once it has ended.
    pub(super) result: Option<Result<CacheEntry, Error>>,
    /// `true` while the call waits for WeChat, here or in another process, and not for the store.
    pub(super) awaits_wechat: bool,
}

impl CallState {
    /// Returns the provisional token if it satisfies `wanted` and has not expired.
    pub(super) fn provisional_for(&self, wanted: &Wanted, now: Timestamp) -> Option<&CacheEntry> {
        let usable =
            |entry: &&CacheEntry| wanted.is_satisfied_by(entry.secret()) && entry.is_unexpired(now);
        self.provisional.as_ref().filter(usable)
    }
}

/// The task's side of a call, through which the task publishes the state of the call.
pub(super) struct CallTask {
    pub(super) id: Box<str>,
    /// Distinguishes successive calls for one credential.
    pub(super) number: u64,
    pub(super) wanted: Wanted,
    state: watch::Sender<CallState>,
}

impl CallTask {
    /// Creates the task side of a call. Callers follow the call through the returned receiver.
    pub(super) fn new(
        id: &str,
        number: u64,
        wanted: &Wanted,
    ) -> (Self, watch::Receiver<CallState>) {
        let (state, receiver) = watch::channel(CallState::default());
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

    /// Publishes the unexpired token to the callers of this call. `None` withdraws it.
    pub(super) fn set_provisional(&self, provisional: Option<CacheEntry>) {
        self.state
            .send_modify(|state| state.provisional = provisional);
    }

    /// Records whether callers wait for WeChat, without waking them.
    pub(super) fn set_awaits_wechat(&self, awaits_wechat: bool) {
        self.state.send_if_modified(|state| {
            state.awaits_wechat = awaits_wechat;
            false
        });
    }

    /// Publishes the result of the call and wakes all callers.
    pub(super) fn publish_result(&self, result: Result<CacheEntry, Error>) {
        self.state.send_modify(|state| state.result = Some(result));
    }
}
