//! The traits of a store, one for each purpose, and the public marker [`Store`].
//!
//! Only [`Store`] can be named outside this crate. Its supertraits are private, so that no other
//! crate can implement it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use super::code::{CodeBindResult, CodeLeaseResult, LoginCodeKey, Suspension};
use super::credential::{
    CommitResult, CredentialKey, CredentialSlot, Expected, LeaseOwner, LeaseResult, ReadOutcome,
    ReplaceResult, StoredRecord, Visitor,
};
use super::invalidation::Subscription;
use super::kind::CredentialKind;
#[cfg(feature = "platform")]
use super::platform::{
    Authorization, AuthorizationList, AuthorizationLookup, DurableSecret, DurableSecretKey,
    StoredSecret,
};
use super::quota::Quota;
use crate::clock::Timestamp;
use crate::credential::{AppId, Record};
use crate::error::Error;

/// A boxed future. The allocation is small compared with the round trip of a store.
pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A store of credentials: [`RedisStore`](crate::RedisStore) or
/// [`MemoryStore`](crate::MemoryStore).
///
/// Other crates cannot implement this trait, because the guarantees of this crate depend on the
/// atomic operations of its stores.
///
/// ```
/// use tower_wechat::{Store, UserTokens, WechatClient};
///
/// /// The same service on whichever store.
/// fn users(wechat: WechatClient, store: impl Store) -> UserTokens {
///     UserTokens::new(wechat, store)
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a store",
    label = "neither a `RedisStore` nor a `MemoryStore`",
    note = "connecting takes time and may fail: `RedisStore::connect(url).await?`",
    note = "pass the store without an `Arc` or a reference: clones are cheap, and share all entries"
)]
pub trait Store: EngineStore {}

/// All operations that this crate needs from a store, as one trait.
#[allow(unnameable_types)]
pub trait EngineStore:
    CredentialReader
    + CredentialWriter
    + LoginCodeStore
    + QuotaStore
    + RevocationStore
    + InvalidationSource
    + AccountSeparation
    + PlatformStore
{
}

impl<S> EngineStore for S where
    S: CredentialReader
        + CredentialWriter
        + LoginCodeStore
        + QuotaStore
        + RevocationStore
        + InvalidationSource
        + AccountSeparation
        + PlatformStore
{
}

/// Reads credentials.
#[allow(unnameable_types)]
pub trait CredentialReader: fmt::Debug + Send + Sync + 'static {
    /// Reads the record of a slot.
    fn load<'a>(&'a self, slot: &'a CredentialSlot) -> BoxFuture<'a, Result<StoredRecord, Error>>;

    /// Returns the key of an account's token for errors, without secrets. Empty unless another
    /// system writes the key.
    fn key_for_errors(&self, _app: &AppId) -> String {
        String::new()
    }

    /// Reads the record of a slot and passes a view of the record to `visit`. Returns the record if
    /// `visit` rejects it. Stops waiting after `timeout`.
    fn read_with<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        timeout: Duration,
        visit: &'a mut Visitor<'_>,
    ) -> BoxFuture<'a, Result<ReadOutcome, Error>> {
        Box::pin(async move {
            let Ok(loaded) = tokio::time::timeout(timeout, self.load(slot)).await else {
                return Ok(ReadOutcome::TimedOut);
            };
            let stored = loaded?;
            Ok(match visit(&stored.record.view()) {
                true => ReadOutcome::Accepted,
                false => ReadOutcome::Rejected(stored),
            })
        })
    }

    /// Checks that the store can serve credentials of this account and kind. A Redis store for
    /// reads and writes also checks that writes and scripts succeed.
    fn check_health<'a>(
        &'a self,
        app: &'a AppId,
        kind: CredentialKind,
    ) -> BoxFuture<'a, Result<(), Error>>;
}

/// Renews, replaces and deletes credentials.
#[allow(unnameable_types)]
pub trait CredentialWriter: CredentialReader {
    /// Acquires the lease of a slot for `ttl`, if the slot still holds `expected` and no other
    /// owner holds the lease.
    ///
    /// The store compares and acquires in one atomic step. When the caller has acquired the lease,
    /// the values that it read before are therefore still current (one renewal).
    fn acquire_lease<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        expected: &'a Expected,
        owner: &'a LeaseOwner,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<LeaseResult, Error>>;

    /// Does what [`acquire_lease`](Self::acquire_lease) does, for a caller that already holds the
    /// lease and extends it. Also writes a tombstone that names the refresh token of `expected`, in
    /// the same atomic step.
    ///
    /// WeChat may have granted another process a successor of that refresh token. With the
    /// tombstone, that process can commit the successor although it does not hold the lease.
    fn announce_deletion<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        expected: &'a Expected,
        owner: &'a LeaseOwner,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<LeaseResult, Error>>;

    /// Replaces `expected` with `record` and releases the lease, in one atomic step. An empty
    /// record deletes `expected`. Writes nothing if the slot holds other values (newest wins), or
    /// another owner holds the lease.
    ///
    /// There is one exception. If a tombstone names the refresh token that `record` replaces, the
    /// store also writes into an empty slot, and while another owner holds the lease. WeChat has
    /// rejected that refresh token for the other owner, so the other owner cannot have anything
    /// newer (nothing lost).
    fn commit<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        expected: &'a Expected,
        record: &'a Record,
        owner: &'a LeaseOwner,
    ) -> BoxFuture<'a, Result<CommitResult, Error>>;

    /// Deletes `expected`, writes a tombstone that names its refresh token, and releases the lease,
    /// in one atomic step. Deletes nothing if the slot holds other values, or another owner holds
    /// the lease. Every later write to the slot removes or replaces the tombstone.
    fn commit_deletion<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        expected: &'a Expected,
        owner: &'a LeaseOwner,
    ) -> BoxFuture<'a, Result<CommitResult, Error>>;

    /// Releases the lease without writing a record, if `owner` holds the lease. Returns `true` if
    /// so.
    fn release_lease<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        owner: &'a LeaseOwner,
    ) -> BoxFuture<'a, Result<bool, Error>>;

    /// Writes a record whatever the slot holds: a logout is newer than all earlier records (newest
    /// wins). An empty record deletes the stored one. The write also removes the tombstone,
    /// so that no pending commit can undo a logout.
    fn overwrite<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        record: &'a Record,
    ) -> BoxFuture<'a, Result<(), Error>>;

    /// Does the same as [`overwrite`](Self::overwrite), but only if the slot still holds the raw
    /// values `expected`. Otherwise writes nothing and returns the current record. Neither needs nor
    /// changes a lease.
    fn replace<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        expected: &'a Expected,
        record: &'a Record,
    ) -> BoxFuture<'a, Result<ReplaceResult, Error>>;
}

/// Coordinates the exchange of login codes, which WeChat accepts once.
#[allow(unnameable_types)]
pub trait LoginCodeStore: fmt::Debug + Send + Sync + 'static {
    /// Binds a code to the login with this number for `ttl`, unless the code is bound to another
    /// login. A second call for the same login extends the binding.
    fn bind_code<'a>(
        &'a self,
        code: &'a LoginCodeKey,
        login: u64,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<CodeBindResult, Error>>;

    /// Acquires the lease of a code for `ttl`, unless another owner holds the lease or the exchange
    /// of the code has finished. Returns the response of a suspended exchange with the lease.
    fn acquire_code<'a>(
        &'a self,
        code: &'a LoginCodeKey,
        owner: &'a LeaseOwner,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<CodeLeaseResult, Error>>;

    /// Releases the lease of a code, if `owner` holds the lease. Returns `true` if so.
    fn release_code<'a>(
        &'a self,
        code: &'a LoginCodeKey,
        owner: &'a LeaseOwner,
    ) -> BoxFuture<'a, Result<bool, Error>>;

    /// Stores the outcome of an exchange for `ttl`, and deletes the response of a suspended exchange
    /// in the same atomic step. With an `owner`, writes only if that owner holds the lease of the
    /// code. Without an `owner`, always writes.
    fn finish_code<'a>(
        &'a self,
        code: &'a LoginCodeKey,
        owner: Option<&'a LeaseOwner>,
        outcome: &'a str,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<(), Error>>;

    /// Suspends an exchange: stores an outcome for a short time, and WeChat's response for longer,
    /// in one atomic step. After that short time, the next owner of the lease receives the
    /// response. Returns `false` and writes nothing if another owner holds the lease, or if the
    /// exchange has finished.
    fn suspend_code<'a>(
        &'a self,
        code: &'a LoginCodeKey,
        owner: &'a LeaseOwner,
        suspension: &'a Suspension<'a>,
    ) -> BoxFuture<'a, Result<bool, Error>>;
}

/// Counts the uses of quotas.
#[allow(unnameable_types)]
pub trait QuotaStore: fmt::Debug + Send + Sync + 'static {
    /// Counts one use of a quota and returns `true`. If the quota is used up, returns `false`
    /// instead.
    fn try_consume<'a>(&'a self, quota: &'a Quota) -> BoxFuture<'a, Result<bool, Error>>;
}

/// Stores the time at which a user last logged out everywhere.
#[allow(unnameable_types)]
pub trait RevocationStore: fmt::Debug + Send + Sync + 'static {
    /// Stores `at` for `ttl` as the time at which the user logged out everywhere. If a time is
    /// already stored and is `at` or later, stores that time plus one millisecond instead. So two
    /// logouts of one user never have the same time.
    fn set_revoked_at<'a>(
        &'a self,
        key: &'a CredentialKey,
        at: Timestamp,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<(), Error>>;

    /// Returns the time at which the user last logged out everywhere. Returns `None` if no such
    /// time is stored, or its TTL has expired.
    fn revoked_at<'a>(
        &'a self,
        key: &'a CredentialKey,
    ) -> BoxFuture<'a, Result<Option<Timestamp>, Error>>;
}

/// Reports the writes of credentials to subscribers in this process.
#[allow(unnameable_types)]
pub trait InvalidationSource: fmt::Debug + Send + Sync + 'static {
    /// Subscribes to all writes to the credentials of an account, by this process and by all others
    /// that share the store. A Redis store returns `None` outside of a Tokio runtime.
    fn subscribe(&self, app: &AppId) -> Option<Subscription>;
}

/// Keeps the records of several accounts apart.
#[allow(unnameable_types)]
pub trait AccountSeparation: fmt::Debug + Send + Sync + 'static {
    /// Checks that two accounts never share a record in this store. Fails if a name that the store
    /// uses for the records of every account does not contain the AppID.
    fn check_several_accounts(&self) -> Result<(), Error>;
}

/// What a third-party platform needs from a store.
#[cfg(feature = "platform")]
#[allow(unnameable_types)]
pub trait PlatformStore: DurableSecretStore + AuthorizationStore {}

#[cfg(feature = "platform")]
impl<S: DurableSecretStore + AuthorizationStore> PlatformStore for S {}

/// Without the feature `platform`, a platform needs nothing from a store.
#[cfg(not(feature = "platform"))]
#[allow(unnameable_types)]
pub trait PlatformStore {}

#[cfg(not(feature = "platform"))]
impl<S> PlatformStore for S {}

/// Keeps the secrets of a third-party platform that cannot be fetched again: its verify ticket, and
/// the refresh tokens of its accounts.
#[cfg(feature = "platform")]
#[allow(unnameable_types)]
pub trait DurableSecretStore: fmt::Debug + Send + Sync + 'static {
    /// Reads a durable secret. A value that cannot be read counts as missing, and is logged once.
    fn load_secret<'a>(
        &'a self,
        key: &'a DurableSecretKey,
    ) -> BoxFuture<'a, Result<StoredSecret, Error>>;

    /// Replaces `expected` with `value` and publishes the change, in one atomic step. `None`
    /// deletes the secret.
    ///
    /// Returns `true` if the store holds `value` afterwards. That includes a value that an earlier
    /// call has written whose reply was lost. Returns `false` and writes nothing if the store holds
    /// something else. Fails without a write if `value` cannot be stored, and if the stored value
    /// is sealed with a key that this process does not have.
    fn replace_secret<'a>(
        &'a self,
        key: &'a DurableSecretKey,
        expected: &'a Expected,
        value: Option<&'a DurableSecret>,
    ) -> BoxFuture<'a, Result<bool, Error>>;

    /// Returns the reasons why the store may lose durable secrets, one sentence for each reason.
    /// Returns nothing if the server does not say how it keeps its data.
    fn durability_risks(&self) -> BoxFuture<'_, Vec<String>>;
}

/// Keeps the list of the accounts of a third-party platform.
#[cfg(feature = "platform")]
#[allow(unnameable_types)]
pub trait AuthorizationStore: fmt::Debug + Send + Sync + 'static {
    /// Stores the entry of an account and returns `true`, unless a newer entry is stored. An entry
    /// of the same time is replaced. Returns `false` and writes nothing if a newer entry is stored.
    ///
    /// The store compares and writes in one atomic step, and publishes a change of the state.
    fn record_authorization<'a>(
        &'a self,
        component: &'a AppId,
        account: &'a AppId,
        entry: Authorization,
    ) -> BoxFuture<'a, Result<bool, Error>>;

    /// Reads the entry of an account.
    fn authorization<'a>(
        &'a self,
        component: &'a AppId,
        account: &'a AppId,
    ) -> BoxFuture<'a, Result<AuthorizationLookup, Error>>;

    /// Reads the entries of all accounts, in bounded steps. Entries that are written meanwhile may
    /// be missing.
    fn authorizations<'a>(
        &'a self,
        component: &'a AppId,
    ) -> BoxFuture<'a, Result<AuthorizationList, Error>>;

    /// Stores the time at which the list of all accounts was complete, unless a later time is
    /// stored.
    fn set_listed<'a>(
        &'a self,
        component: &'a AppId,
        at: Timestamp,
    ) -> BoxFuture<'a, Result<(), Error>>;
}
