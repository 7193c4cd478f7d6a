//! An account that has authorized a third-party platform, and what the platform may fetch for it.

use std::time::Duration;

use crate::simulator::{app_index::AppIndex, random, settings::SimulatorSettings};

/// The permission sets of an authorization that names none: message management, user management, and
/// web pages (消息管理, 用户管理, 网页服务).
pub(super) const DEFAULT_PERMISSIONS: [u32; 3] = [1, 2, 4];

/// The reply of `api_query_auth` and of `api_authorizer_token`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::simulator) struct AuthorizerGrant {
    pub(in crate::simulator) account: AppIndex,
    pub(in crate::simulator) access_token: String,
    pub(in crate::simulator) expires_in: Duration,
    pub(in crate::simulator) refresh_token: String,
    pub(in crate::simulator) permissions: Vec<u32>,
}

/// One account that has authorized the platform, now or formerly.
#[derive(Debug)]
pub(in crate::simulator) struct Authorizer {
    pub(in crate::simulator) account: AppIndex,
    /// `false` after the account has withdrawn its authorization.
    pub(in crate::simulator) is_authorized: bool,
    /// The number of authorizations so far. A code of a former authorization has expired.
    pub(super) generation: u64,
    pub(in crate::simulator) refresh_token: String,
    /// The refresh token that a rotation has replaced, and the end of its grace.
    former_refresh_token: Option<(String, Duration)>,
    pub(in crate::simulator) access_token: Option<String>,
    pub(in crate::simulator) authorized_at: Duration,
    /// `true` once the platform has exchanged a code. Until then, `api_get_authorizer_list` returns an
    /// empty refresh token.
    pub(in crate::simulator) is_exchanged: bool,
    pub(in crate::simulator) permissions: Vec<u32>,
    /// The code and the pre_auth_code that the event contains.
    pub(super) event_code: String,
    pub(super) event_pre_auth_code: String,
    pub(super) event_code_expires_at: Duration,
    /// `true` if the account was authorized before, so that the event is `updateauthorized`.
    pub(super) is_update: bool,
}

impl Authorizer {
    pub(super) fn new(account: AppIndex) -> Self {
        Self {
            account,
            is_authorized: false,
            generation: 0,
            refresh_token: String::new(),
            former_refresh_token: None,
            access_token: None,
            authorized_at: Duration::ZERO,
            is_exchanged: false,
            permissions: Vec::new(),
            event_code: String::new(),
            event_pre_auth_code: String::new(),
            event_code_expires_at: Duration::ZERO,
            is_update: false,
        }
    }

    /// Starts a new authorization, which has another refresh token. Returns the access token of the
    /// authorization before, which ends at once.
    pub(super) fn authorize(&mut self, permissions: Vec<u32>, now: Duration) -> Option<String> {
        self.is_update = self.is_authorized;
        self.is_authorized = true;
        self.generation += 1;
        self.refresh_token = random::platform_secret("refreshtoken");
        self.former_refresh_token = None;
        self.authorized_at = now;
        self.permissions = permissions;
        self.access_token.take()
    }

    /// Ends the authorization. Returns the access token, which ends at once.
    pub(super) fn revoke(&mut self) -> Option<String> {
        self.is_authorized = false;
        self.is_exchanged = false;
        self.generation += 1;
        self.refresh_token.clear();
        self.former_refresh_token = None;
        self.access_token.take()
    }

    /// Returns `true` if a call of `api_authorizer_token` may use this refresh token.
    pub(super) fn accepts(&self, refresh_token: &str, now: Duration) -> bool {
        let is_former = |(former, end): &(String, Duration)| former == refresh_token && now < *end;
        self.is_authorized
            && !refresh_token.is_empty()
            && (self.refresh_token == refresh_token
                || self.former_refresh_token.as_ref().is_some_and(is_former))
    }

    pub(super) fn rotate_refresh_token(&mut self, settings: &SimulatorSettings, now: Duration) {
        let end = now.saturating_add(settings.authorizer_refresh_token_grace);
        let next = random::platform_secret("refreshtoken");
        let former = std::mem::replace(&mut self.refresh_token, next);
        self.former_refresh_token = Some((former, end));
    }
}
