//! Removal of expired tokens from the published layout, whose fields have no TTL.

use std::time::Duration;

use super::layout::RedisNames;
use super::store::{HashField, RedisStore};
use super::{Layout, scripts};
use crate::credential::record_lifetime::refresh_certainly_expired_at;
use crate::credential::{AppId, Lifetime};
use crate::error::Error;
use crate::store::CredentialKind;
use crate::store::redis::format::hash;
use crate::store::redis::format::sealed::SealBinding;

/// Approximate number of fields that a sweep reads in one step: 500. A step of this size takes a
/// few hundred microseconds of Redis's time.
const SCAN_COUNT: usize = 500;

/// Assumed renewal margin of access tokens: 24 hours. A sweep does not know the real margin. A
/// margin that is too long only delays the removal of a token.
const MAX_MARGIN: Duration = Duration::from_secs(24 * 3_600);

/// The numbers of fields that a sweep has read and removed.
///
/// ```
/// use std::time::Duration;
/// use tower_wechat::credential::AppId;
/// use tower_wechat::{Error, RedisStore};
///
/// /// Once a night, from one process.
/// async fn sweep(store: &RedisStore, app: &AppId) -> Result<(), Error> {
///     let swept = store.sweep(app, Duration::from_millis(20)).await?;
///     println!("removed {} of {} fields", swept.removed, swept.scanned);
///     Ok(())
/// }
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SweepReport {
    /// Number of fields that the sweep has read.
    pub scanned: u64,
    /// Number of fields that the sweep has removed, or would have removed in a dry run.
    pub removed: u64,
    /// Number of fields whose names are not UTF-8. User ids of this crate are always UTF-8.
    pub not_utf8: u64,
}

impl RedisStore {
    /// Removes the expired tokens of an account's users from the hashes of [`Layout::Hashes`].
    ///
    /// A refresh token counts as expired 31 days after the later of two times: its stored time and
    /// the access token's renewal point. An expired access token is removed if there is no refresh
    /// token.
    ///
    /// The sweep reads about 500 fields in one step and waits for `pause` between two steps, so
    /// that other commands are not delayed. The sweep keeps a field that another process changes
    /// between the read and the removal. The sweep also keeps values that cannot be decoded,
    /// because such a value may belong to another service. In [`Layout::Keys`] the sweep does
    /// nothing, because Redis expires the keys there.
    ///
    /// # Errors
    /// [`ErrorKind::StoreUnavailable`](crate::ErrorKind::StoreUnavailable) if Redis does not reply.
    /// Fields that were removed before the error stay removed.
    pub async fn sweep(&self, app: &AppId, pause: Duration) -> Result<SweepReport, Error> {
        self.sweep_with_progress(app, pause, false, &mut |_| {})
            .await
    }

    /// Does what [`sweep`](Self::sweep) does, and calls `progress` after each step. A dry run only
    /// counts the fields.
    pub(super) async fn sweep_with_progress(
        &self,
        app: &AppId,
        pause: Duration,
        dry_run: bool,
        progress: &mut (dyn FnMut(&SweepReport) + Send),
    ) -> Result<SweepReport, Error> {
        let mut report = SweepReport::default();
        if self.0.layout != Layout::Hashes {
            return Ok(report);
        }
        let names = &self.0.names;
        let refresh_hash = RedisNames::expand_appid(&names.user_refresh_token, app.as_str());
        let access_hash = RedisNames::expand_appid(&names.user_access_token, app.as_str());
        for (hash, other_hash, half) in [
            (&refresh_hash, &access_hash, PairHalf::Refresh),
            (&access_hash, &refresh_hash, PairHalf::Access),
        ] {
            let mut cursor = 0u64;
            loop {
                cursor = self
                    .sweep_step(app, [hash, other_hash], half, cursor, dry_run, &mut report)
                    .await?;
                progress(&report);
                if cursor == 0 {
                    break;
                }
                tokio::time::sleep(pause).await;
            }
        }
        tracing::info!(
            target: "tower_wechat::store",
            %app,
            seen = report.scanned,
            removed = report.removed,
            "swept the hashes"
        );
        Ok(report)
    }

    /// Sweeps about [`SCAN_COUNT`] fields of `hash`. For each expired token, reads the other token
    /// of the same user from `other_hash`. Returns the cursor of the next step, or zero after the
    /// last field.
    async fn sweep_step(
        &self,
        app: &AppId,
        [hash, other_hash]: [&str; 2],
        half: PairHalf,
        cursor: u64,
        dry_run: bool,
        report: &mut SweepReport,
    ) -> Result<u64, Error> {
        let (next, fields) = self.scan_hash(hash.as_bytes(), cursor, SCAN_COUNT).await?;
        report.scanned += fields.len() as u64;
        let not_utf8 = fields
            .iter()
            .filter(|(id, _)| std::str::from_utf8(id).is_err());
        report.not_utf8 += not_utf8.count() as u64;
        let mut expired: Vec<HashField> = fields
            .into_iter()
            .filter(|(id, value)| match half {
                PairHalf::Refresh => self.is_refresh_expired(app, hash, id, value, None),
                PairHalf::Access => self
                    .access_lifetime(app, hash, id, value)
                    .is_some_and(|lifetime| lifetime.expires_at() < self.0.clock.now()),
            })
            .collect();
        if !expired.is_empty() {
            let ids: Vec<&[u8]> = expired.iter().map(|(id, _)| id.as_slice()).collect();
            let mut read = redis::cmd("HMGET");
            read.arg(other_hash).arg(ids);
            let others: Vec<Option<Vec<u8>>> = self.command(&read).await?;
            let mut others = others.into_iter();
            expired.retain(|(id, value)| match (half, others.next().flatten()) {
                (_, None) => true,
                // The user's refresh token may still renew this access token.
                (PairHalf::Access, Some(_)) => false,
                // A recent access token shows that the refresh token was valid recently.
                (PairHalf::Refresh, Some(access)) => {
                    self.is_refresh_expired(app, hash, id, value, Some((other_hash, &access)))
                }
            });
        }
        if dry_run {
            report.removed += expired.len() as u64;
        } else if !expired.is_empty() {
            let mut call = scripts::DELETE_UNCHANGED_FIELDS.key(hash);
            for (id, value) in &expired {
                call.arg(id).arg(value);
            }
            report.removed += self.run_script::<u64>(&call).await?;
        }
        Ok(next)
    }

    /// Returns `true` if a refresh token has certainly expired, by its stored time and the time of
    /// the same user's access token. Returns `false` if the refresh token cannot be decoded, or if
    /// the access token is sealed with an unknown key.
    fn is_refresh_expired(
        &self,
        app: &AppId,
        hash: &str,
        id: &[u8],
        value: &[u8],
        access: Option<(&str, &[u8])>,
    ) -> bool {
        let renew_at = match access {
            None => None,
            // This process cannot read the access token. Another process may have stored it
            // recently, which would show that the refresh token was valid then.
            Some((_, value)) if self.0.sealer.has_unknown_key(value) => return false,
            Some((hash, value)) => self
                .access_lifetime(app, hash, id, value)
                .map(|lifetime| lifetime.renew_at()),
        };
        let Ok(value) = self.0.sealer.open(value, &field_binding(app, id, hash)) else {
            return false;
        };
        let refresh = hash::read_refresh(&value, "");
        refresh.is_ok_and(|(refresh, _)| {
            refresh_certainly_expired_at(refresh.expected_expiry, renew_at) < self.0.clock.now()
        })
    }

    /// Returns the lifetime of an access token, if the value can be decoded and its time is
    /// plausible.
    fn access_lifetime(
        &self,
        app: &AppId,
        hash: &str,
        id: &[u8],
        value: &[u8],
    ) -> Option<Lifetime> {
        let value = self
            .0
            .sealer
            .open(value, &field_binding(app, id, hash))
            .ok()?;
        let token = hash::read_token(&value, MAX_MARGIN).ok()?;
        // `read_token` replaces an implausible time with zero. `read_refresh` returns the stored
        // time unchanged, so that it can be tested here.
        let (stored, _) = hash::read_refresh(&value, "").ok()?;
        stored
            .expected_expiry
            .is_plausible()
            .then_some(token.lifetime)
    }
}

/// The kind of token that a hash holds. A user's pair has one token of each kind.
#[derive(Clone, Copy)]
enum PairHalf {
    /// Refresh tokens, which a sweep removes when they have certainly expired.
    Refresh,
    /// Access tokens, which a sweep removes when they have expired and the user has no refresh
    /// token.
    Access,
}

/// Returns the context to which the seal of a field is bound: account, kind, user and hash. A
/// sealed value does not open in another context.
fn field_binding<'a>(app: &'a AppId, id: &'a [u8], key: &'a str) -> SealBinding<'a> {
    SealBinding {
        app: app.as_str(),
        kind: CredentialKind::User.as_str(),
        user: std::str::from_utf8(id).unwrap_or_default(),
        key,
    }
}
