//! The state of the simulated WeChat, behind one lock.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use super::{
    account_tokens::{AccountTokenIssuer, AccountTokenResult},
    clock::SimulatedClock,
    error_reply::WechatErrorReply,
    faults::FaultList,
    settings::SimulatorSettings,
    user_tokens::{Authorization, TokenPair, UserTokenIssuer},
    users::{SimulatedUser, UserDirectory},
};

/// The error 40001 for a user's token in a call for the account, or for the account's token in a
/// call for a user.
const WRONG_KIND_OF_TOKEN: WechatErrorReply = WechatErrorReply::new(40001);

/// Maximum number of different paths whose calls are counted: 4,096. The limit bounds the memory if
/// a client requests many paths that do not exist.
const MAX_COUNTED_PATHS: usize = 4096;

/// The state that the server's tasks and the [`Simulator`](super::Simulator) share.
#[derive(Debug)]
pub(super) struct SharedState {
    wechat: Mutex<SimulatedWechat>,
    /// The cancellation that ends all connections at once, even in the middle of a call.
    pub(super) force_stop: CancellationToken,
}

impl SharedState {
    pub(super) fn new(wechat: SimulatedWechat) -> Self {
        Self {
            wechat: Mutex::new(wechat),
            force_stop: CancellationToken::new(),
        }
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
    pub(super) app_id: String,
    pub(super) app_secret: String,
    pub(super) clock: SimulatedClock,
    pub(super) settings: SimulatorSettings,
    pub(super) users: UserDirectory,
    pub(super) user_tokens: UserTokenIssuer,
    pub(super) account_tokens: AccountTokenIssuer,
    pub(super) faults: FaultList,
    pub(super) calls: BTreeMap<String, u64>,
}

impl SimulatedWechat {
    pub(super) fn new(app_id: String, app_secret: String, settings: SimulatorSettings) -> Self {
        let first = SimulatedUser::new("oSimulatedUser_0000000000001")
            .nickname("小明 Ming")
            .unionid("oSimulatedUnion_000000000001");
        Self {
            app_id,
            app_secret,
            clock: SimulatedClock::default(),
            settings,
            users: UserDirectory::new(first),
            user_tokens: UserTokenIssuer::default(),
            account_tokens: AccountTokenIssuer::default(),
            faults: FaultList::default(),
            calls: BTreeMap::new(),
        }
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.now()
    }

    pub(super) fn count_call(&mut self, path: &str) {
        if let Some(calls) = self.calls.get_mut(path) {
            *calls += 1;
        } else if self.calls.len() < MAX_COUNTED_PATHS {
            self.calls.insert(path.to_owned(), 1);
        }
    }

    pub(super) fn check_app_id(&self, app_id: Option<&str>) -> Result<(), WechatErrorReply> {
        match app_id {
            None => Err(WechatErrorReply::new(41002)),
            Some(given) if given == self.app_id => Ok(()),
            Some(_) => Err(WechatErrorReply::new(40013)),
        }
    }

    pub(super) fn check_secret(&self, secret: Option<&str>) -> Result<(), WechatErrorReply> {
        match secret {
            None => Err(WechatErrorReply::new(41004)),
            Some(given) if given != self.app_secret => Err(WechatErrorReply::new(40125)),
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

    /// Checks that a call for the account may use this token.
    pub(super) fn check_account_token(&self, token: Option<&str>) -> Result<(), WechatErrorReply> {
        let token = token.ok_or(WechatErrorReply::new(41001))?;
        if self.user_tokens.was_issued(token) {
            return Err(WRONG_KIND_OF_TOKEN);
        }
        self.account_tokens.check_token(token, self.now())
    }

    /// Returns the valid pair of this user to which the access token belongs.
    pub(super) fn check_user_token(
        &self,
        access_token: &str,
        openid: &str,
        now: Duration,
    ) -> Result<&TokenPair, WechatErrorReply> {
        if self.account_tokens.was_issued(access_token) {
            return Err(WRONG_KIND_OF_TOKEN);
        }
        self.user_tokens
            .check_access_token(access_token, openid, now)
    }

    pub(super) fn exchange_code(
        &mut self,
        code: &str,
        now: Duration,
    ) -> Result<TokenPair, WechatErrorReply> {
        self.user_tokens.exchange(code, &self.settings, now)
    }

    pub(super) fn refresh_pair(
        &mut self,
        refresh_token: &str,
        now: Duration,
    ) -> Result<TokenPair, WechatErrorReply> {
        self.user_tokens.refresh(refresh_token, &self.settings, now)
    }

    pub(super) fn issue_account_token(
        &mut self,
        now: Duration,
    ) -> Result<AccountTokenResult, WechatErrorReply> {
        self.account_tokens.token(&self.settings, now)
    }

    pub(super) fn issue_stable_token(
        &mut self,
        force_refresh: bool,
        now: Duration,
    ) -> Result<AccountTokenResult, WechatErrorReply> {
        self.account_tokens
            .stable_token(force_refresh, &self.settings, now)
    }

    pub(super) fn ticket(&mut self, kind: &str, now: Duration) -> String {
        self.account_tokens.ticket(kind, &self.settings, now)
    }

    /// Issues a code, as for a user who agrees at the authorize page. Adds the user if none has
    /// this openid.
    pub(super) fn issue_code(&mut self, openid: &str, scope: &str, snapshot: bool) -> String {
        let authorization = self.authorization(openid, scope, snapshot);
        let lifetime = self.settings.code_lifetime;
        let lifetime = if scope == "snsapi_login" {
            lifetime.saturating_mul(2)
        } else {
            lifetime
        };
        let now = self.now();
        self.user_tokens.issue_code(authorization, lifetime, now)
    }

    /// Issues a pair of tokens for a user without a code exchange. Adds the user if none has this
    /// openid.
    pub(super) fn sign_in(&mut self, openid: &str, scope: &str) -> TokenPair {
        let authorization = self.authorization(openid, scope, false);
        let now = self.now();
        self.user_tokens
            .issue_pair(authorization, &self.settings, now)
    }

    fn authorization(&mut self, openid: &str, scope: &str, snapshot: bool) -> Authorization {
        self.users.insert_if_missing(openid);
        let snapshot = snapshot
            || self
                .users
                .get(openid)
                .is_some_and(SimulatedUser::is_snapshot);
        Authorization {
            openid: openid.to_owned(),
            scope: scope.to_owned(),
            snapshot,
        }
    }
}
