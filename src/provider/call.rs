//! What a caller asks for, and how far the call that answers it has come.

use super::entry::CacheEntry;
use crate::clock::Timestamp;
use crate::credential::AccessToken;
use crate::error::Error;

/// What a caller asks for.
#[derive(Debug, Clone)]
pub(super) enum Wanted {
    /// A token that is usable, be it stale.
    Any,
    /// A token other than this one, which WeChat has refused (R6).
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

/// How far a flight has come.
#[derive(Debug, Clone, Default)]
pub(super) struct CallState {
    /// The live token that the flight has found, for every caller whose need it meets (R4). It
    /// stays when the flight ends: a flight that began because of a report may fail although the
    /// stored token is alive.
    pub(super) provisional: Option<CacheEntry>,
    /// The result of the flight, once it has ended.
    pub(super) result: Option<Result<CacheEntry, Error>>,
    /// Whether the flight waits for WeChat, here or in another process, and not for the store.
    pub(super) awaits_wechat: bool,
}

impl CallState {
    /// Returns the live token if it meets `need`.
    pub(super) fn provisional_for(&self, wanted: &Wanted, now: Timestamp) -> Option<&CacheEntry> {
        let usable =
            |held: &&CacheEntry| wanted.is_satisfied_by(held.secret()) && held.is_unexpired(now);
        self.provisional.as_ref().filter(usable)
    }
}
