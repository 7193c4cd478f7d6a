//! An account token that another system keeps in Redis: read, never written.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::{Cmd, RedisResult};
use zeroize::Zeroizing;

use super::RedisStore;
use super::codec::{Value, warn_once};
use super::guard::describe;
use super::names::RedisNames;
use super::refusal::Refusal;
use crate::clock::Timestamp;
use crate::credential::foreign_form::{ForeignForm, read_seconds, read_token};
use crate::credential::{AppId, AppSecret, Lifetime, Record, Token};
use crate::error::{Error, ErrorKind};
use crate::store::{
    Allowance, BoxFuture, Claim, CodeBinding, CodeClaim, CodeName, Commit, Kind, LeaseOwner, Name,
    Slot, Store, Stored, Witness, sealed,
};

/// How long before the end of its key a token counts as due: it is then read again every second,
/// since the system that keeps it may write the next one at any moment.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// What a token is believed whose key does not expire and that does not say when it dies.
const UNSAID: Duration = Duration::from_secs(60);

/// How much the end of a key may lie before what its TTL said, by our clock and Redis's.
const END_IS_ABOUT: Duration = Duration::from_secs(1);

/// What stands in a name for the AppSecret.
const SECRET: &str = "{secret}";

/// As many hexadecimal digits in a row are an AppSecret, or a digest of one.
const SECRET_DIGITS: usize = 32;

/// Where and how another system keeps the account's token in Redis, for
/// [`AccountTokens::follow`](crate::AccountTokens::follow).
///
/// ```
/// use tower_wechat::FollowedToken;
///
/// // A service with WxJava, under its usual name and under another one:
/// let token = FollowedToken::wx_java();
/// let token = FollowedToken::wx_java().key("wx:mp:access_token:{appid}");
/// # let _ = token;
/// ```
///
/// ```
/// use std::time::Duration;
/// use tower_wechat::FollowedToken;
///
/// // Other systems with their usual names:
/// let known = [
///     FollowedToken::wx_java_redisson(),
///     FollowedToken::silenceper(),
///     FollowedToken::wechatpy(),
///     FollowedToken::easy_wechat(),
///     FollowedToken::easy_wechat_6_15("the AppSecret", false).key_prefix("laravel_cache_:"),
///     FollowedToken::power_wechat("powerwechat.access_token.0cc175b9c0f1b6a831c399e269772661"),
/// ];
/// // Any other, by the form of its value:
/// let forms = [
///     FollowedToken::raw("token:{appid}").key_ends_early(Duration::from_secs(200)),
///     FollowedToken::json_string("token").expires_at_key("token:expires_at"),
///     FollowedToken::json_object("token"),
///     FollowedToken::php("token"),
/// ];
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct FollowedToken {
    form: ForeignForm,
    key: String,
    expires_at_key: Option<String>,
    /// What `{secret}` in a name stands for.
    secret: Option<AppSecret>,
    /// How much earlier than the token the key ends, at least.
    early: Duration,
}

impl FollowedToken {
    fn new(form: ForeignForm, key: impl Into<String>) -> Self {
        Self {
            form,
            key: key.into(),
            expires_at_key: None,
            secret: None,
            early: Duration::ZERO,
        }
    }

    /// WxJava's `WxMpRedisConfigImpl`, on Jedis or a `RedisTemplate`: the bare token under
    /// `wx:access_token:{appid}`. The key lives as long as the token.
    ///
    /// Source: `WxMpRedisConfigImpl.updateAccessToken`, commit 3e48dc7 (2025-01-24). Versions before
    /// commit 179d469 (2023-11-07) end the key 200 seconds before the token; this preset reads them
    /// too, and gives up their last 200 seconds.
    pub fn wx_java() -> Self {
        Self::raw("wx:access_token:{appid}")
    }

    /// WxJava's `WxMpRedissonConfigImpl`: the bare token under `wx:access_token:{appid}`, in a key
    /// that ends 200 seconds before the token. Redisson has to use its `StringCodec`.
    ///
    /// Source: `WxMpRedissonConfigImpl.updateAccessToken`, commit 3e48dc7 (2025-01-24).
    pub fn wx_java_redisson() -> Self {
        Self::wx_java().key_ends_early(Duration::from_secs(200))
    }

    /// silenceper/wechat: the token under `gowechat_officialaccount__access_token_{appid}`, bare, or
    /// as a JSON string from old versions, in a key that ends 300 seconds before the token or more.
    /// Where it uses stable tokens the name is
    /// `gowechat_officialaccount__stable_access_token_{appid}`; give it with [`key`](Self::key).
    ///
    /// Source: `credential/default_access_token.go` and `cache/redis.go`, commit 1797041 (2024-02).
    pub fn silenceper() -> Self {
        let key = "gowechat_officialaccount__access_token_{appid}";
        Self::new(ForeignForm::Text, key).key_ends_early(Duration::from_secs(300))
    }

    /// PowerWeChat: a JSON object under `powerwechat.access_token.` and the MD5 of AppID and
    /// AppSecret written one after the other, in hexadecimal. `key` is that whole name.
    ///
    /// Source: `kernel/accessToken.go`, commit 38a5032 (2024-12).
    pub fn power_wechat(key: impl Into<String>) -> Self {
        Self::json_object(key)
    }

    /// wechatpy with its `RedisStorage` and usual prefix: a JSON string under
    /// `wechatpy:{appid}_access_token`; version 2 adds the expiry under
    /// `wechatpy:{appid}_access_token_expires_at`.
    ///
    /// Source: `session/redisstorage.py`, commit 5b8502e (2025-02); releases 1.8.18 and 2.0.0a26 are
    /// run by this crate's tests.
    pub fn wechatpy() -> Self {
        Self {
            expires_at_key: Some("wechatpy:{appid}_access_token_expires_at".into()),
            ..Self::json_string("wechatpy:{appid}_access_token")
        }
    }

    /// EasyWeChat 6 before 6.15.1 on a cache that stores what PHP's `serialize` or igbinary makes,
    /// such as Symfony's or Laravel's: a string under `official_account.access_token.{appid}`.
    /// Caches put a prefix of their own before that; give it with [`key_prefix`](Self::key_prefix).
    /// Since 6.15.1 the name is another one: [`easy_wechat_6_15`](Self::easy_wechat_6_15).
    ///
    /// Source: `OfficialAccount/AccessToken.php`, commit 0306cb7.
    pub fn easy_wechat() -> Self {
        Self::php("official_account.access_token.{appid}")
    }

    /// EasyWeChat 6.15.1 and later: as [`easy_wechat`](Self::easy_wechat), under
    /// `official_account.access_token.{appid}.{secret}.0`, or with a `1` at the end where its
    /// setting `use_stable_access_token` is on, as `stable` says.
    ///
    /// The name holds the AppSecret. Logs and `Debug` output show `{secret}` instead.
    ///
    /// Source: w7corp/easywechat, pull request 2801 (merged 2024-03-29) and
    /// `OfficialAccount/AccessToken.php`, commit 7a93b80 (2026-04).
    pub fn easy_wechat_6_15(secret: impl Into<AppSecret>, stable: bool) -> Self {
        let stable = u8::from(stable);
        Self {
            secret: Some(secret.into()),
            ..Self::php(format!(
                "official_account.access_token.{{appid}}.{{secret}}.{stable}"
            ))
        }
    }

    /// The bare token, and nothing else.
    pub fn raw(key: impl Into<String>) -> Self {
        Self::new(ForeignForm::Raw, key)
    }

    /// The token as a JSON string.
    pub fn json_string(key: impl Into<String>) -> Self {
        Self::new(ForeignForm::JsonString, key)
    }

    /// A JSON object with the token as `access_token`.
    pub fn json_object(key: impl Into<String>) -> Self {
        Self::new(ForeignForm::JsonObject, key)
    }

    /// What PHP's `serialize` makes of the token, or of an array with it as `access_token`.
    pub fn php(key: impl Into<String>) -> Self {
        Self::new(ForeignForm::Php, key)
    }

    /// The name of the token's key; `{appid}` in it stands for the AppID, and `{secret}` for the
    /// AppSecret of [`easy_wechat_6_15`](Self::easy_wechat_6_15).
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = key.into();
        self
    }

    /// What a cache puts before the name of the token's key.
    #[must_use]
    pub fn key_prefix(mut self, prefix: &str) -> Self {
        self.key.insert_str(0, prefix);
        self
    }

    /// The name of a key that holds the token's expiry, as a JSON number of seconds since the Unix
    /// epoch; `{appid}` in it stands for the AppID.
    #[must_use]
    pub fn expires_at_key(mut self, key: impl Into<String>) -> Self {
        self.expires_at_key = Some(key.into());
        self
    }

    /// How much earlier than the token its key ends, at least: so long the token still serves
    /// in processes that have read it after the key has run out, if its keeper is late with the
    /// next one. A key that was deleted before its time takes its token along. Default: not at
    /// all.
    #[must_use]
    pub fn key_ends_early(mut self, by: Duration) -> Self {
        self.early = by;
        self
    }

    /// A name as it stands in Redis.
    fn name(&self, name: &str, app: &str) -> Zeroizing<String> {
        let name = RedisNames::of(name, app);
        Zeroizing::new(match &self.secret {
            Some(secret) => name.replace(SECRET, secret.expose()),
            None => name.into_owned(),
        })
    }

    /// A name as people may see it: without the secret, however it came there.
    fn shown(&self, name: &str) -> String {
        let name = match &self.secret {
            Some(secret) if !secret.expose().is_empty() => name.replace(secret.expose(), SECRET),
            _ => name.to_owned(),
        };
        let mut shown = String::with_capacity(name.len());
        for run in name.split_inclusive(|letter: char| !letter.is_ascii_hexdigit()) {
            let digits = run.trim_end_matches(|letter: char| !letter.is_ascii_hexdigit());
            match digits.len() == SECRET_DIGITS {
                true => shown.push_str(&run.replace(digits, "***")),
                false => shown.push_str(run),
            }
        }
        shown
    }

    /// The life of a token that was read at `now`.
    fn lifetime(
        &self,
        now: Timestamp,
        key_lives: Option<Duration>,
        expires_at: Option<Timestamp>,
    ) -> Lifetime {
        let key_ends = key_lives.map(|life| now.after(life));
        let end = match (key_ends, expires_at) {
            (Some(key_ends), Some(expires_at)) => key_ends.min(expires_at),
            (Some(end), None) | (None, Some(end)) => end,
            (None, None) => now.after(UNSAID),
        };
        let look_again = LOOK_AGAIN.min(now.until(end) / 2);
        let dies_at = match expires_at {
            Some(expires_at) => expires_at.max(end),
            None => end.after(self.early),
        };
        Lifetime::stored(end.before(look_again), Some(dies_at), look_again)
    }
}

impl fmt::Debug for FollowedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let expires_at_key = self.expires_at_key.as_deref();
        f.debug_struct("FollowedToken")
            .field("form", &self.form)
            .field("key", &self.shown(&self.key))
            .field("expires_at_key", &expires_at_key.map(|key| self.shown(key)))
            .field("secret", &self.secret)
            .field("early", &self.early)
            .finish()
    }
}

/// The store of an engine that follows: it has one slot, which others write.
#[derive(Debug)]
pub(crate) struct FollowedStore {
    redis: RedisStore,
    token: FollowedToken,
    last: Mutex<Option<LastRead>>,
    /// Whether the operator knows of a key of another type.
    wrong_type_told: AtomicBool,
}

/// What was read last, from a key that ends by itself.
#[derive(Debug)]
struct LastRead {
    token: Token,
    key_ends: Timestamp,
}

impl FollowedStore {
    pub(crate) fn new(redis: RedisStore, token: FollowedToken) -> Self {
        Self {
            redis,
            token,
            last: Mutex::default(),
            wrong_type_told: AtomicBool::new(false),
        }
    }

    fn last(&self) -> MutexGuard<'_, Option<LastRead>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What still serves although its key is gone. A key that is gone before its time was deleted:
    /// its token is forgotten, lest it come back when that time has passed.
    fn outlives_its_key(&self, now: Timestamp) -> Option<Token> {
        let mut last = self.last();
        *last = last.take().filter(|last| {
            last.key_ends.before(END_IS_ABOUT) <= now && now < last.token.lifetime.expires_at()
        });
        last.as_ref().map(|last| last.token.clone())
    }

    /// Reads these in one round trip; `key` is the token's as people may see it, and `name` is it.
    async fn read_all(
        &self,
        name: &str,
        key: &str,
        reads: &[Cmd],
    ) -> Result<Vec<redis::Value>, Error> {
        let store = &*self.redis.0;
        let reading = async {
            match store.connection.read_all(reads).await {
                // The store's own sentence is about keys of ours. This one is somebody else's.
                Err(error) if Refusal::of(&error) == Some(Refusal::WrongType) => Ok(None),
                answer => answer.map(Some),
            }
        };
        let values = self.redis.run(name.as_bytes(), reading).await?;
        values.ok_or_else(|| {
            let sentence = format!(
                "the key {key} in Redis at {}, under which another system's token is followed, \
                 holds a value of another type; it belongs to that system, so check the name and \
                 form that FollowedToken was given",
                store.address
            );
            if !self.wrong_type_told.swap(true, Ordering::Relaxed) {
                tracing::error!(target: "tower_wechat::store", "{sentence}");
            }
            Error::new(ErrorKind::StoreUnavailable, sentence)
        })
    }

    async fn read(&self, slot: &Slot) -> Result<Stored, Error> {
        let app = slot.name.app.as_str();
        let key = self.token.name(&self.token.key, app);
        let mut reads = vec![Cmd::get(key.as_str()), Cmd::pttl(key.as_str())];
        if let Some(expiry) = &self.token.expires_at_key {
            reads.push(Cmd::get(self.token.name(expiry, app).as_str()));
        }
        let shown = self.token.shown(&RedisNames::of(&self.token.key, app));
        let mut read = self.read_all(&key, &shown, &reads).await?.into_iter();
        let mut value = || read.next().unwrap_or(redis::Value::Nil);
        let (value, lives, expiry) = (value(), value(), value());
        let (value, lives, expiry): (Value, i64, Value) = readable(value, lives, expiry)
            .map_err(|error| Error::new(ErrorKind::StoreUnavailable, describe(&error)))?;
        let now = self.redis.0.clock.now();
        let Some(value) = value else {
            return Ok(stored(self.outlives_its_key(now)));
        };
        let secret = match read_token(&value, self.token.form) {
            Ok(secret) => secret,
            Err(unreadable) => {
                warn_once(&shown, slot, &value, unreadable);
                *self.last() = None;
                return Ok(Stored::default());
            }
        };
        let expires_at = expiry.and_then(|seconds| read_seconds(&seconds).ok());
        let expires_at =
            expires_at.map(|seconds| Timestamp::from_millis(seconds.saturating_mul(1_000)));
        let lives = u64::try_from(lives).ok().map(Duration::from_millis);
        let lifetime = self.token.lifetime(now, lives, expires_at);
        let token = Token { secret, lifetime };
        *self.last() = lives.map(|life| LastRead {
            token: token.clone(),
            key_ends: now.after(life),
        });
        Ok(stored(Some(token)))
    }
}

fn readable(
    value: redis::Value,
    lives: redis::Value,
    expiry: redis::Value,
) -> RedisResult<(Value, i64, Value)> {
    Ok((
        redis::from_redis_value(value)?,
        redis::from_redis_value(lives)?,
        redis::from_redis_value(expiry)?,
    ))
}

fn stored(token: Option<Token>) -> Stored {
    Stored {
        record: Record {
            token,
            ..Record::default()
        },
        witness: Witness::default(),
    }
}

fn read_only() -> Error {
    Error::new(
        ErrorKind::Configuration,
        "a token that another system keeps is read and never written",
    )
}

impl sealed::Sealed for FollowedStore {}

impl Store for FollowedStore {
    fn load<'a>(&'a self, slot: &'a Slot) -> BoxFuture<'a, Result<Stored, Error>> {
        Box::pin(self.read(slot))
    }

    fn claim<'a>(
        &'a self,
        _slot: &'a Slot,
        _expected: &'a Witness,
        _owner: &'a LeaseOwner,
        _ttl: Duration,
    ) -> BoxFuture<'a, Result<Claim, Error>> {
        Box::pin(async { Err(read_only()) })
    }

    fn commit<'a>(
        &'a self,
        _slot: &'a Slot,
        _expected: &'a Witness,
        _record: &'a Record,
        _owner: &'a LeaseOwner,
    ) -> BoxFuture<'a, Result<Commit, Error>> {
        Box::pin(async { Err(read_only()) })
    }

    fn announce_deletion<'a>(
        &'a self,
        _slot: &'a Slot,
        _expected: &'a Witness,
        _owner: &'a LeaseOwner,
        _ttl: Duration,
    ) -> BoxFuture<'a, Result<Claim, Error>> {
        Box::pin(async { Err(read_only()) })
    }

    fn delete<'a>(
        &'a self,
        _slot: &'a Slot,
        _expected: &'a Witness,
        _owner: &'a LeaseOwner,
    ) -> BoxFuture<'a, Result<Commit, Error>> {
        Box::pin(async { Err(read_only()) })
    }

    fn release<'a>(
        &'a self,
        _slot: &'a Slot,
        _owner: &'a LeaseOwner,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async { Ok(true) })
    }

    fn put<'a>(&'a self, _slot: &'a Slot, _record: &'a Record) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async { Err(read_only()) })
    }

    fn spend<'a>(&'a self, _allowance: &'a Allowance) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async { Ok(false) })
    }

    fn bind_code<'a>(
        &'a self,
        _code: &'a CodeName,
        _login: u64,
        _ttl: Duration,
    ) -> BoxFuture<'a, Result<CodeBinding, Error>> {
        Box::pin(async { Err(read_only()) })
    }

    fn claim_code<'a>(
        &'a self,
        _code: &'a CodeName,
        _owner: &'a LeaseOwner,
        _ttl: Duration,
    ) -> BoxFuture<'a, Result<CodeClaim, Error>> {
        Box::pin(async { Err(read_only()) })
    }

    fn release_code<'a>(
        &'a self,
        _code: &'a CodeName,
        _owner: &'a LeaseOwner,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async { Ok(true) })
    }

    fn settle_code<'a>(
        &'a self,
        _code: &'a CodeName,
        _owner: Option<&'a LeaseOwner>,
        _outcome: &'a str,
        _ttl: Duration,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async { Err(read_only()) })
    }

    fn revoke<'a>(
        &'a self,
        _name: &'a Name,
        _at: Timestamp,
        _ttl: Duration,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async { Err(read_only()) })
    }

    fn revoked<'a>(&'a self, _name: &'a Name) -> BoxFuture<'a, Result<Option<Timestamp>, Error>> {
        Box::pin(async { Ok(None) })
    }

    fn ping<'a>(&'a self, _app: &'a AppId, _kind: Kind) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.redis.check_reading())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn points(token: &FollowedToken, key: Option<u64>, expiry: Option<i64>) -> (u128, u128) {
        let expires_at = expiry.map(|secs| Timestamp::from_millis(NOW.as_millis() + secs * 1_000));
        let life = token.lifetime(NOW, key.map(Duration::from_secs), expires_at);
        let secs = |at| NOW.until(at).as_millis() / 1_000;
        (secs(life.renew_at()), secs(life.expires_at()))
    }

    #[test]
    fn the_margin_comes_from_the_keys_life() {
        let exact = FollowedToken::json_object("k");
        assert_eq!(points(&exact, Some(7_200), None), (7_140, 7_200));
        assert_eq!(points(&exact, Some(40), None), (20, 40));
        assert_eq!(points(&exact, None, None), (30, 60));
        assert_eq!(
            points(&FollowedToken::wx_java(), Some(7_000), None),
            (6_940, 7_000)
        );
        assert_eq!(
            points(&FollowedToken::wx_java_redisson(), Some(7_000), None),
            (6_940, 7_200)
        );
        let two_keys = FollowedToken::wechatpy();
        assert_eq!(points(&two_keys, Some(7_200), Some(7_200)), (7_140, 7_200));
        assert_eq!(points(&two_keys, None, Some(100)), (50, 100));
        assert_eq!(points(&two_keys, None, Some(-5)), (0, 0));
    }
    #[test]
    fn a_name_with_the_secret_is_never_shown() {
        let secret = "0123456789abcdef0123456789abcdef";
        let key = format!("cache:official_account.access_token.wx1.{secret}.1");
        for token in [
            FollowedToken::easy_wechat_6_15(secret, true).key_prefix("cache:"),
            // The whole name, as somebody copies it from `redis-cli`.
            FollowedToken::easy_wechat_6_15(secret, true).key(key.as_str()),
            FollowedToken::easy_wechat().key(key.as_str()),
        ] {
            assert_eq!(token.name(&token.key, "wx1").as_str(), key);
            let shown = format!("{token:?} {token:#?} {}", token.shown(&key));
            assert!(!shown.contains(secret), "{shown}");
            assert!(shown.contains("official_account.access_token"), "{shown}");
        }
        // Secrets of other lengths are known where they are given.
        let token = FollowedToken::easy_wechat_6_15("s3cret", false).key("k.s3cret");
        assert!(!format!("{token:?}").contains("s3cret"));
        let token = FollowedToken::power_wechat("power.edc5f6181730baffc0b88cf96658aeff");
        assert!(format!("{token:?}").contains("power.***"));
    }
}
