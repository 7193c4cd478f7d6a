//! Locations of credentials in Redis: their keys, fields, leases and tombstones.

use std::borrow::Cow;
use std::ops::Deref;

use memchr::memchr3;

use super::layout::{Layout, RedisNames};
use crate::credential::AppId;
use crate::error::Error;
use crate::store::{CredentialKey, CredentialKind, LoginCodeKey};

/// One place in Redis: a string key, or a field of a hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RedisKey<'a> {
    pub(super) key: Cow<'a, str>,
    /// The field, where the key holds a hash.
    pub(super) field: Option<&'a str>,
}

/// The cells of one credential: one, or the two of a user's pair in the published layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RedisKeys<'a> {
    One(RedisKey<'a>),
    Two([RedisKey<'a>; 2]),
}

impl<'a> Deref for RedisKeys<'a> {
    type Target = [RedisKey<'a>];

    fn deref(&self) -> &[RedisKey<'a>] {
        match self {
            Self::One(cell) => std::slice::from_ref(cell),
            Self::Two(cells) => cells,
        }
    }
}

/// How the cells of a slot are read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ValueFormat {
    /// A hash field for the token and one for the refresh token.
    UserPair,
    /// A whole record in one string.
    Record,
    /// `TOKEN#MS` in one string.
    Token,
}

/// Where the cells of one credential lie.
#[derive(Debug)]
pub(super) struct Location<'a> {
    pub(super) format: ValueFormat,
    pub(super) keys: RedisKeys<'a>,
    /// Whether the cells are ours to expire. The published layout's never do.
    pub(super) expires: bool,
}

/// For whom a record is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WriteTarget {
    /// Services that read this place.
    ReadLocation,
    /// Nobody yet: those that write it read the other layout.
    CopyLocation,
}

/// All the places of one credential. The first is read and compared; the mirror is written with it.
#[derive(Debug)]
pub(super) struct Locations<'a> {
    pub(super) read: Location<'a>,
    /// The same credential in the other layout, while services move from one to the other.
    pub(super) copy: Option<Location<'a>>,
    /// The leases of all places: who renews holds those of services that know one layout only.
    pub(super) lease_keys: Vec<String>,
    /// The tombstones of all places: each names the refresh token of a deleted pair.
    pub(super) tombstone_keys: Vec<String>,
}

impl<'a> Locations<'a> {
    /// All of them, and for whom each is written.
    pub(super) fn with_targets(&self) -> impl Iterator<Item = (&Location<'a>, WriteTarget)> {
        let mirror = self
            .copy
            .iter()
            .map(|place| (place, WriteTarget::CopyLocation));
        std::iter::once((&self.read, WriteTarget::ReadLocation)).chain(mirror)
    }
}

impl RedisNames {
    /// Where a credential is read, and where it is written too.
    pub(super) fn locations<'a>(
        &'a self,
        layout: Layout,
        dual_write: Option<Layout>,
        credential: &'a CredentialKey,
    ) -> Locations<'a> {
        let read = self.location(layout, credential);
        let mirror = dual_write.map(|layout| self.location(layout, credential));
        // What is ours alone lies in the same place in either layout.
        let mirror = mirror.filter(|mirror| mirror.keys != read.keys);
        let places = || std::iter::once(&read).chain(&mirror);
        let leases = places()
            .map(|place| self.lease_key(credential, place))
            .collect();
        let tombstones = places()
            .map(|place| self.tombstone_key(credential, place))
            .collect();
        Locations {
            read,
            copy: mirror,
            lease_keys: leases,
            tombstone_keys: tombstones,
        }
    }

    /// Whether everything that one step touches lies in one slot of a Cluster.
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
            let name = CredentialKey {
                app: app.clone(),
                kind,
                id: id.into(),
            };
            let places = self.locations(layout, dual_write, &name);
            if places.copy.is_some() {
                return Err(Error::configuration(
                    "on a Redis Cluster the two layouts lie in different slots, and no step can \
                     write both; leave the mirror out",
                ));
            }
            let [first, others @ ..] = &*places.read.keys else {
                continue;
            };
            if let Some(other) = others
                .iter()
                .find(|cell| slot(&cell.key) != slot(&first.key))
            {
                return Err(Error::configuration(format!(
                    "on a Redis Cluster the two hashes of users' tokens have to share a hash tag, \
                     and {} and {} do not; name them for example {{wechat}}.{} and {{wechat}}.{}, \
                     or choose the key layout (Layout::Keys, REDIS_LAYOUT=keys)",
                    self.user_access_token,
                    self.user_refresh_token,
                    first.key.replace(['{', '}'], ""),
                    other.key.replace(['{', '}'], ""),
                )));
            }
            if let Some(lease) = places
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

    /// Where it lies which login a code belongs to.
    pub(super) fn code_binding_key(&self, code: &LoginCodeKey) -> String {
        format!("{}{}:bound:{}", self.prefix, code.app, code.hash)
    }

    /// Where the outcome of a code lies.
    pub(super) fn code_key(&self, code: &LoginCodeKey) -> String {
        format!("{}{}:code:{}", self.prefix, code.app, code.hash)
    }

    /// Where it lies since when a user's sessions count.
    pub(super) fn revocation_key(&self, credential: &CredentialKey) -> String {
        let CredentialKey { app, kind, id } = credential;
        format!("{}{app}:revoked:{}:{id}", self.prefix, kind.as_str())
    }

    /// The channel that tells what is written to an account's credentials.
    pub(super) fn invalidation_channel(&self, app: &AppId) -> String {
        format!("{}{app}:news", self.prefix)
    }

    pub(super) fn location<'a>(
        &'a self,
        layout: Layout,
        credential: &'a CredentialKey,
    ) -> Location<'a> {
        let app = credential.app.as_str();
        let prefix = &self.prefix;
        match (credential.kind, layout) {
            (CredentialKind::User, Layout::Hashes) => {
                let field = |hash: &'a str| RedisKey {
                    key: Self::expand_appid(hash, app),
                    field: Some(&*credential.id),
                };
                let (access, refresh) = (&self.user_access_token, &self.user_refresh_token);
                Location {
                    format: ValueFormat::UserPair,
                    keys: RedisKeys::Two([field(access), field(refresh)]),
                    expires: false,
                }
            }
            (CredentialKind::User, Layout::Keys) => {
                let key = [prefix, app, ":user:", &escape_braces(&credential.id)].concat();
                Self::string_location(ValueFormat::Record, key.into(), true)
            }
            // Ours alone in either layout: the published one knows no virtual users.
            (CredentialKind::SnapshotUser, _) => {
                let key = [prefix, app, ":snapshot:", &escape_braces(&credential.id)].concat();
                Self::string_location(ValueFormat::Record, key.into(), true)
            }
            (kind, Layout::Hashes) => {
                let key = match kind {
                    CredentialKind::JsapiTicket => Self::expand_appid(&self.jsapi_ticket, app),
                    _ => Self::expand_appid(&self.account_token, app),
                };
                Self::string_location(ValueFormat::Token, key, false)
            }
            (kind, Layout::Keys) => {
                let key = format!("{prefix}{app}:account:{}", kind.as_str());
                Self::string_location(ValueFormat::Token, key.into(), true)
            }
        }
    }

    fn string_location(format: ValueFormat, key: Cow<'_, str>, expires: bool) -> Location<'_> {
        Location {
            format,
            keys: RedisKeys::One(RedisKey { key, field: None }),
            expires,
        }
    }

    /// The lease of a place. It is needed where something is written, not for each read.
    pub(super) fn lease_key(&self, credential: &CredentialKey, location: &Location<'_>) -> String {
        self.colocated_key("lease", credential, location)
    }

    /// The tombstone of a place.
    pub(super) fn tombstone_key(
        &self,
        credential: &CredentialKey,
        location: &Location<'_>,
    ) -> String {
        self.colocated_key("tombstone", credential, location)
    }

    /// A key in the same slot of a Cluster as a place.
    fn colocated_key(
        &self,
        purpose: &str,
        credential: &CredentialKey,
        location: &Location<'_>,
    ) -> String {
        let (prefix, app) = (&self.prefix, &credential.app);
        let key = location.keys.first().map_or("", |cell| &cell.key);
        match location.format {
            ValueFormat::UserPair => {
                // On a Cluster the names of the hashes share a hash tag; the lease takes it too.
                let tag = hash_tag(key).map(|tag| format!("{{{tag}}}:"));
                let tag = tag.unwrap_or_default();
                format!("{prefix}{app}:{purpose}:{tag}user:{}", credential.id)
            }
            // A string key without a hash tag is hashed as a whole; a lease whose tag is that whole
            // key lies in the same slot of a Cluster, and users spread over slots.
            ValueFormat::Record | ValueFormat::Token => {
                let tag = hash_tag(key).unwrap_or(key);
                format!("{prefix}{app}:{purpose}:{{{tag}}}")
            }
        }
    }
}

/// The part of a key that Redis Cluster hashes, where it is not the whole key: what stands between
/// the first `{` and the next `}`, unless that is empty.
pub(super) fn hash_tag(key: &str) -> Option<&str> {
    let (_, rest) = key.split_once('{')?;
    let (tag, _) = rest.split_once('}')?;
    (!tag.is_empty()).then_some(tag)
}

/// A user id with its braces (and the escape's own sign) percent-encoded, so that no user id makes
/// a hash tag of its own. Ids that WeChat gives have none of them and stay as they are.
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
        let (names, name) = (RedisNames::default(), user_key("a:b#{c}"));
        let place = names.location(Layout::Hashes, &name);
        let cell = |key: &'static str| RedisKey {
            key: key.into(),
            field: Some("a:b#{c}"),
        };
        let cells = [
            cell("user.wxUserAccessToken"),
            cell("user.wxUserRefreshToken"),
        ];
        assert_eq!(*place.keys, cells);
        let lease = names.lease_key(&name, &place);
        assert_eq!(lease, "wechat:wx1:lease:user:a:b#{c}");
    }

    #[test]
    fn names_expand_appid_and_keep_hash_tags() {
        let names = RedisNames {
            user_access_token: "{wechat}.access.{appid}".into(),
            user_refresh_token: "{wechat}.refresh.{appid}".into(),
            ..RedisNames::default()
        };
        let name = user_key("{x}");
        let place = names.location(Layout::Hashes, &name);
        assert_eq!(place.keys[0].key, "{wechat}.access.wx1");
        assert_eq!(slot_text(&names.lease_key(&name, &place)), "wechat");
    }

    #[test]
    fn the_key_layout_has_a_key_for_each_user() {
        let (names, name) = (RedisNames::default(), user_key("oABC"));
        let place = names.location(Layout::Keys, &name);
        let cell = RedisKey {
            key: "wechat:wx1:user:oABC".into(),
            field: None,
        };
        assert_eq!(*place.keys, [cell]);
        let lease = names.lease_key(&name, &place);
        assert_eq!(lease, "wechat:wx1:lease:{wechat:wx1:user:oABC}");
    }

    #[test]
    fn cluster_rejects_names_in_several_slots() {
        let plain = RedisNames::default();
        plain.check_cluster_slots(Layout::Keys, None).unwrap();
        let refused = plain
            .check_cluster_slots(Layout::Hashes, None)
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains("{wechat}.user.wxUserAccessToken"),
            "{refused}"
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
        let refused = braces
            .check_cluster_slots(Layout::Hashes, None)
            .unwrap_err()
            .to_string();
        assert!(refused.contains("prefix"), "{refused}");
        braces.check_cluster_slots(Layout::Keys, None).unwrap();
    }

    proptest! {
        #[test]
        fn record_and_lease_share_a_slot(a in ".{1,30}", b in ".{1,30}") {
            let names = RedisNames::default();
            let (one, two) = (user_key(&a), user_key(&b));
            let (place, other) = (names.location(Layout::Keys, &one), names.location(Layout::Keys, &two));
            let key: &str = &place.keys[0].key;
            let lease = names.lease_key(&one, &place);
            prop_assert_eq!(slot_text(key), slot_text(&lease));
            prop_assert_eq!(key == other.keys[0].key, a == b);
            prop_assert_eq!(slot_text(key), key);
        }

        #[test]
        fn braces_in_user_ids_are_escaped(a in "[{}%a]{1,8}", b in "[{}%a]{1,8}") {
            let names = RedisNames::default();
            let (one, two) = (user_key(&a), user_key(&b));
            let (place, other) = (names.location(Layout::Keys, &one), names.location(Layout::Keys, &two));
            let lease = names.lease_key(&one, &place);
            prop_assert_eq!(slot_text(&place.keys[0].key), slot_text(&lease));
            prop_assert_eq!(place.keys[0].key == other.keys[0].key, a == b);
        }
    }
}
