//! The state of users' tokens, and never the tokens.

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

/// Where a user's pair stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenState {
    /// Usable, and not due for renewal.
    Fresh,
    /// Usable, and due for renewal.
    Stale,
    /// Not usable any more, and renewed when the user comes.
    Expired,
    /// Nothing can be made of it: the user has to log in. A sweep removes it.
    Dead,
    /// There is something, but it cannot be read.
    Unreadable,
    /// It is sealed with a key that is not in the ring.
    UnknownKey,
    /// There is nothing.
    Absent,
}

impl TokenState {
    /// Its name in the program's output.
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

/// What can be told of a user without telling a secret.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct UserReport {
    /// The user id.
    pub user: String,
    /// Where the pair stands.
    pub state: TokenState,
    /// The first 16 hexadecimal digits of the access token's SHA-256.
    pub token_fingerprint: Option<String>,
    /// Seconds until the access token dies; negative when it has.
    pub expires_in_secs: Option<i64>,
    /// Seconds until the refresh token should be dead, where the time stored with it can say so:
    /// other services may store the access token's.
    pub refresh_due_in_secs: Option<i64>,
    /// What WeChat told of the user.
    pub openid: Option<String>,
    /// The granted scope.
    pub scope: Option<String>,
    /// The ids of the keys with which the values are sealed; empty for plain ones.
    pub sealed_with: Vec<String>,
}

impl RedisStore {
    /// The state of one user, and whether the token is being renewed at the moment.
    ///
    /// # Errors
    /// The store does not answer.
    #[doc(hidden)]
    pub async fn user_report(
        &self,
        options: &ScanOptions,
        user: &str,
    ) -> Result<(UserReport, bool), Error> {
        let slot = options.slot(CredentialKind::User, user);
        let place = self.locations(&slot).read;
        let values = self.read_locations(&[&place]).await?;
        let values = values.into_iter().next().unwrap_or_default();
        let mut ask = redis::cmd("EXISTS");
        let renewing: bool = self
            .command(ask.arg(self.0.names.lease_key(&slot.key, &place)))
            .await?;
        Ok((self.build_report(&slot, &place, &values), renewing))
    }

    /// The state of every user of the store's layout, one after another.
    ///
    /// # Errors
    /// The store does not answer.
    #[doc(hidden)]
    pub async fn list_users(
        &self,
        options: &ScanOptions,
        visit: &mut (dyn FnMut(UserReport) -> ControlFlow<()> + Send),
        progress: ProgressFn<'_>,
    ) -> Result<Summary, Error> {
        let mut tally = Summary::default();
        let mut walk = Scan::new(self, &options.app, CredentialKind::User, self.0.layout);
        while let Some(ids) = walk.next_batch().await? {
            tally.count_not_utf8(walk.take_not_utf8());
            let slots: Vec<CredentialSlot> = ids
                .iter()
                .map(|id| options.slot(CredentialKind::User, id))
                .collect();
            let places: Vec<Location<'_>> =
                slots.iter().map(|slot| self.locations(slot).read).collect();
            let values = self
                .read_locations(&places.iter().collect::<Vec<_>>())
                .await?;
            for ((slot, place), values) in slots.iter().zip(&places).zip(&values) {
                tally.scanned += 1;
                let report = self.build_report(slot, place, values);
                if report.state == TokenState::Absent {
                    continue;
                }
                if visit(report).is_break() {
                    return Ok(tally);
                }
            }
            progress(&tally);
            tokio::time::sleep(options.pause).await;
        }
        Ok(tally)
    }

    /// Around how many users there are, for a look at how far the work has come.
    ///
    /// # Errors
    /// The store does not answer.
    #[doc(hidden)]
    pub async fn estimate_users(&self, options: &ScanOptions) -> Result<u64, Error> {
        match self.0.layout {
            Layout::Hashes => {
                let sizes = self.hash_sizes(options).await?;
                Ok(sizes.into_iter().max().unwrap_or_default())
            }
            Layout::Keys => self.command(&redis::cmd("DBSIZE")).await,
        }
    }

    fn build_report(
        &self,
        slot: &CredentialSlot,
        place: &Location<'_>,
        values: &[RawValue],
    ) -> UserReport {
        let seals = values.iter().flatten().map(|value| sealed::split(value));
        let ids: Vec<_> = seals.flatten().map(|(id, _)| id).collect();
        let record = decode_complete(place, slot, values, &self.0.sealer);
        let now = self.0.clock.now();
        let state = match &record {
            None if ids.iter().any(|id| !self.0.sealer.has_key(*id)) => TokenState::UnknownKey,
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
}

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
