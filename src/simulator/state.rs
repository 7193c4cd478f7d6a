//! The state of the simulated WeChat, behind one lock.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio_util::sync::CancellationToken;

#[cfg(feature = "platform")]
use super::platform::Platforms;
use super::{
    account_tokens::AccountTokenResult,
    app_index::AppIndex,
    apps::{AppDirectory, AppKind},
    call_counts::CallCounts,
    clock::SimulatedClock,
    error_reply::WechatErrorReply,
    faults::FaultList,
    settings::SimulatorSettings,
    user_tokens::{Authorization, TokenPair},
    users::{SimulatedUser, UserDirectory},
};

/// The error 40001 for a user's token in a call for an account, or for an account's token in a call
/// for a user.
const WRONG_KIND_OF_TOKEN: WechatErrorReply = WechatErrorReply::new(40001);

/// The state that the server's tasks and the [`Simulator`](super::Simulator) share.
#[derive(Debug)]
pub(super) struct SharedState {
    wechat: Mutex<SimulatedWechat>,
    /// The cancellation that ends all connections at once, even in the middle of a call.
    pub(super) force_stop: CancellationToken,
    /// Wakes the task that sends pushes, after a push was queued or the clock has moved.
    #[cfg(feature = "platform")]
    pub(super) pushes_due: tokio::sync::Notify,
}

impl SharedState {
    pub(super) fn new(wechat: SimulatedWechat) -> Self {
        Self {
            wechat: Mutex::new(wechat),
            force_stop: CancellationToken::new(),
            #[cfg(feature = "platform")]
            pushes_due: tokio::sync::Notify::new(),
        }
    }

    /// Moves the clock forward. Pushes that are then due are sent.
    pub(super) fn advance(&self, by: Duration) {
        self.lock().clock.advance(by);
        #[cfg(feature = "platform")]
        self.pushes_due.notify_one();
    }

    /// Locks the state. No caller holds the lock across an `await`. A poisoned lock is still used:
    /// only a test's closure over the settings can panic under the lock, and the settings are then
    /// still valid.
    pub(super) fn lock(&self) -> MutexGuard<'_, SimulatedWechat> {
        self.wechat.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
pub(super) struct SimulatedWechat {
    pub(super) apps: AppDirectory,
    /// The app of each access token that was ever issued. Some calls name their app only by the
    /// token, and a search through thousands of apps would take too long.
    token_apps: HashMap<String, AppIndex>,
    pub(super) clock: SimulatedClock,
    pub(super) settings: SimulatorSettings,
    pub(super) users: UserDirectory,
    pub(super) faults: FaultList,
    /// The calls of all apps, and those that name no app.
    pub(super) calls: CallCounts,
    #[cfg(feature = "platform")]
    pub(super) platforms: Platforms,
}

impl SimulatedWechat {
    pub(super) fn new(app_id: String, app_secret: String, settings: SimulatorSettings) -> Self {
        let first = SimulatedUser::new("oSimulatedUser_0000000000001")
            .nickname("小明 Ming")
            .unionid("oSimulatedUnion_000000000001");
        Self {
            apps: AppDirectory::new(app_id, app_secret),
            token_apps: HashMap::new(),
            clock: SimulatedClock::default(),
            settings,
            users: UserDirectory::new(first),
            faults: FaultList::default(),
            calls: CallCounts::default(),
            #[cfg(feature = "platform")]
            platforms: Platforms::default(),
        }
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.now()
    }

    /// Counts a call, also for each app that the call names.
    pub(super) fn count_call(&mut self, path: &str, apps: &[AppIndex]) {
        self.calls.count(path);
        for app in apps {
            self.apps[*app].calls.count(path);
        }
    }

    pub(super) fn reset_calls(&mut self) {
        self.calls.clear();
        for (_, app) in self.apps.iter_mut() {
            app.calls.clear();
        }
    }

    /// Returns the app with this AppID.
    pub(super) fn find_app(&self, app_id: Option<&str>) -> Result<AppIndex, WechatErrorReply> {
        let app_id = app_id.ok_or(WechatErrorReply::new(41002))?;
        self.apps.find(app_id).ok_or(WechatErrorReply::new(40013))
    }

    /// Returns the app to which this access token of a user or of an account was issued.
    pub(super) fn app_of_token(&self, access_token: &str) -> Option<AppIndex> {
        self.token_apps.get(access_token).copied()
    }

    /// Remembers the app of an access token that was just issued.
    pub(super) fn record_token(&mut self, app: AppIndex, access_token: &str) {
        if !self.token_apps.contains_key(access_token) {
            self.token_apps.insert(access_token.to_owned(), app);
        }
    }

    pub(super) fn check_secret(
        &self,
        app: AppIndex,
        secret: Option<&str>,
    ) -> Result<(), WechatErrorReply> {
        match secret {
            None => Err(WechatErrorReply::new(41004)),
            Some(given) if given != self.apps[app].secret => Err(WechatErrorReply::new(40125)),
            Some(_) if self.settings.secret_frozen => Err(WechatErrorReply::new(40243)),
            Some(_) => Ok(()),
        }
    }

    pub(super) fn check_ip(&self, ip: IpAddr) -> Result<(), WechatErrorReply> {
        // A listener on `[::]` sees an IPv4 address in the form that is mapped into IPv6.
        let ip = ip.to_canonical();
        match &self.settings.ip_whitelist {
            Some(listed) if !listed.iter().any(|known| known.to_canonical() == ip) => {
                Err(WechatErrorReply::ip_not_whitelisted(ip))
            }
            _ => Ok(()),
        }
    }

    /// Returns the account for which a call may use this token. A component token gets 61015.
    pub(super) fn check_account_token(
        &self,
        token: Option<&str>,
    ) -> Result<AppIndex, WechatErrorReply> {
        let token = token.ok_or(WechatErrorReply::new(41001))?;
        let app = self
            .app_of_token(token)
            .ok_or_else(|| WechatErrorReply::unknown_token(token))?;
        #[cfg(feature = "platform")]
        if self.apps[app].kind == AppKind::Platform {
            return Err(WechatErrorReply::new(61015));
        }
        if self.apps[app].user_tokens.was_issued(token) {
            return Err(WRONG_KIND_OF_TOKEN);
        }
        self.apps[app]
            .account_tokens
            .check_token(token, self.now())?;
        Ok(app)
    }

    /// Returns the valid pair of this user to which the access token belongs, with its app.
    pub(super) fn check_user_token(
        &self,
        access_token: &str,
        openid: &str,
        now: Duration,
    ) -> Result<(AppIndex, &TokenPair), WechatErrorReply> {
        let app = self
            .app_of_token(access_token)
            .ok_or_else(|| WechatErrorReply::unknown_token(access_token))?;
        if self.apps[app].account_tokens.was_issued(access_token) {
            return Err(WRONG_KIND_OF_TOKEN);
        }
        let pair = self.apps[app]
            .user_tokens
            .check_access_token(access_token, openid, now)?;
        Ok((app, pair))
    }

    pub(super) fn exchange_code(
        &mut self,
        app: AppIndex,
        code: &str,
        component: Option<AppIndex>,
        now: Duration,
    ) -> Result<TokenPair, WechatErrorReply> {
        let issuer = &mut self.apps[app].user_tokens;
        let pair = issuer.exchange(code, component, &self.settings, now)?;
        self.record_token(app, &pair.access_token);
        Ok(pair)
    }

    pub(super) fn refresh_pair(
        &mut self,
        app: AppIndex,
        refresh_token: &str,
        component: Option<AppIndex>,
        now: Duration,
    ) -> Result<TokenPair, WechatErrorReply> {
        let issuer = &mut self.apps[app].user_tokens;
        let pair = issuer.refresh(refresh_token, component, &self.settings, now)?;
        self.record_token(app, &pair.access_token);
        Ok(pair)
    }

    pub(super) fn issue_account_token(
        &mut self,
        app: AppIndex,
        now: Duration,
    ) -> Result<AccountTokenResult, WechatErrorReply> {
        let issuer = &mut self.apps[app].account_tokens;
        let result = issuer.token(&self.settings, now)?;
        self.record_token(app, &result.access_token);
        Ok(result)
    }

    pub(super) fn issue_stable_token(
        &mut self,
        app: AppIndex,
        force_refresh: bool,
        now: Duration,
    ) -> Result<AccountTokenResult, WechatErrorReply> {
        let issuer = &mut self.apps[app].account_tokens;
        let result = issuer.stable_token(force_refresh, &self.settings, now)?;
        self.record_token(app, &result.access_token);
        Ok(result)
    }

    pub(super) fn ticket(&mut self, app: AppIndex, kind: &str, now: Duration) -> String {
        self.apps[app]
            .account_tokens
            .ticket(kind, &self.settings, now)
    }

    /// Returns the user's openid in this app. `openid` is the user's openid in the first account or
    /// in this app. Adds the user if none has this openid.
    pub(super) fn openid_in(&mut self, app: AppIndex, openid: &str) -> String {
        let first = self.users.first_openid(app, openid);
        self.users.openid_in(app, &self.apps[app].app_id, &first)
    }

    /// Returns the user's openid in this app, as [`openid_in`](Self::openid_in) does. Returns `None`
    /// if no user has this openid.
    pub(super) fn known_openid_in(&mut self, app: AppIndex, openid: &str) -> Option<String> {
        self.users
            .get(openid)
            .or_else(|| self.users.get_in(app, openid))?;
        Some(self.openid_in(app, openid))
    }

    /// Issues a code of this app, as for a user who agrees at the authorize page. Adds the user if
    /// none has this openid. `component` is the third-party platform whose link the user followed.
    pub(super) fn issue_code(
        &mut self,
        app: AppIndex,
        openid: &str,
        scope: &str,
        snapshot: bool,
        component: Option<AppIndex>,
    ) -> String {
        let authorization = Authorization {
            component,
            ..self.authorization(app, openid, scope, snapshot)
        };
        let lifetime = match self.apps[app].kind {
            AppKind::Account => self.settings.code_lifetime,
            AppKind::Website => self.settings.code_lifetime.saturating_mul(2),
            #[cfg(feature = "platform")]
            AppKind::Platform => Duration::ZERO,
        };
        let now = self.now();
        self.apps[app]
            .user_tokens
            .issue_code(authorization, lifetime, now)
    }

    /// Issues a pair of tokens of this app for a user without a code exchange. Adds the user if none
    /// has this openid.
    pub(super) fn sign_in(&mut self, app: AppIndex, openid: &str, scope: &str) -> TokenPair {
        let authorization = self.authorization(app, openid, scope, false);
        let now = self.now();
        let issuer = &mut self.apps[app].user_tokens;
        let pair = issuer.issue_pair(authorization, &self.settings, now);
        self.record_token(app, &pair.access_token);
        pair
    }

    /// Invalidates the user's pairs in all apps, because the password is the user's WeChat password.
    pub(super) fn change_password(&mut self, openid: &str) {
        for (index, app) in self.apps.iter_mut() {
            let openid = self.users.openid_in(index, &app.app_id, openid);
            app.user_tokens.change_password(&openid);
        }
    }

    fn authorization(
        &mut self,
        app: AppIndex,
        openid: &str,
        scope: &str,
        snapshot: bool,
    ) -> Authorization {
        let openid = self.openid_in(app, openid);
        let snapshot = snapshot
            || self
                .users
                .get_in(app, &openid)
                .is_some_and(SimulatedUser::is_snapshot);
        Authorization {
            openid,
            scope: scope.to_owned(),
            snapshot,
            component: None,
        }
    }
}
