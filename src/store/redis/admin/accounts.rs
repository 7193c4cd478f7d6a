//! Reports about a third-party platform and its accounts, without secrets.

use std::ops::ControlFlow;

use super::super::RedisStore;
use super::import::component_token_slot;
use super::task::ScanOptions;
use crate::clock::Timestamp;
use crate::credential::AppId;
use crate::error::Error;
use crate::store::{
    AuthorizationState, AuthorizationStore, CredentialReader, DurableSecretKey, DurableSecretStore,
};

/// A report about a platform, without secrets.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PlatformReport {
    /// The AppID of the platform.
    pub app_id: String,
    /// Seconds since WeChat has sent the verify ticket. `None` if no ticket is stored.
    pub ticket_age_secs: Option<i64>,
    /// The state of the component access token: `fresh`, `stale`, `expired` or `absent`.
    pub component_token: &'static str,
    /// Seconds since the complete list of accounts was stored. `None` if it never was.
    pub listed_secs_ago: Option<i64>,
    /// The number of accounts, in whichever state.
    pub accounts: u64,
}

impl PlatformReport {
    /// Returns `true` if Redis holds nothing of the platform.
    pub fn is_empty(&self) -> bool {
        let Self {
            app_id: _,
            ticket_age_secs,
            component_token,
            listed_secs_ago,
            accounts,
        } = self;
        ticket_age_secs.is_none()
            && *component_token == "absent"
            && listed_secs_ago.is_none()
            && *accounts == 0
    }
}

/// A report about an account of a platform, without secrets.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AccountReport {
    /// The AppID of the account.
    pub app_id: String,
    /// The state of the account: `authorized`, `unauthorized` or `lost`.
    pub state: &'static str,
    /// Seconds since the account has this state.
    pub state_secs: i64,
    /// `true` if a refresh token of the account is stored.
    pub has_refresh_token: bool,
}

/// Returns the report about the platform `options.app`.
///
/// # Errors
/// [`ErrorKind::StoreUnavailable`](crate::ErrorKind::StoreUnavailable) if Redis does not reply.
pub async fn platform_report(
    store: &RedisStore,
    options: &ScanOptions,
) -> Result<PlatformReport, Error> {
    let component = &options.app;
    let now = store.0.clock.now();
    let list = store.authorizations(component).await?;
    let ticket = DurableSecretKey::VerifyTicket {
        component: component.clone(),
    };
    let ticket = store.load_secret(&ticket).await?.value;
    let ticket = ticket.filter(|ticket| !ticket.is_refused_ticket());
    let slot = component_token_slot(component);
    let token = store.load(&slot).await?.record.token;
    Ok(PlatformReport {
        app_id: component.as_str().to_owned(),
        ticket_age_secs: ticket.map(|ticket| seconds_since(ticket.since, now)),
        component_token: token.map_or("absent", |token| token.lifetime.freshness(now).as_str()),
        listed_secs_ago: list.listed_at.map(|at| seconds_since(at, now)),
        accounts: list.entries.len() as u64,
    })
}

/// Calls `visit` with a report about each account of the platform `options.app`, until `visit`
/// returns `Break`.
///
/// # Errors
/// [`ErrorKind::StoreUnavailable`](crate::ErrorKind::StoreUnavailable) if Redis does not reply.
pub async fn list_accounts(
    store: &RedisStore,
    options: &ScanOptions,
    visit: &mut (dyn FnMut(AccountReport) -> ControlFlow<()> + Send),
) -> Result<(), Error> {
    let now = store.0.clock.now();
    let list = store.authorizations(&options.app).await?;
    for (account, entry) in list.entries {
        let report = AccountReport {
            app_id: account.as_str().to_owned(),
            state: match entry.state {
                AuthorizationState::Authorized => "authorized",
                AuthorizationState::Unauthorized => "unauthorized",
                AuthorizationState::Lost => "lost",
            },
            state_secs: seconds_since(entry.since, now),
            has_refresh_token: has_refresh_token(store, account).await?,
        };
        if visit(report).is_break() {
            break;
        }
    }
    Ok(())
}

async fn has_refresh_token(store: &RedisStore, account: AppId) -> Result<bool, Error> {
    let key = DurableSecretKey::RefreshToken { account };
    Ok(store.load_secret(&key).await?.value.is_some())
}

fn seconds_since(at: Timestamp, now: Timestamp) -> i64 {
    now.as_millis().saturating_sub(at.as_millis()) / 1_000
}
