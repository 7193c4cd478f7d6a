//! When a user has last logged out everywhere, for records that may lack it.
//!
//! Our own records carry it behind the refresh token, so that a look costs one round trip. A Java
//! service that writes the published layout drops what stands there, and a record that was copied
//! from its hashes never had it. It has a key of its own besides, which nobody else writes, and which
//! is asked where a record says nothing but its tokens.

use std::time::Duration;

use redis::Cmd;

use super::RedisStore;
use crate::clock::Timestamp;
use crate::credential::{Record, RecordView, logout_time};
use crate::error::Error;
use crate::store::{Kind, Name, Slot, Stored};

/// Returns `true` if a record may have lost what we keep besides its tokens. What we write says at
/// least whose it is, as far as WeChat told us.
pub(super) fn may_lack(slot: &Slot, record: &RecordView<'_>) -> bool {
    let details = &record.details;
    slot.name.kind == Kind::User
        && (record.token.is_some() || record.refresh.is_some())
        && details.openid.is_none()
        && details.scope.is_none()
        && details.unionid.is_none()
        && details.sessions_from.is_none()
}

impl RedisStore {
    /// Returns when a user has last logged out everywhere; nothing at all where `patience` was too
    /// short.
    pub(super) async fn revoked_within(
        &self,
        name: &Name,
        patience: Duration,
    ) -> Result<Option<Option<Timestamp>>, Error> {
        let get = Cmd::get(self.0.names.revoked(name));
        let mut connection = self.0.connection.clone();
        let key = super::key_of(&get);
        let asked = self.run_within::<Option<i64>>(key, patience, get.query_async(&mut connection));
        Ok(asked.await?.map(|stored| stored.map(logout_time)))
    }

    /// The same for somebody who waits as long as any command may take.
    pub(super) async fn revoked_at(&self, name: &Name) -> Result<Option<Timestamp>, Error> {
        let asked = self.revoked_within(name, Duration::MAX).await?;
        asked.ok_or_else(|| self.0.guard.asked_too_much(&self.0.address))
    }

    /// Adds to what was read when its user has last logged out everywhere, where it may lack that.
    pub(super) async fn completed(&self, slot: &Slot, mut stored: Stored) -> Result<Stored, Error> {
        if may_lack(slot, &stored.record.view()) {
            let at = Box::pin(self.revoked_at(&slot.name)).await?;
            let Record { details, .. } = &mut stored.record;
            details.sessions_from = at;
        }
        Ok(stored)
    }
}
