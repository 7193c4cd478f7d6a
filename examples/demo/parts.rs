//! Builds what the demo serves from the settings: one account, or several behind one layer.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::HeaderValue;
use axum::http::header::CACHE_CONTROL;
use axum::middleware::map_response;
use axum::response::Response;
use tower_wechat::health::Health;
use tower_wechat::login::LoginBuilder;
use tower_wechat::platform::Platform;
use tower_wechat::{
    Accounts, CookieKeys, Error, ErrorKind, Login, MemoryStore, Store, Tickets, TrustedHeader,
    UserTokens, health,
};

use crate::addresses::Addresses;
use crate::api::AppState;
use crate::platform::DemoPlatform;
use crate::settings::Settings;
use crate::variables::BoxError;
use crate::warnings::log_warnings;
use crate::wechat::Clients;
use crate::{one_account, several_accounts};

/// The routes of the demo, and the state that they share.
pub struct Demo {
    /// The routes of the account, or of all accounts.
    pub routes: Router<AppState>,
    pub state: AppState,
}

/// All tokens of the demo.
#[derive(Clone)]
pub struct Tokens {
    accounts: TokensOfAccounts,
    platform: Option<DemoPlatform>,
    /// The users of the website app.
    website: Option<UserTokens>,
}

/// The tokens of the account, or of all accounts.
#[derive(Clone)]
pub enum TokensOfAccounts {
    One {
        users: UserTokens,
        /// The JS-SDK tickets of the account, with the access tokens to which they belong.
        tickets: Tickets,
    },
    Several(Accounts),
}

impl Tokens {
    pub async fn health(&self) -> Health {
        match &self.accounts {
            TokensOfAccounts::One { users, tickets } => {
                health(users, Some(tickets.accounts())).await
            }
            TokensOfAccounts::Several(accounts) => accounts.health().await,
        }
    }

    /// Returns `alive` if the platform has a token, else the code of the error. Returns `None` if the
    /// demo is no platform.
    pub async fn platform_health(&self) -> Option<&'static str> {
        let health = self.platform()?.health();
        Some(
            match tokio::time::timeout(Duration::from_secs(2), health).await {
                Ok(Ok(())) => "alive",
                Ok(Err(error)) => error.kind().code(),
                Err(_) => ErrorKind::WechatUnavailable.code(),
            },
        )
    }

    /// Returns the platform, if the demo is one.
    pub fn platform(&self) -> Option<&Platform> {
        Some(&self.platform.as_ref()?.platform)
    }

    /// Fetches the token of the platform, or the token and the ticket of one account. Those of several accounts are fetched when
    /// a request needs them.
    pub async fn prefetch(&self) {
        if let Some(platform) = self.platform()
            && let Err(error) = platform.prefetch().await
        {
            tracing::warn!(%error, "could not fetch the token of the platform at start-up; the demo retries in the background");
        }
        if let TokensOfAccounts::One { tickets, .. } = &self.accounts
            && let Err(error) = tickets.prefetch().await
        {
            tracing::warn!(%error, "could not fetch a token or a ticket at start-up; the demo retries in the background");
        }
    }

    /// Waits for renewals in progress.
    pub async fn shutdown(&self, timeout: Duration) {
        let of_website = async {
            if let Some(users) = &self.website {
                users.shutdown(timeout).await;
            }
        };
        let of_platform = async {
            if let Some(platform) = &self.platform {
                platform.shutdown(timeout).await;
            }
        };
        match &self.accounts {
            TokensOfAccounts::One { users, tickets } => {
                tokio::join!(
                    of_website,
                    users.shutdown(timeout),
                    tickets.shutdown(timeout),
                    tickets.accounts().shutdown(timeout),
                );
            }
            TokensOfAccounts::Several(accounts) => {
                tokio::join!(of_website, of_platform, accounts.shutdown(timeout));
            }
        }
    }
}

/// Builds the demo. Connects to Redis if it is configured, and starts the simulator if no account is
/// configured. `address` is the address that the demo listens on.
pub async fn connect(settings: &Arc<Settings>, address: SocketAddr) -> Result<Demo, BoxError> {
    let clients = settings.wechat.connect(&settings.accounts).await?;
    match settings.connect_redis().await? {
        None => build(settings, clients, &MemoryStore::new(), address),
        Some(store) => build(settings, clients, &store, address),
    }
}

fn build<S: Store + Clone>(
    settings: &Arc<Settings>,
    clients: Clients,
    store: &S,
    address: SocketAddr,
) -> Result<Demo, BoxError> {
    let website = clients.website.as_ref().map(|website| {
        let users = UserTokens::builder(website.clone(), store.clone());
        settings.times.of_users(users).build()
    });
    let shared = Arc::new(Shared::new(settings, address, website)?);
    let platform = match (&settings.accounts.platform, &clients.component) {
        (Some(platform), Some(component)) => {
            let open_url = settings.wechat.open_url.as_deref();
            let platform = platform.build(component, store, open_url)?;
            Some(DemoPlatform::new(platform))
        }
        _ => None,
    };
    let (routes, accounts) = match &settings.accounts.by {
        None => one_account::build(&shared, &clients, store)?,
        Some(by) => several_accounts::build(&shared, &clients, store, by, platform.as_ref())?,
    };
    log_warnings(
        settings,
        clients.simulator.as_ref(),
        &shared.addresses,
        address,
    );
    Ok(Demo {
        routes: routes.layer(map_response(forbid_caching)),
        state: AppState {
            tokens: Tokens {
                accounts,
                platform,
                website: shared.website.clone(),
            },
            addresses: Arc::clone(&shared.addresses),
            simulator: clients.simulator.map(Arc::new),
        },
    })
}

/// Keeps caches from storing a response that does not say whether they may. Pages and replies are those
/// of a user, and of an account that the URL need not name.
async fn forbid_caching(mut response: Response) -> Response {
    let cache_control = response.headers_mut().entry(CACHE_CONTROL);
    cache_control.or_insert(HeaderValue::from_static("no-store"));
    response
}

/// An error of a login, and the variable that caused it.
#[derive(Debug)]
pub struct LoginError {
    variable: &'static str,
    pub error: Error,
}

impl fmt::Display for LoginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.variable, self.error)
    }
}

impl std::error::Error for LoginError {}

/// The settings and keys that all accounts of the demo share.
pub struct Shared {
    pub settings: Arc<Settings>,
    pub addresses: Arc<Addresses>,
    /// The users of the website app, which stands beside each account.
    website: Option<UserTokens>,
    pub keys: CookieKeys,
    /// The address that the demo listens on.
    address: SocketAddr,
}

impl Shared {
    fn new(
        settings: &Arc<Settings>,
        address: SocketAddr,
        website: Option<UserTokens>,
    ) -> Result<Self, BoxError> {
        let keys = match &settings.cookie_key {
            Some(keys) => {
                CookieKeys::from_base64(keys).map_err(|error| format!("COOKIE_KEY: {error}"))?
            }
            None => CookieKeys::random()?,
        };
        let public_url = match &settings.public_url {
            Some(url) => url.clone(),
            None => format!("http://{address}"),
        };
        let login = Login::new(&public_url, keys.clone());
        let prefix = login
            .map_err(|error| format!("PUBLIC_URL: {error}"))?
            .public_path("/");
        Ok(Self {
            settings: Arc::clone(settings),
            addresses: Arc::new(Addresses::new(
                &public_url,
                prefix.trim_end_matches('/'),
                &settings.accounts,
            )),
            website,
            keys,
            address,
        })
    }

    /// Returns a login whose paths lie below `public_url`. The login is built after each setting, so
    /// that an error names the variable of that setting.
    pub fn login(&self, public_url: &str, session_name: Option<&str>) -> Result<Login, LoginError> {
        let settings = &*self.settings;
        let error = |variable| move |error| LoginError { variable, error };
        let check = |login: LoginBuilder, variable| {
            let built = login.clone().build();
            built.map(|_| login).map_err(error(variable))
        };
        let login = check(Login::builder(public_url, self.keys.clone()), "PUBLIC_URL")?
            .scope(settings.scope)
            // A gateway names users by ids of its application, so tokens are stored under those ids.
            .bind_to_identity(settings.trusted_header.is_some());
        let login = settings
            .verification
            .iter()
            .try_fold(login, |login, (name, content)| {
                check(login.verification_file(name, content), "VERIFICATION_FILE")
            })?;
        let login = check(
            login.return_origins(&settings.return_origins),
            "RETURN_ORIGINS",
        )?;
        let login = match session_name {
            Some(name) => check(login.cookie_name(name), "SESSION_NAME")?,
            None => login,
        };
        let login = match &self.website {
            Some(users) => check(login.website(users.clone()), "WEBSITE_APPID")?,
            None => login,
        };
        login.build().map_err(error("PUBLIC_URL"))
    }

    /// Returns the header that names the user, or `None` if the session cookie does.
    pub fn trusted_header(&self) -> Result<Option<TrustedHeader>, BoxError> {
        let header = self.settings.trusted_header.as_deref();
        let header = header.map(TrustedHeader::new).transpose();
        Ok(header.map_err(|error| format!("TRUSTED_USER_HEADER: {error}"))?)
    }

    /// Returns the hosts whose pages may be signed for the JS-SDK: the hosts of the public URL and
    /// of the front ends, and the address that the demo listens on.
    pub fn page_hosts(&self, public_url: &str) -> Vec<String> {
        let urls = self.settings.return_origins.iter().map(String::as_str);
        let hosts = urls.chain([public_url]).map(|url| {
            let host = url.split_once("://").map_or(url, |(_, rest)| rest);
            host.split('/').next().unwrap_or_default().to_owned()
        });
        hosts.chain([self.address.to_string()]).collect()
    }
}
