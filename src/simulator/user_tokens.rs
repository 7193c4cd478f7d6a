//! The login codes and tokens of simulated users, issued and checked by WeChat's rules (`/sns`).

use std::{collections::HashMap, time::Duration};

use super::{
    app_index::AppIndex,
    error_reply::WechatErrorReply,
    issue_log::{IssueLog, IssuedKind},
    random,
    settings::SimulatorSettings,
};

/// Minimum time for which a code is kept after its expiry: one day. A used code that is kept gets
/// 40163, and an unknown or expired code gets 40029.
const CODE_RETENTION: Duration = Duration::from_secs(24 * 3600);

/// The user and the scope for which a code or a pair of tokens was issued.
#[derive(Debug, Clone)]
pub(super) struct Authorization {
    /// The user's openid in the app that issued the code or the pair.
    pub(super) openid: String,
    pub(super) scope: String,
    pub(super) snapshot: bool,
    /// The third-party platform that may exchange the code and refresh the pair on behalf of the
    /// app. `None`: only the app itself may do so.
    pub(super) component: Option<AppIndex>,
}

#[derive(Debug)]
struct AuthorizationCode {
    authorization: Authorization,
    expires_at: Duration,
    used: bool,
}

/// The current tokens of one user, which may have expired.
#[derive(Debug, Clone)]
pub(super) struct TokenPair {
    pub(super) authorization: Authorization,
    pub(super) access_token: String,
    pub(super) access_expires_at: Duration,
    pub(super) refresh_token: String,
    refresh_expires_at: Duration,
}

/// The state of an issued access token or refresh token, which decides the errcode of a call with
/// that token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UserTokenStatus {
    /// The token belongs to the user's current pair.
    Current,
    /// A newer sign-in or a rotation of the refresh token replaced the token.
    Superseded,
    /// The token had expired when a refresh replaced it.
    Expired,
    /// The token became invalid because the user changed the WeChat password.
    PasswordChanged,
}

#[derive(Debug)]
struct IssuedUserToken {
    openid: String,
    status: UserTokenStatus,
}

/// The issuer of login codes and of users' tokens of one app. A user has at most one current pair of
/// tokens.
#[derive(Debug)]
pub(super) struct UserTokenIssuer {
    codes: HashMap<String, AuthorizationCode>,
    pairs: HashMap<String, TokenPair>,
    access_tokens: HashMap<String, IssuedUserToken>,
    refresh_tokens: HashMap<String, IssuedUserToken>,
    pub(super) issue_log: IssueLog,
}

impl UserTokenIssuer {
    pub(super) fn new(app_id: &str) -> Self {
        Self {
            codes: HashMap::new(),
            pairs: HashMap::new(),
            access_tokens: HashMap::new(),
            refresh_tokens: HashMap::new(),
            issue_log: IssueLog::new(app_id),
        }
    }

    pub(super) fn issue_code(
        &mut self,
        authorization: Authorization,
        lifetime: Duration,
        now: Duration,
    ) -> String {
        if self.codes.len() >= 1024 && self.codes.len().is_power_of_two() {
            self.codes
                .retain(|_, code| now < code.expires_at.saturating_add(CODE_RETENTION));
        }
        let code = random::code();
        self.issue_log
            .record(IssuedKind::Code, &authorization.openid, [&*code], now);
        self.codes.insert(
            code.clone(),
            AuthorizationCode {
                authorization,
                expires_at: now.saturating_add(lifetime),
                used: false,
            },
        );
        code
    }

    /// Handles `sns/oauth2/access_token`: exchanges a code, which works once, for a pair of tokens.
    /// The new pair invalidates the user's former pair. `component` is the third-party platform that
    /// calls on behalf of the app.
    pub(super) fn exchange(
        &mut self,
        code: &str,
        component: Option<AppIndex>,
        settings: &SimulatorSettings,
        now: Duration,
    ) -> Result<TokenPair, WechatErrorReply> {
        let code = self
            .codes
            .get_mut(code)
            .filter(|code| code.authorization.component == component)
            .ok_or(WechatErrorReply::new(40029))?;
        if code.used {
            return Err(WechatErrorReply::new(40163));
        }
        if now >= code.expires_at {
            return Err(WechatErrorReply::new(40029));
        }
        code.used = true;
        let authorization = code.authorization.clone();
        Ok(self.issue_pair(authorization, settings, now))
    }

    /// Issues a pair of tokens, which invalidates the user's former pair.
    pub(super) fn issue_pair(
        &mut self,
        authorization: Authorization,
        settings: &SimulatorSettings,
        now: Duration,
    ) -> TokenPair {
        self.revoke_pair(&authorization.openid, UserTokenStatus::Superseded);
        let pair = TokenPair {
            access_token: random::token(),
            access_expires_at: now.saturating_add(settings.user_token_lifetime),
            refresh_token: random::token(),
            refresh_expires_at: now.saturating_add(settings.refresh_token_lifetime),
            authorization,
        };
        self.activate_pair(&pair, IssuedKind::SignIn, now);
        pair
    }

    /// Makes this the current pair of its user, and records the issue in the log.
    fn activate_pair(&mut self, pair: &TokenPair, kind: IssuedKind, now: Duration) {
        let secrets = [&*pair.access_token, &*pair.refresh_token];
        self.issue_log
            .record(kind, &pair.authorization.openid, secrets, now);
        let issued = || IssuedUserToken {
            openid: pair.authorization.openid.clone(),
            status: UserTokenStatus::Current,
        };
        self.access_tokens
            .insert(pair.access_token.clone(), issued());
        self.refresh_tokens
            .insert(pair.refresh_token.clone(), issued());
        self.pairs
            .insert(pair.authorization.openid.clone(), pair.clone());
    }

    fn revoke_pair(&mut self, openid: &str, status: UserTokenStatus) {
        let Some(pair) = self.pairs.remove(openid) else {
            return;
        };
        set_status(&mut self.access_tokens, &pair.access_token, status);
        set_status(&mut self.refresh_tokens, &pair.refresh_token, status);
    }

    /// Invalidates the user's pair, so that calls with its access token or refresh token get 42007.
    pub(super) fn change_password(&mut self, openid: &str) {
        self.revoke_pair(openid, UserTokenStatus::PasswordChanged);
    }

    /// Handles `sns/oauth2/refresh_token`: extends the access token before its expiry, and issues a
    /// new access token after its expiry. `component` is the third-party platform that calls on behalf
    /// of the app.
    pub(super) fn refresh(
        &mut self,
        refresh_token: &str,
        component: Option<AppIndex>,
        settings: &SimulatorSettings,
        now: Duration,
    ) -> Result<TokenPair, WechatErrorReply> {
        let issued = self
            .refresh_tokens
            .get(refresh_token)
            .ok_or(WechatErrorReply::new(40030))?;
        match issued.status {
            UserTokenStatus::Current => {}
            UserTokenStatus::Superseded => return Err(WechatErrorReply::new(40030)),
            UserTokenStatus::Expired => return Err(WechatErrorReply::new(42002)),
            UserTokenStatus::PasswordChanged => return Err(WechatErrorReply::new(42007)),
        }
        let Some(mut pair) = self.pairs.get(&issued.openid).cloned() else {
            return Err(WechatErrorReply::new(40030));
        };
        if pair.authorization.component != component {
            return Err(WechatErrorReply::new(40030));
        }
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

    /// Returns the pair to which this valid access token belongs. Returns 40003 if the token
    /// belongs to a user other than `openid`.
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
            UserTokenStatus::Current => {}
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

    /// Returns `true` if a user was ever issued this access token by this app. A call for an account
    /// with such a token gets the errcode for the wrong kind of token.
    pub(super) fn was_issued(&self, access_token: &str) -> bool {
        self.access_tokens.contains_key(access_token)
    }
}

fn set_status(tokens: &mut HashMap<String, IssuedUserToken>, token: &str, status: UserTokenStatus) {
    if let Some(issued) = tokens.get_mut(token) {
        issued.status = status;
    }
}
