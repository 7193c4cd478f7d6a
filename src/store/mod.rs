//! Where credentials are kept: Redis, shared by all processes, or the memory of one.
//!
//! A store keeps the promises that need atomic steps: one lease holder per credential (R1), commits
//! that compare before they set (R2), and reads of a whole record at once.

mod code;
mod invalidation;
mod memory;
#[cfg(feature = "redis")]
pub(crate) mod redis;
#[cfg(all(test, feature = "redis"))]
mod tests;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use zeroize::Zeroizing;

pub(crate) use self::code::{CodeBindResult, CodeLeaseResult, LoginCodeKey};
pub(crate) use self::invalidation::{Event, Invalidation, RecordVersion, Subscription};
pub use self::memory::MemoryStore;
#[cfg(feature = "redis")]
pub(crate) use self::redis::ExternalTokenStore;
#[cfg(feature = "cli")]
pub use self::redis::admin;
#[cfg(feature = "redis")]
pub use self::redis::{
    ExternalToken, Layout, RedisNames, RedisStore, RedisStoreBuilder, SweepReport,
};
#[cfg(feature = "sealing")]
pub use self::redis::{SealingKeys, SealingMode};
use crate::clock::Timestamp;
use crate::credential::{AppId, Record, RecordView};
use crate::error::Error;

/// A future on the heap: stores are asked only where a round trip makes that cost vanish.
pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Which of the credentials that one engine keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CredentialKind {
    /// A user's pair.
    User,
    /// The token of a virtual user of a snapshot page (快照页), kept no longer than it lives.
    SnapshotUser,
    /// The account's interface access_token.
    AccountToken,
    /// The account's jsapi_ticket.
    JsapiTicket,
}

impl CredentialKind {
    /// All there are.
    #[cfg(feature = "redis")]
    pub(crate) const ALL: [Self; 4] = [
        Self::User,
        Self::SnapshotUser,
        Self::AccountToken,
        Self::JsapiTicket,
    ];

    /// Whether it belongs to the account itself, and not to one of its users.
    pub const fn belongs_to_account(self) -> bool {
        matches!(self, Self::AccountToken | Self::JsapiTicket)
    }

    /// The name of the kind in keys, logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::SnapshotUser => "snapshot_user",
            Self::AccountToken => "access_token",
            Self::JsapiTicket => "jsapi_ticket",
        }
    }
}

/// What names a credential: everything that changes what it is (R1).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CredentialKey {
    /// The account.
    pub app: AppId,
    /// The kind of credential.
    pub kind: CredentialKind,
    /// The user id; empty for the account's own credentials.
    pub id: Box<str>,
}

/// The place of one credential in a store.
#[derive(Debug, Clone)]
pub struct CredentialSlot {
    /// Whose and what it is.
    pub key: CredentialKey,
    /// The margin that stored times are written with: true expiry less renewal point.
    pub margin: Duration,
}

/// What lay in a slot when it was read: the proof that a commit compares against (R2).
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Expected(Vec<Option<Zeroizing<Vec<u8>>>>);

impl fmt::Debug for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Witness(***)")
    }
}

/// A record together with the proof of what it was read from.
#[derive(Debug, Clone, Default)]
pub struct StoredRecord {
    /// What could be read; unreadable halves are missing.
    pub record: Record,
    /// Exactly what lay there.
    pub expected: Expected,
}

/// Takes from a record what it is looked at for, if that is there.
pub(crate) type Visitor<'a> = dyn FnMut(&RecordView<'_>) -> bool + Send + 'a;

/// What came of a glance at a slot.
#[derive(Debug)]
pub enum ReadOutcome {
    /// Whoever looked has what they wanted.
    Accepted,
    /// They have no use for this, which has to be seen to.
    Rejected(StoredRecord),
    /// The store takes its time.
    TimedOut,
}

/// Who holds a lease: a name that no other engine in the world has. One engine renews a credential
/// once at a time, so it may take a lease again that it already has: its claim may have run
/// although the answer was lost.
#[derive(Clone, PartialEq, Eq)]
pub struct LeaseOwner(Box<str>);

impl LeaseOwner {
    /// A name that nobody else has.
    pub fn unique() -> Self {
        let mut bytes = [0; 16];
        if getrandom::fill(&mut bytes).is_err() {
            // Without the system's randomness a name is still unlike any other of this process.
            bytes = fastrand::u128(..).to_be_bytes();
        }
        Self(format!("{:032x}", u128::from_be_bytes(bytes)).into())
    }

    /// A name of its own for each number.
    pub fn with_number(&self, number: u64) -> Self {
        Self(format!("{}-{number}", self.0).into())
    }

    #[cfg(feature = "redis")]
    fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for LeaseOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LeaseOwner({})", self.0)
    }
}

/// The answer to a request for a lease.
#[derive(Debug)]
pub enum LeaseResult {
    /// The lease is ours, and the slot still holds what was expected.
    Acquired,
    /// Somebody else is renewing; the slot still holds what was expected.
    Busy,
    /// The slot holds something else by now; no lease was taken.
    Conflict(StoredRecord),
}

/// The answer to a commit.
#[derive(Debug)]
pub enum CommitResult {
    /// Written, and the lease given back.
    Committed,
    /// Not written: the slot holds something newer. The lease was given back.
    Conflict(StoredRecord),
    /// Not written: our lease ran out and somebody else is renewing by now.
    LeaseLost,
}

/// How long a tombstone at least names the refresh token of a deleted pair. It outlives the time for which a
/// process offers a granted pair to the store.
pub(crate) const MIN_TOMBSTONE_TTL: Duration = Duration::from_secs(120);

/// Returns the refresh token that `record` succeeds: the one it was made from, if WeChat granted
/// another one for it.
fn replaced_refresh_token<'a>(previous: Option<&'a [u8]>, record: &Record) -> Option<&'a [u8]> {
    let refresh = record.refresh.as_ref()?;
    previous.filter(|before| *before != refresh.secret.expose().as_bytes())
}

/// Something that all processes of an account together may do only so often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    /// The account.
    pub app: AppId,
    /// What it is for, and for when where that is a day.
    pub purpose: Box<str>,
    /// How many uses there are.
    pub limit: u32,
    /// How long it lasts from its first use.
    pub window: Duration,
}

#[cfg(test)]
pub(crate) use self::sealed::Sealed;

mod sealed {
    #[allow(unnameable_types)]
    pub trait Sealed {}
    impl Sealed for super::MemoryStore {}
    #[cfg(feature = "redis")]
    impl Sealed for super::RedisStore {}
}

/// Where credentials are kept: [`RedisStore`](crate::RedisStore) or [`MemoryStore`].
///
/// Every method answers within a bounded time. The trait is sealed: its promises are the engine's.
///
/// ```
/// use tower_wechat::{Store, UserTokens, WechatClient};
///
/// /// The same service on whichever store.
/// fn users(wechat: WechatClient, store: impl Store) -> UserTokens {
///     UserTokens::new(wechat, store)
/// }
/// ```
pub trait Store: sealed::Sealed + fmt::Debug + Send + Sync + 'static {
    /// Reads a whole record in one round trip.
    #[doc(hidden)]
    fn load<'a>(&'a self, slot: &'a CredentialSlot) -> BoxFuture<'a, Result<StoredRecord, Error>>;

    /// Reads a whole record in one round trip and shows it to `look` where it lies; what `look`
    /// has no use for comes back as [`load`](Self::load) would bring it. Gives up after `within`.
    #[doc(hidden)]
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

    /// Takes the lease of a slot for `ttl`, if the slot still holds `expected` and nobody else has
    /// it. The comparison and the taking are one atomic step: what was read before the lease is
    /// thereby read again under it (R1).
    #[doc(hidden)]
    fn acquire_lease<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        expected: &'a Expected,
        owner: &'a LeaseOwner,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<LeaseResult, Error>>;

    /// Replaces `expected` by `record` (an empty one deletes) and gives the lease back, in one
    /// atomic step; nothing is written where the slot holds anything else (R2).
    ///
    /// A pair whose predecessor a tombstone names is also written where the slot is empty, and
    /// beside another holder of the lease: WeChat has told that holder that the predecessor is
    /// dead, so nothing newer can come of it (R3).
    #[doc(hidden)]
    fn commit<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        expected: &'a Expected,
        record: &'a Record,
        owner: &'a LeaseOwner,
    ) -> BoxFuture<'a, Result<CommitResult, Error>>;

    /// Claims the lease again and writes a tombstone that names the refresh token of `expected`,
    /// in one atomic step. From then on a process that holds the successor can commit it.
    #[doc(hidden)]
    fn announce_deletion<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        expected: &'a Expected,
        owner: &'a LeaseOwner,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<LeaseResult, Error>>;

    /// Deletes `expected`, leaves a tombstone that names its refresh token, and gives the lease
    /// back, in one atomic step; nothing is deleted where the slot holds anything else. A login, a
    /// logout and a commit remove the tombstone.
    #[doc(hidden)]
    fn commit_deletion<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        expected: &'a Expected,
        owner: &'a LeaseOwner,
    ) -> BoxFuture<'a, Result<CommitResult, Error>>;

    /// Gives a lease back without writing. Returns `true` if it was the owner's; another owner's
    /// lease stays theirs.
    #[doc(hidden)]
    fn release_lease<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        owner: &'a LeaseOwner,
    ) -> BoxFuture<'a, Result<bool, Error>>;

    /// Writes a record whatever lies there: a login beats everything before it (R2). An empty
    /// record deletes. Removes the tombstone, so that nothing comes back after a logout.
    #[doc(hidden)]
    fn overwrite<'a>(
        &'a self,
        slot: &'a CredentialSlot,
        record: &'a Record,
    ) -> BoxFuture<'a, Result<(), Error>>;

    /// Takes one use of an allowance. Answers whether there was one left.
    #[doc(hidden)]
    fn try_consume<'a>(&'a self, quota: &'a Quota) -> BoxFuture<'a, Result<bool, Error>>;

    /// Binds a code to the login of this number, unless it is bound to another one already. Where
    /// it is bound to this one, that lasts for `ttl` from now.
    #[doc(hidden)]
    fn bind_code<'a>(
        &'a self,
        code: &'a LoginCodeKey,
        login: u64,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<CodeBindResult, Error>>;

    /// Takes the right to exchange a code for `ttl`, unless somebody has it or has used it.
    #[doc(hidden)]
    fn acquire_code<'a>(
        &'a self,
        code: &'a LoginCodeKey,
        owner: &'a LeaseOwner,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<CodeLeaseResult, Error>>;

    /// Gives back the right to exchange a code. Returns `true` if it was the owner's.
    #[doc(hidden)]
    fn release_code<'a>(
        &'a self,
        code: &'a LoginCodeKey,
        owner: &'a LeaseOwner,
    ) -> BoxFuture<'a, Result<bool, Error>>;

    /// Says for `ttl` what came of a code. With `owner`, only if the right is still theirs.
    #[doc(hidden)]
    fn finish_code<'a>(
        &'a self,
        code: &'a LoginCodeKey,
        owner: Option<&'a LeaseOwner>,
        outcome: &'a str,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<(), Error>>;

    /// Remembers for `ttl` that a user has logged out everywhere, at `at` or just behind the last
    /// time: no two logouts of one user are at the same time, whatever clocks say.
    #[doc(hidden)]
    fn set_revoked_at<'a>(
        &'a self,
        key: &'a CredentialKey,
        at: Timestamp,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<(), Error>>;

    /// Returns when a user has last logged out everywhere, where that is remembered.
    #[doc(hidden)]
    fn revoked_at<'a>(
        &'a self,
        key: &'a CredentialKey,
    ) -> BoxFuture<'a, Result<Option<Timestamp>, Error>>;

    /// What is written to this account's credentials from now on, by whomever, this store's own
    /// engines included; none where the store cannot tell. Needs a runtime.
    #[doc(hidden)]
    fn subscribe(&self, _app: &AppId) -> Option<Subscription> {
        None
    }

    /// Returns whether credentials of this account and kind can be read and written now.
    #[doc(hidden)]
    fn check_health<'a>(
        &'a self,
        app: &'a AppId,
        kind: CredentialKind,
    ) -> BoxFuture<'a, Result<(), Error>>;
}
