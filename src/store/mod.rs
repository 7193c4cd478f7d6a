//! Stores of credentials: Redis, which all processes share, or the memory of one process.
//!
//! A store provides the atomic operations on which the guarantees of this crate depend. A lease
//! lets one process at a time renew a credential (one renewal). A commit writes only if the stored
//! values have not changed since the read (newest wins).

mod code;
mod credential;
#[cfg(feature = "platform")]
mod external_platform;
mod invalidation;
mod kind;
mod memory;
#[cfg(feature = "platform")]
mod platform;
mod quota;
#[cfg(feature = "redis")]
pub(crate) mod redis;
#[cfg(all(test, feature = "redis"))]
mod tests;
mod traits;

pub(crate) use self::code::{
    CodeBindResult, CodeLeaseResult, LoginCodeKey, PendingResponse, Suspension,
};
use self::credential::replaced_refresh_token;
pub(crate) use self::credential::{
    CommitResult, CredentialKey, CredentialSlot, Expected, LeaseOwner, LeaseResult,
    MIN_TOMBSTONE_TTL, ReadOutcome, ReplaceResult, StoredRecord,
};
#[cfg(feature = "platform")]
pub(crate) use self::external_platform::ExternalPlatformReader;
pub(crate) use self::invalidation::{Event, Invalidation, RecordVersion, Subscription};
pub(crate) use self::kind::CredentialKind;
pub use self::memory::MemoryStore;
#[cfg(feature = "platform")]
pub(crate) use self::platform::{
    Authorization, AuthorizationList, AuthorizationLookup, AuthorizationState, DurableSecret,
    DurableSecretKey, PlatformChange, StoredSecret,
};
pub(crate) use self::quota::Quota;
#[cfg(all(feature = "redis", feature = "platform"))]
pub use self::redis::ExternalPlatform;
#[cfg(feature = "redis")]
pub(crate) use self::redis::ExternalTokenStore;
#[cfg(all(feature = "redis", feature = "platform"))]
pub(crate) use self::redis::FollowedPlatform;
#[cfg(feature = "cli")]
pub use self::redis::admin;
#[cfg(feature = "redis")]
pub use self::redis::{
    ExternalToken, Layout, RedisNames, RedisStore, RedisStoreBuilder, SweepReport,
};
#[cfg(feature = "sealing")]
pub use self::redis::{SealingKeys, SealingMode};
pub use self::traits::Store;
pub(crate) use self::traits::{
    AccountSeparation, BoxFuture, CredentialReader, CredentialWriter, InvalidationSource,
    LoginCodeStore, QuotaStore, RevocationStore,
};
#[cfg(feature = "platform")]
pub(crate) use self::traits::{AuthorizationStore, DurableSecretStore};
