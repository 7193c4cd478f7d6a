//! How records are laid out in Redis, and the names under which they lie.

use std::borrow::Cow;
use std::ops::Deref;

use memchr::{memchr, memchr3};
use serde::Deserialize;

use super::codec::For;
use super::start_up::misconfigured;
use crate::credential::AppId;
use crate::error::Error;
use crate::store::{CodeName, Kind, Name};

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

/// One place in Redis: a string key, or a field of a hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cell<'a> {
    pub(super) key: Cow<'a, str>,
    /// The field, where the key holds a hash.
    pub(super) field: Option<&'a str>,
}

/// The cells of one credential: one, or the two of a user's pair in the published layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cells<'a> {
    One(Cell<'a>),
    Two([Cell<'a>; 2]),
}

impl<'a> Deref for Cells<'a> {
    type Target = [Cell<'a>];

    fn deref(&self) -> &[Cell<'a>] {
        match self {
            Self::One(cell) => std::slice::from_ref(cell),
            Self::Two(cells) => cells,
        }
    }
}

/// How the cells of a slot are read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A hash field for the token and one for the refresh token.
    UserPair,
    /// A whole record in one string.
    Record,
    /// `TOKEN#MS` in one string.
    Token,
}

/// Where the cells of one credential lie.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) form: Form,
    pub(super) cells: Cells<'a>,
    /// Whether the cells are ours to expire. The published layout's never do.
    pub(super) expires: bool,
}

/// All the places of one credential. The first is read and compared; the mirror is written with it.
#[derive(Debug)]
pub(super) struct Places<'a> {
    pub(super) read: Place<'a>,
    /// The same credential in the other layout, while services move from one to the other.
    pub(super) mirror: Option<Place<'a>>,
    /// The leases of all places: who renews holds those of services that know one layout only.
    pub(super) leases: Vec<String>,
    /// The tombstones of all places: each names the refresh token of a deleted pair.
    pub(super) tombstones: Vec<String>,
}

impl<'a> Places<'a> {
    /// All of them, and for whom each is written.
    pub(super) fn all(&self) -> impl Iterator<Item = (&Place<'a>, For)> {
        let mirror = self.mirror.iter().map(|place| (place, For::Copy));
        std::iter::once((&self.read, For::Readers)).chain(mirror)
    }
}

impl RedisNames {
    /// Where a credential is read, and where it is written too.
    pub(super) fn places<'a>(
        &'a self,
        layout: Layout,
        mirror: Option<Layout>,
        name: &'a Name,
    ) -> Places<'a> {
        let read = self.place(layout, name);
        let mirror = mirror.map(|layout| self.place(layout, name));
        // What is ours alone lies in the same place in either layout.
        let mirror = mirror.filter(|mirror| mirror.cells != read.cells);
        let places = || std::iter::once(&read).chain(&mirror);
        let leases = places().map(|place| self.lease(name, place)).collect();
        let tombstones = places().map(|place| self.tombstone(name, place)).collect();
        Places {
            read,
            mirror,
            leases,
            tombstones,
        }
    }

    /// A name as it stands in Redis: `{appid}` replaced.
    pub(super) fn of<'a>(name: &'a str, app: &str) -> Cow<'a, str> {
        match memchr(b'{', name.as_bytes()) {
            Some(_) => name.replace("{appid}", app).into(),
            None => name.into(),
        }
    }

    /// Whether everything that one step touches lies in one slot of a Cluster.
    pub(super) fn fit_a_cluster(
        &self,
        layout: Layout,
        mirror: Option<Layout>,
    ) -> Result<(), Error> {
        let Ok(app) = AppId::new("wx0") else {
            return Ok(());
        };
        let slot = |key: &str| hash_tag(key).unwrap_or(key).to_owned();
        for kind in Kind::ALL {
            let id = if kind.is_accounts_own() { "" } else { "user" };
            let name = Name {
                app: app.clone(),
                kind,
                id: id.into(),
            };
            let places = self.places(layout, mirror, &name);
            if places.mirror.is_some() {
                return Err(misconfigured(
                    "on a Redis Cluster the two layouts lie in different slots, and no step can \
                     write both; leave the mirror out",
                ));
            }
            let [first, others @ ..] = &*places.read.cells else {
                continue;
            };
            if let Some(other) = others
                .iter()
                .find(|cell| slot(&cell.key) != slot(&first.key))
            {
                return Err(misconfigured(format!(
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
                .leases
                .iter()
                .find(|lease| slot(lease) != slot(&first.key))
            {
                return Err(misconfigured(format!(
                    "on a Redis Cluster {} and its lease {lease} would lie in different slots; use \
                     no braces in the prefix {:?}, and only whole hash tags in the other names",
                    first.key, self.prefix
                )));
            }
        }
        Ok(())
    }

    /// Where it lies which login a code belongs to.
    pub(super) fn bound(&self, code: &CodeName) -> String {
        format!("{}{}:bound:{}", self.prefix, code.app, code.hash)
    }

    /// Where the outcome of a code lies.
    pub(super) fn code(&self, code: &CodeName) -> String {
        format!("{}{}:code:{}", self.prefix, code.app, code.hash)
    }

    /// Where it lies since when a user's sessions count.
    pub(super) fn revoked(&self, name: &Name) -> String {
        let Name { app, kind, id } = name;
        format!("{}{app}:revoked:{}:{id}", self.prefix, kind.as_str())
    }

    /// The channel that tells what is written to an account's credentials.
    pub(super) fn news(&self, app: &AppId) -> String {
        format!("{}{app}:news", self.prefix)
    }

    pub(super) fn place<'a>(&'a self, layout: Layout, name: &'a Name) -> Place<'a> {
        let app = name.app.as_str();
        let prefix = &self.prefix;
        match (name.kind, layout) {
            (Kind::User, Layout::Hashes) => {
                let field = |hash: &'a str| Cell {
                    key: Self::of(hash, app),
                    field: Some(&*name.id),
                };
                let (access, refresh) = (&self.user_access_token, &self.user_refresh_token);
                Place {
                    form: Form::UserPair,
                    cells: Cells::Two([field(access), field(refresh)]),
                    expires: false,
                }
            }
            (Kind::User, Layout::Keys) => {
                let key = [prefix, app, ":user:", &brace_free(&name.id)].concat();
                Self::string(Form::Record, key.into(), true)
            }
            // Ours alone in either layout: the published one knows no virtual users.
            (Kind::SnapshotUser, _) => {
                let key = [prefix, app, ":snapshot:", &brace_free(&name.id)].concat();
                Self::string(Form::Record, key.into(), true)
            }
            (kind, Layout::Hashes) => {
                let key = match kind {
                    Kind::JsapiTicket => Self::of(&self.jsapi_ticket, app),
                    _ => Self::of(&self.account_token, app),
                };
                Self::string(Form::Token, key, false)
            }
            (kind, Layout::Keys) => {
                let key = format!("{prefix}{app}:account:{}", kind.as_str());
                Self::string(Form::Token, key.into(), true)
            }
        }
    }

    fn string(form: Form, key: Cow<'_, str>, expires: bool) -> Place<'_> {
        Place {
            form,
            cells: Cells::One(Cell { key, field: None }),
            expires,
        }
    }

    /// The lease of a place. It is needed where something is written, not for each read.
    pub(super) fn lease(&self, name: &Name, place: &Place<'_>) -> String {
        self.beside("lease", name, place)
    }

    /// The tombstone of a place.
    pub(super) fn tombstone(&self, name: &Name, place: &Place<'_>) -> String {
        self.beside("tombstone", name, place)
    }

    /// A key in the same slot of a Cluster as a place.
    fn beside(&self, what: &str, name: &Name, place: &Place<'_>) -> String {
        let (prefix, app) = (&self.prefix, &name.app);
        let key = place.cells.first().map_or("", |cell| &cell.key);
        match place.form {
            Form::UserPair => {
                // On a Cluster the names of the hashes share a hash tag; the lease takes it too.
                let tag = hash_tag(key).map(|tag| format!("{{{tag}}}:"));
                let tag = tag.unwrap_or_default();
                format!("{prefix}{app}:{what}:{tag}user:{}", name.id)
            }
            // A string key without a hash tag is hashed as a whole; a lease whose tag is that whole
            // key lies in the same slot of a Cluster, and users spread over slots.
            Form::Record | Form::Token => {
                let tag = hash_tag(key).unwrap_or(key);
                format!("{prefix}{app}:{what}:{{{tag}}}")
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
fn brace_free(id: &str) -> Cow<'_, str> {
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

    fn user(id: &str) -> Name {
        Name {
            app: AppId::new("wx1").unwrap(),
            kind: Kind::User,
            id: id.into(),
        }
    }

    fn hashed(key: &str) -> &str {
        hash_tag(key).unwrap_or(key)
    }

    #[test]
    fn the_published_names_are_the_default() {
        let (names, name) = (RedisNames::default(), user("a:b#{c}"));
        let place = names.place(Layout::Hashes, &name);
        let cell = |key: &'static str| Cell {
            key: key.into(),
            field: Some("a:b#{c}"),
        };
        let cells = [
            cell("user.wxUserAccessToken"),
            cell("user.wxUserRefreshToken"),
        ];
        assert_eq!(*place.cells, cells);
        let lease = names.lease(&name, &place);
        assert_eq!(lease, "wechat:wx1:lease:user:a:b#{c}");
    }

    #[test]
    fn names_may_hold_the_appid_and_a_hash_tag() {
        let names = RedisNames {
            user_access_token: "{wechat}.access.{appid}".into(),
            user_refresh_token: "{wechat}.refresh.{appid}".into(),
            ..RedisNames::default()
        };
        let name = user("{x}");
        let place = names.place(Layout::Hashes, &name);
        assert_eq!(place.cells[0].key, "{wechat}.access.wx1");
        assert_eq!(hashed(&names.lease(&name, &place)), "wechat");
    }

    #[test]
    fn the_key_layout_has_a_key_for_each_user() {
        let (names, name) = (RedisNames::default(), user("oABC"));
        let place = names.place(Layout::Keys, &name);
        let cell = Cell {
            key: "wechat:wx1:user:oABC".into(),
            field: None,
        };
        assert_eq!(*place.cells, [cell]);
        let lease = names.lease(&name, &place);
        assert_eq!(lease, "wechat:wx1:lease:{wechat:wx1:user:oABC}");
    }

    #[test]
    fn a_cluster_wants_a_step_in_one_slot() {
        let plain = RedisNames::default();
        plain.fit_a_cluster(Layout::Keys, None).unwrap();
        let refused = plain
            .fit_a_cluster(Layout::Hashes, None)
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
        tagged.fit_a_cluster(Layout::Hashes, None).unwrap();
        let braces = RedisNames {
            prefix: "{mine}:".into(),
            ..tagged
        };
        let refused = braces
            .fit_a_cluster(Layout::Hashes, None)
            .unwrap_err()
            .to_string();
        assert!(refused.contains("prefix"), "{refused}");
        braces.fit_a_cluster(Layout::Keys, None).unwrap();
    }

    proptest! {
        #[test]
        fn a_record_and_its_lease_share_a_slot_and_users_do_not(a in ".{1,30}", b in ".{1,30}") {
            let names = RedisNames::default();
            let (one, two) = (user(&a), user(&b));
            let (place, other) = (names.place(Layout::Keys, &one), names.place(Layout::Keys, &two));
            let key: &str = &place.cells[0].key;
            let lease = names.lease(&one, &place);
            prop_assert_eq!(hashed(key), hashed(&lease));
            prop_assert_eq!(key == other.cells[0].key, a == b);
            prop_assert_eq!(hashed(key), key);
        }

        #[test]
        fn braces_do_not_confuse(a in "[{}%a]{1,8}", b in "[{}%a]{1,8}") {
            let names = RedisNames::default();
            let (one, two) = (user(&a), user(&b));
            let (place, other) = (names.place(Layout::Keys, &one), names.place(Layout::Keys, &two));
            let lease = names.lease(&one, &place);
            prop_assert_eq!(hashed(&place.cells[0].key), hashed(&lease));
            prop_assert_eq!(place.cells[0].key == other.cells[0].key, a == b);
        }
    }
}
