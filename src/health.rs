//! Whether a process can do its work, for the endpoint that a load balancer asks.

use std::time::Duration;

use serde::ser::{Serialize, SerializeStruct, Serializer};

use crate::accounts::AccountTokens;
use crate::error::Error;
use crate::users::UserTokens;

/// Whether a process can do its work: whether the store answers, and whether the account's token
/// is alive. Made by [`health`].
///
/// Written as JSON it says `{"status": "ok", "store": "ok", "account_token": "alive",
/// "account_token_expires_in_secs": 6000}`; the words are `unavailable` for a missing token and the
/// [code](crate::ErrorKind::code) of the store's error. Nothing in it is secret.
///
/// ```
/// use tower_wechat::{Error, UserTokens, health};
///
/// async fn check(users: &UserTokens) -> Result<(), Error> {
///     let health = health(users, None).await;
///     if !health.is_ready() {
///         println!("not ready: {}", serde_json::json!(health));
///     }
///     health.store
/// }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Health {
    /// Whether the store answers. While it does not, users whose tokens are in memory are served
    /// and nobody else.
    pub store: Result<(), Error>,
    /// The account's own token.
    pub account_token: AccountTokenHealth,
}

/// What a process knows of the account's token, without asking anybody.
///
/// ```
/// use tower_wechat::{AccountTokenHealth, Health};
///
/// /// A line for the page that the people on call look at.
/// fn account_token(health: &Health) -> String {
///     match health.account_token {
///         AccountTokenHealth::Alive(left) => format!("lives for {} s", left.as_secs()),
///         AccountTokenHealth::NotKept => "is not kept here".to_owned(),
///         _ => "is missing".to_owned(),
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AccountTokenHealth {
    /// This process holds one that lives for so long yet.
    Alive(Duration),
    /// It holds none: none has been asked for, or none could be had.
    Unavailable,
    /// [`health`] was not asked about it.
    NotKept,
}

impl Health {
    /// Whether the process should get requests: the store answers. Without the account's token
    /// users are served all the same, so its absence takes no process out of service.
    pub fn is_ready(&self) -> bool {
        self.store.is_ok()
    }
}

/// Asks the store whether it answers, within the store's time (1 second), and looks at the
/// account's token in memory. Never asks WeChat: a WeChat that is down is no reason to restart.
///
/// ```
/// use axum::Json;
/// use axum::http::StatusCode;
/// use tower_wechat::{AccountTokens, Health, UserTokens, health};
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
            None => AccountTokenHealth::NotKept,
            Some(accounts) => accounts
                .alive_for()
                .map_or(AccountTokenHealth::Unavailable, AccountTokenHealth::Alive),
        },
    }
}

impl Serialize for Health {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("Health", 4)?;
        let (status, store) = match &self.store {
            Ok(()) => ("ok", "ok"),
            Err(error) => ("unavailable", error.kind().code()),
        };
        out.serialize_field("status", status)?;
        out.serialize_field("store", store)?;
        match self.account_token {
            AccountTokenHealth::Alive(left) => {
                out.serialize_field("account_token", "alive")?;
                out.serialize_field("account_token_expires_in_secs", &left.as_secs())?;
            }
            AccountTokenHealth::Unavailable => {
                out.serialize_field("account_token", "unavailable")?;
            }
            AccountTokenHealth::NotKept => {}
        }
        out.end()
    }
}
