//! Health of a process, for the endpoint of a load balancer.
//!
//! # What ready means
//!
//! A process is ready when it can read **and write** in the store now: only then can users log in
//! and tokens be renewed. Every condition follows this one rule. A server that is unreachable,
//! loading or busy, a full memory (`OOM`), a disk that cannot be saved to (`MISCONF`), too few
//! replicas (`NOREPLICAS`), a primary that has become a replica (`READONLY`) and a missing right
//! (`NOPERM`) all make it not ready, with the reason beside it. So does a configured hash name under
//! which a key of another type lies (`WRONGTYPE`). The check runs every command that a login or a
//! renewal needs, on a key of its own, and deletes a field that does not exist from those hashes.
//!
//! What is still served meanwhile is told apart, see [`ServiceLevel`]. The account's token and WeChat are
//! not part of the rule: another process would not have them either.
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

/// Health of a process: whether it can read and write in the store, and whether it holds an
/// unexpired token of the account. Created by [`health`].
///
/// Written as JSON it says `{"status": "ok", "store": "ok", "serves": "everyone", "account_token":
/// "alive", "account_token_expires_in_secs": 6000}`. A process that is not ready says
/// `{"status": "unavailable", "store": "store_unavailable", "serves": "stored_tokens", "reason":
/// "the memory of Redis is full, and it refuses writes", …}`: the [code](crate::ErrorKind::code) of
/// the store's error, [what is still served](ServiceLevel), and why. A missing token is `unavailable`.
/// Nothing in it is secret, and no address.
///
/// ```
/// use tower_wechat::{Error, UserTokens, health};
///
/// async fn check(users: &UserTokens) -> Result<(), Error> {
///     let health = health(users, None).await;
///     if !health.is_ready() {
///         println!("not ready: {}", serde_json::json!(health));
///         println!("served all the same: {}", health.service_level().as_str());
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
///
/// ```
/// use tower_wechat::health::{AccountTokenHealth, Health};
///
/// /// A line for the page that the people on call look at.
/// fn account_token(health: &Health) -> String {
///     match health.account_token {
///         AccountTokenHealth::Available(left) => format!("lives for {} s", left.as_secs()),
///         AccountTokenHealth::NotConfigured => "is not kept here".to_owned(),
///         _ => "is missing".to_owned(),
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AccountTokenHealth {
    /// The process holds a token, which expires after this time.
    Available(Duration),
    /// The process holds no token: none was requested, or none could be obtained.
    Unavailable,
    /// [`health`] was called without the account's tokens.
    NotConfigured,
}

/// Set of users that a process can serve at the moment.
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
    /// Everyone: users log in, and tokens are renewed.
    Everyone,
    /// Users with a usable token in the store or in memory. The store refuses writes, so nobody logs
    /// in and no token is renewed.
    StoredTokens,
    /// Users with a usable token in this process' memory. The store does not answer.
    CachedTokens,
}

impl ServiceLevel {
    /// Returns the name in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Everyone => "everyone",
            Self::StoredTokens => "stored_tokens",
            Self::CachedTokens => "cached_tokens",
        }
    }
}

impl Health {
    /// Returns `true` if the process should get requests: it can read and write in the store. Without
    /// the account's token users are served all the same, so its absence takes no process out of
    /// service.
    pub fn is_ready(&self) -> bool {
        self.store.is_ok()
    }

    /// Returns who is served at the moment.
    pub fn service_level(&self) -> ServiceLevel {
        match &self.store {
            Ok(()) => ServiceLevel::Everyone,
            Err(error) if error.store_diagnosis().serves_reads => ServiceLevel::StoredTokens,
            Err(_) => ServiceLevel::CachedTokens,
        }
    }
}

/// Checks that the store can be read and written, and reads the state of the account's token from
/// the cache. Each command waits for the store's timeout (1 second) at most. A result is reused
/// for a second, unless the reads failed. Never calls WeChat: an outage of WeChat is no reason to restart.
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
