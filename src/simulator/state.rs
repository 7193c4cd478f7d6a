//! Everything that the simulated WeChat knows, behind one lock.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use super::{
    account_tokens::AccountTokenIssuer,
    clock::SimulatedClock,
    error_reply::WechatErrorReply,
    faults::FaultList,
    settings::SimulatorSettings,
    user_tokens::{Authorization, TokenPair, UserTokenIssuer},
    users::{SimulatedUser, UserDirectory},
};

/// Paths that are counted one by one. A caller that makes up paths cannot grow the count forever.
const MAX_COUNTED_PATHS: usize = 4096;

/// What the server's tasks and the [`Simulator`](super::Simulator) share.
#[derive(Debug)]
pub(super) struct SharedState {
    wechat: Mutex<SimulatedWechat>,
    /// Cancelled when connections must end, whatever they are doing.
    pub(super) force_stop: CancellationToken,
}

impl SharedState {
    pub(super) fn new(world: SimulatedWechat) -> Self {
        Self {
            wechat: Mutex::new(world),
            force_stop: CancellationToken::new(),
        }
    }

    /// Never held across an `await`. A panic while it was held (in a test's closure over the
    /// settings) leaves nothing half done that matters.
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
        // A listener on `[::]` shows IPv4 callers in their mapped form.
        let ip = ip.to_canonical();
        match &self.settings.ip_whitelist {
            Some(listed) if !listed.iter().any(|known| known.to_canonical() == ip) => {
                Err(WechatErrorReply::ip_not_whitelisted(ip))
            }
            _ => Ok(()),
        }
    }

    /// Whether a call for the account may use this token.
    pub(super) fn check_account_token(&self, token: Option<&str>) -> Result<(), WechatErrorReply> {
        let token = token.ok_or(WechatErrorReply::new(41001))?;
        if self.user_tokens.was_issued(token) {
            // The three kinds of access tokens are never interchangeable.
            return Err(WechatErrorReply::new(40001));
        }
        self.account_tokens.check_token(token, self.now())
    }

    /// What the authorize page does when a user agrees: a code for this user and scope.
    pub(super) fn issue_code(&mut self, openid: &str, scope: &str, snapshot: bool) -> String {
        let grant = self.authorization(openid, scope, snapshot);
        let life = self.settings.code_lifetime;
        let life = if scope == "snsapi_login" {
            life.saturating_mul(2)
        } else {
            life
        };
        let now = self.now();
        self.user_tokens.issue_code(grant, life, now)
    }

    /// A user's whole sign-in at once.
    pub(super) fn sign_in(&mut self, openid: &str, scope: &str) -> TokenPair {
        let grant = self.authorization(openid, scope, false);
        let now = self.now();
        self.user_tokens.issue_pair(grant, &self.settings, now)
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
