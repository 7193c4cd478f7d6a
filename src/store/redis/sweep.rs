//! Removing the dead from the published layout, whose fields never expire by themselves.

use std::time::Duration;

use super::names::RedisNames;
use super::{Layout, RedisStore, scripts};
use crate::credential::sealed_form::Binding;
use crate::credential::{AppId, hash_form};
use crate::error::Error;
use crate::store::Kind;

/// How many fields one step looks at: a few hundred microseconds of Redis's time.
const STEP: usize = 500;

/// A refresh token is swept this long after the time that is stored with it. Services of the
/// published layout may store the point of the access token there, hours after the login, although
/// a refresh token lives for 30 days; and until it is surely dead, WeChat is still asked.
const GRACE: Duration = Duration::from_secs(31 * 24 * 3_600);

/// The margin of access tokens is unknown here; the longest there is errs on the side of life.
const LONGEST_MARGIN: Duration = Duration::from_secs(24 * 3_600);

/// A user id and what a hash holds for it.
type Field = (Vec<u8>, Vec<u8>);

/// What a sweep did.
///
/// ```
/// use std::time::Duration;
/// use tower_wechat::{AppId, Error, RedisStore};
///
/// /// Once a night, from one process.
/// async fn sweep(store: &RedisStore, app: &AppId) -> Result<(), Error> {
///     let swept = store.sweep(app, Duration::from_millis(20)).await?;
///     println!("removed {} of {} fields", swept.removed, swept.seen);
///     Ok(())
/// }
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Swept {
    /// How many fields were looked at.
    pub seen: u64,
    /// How many were removed.
    pub removed: u64,
}

impl RedisStore {
    /// Removes from the hashes of the published layout the users whose refresh token is surely
    /// dead, 31 days after the time that is stored with it, and the expired access tokens that
    /// nothing can renew any more.
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
    /// println!("{} of {} fields were dead", swept.removed, swept.seen);
    /// # Ok(()) }
    /// ```
    pub async fn sweep(&self, app: &AppId, pause: Duration) -> Result<Swept, Error> {
        self.sweep_with(app, pause, false, &mut |_| {}).await
    }

    /// The same with an ear for its progress; a dry run counts what it would remove.
    ///
    /// # Errors
    /// As [`sweep`](Self::sweep).
    #[doc(hidden)]
    pub async fn sweep_with(
        &self,
        app: &AppId,
        pause: Duration,
        dry_run: bool,
        progress: &mut (dyn FnMut(&Swept) + Send),
    ) -> Result<Swept, Error> {
        let mut swept = Swept::default();
        if self.0.layout != Layout::Hashes {
            return Ok(swept);
        }
        let names = &self.0.names;
        let refresh_hash = RedisNames::of(&names.user_refresh_token, app.as_str());
        let access_hash = RedisNames::of(&names.user_access_token, app.as_str());
        for (hash, beside) in [(&refresh_hash, None), (&access_hash, Some(&*refresh_hash))] {
            let mut cursor = 0u64;
            loop {
                cursor = self
                    .sweep_step(app, hash, beside, cursor, dry_run, &mut swept)
                    .await?;
                progress(&swept);
                if cursor == 0 {
                    break;
                }
                tokio::time::sleep(pause).await;
            }
        }
        tracing::info!(target: "tower_wechat::store", %app, seen = swept.seen, removed = swept.removed, "swept the hashes");
        Ok(swept)
    }

    /// A step through one hash; answers the cursor of the next. Access tokens (those with a
    /// `refresh_hash` beside them) are dead when they are expired and no refresh token is there;
    /// refresh tokens by their time alone.
    async fn sweep_step(
        &self,
        app: &AppId,
        hash: &str,
        refresh_hash: Option<&str>,
        cursor: u64,
        dry_run: bool,
        swept: &mut Swept,
    ) -> Result<u64, Error> {
        let mut scan = redis::cmd("HSCAN");
        scan.arg(hash).arg(cursor).arg("COUNT").arg(STEP);
        let (next, fields): (u64, Vec<Field>) = self.command(&scan).await?;
        swept.seen += fields.len() as u64;
        let mut dead: Vec<_> = fields
            .into_iter()
            .filter(|(id, value)| {
                let user = std::str::from_utf8(id).unwrap_or_default();
                let binding = Binding {
                    app: app.as_str(),
                    kind: Kind::User.as_str(),
                    user,
                    key: hash,
                };
                self.is_dead(value, &binding, refresh_hash)
            })
            .collect();
        if let Some(refresh_hash) = refresh_hash
            && !dead.is_empty()
        {
            let ids: Vec<&[u8]> = dead.iter().map(|(id, _)| id.as_slice()).collect();
            let mut read = redis::cmd("HMGET");
            read.arg(refresh_hash).arg(ids);
            let refreshes: Vec<Option<Vec<u8>>> = self.command(&read).await?;
            let mut alone = refreshes.iter().map(Option::is_none);
            dead.retain(|_| alone.next().unwrap_or(false));
        }
        if dry_run {
            swept.removed += dead.len() as u64;
        } else if !dead.is_empty() {
            let mut call = scripts::SWEEP.key(hash);
            for (id, value) in &dead {
                call.arg(id).arg(value);
            }
            swept.removed += self.script::<u64>(&call).await?;
        }
        Ok(next)
    }

    fn is_dead(&self, value: &[u8], at: &Binding<'_>, refresh_hash: Option<&str>) -> bool {
        let now = self.0.clock.now();
        let Ok(value) = self.0.seal.open(value, at) else {
            return false;
        };
        if refresh_hash.is_some() {
            let token = hash_form::read_token(&value, LONGEST_MARGIN);
            return token.is_ok_and(|token| token.lifetime.expires_at() < now);
        }
        let refresh = hash_form::read_refresh(&value, "");
        refresh.is_ok_and(|(refresh, _)| refresh.due.after(GRACE) < now)
    }
}
