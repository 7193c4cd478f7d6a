//! The keys and formats in which another system keeps a third-party platform in Redis.

use std::time::Duration;

use super::external::ExternalToken;
#[cfg(feature = "cli")]
use crate::clock::Timestamp;
use crate::credential::AppId;
use crate::store::redis::format::external::ExternalFormat;

/// Remaining time to live below which WxJava counts a token as expired: two seconds.
const WX_JAVA_MIN_TTL: Duration = Duration::from_secs(2);

/// Shortest lifetime of a token that is worth a copy: one second.
#[cfg(feature = "cli")]
const SHORTEST_LIFETIME: Duration = Duration::from_secs(1);

/// Time by which WxJava lets the key of a token expire before the token: 200 seconds.
#[cfg(feature = "cli")]
const WX_JAVA_EARLY_EXPIRY: Duration = Duration::from_secs(200);

/// Time to live with which WxJava stores a verify ticket: twelve hours, which is also the time for
/// which WeChat accepts a ticket. Older releases use [`WX_JAVA_OLD_TICKET_TTL`].
#[cfg(feature = "cli")]
const WX_JAVA_TICKET_TTL: Duration = Duration::from_secs(12 * 3_600);

/// Time to live with which older releases of WxJava store a verify ticket: the largest `int`.
#[cfg(feature = "cli")]
const WX_JAVA_OLD_TICKET_TTL: Duration = Duration::from_secs(i32::MAX as u64);

/// The keys under which another system keeps a third-party platform (第三方平台) in Redis: the verify
/// ticket, the component access token, and the tokens of the accounts.
///
/// ```
/// use tower_wechat::redis::ExternalPlatform;
///
/// // A service with the Spring starter of WxJava, and one with another prefix:
/// let platform = ExternalPlatform::wx_java();
/// let platform = ExternalPlatform::wx_java().prefix("wx");
/// # let _ = platform;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalPlatform {
    system: System,
    /// The prefix of all keys, which is empty or ends with a colon.
    prefix: String,
}

/// The systems whose keys are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum System {
    WxJava,
    Wechatpy,
}

impl ExternalPlatform {
    /// Creates the platform of WxJava's `WxOpenInRedisConfigStorage`, with Jedis, a `RedisTemplate`,
    /// or Redisson with its `StringCodec`. The prefix is `wx:open`, which WxJava's Spring starter
    /// uses. The key of a token expires 200 seconds before the token.
    ///
    /// Source: `AbstractWxOpenInRedisConfigStorage` and `AbstractWxOpenInRedisOpsConfigStorage`,
    /// read in 2026-11.
    pub fn wx_java() -> Self {
        Self {
            system: System::WxJava,
            prefix: String::new(),
        }
        .prefix("wx:open")
    }

    /// Creates the platform of wechatpy with its `RedisStorage` and the default prefix `wechatpy`.
    /// The values are JSON strings.
    ///
    /// Source: `component.py` and `session/redisstorage.py`, commit 5b8502e (2025-02).
    pub fn wechatpy() -> Self {
        Self {
            system: System::Wechatpy,
            prefix: String::new(),
        }
        .prefix("wechatpy")
    }

    /// Sets the prefix of all keys. A colon separates the prefix from the rest of a key. With an
    /// empty text, the keys have no prefix. Default: the prefix of the constructor.
    #[must_use]
    pub fn prefix(mut self, prefix: &str) -> Self {
        self.prefix = prefix.trim().to_owned();
        if !self.prefix.is_empty() && !self.prefix.ends_with(':') {
            self.prefix.push(':');
        }
        self
    }

    /// Returns the component access token, as a token that another system keeps.
    pub(super) fn component_token(&self, component: &AppId) -> ExternalToken {
        let key = self.component_token_key(component);
        ExternalToken::with_min_key_ttl(self.format(), key, self.min_key_ttl())
    }

    /// Returns the access token of an account, as a token that another system keeps.
    pub(super) fn account_token(&self, component: &AppId, account: &AppId) -> ExternalToken {
        let key = self.account_token_key(component, account);
        ExternalToken::with_min_key_ttl(self.format(), key, self.min_key_ttl())
    }

    /// Returns the key of the component access token.
    pub(super) fn component_token_key(&self, component: &AppId) -> String {
        let (prefix, app) = (&self.prefix, component.as_str());
        match self.system {
            System::WxJava => format!("{prefix}wechat_component_access_token:{app}"),
            System::Wechatpy => format!("{prefix}{app}_component_access_token"),
        }
    }

    /// Returns the key of an account's access token.
    pub(super) fn account_token_key(&self, component: &AppId, account: &AppId) -> String {
        let (prefix, app, account) = (&self.prefix, component.as_str(), account.as_str());
        match self.system {
            System::WxJava => format!("{prefix}wechat_authorizer_access_token:{app}:{account}"),
            System::Wechatpy => format!("{prefix}{account}_access_token"),
        }
    }

    /// Returns the key of an account's refresh token.
    pub(super) fn refresh_token_key(&self, component: &AppId, account: &AppId) -> String {
        let (start, end) = self.refresh_token_affixes(component);
        format!("{start}{}{end}", account.as_str())
    }

    /// Returns what stands before and after the AppID in the keys of refresh tokens.
    pub(super) fn refresh_token_affixes(&self, component: &AppId) -> (String, &'static str) {
        let (prefix, app) = (&self.prefix, component.as_str());
        match self.system {
            System::WxJava => (
                format!("{prefix}wechat_authorizer_refresh_token:{app}:"),
                "",
            ),
            System::Wechatpy => (prefix.clone(), "_refresh_token"),
        }
    }

    /// Returns the format of all values.
    pub(super) fn format(&self) -> ExternalFormat {
        match self.system {
            // A `RedisTemplate` or Redisson may write JSON.
            System::WxJava => ExternalFormat::RawOrJsonString,
            System::Wechatpy => ExternalFormat::JsonString,
        }
    }

    fn min_key_ttl(&self) -> Duration {
        match self.system {
            System::WxJava => WX_JAVA_MIN_TTL,
            System::Wechatpy => Duration::ZERO,
        }
    }
}

/// Keys and times that only an import reads.
#[cfg(feature = "cli")]
impl ExternalPlatform {
    /// Returns the key of the verify ticket.
    pub(super) fn ticket_key(&self, component: &AppId) -> String {
        let (prefix, app) = (&self.prefix, component.as_str());
        match self.system {
            System::WxJava => format!("{prefix}wechat_component_verify_ticket:{app}"),
            System::Wechatpy => format!("{prefix}{app}_component_verify_ticket"),
        }
    }

    /// Returns the name of the system.
    pub(super) fn system_name(&self) -> &'static str {
        match self.system {
            System::WxJava => "WxJava",
            System::Wechatpy => "wechatpy",
        }
    }

    /// Returns the prefix of all keys.
    pub(super) fn key_prefix(&self) -> &str {
        &self.prefix
    }

    /// Returns the remaining lifetime of a token by the time to live of its key. Returns `None` if
    /// the system counts the token as expired. A key without a time to live counts as expired.
    pub(super) fn usable_for(&self, key_ttl: Option<Duration>) -> Option<Duration> {
        let usable = key_ttl?.checked_sub(self.min_key_ttl())?;
        (usable >= SHORTEST_LIFETIME).then_some(usable)
    }

    /// Returns the time by which the key of a token expires before the token.
    pub(super) fn early_expiry(&self) -> Duration {
        match self.system {
            System::WxJava => WX_JAVA_EARLY_EXPIRY,
            System::Wechatpy => Duration::ZERO,
        }
    }

    /// Returns the time at which the system has stored a verify ticket, by the time to live of its
    /// key at `now`. Returns `None` if the time to live does not show it.
    pub(super) fn ticket_stored_at(
        &self,
        key_ttl: Option<Duration>,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let granted = match self.system {
            System::WxJava if key_ttl? <= WX_JAVA_TICKET_TTL => WX_JAVA_TICKET_TTL,
            System::WxJava => WX_JAVA_OLD_TICKET_TTL,
            System::Wechatpy => return None,
        };
        let age = granted.checked_sub(key_ttl?)?;
        Some(now.saturating_sub(age))
    }
}

#[cfg(all(test, feature = "cli"))]
mod tests {
    use super::*;

    fn app(id: &str) -> AppId {
        AppId::new(id).unwrap()
    }

    #[test]
    fn keys_are_those_of_wx_java_and_wechatpy() {
        let (component, account) = (app("wxC"), app("wxA"));
        for (platform, keys) in [
            (
                ExternalPlatform::wx_java(),
                [
                    "wx:open:wechat_component_verify_ticket:wxC",
                    "wx:open:wechat_component_access_token:wxC",
                    "wx:open:wechat_authorizer_refresh_token:wxC:wxA",
                    "wx:open:wechat_authorizer_access_token:wxC:wxA",
                ],
            ),
            (
                ExternalPlatform::wx_java().prefix(""),
                [
                    "wechat_component_verify_ticket:wxC",
                    "wechat_component_access_token:wxC",
                    "wechat_authorizer_refresh_token:wxC:wxA",
                    "wechat_authorizer_access_token:wxC:wxA",
                ],
            ),
            (
                ExternalPlatform::wechatpy(),
                [
                    "wechatpy:wxC_component_verify_ticket",
                    "wechatpy:wxC_component_access_token",
                    "wechatpy:wxA_refresh_token",
                    "wechatpy:wxA_access_token",
                ],
            ),
        ] {
            let found = [
                platform.ticket_key(&component),
                platform.component_token_key(&component),
                platform.refresh_token_key(&component, &account),
                platform.account_token_key(&component, &account),
            ];
            assert_eq!(found, keys);
        }
        let colon = ExternalPlatform::wx_java().prefix("wx:open:");
        assert_eq!(colon, ExternalPlatform::wx_java());
    }

    #[test]
    fn tokens_end_two_seconds_before_their_key() {
        let (java, python) = (ExternalPlatform::wx_java(), ExternalPlatform::wechatpy());
        let secs = |secs| Some(Duration::from_secs(secs));
        assert_eq!(java.usable_for(secs(7_000)), secs(6_998));
        for ttl in [
            None,
            secs(0),
            secs(1),
            secs(2),
            Some(Duration::from_millis(2_999)),
        ] {
            assert_eq!(java.usable_for(ttl), None, "{ttl:?}");
        }
        assert_eq!(python.usable_for(secs(2)), secs(2));
        assert_eq!(python.usable_for(None), None);
    }

    #[test]
    fn the_ttl_shows_when_a_ticket_was_stored() {
        let now = Timestamp::from_millis(1_700_000_000_000);
        let java = ExternalPlatform::wx_java();
        let age = |ttl: u64| {
            let at = java.ticket_stored_at(Some(Duration::from_secs(ttl)), now);
            at.map(|at| at.duration_until(now).as_secs())
        };
        assert_eq!(age(43_200), Some(0));
        assert_eq!(age(42_600), Some(600));
        assert_eq!(age(2_147_483_647), Some(0));
        assert_eq!(age(2_147_483_047), Some(600));
        assert_eq!(age(3_000_000_000), None);
        assert_eq!(java.ticket_stored_at(None, now), None);
    }
}
