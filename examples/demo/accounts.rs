//! The accounts that the demo serves and the website app beside them, from environment variables.

use axum::http::header::{self, HeaderName};
use tower_wechat::credential::AppId;
use tower_wechat::{CookieKeys, Login};

use crate::platform::PlatformSettings;
use crate::variables::{BoxError, as_browsers_write_it, read_variable};

/// AppIDs and AppSecrets of the accounts that a simulator has, if no account is configured. The
/// second one and the website app exist only in a demo with several accounts.
const SIMULATED: [(&str, &str); 2] = [
    ("wx0123456789abcdef", "simulated-secret"),
    ("wxfedcba9876543210", "simulated-secret"),
];
const SIMULATED_WEBSITE: (&str, &str) = ("wx00000000website", "simulated-secret");

/// AppID and AppSecret of an account, or of a website app.
pub struct Credentials {
    pub app_id: AppId,
    pub secret: String,
}

/// The accounts that the demo serves, and how it finds the account of a request.
pub struct AccountSettings {
    /// The listed accounts: at least one, or none with a platform.
    pub accounts: Vec<Credentials>,
    /// The platform to which owners authorize accounts.
    pub platform: Option<PlatformSettings>,
    /// The part of a request that names its account. `None`: the demo serves one account.
    pub by: Option<AccountBy>,
    /// The website app (网站应用), with which users of other browsers than WeChat's log in.
    pub website: Option<Credentials>,
    /// `true` if no account is configured, so that a simulator replaces WeChat.
    pub simulated: bool,
}

/// The part of a request that names its account.
pub enum AccountBy {
    /// The first segment of the path.
    Path,
    /// The host. Each account has one host, in the form in which browsers write it.
    Host(Vec<(String, AppId)>),
    /// A header that a gateway sets.
    Header(String),
}

impl AccountSettings {
    /// Reads the variables of the accounts and of the website app. `trusted_header` is
    /// the header with which a gateway signs users in.
    pub fn from_env(trusted_header: Option<&str>) -> Result<Self, BoxError> {
        let has_trusted_header = trusted_header.is_some();
        let one = read_pair("WECHAT_APPID", "WECHAT_SECRET")?;
        let list = read_variable("WECHAT_ACCOUNTS")?;
        let by = read_variable("ACCOUNT_BY")?;
        let platform = PlatformSettings::from_env()?;
        let simulated = one.is_none() && list.is_none() && platform.is_none();
        let website = read_pair("WEBSITE_APPID", "WEBSITE_SECRET")?;
        if website.is_some() && has_trusted_header {
            return Err(
                "WEBSITE_APPID is set beside TRUSTED_USER_HEADER, with which a gateway signs users \
                 in: unset one of them"
                    .into(),
            );
        }
        if platform.is_some() {
            check_beside_platform(one.is_some(), list.is_some(), by.as_deref())?;
        }
        let (accounts, by, website) = match (one, list, by) {
            (None, None, _) if platform.is_some() => (Vec::new(), Some("path".to_owned()), website),
            (Some(_), Some(_), _) => {
                return Err(
                    "WECHAT_ACCOUNTS and WECHAT_APPID are both set: keep WECHAT_ACCOUNTS for \
                     several accounts, or WECHAT_APPID and WECHAT_SECRET for one"
                        .into(),
                );
            }
            (Some(_), None, Some(_)) => {
                return Err(
                    "ACCOUNT_BY is set beside WECHAT_APPID, which is one account: set \
                     WECHAT_ACCOUNTS instead of WECHAT_APPID and WECHAT_SECRET"
                        .into(),
                );
            }
            (Some(account), None, None) => (vec![account], None, website),
            (None, Some(list), by) => {
                let by = by.unwrap_or_else(|| "path".to_owned());
                (parse_accounts(&list)?, Some(by), website)
            }
            (None, None, None) => (simulated_accounts(&SIMULATED[..1])?, None, website),
            (None, None, Some(by)) => {
                let website = match website {
                    None if !has_trusted_header => Some(simulated_account(SIMULATED_WEBSITE)?),
                    website => website,
                };
                (simulated_accounts(&SIMULATED)?, Some(by), website)
            }
        };
        if let Some(website) = &website
            && accounts
                .iter()
                .any(|account| account.app_id == website.app_id)
        {
            let app_id = website.app_id.as_str();
            return Err(format!(
                "WEBSITE_APPID={app_id} is an account too: set the AppID of a website app \
                 (网站应用), which has its own in open.weixin.qq.com"
            )
            .into());
        }
        let by = by.map(|by| AccountBy::parse(&by, &accounts)).transpose()?;
        if let (Some(AccountBy::Header(name)), Some(user)) = (&by, trusted_header)
            && name.eq_ignore_ascii_case(user)
        {
            return Err(format!(
                "ACCOUNT_BY and TRUSTED_USER_HEADER are both the header {name}, which cannot name an \
                 account and a user: set two headers"
            )
            .into());
        }
        Ok(Self {
            accounts,
            platform,
            by,
            website,
            simulated,
        })
    }

    /// Returns `true` if more than one app keeps tokens in the store: several accounts, those of a
    /// platform, or one account with a website app.
    pub fn has_several_apps(&self) -> bool {
        self.by.is_some() || self.website.is_some()
    }
}

/// Returns an error if a variable of accounts is set beside those of a platform.
fn check_beside_platform(one: bool, list: bool, by: Option<&str>) -> Result<(), BoxError> {
    let variable = match (one, list) {
        (true, _) => "WECHAT_APPID",
        (false, true) => "WECHAT_ACCOUNTS",
        (false, false) => match by {
            None | Some("path") => return Ok(()),
            Some(by) => {
                return Err(format!(
                    "ACCOUNT_BY={by} is set beside PLATFORM_APPID, whose accounts are found by path: \
                     unset ACCOUNT_BY"
                )
                .into());
            }
        },
    };
    Err(format!(
        "{variable} and PLATFORM_APPID are both set: keep PLATFORM_APPID for accounts that their \
         owners authorize, or {variable} for accounts whose secrets you have"
    )
    .into())
}

/// Reads the AppID and the secret of one app from two variables.
fn read_pair(id_variable: &str, secret_variable: &str) -> Result<Option<Credentials>, BoxError> {
    match (read_variable(id_variable)?, read_variable(secret_variable)?) {
        (Some(app_id), Some(secret)) => {
            let app_id = AppId::new(app_id).map_err(|error| format!("{id_variable}: {error}"))?;
            Ok(Some(Credentials { app_id, secret }))
        }
        (None, None) => Ok(None),
        _ => Err(format!("set both of {id_variable} and {secret_variable}, or neither").into()),
    }
}

/// Parses the value `APPID:SECRET,APPID:SECRET` of `WECHAT_ACCOUNTS`. A secret may contain colons and
/// no comma. An error contains no part of an entry that may be a secret.
fn parse_accounts(text: &str) -> Result<Vec<Credentials>, BoxError> {
    let mut accounts: Vec<Credentials> = Vec::new();
    for (at, entry) in text.split(',').enumerate() {
        let at = at + 1;
        let Some((app_id, secret)) = entry.split_once(':') else {
            return Err(format!(
                "WECHAT_ACCOUNTS: entry {at} is not APPID:SECRET; commas separate the entries"
            )
            .into());
        };
        let app_id = AppId::new(app_id.trim())
            .map_err(|error| format!("WECHAT_ACCOUNTS: the AppID of entry {at}: {error}"))?;
        let secret = secret.trim();
        if secret.is_empty() {
            return Err(
                format!("WECHAT_ACCOUNTS: entry {at} has no secret after its colon").into(),
            );
        }
        if !secret.bytes().all(|letter| letter.is_ascii_graphic()) {
            return Err(format!(
                "WECHAT_ACCOUNTS: the secret of entry {at} holds white space or characters that \
                 none has"
            )
            .into());
        }
        if accounts.iter().any(|other| other.app_id == app_id) {
            let app_id = app_id.as_str();
            return Err(format!("WECHAT_ACCOUNTS has the account {app_id} twice: keep one").into());
        }
        accounts.push(Credentials {
            app_id,
            secret: secret.to_owned(),
        });
    }
    Ok(accounts)
}

fn simulated_accounts(accounts: &[(&str, &str)]) -> Result<Vec<Credentials>, BoxError> {
    accounts.iter().copied().map(simulated_account).collect()
}

fn simulated_account((app_id, secret): (&str, &str)) -> Result<Credentials, BoxError> {
    Ok(Credentials {
        app_id: AppId::new(app_id)?,
        secret: secret.to_owned(),
    })
}

impl AccountBy {
    /// Parses the value of `ACCOUNT_BY`, for these accounts.
    fn parse(text: &str, accounts: &[Credentials]) -> Result<Self, BoxError> {
        match text.split_once(':') {
            None if text == "path" => Ok(Self::Path),
            Some(("host", hosts)) => parse_hosts(hosts, accounts).map(Self::Host),
            Some(("header", name)) if !name.trim().is_empty() => {
                parse_header(name.trim()).map(Self::Header)
            }
            _ => Err(format!(
                "ACCOUNT_BY={text} is neither path, nor host:HOST=APPID,HOST=APPID, nor \
                 header:NAME"
            )
            .into()),
        }
    }
}

/// Headers that HTTP defines otherwise, so that none of them can hold an AppID.
const HEADERS_OF_HTTP: [HeaderName; 14] = [
    header::ACCEPT,
    header::AUTHORIZATION,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::COOKIE,
    header::EXPECT,
    header::HOST,
    header::ORIGIN,
    header::REFERER,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::USER_AGENT,
];

/// Returns the name of a header that a gateway sets.
fn parse_header(name: &str) -> Result<String, BoxError> {
    let is_of_http = HEADERS_OF_HTTP.iter().any(|other| *other == name)
        || name.to_ascii_lowercase().starts_with("sec-");
    match is_of_http {
        true => Err(format!(
            "ACCOUNT_BY: the header {name} has another meaning in HTTP: let the gateway set one like \
             x-account"
        )
        .into()),
        false => Ok(name.to_owned()),
    }
}

/// Parses the list `HOST=APPID,HOST=APPID`, which gives one host to each account.
fn parse_hosts(text: &str, accounts: &[Credentials]) -> Result<Vec<(String, AppId)>, BoxError> {
    let mut hosts: Vec<(String, AppId)> = Vec::new();
    for entry in text.split(',') {
        let Some((host, app_id)) = entry.split_once('=') else {
            return Err(format!(
                "ACCOUNT_BY: {entry:?} is not HOST=APPID, such as \
                 shop.example.com=wx0123456789abcdef"
            )
            .into());
        };
        let (host, app_id) = (parse_host(host.trim())?, app_id.trim());
        let account = accounts
            .iter()
            .find(|account| account.app_id.as_str() == app_id);
        let Some(account) = account else {
            return Err(format!(
                "ACCOUNT_BY: {app_id:?} of the host {host} is no account of WECHAT_ACCOUNTS"
            )
            .into());
        };
        if hosts.iter().any(|(other, _)| *other == host) {
            return Err(format!("ACCOUNT_BY has the host {host} twice: keep one").into());
        }
        if hosts.iter().any(|(_, other)| *other == account.app_id) {
            return Err(format!(
                "ACCOUNT_BY has two hosts for the account {app_id}: keep the one to which WeChat \
                 leads users back"
            )
            .into());
        }
        hosts.push((host, account.app_id.clone()));
    }
    let lacks_host = |account: &&Credentials| !hosts.iter().any(|(_, id)| *id == account.app_id);
    if let Some(account) = accounts.iter().find(lacks_host) {
        let app_id = account.app_id.as_str();
        return Err(
            format!("ACCOUNT_BY has no host for the account {app_id}: add HOST={app_id}").into(),
        );
    }
    Ok(hosts)
}

/// Returns a host, with a port if it has one, in the form in which browsers write it.
fn parse_host(host: &str) -> Result<String, BoxError> {
    let is_bare = !host.is_empty() && !host.contains(['/', '\\', '?', '#', '@']);
    let url = match is_bare {
        true => as_browsers_write_it("ACCOUNT_BY", &format!("https://{host}"))?,
        false => String::new(),
    };
    let name = url.trim_end_matches(|letter: char| letter.is_ascii_digit());
    if name.trim_end_matches(':').ends_with('.') {
        return Err(format!(
            "ACCOUNT_BY: the host {host} ends with a dot, and browsers send both forms: write it \
             without the dot"
        )
        .into());
    }
    // The public URL of the account's login has this host.
    let is_host = Login::new(&url, CookieKeys::random()?).is_ok();
    match url.strip_prefix("https://").filter(|_| is_host) {
        Some(host) => Ok(host.to_owned()),
        None => Err(format!(
            "ACCOUNT_BY: {host:?} is no host, such as shop.example.com or shop.example.com:8443"
        )
        .into()),
    }
}
