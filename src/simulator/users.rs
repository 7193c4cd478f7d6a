//! The users of the simulated account.

use std::collections::HashMap;

use serde::Serialize;

use super::random;

/// A simulated user of WeChat, who can sign in to the application.
///
/// ```
/// use tower_wechat::simulator::SimulatedUser;
///
/// let user = SimulatedUser::new("oAlice0000000000000000000000")
///     .nickname("Alice")
///     .unionid("uAlice0000000000000000000000")
///     .subscribed(false);
/// assert_eq!((user.openid(), user.name()), ("oAlice0000000000000000000000", "Alice"));
///
/// // A user who opens the page in snapshot mode (快照页):
/// let user = SimulatedUser::random().snapshot(true);
/// assert_eq!(user.openid().len(), 28);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SimulatedUser {
    openid: String,
    nickname: String,
    unionid: Option<String>,
    snapshot: bool,
    subscribed: bool,
}

impl SimulatedUser {
    /// Creates a user with this openid, who follows the account and has no unionid.
    ///
    /// WeChat issues one openid per account and user, whether or not the user follows the
    /// account (documentation of `sns/oauth2/access_token`).
    pub fn new(openid: impl Into<String>) -> Self {
        Self {
            openid: openid.into(),
            nickname: "微信用户".to_owned(),
            unionid: None,
            snapshot: false,
            subscribed: true,
        }
    }

    /// Creates a user with a random openid of WeChat's form: `o` and 27 random characters.
    pub fn random() -> Self {
        Self::new(random::openid())
    }

    /// Sets the nickname that `sns/userinfo` returns. Replies contain control characters of the
    /// nickname without the escaping that JSON demands, as SDKs saw in WeChat's replies. Default:
    /// `微信用户`.
    #[must_use]
    pub fn nickname(mut self, nickname: impl Into<String>) -> Self {
        self.nickname = nickname.into();
        self
    }

    /// Sets the unionid, the user's id across the applications of one owner. WeChat returns the
    /// unionid only for `snsapi_userinfo` (documentation of `sns/oauth2/access_token`). Default:
    /// none.
    #[must_use]
    pub fn unionid(mut self, unionid: impl Into<String>) -> Self {
        self.unionid = Some(unionid.into());
        self
    }

    /// Sets whether this is a virtual user of WeChat's snapshot mode (快照页), whose code exchange
    /// returns `is_snapshotuser: 1`. Default: `false`.
    #[must_use]
    pub fn snapshot(mut self, snapshot: bool) -> Self {
        self.snapshot = snapshot;
        self
    }

    /// Sets whether the user follows the account. Template messages to users who do not follow the
    /// account get 43004. Default: `true`.
    #[must_use]
    pub fn subscribed(mut self, subscribed: bool) -> Self {
        self.subscribed = subscribed;
        self
    }

    /// Returns the user's openid.
    pub fn openid(&self) -> &str {
        &self.openid
    }

    /// Returns the user's nickname.
    pub fn name(&self) -> &str {
        &self.nickname
    }

    pub(super) fn stored_unionid(&self) -> Option<&str> {
        self.unionid.as_deref()
    }

    pub(super) fn is_snapshot(&self) -> bool {
        self.snapshot
    }

    pub(super) fn is_subscribed(&self) -> bool {
        self.subscribed
    }
}

/// All users in the order of their addition, and the active user, as whom a browser opens the
/// authorize page.
#[derive(Debug)]
pub(super) struct UserDirectory {
    all: Vec<SimulatedUser>,
    positions: HashMap<String, usize>,
    active_openid: String,
}

impl UserDirectory {
    pub(super) fn new(first: SimulatedUser) -> Self {
        let mut users = Self {
            all: Vec::new(),
            positions: HashMap::new(),
            active_openid: first.openid.clone(),
        };
        users.insert_or_replace(first);
        users
    }

    pub(super) fn get(&self, openid: &str) -> Option<&SimulatedUser> {
        self.positions
            .get(openid)
            .and_then(|&place| self.all.get(place))
    }

    pub(super) fn all(&self) -> &[SimulatedUser] {
        &self.all
    }

    /// Returns the openid of the active user, as whom a browser opens the authorize page.
    pub(super) fn active_openid(&self) -> &str {
        &self.active_openid
    }

    pub(super) fn set_active(&mut self, openid: &str) {
        openid.clone_into(&mut self.active_openid);
    }

    /// Adds a user, or replaces the user with the same openid.
    pub(super) fn insert_or_replace(&mut self, user: SimulatedUser) {
        let known = self.positions.get(&user.openid).copied();
        match known.and_then(|place| self.all.get_mut(place)) {
            Some(known) => *known = user,
            None => {
                self.positions.insert(user.openid.clone(), self.all.len());
                self.all.push(user);
            }
        }
    }

    /// Adds a user with this openid, unless a user with this openid exists.
    pub(super) fn insert_if_missing(&mut self, openid: &str) {
        if self.get(openid).is_none() {
            self.insert_or_replace(SimulatedUser::new(openid));
        }
    }
}
