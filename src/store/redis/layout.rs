//! Layouts of records in Redis, and the names of keys and hashes.

use std::borrow::Cow;

use memchr::memchr;
use serde::Deserialize;

/// The arrangement of credentials in Redis.
///
/// ```
/// use tower_wechat::redis::Layout;
/// use tower_wechat::RedisStore;
///
/// // In a file of settings: `hashes` or `keys`.
/// let layout: Layout = serde_json::from_str(r#""keys""#)?;
/// assert_eq!(layout, Layout::Keys);
/// let store = RedisStore::builder("redis://127.0.0.1/").layout(layout);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Layout {
    /// The published Spring Boot layout: two hashes with a field for each user, and one string key
    /// for each credential of the account. A Java service and this crate can share the data.
    #[default]
    Hashes,
    /// One key with a TTL for each user and for each credential of the account. This layout suits
    /// large deployments and Redis Cluster.
    Keys,
}

/// The names of the keys, hashes and channels in Redis.
///
/// The configuration block of the published service deserializes into this type. A name that the
/// block does not contain keeps its default. `{appid}` in a name stands for the AppID. `#MS` in the
/// descriptions stands for `#` and a time in milliseconds since the Unix epoch.
///
/// # Several accounts on one Redis
///
/// **Two accounts that share a Redis in [`Layout::Hashes`] need `{appid}` in each of these names,
/// except in the prefix.** The published names contain no AppID. Without `{appid}`, the second
/// account reads what the first one has written. **One account then uses the token, the ticket and
/// the users' tokens of the other.** The stored values contain no AppID either, so only WeChat
/// notices the mistake. Keys below the prefix, and so all keys of [`Layout::Keys`], always contain
/// the AppID.
///
/// ```
/// use tower_wechat::redis::RedisNames;
///
/// let mut names = RedisNames::default();
/// names.user_access_token = "user.wxUserAccessToken.{appid}".into();
/// names.user_refresh_token = "user.wxUserRefreshToken.{appid}".into();
/// names.account_token = "sys.wxAccessToken.{appid}".into();
/// names.account_refresh_token = "sys.wxRefreshToken.{appid}".into();
/// names.jsapi_ticket = "sys.wxJsapiTicket.{appid}".into();
/// ```
///
/// # The published service's block
///
/// ```
/// use tower_wechat::redis::RedisNames;
///
/// // What the Spring Boot service has in its application.yml, as JSON:
/// let names: RedisNames = serde_json::from_str(
///     r#"{
///         "redisWxUserAccessToken": "user.wxUserAccessToken",
///         "redisWxUserRefreshToken": "user.wxUserRefreshToken",
///         "redisWxAccessToken": "sys.wxAccessToken",
///         "redisWxRefreshToken": "sys.wxRefreshToken"
///     }"#,
/// )?;
/// assert_eq!(names, RedisNames::default());
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[non_exhaustive]
pub struct RedisNames {
    /// The hash of users' access tokens (`ACCESS_TOKEN#MS`) by user id. Default:
    /// `user.wxUserAccessToken`.
    #[serde(rename = "redisWxUserAccessToken")]
    pub user_access_token: String,
    /// The hash of users' refresh tokens (`REFRESH_TOKEN#MS`) by user id. Default:
    /// `user.wxUserRefreshToken`.
    #[serde(rename = "redisWxUserRefreshToken")]
    pub user_refresh_token: String,
    /// The key of the account's token (`TOKEN#MS`). Default: `sys.wxAccessToken`.
    #[serde(rename = "redisWxAccessToken")]
    pub account_token: String,
    /// The key of the account's refresh token in the published service. This crate does not access
    /// the key. Default: `sys.wxRefreshToken`.
    #[serde(rename = "redisWxRefreshToken")]
    pub account_refresh_token: String,
    /// The key of the `jsapi_ticket` (`TICKET#MS`). Default: `sys.wxJsapiTicket`.
    #[serde(rename = "redisWxJsapiTicket")]
    pub jsapi_ticket: String,
    /// The prefix of all other keys and channels of this crate. Default: `wechat:`.
    #[serde(rename = "redisWxPrefix")]
    pub prefix: String,
}

impl Default for RedisNames {
    fn default() -> Self {
        Self {
            user_access_token: "user.wxUserAccessToken".into(),
            user_refresh_token: "user.wxUserRefreshToken".into(),
            account_token: "sys.wxAccessToken".into(),
            account_refresh_token: "sys.wxRefreshToken".into(),
            jsapi_ticket: "sys.wxJsapiTicket".into(),
            prefix: "wechat:".into(),
        }
    }
}

impl RedisNames {
    /// Replaces `{appid}` in a name with the AppID.
    pub(super) fn expand_appid<'a>(name: &'a str, app: &str) -> Cow<'a, str> {
        match memchr(b'{', name.as_bytes()) {
            Some(_) => name.replace("{appid}", app).into(),
            None => name.into(),
        }
    }
}
