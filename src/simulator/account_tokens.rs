//! The rules of the account's own tokens and tickets (`/cgi-bin`).

use std::{collections::HashMap, time::Duration};

use super::{
    history::{History, What},
    quota::Quota,
    random,
    refusal::Refusal,
    settings::Settings,
};

/// `cgi-bin/stable_token` per minute (its documentation).
const STABLE_PER_MINUTE: u64 = 10_000;
/// Forced refreshes per day, and the least time between two that have an effect (documentation of
/// `cgi-bin/stable_token`).
const FORCED_PER_DAY: u64 = 20;
const FORCED_APART: Duration = Duration::from_secs(30);
/// `clear_quota` per month, both versions together (its documentation). The month is taken to be
/// 30 days.
const CLEARED_PER_MONTH: u64 = 10;

/// A token, a ticket: as handed out last.
#[derive(Debug, Clone)]
struct Current {
    value: String,
    expires_at: Duration,
}

/// A token that was handed out at some time.
#[derive(Debug, Clone, Copy)]
struct Issued {
    dies_at: Duration,
    /// Whether a newer token, and not its age, is what ends it: 40001 rather than 42001.
    superseded: bool,
}

/// What a call for a token answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Handed {
    pub(super) access_token: String,
    pub(super) expires_in: Duration,
}

/// The tokens of `cgi-bin/token` and of `cgi-bin/stable_token`, which know nothing of each other,
/// and the tickets.
#[derive(Debug, Default)]
pub(super) struct AccountTokens {
    classic: Option<Current>,
    stable: Option<Current>,
    /// The one handed out last, by either call.
    latest: Option<String>,
    issued: HashMap<String, Issued>,
    tickets: HashMap<String, Current>,
    forced_at: Option<Duration>,
    forced: Quota,
    classic_calls: Quota,
    stable_calls: Quota,
    stable_burst: Quota,
    clearings: Quota,
    pub(super) history: History,
}

impl AccountTokens {
    /// `cgi-bin/token`: each call hands out a new token, and the last one lives on for a while.
    pub(super) fn token(&mut self, settings: &Settings, now: Duration) -> Result<Handed, Refusal> {
        self.classic_calls
            .take_of_day(settings.token_daily_quota, now)?;
        if let Some(old) = self.classic.take() {
            self.supersede(
                &old.value,
                now.saturating_add(settings.account_token_overlap),
            );
        }
        let new = self.issue(settings, now);
        self.classic = Some(new.clone());
        Ok(self.hand(new, now))
    }

    /// `cgi-bin/stable_token`: the same token again, until its last minutes or a forced refresh.
    pub(super) fn stable_token(
        &mut self,
        force_refresh: bool,
        settings: &Settings,
        now: Duration,
    ) -> Result<Handed, Refusal> {
        self.stable_burst.take_of_minute(STABLE_PER_MINUTE, now)?;
        self.stable_calls
            .take_of_day(settings.stable_token_daily_quota, now)?;
        let soon = self.forced_at.is_some_and(|at| now < at + FORCED_APART);
        if force_refresh && !soon {
            self.forced.take_of_day(FORCED_PER_DAY, now)?;
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
        Ok(self.hand(current, now))
    }

    fn issue(&mut self, settings: &Settings, now: Duration) -> Current {
        let expires_at = now.saturating_add(settings.account_token_lifetime);
        let value = random::token();
        self.history.note(What::AccountToken, "", [&*value], now);
        self.issued.insert(
            value.clone(),
            Issued {
                dies_at: expires_at,
                superseded: false,
            },
        );
        Current { value, expires_at }
    }

    fn hand(&mut self, token: Current, now: Duration) -> Handed {
        self.latest = Some(token.value.clone());
        Handed {
            access_token: token.value,
            expires_in: token.expires_at.saturating_sub(now),
        }
    }

    fn supersede(&mut self, token: &str, at: Duration) {
        if let Some(issued) = self.issued.get_mut(token)
            && at < issued.dies_at
        {
            *issued = Issued {
                dies_at: at,
                superseded: true,
            };
        }
    }

    /// Whether a call for the account may use this token.
    pub(super) fn check(&self, access_token: &str, now: Duration) -> Result<(), Refusal> {
        match self.issued.get(access_token) {
            None => Err(Refusal::never_issued(access_token)),
            Some(issued) if now < issued.dies_at => Ok(()),
            Some(issued) if issued.superseded => Err(Refusal::new(40001)),
            Some(_) => Err(Refusal::new(42001)),
        }
    }

    /// Whether this was ever a token of the account.
    pub(super) fn issued(&self, access_token: &str) -> bool {
        self.issued.contains_key(access_token)
    }

    pub(super) fn latest(&self) -> Option<&str> {
        self.latest.as_deref()
    }

    /// The ticket of this kind: the same one until it dies, whichever token asks.
    pub(super) fn ticket(&mut self, kind: &str, settings: &Settings, now: Duration) -> String {
        match self.tickets.get(kind) {
            Some(ticket) if now < ticket.expires_at => ticket.value.clone(),
            _ => {
                let value = random::ticket();
                self.history.note(What::Ticket, "", [&*value], now);
                let expires_at = now.saturating_add(settings.ticket_lifetime);
                self.tickets.insert(
                    kind.to_owned(),
                    Current {
                        value: value.clone(),
                        expires_at,
                    },
                );
                value
            }
        }
    }

    /// `clear_quota`, either version: gives the day's calls back.
    pub(super) fn clear_quota(&mut self, now: Duration) -> Result<(), Refusal> {
        self.clearings
            .take(now.as_secs() / (30 * 24 * 3600), CLEARED_PER_MONTH, 48006)?;
        self.classic_calls.clear();
        self.stable_calls.clear();
        self.stable_burst.clear();
        Ok(())
    }
}
