//! One code is exchanged once in the whole cluster; every copy of its callback is told the same.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::{Instrument, Span, field};

use super::answer::Trouble;
use super::lines::Lines;
use super::turns::{Leader, Turns};
use super::{Scope, SnapshotPolicy};
use crate::clock::Timestamp;
use crate::credential::UserId;
use crate::error::{Error, ErrorKind};
use crate::observe;
use crate::store::{Allowance, CodeBinding, CodeClaim, CodeName, LeaseOwner};
use crate::users::{Granted, UserTokens};
use crate::wechat::UserGrant;

/// How long the right to exchange a code is held: longer than the call may take.
const LEASE: Duration = Duration::from_secs(10);

/// How long every copy of a callback gets the same result.
const RESULT_LIFETIME: Duration = Duration::from_secs(10 * 60);

/// How long it is remembered of a code that WeChat says it was none: made-up codes leave nothing
/// that lasts.
const NO_CODE_LIFETIME: Duration = Duration::from_secs(60);

/// How long a code that was refused unspent belongs to its login. WeChat forgets it after five
/// minutes.
const REFUSED_LIFETIME: Duration = Duration::from_secs(6 * 60);

/// How many codes of one login are exchanged, by all processes together. WeChat sends one, and
/// sometimes a second one behind it; only WeChat can tell a made-up one.
pub(super) const CODES: usize = 2;

/// How long the store counts the codes of a login. Each process counts them for longer.
const CODES_SPAN: Duration = Duration::from_secs(60);

/// WeChat's errcode for what is no code.
const NO_CODE: i64 = 40_029;

/// How long a failure is told that may be gone in a moment: as long as copies come together.
/// `Retry-After` is made of it: a client that waits as long as it was told finds it forgotten.
pub(super) const PASSING_LIFETIME: Duration = Duration::from_secs(2);

/// R3: how long what WeChat has granted is offered to a store that does not answer.
const STORE_PATIENCE: Duration = Duration::from_secs(60);

/// How long a copy rests between two looks at the result, at first and at most.
const FIRST_REST: Duration = Duration::from_millis(20);
const LONGEST_REST: Duration = Duration::from_millis(250);

/// What came of a code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It signed this user in.
    SignedIn(SignedIn),
    /// WeChat does not take it: the login has to begin anew.
    Spent,
    /// The user is told.
    Trouble(Trouble),
}

/// Who was signed in. Never a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SignedIn {
    pub(super) user: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) snapshot: bool,
    /// What WeChat says was granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) scope: Option<String>,
    /// The number of the login whose callback brought the code. A used code is in logs and
    /// histories; under another login's state it is nobody's.
    #[serde(default)]
    pub(super) login: u64,
    /// When the user had last logged out everywhere by then, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) epoch: Option<i64>,
    /// The user had granted `snsapi_userinfo` before, which this code's pair has replaced.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) had_more: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Written {
    SignedIn(SignedIn),
    Spent,
    Trouble(String),
}

impl Verdict {
    fn write(&self) -> String {
        let written = match self {
            Self::SignedIn(signed_in) => Written::SignedIn(signed_in.clone()),
            Self::Spent => Written::Spent,
            Self::Trouble(trouble) => Written::Trouble(trouble.name().to_owned()),
        };
        serde_json::to_string(&written).unwrap_or_default()
    }

    /// What cannot be read was written by a later version of this crate.
    pub(crate) fn read(text: &str) -> Self {
        match serde_json::from_str(text) {
            Ok(Written::SignedIn(signed_in)) if UserId::check(&signed_in.user).is_ok() => {
                Self::SignedIn(signed_in)
            }
            Ok(Written::Trouble(name)) => {
                Self::Trouble(Trouble::named(&name).unwrap_or(Trouble::NotAccepted))
            }
            _ => Self::Spent,
        }
    }

    fn of(error: &Error) -> Self {
        Trouble::of_exchange(error).map_or(Self::Spent, Self::Trouble)
    }

    /// Its name in metrics and spans.
    fn name(&self) -> &'static str {
        match self {
            Self::SignedIn(signed_in) if signed_in.snapshot => "snapshot",
            Self::SignedIn(_) => "signed_in",
            Self::Spent => "spent",
            Self::Trouble(trouble) => trouble.name(),
        }
    }

    fn lifetime(&self) -> Duration {
        match self {
            Self::Trouble(trouble) if trouble.passes() => PASSING_LIFETIME,
            _ => RESULT_LIFETIME,
        }
    }
}

/// A code on its way to a verdict.
pub(super) struct Exchange {
    pub(super) users: UserTokens,
    pub(super) snapshots: SnapshotPolicy,
    pub(super) code: String,
    pub(super) name: CodeName,
    /// The number of the login.
    pub(super) login: u64,
    /// Who logs in, where that is not for WeChat to tell.
    pub(super) named: Option<UserId>,
    pub(super) turns: Arc<Turns>,
    pub(super) lines: Arc<Lines>,
}

impl Exchange {
    /// Starts the exchange, which tells `leader` what came of the code. It is a task of its own
    /// (nothing is lost): whoever asked may hang up, and what WeChat grants reaches the store.
    pub(super) fn start(self, leader: Leader, wait: Duration) {
        let users = self.users.clone();
        let span = tracing::info_span!(
            target: "tower_wechat::login",
            "wechat.login",
            app = %self.name.app,
            result = field::Empty,
        );
        let work = async move { leader.tell(self.run(wait).await) };
        // The keeper waits for it at shutdown.
        drop(users.spawn(work.instrument(span)));
    }

    async fn run(self, wait: Duration) -> Verdict {
        let began = Instant::now();
        let Some(turn) = self.turns.take(wait).await else {
            if let Some(more) = self.lines.may_write("turns") {
                tracing::warn!(target: "tower_wechat::login", app = %self.name.app, more, "too many logins at once");
            }
            observe::login(Trouble::WechatAway.name());
            return Verdict::Trouble(Trouble::WechatAway);
        };
        let verdict = match self.admitted().await {
            Ok(()) => self.claimed(began, wait).await,
            Err(verdict) => {
                observe::login(verdict.name());
                verdict
            }
        };
        if verdict != Verdict::Spent {
            turn.was_no_refusal();
        }
        verdict
    }

    /// Whether this login may bring this code: no other login has, and it has not brought many.
    async fn admitted(&self) -> Result<(), Verdict> {
        let store = self.users.store();
        let binding = store.bind_code(&self.name, self.login, RESULT_LIFETIME);
        match binding.await.map_err(|error| self.not_begun(&error))? {
            CodeBinding::Ours => return Ok(()),
            CodeBinding::First => {}
            CodeBinding::Others => return Err(self.foreign()),
        }
        let codes = Allowance {
            app: self.name.app.clone(),
            name: format!("login:{:016x}", self.login).into(),
            uses: CODES as u32,
            span: CODES_SPAN,
        };
        match store.spend(&codes).await {
            Ok(true) => Ok(()),
            Ok(false) => {
                self.forget_soon().await;
                Err(Verdict::Trouble(Trouble::TooOften))
            }
            Err(error) => Err(self.not_begun(&error)),
        }
    }

    /// The code is not spent: the user can try again.
    fn not_begun(&self, error: &Error) -> Verdict {
        if let Some(more) = self.lines.may_write("not_begun") {
            tracing::warn!(target: "tower_wechat::login", app = %self.name.app, %error, more, "a login could not begin");
        }
        Verdict::of(error)
    }

    fn foreign(&self) -> Verdict {
        if let Some(more) = self.lines.may_write("foreign") {
            tracing::warn!(target: "tower_wechat::login", app = %self.name.app, more, "a used code came under another login's state, or for another user");
        }
        Verdict::Trouble(Trouble::Unknown)
    }

    /// What was never a code need not be remembered to be somebody's.
    async fn forget_soon(&self) {
        let store = self.users.store();
        let bound = store.bind_code(&self.name, self.login, NO_CODE_LIFETIME);
        if let Err(error) = bound.await {
            tracing::debug!(target: "tower_wechat::login", %error, "a made-up code is remembered for longer");
        }
    }

    /// Exchanges the code, or waits for what comes of it elsewhere.
    async fn claimed(&self, began: Instant, wait: Duration) -> Verdict {
        let owner = LeaseOwner::unique();
        let mut rest = FIRST_REST;
        loop {
            match self
                .users
                .store()
                .claim_code(&self.name, &owner, LEASE)
                .await
            {
                Ok(CodeClaim::Granted) => return self.exchange(&owner).await,
                Ok(CodeClaim::Settled(outcome)) => {
                    return match Verdict::read(&outcome) {
                        Verdict::SignedIn(other) if !self.is_answered_by(&other) => self.foreign(),
                        verdict => verdict,
                    };
                }
                Ok(CodeClaim::Held) => {}
                // The code is not spent: the user can try again. The claim may have run, or may run
                // later, and must not stand in the way of that.
                Err(error) => {
                    self.users.give_back_code(self.name.clone(), owner, LEASE);
                    let verdict = self.not_begun(&error);
                    observe::login(verdict.name());
                    return verdict;
                }
            }
            if began.elapsed() >= wait {
                return Verdict::Trouble(Trouble::WechatAway);
            }
            tokio::time::sleep(rest.mul_f64(0.75 + 0.5 * fastrand::f64())).await;
            rest = (rest * 2).min(LONGEST_REST);
        }
    }

    /// Whether what came of the code came of this login, and of the same user's.
    fn is_answered_by(&self, signed_in: &SignedIn) -> bool {
        let named = self.named.as_ref();
        signed_in.login == self.login && named.is_none_or(|named| named.as_str() == signed_in.user)
    }

    async fn exchange(&self, owner: &LeaseOwner) -> Verdict {
        let app = &self.name.app;
        let mut no_code = false;
        let verdict = match self.users.wechat().exchange_code(&self.code).await {
            Ok(grant) => self.take_in(&grant).await,
            Err(error) => {
                no_code = error.errcode() == Some(NO_CODE);
                self.log_refusal(&error);
                Verdict::of(&error)
            }
        };
        observe::login(verdict.name());
        Span::current().record("result", verdict.name());
        // A success is told whoever has the right by now: it is the only one there can be.
        let owner = match verdict {
            Verdict::SignedIn(_) => None,
            _ => Some(owner),
        };
        let lifetime = match no_code {
            true => NO_CODE_LIFETIME,
            false => verdict.lifetime(),
        };
        let text = verdict.write();
        let settle = self
            .users
            .store()
            .settle_code(&self.name, owner, &text, lifetime);
        if let Err(error) = settle.await {
            tracing::warn!(target: "tower_wechat::login", %app, %error, "the result of a login could not be told to its copies");
        }
        if no_code {
            self.forget_soon().await;
        }
        verdict
    }

    /// One line for many: anybody can make up codes.
    fn log_refusal(&self, error: &Error) {
        let app = &self.name.app;
        if error.kind() == ErrorKind::WechatConfig {
            if let Some(more) = self.lines.may_write("config") {
                tracing::error!(target: "tower_wechat::login", %app, %error, more, "WeChat refuses this account; the operator must act");
            }
        } else if let Some(more) = self.lines.may_write("refused_code") {
            tracing::warn!(target: "tower_wechat::login", %app, %error, more, "WeChat did not exchange a code");
        }
    }

    /// Stores what WeChat granted, before anybody is told (R2, R3).
    async fn take_in(&self, grant: &UserGrant) -> Verdict {
        let app = &self.name.app;
        let Some(Ok(user)) = grant.openid.as_deref().map(UserId::new) else {
            tracing::warn!(target: "tower_wechat::login", %app, "WeChat exchanged a code for nobody's tokens");
            return Verdict::Trouble(Trouble::WechatAway);
        };
        // Of a virtual user nothing could be found again under the name of a real one.
        let named = self.named.as_ref();
        if grant.snapshot && (self.snapshots == SnapshotPolicy::Refuse || named.is_some()) {
            tracing::info!(target: "tower_wechat::login", %app, "a snapshot page's virtual user was refused");
            return Verdict::Trouble(Trouble::SnapshotRefused);
        }
        let user = named.cloned().unwrap_or(user);
        let users = if grant.snapshot {
            self.users.snapshots()
        } else {
            &self.users
        };
        let had_more = !grant.snapshot && self.had_more(&user, grant).await;
        let give_up = Instant::now() + STORE_PATIENCE;
        let mut rest = FIRST_REST;
        let stored = loop {
            let error = match users.put(&user, grant).await {
                Ok(stored) => break stored,
                Err(error) => error,
            };
            if error.kind() != ErrorKind::StoreUnavailable || Instant::now() >= give_up {
                tracing::error!(target: "tower_wechat::login", %app, %error, "a login could not be stored; the user has to log in again");
                return Verdict::of(&error);
            }
            tracing::warn!(target: "tower_wechat::login", %app, %error, "a login is not stored yet");
            tokio::time::sleep(rest).await;
            rest = (rest * 2).min(LONGEST_REST);
        };
        tracing::info!(target: "tower_wechat::login", %app, user = ?user.as_str(), scope = grant.scope.as_deref(), snapshot = grant.snapshot, "logged in");
        Verdict::SignedIn(SignedIn {
            user: user.as_str().to_owned(),
            snapshot: grant.snapshot,
            scope: grant.scope.clone(),
            login: self.login,
            epoch: stored.sessions_from().map(Timestamp::as_millis),
            had_more,
        })
    }

    /// Returns `true` if what is stored of the user covers more than what they have granted now.
    /// Who it was is known only now, with the code spent and the former pair dead by that.
    async fn had_more(&self, user: &UserId, grant: &UserGrant) -> bool {
        let covers = |granted: &str| Scope::UserInfo.is_in(granted);
        if grant.scope.as_deref().is_some_and(covers) {
            return false;
        }
        let before = self.users.granted(user.as_str()).await;
        matches!(before, Ok(Granted::Known(before)) if covers(&before))
    }
}

/// Makes a code that is refused unspent useless under any other login.
pub(super) async fn keep_from_others(users: &UserTokens, name: &CodeName, login: u64) {
    let bound = users.store().bind_code(name, login, REFUSED_LIFETIME).await;
    if let Err(error) = bound {
        tracing::warn!(target: "tower_wechat::login", app = %name.app, %error, "a code that was refused may still be used under another login");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_read_back_and_hold_no_token() {
        let signed_in = SignedIn {
            user: "oUser \"#1\"".into(),
            snapshot: true,
            scope: Some("snsapi_base".into()),
            login: 7,
            epoch: Some(1_700_000_000_000),
            had_more: true,
        };
        let mut verdicts = vec![Verdict::SignedIn(signed_in), Verdict::Spent];
        verdicts.extend(Trouble::ALL.map(Verdict::Trouble));
        for verdict in verdicts {
            assert_eq!(Verdict::read(&verdict.write()), verdict);
        }
        assert_eq!(Verdict::read("{\"later\":1}"), Verdict::Spent);
        assert_eq!(
            Verdict::read("{\"signed_in\":{\"user\":\"\"}}"),
            Verdict::Spent
        );
    }
}
