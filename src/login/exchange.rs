//! One code is exchanged once in the whole cluster; every copy of its callback is told the same.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tracing::{Instrument, Span, field};

use super::answer::Trouble;
use super::{Scope, SnapshotPolicy};
use crate::clock::Timestamp;
use crate::credential::UserId;
use crate::error::{Error, ErrorKind};
use crate::observe;
use crate::store::{CodeClaim, CodeName, LeaseOwner};
use crate::users::{Granted, UserTokens};
use crate::wechat::UserGrant;

/// How long the right to exchange a code is held: longer than the call may take.
const LEASE: Duration = Duration::from_secs(10);

/// How long every copy of a callback gets the same result.
const RESULT_LIFETIME: Duration = Duration::from_secs(10 * 60);

/// How long a failure is told that may be gone in a moment: as long as copies come together.
const PASSING_LIFETIME: Duration = Duration::from_secs(2);

/// R3: how long what WeChat has granted is offered to a store that does not answer.
const STORE_PATIENCE: Duration = Duration::from_secs(60);

/// How long a copy rests between two looks at the result, at first and at most.
const FIRST_REST: Duration = Duration::from_millis(20);
const LONGEST_REST: Duration = Duration::from_millis(250);

/// What came of a code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It signed this user in.
    SignedIn(SignedIn),
    /// WeChat does not take it: the login has to begin anew.
    Spent,
    /// The user is told.
    Trouble(Trouble),
}

/// Who was signed in. Never a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SignedIn {
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
    pub(super) fn read(text: &str) -> Self {
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
    /// One of the exchanges that this process runs at once. It goes with the work.
    pub(super) _turn: OwnedSemaphorePermit,
}

impl Exchange {
    /// What came of the code, within `wait`. The work is a task of its own (R3): whoever asked may
    /// hang up, and what WeChat grants reaches the store.
    pub(super) async fn verdict(self, wait: Duration) -> Verdict {
        let users = self.users.clone();
        let span = tracing::info_span!(
            target: "tower_wechat::login",
            "wechat.login",
            app = %self.name.app,
            result = field::Empty,
        );
        let task = users.spawn(self.run(wait).instrument(span));
        match tokio::time::timeout(wait, task).await {
            Ok(Ok(verdict)) => verdict,
            // It goes on, and the user's next try finds the result; or it has panicked.
            Ok(Err(_)) | Err(_) => Verdict::Trouble(Trouble::WechatAway),
        }
    }

    async fn run(self, wait: Duration) -> Verdict {
        let owner = LeaseOwner::unique();
        let began = Instant::now();
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
                        Verdict::SignedIn(other) if !self.is_answered_by(&other) => {
                            tracing::warn!(target: "tower_wechat::login", app = %self.name.app, "a used code came under another login's state, or for another user");
                            Verdict::Trouble(Trouble::Unknown)
                        }
                        verdict => verdict,
                    };
                }
                Ok(CodeClaim::Held) => {}
                // The code is not spent: the user can try again. The claim may have run, or may run
                // later, and must not stand in the way of that.
                Err(error) => {
                    self.users.give_back_code(self.name.clone(), owner, LEASE);
                    tracing::warn!(target: "tower_wechat::login", app = %self.name.app, %error, "a login could not begin");
                    let verdict = Verdict::of(&error);
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
        let verdict = match self.users.wechat().exchange_code(&self.code).await {
            Ok(grant) => self.take_in(&grant).await,
            Err(error) => {
                let verdict = Verdict::of(&error);
                if error.kind() == ErrorKind::WechatConfig {
                    tracing::error!(target: "tower_wechat::login", %app, %error, "WeChat refuses this account; the operator must act");
                } else {
                    tracing::warn!(target: "tower_wechat::login", %app, %error, "WeChat did not exchange a code");
                }
                verdict
            }
        };
        observe::login(verdict.name());
        Span::current().record("result", verdict.name());
        // A success is told whoever has the right by now: it is the only one there can be.
        let owner = match verdict {
            Verdict::SignedIn(_) => None,
            _ => Some(owner),
        };
        let (text, lifetime) = (verdict.write(), verdict.lifetime());
        let settle = self
            .users
            .store()
            .settle_code(&self.name, owner, &text, lifetime);
        if let Err(error) = settle.await {
            tracing::warn!(target: "tower_wechat::login", %app, %error, "the result of a login could not be told to its copies");
        }
        verdict
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
