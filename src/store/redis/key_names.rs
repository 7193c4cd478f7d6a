//! The names of all keys and channels below the prefix, except those of leases and tombstones.
//!
//! [`locations`](super::locations) returns the keys of a credential, with its lease and tombstone.

use std::borrow::Cow;

use memchr::memchr3;

use super::layout::RedisNames;
use crate::credential::AppId;
use crate::store::{CredentialKey, LoginCodeKey, Quota};

impl RedisNames {
    /// Returns the key of a user in [`Layout::Keys`](super::Layout::Keys). With an empty id, returns
    /// the prefix of all these keys.
    ///
    /// The parts are joined in one step, because every read of a user needs this key: a second step
    /// would allocate again.
    pub(super) fn user_key(&self, app: &str, id: &str) -> String {
        [&self.prefix, app, ":user:", &escape_braces(id)].concat()
    }

    /// Returns the key of a snapshot user. With an empty id, returns the prefix of all these keys.
    pub(super) fn snapshot_key(&self, app: &str, id: &str) -> String {
        [&self.prefix, app, ":snapshot:", &escape_braces(id)].concat()
    }

    /// Returns the key of a credential of the account in [`Layout::Keys`](super::Layout::Keys).
    pub(super) fn account_key(&self, app: &str, kind: &str) -> String {
        format!("{}{app}:account:{kind}", self.prefix)
    }

    /// Returns the key of what belongs to a third-party platform, in both layouts.
    pub(super) fn platform_key(&self, component: &str, name: &str) -> String {
        format!("{}{component}:platform:{name}", self.prefix)
    }

    /// Returns the key of the login to which a code is bound.
    pub(super) fn code_binding_key(&self, code: &LoginCodeKey) -> String {
        format!("{}{}:bound:{}", self.prefix, code.app, code.hash)
    }

    /// Returns the key that holds the lease of a code, and after the exchange its outcome.
    pub(super) fn code_key(&self, code: &LoginCodeKey) -> String {
        format!("{}{}:code:{}", self.prefix, code.app, code.hash)
    }

    /// Returns the key of WeChat's response for a code whose exchange is suspended. Its hash tag is
    /// the whole key of the code, so that a script can use both keys on a Cluster.
    pub(super) fn pending_response_key(&self, code: &LoginCodeKey) -> String {
        let code_key = self.code_key(code);
        format!("{}{}:response:{{{code_key}}}", self.prefix, code.app)
    }

    /// Returns the key of the time at which a user last logged out everywhere.
    pub(super) fn revocation_key(&self, credential: &CredentialKey) -> String {
        let CredentialKey { app, kind, id } = credential;
        format!("{}{app}:revoked:{}:{id}", self.prefix, kind.as_str())
    }

    /// Returns the channel of invalidations of an account.
    pub(super) fn invalidation_channel(&self, app: &AppId) -> String {
        format!("{}{app}:news", self.prefix)
    }

    /// Returns the key that counts the uses of a quota.
    pub(super) fn quota_key(&self, quota: &Quota) -> String {
        format!("{}{}:allowance:{}", self.prefix, quota.app, quota.purpose)
    }

    /// Returns the key that health checks read and write, which is also the field that they access
    /// in hashes. No user has this field, because user ids of WeChat contain no colon.
    pub(super) fn health_key(&self) -> String {
        format!("{}ping", self.prefix)
    }

    /// Returns the key of a lease that no process holds, for the test of scripts at start-up.
    pub(super) fn script_test_key(&self) -> String {
        format!("{}lease:probe", self.prefix)
    }

    /// Returns the key of the registry of sealing keys.
    pub(super) fn sealing_registry_key(&self) -> String {
        format!("{}sealing", self.prefix)
    }
}

/// Percent-encodes the braces and percent signs of a user id, so that a user id cannot contain a
/// hash tag. Ids that WeChat issues contain none of these characters and do not change.
fn escape_braces(id: &str) -> Cow<'_, str> {
    if memchr3(b'{', b'}', b'%', id.as_bytes()).is_none() {
        return id.into();
    }
    let mut out = String::with_capacity(id.len() + 8);
    for letter in id.chars() {
        match letter {
            '{' => out.push_str("%7B"),
            '}' => out.push_str("%7D"),
            '%' => out.push_str("%25"),
            other => out.push(other),
        }
    }
    out.into()
}

/// Decodes a user id that [`escape_braces`] has encoded.
#[cfg(feature = "cli")]
pub(super) fn unescape_braces(id: &str) -> String {
    let id = id.replace("%7B", "{").replace("%7D", "}");
    id.replace("%25", "%")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::redis::hash_tag::hash_tag;

    #[test]
    fn a_code_and_its_pending_response_share_a_slot() {
        let names = RedisNames::default();
        let code = LoginCodeKey::new(&AppId::new("wx1").unwrap(), "code");
        let (key, pending) = (names.code_key(&code), names.pending_response_key(&code));
        assert_eq!(hash_tag(&key), None);
        assert_eq!(hash_tag(&pending), Some(&*key));
        assert!(pending.starts_with("wechat:wx1:response:"), "{pending}");
    }
}
