//! Writes of logins and logouts. They need no lease, and win over every renewal.

use super::entry::{CacheEntry, EntryOrigin};
use super::state::CredentialProvider;
use crate::credential::Record;
use crate::error::{Error, ErrorKind};
use crate::store::ReplaceResult;

/// Maximum number of times that one login writes its record: 64. Each other write to the same
/// credential at the same time makes one more write necessary.
const MAX_ATTEMPTS: usize = 64;

impl CredentialProvider {
    /// Writes the record of a login to the store and to the cache. A login replaces the result of
    /// every renewal that began before the login (newest wins).
    ///
    /// A write that directly follows the login replaces any record. A late write (`is_late`) may
    /// find the record of a later login, or a renewal of the login itself. If WeChat issued the
    /// stored token later, such a write changes nothing and returns `None`. Only a late write
    /// compares these times, because the clocks of processes may differ: a user may log in again
    /// within seconds, to grant another scope.
    ///
    /// If this future is dropped before it completes, the store and the cache may differ. Callers
    /// therefore run the future in [`run_to_completion`](Self::run_to_completion).
    pub(crate) async fn store_login(
        &self,
        id: &str,
        record: &Record,
        is_late: bool,
    ) -> Result<Option<CacheEntry>, Error> {
        let (slot, writer) = (self.0.slot(id), self.0.writer()?);
        let Some(entry) = self.0.to_entry(id, record, EntryOrigin::Stored) else {
            let message = "a login without an access token cannot be stored";
            return Err(Error::new(ErrorKind::BadRequest, message));
        };
        let mut stored = self.0.store.load(&slot).await?;
        for _ in 0..MAX_ATTEMPTS {
            if is_late && is_issued_later(&stored.record, record) {
                return Ok(None);
            }
            // The comparison and the write are one step of the store. If this write reaches the
            // store after its caller has given up, it does not replace what was stored since.
            let write = writer.replace(&slot, &stored.expected, record);
            match self.write_entry(&entry, write).await? {
                ReplaceResult::Replaced => return Ok(Some(entry)),
                ReplaceResult::Conflict(newer) => stored = newer,
            }
        }
        let message = "the login was not stored, because the stored tokens changed before each \
                       attempt: log in again";
        Err(Error::store_unavailable(message))
    }

    /// Runs `write`, which writes the record of `entry` to the store, and changes the cache.
    async fn write_entry(
        &self,
        entry: &CacheEntry,
        write: impl Future<Output = Result<ReplaceResult, Error>>,
    ) -> Result<ReplaceResult, Error> {
        let (provider, id) = (&self.0, entry.id());
        // The entry is removed before the write, because the store may differ from the entry as
        // soon as the write has started.
        let stamp = provider.cache.invalidate(id);
        let outcome = write.await;
        match &outcome {
            Ok(ReplaceResult::Replaced) => {
                provider
                    .cache
                    .complete_write(id, Some(entry), provider.clock.now(), &stamp);
            }
            // The store holds another record, or may have executed the write although its reply is
            // an error.
            Ok(ReplaceResult::Conflict(_)) | Err(_) => drop(provider.cache.invalidate(id)),
        }
        // The running call is detached after the change of the cache. A call that starts after the
        // change compares its snapshot with the cache and finds the snapshot outdated. A call that
        // started earlier is in the table, and is detached here.
        provider.calls.detach(id);
        provider.update_cached_gauge();
        if matches!(outcome, Ok(ReplaceResult::Replaced)) {
            provider.failures.clear(id);
        }
        outcome
    }

    /// Deletes the credential in the store and in the cache. A running renewal cannot restore the
    /// credential, because its commit succeeds only if the store still holds the record that was
    /// renewed.
    ///
    /// If this future is dropped before it completes, the store and the cache may differ. Callers
    /// therefore run the future in [`run_to_completion`](Self::run_to_completion).
    pub(crate) async fn revoke(&self, id: &str) -> Result<(), Error> {
        let (slot, writer) = (self.0.slot(id), self.0.writer()?);
        self.delete_entry(id, writer.overwrite(&slot, &Record::default()))
            .await
    }

    /// Deletes the record of a login in the store and in the cache, unless another write has
    /// replaced the record.
    pub(crate) async fn discard_login(&self, id: &str, login: &Record) -> Result<(), Error> {
        let (slot, writer) = (self.0.slot(id), self.0.writer()?);
        let stored = self.0.store.load(&slot).await?;
        let secret = |record: &Record| record.token.as_ref().map(|token| token.secret.clone());
        if secret(&stored.record) != secret(login) {
            return Ok(());
        }
        let nothing = Record::default();
        let delete = async {
            let delete = writer.replace(&slot, &stored.expected, &nothing);
            delete.await.map(drop)
        };
        self.delete_entry(id, delete).await
    }

    /// Runs `delete`, which deletes the record in the store, and changes the cache.
    async fn delete_entry(
        &self,
        id: &str,
        delete: impl Future<Output = Result<(), Error>>,
    ) -> Result<(), Error> {
        let provider = &self.0;
        provider.cache.invalidate(id);
        let outcome = delete.await;
        // The cache is changed before the running call is detached. A call that starts in between
        // therefore finds its snapshot outdated.
        provider.cache.invalidate(id);
        provider.calls.detach(id);
        provider.update_cached_gauge();
        outcome
    }
}

/// Returns `true` if WeChat issued the stored token later than that of a login. The expiry of a
/// token shows when WeChat issued it.
fn is_issued_later(stored: &Record, login: &Record) -> bool {
    match (&stored.token, &login.token) {
        (Some(stored), Some(login)) => {
            stored.secret != login.secret
                && stored.lifetime.expires_at() > login.lifetime.expires_at()
        }
        (None | Some(_), None) | (None, Some(_)) => false,
    }
}
