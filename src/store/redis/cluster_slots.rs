//! The check at start-up that the names of keys and hashes are suitable for a Redis Cluster.

use super::hash_tag::hash_tag;
use super::layout::{APPID_PLACEHOLDER, Layout, RedisNames};
use crate::credential::AppId;
use crate::error::Error;
use crate::store::{CredentialKey, CredentialKind};

impl RedisNames {
    /// Checks that all keys of one script are in one slot of a Cluster, for every kind of
    /// credential.
    pub(super) fn check_cluster_slots(
        &self,
        layout: Layout,
        dual_write: Option<Layout>,
    ) -> Result<(), Error> {
        let Ok(app) = AppId::new("wx0") else {
            return Ok(());
        };
        let slot = |key: &str| hash_tag(key).unwrap_or(key).to_owned();
        for kind in CredentialKind::ALL {
            let id = if kind.belongs_to_account() {
                ""
            } else {
                "user"
            };
            let credential = CredentialKey {
                app: app.clone(),
                kind,
                id: id.into(),
            };
            let locations = self.locations(layout, dual_write, &credential);
            if locations.copy.is_some() {
                return Err(Error::configuration(
                    "on a Redis Cluster the two layouts are in different slots, and no script can \
                     write to both; remove dual_write",
                ));
            }
            let [first, others @ ..] = &*locations.read.keys else {
                continue;
            };
            if others.iter().any(|key| slot(&key.key) != slot(&first.key)) {
                return Err(Error::configuration(format!(
                    "on a Redis Cluster the two hashes of users' tokens have to share a hash tag, \
                     and {} and {} do not; name them for example {{wechat}}.{} and {{wechat}}.{}, \
                     or choose the key layout (Layout::Keys, REDIS_LAYOUT=keys)",
                    self.user_access_token,
                    self.user_refresh_token,
                    without_hash_tag(&self.user_access_token),
                    without_hash_tag(&self.user_refresh_token),
                )));
            }
            if let Some(lease) = locations
                .lease_keys
                .iter()
                .find(|lease| slot(lease) != slot(&first.key))
            {
                return Err(Error::configuration(format!(
                    "on a Redis Cluster {} and its lease {lease} would lie in different slots; use \
                     no braces in the prefix {:?}, and only whole hash tags in the other names",
                    first.key, self.prefix
                )));
            }
        }
        Ok(())
    }
}

/// Removes all braces from a name, except those of `{appid}`.
fn without_hash_tag(name: &str) -> String {
    let parts = name.split(APPID_PLACEHOLDER);
    let parts: Vec<_> = parts.map(|part| part.replace(['{', '}'], "")).collect();
    parts.join(APPID_PLACEHOLDER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_rejects_names_in_several_slots() {
        let plain = RedisNames::default();
        plain.check_cluster_slots(Layout::Keys, None).unwrap();
        let error = plain
            .check_cluster_slots(Layout::Hashes, None)
            .unwrap_err()
            .to_string();
        assert!(error.contains("{wechat}.user.wxUserAccessToken"), "{error}");
        let error = plain
            .clone()
            .with_appid()
            .check_cluster_slots(Layout::Hashes, None)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("{wechat}.user.wxUserRefreshToken.{appid},"),
            "{error}"
        );
        let tagged = RedisNames {
            user_access_token: "{wx.{appid}}.access".into(),
            user_refresh_token: "{wx.{appid}}.refresh".into(),
            ..RedisNames::default()
        };
        tagged.check_cluster_slots(Layout::Hashes, None).unwrap();
        let braces = RedisNames {
            prefix: "{mine}:".into(),
            ..tagged
        };
        let error = braces
            .check_cluster_slots(Layout::Hashes, None)
            .unwrap_err()
            .to_string();
        assert!(error.contains("prefix"), "{error}");
        braces.check_cluster_slots(Layout::Keys, None).unwrap();
    }
}
