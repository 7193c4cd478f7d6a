//! The refresh tokens of the accounts, in the store.

use std::sync::Arc;

use crate::credential::{AppId, RefreshToken};
use crate::error::Error;
use crate::store::{DurableSecret, DurableSecretKey, Store, StoredSecret};

/// Maximum number of tries of a write that other writes for the same account cross.
pub(super) const MAX_WRITE_TRIES: usize = 8;

/// What the store had in place of a granted refresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replaced {
    /// A newer one, which stays.
    Newer,
    /// The same one.
    Same,
    /// Another one.
    Other,
    /// None.
    None,
}

/// What a change makes of the stored refresh token.
enum Change {
    Keep,
    Remove,
    Write(DurableSecret),
}

/// The refresh tokens of all accounts.
pub(super) struct RefreshTokens(Arc<dyn Store>);

impl RefreshTokens {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self(store)
    }

    /// Returns the refresh token of an account.
    pub(super) async fn load(&self, account: &AppId) -> Result<StoredSecret, Error> {
        self.0.load_secret(&key(account)).await
    }

    /// Stores a refresh token, unless a newer one is stored.
    pub(super) async fn replace_older(
        &self,
        account: &AppId,
        granted: &DurableSecret,
    ) -> Result<Replaced, Error> {
        let change = |stored: Option<&DurableSecret>| match stored {
            Some(stored) if stored.secret == granted.secret => Change::Write(DurableSecret {
                since: stored.since.max(granted.since),
                ..granted.clone()
            }),
            Some(stored) if stored.since > granted.since => Change::Keep,
            Some(_) | None => Change::Write(granted.clone()),
        };
        Ok(match self.change(account, change).await? {
            Some(before) if before.secret == granted.secret => Replaced::Same,
            Some(before) if before.since > granted.since => Replaced::Newer,
            Some(_) => Replaced::Other,
            None => Replaced::None,
        })
    }

    /// Stores the refresh token that WeChat has issued in place of `used`. Returns `false` if another one
    /// was stored meanwhile.
    pub(super) async fn replace_used(
        &self,
        account: &AppId,
        used: &RefreshToken,
        next: &RefreshToken,
    ) -> Result<bool, Error> {
        let change = |stored: Option<&DurableSecret>| match stored {
            // Another process may have written the same token with its time. That is no authorization.
            Some(stored) if stored.secret == *used => Change::Write(DurableSecret {
                secret: next.clone(),
                since: stored.since,
            }),
            Some(_) | None => Change::Keep,
        };
        let before = self.change(account, change).await?;
        Ok(before.is_some_and(|before| before.secret == *used))
    }

    /// Removes the refresh token of an account if `is_meant` returns `true` for it.
    pub(super) async fn remove_if(
        &self,
        account: &AppId,
        is_meant: impl Fn(&DurableSecret) -> bool,
    ) -> Result<(), Error> {
        let change = |stored: Option<&DurableSecret>| match stored.is_some_and(&is_meant) {
            true => Change::Remove,
            false => Change::Keep,
        };
        self.change(account, change).await.map(drop)
    }

    /// Makes of the stored refresh token what `change` says, in one step. Returns what was stored before.
    async fn change(
        &self,
        account: &AppId,
        change: impl Fn(Option<&DurableSecret>) -> Change,
    ) -> Result<Option<DurableSecret>, Error> {
        for _ in 0..MAX_WRITE_TRIES {
            let stored = self.load(account).await?;
            let next = match change(stored.value.as_ref()) {
                Change::Keep => return Ok(stored.value),
                Change::Remove => None,
                Change::Write(next) => Some(next),
            };
            if next == stored.value || self.replace(account, &stored, next.as_ref()).await? {
                return Ok(stored.value);
            }
        }
        Err(contended(account))
    }

    /// Replaces the refresh token that was read by `granted`. Returns `false` if the store holds another
    /// one by now.
    pub(super) async fn replace(
        &self,
        account: &AppId,
        read: &StoredSecret,
        granted: Option<&DurableSecret>,
    ) -> Result<bool, Error> {
        let (key, expected) = (key(account), &read.expected);
        self.0.replace_secret(&key, expected, granted).await
    }
}

fn key(account: &AppId) -> DurableSecretKey {
    DurableSecretKey::RefreshToken {
        account: account.clone(),
    }
}

pub(super) fn contended(account: &AppId) -> Error {
    Error::store_unavailable(format!(
        "the refresh token of {account} could not be written, because other writes replaced it \
         meanwhile"
    ))
}
