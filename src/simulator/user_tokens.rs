//! The rules of the codes and of the tokens that belong to users (`/sns`).

use std::{collections::HashMap, time::Duration};

use super::{
    history::{History, What},
    random,
    refusal::Refusal,
    settings::Settings,
};

/// How long a used or dead code is remembered, so that its next use is told apart from nonsense.
const CODE_MEMORY: Duration = Duration::from_secs(24 * 3600);

/// What one code of the authorize page stands for.
#[derive(Debug, Clone)]
pub(super) struct Grant {
    pub(super) openid: String,
    pub(super) scope: String,
    pub(super) snapshot: bool,
}

#[derive(Debug)]
struct Code {
    grant: Grant,
    dies_at: Duration,
    used: bool,
}

/// The live tokens of one user.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    pub(super) grant: Grant,
    pub(super) access_token: String,
    pub(super) access_expires_at: Duration,
    pub(super) refresh_token: String,
    refresh_expires_at: Duration,
}

/// What became of a token that was once handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is the token of the live pair.
    Live,
    /// A newer code exchange, or a rotation, took its place.
    Superseded,
    /// It ran out before the refresh that replaced it.
    Expired,
    /// The user changed the password of WeChat.
    PasswordChanged,
}

#[derive(Debug)]
struct Issued {
    openid: String,
    fate: Fate,
}

/// All codes and user tokens. One user has at most one live pair.
#[derive(Debug, Default)]
pub(super) struct UserTokens {
    codes: HashMap<String, Code>,
    pairs: HashMap<String, Pair>,
    access_tokens: HashMap<String, Issued>,
    refresh_tokens: HashMap<String, Issued>,
    pub(super) history: History,
}

impl UserTokens {
    pub(super) fn mint_code(&mut self, grant: Grant, life: Duration, now: Duration) -> String {
        if self.codes.len() >= 1024 && self.codes.len().is_power_of_two() {
            self.codes
                .retain(|_, code| now < code.dies_at.saturating_add(CODE_MEMORY));
        }
        let code = random::code();
        self.history.note(What::Code, &grant.openid, [&*code], now);
        self.codes.insert(
            code.clone(),
            Code {
                grant,
                dies_at: now.saturating_add(life),
                used: false,
            },
        );
        code
    }

    /// `sns/oauth2/access_token`: a code is good once, and its pair kills the user's former one.
    pub(super) fn exchange(
        &mut self,
        code: &str,
        settings: &Settings,
        now: Duration,
    ) -> Result<Pair, Refusal> {
        let code = self.codes.get_mut(code).ok_or(Refusal::new(40029))?;
        if code.used {
            return Err(Refusal::new(40163));
        }
        if now >= code.dies_at {
            return Err(Refusal::new(40029));
        }
        code.used = true;
        let grant = code.grant.clone();
        Ok(self.open_pair(grant, settings, now))
    }

    /// A new pair, which kills the user's former one.
    pub(super) fn open_pair(&mut self, grant: Grant, settings: &Settings, now: Duration) -> Pair {
        self.kill_pair(&grant.openid, Fate::Superseded);
        let pair = Pair {
            access_token: random::token(),
            access_expires_at: now.saturating_add(settings.user_token_lifetime),
            refresh_token: random::token(),
            refresh_expires_at: now.saturating_add(settings.refresh_token_lifetime),
            grant,
        };
        self.issue(&pair, What::SignIn, now);
        pair
    }

    /// Makes this the live pair of its user, and its tokens the live ones.
    fn issue(&mut self, pair: &Pair, what: What, now: Duration) {
        let secrets = [&*pair.access_token, &*pair.refresh_token];
        self.history.note(what, &pair.grant.openid, secrets, now);
        let issued = || Issued {
            openid: pair.grant.openid.clone(),
            fate: Fate::Live,
        };
        self.access_tokens
            .insert(pair.access_token.clone(), issued());
        self.refresh_tokens
            .insert(pair.refresh_token.clone(), issued());
        self.pairs.insert(pair.grant.openid.clone(), pair.clone());
    }

    fn kill_pair(&mut self, openid: &str, fate: Fate) {
        let Some(pair) = self.pairs.remove(openid) else {
            return;
        };
        set_fate(&mut self.access_tokens, &pair.access_token, fate);
        set_fate(&mut self.refresh_tokens, &pair.refresh_token, fate);
    }

    /// The user changes the password of WeChat: both tokens answer 42007 from now on.
    pub(super) fn change_password(&mut self, openid: &str) {
        self.kill_pair(openid, Fate::PasswordChanged);
    }

    /// `sns/oauth2/refresh_token`: before its expiry the access token stays and lives longer,
    /// after it there is a new one.
    pub(super) fn refresh(
        &mut self,
        refresh_token: &str,
        settings: &Settings,
        now: Duration,
    ) -> Result<Pair, Refusal> {
        let issued = self
            .refresh_tokens
            .get(refresh_token)
            .ok_or(Refusal::new(40030))?;
        match issued.fate {
            Fate::Live => {}
            Fate::Superseded => return Err(Refusal::new(40030)),
            Fate::Expired => return Err(Refusal::new(42002)),
            Fate::PasswordChanged => return Err(Refusal::new(42007)),
        }
        let Some(mut pair) = self.pairs.get(&issued.openid).cloned() else {
            return Err(Refusal::new(40030));
        };
        if now >= pair.refresh_expires_at {
            return Err(Refusal::new(42002));
        }
        if now >= pair.access_expires_at {
            set_fate(&mut self.access_tokens, &pair.access_token, Fate::Expired);
            pair.access_token = random::token();
        }
        pair.access_expires_at = now.saturating_add(settings.user_token_lifetime);
        if settings.rotate_refresh_token {
            set_fate(
                &mut self.refresh_tokens,
                &pair.refresh_token,
                Fate::Superseded,
            );
            pair.refresh_token = random::token();
            pair.refresh_expires_at = now.saturating_add(settings.refresh_token_lifetime);
        }
        self.issue(&pair, What::Refresh, now);
        Ok(pair)
    }

    /// The live pair that this access token opens, for a call in the name of `openid`.
    pub(super) fn check(
        &self,
        access_token: &str,
        openid: &str,
        now: Duration,
    ) -> Result<&Pair, Refusal> {
        let issued = self
            .access_tokens
            .get(access_token)
            .ok_or_else(|| Refusal::never_issued(access_token))?;
        match issued.fate {
            Fate::Live => {}
            Fate::Superseded => return Err(Refusal::new(40001)),
            Fate::Expired => return Err(Refusal::new(42001)),
            Fate::PasswordChanged => return Err(Refusal::new(42007)),
        }
        let pair = self.pairs.get(&issued.openid).ok_or(Refusal::new(40001))?;
        if now >= pair.access_expires_at {
            Err(Refusal::new(42001))
        } else if pair.grant.openid != openid {
            Err(Refusal::new(40003))
        } else {
            Ok(pair)
        }
    }

    pub(super) fn pair(&self, openid: &str) -> Option<&Pair> {
        self.pairs.get(openid)
    }

    /// Whether this was ever an access token of a user: a call for the account then says that it
    /// is of the wrong kind, and not that it is unknown.
    pub(super) fn issued(&self, access_token: &str) -> bool {
        self.access_tokens.contains_key(access_token)
    }
}

fn set_fate(tokens: &mut HashMap<String, Issued>, token: &str, fate: Fate) {
    if let Some(issued) = tokens.get_mut(token) {
        issued.fate = fate;
    }
}
