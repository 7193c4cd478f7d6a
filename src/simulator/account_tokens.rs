//! The rules for the account's tokens and tickets (`/cgi-bin`).

use std::{collections::HashMap, time::Duration};

use super::{
    error_reply::WechatErrorReply,
    issue_log::{IssueLog, IssuedKind},
    random,
    settings::SimulatorSettings,
    window_counter::WindowCounter,
};

/// Maximum number of calls of `cgi-bin/stable_token` per minute (its documentation).
const STABLE_CALLS_PER_MINUTE: u64 = 10_000;
/// Maximum number of forced refreshes per day (documentation of `cgi-bin/stable_token`).
const FORCED_REFRESHES_PER_DAY: u64 = 20;
/// Minimum time between two forced refreshes that have an effect (documentation of
/// `cgi-bin/stable_token`).
const MIN_FORCED_REFRESH_INTERVAL: Duration = Duration::from_secs(30);
/// Maximum number of calls of `clear_quota` per month, both versions together (its documentation).
/// A month has 30 days here.
const QUOTA_CLEARS_PER_MONTH: u64 = 10;

/// The token or ticket that was issued last.
#[derive(Debug, Clone)]
struct ActiveSecret {
    value: String,
    expires_at: Duration,
}

/// The state of a token that was issued.
#[derive(Debug, Clone, Copy)]
struct AccountTokenStatus {
    valid_until: Duration,
    /// `true` if a newer token has replaced this one, so that it gets 40001 once it is no longer
    /// valid. `false` if it expires by its age, and then gets 42001.
    superseded: bool,
}

/// The reply of a call for a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AccountTokenResult {
    pub(super) access_token: String,
    pub(super) expires_in: Duration,
}

/// The tokens of `cgi-bin/token`, those of `cgi-bin/stable_token`, and the tickets. The two kinds of
/// tokens are independent of each other.
#[derive(Debug, Default)]
pub(super) struct AccountTokenIssuer {
    plain: Option<ActiveSecret>,
    stable: Option<ActiveSecret>,
    /// The token that either call returned last.
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
    /// `cgi-bin/token`: each call issues a new token. The former token remains valid for the
    /// overlap.
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

    /// `cgi-bin/stable_token`: returns the same token until its last minutes or a forced refresh.
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
        // At most half of the lifetime. Otherwise all of a lifetime of five minutes would count as
        // the last minutes, and each call would return another token.
        let last_minutes = settings
            .account_token_overlap
            .min(settings.account_token_lifetime / 2);
        let current = match self.stable.take() {
            Some(current) if now.saturating_add(last_minutes) < current.expires_at => current,
            // The old token is not superseded: it works until it expires.
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

    /// Checks that a call for the account may use this token.
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

    /// Returns `true` if this was ever a token of the account.
    pub(super) fn was_issued(&self, access_token: &str) -> bool {
        self.issued.contains_key(access_token)
    }

    pub(super) fn latest(&self) -> Option<&str> {
        self.latest.as_deref()
    }

    /// Returns the ticket of this kind: the same one until it expires.
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

    /// `clear_quota`, both versions: resets the counts of calls for tokens.
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
