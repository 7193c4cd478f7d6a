//! The users of the simulated WeChat, with one openid for each app.

use std::collections::HashMap;

use serde::Serialize;

use super::{
    app_index::AppIndex,
    apps::{App, AppKind},
    random,
};

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
    /// Creates a user with this openid, who follows the accounts and has no unionid.
    ///
    /// WeChat issues one openid per account and user, whether or not the user follows the
    /// account (documentation of `sns/oauth2/access_token`). This openid is the one in the first
    /// account. [`SimulatedApp::openid_of`](super::SimulatedApp::openid_of) returns the openid in
    /// another account or in a website app.
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
    /// unionid only for `snsapi_userinfo` and `snsapi_login` (documentation of
    /// `sns/oauth2/access_token`). Default: none for accounts, and a unionid derived from the openid
    /// for website apps, because these always return one.
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

    /// Sets whether the user follows the accounts. Template messages to users who do not follow the
    /// account get 43004. Default: `true`.
    #[must_use]
    pub fn subscribed(mut self, subscribed: bool) -> Self {
        self.subscribed = subscribed;
        self
    }

    /// Returns the user's openid in the first account.
    pub fn openid(&self) -> &str {
        &self.openid
    }

    /// Returns the user's nickname.
    pub fn name(&self) -> &str {
        &self.nickname
    }

    /// Returns this user with another openid, such as the one in another app.
    pub(super) fn with_openid(mut self, openid: String) -> Self {
        self.openid = openid;
        self
    }

    /// Returns the unionid that this app returns for the user.
    pub(super) fn unionid_in(&self, app: &App) -> Option<String> {
        match app.kind {
            AppKind::Account if app.returns_unionid => self.unionid.clone(),
            AppKind::Account => None,
            #[cfg(feature = "platform")]
            AppKind::Platform => None,
            AppKind::Website => Some(
                self.unionid
                    .clone()
                    .unwrap_or_else(|| random::derived_id("unionid", &self.openid)),
            ),
        }
    }

    pub(super) fn is_snapshot(&self) -> bool {
        self.snapshot
    }

    pub(super) fn is_subscribed(&self) -> bool {
        self.subscribed
    }
}

/// All users in the order of their addition, and the active user, as whom a browser opens the
/// authorize page. An openid without an app is the user's openid in the first account.
#[derive(Debug)]
pub(super) struct UserDirectory {
    all: Vec<SimulatedUser>,
    positions: HashMap<String, usize>,
    /// The users by their openid in each app except the first account, once the app has used that
    /// openid.
    positions_in: HashMap<AppIndex, HashMap<String, usize>>,
    active_openid: String,
}

impl UserDirectory {
    pub(super) fn new(first: SimulatedUser) -> Self {
        let mut users = Self {
            all: Vec::new(),
            positions: HashMap::new(),
            positions_in: HashMap::new(),
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

    /// Returns the user who has this openid in this app.
    pub(super) fn get_in(&self, app: AppIndex, openid: &str) -> Option<&SimulatedUser> {
        if app == AppIndex::FIRST {
            return self.get(openid);
        }
        let position = *self.positions_in.get(&app)?.get(openid)?;
        self.all.get(position)
    }

    /// Returns the openid in the first account of a user who has `openid` there or in this app.
    /// Adds a user if none has.
    pub(super) fn first_openid(&mut self, app: AppIndex, openid: &str) -> String {
        if self.get(openid).is_none()
            && let Some(user) = self.get_in(app, openid)
        {
            return user.openid.clone();
        }
        self.insert_if_missing(openid);
        openid.to_owned()
    }

    /// Returns the openid in this app of the user who has `openid` in the first account.
    pub(super) fn openid_in(&mut self, app: AppIndex, app_id: &str, openid: &str) -> String {
        if app == AppIndex::FIRST {
            return openid.to_owned();
        }
        let derived = random::derived_id(app_id, openid);
        if let Some(&position) = self.positions.get(openid) {
            self.positions_in
                .entry(app)
                .or_default()
                .insert(derived.clone(), position);
        }
        derived
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
    fn insert_if_missing(&mut self, openid: &str) {
        if self.get(openid).is_none() {
            self.insert_or_replace(SimulatedUser::new(openid));
        }
    }
}
