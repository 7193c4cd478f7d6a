//! The accounts (公众号) and website apps (网站应用) of the simulated WeChat.

use std::{
    collections::HashMap,
    ops::{Index, IndexMut},
};

use serde::{Deserialize, Serialize};

use super::{
    account_tokens::AccountTokenIssuer, app_index::AppIndex, call_counts::CallCounts,
    user_tokens::UserTokenIssuer,
};

/// The kind of an app, which decides the authorize page and the scopes that WeChat allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum AppKind {
    /// An Official Account, with `connect/oauth2/authorize` and account tokens.
    Account,
    /// A website app of the 开放平台, with `connect/qrconnect` and the scope `snsapi_login`.
    Website,
    /// A third-party platform (第三方平台), with component tokens. Accounts authorize it.
    #[cfg(feature = "platform")]
    Platform,
}

/// One account or website app, with everything that WeChat keeps by AppID.
#[derive(Debug)]
pub(super) struct App {
    pub(super) app_id: String,
    pub(super) secret: String,
    pub(super) kind: AppKind,
    /// `true` if the app belongs to a 开放平台, so that its users have a unionid. A website app
    /// always belongs to one.
    pub(super) returns_unionid: bool,
    /// The allowed hosts of a `redirect_uri` of this app. `None`: the settings decide.
    pub(super) redirect_hosts: Option<Vec<String>>,
    pub(super) user_tokens: UserTokenIssuer,
    pub(super) account_tokens: AccountTokenIssuer,
    pub(super) calls: CallCounts,
}

impl App {
    fn new(app_id: String, secret: String, kind: AppKind) -> Self {
        Self {
            user_tokens: UserTokenIssuer::new(&app_id),
            account_tokens: AccountTokenIssuer::new(&app_id),
            app_id,
            secret,
            kind,
            returns_unionid: true,
            redirect_hosts: None,
            calls: CallCounts::default(),
        }
    }
}

/// All apps, in the order of their addition. The first one is an account.
#[derive(Debug)]
pub(super) struct AppDirectory {
    all: Vec<App>,
    positions: HashMap<String, AppIndex>,
}

impl AppDirectory {
    pub(super) fn new(app_id: String, secret: String) -> Self {
        let mut apps = Self {
            all: Vec::new(),
            positions: HashMap::new(),
        };
        apps.insert_or_replace(app_id, secret, AppKind::Account);
        apps
    }

    /// Adds an app. If the directory has an app with this AppID, replaces its AppSecret and its
    /// kind, and keeps its codes and tokens.
    pub(super) fn insert_or_replace(
        &mut self,
        app_id: String,
        secret: String,
        kind: AppKind,
    ) -> AppIndex {
        if let Some(known) = self.find(&app_id) {
            let app = &mut self[known];
            app.secret = secret;
            app.kind = kind;
            return known;
        }
        let index = AppIndex::at(self.all.len());
        self.positions.insert(app_id.clone(), index);
        self.all.push(App::new(app_id, secret, kind));
        index
    }

    /// Returns the app with this AppID, in exactly this letter case.
    pub(super) fn find(&self, app_id: &str) -> Option<AppIndex> {
        self.positions.get(app_id).copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &App> {
        self.all.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (AppIndex, &mut App)> {
        self.all
            .iter_mut()
            .enumerate()
            .map(|(position, app)| (AppIndex::at(position), app))
    }
}

impl Index<AppIndex> for AppDirectory {
    type Output = App;

    fn index(&self, index: AppIndex) -> &App {
        let position = index.position();
        &self.all[position]
    }
}

impl IndexMut<AppIndex> for AppDirectory {
    fn index_mut(&mut self, index: AppIndex) -> &mut App {
        let position = index.position();
        &mut self.all[position]
    }
}
