//! Everything that the simulated WeChat knows, behind one lock.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use super::{
    account_tokens::AccountTokens,
    clock::Clock,
    faults::FaultBook,
    refusal::Refusal,
    settings::Settings,
    user_tokens::{Grant, Pair, UserTokens},
    users::{SimulatedUser, Users},
};

/// Paths that are counted one by one. A caller that makes up paths cannot grow the count forever.
const COUNTED_PATHS: usize = 4096;

/// What the server's tasks and the [`Simulator`](super::Simulator) share.
#[derive(Debug)]
pub(super) struct Shared {
    world: Mutex<World>,
    /// Cancelled when connections must end, whatever they are doing.
    pub(super) stopped: CancellationToken,
}

impl Shared {
    pub(super) fn new(world: World) -> Self {
        Self {
            world: Mutex::new(world),
            stopped: CancellationToken::new(),
        }
    }

    /// Never held across an `await`. A panic while it was held (in a test's closure over the
    /// settings) leaves nothing half done that matters.
    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) app_id: String,
    pub(super) app_secret: String,
    pub(super) clock: Clock,
    pub(super) settings: Settings,
    pub(super) users: Users,
    pub(super) user_tokens: UserTokens,
    pub(super) account_tokens: AccountTokens,
    pub(super) faults: FaultBook,
    pub(super) calls: BTreeMap<String, u64>,
}

impl World {
    pub(super) fn new(app_id: String, app_secret: String, settings: Settings) -> Self {
        let first = SimulatedUser::new("oSimulatedUser_0000000000001")
            .nickname("小明 Ming")
            .unionid("oSimulatedUnion_000000000001");
        Self {
            app_id,
            app_secret,
            clock: Clock::default(),
            settings,
            users: Users::new(first),
            user_tokens: UserTokens::default(),
            account_tokens: AccountTokens::default(),
            faults: FaultBook::default(),
            calls: BTreeMap::new(),
        }
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.now()
    }

    pub(super) fn count(&mut self, path: &str) {
        if let Some(calls) = self.calls.get_mut(path) {
            *calls += 1;
        } else if self.calls.len() < COUNTED_PATHS {
            self.calls.insert(path.to_owned(), 1);
        }
    }

    pub(super) fn check_app_id(&self, app_id: Option<&str>) -> Result<(), Refusal> {
        match app_id {
            None => Err(Refusal::new(41002)),
            Some(given) if given == self.app_id => Ok(()),
            Some(_) => Err(Refusal::new(40013)),
        }
    }

    pub(super) fn check_secret(&self, secret: Option<&str>) -> Result<(), Refusal> {
        match secret {
            None => Err(Refusal::new(41004)),
            Some(given) if given != self.app_secret => Err(Refusal::new(40125)),
            Some(_) if self.settings.secret_frozen => Err(Refusal::new(40243)),
            Some(_) => Ok(()),
        }
    }

    pub(super) fn check_ip(&self, ip: IpAddr) -> Result<(), Refusal> {
        // A listener on `[::]` shows IPv4 callers in their mapped form.
        let ip = ip.to_canonical();
        match &self.settings.ip_whitelist {
            Some(listed) if !listed.iter().any(|known| known.to_canonical() == ip) => {
                Err(Refusal::ip_not_listed(ip))
            }
            _ => Ok(()),
        }
    }

    /// Whether a call for the account may use this token.
    pub(super) fn check_account_token(&self, token: Option<&str>) -> Result<(), Refusal> {
        let token = token.ok_or(Refusal::new(41001))?;
        if self.user_tokens.issued(token) {
            // The three kinds of access tokens are never interchangeable.
            return Err(Refusal::new(40001));
        }
        self.account_tokens.check(token, self.now())
    }

    /// What the authorize page does when a user agrees: a code for this user and scope.
    pub(super) fn mint_code(&mut self, openid: &str, scope: &str, snapshot: bool) -> String {
        let grant = self.grant(openid, scope, snapshot);
        let life = self.settings.code_lifetime;
        let life = if scope == "snsapi_login" {
            life.saturating_mul(2)
        } else {
            life
        };
        let now = self.now();
        self.user_tokens.mint_code(grant, life, now)
    }

    /// A user's whole sign-in at once.
    pub(super) fn sign_in(&mut self, openid: &str, scope: &str) -> Pair {
        let grant = self.grant(openid, scope, false);
        let now = self.now();
        self.user_tokens.open_pair(grant, &self.settings, now)
    }

    fn grant(&mut self, openid: &str, scope: &str, snapshot: bool) -> Grant {
        self.users.ensure(openid);
        let snapshot = snapshot
            || self
                .users
                .get(openid)
                .is_some_and(SimulatedUser::is_snapshot);
        Grant {
            openid: openid.to_owned(),
            scope: scope.to_owned(),
            snapshot,
        }
    }
}
