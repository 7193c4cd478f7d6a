//! Removing the dead from the published layout, whose fields never expire by themselves.

use std::time::Duration;

use super::layout::RedisNames;
use super::store::RedisStore;
use super::{Layout, scripts};
use crate::credential::record_lifetime::refresh_certainly_expired_at;
use crate::credential::{AppId, Lifetime};
use crate::error::Error;
use crate::store::CredentialKind;
use crate::store::redis::format::hash;
use crate::store::redis::format::sealed::SealBinding;

/// How many fields one step looks at: a few hundred microseconds of Redis's time.
const SCAN_COUNT: usize = 500;

/// The margin of access tokens is unknown here; the longest there is errs on the side of life.
const MAX_MARGIN: Duration = Duration::from_secs(24 * 3_600);

/// A user id and what a hash holds for it.
type HashField = (Vec<u8>, Vec<u8>);

/// What a sweep did.
///
/// ```
/// use std::time::Duration;
/// use tower_wechat::{AppId, Error, RedisStore};
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
    /// How many fields were looked at.
    pub scanned: u64,
    /// How many were removed.
    pub removed: u64,
    /// How many have names that are not UTF-8, which no user of this crate has.
    pub not_utf8: u64,
}

impl RedisStore {
    /// Removes from the hashes of the published layout the users whose refresh token is surely
    /// dead, 31 days after the time that is stored with it and after the access token's, and the
    /// expired access tokens that nothing can renew any more.
    ///
    /// It goes through the hashes in steps of about 500 fields and rests `pause` between them, so
    /// that a large hash is swept without anybody noticing; a field that changes meanwhile stays.
    /// Values that cannot be read stay too: they may be somebody's. In the key layout Redis
    /// expires records by itself, and there is nothing to do.
    ///
    /// # Errors
    /// The store does not answer; what was removed until then stays removed.
    ///
    /// ```no_run
    /// # async fn run(store: tower_wechat::RedisStore) -> Result<(), tower_wechat::Error> {
    /// use std::time::Duration;
    ///
    /// let app = tower_wechat::AppId::new("wx0123456789abcdef")?;
    /// let swept = store.sweep(&app, Duration::from_millis(20)).await?;
    /// println!("{} of {} fields were dead", swept.removed, swept.scanned);
    /// # Ok(()) }
    /// ```
    pub async fn sweep(&self, app: &AppId, pause: Duration) -> Result<SweepReport, Error> {
        self.sweep_with_progress(app, pause, false, &mut |_| {})
            .await
    }

    /// The same with an ear for its progress; a dry run counts what it would remove.
    ///
    /// # Errors
    /// As [`sweep`](Self::sweep).
    #[doc(hidden)]
    pub async fn sweep_with_progress(
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

    /// A step through the first hash, with the other one beside it; answers the cursor of the next.
    async fn sweep_step(
        &self,
        app: &AppId,
        [hash, beside]: [&str; 2],
        of: PairHalf,
        cursor: u64,
        dry_run: bool,
        swept: &mut SweepReport,
    ) -> Result<u64, Error> {
        let mut scan = redis::cmd("HSCAN");
        scan.arg(hash).arg(cursor).arg("COUNT").arg(SCAN_COUNT);
        let (next, fields): (u64, Vec<HashField>) = self.command(&scan).await?;
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
                // Something can still be made of it.
                (PairHalf::Access, Some(_)) => false,
                // What was granted lately was granted by a refresh token that lived.
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

    /// Whether a refresh token is certainly dead, with the access token beside it where there is one.
    /// What cannot be read is not.
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
            // It may have been granted a moment ago.
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

    /// The life of an access token, if it can be read and has a time that somebody can have meant.
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
        // Read as a refresh value, the time is as it stands.
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
