//! The need of a caller, and the state of the call that answers it.

use super::entry::CacheEntry;
use crate::clock::Timestamp;
use crate::credential::AccessToken;
use crate::error::Error;

/// Need of a caller.
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
            Self::Replacing(refused) => token != refused,
        }
    }

    pub(super) fn replaced_token(&self) -> Option<&AccessToken> {
        match self {
            Self::Any => None,
            Self::Replacing(refused) => Some(refused),
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
