//! Layouts of records in Redis, and the names of keys and hashes.

use std::borrow::Cow;

use memchr::memchr;
use serde::Deserialize;

/// How user tokens lie in Redis.
///
/// ```
/// use tower_wechat::{Layout, RedisStore};
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
    /// The published Spring Boot layout: two hashes with a field for each user. An existing Java
    /// service and this crate share it.
    #[default]
    Hashes,
    /// One key for each user, with a TTL: for large or clustered deployments.
    Keys,
}

/// The names under which credentials lie in Redis.
///
/// The published service's configuration block deserializes into this unchanged; what a block does
/// not name keeps its default. `{appid}` in a name stands for the account's AppID.
///
/// # Several accounts on one Redis
///
/// **Two accounts that share a Redis under [`Layout::Hashes`] need `{appid}` in each of these names
/// but the prefix.** The published names carry no account: with them, and with any others without `{appid}`, the second
/// account reads what the first has written, and **one account's token, ticket and users' tokens
/// are served to the other**. Nothing in a stored value tells whose it is, so nobody notices but
/// WeChat. The keys of this crate's own, below the prefix, and so all of [`Layout::Keys`], carry the
/// AppID by themselves.
///
/// ```
/// use tower_wechat::RedisNames;
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
/// use tower_wechat::RedisNames;
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
    /// The hash of `ACCESS_TOKEN#MS` by user id. Default: `user.wxUserAccessToken`.
    #[serde(rename = "redisWxUserAccessToken")]
    pub user_access_token: String,
    /// The hash of `REFRESH_TOKEN#MS` by user id. Default: `user.wxUserRefreshToken`.
    #[serde(rename = "redisWxUserRefreshToken")]
    pub user_refresh_token: String,
    /// The string of the account's `TOKEN#MS`. Default: `sys.wxAccessToken`.
    #[serde(rename = "redisWxAccessToken")]
    pub account_token: String,
    /// The string of the account's refresh token, where it has one. Default: `sys.wxRefreshToken`.
    #[serde(rename = "redisWxRefreshToken")]
    pub account_refresh_token: String,
    /// The string of the `jsapi_ticket`, `TICKET#MS`. Default: `sys.wxJsapiTicket`.
    #[serde(rename = "redisWxJsapiTicket")]
    pub jsapi_ticket: String,
    /// What the keys and channels of this crate's own start with. Default: `wechat:`.
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
    /// A name as it stands in Redis: `{appid}` replaced.
    pub(super) fn expand_appid<'a>(name: &'a str, app: &str) -> Cow<'a, str> {
        match memchr(b'{', name.as_bytes()) {
            Some(_) => name.replace("{appid}", app).into(),
            None => name.into(),
        }
    }
}
