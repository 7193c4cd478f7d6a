//! Layouts of records in Redis, and the names of keys and hashes.

use std::borrow::Cow;

use memchr::memchr;
use serde::Deserialize;

use crate::error::Error;

/// The text in a name that stands for the AppID.
pub(super) const APPID_PLACEHOLDER: &str = "{appid}";

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
/// let names = RedisNames::default().with_appid();
/// assert_eq!(names.user_access_token, "user.wxUserAccessToken.{appid}");
/// assert_eq!(names.jsapi_ticket, "sys.wxJsapiTicket.{appid}");
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
    /// The key of the account's refresh token (`TOKEN#MS`), which an account has that has authorized
    /// a third-party platform (第三方平台). This crate accesses the key only with the feature
    /// `platform`. The platform ignores the time on a read, and writes a time ten years ahead,
    /// because the token does not expire. Default: `sys.wxRefreshToken`.
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
    /// Appends `.{appid}` to each name that does not contain `{appid}`, except to the prefix. Two
    /// accounts then share no key in [`Layout::Hashes`].
    ///
    /// A hash tag for a Redis Cluster stays as it is. With the hash tag `{wechat}`, all accounts
    /// are on one node; with `{wechat.{appid}}`, each account may be on another node.
    ///
    /// ```
    /// use tower_wechat::redis::RedisNames;
    ///
    /// let mut names = RedisNames::default();
    /// names.user_access_token = "{wechat.{appid}}.access".into();
    /// names.user_refresh_token = "{wechat.{appid}}.refresh".into();
    /// let names = names.with_appid();
    /// assert_eq!(names.user_access_token, "{wechat.{appid}}.access");
    /// assert_eq!(names.account_token, "sys.wxAccessToken.{appid}");
    /// ```
    #[must_use = "the names are returned, not changed in place"]
    pub fn with_appid(mut self) -> Self {
        for name in self.record_names_mut() {
            if !name.contains(APPID_PLACEHOLDER) {
                name.push('.');
                name.push_str(APPID_PLACEHOLDER);
            }
        }
        self
    }

    /// Returns the names of the published layout: all names except the prefix.
    fn record_names_mut(&mut self) -> [&mut String; 5] {
        let Self {
            user_access_token,
            user_refresh_token,
            account_token,
            account_refresh_token,
            jsapi_ticket,
            prefix: _,
        } = self;
        [
            user_access_token,
            user_refresh_token,
            account_token,
            account_refresh_token,
            jsapi_ticket,
        ]
    }

    /// Checks that two accounts share no key in this layout, nor in the layout of a dual write.
    pub(super) fn check_several_accounts(
        &self,
        layout: Layout,
        dual_write: Option<Layout>,
    ) -> Result<(), Error> {
        let uses_names = [Some(layout), dual_write].contains(&Some(Layout::Hashes));
        let mut names = self.clone();
        let shared: Vec<&str> = names
            .record_names_mut()
            .into_iter()
            .filter(|name| !name.contains(APPID_PLACEHOLDER))
            .map(|name| &**name)
            .collect();
        match shared.first() {
            Some(first) if uses_names => Err(Error::configuration(format!(
                "several accounts share this Redis, and would share the records of {}, because \
                 these names do not contain {APPID_PLACEHOLDER}: write {first}.{APPID_PLACEHOLDER} \
                 for example (RedisNames::with_appid does so for all names), or choose the key \
                 layout (Layout::Keys, REDIS_LAYOUT=keys)",
                shared.join(", ")
            ))),
            Some(_) | None => Ok(()),
        }
    }

    /// Returns the names that an account has with [`with_appid`](Self::with_appid), and not with
    /// these names.
    #[cfg(feature = "cli")]
    pub(super) fn added_by_appid(&self, app: &str) -> Vec<String> {
        let (mut names, mut with_appid) = (self.clone(), self.clone().with_appid());
        let pairs = names.record_names_mut().into_iter();
        let pairs = pairs.zip(with_appid.record_names_mut());
        let added = pairs.filter(|(name, with_appid)| name != with_appid);
        added
            .map(|(_, name)| Self::expand_appid(name, app).into_owned())
            .collect()
    }

    /// Replaces `{appid}` in a name with the AppID.
    pub(super) fn expand_appid<'a>(name: &'a str, app: &str) -> Cow<'a, str> {
        match memchr(b'{', name.as_bytes()) {
            Some(_) => name.replace(APPID_PLACEHOLDER, app).into(),
            None => name.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(names: &RedisNames, layout: Layout, dual_write: Option<Layout>) -> Result<(), String> {
        let checked = names.check_several_accounts(layout, dual_write);
        checked.map_err(|error| error.to_string())
    }

    #[test]
    fn hash_names_of_several_accounts_need_the_appid() {
        let published = RedisNames::default();
        for (layout, dual_write) in [
            (Layout::Hashes, None),
            (Layout::Hashes, Some(Layout::Keys)),
            (Layout::Keys, Some(Layout::Hashes)),
        ] {
            let message = check(&published, layout, dual_write).unwrap_err();
            for name in [
                "user.wxUserAccessToken,",
                "user.wxUserRefreshToken,",
                "sys.wxAccessToken,",
                "sys.wxRefreshToken,",
                "sys.wxJsapiTicket,",
                "user.wxUserAccessToken.{appid}",
            ] {
                assert!(message.contains(name), "{name}: {message}");
            }
            let names = published.clone().with_appid();
            assert_eq!(check(&names, layout, dual_write), Ok(()));
        }
        assert_eq!(check(&published, Layout::Keys, None), Ok(()));
    }

    #[test]
    fn the_error_lists_only_the_names_without_appid() {
        let mut names = RedisNames::default().with_appid();
        names.jsapi_ticket = "ticket".into();
        let message = check(&names, Layout::Hashes, None).unwrap_err();
        assert!(
            message.contains("the records of ticket, because"),
            "{message}"
        );
        assert!(message.contains("write ticket.{appid} "), "{message}");
        let names = names.with_appid();
        assert_eq!(names.jsapi_ticket, "ticket.{appid}");
        assert_eq!(names.clone().with_appid(), names);
    }
}
