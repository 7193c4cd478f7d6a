//! Locations of credentials in Redis: their keys, fields, leases and tombstones.

use std::borrow::Cow;
use std::ops::Deref;

use super::hash_tag::hash_tag;
use super::layout::{Layout, RedisNames};
use crate::credential::AppId;
use crate::store::{CredentialKey, CredentialKind};

/// A string key, or a field of a hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RedisKey<'a> {
    pub(super) key: Cow<'a, str>,
    /// The field of the hash, or `None` for a string key.
    pub(super) field: Option<&'a str>,
}

/// The keys of one credential: one, or two hash fields for a user's tokens in [`Layout::Hashes`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RedisKeys<'a> {
    One(RedisKey<'a>),
    Two([RedisKey<'a>; 2]),
}

impl<'a> Deref for RedisKeys<'a> {
    type Target = [RedisKey<'a>];

    fn deref(&self) -> &[RedisKey<'a>] {
        match self {
            Self::One(key) => std::slice::from_ref(key),
            Self::Two(keys) => keys,
        }
    }
}

/// The text format of the values of a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ValueFormat {
    /// Two hash fields of a user: the access token in the format of [`Token`](Self::Token), and the
    /// refresh token with the user's details.
    UserPair,
    /// One string that contains the whole record.
    Record,
    /// One string: the token and its renewal point in milliseconds (`TOKEN#MS`), and sometimes the
    /// expiry.
    Token,
}

/// The keys of one credential in one layout.
#[derive(Debug)]
pub(super) struct Location<'a> {
    pub(super) format: ValueFormat,
    pub(super) keys: RedisKeys<'a>,
    /// `true` if the keys have a TTL. The keys of the published service have no TTL, because that
    /// service expects keys that do not expire.
    pub(super) expires: bool,
}

/// The role of a location in a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WriteTarget {
    /// The location that this process reads.
    ReadLocation,
    /// The second location of a dual write, which this process does not read. A record in the key
    /// layout has the flag of a copy there.
    CopyLocation,
}

/// The locations of one credential. The engine reads and compares the values of `read`. Each write
/// goes to `read` and to `copy`.
#[derive(Debug)]
pub(super) struct Locations<'a> {
    pub(super) read: Location<'a>,
    /// The location in the other layout, during a dual write.
    pub(super) copy: Option<Location<'a>>,
    /// The keys of the leases of all locations. A renewal holds all these leases, because another
    /// service may use only one layout.
    pub(super) lease_keys: Vec<String>,
    /// The keys of the tombstones of all locations.
    pub(super) tombstone_keys: Vec<String>,
}

impl<'a> Locations<'a> {
    /// Returns all locations, each with its role in a write.
    pub(super) fn with_targets(&self) -> impl Iterator<Item = (&Location<'a>, WriteTarget)> {
        let copy = self
            .copy
            .iter()
            .map(|location| (location, WriteTarget::CopyLocation));
        std::iter::once((&self.read, WriteTarget::ReadLocation)).chain(copy)
    }
}

impl RedisNames {
    /// Returns the locations of a credential: in `layout`, and in `dual_write` if it differs.
    pub(super) fn locations<'a>(
        &'a self,
        layout: Layout,
        dual_write: Option<Layout>,
        credential: &'a CredentialKey,
    ) -> Locations<'a> {
        let read = self.location(layout, credential);
        let copy = dual_write.map(|layout| self.location(layout, credential));
        // Snapshot users and platforms have the same location in both layouts, so they need no copy.
        let copy = copy.filter(|copy| copy.keys != read.keys);
        let locations = || std::iter::once(&read).chain(&copy);
        let lease_keys = locations()
            .map(|location| self.lease_key(credential, location))
            .collect();
        let tombstone_keys = locations()
            .map(|location| self.tombstone_key(credential, location))
            .collect();
        Locations {
            read,
            copy,
            lease_keys,
            tombstone_keys,
        }
    }

    /// Returns the location of a credential in one layout.
    pub(super) fn location<'a>(
        &'a self,
        layout: Layout,
        credential: &'a CredentialKey,
    ) -> Location<'a> {
        let app = credential.app.as_str();
        match (credential.kind, layout) {
            (CredentialKind::User, Layout::Hashes) => {
                let field = |key| RedisKey {
                    key,
                    field: Some(&*credential.id),
                };
                Location {
                    format: ValueFormat::UserPair,
                    keys: RedisKeys::Two(self.user_hashes(&credential.app).map(field)),
                    expires: false,
                }
            }
            (CredentialKind::User, Layout::Keys) => {
                let key = self.user_key(app, &credential.id);
                Self::string_location(ValueFormat::Record, key.into(), true)
            }
            // The published layout has no key for virtual users, so both layouts use this key.
            (CredentialKind::SnapshotUser, _) => {
                let key = self.snapshot_key(app, &credential.id);
                Self::string_location(ValueFormat::Record, key.into(), true)
            }
            (CredentialKind::AccountToken, Layout::Hashes) => {
                let key = Self::expand_appid(&self.account_token, app);
                Self::string_location(ValueFormat::Token, key, false)
            }
            (CredentialKind::JsapiTicket, Layout::Hashes) => {
                let key = Self::expand_appid(&self.jsapi_ticket, app);
                Self::string_location(ValueFormat::Token, key, false)
            }
            (kind @ (CredentialKind::AccountToken | CredentialKind::JsapiTicket), Layout::Keys) => {
                let key = self.account_key(app, kind.as_str());
                Self::string_location(ValueFormat::Token, key.into(), true)
            }
            // The published layout has no key for a platform, so both layouts use this key.
            (CredentialKind::ComponentToken, _) => {
                let key = self.platform_key(app, "access_token");
                Self::string_location(ValueFormat::Token, key.into(), true)
            }
        }
    }

    /// Returns the names of the hashes of an account's users: of access tokens, then of refresh
    /// tokens.
    pub(super) fn user_hashes<'a>(&'a self, app: &'a AppId) -> [Cow<'a, str>; 2] {
        [&self.user_access_token, &self.user_refresh_token]
            .map(|hash| Self::expand_appid(hash, app.as_str()))
    }

    fn string_location(format: ValueFormat, key: Cow<'_, str>, expires: bool) -> Location<'_> {
        Location {
            format,
            keys: RedisKeys::One(RedisKey { key, field: None }),
            expires,
        }
    }

    /// Returns the key of the lease of a location.
    pub(super) fn lease_key(&self, credential: &CredentialKey, location: &Location<'_>) -> String {
        self.colocated_key("lease", credential, location)
    }

    /// Returns the key of the tombstone of a location.
    pub(super) fn tombstone_key(
        &self,
        credential: &CredentialKey,
        location: &Location<'_>,
    ) -> String {
        self.colocated_key("tombstone", credential, location)
    }

    /// Returns the key of a lease or tombstone, in the same slot of a Cluster as the location.
    fn colocated_key(
        &self,
        purpose: &str,
        credential: &CredentialKey,
        location: &Location<'_>,
    ) -> String {
        let (prefix, app) = (&self.prefix, &credential.app);
        let key = location.keys.first().map_or("", |key| &key.key);
        match location.format {
            ValueFormat::UserPair => {
                // On a Cluster the names of both hashes have the same hash tag. This key contains
                // that tag too.
                let tag = hash_tag(key).map(|tag| format!("{{{tag}}}:"));
                let tag = tag.unwrap_or_default();
                format!("{prefix}{app}:{purpose}:{tag}user:{}", credential.id)
            }
            // A Cluster hashes a string key without a hash tag as a whole. A lease or tombstone
            // whose hash tag is that whole key is in the same slot.
            ValueFormat::Record | ValueFormat::Token => {
                let tag = hash_tag(key).unwrap_or(key);
                format!("{prefix}{app}:{purpose}:{{{tag}}}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn user_key(id: &str) -> CredentialKey {
        CredentialKey {
            app: AppId::new("wx1").unwrap(),
            kind: CredentialKind::User,
            id: id.into(),
        }
    }

    fn slot_text(key: &str) -> &str {
        hash_tag(key).unwrap_or(key)
    }

    #[test]
    fn default_names_are_the_published_ones() {
        let (names, credential) = (RedisNames::default(), user_key("a:b#{c}"));
        let location = names.location(Layout::Hashes, &credential);
        let field_of = |key: &'static str| RedisKey {
            key: key.into(),
            field: Some("a:b#{c}"),
        };
        let keys = [
            field_of("user.wxUserAccessToken"),
            field_of("user.wxUserRefreshToken"),
        ];
        assert_eq!(*location.keys, keys);
        let lease = names.lease_key(&credential, &location);
        assert_eq!(lease, "wechat:wx1:lease:user:a:b#{c}");
    }

    #[test]
    fn names_expand_appid_and_keep_hash_tags() {
        let names = RedisNames {
            user_access_token: "{wechat}.access.{appid}".into(),
            user_refresh_token: "{wechat}.refresh.{appid}".into(),
            ..RedisNames::default()
        };
        let credential = user_key("{x}");
        let location = names.location(Layout::Hashes, &credential);
        assert_eq!(location.keys[0].key, "{wechat}.access.wx1");
        assert_eq!(
            slot_text(&names.lease_key(&credential, &location)),
            "wechat"
        );
    }

    #[test]
    fn the_key_layout_has_a_key_for_each_user() {
        let (names, credential) = (RedisNames::default(), user_key("oABC"));
        let location = names.location(Layout::Keys, &credential);
        let key = RedisKey {
            key: "wechat:wx1:user:oABC".into(),
            field: None,
        };
        assert_eq!(*location.keys, [key]);
        let lease = names.lease_key(&credential, &location);
        assert_eq!(lease, "wechat:wx1:lease:{wechat:wx1:user:oABC}");
    }

    proptest! {
        #[test]
        fn record_and_lease_share_a_slot(a in ".{1,30}", b in ".{1,30}") {
            let names = RedisNames::default();
            let (first, second) = (user_key(&a), user_key(&b));
            let (location, other) = (names.location(Layout::Keys, &first), names.location(Layout::Keys, &second));
            let key: &str = &location.keys[0].key;
            let lease = names.lease_key(&first, &location);
            prop_assert_eq!(slot_text(key), slot_text(&lease));
            prop_assert_eq!(key == other.keys[0].key, a == b);
            prop_assert_eq!(slot_text(key), key);
        }

        #[test]
        fn braces_in_user_ids_are_escaped(a in "[{}%a]{1,8}", b in "[{}%a]{1,8}") {
            let names = RedisNames::default();
            let (first, second) = (user_key(&a), user_key(&b));
            let (location, other) = (names.location(Layout::Keys, &first), names.location(Layout::Keys, &second));
            let lease = names.lease_key(&first, &location);
            prop_assert_eq!(slot_text(&location.keys[0].key), slot_text(&lease));
            prop_assert_eq!(location.keys[0].key == other.keys[0].key, a == b);
        }
    }
}
