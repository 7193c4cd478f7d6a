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

/// Number of fields in one step. A step takes a few hundred microseconds of Redis's time.
const SCAN_COUNT: usize = 500;

/// Assumed margin of access tokens. A sweep does not know the real one. The longest possible margin
/// keeps a token rather too long.
const MAX_MARGIN: Duration = Duration::from_secs(24 * 3_600);

/// The result of a sweep.
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
    /// Number of fields that the sweep has removed.
    pub removed: u64,
    /// Number of fields whose names are not UTF-8. User ids of this crate are always UTF-8.
    pub not_utf8: u64,
}

impl RedisStore {
    /// Removes the expired tokens of an account's users from the hashes of [`Layout::Hashes`].
    ///
    /// A refresh token counts as expired 31 days after its stored time, and 31 days after the time of
    /// the access token. An expired access token is removed if there is no refresh token.
    ///
    /// The sweep reads about 500 fields in one step and waits for `pause` between two steps, so that
    /// other commands are not delayed. It keeps a field that changes meanwhile, and values that it cannot
    /// decode, which may belong to another service. It does nothing in [`Layout::Keys`], where Redis
    /// expires the keys.
    ///
    /// # Errors
    /// [`ErrorKind::StoreUnavailable`](crate::ErrorKind::StoreUnavailable) if Redis does not reply. Fields
    /// that were removed before stay removed.
    pub async fn sweep(&self, app: &AppId, pause: Duration) -> Result<SweepReport, Error> {
        self.sweep_with_progress(app, pause, false, &mut |_| {})
            .await
    }

    /// Sweeps as [`sweep`](Self::sweep), and calls `progress` after each step. A dry run only counts
    /// the fields.
    pub(super) async fn sweep_with_progress(
        &self,
        app: &AppId,
        pause: Duration,
        dry_run: bool,
        progress: &mut (dyn FnMut(&SweepReport) + Send),
    ) -> Result<SweepReport, Error> {
        let mut swept = SweepReport::default();
        if self.0.layout != Layout::Hashes {
            return Ok(swept);
        }
        let names = &self.0.names;
        let refresh_hash = RedisNames::expand_appid(&names.user_refresh_token, app.as_str());
        let access_hash = RedisNames::expand_appid(&names.user_access_token, app.as_str());
        for (hash, beside, of) in [
            (&refresh_hash, &access_hash, PairHalf::Refresh),
            (&access_hash, &refresh_hash, PairHalf::Access),
        ] {
            let mut cursor = 0u64;
            loop {
                cursor = self
                    .sweep_step(app, [hash, beside], of, cursor, dry_run, &mut swept)
                    .await?;
                progress(&swept);
                if cursor == 0 {
                    break;
                }
                tokio::time::sleep(pause).await;
            }
        }
        tracing::info!(target: "tower_wechat::store", %app, seen = swept.scanned, removed = swept.removed, "swept the hashes");
        Ok(swept)
    }

    /// Sweeps one step of the first hash. Reads the other half of each candidate from the second hash.
    /// Returns the cursor of the next step.
    async fn sweep_step(
        &self,
        app: &AppId,
        [hash, beside]: [&str; 2],
        of: PairHalf,
        cursor: u64,
        dry_run: bool,
        swept: &mut SweepReport,
    ) -> Result<u64, Error> {
        let (next, fields) = self.scan_hash(hash.as_bytes(), cursor, SCAN_COUNT).await?;
        swept.scanned += fields.len() as u64;
        let not_utf8 = fields
            .iter()
            .filter(|(id, _)| std::str::from_utf8(id).is_err());
        swept.not_utf8 += not_utf8.count() as u64;
        let mut dead: Vec<HashField> = fields
            .into_iter()
            .filter(|(id, value)| match of {
                PairHalf::Refresh => self.is_refresh_dead(app, hash, id, value, None),
                PairHalf::Access => self
                    .access_lifetime(app, hash, id, value)
                    .is_some_and(|life| life.expires_at() < self.0.clock.now()),
            })
            .collect();
        if !dead.is_empty() {
            let ids: Vec<&[u8]> = dead.iter().map(|(id, _)| id.as_slice()).collect();
            let mut read = redis::cmd("HMGET");
            read.arg(beside).arg(ids);
            let others: Vec<Option<Vec<u8>>> = self.command(&read).await?;
            let mut others = others.into_iter();
            dead.retain(|(id, value)| match (of, others.next().flatten()) {
                (_, None) => true,
                // The refresh token may still renew it.
                (PairHalf::Access, Some(_)) => false,
                // A recent access token shows that the refresh token was valid recently.
                (PairHalf::Refresh, Some(access)) => {
                    self.is_refresh_dead(app, hash, id, value, Some((beside, &access)))
                }
            });
        }
        if dry_run {
            swept.removed += dead.len() as u64;
        } else if !dead.is_empty() {
            let mut call = scripts::DELETE_DEAD_FIELDS.key(hash);
            for (id, value) in &dead {
                call.arg(id).arg(value);
            }
            swept.removed += self.run_script::<u64>(&call).await?;
        }
        Ok(next)
    }

    /// Returns `true` if a refresh token has certainly expired. Takes the access token of the same user
    /// into account. Returns `false` for a value that cannot be decoded.
    fn is_refresh_dead(
        &self,
        app: &AppId,
        hash: &str,
        id: &[u8],
        value: &[u8],
        access: Option<(&str, &[u8])>,
    ) -> bool {
        let renew_at = match access {
            None => None,
            // WeChat may have issued the token just now.
            Some((_, value)) if self.0.sealer.has_unknown_key(value) => return false,
            Some((hash, value)) => self
                .access_lifetime(app, hash, id, value)
                .map(|life| life.renew_at()),
        };
        let Ok(value) = self.0.sealer.open(value, &field_binding(app, id, hash)) else {
            return false;
        };
        let refresh = hash::read_refresh(&value, "");
        refresh.is_ok_and(|(refresh, _)| {
            refresh_certainly_expired_at(refresh.expected_expiry, renew_at) < self.0.clock.now()
        })
    }

    /// Returns the lifetime of an access token, if the value can be decoded and its time is plausible.
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
        // A refresh value returns the stored time unchanged.
        let (stored, _) = hash::read_refresh(&value, "").ok()?;
        stored
            .expected_expiry
            .is_plausible()
            .then_some(token.lifetime)
    }
}

/// Which half of a pair a hash holds.
#[derive(Clone, Copy)]
enum PairHalf {
    /// Refresh tokens, which die by themselves.
    Refresh,
    /// Access tokens, which are dead when they are expired and no refresh token is there.
    Access,
}

fn field_binding<'a>(app: &'a AppId, id: &'a [u8], key: &'a str) -> SealBinding<'a> {
    SealBinding {
        app: app.as_str(),
        kind: CredentialKind::User.as_str(),
        user: std::str::from_utf8(id).unwrap_or_default(),
        key,
    }
}
