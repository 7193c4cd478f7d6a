//! The rules of the codes and of the tokens that belong to users (`/sns`).

use std::{collections::HashMap, time::Duration};

use super::{
    error_reply::WechatErrorReply,
    issue_log::{IssueLog, IssuedKind},
    random,
    settings::SimulatorSettings,
};

/// How long a used or dead code is remembered, so that its next use is told apart from nonsense.
const CODE_RETENTION: Duration = Duration::from_secs(24 * 3600);

/// What one code of the authorize page stands for.
#[derive(Debug, Clone)]
pub(super) struct Authorization {
    pub(super) openid: String,
    pub(super) scope: String,
    pub(super) snapshot: bool,
}

#[derive(Debug)]
struct AuthorizationCode {
    authorization: Authorization,
    expires_at: Duration,
    used: bool,
}

/// The live tokens of one user.
#[derive(Debug, Clone)]
pub(super) struct TokenPair {
    pub(super) authorization: Authorization,
    pub(super) access_token: String,
    pub(super) access_expires_at: Duration,
    pub(super) refresh_token: String,
    refresh_expires_at: Duration,
}

/// What became of a token that was once handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UserTokenStatus {
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
struct IssuedUserToken {
    openid: String,
    status: UserTokenStatus,
}

/// All codes and user tokens. One user has at most one live pair.
#[derive(Debug, Default)]
pub(super) struct UserTokenIssuer {
    codes: HashMap<String, AuthorizationCode>,
    pairs: HashMap<String, TokenPair>,
    access_tokens: HashMap<String, IssuedUserToken>,
    refresh_tokens: HashMap<String, IssuedUserToken>,
    pub(super) issue_log: IssueLog,
}

impl UserTokenIssuer {
    pub(super) fn issue_code(
        &mut self,
        grant: Authorization,
        life: Duration,
        now: Duration,
    ) -> String {
        if self.codes.len() >= 1024 && self.codes.len().is_power_of_two() {
            self.codes
                .retain(|_, code| now < code.expires_at.saturating_add(CODE_RETENTION));
        }
        let code = random::code();
        self.issue_log
            .record(IssuedKind::Code, &grant.openid, [&*code], now);
        self.codes.insert(
            code.clone(),
            AuthorizationCode {
                authorization: grant,
                expires_at: now.saturating_add(life),
                used: false,
            },
        );
        code
    }

    /// `sns/oauth2/access_token`: a code is good once, and its pair kills the user's former one.
    pub(super) fn exchange(
        &mut self,
        code: &str,
        settings: &SimulatorSettings,
        now: Duration,
    ) -> Result<TokenPair, WechatErrorReply> {
        let code = self
            .codes
            .get_mut(code)
            .ok_or(WechatErrorReply::new(40029))?;
        if code.used {
            return Err(WechatErrorReply::new(40163));
        }
        if now >= code.expires_at {
            return Err(WechatErrorReply::new(40029));
        }
        code.used = true;
        let grant = code.authorization.clone();
        Ok(self.issue_pair(grant, settings, now))
    }

    /// A new pair, which kills the user's former one.
    pub(super) fn issue_pair(
        &mut self,
        grant: Authorization,
        settings: &SimulatorSettings,
        now: Duration,
    ) -> TokenPair {
        self.revoke_pair(&grant.openid, UserTokenStatus::Superseded);
        let pair = TokenPair {
            access_token: random::token(),
            access_expires_at: now.saturating_add(settings.user_token_lifetime),
            refresh_token: random::token(),
            refresh_expires_at: now.saturating_add(settings.refresh_token_lifetime),
            authorization: grant,
        };
        self.activate_pair(&pair, IssuedKind::SignIn, now);
        pair
    }

    /// Makes this the live pair of its user, and its tokens the live ones.
    fn activate_pair(&mut self, pair: &TokenPair, what: IssuedKind, now: Duration) {
        let secrets = [&*pair.access_token, &*pair.refresh_token];
        self.issue_log
            .record(what, &pair.authorization.openid, secrets, now);
        let issued = || IssuedUserToken {
            openid: pair.authorization.openid.clone(),
            status: UserTokenStatus::Live,
        };
        self.access_tokens
            .insert(pair.access_token.clone(), issued());
        self.refresh_tokens
            .insert(pair.refresh_token.clone(), issued());
        self.pairs
            .insert(pair.authorization.openid.clone(), pair.clone());
    }

    fn revoke_pair(&mut self, openid: &str, fate: UserTokenStatus) {
        let Some(pair) = self.pairs.remove(openid) else {
            return;
        };
        set_status(&mut self.access_tokens, &pair.access_token, fate);
        set_status(&mut self.refresh_tokens, &pair.refresh_token, fate);
    }

    /// The user changes the password of WeChat: both tokens answer 42007 from now on.
    pub(super) fn change_password(&mut self, openid: &str) {
        self.revoke_pair(openid, UserTokenStatus::PasswordChanged);
    }

    /// `sns/oauth2/refresh_token`: before its expiry the access token stays and lives longer,
    /// after it there is a new one.
    pub(super) fn refresh(
        &mut self,
        refresh_token: &str,
        settings: &SimulatorSettings,
        now: Duration,
    ) -> Result<TokenPair, WechatErrorReply> {
        let issued = self
            .refresh_tokens
            .get(refresh_token)
            .ok_or(WechatErrorReply::new(40030))?;
        match issued.status {
            UserTokenStatus::Live => {}
            UserTokenStatus::Superseded => return Err(WechatErrorReply::new(40030)),
            UserTokenStatus::Expired => return Err(WechatErrorReply::new(42002)),
            UserTokenStatus::PasswordChanged => return Err(WechatErrorReply::new(42007)),
        }
        let Some(mut pair) = self.pairs.get(&issued.openid).cloned() else {
            return Err(WechatErrorReply::new(40030));
        };
        if now >= pair.refresh_expires_at {
            return Err(WechatErrorReply::new(42002));
        }
        if now >= pair.access_expires_at {
            set_status(
                &mut self.access_tokens,
                &pair.access_token,
                UserTokenStatus::Expired,
            );
            pair.access_token = random::token();
        }
        pair.access_expires_at = now.saturating_add(settings.user_token_lifetime);
        if settings.rotate_refresh_token {
            set_status(
                &mut self.refresh_tokens,
                &pair.refresh_token,
                UserTokenStatus::Superseded,
            );
            pair.refresh_token = random::token();
            pair.refresh_expires_at = now.saturating_add(settings.refresh_token_lifetime);
        }
        self.activate_pair(&pair, IssuedKind::Refresh, now);
        Ok(pair)
    }

    /// The live pair that this access token opens, for a call in the name of `openid`.
    pub(super) fn check_access_token(
        &self,
        access_token: &str,
        openid: &str,
        now: Duration,
    ) -> Result<&TokenPair, WechatErrorReply> {
        let issued = self
            .access_tokens
            .get(access_token)
            .ok_or_else(|| WechatErrorReply::unknown_token(access_token))?;
        match issued.status {
            UserTokenStatus::Live => {}
            UserTokenStatus::Superseded => return Err(WechatErrorReply::new(40001)),
            UserTokenStatus::Expired => return Err(WechatErrorReply::new(42001)),
            UserTokenStatus::PasswordChanged => return Err(WechatErrorReply::new(42007)),
        }
        let pair = self
            .pairs
            .get(&issued.openid)
            .ok_or(WechatErrorReply::new(40001))?;
        if now >= pair.access_expires_at {
            Err(WechatErrorReply::new(42001))
        } else if pair.authorization.openid != openid {
            Err(WechatErrorReply::new(40003))
        } else {
            Ok(pair)
        }
    }

    pub(super) fn pair(&self, openid: &str) -> Option<&TokenPair> {
        self.pairs.get(openid)
    }

    /// Whether this was ever an access token of a user: a call for the account then says that it
    /// is of the wrong kind, and not that it is unknown.
    pub(super) fn was_issued(&self, access_token: &str) -> bool {
        self.access_tokens.contains_key(access_token)
    }
}

fn set_status(tokens: &mut HashMap<String, IssuedUserToken>, token: &str, fate: UserTokenStatus) {
    if let Some(issued) = tokens.get_mut(token) {
        issued.status = fate;
    }
}
