//! What a test may change about the simulated WeChat while it runs.

use std::{net::IpAddr, time::Duration};

use serde::{Deserialize, Serialize};

use super::clock::MAX_OFFSET;

/// How the simulated WeChat behaves. The defaults are WeChat's own figures.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// use std::time::Duration;
/// use tower_wechat::simulator::Simulator;
///
/// let sim = Simulator::start().await?;
/// sim.settings(|settings| {
///     settings.user_token_lifetime = Duration::from_secs(60);
///     settings.rotate_refresh_token = true;
/// });
/// # sim.stop().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SimulatorSettings {
    /// Life of a user's access token. Default: 7,200 s (documentation of
    /// `sns/oauth2/access_token`).
    pub user_token_lifetime: Duration,
    /// Life of a user's refresh token. Default: 30 days (documentation of
    /// `sns/oauth2/refresh_token`).
    pub refresh_token_lifetime: Duration,
    /// Life of an unused code of the authorize page. Default: 5 minutes (guide to web
    /// authorization); a code of `connect/qrconnect` lives twice as long, as the documentation of
    /// website login has it.
    pub code_lifetime: Duration,
    /// Whether each refresh hands out a new refresh token and kills the old one. WeChat's pages
    /// say that a refresh token cannot be renewed, and some SDKs report that it changes; default:
    /// it stays.
    pub rotate_refresh_token: bool,
    /// Life of the account's access token. Default: 7,200 s (documentation of `cgi-bin/token`).
    pub account_token_lifetime: Duration,
    /// How long a token of `cgi-bin/token` still works after the next one was issued, and how
    /// long before its end `cgi-bin/stable_token` issues the next one (at most half of the life).
    /// Default: 5 minutes (documentation of both).
    pub account_token_overlap: Duration,
    /// Life of a ticket. Default: 7,200 s. Every reply says this full life, however little is
    /// left of it, as developers saw it on the wire.
    pub ticket_lifetime: Duration,
    /// Whether the authorize page answers by itself as the next user. `false`: a consent page
    /// with two buttons, for scopes that need consent. Default: `true`.
    pub auto_approve: bool,
    /// Whether the deny button leads back to the application, with `state` and without `code`, as
    /// older documentation has it. `false`: WeChat's window closes and the application hears
    /// nothing, as newer reports have it. Default: `true`.
    pub deny_redirects: bool,
    /// Whether somebody without cookies fetches the callback just before the browser does, as
    /// WeChat's servers were seen to do. Only for `http://` callbacks. Default: `false`.
    pub callback_twice: bool,
    /// The host names of 网页授权域名 that a `redirect_uri` may have, compared exactly; others get
    /// error page 10003. `None`: any host. Default: `None`.
    pub redirect_hosts: Option<Vec<String>>,
    /// Addresses that may ask for the account's token; others get 40164. `None`: all. Default:
    /// `None`.
    pub ip_whitelist: Option<Vec<IpAddr>>,
    /// Whether the secret is frozen: calls with it get 40243. Default: `false`.
    pub secret_frozen: bool,
    /// Whether the account is frozen: asking for its token gets 50007. Default: `false`.
    pub account_frozen: bool,
    /// Calls of `cgi-bin/token` per day, after which it answers 45009. A day begins at midnight
    /// in Beijing. Default: 2,000, which a new account has (page on API call limits).
    pub token_daily_quota: u64,
    /// Calls of `cgi-bin/stable_token` per day, after which it answers 45009. Default: 500,000
    /// (documentation of `cgi-bin/stable_token`).
    pub stable_token_daily_quota: u64,
}

impl Default for SimulatorSettings {
    fn default() -> Self {
        Self {
            user_token_lifetime: Duration::from_secs(7200),
            refresh_token_lifetime: Duration::from_secs(30 * 24 * 3600),
            code_lifetime: Duration::from_secs(300),
            rotate_refresh_token: false,
            account_token_lifetime: Duration::from_secs(7200),
            account_token_overlap: Duration::from_secs(300),
            ticket_lifetime: Duration::from_secs(7200),
            auto_approve: true,
            deny_redirects: true,
            callback_twice: false,
            redirect_hosts: None,
            ip_whitelist: None,
            secret_frozen: false,
            account_frozen: false,
            token_daily_quota: 2_000,
            stable_token_daily_quota: 500_000,
        }
    }
}

/// The settings as `GET /_sim/settings` shows them: durations in seconds.
#[derive(Debug, Serialize)]
pub(super) struct SettingsJson<'a> {
    user_token_secs: u64,
    refresh_token_secs: u64,
    code_secs: u64,
    rotate_refresh_token: bool,
    account_token_secs: u64,
    account_token_overlap_secs: u64,
    ticket_secs: u64,
    auto_approve: bool,
    deny_redirects: bool,
    callback_twice: bool,
    redirect_hosts: Option<&'a [String]>,
    ip_whitelist: Option<&'a [IpAddr]>,
    secret_frozen: bool,
    account_frozen: bool,
    token_daily_quota: u64,
    stable_token_daily_quota: u64,
}

impl SimulatorSettings {
    pub(super) fn to_json(&self) -> SettingsJson<'_> {
        SettingsJson {
            user_token_secs: self.user_token_lifetime.as_secs(),
            refresh_token_secs: self.refresh_token_lifetime.as_secs(),
            code_secs: self.code_lifetime.as_secs(),
            rotate_refresh_token: self.rotate_refresh_token,
            account_token_secs: self.account_token_lifetime.as_secs(),
            account_token_overlap_secs: self.account_token_overlap.as_secs(),
            ticket_secs: self.ticket_lifetime.as_secs(),
            auto_approve: self.auto_approve,
            deny_redirects: self.deny_redirects,
            callback_twice: self.callback_twice,
            redirect_hosts: self.redirect_hosts.as_deref(),
            ip_whitelist: self.ip_whitelist.as_deref(),
            secret_frozen: self.secret_frozen,
            account_frozen: self.account_frozen,
            token_daily_quota: self.token_daily_quota,
            stable_token_daily_quota: self.stable_token_daily_quota,
        }
    }
}

/// What `POST /_sim/settings` takes: the fields that are to change.
///
/// Two lists may be `null`, which lifts their restriction; an absent field changes nothing. The
/// double `Option` tells these apart.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct SettingsPatch {
    user_token_secs: Option<u64>,
    refresh_token_secs: Option<u64>,
    code_secs: Option<u64>,
    rotate_refresh_token: Option<bool>,
    account_token_secs: Option<u64>,
    account_token_overlap_secs: Option<u64>,
    ticket_secs: Option<u64>,
    auto_approve: Option<bool>,
    deny_redirects: Option<bool>,
    callback_twice: Option<bool>,
    #[serde(deserialize_with = "deserialize_present")]
    redirect_hosts: Option<Option<Vec<String>>>,
    #[serde(deserialize_with = "deserialize_present")]
    ip_whitelist: Option<Option<Vec<IpAddr>>>,
    secret_frozen: Option<bool>,
    account_frozen: Option<bool>,
    token_daily_quota: Option<u64>,
    stable_token_daily_quota: Option<u64>,
}

fn deserialize_present<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}

impl SettingsPatch {
    /// Changes all that was asked for, or nothing and says why.
    pub(super) fn apply(self, settings: &mut SimulatorSettings) -> Result<(), String> {
        let mut changed = settings.clone();
        for (name, secs, lifetime) in [
            (
                "user_token_secs",
                self.user_token_secs,
                &mut changed.user_token_lifetime,
            ),
            (
                "refresh_token_secs",
                self.refresh_token_secs,
                &mut changed.refresh_token_lifetime,
            ),
            ("code_secs", self.code_secs, &mut changed.code_lifetime),
            (
                "account_token_secs",
                self.account_token_secs,
                &mut changed.account_token_lifetime,
            ),
            (
                "account_token_overlap_secs",
                self.account_token_overlap_secs,
                &mut changed.account_token_overlap,
            ),
            (
                "ticket_secs",
                self.ticket_secs,
                &mut changed.ticket_lifetime,
            ),
        ] {
            if let Some(secs) = secs {
                *lifetime = Duration::from_secs(secs);
                if *lifetime > MAX_OFFSET {
                    return Err(format!("`{name}` is longer than a hundred years"));
                }
            }
        }
        for (flag, setting) in [
            (self.rotate_refresh_token, &mut changed.rotate_refresh_token),
            (self.auto_approve, &mut changed.auto_approve),
            (self.deny_redirects, &mut changed.deny_redirects),
            (self.callback_twice, &mut changed.callback_twice),
            (self.secret_frozen, &mut changed.secret_frozen),
            (self.account_frozen, &mut changed.account_frozen),
        ] {
            *setting = flag.unwrap_or(*setting);
        }
        if let Some(hosts) = self.redirect_hosts {
            changed.redirect_hosts = hosts;
        }
        if let Some(addresses) = self.ip_whitelist {
            changed.ip_whitelist = addresses;
        }
        changed.token_daily_quota = self.token_daily_quota.unwrap_or(changed.token_daily_quota);
        changed.stable_token_daily_quota = self
            .stable_token_daily_quota
            .unwrap_or(changed.stable_token_daily_quota);
        *settings = changed;
        Ok(())
    }
}
