//! Health of a process, for the health check of a load balancer.
//!
//! # Ready
//!
//! A process is ready if it can read and write in the store now, because logins and renewals need
//! both. These conditions make a process not ready, and the JSON contains the reason:
//!
//! | Redis | reply |
//! |---|---|
//! | is unreachable, loading or busy | none, `LOADING`, `BUSY` |
//! | has no free memory | `OOM` |
//! | cannot save to its disk | `MISCONF` |
//! | has too few replicas | `NOREPLICAS` |
//! | has become a replica | `READONLY` |
//! | does not permit a command to this user | `NOPERM` |
//! | has a key of another type under the configured name of a hash | `WRONGTYPE` |
//!
//! The check runs each command that a login or a renewal needs, on a key that only the check uses.
//! The check also deletes a field that does not exist from each configured hash.
//!
//! A process that is not ready may still serve some users: see [`ServiceLevel`]. The account's
//! token and the state of WeChat do not affect readiness, because they are the same for all
//! processes.
//!
//! ```
//! use tower_wechat::{UserTokens, health};
//!
//! /// Returns the status code that a load balancer reads.
//! async fn healthz(users: UserTokens) -> http::StatusCode {
//!     if health(&users, None).await.is_ready() {
//!         http::StatusCode::OK
//!     } else {
//!         http::StatusCode::SERVICE_UNAVAILABLE
//!     }
//! }
//! ```

use std::time::Duration;

use serde::ser::{Serialize, SerializeStruct, Serializer};

use crate::accounts::AccountTokens;
use crate::error::Error;
use crate::users::UserTokens;

/// Health of a process: the state of the store and of the account's token. Returned by [`health`].
///
/// If the process is ready, the JSON is `{"status": "ok", "store": "ok", "serves": "everyone",
/// "account_token": "alive", "account_token_expires_in_secs": 6000}`. If it is not ready, the JSON
/// is `{"status": "unavailable", "store": "store_unavailable", "serves": "stored_tokens", "reason":
/// "the memory of Redis is full, and it refuses writes", …}`.
///
/// `store` is the [code](crate::ErrorKind::code) of the store's error, `serves` is the
/// [`ServiceLevel`], and `account_token` is `unavailable` if the process has no token of the
/// account. The JSON contains no secret and no address.
///
/// ```
/// use tower_wechat::{Error, UserTokens, health};
///
/// async fn check(users: &UserTokens) -> Result<(), Error> {
///     let health = health(users, None).await;
///     if !health.is_ready() {
///         println!("not ready: {}", serde_json::json!(health));
///         println!("still serves: {}", health.service_level().as_str());
///     }
///     health.store
/// }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Health {
    /// Result of the check that this process can read and write in the store.
    pub store: Result<(), Error>,
    /// State of the account's token.
    pub account_token: AccountTokenHealth,
}

/// State of the account's token in the cache of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AccountTokenHealth {
    /// The process has a token, which expires after this time.
    Available(Duration),
    /// The process has no unexpired token: it has not fetched one yet, or WeChat returned none.
    Unavailable,
    /// The state is unknown, because [`health`] was called without `accounts`.
    NotConfigured,
}

/// The users that a process can serve now.
///
/// ```
/// use tower_wechat::health::{Health, ServiceLevel};
///
/// /// Returns `true` if users who are signed in do not notice anything yet.
/// fn is_quiet(health: &Health) -> bool {
///     matches!(health.service_level(), ServiceLevel::Everyone | ServiceLevel::StoredTokens)
/// }
/// assert_eq!(ServiceLevel::StoredTokens.as_str(), "stored_tokens");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServiceLevel {
    /// All users. They can log in, and their tokens are renewed.
    Everyone,
    /// Only users with a usable token in the store or in memory. The store rejects writes, so users
    /// cannot log in and tokens are not renewed.
    StoredTokens,
    /// Users with a usable token in the memory of this process. The store is unreachable.
    CachedTokens,
}

impl ServiceLevel {
    /// Returns the name of this level in the JSON of [`Health`].
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Everyone => "everyone",
            Self::StoredTokens => "stored_tokens",
            Self::CachedTokens => "cached_tokens",
        }
    }
}

impl Health {
    /// Returns `true` if the process can read and write in the store, and so should receive
    /// requests. The account's token is not needed, because users can be served without it.
    pub fn is_ready(&self) -> bool {
        self.store.is_ok()
    }

    /// Returns which group of users the process can serve now.
    pub fn service_level(&self) -> ServiceLevel {
        match &self.store {
            Ok(()) => ServiceLevel::Everyone,
            Err(error) if error.store_diagnosis().serves_reads => ServiceLevel::StoredTokens,
            Err(_) => ServiceLevel::CachedTokens,
        }
    }
}

/// Checks that the store can be read and written, and reads the state of the account's token from
/// the cache.
///
/// Each command takes at most the store's timeout (1 second). A result is reused for one second,
/// unless the check's first command, a read, failed. The check does not call WeChat, because an
/// outage of WeChat must not restart processes.
///
/// ```
/// use axum::Json;
/// use axum::http::StatusCode;
/// use tower_wechat::health::Health;
/// use tower_wechat::{AccountTokens, UserTokens, health};
///
/// async fn healthz(users: UserTokens, accounts: AccountTokens) -> (StatusCode, Json<Health>) {
///     let health = health(&users, Some(&accounts)).await;
///     let status = match health.is_ready() {
///         true => StatusCode::OK,
///         false => StatusCode::SERVICE_UNAVAILABLE,
///     };
///     (status, Json(health))
/// }
/// ```
pub async fn health(users: &UserTokens, accounts: Option<&AccountTokens>) -> Health {
    Health {
        store: users.health().await,
        account_token: match accounts {
            None => AccountTokenHealth::NotConfigured,
            Some(accounts) => accounts.remaining_lifetime().map_or(
                AccountTokenHealth::Unavailable,
                AccountTokenHealth::Available,
            ),
        },
    }
}

impl Serialize for Health {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("Health", 6)?;
        let (status, store) = match &self.store {
            Ok(()) => ("ok", "ok"),
            Err(error) => ("unavailable", error.kind().code()),
        };
        out.serialize_field("status", status)?;
        out.serialize_field("store", store)?;
        out.serialize_field("serves", self.service_level().as_str())?;
        if let Err(error) = &self.store {
            let reason = error.store_diagnosis().reason;
            out.serialize_field("reason", reason.unwrap_or("the store does not answer"))?;
        }
        match self.account_token {
            AccountTokenHealth::Available(left) => {
                out.serialize_field("account_token", "alive")?;
                out.serialize_field("account_token_expires_in_secs", &left.as_secs())?;
            }
            AccountTokenHealth::Unavailable => {
                out.serialize_field("account_token", "unavailable")?;
            }
            AccountTokenHealth::NotConfigured => {}
        }
        out.end()
    }
}
