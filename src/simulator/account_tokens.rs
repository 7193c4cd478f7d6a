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
    /// `true` if a newer token has replaced this token: after `valid_until`, a call with this token
    /// gets 40001. `false` if this token expires by its age: a call then gets 42001.
    superseded: bool,
}

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
            self.supersede(
                &old.value,
                now.saturating_add(settings.account_token_overlap),
            );
        }
        let new = self.issue(settings, now);
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
                self.supersede(&old.value, now);
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
            _ => self.issue(settings, now),
        };
        self.stable = Some(current.clone());
        Ok(self.return_as_latest(current, now))
    }

    fn issue(&mut self, settings: &SimulatorSettings, now: Duration) -> ActiveSecret {
        let expires_at = now.saturating_add(settings.account_token_lifetime);
        let value = random::token();
        self.issue_log
            .record(IssuedKind::AccountToken, "", [&*value], now);
        self.issued.insert(
            value.clone(),
            AccountTokenStatus {
                valid_until: expires_at,
                superseded: false,
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

    fn supersede(&mut self, token: &str, at: Duration) {
        if let Some(issued) = self.issued.get_mut(token)
            && at < issued.valid_until
        {
            *issued = AccountTokenStatus {
                valid_until: at,
                superseded: true,
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
            Some(issued) if issued.superseded => Err(WechatErrorReply::new(40001)),
            Some(_) => Err(WechatErrorReply::new(42001)),
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
        Ok(())
    }
}
