//! Redis as the store that all processes share.

#[cfg(feature = "cli")]
pub mod admin;
#[cfg(feature = "platform")]
mod authorizations;
mod batch_pause;
mod builder;
mod circuit_breaker;
mod cluster_slots;
mod codec;
mod connection;
#[cfg(feature = "platform")]
mod durability;
#[cfg(feature = "platform")]
mod durable_secrets;
mod external;
#[cfg(feature = "platform")]
mod external_platform;
mod external_store;
#[cfg(feature = "platform")]
mod followed_platform;
pub(crate) mod format;
#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod freed_memory;
mod hash_tag;
mod health;
mod health_cache;
mod invalidation;
mod key_names;
mod key_registry;
#[cfg(any(feature = "cli", feature = "platform"))]
mod key_scan;
mod layout;
mod locations;
mod login_codes;
mod publish;
mod publish_state;
mod quota;
mod raw_values;
mod read;
mod read_batches;
mod revocation;
mod scripts;
mod seal;
mod serializer_check;
mod step_batches;
mod store;
mod sweep;
mod write;

pub use self::builder::RedisStoreBuilder;
pub use self::external::ExternalToken;
#[cfg(feature = "platform")]
pub use self::external_platform::ExternalPlatform;
pub(crate) use self::external_store::ExternalTokenStore;
#[cfg(feature = "platform")]
pub(crate) use self::followed_platform::FollowedPlatform;
#[cfg(feature = "sealing")]
pub use self::format::keys::{SealingKeys, SealingMode};
pub use self::layout::{Layout, RedisNames};
pub use self::store::RedisStore;
pub use self::sweep::SweepReport;
