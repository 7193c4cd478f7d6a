//! The keys and formats in which other systems store an account token in Redis.

use std::fmt;
use std::time::Duration;

use zeroize::Zeroizing;

use super::layout::RedisNames;
use crate::clock::Timestamp;
use crate::credential::{AppSecret, Lifetime};
use crate::store::redis::format::external::ExternalFormat;

/// Time before the expiry of a key at which its token becomes due for renewal: one minute, or half
/// of a shorter remaining time. From that point the engine reads the key again every second,
/// because the other system may write the next token.
const RECHECK_MARGIN: Duration = Duration::from_secs(60);

/// Assumed lifetime of a token if neither its expiry nor the TTL of its key is known: one minute.
/// The time is short, so that the engine soon reads the key again.
const UNKNOWN_LIFETIME: Duration = Duration::from_secs(60);

/// The placeholder of the AppSecret in a key.
const SECRET_PLACEHOLDER: &str = "{secret}";

/// Length of a run of hexadecimal digits that logs and errors do not show: 32, the length of
/// AppSecrets and MD5 hashes.
const SECRET_DIGITS: usize = 32;

/// The key and the format of an account token that another system keeps in Redis.
/// [`source`](Self::source) turns it into a source of [`AccountTokens`](crate::AccountTokens).
///
/// ```
/// use tower_wechat::redis::ExternalToken;
///
/// // A service with WxJava, under its usual name and under another one:
/// let token = ExternalToken::wx_java();
/// let token = ExternalToken::wx_java().key("wx:mp:access_token:{appid}");
/// # let _ = token;
/// ```
///
/// ```
/// use std::time::Duration;
/// use tower_wechat::redis::ExternalToken;
///
/// // Other systems with their usual names:
/// let known = [
///     ExternalToken::wx_java_redisson(),
///     ExternalToken::silenceper(),
///     ExternalToken::wechatpy(),
///     ExternalToken::easy_wechat(),
///     ExternalToken::easy_wechat_6_15("the AppSecret", false).key_prefix("laravel_cache_:"),
///     ExternalToken::power_wechat("powerwechat.access_token.0cc175b9c0f1b6a831c399e269772661"),
/// ];
/// // Any other, by the form of its value:
/// let forms = [
///     ExternalToken::raw("token:{appid}").key_expires_early_by(Duration::from_secs(200)),
///     ExternalToken::json_string("token").expires_at_key("token:expires_at"),
///     ExternalToken::json_object("token"),
///     ExternalToken::php("token"),
/// ];
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct ExternalToken {
    pub(super) format: ExternalFormat,
    pub(super) key: String,
    pub(super) expires_at_key: Option<String>,
    /// The value of `{secret}` in a key.
    secret: Option<AppSecret>,
    /// Minimum time between the expiry of the key and the expiry of the token.
    key_expires_early_by: Duration,
    /// Time to live of the key from which the other system counts the token as expired. With this
    /// setting, the token of a key without a time to live has expired too.
    pub(super) min_key_ttl: Option<Duration>,
}

impl ExternalToken {
    fn new(format: ExternalFormat, key: impl Into<String>) -> Self {
        Self {
            format,
            key: key.into(),
            expires_at_key: None,
            secret: None,
            key_expires_early_by: Duration::ZERO,
            min_key_ttl: None,
        }
    }

    /// Creates the external token of a system that counts a token as expired when the time to live
    /// of its key is `min_key_ttl` or less.
    #[cfg(feature = "platform")]
    pub(super) fn with_min_key_ttl(
        format: ExternalFormat,
        key: String,
        min_key_ttl: Duration,
    ) -> Self {
        Self {
            min_key_ttl: Some(min_key_ttl),
            ..Self::new(format, key)
        }
    }

    /// Creates the external token of WxJava's `WxMpRedisConfigImpl`, with Jedis or a
    /// `RedisTemplate`. The key `wx:access_token:{appid}` contains the bare token and expires with
    /// it.
    ///
    /// Versions before commit 179d469 (2023-11-07) let the key expire 200 seconds before the token.
    /// With this constructor, the token of such a version still counts as expired when the key
    /// expires.
    ///
    /// Source: `WxMpRedisConfigImpl.updateAccessToken`, commit 3e48dc7 (2025-01-24).
    pub fn wx_java() -> Self {
        Self::raw("wx:access_token:{appid}")
    }

    /// Creates the external token of WxJava's `WxMpRedissonConfigImpl`. The key
    /// `wx:access_token:{appid}` contains the bare token and expires 200 seconds before it.
    /// Redisson must use its `StringCodec`.
    ///
    /// Source: `WxMpRedissonConfigImpl.updateAccessToken`, commit 3e48dc7 (2025-01-24).
    pub fn wx_java_redisson() -> Self {
        Self::wx_java().key_expires_early_by(Duration::from_secs(200))
    }

    /// Creates the external token of silenceper/wechat. The key
    /// `gowechat_officialaccount__access_token_{appid}` contains the bare token, or a JSON string
    /// from old versions. The key expires at least 300 seconds before the token.
    ///
    /// With stable tokens, the key is `gowechat_officialaccount__stable_access_token_{appid}`. Set
    /// it with [`key`](Self::key).
    ///
    /// Source: `credential/default_access_token.go` and `cache/redis.go`, commit 1797041 (2024-02).
    pub fn silenceper() -> Self {
        let key = "gowechat_officialaccount__access_token_{appid}";
        Self::new(ExternalFormat::RawOrJsonString, key)
            .key_expires_early_by(Duration::from_secs(300))
    }

    /// Creates the external token of PowerWeChat, whose value is a JSON object.
    ///
    /// `key` is the whole key: `powerwechat.access_token.` and a hash in hexadecimal. The hash is
    /// the MD5 of the AppID followed by the AppSecret.
    ///
    /// Source: `kernel/accessToken.go`, commit 38a5032 (2024-12).
    pub fn power_wechat(key: impl Into<String>) -> Self {
        Self::json_object(key)
    }

    /// Creates the external token of wechatpy with its `RedisStorage` and the default prefix. The
    /// key `wechatpy:{appid}_access_token` contains a JSON string. Version 2 also stores the
    /// expiry, in `wechatpy:{appid}_access_token_expires_at`.
    ///
    /// Source: `session/redisstorage.py`, commit 5b8502e (2025-02). Tests of this crate run the
    /// releases 1.8.18 and 2.0.0a26.
    pub fn wechatpy() -> Self {
        Self {
            expires_at_key: Some("wechatpy:{appid}_access_token_expires_at".into()),
            ..Self::json_string("wechatpy:{appid}_access_token")
        }
    }

    /// Creates the external token of EasyWeChat 6 before 6.15.1. The cache must store the output of
    /// PHP's `serialize` or igbinary, as the caches of Symfony and Laravel do. The key
    /// `official_account.access_token.{appid}` contains a string.
    ///
    /// Caches add a prefix to the key. Set it with [`key_prefix`](Self::key_prefix). For later
    /// versions, use [`easy_wechat_6_15`](Self::easy_wechat_6_15).
    ///
    /// Source: `OfficialAccount/AccessToken.php`, commit 0306cb7.
    pub fn easy_wechat() -> Self {
        Self::php("official_account.access_token.{appid}")
    }

    /// Creates the external token of EasyWeChat 6.15.1 and later. The value has the format of
    /// [`easy_wechat`](Self::easy_wechat). The key is
    /// `official_account.access_token.{appid}.{secret}.0`, or ends with `1` if `stable` is `true`,
    /// which stands for EasyWeChat's setting `use_stable_access_token`.
    ///
    /// The key contains the AppSecret. Logs and `Debug` output show `{secret}` instead.
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

    /// Creates an external token whose value is the bare token.
    pub fn raw(key: impl Into<String>) -> Self {
        Self::new(ExternalFormat::Raw, key)
    }

    /// Creates an external token whose value is a JSON string.
    pub fn json_string(key: impl Into<String>) -> Self {
        Self::new(ExternalFormat::JsonString, key)
    }

    /// Creates an external token whose value is a JSON object with the field `access_token`.
    pub fn json_object(key: impl Into<String>) -> Self {
        Self::new(ExternalFormat::JsonObject, key)
    }

    /// Creates an external token whose value is the output of PHP's `serialize` or igbinary, for a
    /// string or for an array with an `access_token`.
    pub fn php(key: impl Into<String>) -> Self {
        Self::new(ExternalFormat::Php, key)
    }

    /// Sets the key of the token. In the key, `{appid}` stands for the AppID, and `{secret}` for
    /// the AppSecret of [`easy_wechat_6_15`](Self::easy_wechat_6_15).
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = key.into();
        self
    }

    /// Adds a prefix to the key of the token, as some caches do.
    #[must_use]
    pub fn key_prefix(mut self, prefix: &str) -> Self {
        self.key.insert_str(0, prefix);
        self
    }

    /// Sets the key of the expiry, whose value is a JSON number of seconds since the Unix epoch. In
    /// the key, `{appid}` stands for the AppID. Default: none.
    #[must_use]
    pub fn expires_at_key(mut self, key: impl Into<String>) -> Self {
        self.expires_at_key = Some(key.into());
        self
    }

    /// Sets the minimum time between the expiry of the key and the expiry of the token. If the
    /// other system writes the next token late, processes that have read the token use it for this
    /// time after the key has expired. If the key is deleted before its expiry, they drop the token
    /// at the next read. Default: zero.
    #[must_use]
    pub fn key_expires_early_by(mut self, by: Duration) -> Self {
        self.key_expires_early_by = by;
        self
    }

    /// Returns the key with its placeholders replaced.
    pub(super) fn resolve_key(&self, name: &str, app: &str) -> Zeroizing<String> {
        let name = RedisNames::expand_appid(name, app);
        Zeroizing::new(match &self.secret {
            Some(secret) => name.replace(SECRET_PLACEHOLDER, secret.expose()),
            None => name.into_owned(),
        })
    }

    /// Returns a key for logs and errors, without the AppSecret. Every run of exactly 32
    /// hexadecimal digits is also replaced, because the run may be an AppSecret.
    pub(super) fn redact(&self, name: &str) -> String {
        let name = match &self.secret {
            Some(secret) if !secret.expose().is_empty() => {
                name.replace(secret.expose(), SECRET_PLACEHOLDER)
            }
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

    /// Returns the lifetime of a token that was read at `now`. The token is due for renewal shortly
    /// before the earlier of two times: the expiry of its key, and `expires_at`.
    pub(super) fn lifetime(
        &self,
        now: Timestamp,
        key_ttl: Option<Duration>,
        expires_at: Option<Timestamp>,
    ) -> Lifetime {
        let key_expires_at = key_ttl.map(|ttl| now.saturating_add(ttl));
        let end = match (key_expires_at, expires_at) {
            (Some(key_expires_at), Some(expires_at)) => key_expires_at.min(expires_at),
            (Some(end), None) | (None, Some(end)) => end,
            (None, None) => now.saturating_add(UNKNOWN_LIFETIME),
        };
        let recheck_margin = RECHECK_MARGIN.min(now.duration_until(end) / 2);
        let token_expires_at = match expires_at {
            Some(expires_at) => expires_at.max(end),
            None => end.saturating_add(self.key_expires_early_by),
        };
        Lifetime::from_stored(
            end.saturating_sub(recheck_margin),
            Some(token_expires_at),
            recheck_margin,
        )
    }
}

impl fmt::Debug for ExternalToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let expires_at_key = self.expires_at_key.as_deref();
        f.debug_struct("ExternalToken")
            .field("format", &self.format)
            .field("key", &self.redact(&self.key))
            .field(
                "expires_at_key",
                &expires_at_key.map(|key| self.redact(key)),
            )
            .field("secret", &self.secret)
            .field("key_expires_early_by", &self.key_expires_early_by)
            .field("min_key_ttl", &self.min_key_ttl)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn lifetime_secs(token: &ExternalToken, key: Option<u64>, expiry: Option<i64>) -> (u128, u128) {
        let expires_at = expiry.map(|secs| Timestamp::from_millis(NOW.as_millis() + secs * 1_000));
        let lifetime = token.lifetime(NOW, key.map(Duration::from_secs), expires_at);
        let secs = |at| NOW.duration_until(at).as_millis() / 1_000;
        (secs(lifetime.renew_at()), secs(lifetime.expires_at()))
    }

    #[test]
    fn renewal_point_follows_the_keys_ttl() {
        let exact = ExternalToken::json_object("k");
        assert_eq!(lifetime_secs(&exact, Some(7_200), None), (7_140, 7_200));
        assert_eq!(lifetime_secs(&exact, Some(40), None), (20, 40));
        assert_eq!(lifetime_secs(&exact, None, None), (30, 60));
        assert_eq!(
            lifetime_secs(&ExternalToken::wx_java(), Some(7_000), None),
            (6_940, 7_000)
        );
        assert_eq!(
            lifetime_secs(&ExternalToken::wx_java_redisson(), Some(7_000), None),
            (6_940, 7_200)
        );
        let two_keys = ExternalToken::wechatpy();
        assert_eq!(
            lifetime_secs(&two_keys, Some(7_200), Some(7_200)),
            (7_140, 7_200)
        );
        assert_eq!(lifetime_secs(&two_keys, None, Some(100)), (50, 100));
        assert_eq!(lifetime_secs(&two_keys, None, Some(-5)), (0, 0));
    }

    #[test]
    fn debug_output_redacts_the_secret() {
        let secret = "0123456789abcdef0123456789abcdef";
        let key = format!("cache:official_account.access_token.wx1.{secret}.1");
        for token in [
            ExternalToken::easy_wechat_6_15(secret, true).key_prefix("cache:"),
            // This key contains the secret itself, as an operator copies the key from `redis-cli`.
            ExternalToken::easy_wechat_6_15(secret, true).key(key.as_str()),
            ExternalToken::easy_wechat().key(key.as_str()),
        ] {
            assert_eq!(token.resolve_key(&token.key, "wx1").as_str(), key);
            let shown = format!("{token:?} {token:#?} {}", token.redact(&key));
            assert!(!shown.contains(secret), "{shown}");
            assert!(shown.contains("official_account.access_token"), "{shown}");
        }
        // Secrets of other lengths are redacted if the constructor has received them.
        let token = ExternalToken::easy_wechat_6_15("s3cret", false).key("k.s3cret");
        assert!(!format!("{token:?}").contains("s3cret"));
        let token = ExternalToken::power_wechat("power.edc5f6181730baffc0b88cf96658aeff");
        assert!(format!("{token:?}").contains("power.***"));
    }
}
