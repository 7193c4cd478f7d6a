//! The rules of the account's own tokens and tickets (`/cgi-bin`).

use std::{collections::HashMap, time::Duration};

use super::{
    error_reply::WechatErrorReply,
    issue_log::{IssueLog, IssuedKind},
    random,
    settings::SimulatorSettings,
    window_counter::WindowCounter,
};

/// `cgi-bin/stable_token` per minute (its documentation).
const STABLE_CALLS_PER_MINUTE: u64 = 10_000;
/// Forced refreshes per day, and the least time between two that have an effect (documentation of
/// `cgi-bin/stable_token`).
const FORCED_REFRESHES_PER_DAY: u64 = 20;
const MIN_FORCED_REFRESH_INTERVAL: Duration = Duration::from_secs(30);
/// `clear_quota` per month, both versions together (its documentation). The month is taken to be
/// 30 days.
const QUOTA_CLEARS_PER_MONTH: u64 = 10;

/// A token, a ticket: as handed out last.
#[derive(Debug, Clone)]
struct ActiveSecret {
    value: String,
    expires_at: Duration,
}

/// A token that was handed out at some time.
#[derive(Debug, Clone, Copy)]
struct AccountTokenStatus {
    valid_until: Duration,
    /// Whether a newer token, and not its age, is what ends it: 40001 rather than 42001.
    superseded: bool,
}

/// What a call for a token answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AccountTokenResult {
    pub(super) access_token: String,
    pub(super) expires_in: Duration,
}

/// The tokens of `cgi-bin/token` and of `cgi-bin/stable_token`, which know nothing of each other,
/// and the tickets.
#[derive(Debug, Default)]
pub(super) struct AccountTokenIssuer {
    plain: Option<ActiveSecret>,
    stable: Option<ActiveSecret>,
    /// The one handed out last, by either call.
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
    /// `cgi-bin/token`: each call hands out a new token, and the last one lives on for a while.
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

    /// `cgi-bin/stable_token`: the same token again, until its last minutes or a forced refresh.
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
            if let Some(leaked) = self.stable.take() {
                self.supersede(&leaked.value, now);
            }
        }
        // With a life shorter than ten minutes, a token would otherwise be in its last five
        // minutes almost from the start, and the call would not be stable at all.
        let last_minutes = settings
            .account_token_overlap
            .min(settings.account_token_lifetime / 2);
        let current = match self.stable.take() {
            Some(current) if now.saturating_add(last_minutes) < current.expires_at => current,
            // The old one is not touched: both work until it runs out by itself.
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

    /// Whether a call for the account may use this token.
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

    /// Whether this was ever a token of the account.
    pub(super) fn was_issued(&self, access_token: &str) -> bool {
        self.issued.contains_key(access_token)
    }

    pub(super) fn latest(&self) -> Option<&str> {
        self.latest.as_deref()
    }

    /// The ticket of this kind: the same one until it dies, whichever token asks.
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

    /// `clear_quota`, either version: gives the day's calls back.
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
