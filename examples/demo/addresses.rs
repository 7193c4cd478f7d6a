//! The addresses of accounts, as browsers see them.

use tower_wechat::credential::AppId;

use crate::accounts::{AccountBy, AccountSettings};

/// The public addresses of the demo and of its accounts.
pub struct Addresses {
    /// The public URL, without a slash at its end.
    pub public_url: String,
    /// The path of the public URL, without a slash at its end.
    pub prefix: String,
    by: Place,
    /// All accounts, in their configured order.
    accounts: Vec<AppId>,
    /// `true` if replies name the app to which a user belongs.
    pub names_apps: bool,
}

/// The place of an account's AppID in addresses.
enum Place {
    /// No address contains an AppID: there is one account, or a header names it.
    Nowhere,
    Path,
    Host(Vec<(String, AppId)>),
}

/// A link to the pages of an account.
pub struct AccountLink {
    pub app_id: String,
    pub url: String,
}

impl Addresses {
    /// `prefix` is the path of `public_url`, without a slash at its end.
    pub fn new(public_url: &str, prefix: &str, settings: &AccountSettings) -> Self {
        let accounts = settings.accounts.iter();
        Self {
            public_url: public_url.trim_end_matches('/').to_owned(),
            prefix: prefix.to_owned(),
            by: match &settings.by {
                None | Some(AccountBy::Header(_)) => Place::Nowhere,
                Some(AccountBy::Path) => Place::Path,
                Some(AccountBy::Host(hosts)) => Place::Host(hosts.clone()),
            },
            accounts: accounts.map(|account| account.app_id.clone()).collect(),
            names_apps: settings.has_several_apps(),
        }
    }

    /// Returns the public URL of an account, without a slash at its end.
    pub fn of_account(&self, account: &AppId) -> String {
        match &self.by {
            Place::Nowhere => self.public_url.clone(),
            Place::Path => format!("{}/{}", self.public_url, account.as_str()),
            Place::Host(hosts) => {
                let scheme = self.public_url.split("://").next().unwrap_or("http");
                let host = hosts.iter().find(|(_, app_id)| app_id == account);
                let host = host.map_or("", |(host, _)| host);
                format!("{scheme}://{host}{}", self.prefix)
            }
        }
    }

    /// Returns the path below which an account's pages lie, without a slash at its end.
    pub fn base(&self, account: &AppId) -> String {
        match &self.by {
            Place::Nowhere | Place::Host(_) => self.prefix.clone(),
            Place::Path => format!("{}/{}", self.prefix, account.as_str()),
        }
    }

    /// Returns the public URLs of all accounts.
    pub fn public_urls(&self) -> impl Iterator<Item = String> {
        let accounts = match self.by {
            Place::Nowhere => &self.accounts[..self.accounts.len().min(1)],
            Place::Path | Place::Host(_) => &*self.accounts,
        };
        accounts.iter().map(|account| self.of_account(account))
    }

    /// Returns links to all accounts but one. Without links, browsers cannot choose the account.
    pub fn other_accounts(&self, account: &AppId) -> Vec<AccountLink> {
        let others = self.accounts.iter().filter(|other| *other != account);
        let link = |other: &AppId| AccountLink {
            app_id: other.as_str().to_owned(),
            url: match &self.by {
                Place::Host(_) => self.of_account(other) + "/",
                Place::Nowhere | Place::Path => self.base(other) + "/",
            },
        };
        match &self.by {
            Place::Nowhere => Vec::new(),
            Place::Path | Place::Host(_) => others.map(link).collect(),
        }
    }
}
