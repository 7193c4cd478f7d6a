//! Lists of users with the state of their tokens, without the tokens themselves.

use std::ops::ControlFlow;

use super::super::codec::RawValue;
use super::super::locations::Location;
use super::super::{Layout, RedisStore};
use super::scan::Scan;
use super::task::{ProgressFn, ScanOptions, Summary, decode_complete};
use crate::clock::Timestamp;
use crate::credential::record_lifetime::refresh_certainly_expired_at;
use crate::credential::{Freshness, Record};
use crate::error::Error;
use crate::store::redis::format::sealed;
use crate::store::{CredentialKind, CredentialSlot};

/// The state of a user's tokens, as the lists and reports show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenState {
    /// The access token is valid and not due for renewal.
    Fresh,
    /// The access token is valid and due for renewal.
    Stale,
    /// The access token has expired or is missing, and a refresh token can renew it. The next
    /// request of the user does so.
    Expired,
    /// The access token has expired or is missing, and cannot be renewed. The user has to log in.
    /// In the hash layout, a sweep removes the record.
    Dead,
    /// A value of the record cannot be decoded.
    Unreadable,
    /// A value is sealed with a key that this program does not have.
    UnknownKey,
    /// The user has no record.
    Absent,
}

impl TokenState {
    /// Returns the name of the state in the output of the program.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Stale => "stale",
            Self::Expired => "expired",
            Self::Dead => "dead",
            Self::Unreadable => "unreadable",
            Self::UnknownKey => "other_key",
            Self::Absent => "absent",
        }
    }
}

/// A report about one user, without secrets.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct UserReport {
    /// The user id.
    pub user: String,
    /// The state of the user's tokens: fresh, stale, expired, or not usable.
    pub state: TokenState,
    /// The first 16 hexadecimal digits of the access token's SHA-256.
    pub token_fingerprint: Option<String>,
    /// Seconds until the access token expires; negative after it has expired.
    pub expires_in_secs: Option<i64>,
    /// Seconds until the refresh token should expire. `None` if the stored time cannot be the
    /// expiry of a refresh token: some services store the access token's time in its place.
    pub refresh_due_in_secs: Option<i64>,
    /// The openid from WeChat.
    pub openid: Option<String>,
    /// The granted scope.
    pub scope: Option<String>,
    /// The ids of the sealing keys of the stored values. Empty if the values are plain.
    pub sealed_with: Vec<String>,
}

/// Returns the report about one user, and `true` if a process is renewing the token.
///
/// # Errors
/// [`ErrorKind::StoreUnavailable`](crate::ErrorKind::StoreUnavailable) if Redis does not reply.
pub async fn user_report(
    store: &RedisStore,
    options: &ScanOptions,
    user: &str,
) -> Result<(UserReport, bool), Error> {
    let slot = options.slot(CredentialKind::User, user);
    let location = store.locations(&slot).read;
    let values = store.read_locations(&[&location]).await?;
    let values = values.into_iter().next().unwrap_or_default();
    let mut exists = redis::cmd("EXISTS");
    let renewing: bool = store
        .command(exists.arg(store.0.names.lease_key(&slot.key, &location)))
        .await?;
    Ok((build_report(store, &slot, &location, &values), renewing))
}

/// Calls `visit` with a report about each user of the store's layout who has a record, until
/// `visit` returns `Break`.
///
/// # Errors
/// [`ErrorKind::StoreUnavailable`](crate::ErrorKind::StoreUnavailable) if Redis does not reply.
pub async fn list_users(
    store: &RedisStore,
    options: &ScanOptions,
    visit: &mut (dyn FnMut(UserReport) -> ControlFlow<()> + Send),
    progress: ProgressFn<'_>,
) -> Result<Summary, Error> {
    let mut summary = Summary::default();
    let mut scan = Scan::new(store, &options.app, CredentialKind::User, store.0.layout);
    while let Some(ids) = scan.next_batch().await? {
        summary.count_not_utf8(scan.take_not_utf8());
        let slots: Vec<CredentialSlot> = ids
            .iter()
            .map(|id| options.slot(CredentialKind::User, id))
            .collect();
        let locations: Vec<Location<'_>> = slots
            .iter()
            .map(|slot| store.locations(slot).read)
            .collect();
        let values = store
            .read_locations(&locations.iter().collect::<Vec<_>>())
            .await?;
        for ((slot, location), values) in slots.iter().zip(&locations).zip(&values) {
            summary.scanned += 1;
            let report = build_report(store, slot, location, values);
            if report.state == TokenState::Absent {
                continue;
            }
            if visit(report).is_break() {
                return Ok(summary);
            }
        }
        progress(&summary);
        tokio::time::sleep(options.pause).await;
    }
    Ok(summary)
}

/// Returns the approximate number of users, for progress lines. In the key layout, it is the number
/// of all keys in the database, which may be much larger.
///
/// # Errors
/// [`ErrorKind::StoreUnavailable`](crate::ErrorKind::StoreUnavailable) if Redis does not reply.
pub async fn estimate_users(store: &RedisStore, options: &ScanOptions) -> Result<u64, Error> {
    match store.0.layout {
        Layout::Hashes => {
            let sizes = store.hash_sizes(options).await?;
            Ok(sizes.into_iter().max().unwrap_or_default())
        }
        Layout::Keys => store.command(&redis::cmd("DBSIZE")).await,
    }
}

/// Builds the report about a user from the values of the record.
fn build_report(
    store: &RedisStore,
    slot: &CredentialSlot,
    location: &Location<'_>,
    values: &[RawValue],
) -> UserReport {
    let seals = values.iter().flatten().map(|value| sealed::split(value));
    let ids: Vec<_> = seals.flatten().map(|(id, _)| id).collect();
    let record = decode_complete(location, slot, values, &store.0.sealer);
    let now = store.0.clock.now();
    let state = match &record {
        None if ids.iter().any(|id| !store.0.sealer.has_key(*id)) => TokenState::UnknownKey,
        None => TokenState::Unreadable,
        Some(record) => token_state(record, now),
    };
    let record = record.unwrap_or_default();
    let token = record.token.as_ref();
    let seconds = |at: Timestamp| at.as_millis().saturating_sub(now.as_millis()) / 1_000;
    let mut sealed_with: Vec<String> = ids.iter().map(ToString::to_string).collect();
    sealed_with.dedup();
    UserReport {
        user: slot.key.id.to_string(),
        state,
        token_fingerprint: token.map(|token| token.secret.fingerprint()),
        expires_in_secs: token.map(|token| seconds(token.lifetime.expires_at())),
        refresh_due_in_secs: record.view().refresh_expires_at().map(seconds),
        openid: record.details.openid.map(String::from),
        scope: record.details.scope.map(String::from),
        sealed_with,
    }
}

/// Returns the state of a record whose values can be decoded.
fn token_state(record: &Record, now: Timestamp) -> TokenState {
    if record.is_empty() {
        return TokenState::Absent;
    }
    let token = record.token.as_ref();
    let freshness = token.map(|token| token.lifetime.freshness(now));
    let renewable = record.refresh.as_ref();
    let renew_at = token.map(|token| token.lifetime.renew_at());
    let renewable = renewable.is_some_and(|refresh| {
        refresh_certainly_expired_at(refresh.expected_expiry, renew_at) >= now
    });
    match freshness {
        Some(Freshness::Fresh) => TokenState::Fresh,
        Some(Freshness::Stale) => TokenState::Stale,
        Some(Freshness::Expired) | None if renewable => TokenState::Expired,
        Some(Freshness::Expired) | None => TokenState::Dead,
    }
}
