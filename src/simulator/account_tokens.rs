//! The access tokens and tickets of a simulated account, issued and checked by WeChat's rules
//! (`/cgi-bin`).

use std::{collections::HashMap, time::Duration};

use super::{
    error_reply::WechatErrorReply,
    issue_log::{IssueLog, IssuedKind},
    random,
    settings::SimulatorSettings,
    window_counter::WindowCounter,
};

/// Maximum number of calls of `cgi-bin/stable_token` per minute: 10,000, as its documentation says.
const STABLE_CALLS_PER_MINUTE: u64 = 10_000;
/// Maximum number of forced refreshes per day: 20, as the documentation of `cgi-bin/stable_token`
/// says.
const FORCED_REFRESHES_PER_DAY: u64 = 20;
/// Minimum time between two forced refreshes: 30 seconds, as the documentation of
/// `cgi-bin/stable_token` says. A forced refresh that comes too early returns the current token.
const MIN_FORCED_REFRESH_INTERVAL: Duration = Duration::from_secs(30);
/// Maximum number of calls of `clear_quota` and `clear_quota/v2` together per month: 10, as the
/// documentation says. The simulator counts 30 days as a month.
const QUOTA_CLEARS_PER_MONTH: u64 = 10;

/// The current token or ticket of one kind, with its expiry on the simulator's clock.
#[derive(Debug, Clone)]
struct ActiveSecret {
    value: String,
    expires_at: Duration,
}

/// The time at which an issued access token of the account ends, and the reason why it ends.
#[derive(Debug, Clone, Copy)]
struct AccountTokenStatus {
    valid_until: Duration,
    /// The errcode of calls with this token from `valid_until` on: [`EXPIRED`] if the token expires
    /// by its age, [`SUPERSEDED`] if a newer token has replaced it.
    errcode: i64,
}

/// The errcode of calls with a token that has expired by its age.
const EXPIRED: i64 = 42001;
/// The errcode of calls with a token that a newer one has replaced.
const SUPERSEDED: i64 = 40001;

/// The token and its remaining lifetime, which a call of `cgi-bin/token` or `cgi-bin/stable_token`
/// returns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AccountTokenResult {
    pub(super) access_token: String,
    pub(super) expires_in: Duration,
}

/// The issuer of the account's access tokens and tickets. A token of `cgi-bin/token` and a token of
/// `cgi-bin/stable_token` are valid independently of each other.
#[derive(Debug)]
pub(super) struct AccountTokenIssuer {
    plain: Option<ActiveSecret>,
    stable: Option<ActiveSecret>,
    /// The access token that `cgi-bin/token` or `cgi-bin/stable_token` returned last.
    latest: Option<String>,
    issued: HashMap<String, AccountTokenStatus>,
    tickets: HashMap<String, ActiveSecret>,
    forced_at: Option<Duration>,
    forced_refreshes: WindowCounter,
    plain_calls: WindowCounter,
    stable_calls: WindowCounter,
    stable_calls_per_minute: WindowCounter,
    quota_clears: WindowCounter,
    #[cfg(feature = "platform")]
    authorizer_calls: WindowCounter,
    pub(super) issue_log: IssueLog,
}

impl AccountTokenIssuer {
    pub(super) fn new(app_id: &str) -> Self {
        Self {
            plain: None,
            stable: None,
            latest: None,
            issued: HashMap::new(),
            tickets: HashMap::new(),
            forced_at: None,
            forced_refreshes: WindowCounter::default(),
            plain_calls: WindowCounter::default(),
            stable_calls: WindowCounter::default(),
            stable_calls_per_minute: WindowCounter::default(),
            quota_clears: WindowCounter::default(),
            #[cfg(feature = "platform")]
            authorizer_calls: WindowCounter::default(),
            issue_log: IssueLog::new(app_id),
        }
    }

    /// Handles `cgi-bin/token`: issues a new token. The former token remains valid for the time of
    /// the setting `account_token_overlap`.
    pub(super) fn token(
        &mut self,
        settings: &SimulatorSettings,
        now: Duration,
    ) -> Result<AccountTokenResult, WechatErrorReply> {
        self.plain_calls
            .try_count_daily(settings.token_daily_quota, now)?;
        if let Some(old) = self.plain.take() {
            self.end_at(
                &old.value,
                now.saturating_add(settings.account_token_overlap),
                SUPERSEDED,
            );
        }
        let new = self.issue(settings.account_token_lifetime, now);
        self.plain = Some(new.clone());
        Ok(self.return_as_latest(new, now))
    }

    /// Handles `cgi-bin/stable_token`: returns the current token. Issues a new token in the last
    /// minutes of the current token and at a forced refresh.
    pub(super) fn stable_token(
        &mut self,
        force_refresh: bool,
        settings: &SimulatorSettings,
        now: Duration,
    ) -> Result<AccountTokenResult, WechatErrorReply> {
        self.stable_calls_per_minute
            .try_count_per_minute(STABLE_CALLS_PER_MINUTE, now)?;
        self.stable_calls
            .try_count_daily(settings.stable_token_daily_quota, now)?;
        let soon = self
            .forced_at
            .is_some_and(|at| now < at + MIN_FORCED_REFRESH_INTERVAL);
        if force_refresh && !soon {
            self.forced_refreshes
                .try_count_daily(FORCED_REFRESHES_PER_DAY, now)?;
            self.forced_at = Some(now);
            if let Some(old) = self.stable.take() {
                self.end_at(&old.value, now, SUPERSEDED);
            }
        }
        // The last minutes are at most half of the lifetime. Otherwise a token with a lifetime of
        // five minutes would always be in its last minutes, and each call would issue a new token.
        let last_minutes = settings
            .account_token_overlap
            .min(settings.account_token_lifetime / 2);
        let current = match self.stable.take() {
            Some(current) if now.saturating_add(last_minutes) < current.expires_at => current,
            // The old token works until it expires, because nothing marks it as superseded.
            _ => self.issue(settings.account_token_lifetime, now),
        };
        self.stable = Some(current.clone());
        Ok(self.return_as_latest(current, now))
    }

    /// Handles `api_component_token`: issues a new component token. The former one remains valid for
    /// the time of the setting `component_token_overlap`.
    #[cfg(feature = "platform")]
    pub(super) fn component_token(
        &mut self,
        settings: &SimulatorSettings,
        now: Duration,
    ) -> Result<AccountTokenResult, WechatErrorReply> {
        self.plain_calls
            .try_count_daily(settings.component_token_daily_quota, now)?;
        if let Some(old) = self.plain.take() {
            let end = now.saturating_add(settings.component_token_overlap);
            self.end_at(&old.value, end, SUPERSEDED);
        }
        let new = self.issue(settings.component_token_lifetime, now);
        self.plain = Some(new.clone());
        Ok(self.return_as_latest(new, now))
    }

    /// Issues a token with which a third-party platform calls for the account. The token before it
    /// remains valid for the time of the setting `account_token_overlap`.
    #[cfg(feature = "platform")]
    pub(super) fn authorizer_token(
        &mut self,
        former: Option<&str>,
        settings: &SimulatorSettings,
        now: Duration,
    ) -> AccountTokenResult {
        if let Some(former) = former {
            let end = now.saturating_add(settings.account_token_overlap);
            self.end_at(former, end, SUPERSEDED);
        }
        let new = self.issue(settings.account_token_lifetime, now);
        AccountTokenResult {
            access_token: new.value,
            expires_in: new.expires_at.saturating_sub(now),
        }
    }

    /// Counts a call of `api_authorizer_token`, which has the daily quota of `cgi-bin/token`.
    #[cfg(feature = "platform")]
    pub(super) fn count_authorizer_call(
        &mut self,
        settings: &SimulatorSettings,
        now: Duration,
    ) -> Result<(), WechatErrorReply> {
        self.authorizer_calls
            .try_count_daily(settings.token_daily_quota, now)
    }

    /// Ends a token of a third-party platform at once. Calls with it then get `errcode`.
    #[cfg(feature = "platform")]
    pub(super) fn revoke(&mut self, token: &str, errcode: i64, now: Duration) {
        match self.issued.get_mut(token) {
            Some(issued) if now < issued.valid_until || errcode == 61003 => {
                *issued = AccountTokenStatus {
                    valid_until: now,
                    errcode,
                };
            }
            _ => {}
        }
    }

    fn issue(&mut self, lifetime: Duration, now: Duration) -> ActiveSecret {
        let expires_at = now.saturating_add(lifetime);
        let value = random::token();
        self.issue_log
            .record(IssuedKind::AccountToken, "", [&*value], now);
        self.issued.insert(
            value.clone(),
            AccountTokenStatus {
                valid_until: expires_at,
                errcode: EXPIRED,
            },
        );
        ActiveSecret { value, expires_at }
    }

    fn return_as_latest(&mut self, token: ActiveSecret, now: Duration) -> AccountTokenResult {
        self.latest = Some(token.value.clone());
        AccountTokenResult {
            access_token: token.value,
            expires_in: token.expires_at.saturating_sub(now),
        }
    }

    /// Ends the token at `at`, unless it ends earlier. Calls with it then get `errcode`.
    fn end_at(&mut self, token: &str, at: Duration, errcode: i64) {
        if let Some(issued) = self.issued.get_mut(token)
            && at < issued.valid_until
        {
            *issued = AccountTokenStatus {
                valid_until: at,
                errcode,
            };
        }
    }

    /// Checks that this access token is valid for this account. A superseded token gets 40001, and
    /// an expired token 42001.
    pub(super) fn check_token(
        &self,
        access_token: &str,
        now: Duration,
    ) -> Result<(), WechatErrorReply> {
        match self.issued.get(access_token) {
            None => Err(WechatErrorReply::unknown_token(access_token)),
            Some(issued) if now < issued.valid_until => Ok(()),
            Some(issued) => Err(WechatErrorReply::new(issued.errcode)),
        }
    }

    /// Returns `true` if the account was ever issued this access token, even if it has expired
    /// since.
    pub(super) fn was_issued(&self, access_token: &str) -> bool {
        self.issued.contains_key(access_token)
    }

    pub(super) fn latest(&self) -> Option<&str> {
        self.latest.as_deref()
    }

    /// Returns the current ticket of this kind, such as `jsapi`. Issues a new ticket if the current
    /// one has expired or none exists.
    pub(super) fn ticket(
        &mut self,
        kind: &str,
        settings: &SimulatorSettings,
        now: Duration,
    ) -> String {
        match self.tickets.get(kind) {
            Some(ticket) if now < ticket.expires_at => ticket.value.clone(),
            _ => {
                let value = random::ticket();
                self.issue_log
                    .record(IssuedKind::Ticket, "", [&*value], now);
                let expires_at = now.saturating_add(settings.ticket_lifetime);
                self.tickets.insert(
                    kind.to_owned(),
                    ActiveSecret {
                        value: value.clone(),
                        expires_at,
                    },
                );
                value
            }
        }
    }

    /// Handles `clear_quota` and `clear_quota/v2`: resets the counts of calls for tokens. Returns
    /// 48006 if the month already has [`QUOTA_CLEARS_PER_MONTH`] calls.
    pub(super) fn clear_quota(&mut self, now: Duration) -> Result<(), WechatErrorReply> {
        self.quota_clears.try_count(
            now.as_secs() / (30 * 24 * 3600),
            QUOTA_CLEARS_PER_MONTH,
            48006,
        )?;
        self.plain_calls.clear();
        self.stable_calls.clear();
        self.stable_calls_per_minute.clear();
        #[cfg(feature = "platform")]
        self.authorizer_calls.clear();
        Ok(())
    }
}
