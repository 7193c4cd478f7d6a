//! The rules of third-party platforms: tickets, component tokens, and the authorizations of accounts.

use std::{net::IpAddr, time::Duration};

use super::{
    authorizer::{AuthorizerGrant, DEFAULT_PERMISSIONS},
    push::SimulatedPush,
    state::{AuthorizationCode, PlatformState, PreAuthCode},
};
use crate::simulator::{
    account_tokens::AccountTokenResult, app_index::AppIndex, apps::AppKind,
    error_reply::WechatErrorReply, issue_log::IssuedKind, random, state::SimulatedWechat,
};

/// The errcode of calls with the tokens of an account that has withdrawn its authorization.
const NOT_AUTHORIZED: i64 = 61003;

impl SimulatedWechat {
    /// Adds a third-party platform, or replaces the AppSecret of the one with this AppID.
    pub(in crate::simulator) fn add_platform(
        &mut self,
        app_id: String,
        secret: String,
    ) -> AppIndex {
        let index = self
            .apps
            .insert_or_replace(app_id, secret, AppKind::Platform);
        let now = self.now();
        self.platforms.get_or_new(index, now);
        index
    }

    /// Returns the state of this platform.
    pub(in crate::simulator) fn platform(&mut self, component: AppIndex) -> &mut PlatformState {
        let now = self.now();
        self.platforms.get_or_new(component, now)
    }

    /// Returns the third-party platform with this AppID.
    pub(in crate::simulator) fn find_platform(
        &self,
        app_id: Option<&str>,
    ) -> Result<AppIndex, WechatErrorReply> {
        let app = self.find_app(app_id)?;
        match self.apps[app].kind {
            AppKind::Platform => Ok(app),
            AppKind::Account | AppKind::Website => Err(WechatErrorReply::new(61011)),
        }
    }

    /// Checks that calls for a third-party platform may come from this address.
    pub(in crate::simulator) fn check_registered_ip(
        &self,
        ip: IpAddr,
    ) -> Result<(), WechatErrorReply> {
        self.check_ip(ip)
            .map_err(|_| WechatErrorReply::ip_not_registered(ip.to_canonical()))
    }

    /// Returns the third-party platform to which this component token belongs. Another kind of token
    /// gets 61014.
    pub(in crate::simulator) fn check_component_token(
        &self,
        token: Option<&str>,
    ) -> Result<AppIndex, WechatErrorReply> {
        let token = token.ok_or(WechatErrorReply::new(41001))?;
        let app = self
            .app_of_token(token)
            .ok_or_else(|| WechatErrorReply::unknown_token(token))?;
        if self.apps[app].kind != AppKind::Platform {
            return Err(WechatErrorReply::new(61014));
        }
        self.apps[app]
            .account_tokens
            .check_token(token, self.now())?;
        Ok(app)
    }

    /// Handles `api_component_token`: issues a component token for a recent ticket.
    pub(in crate::simulator) fn issue_component_token(
        &mut self,
        component: AppIndex,
        ticket: Option<&str>,
    ) -> Result<AccountTokenResult, WechatErrorReply> {
        let now = self.now();
        let lifetime = self.settings.verify_ticket_lifetime;
        let tickets = &self.platform(component).tickets;
        let issued = tickets.iter().find(|(known, _)| Some(&**known) == ticket);
        let (_, issued_at) = issued.ok_or(WechatErrorReply::new(61006))?;
        if now >= issued_at.saturating_add(lifetime) {
            return Err(WechatErrorReply::new(61005));
        }
        let issuer = &mut self.apps[component].account_tokens;
        let result = issuer.component_token(&self.settings, now)?;
        self.record_token(component, &result.access_token);
        Ok(result)
    }

    /// Handles `api_start_push_ticket`: pushes a ticket now and from now on. Returns `true` if the
    /// pushes were stopped.
    pub(in crate::simulator) fn start_ticket_pushes(&mut self, component: AppIndex) -> bool {
        let platform = self.platform(component);
        let was_stopped = !std::mem::replace(&mut platform.pushes_tickets, true);
        self.schedule_push(component, &SimulatedPush::ticket(), Duration::ZERO);
        was_stopped
    }

    pub(in crate::simulator) fn issue_pre_auth_code(&mut self, component: AppIndex) -> String {
        let now = self.now();
        let lifetime = self.settings.pre_auth_code_lifetime;
        let code = random::platform_secret("preauthcode");
        let codes = &mut self.platform(component).pre_auth_codes;
        codes.retain(|_, code| now < code.expires_at);
        codes.insert(
            code.clone(),
            PreAuthCode {
                expires_at: now.saturating_add(lifetime),
                used: false,
            },
        );
        self.log_secret(component, IssuedKind::PreAuthCode, &code);
        code
    }

    /// Returns `true` if an authorize page may open with this pre_auth_code.
    pub(in crate::simulator) fn is_pre_auth_code_valid(
        &self,
        component: AppIndex,
        code: &str,
    ) -> bool {
        let platform = self.platforms.get(component);
        platform
            .and_then(|platform| platform.pre_auth_codes.get(code))
            .is_some_and(|code| !code.used && self.now() < code.expires_at)
    }

    /// Authorizes the platform for an account. An earlier authorization's access token and refresh
    /// token end at once. Returns the code of the return, which the event contains too unless the
    /// platform has separate codes.
    pub(in crate::simulator) fn authorize_account(
        &mut self,
        component: AppIndex,
        account: AppIndex,
        permissions: Option<Vec<u32>>,
        pre_auth_code: Option<&str>,
    ) -> String {
        let now = self.now();
        let expires_at = now.saturating_add(self.settings.authorization_code_lifetime);
        let permissions = permissions.unwrap_or_else(|| DEFAULT_PERMISSIONS.to_vec());
        let code = random::platform_secret("queryauthcode");
        let platform = self.platform(component);
        if let Some(used) = pre_auth_code.and_then(|code| platform.pre_auth_codes.get_mut(code)) {
            used.used = true;
        }
        let event_code = if platform.separate_codes {
            random::platform_secret("queryauthcode")
        } else {
            code.clone()
        };
        let authorizer = platform.authorizer_or_new(account);
        let former = authorizer.authorize(permissions, now);
        authorizer.event_code.clone_from(&event_code);
        authorizer.event_code_expires_at = expires_at;
        authorizer.event_pre_auth_code =
            pre_auth_code.map_or_else(|| random::platform_secret("preauthcode"), ToOwned::to_owned);
        let generation = authorizer.generation;
        let refresh_token = authorizer.refresh_token.clone();
        for code in [&code, &event_code] {
            platform.codes.insert(
                code.clone(),
                AuthorizationCode {
                    account,
                    generation,
                    expires_at,
                    used: false,
                },
            );
        }
        if let Some(former) = former {
            self.apps[account]
                .account_tokens
                .revoke(&former, 40001, now);
        }
        self.log_secret(component, IssuedKind::AuthorizationCode, &code);
        if event_code != code {
            self.log_secret(component, IssuedKind::AuthorizationCode, &event_code);
        }
        self.log_secret(
            component,
            IssuedKind::AuthorizerRefreshToken,
            &refresh_token,
        );
        code
    }

    /// Withdraws the authorization of an account. Returns `false` if the account has none.
    pub(in crate::simulator) fn revoke_account(
        &mut self,
        component: AppIndex,
        account: AppIndex,
    ) -> bool {
        let now = self.now();
        let authorizer = self.platform(component).authorizer_mut(account);
        let Some(authorizer) = authorizer.filter(|authorizer| authorizer.is_authorized) else {
            return false;
        };
        if let Some(token) = authorizer.revoke() {
            let tokens = &mut self.apps[account].account_tokens;
            tokens.revoke(&token, NOT_AUTHORIZED, now);
        }
        true
    }

    /// Handles `api_query_auth`: exchanges the code of an authorization, which works once.
    pub(in crate::simulator) fn query_auth(
        &mut self,
        component: AppIndex,
        code: &str,
    ) -> Result<AuthorizerGrant, WechatErrorReply> {
        let now = self.now();
        let platform = self.platform(component);
        let issued = platform.codes.get_mut(code);
        let issued = issued.ok_or(WechatErrorReply::new(61009))?;
        if issued.used || now >= issued.expires_at {
            return Err(WechatErrorReply::new(61010));
        }
        let (account, generation) = (issued.account, issued.generation);
        let is_current = platform
            .authorizer(account)
            .is_some_and(|known| known.is_authorized && known.generation == generation);
        if !is_current {
            return Err(WechatErrorReply::new(61010));
        }
        if let Some(issued) = platform.codes.get_mut(code) {
            issued.used = true;
        }
        self.issue_grant(component, account)
    }

    /// Handles `api_authorizer_token`: exchanges the refresh token of an account for an access token.
    pub(in crate::simulator) fn refresh_authorizer(
        &mut self,
        component: AppIndex,
        account: AppIndex,
        refresh_token: &str,
    ) -> Result<AuthorizerGrant, WechatErrorReply> {
        let now = self.now();
        let settings = self.settings.clone();
        let authorizer = self.platform(component).authorizer_mut(account);
        let authorizer = authorizer.ok_or(WechatErrorReply::new(NOT_AUTHORIZED))?;
        if !authorizer.accepts(refresh_token, now) {
            return Err(WechatErrorReply::new(61023));
        }
        self.apps[account]
            .account_tokens
            .count_authorizer_call(&settings, now)?;
        if settings.rotate_authorizer_refresh_token
            && let Some(authorizer) = self.platform(component).authorizer_mut(account)
        {
            authorizer.rotate_refresh_token(&settings, now);
            let refresh_token = authorizer.refresh_token.clone();
            self.log_secret(
                component,
                IssuedKind::AuthorizerRefreshToken,
                &refresh_token,
            );
        }
        self.issue_grant(component, account)
    }

    /// Issues an access token of an account that is authorized.
    fn issue_grant(
        &mut self,
        component: AppIndex,
        account: AppIndex,
    ) -> Result<AuthorizerGrant, WechatErrorReply> {
        let now = self.now();
        let settings = self.settings.clone();
        let authorizer = self.platform(component).authorizer_mut(account);
        let authorizer = authorizer.ok_or(WechatErrorReply::new(NOT_AUTHORIZED))?;
        authorizer.is_exchanged = true;
        let former = authorizer.access_token.take();
        let refresh_token = authorizer.refresh_token.clone();
        let permissions = authorizer.permissions.clone();
        let tokens = &mut self.apps[account].account_tokens;
        let token = tokens.authorizer_token(former.as_deref(), &settings, now);
        self.record_token(account, &token.access_token);
        if let Some(authorizer) = self.platform(component).authorizer_mut(account) {
            authorizer.access_token = Some(token.access_token.clone());
        }
        Ok(AuthorizerGrant {
            account,
            access_token: token.access_token,
            expires_in: token.expires_in,
            refresh_token,
            permissions,
        })
    }

    pub(super) fn log_secret(&mut self, component: AppIndex, kind: IssuedKind, secret: &str) {
        let now = self.now();
        let log = &mut self.apps[component].account_tokens.issue_log;
        log.record(kind, "", [secret], now);
    }

    /// Returns the account with this AppID.
    pub(in crate::simulator) fn known_account(&self, app_id: &str) -> Result<AppIndex, String> {
        let app = self.apps.find(app_id);
        app.filter(|app| self.apps[*app].kind == AppKind::Account)
            .ok_or_else(|| format!("the simulator has no account {app_id}"))
    }

    /// Returns the account with this AppID. Adds one with a random AppSecret if no app has it.
    ///
    /// # Errors
    /// Returns a sentence if a website app or a third-party platform has this AppID.
    pub(in crate::simulator) fn account_or_new(
        &mut self,
        app_id: &str,
    ) -> Result<AppIndex, String> {
        if app_id.is_empty() {
            return Err("the AppID of the account is empty".to_owned());
        }
        if self.apps.find(app_id).is_none() {
            let secret = random::code();
            self.apps
                .insert_or_replace(app_id.to_owned(), secret, AppKind::Account);
        }
        self.known_account(app_id)
    }
}
