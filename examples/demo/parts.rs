//! Builds the parts of the demo, such as the tokens and the login, from the settings.

use std::net::SocketAddr;
use std::sync::Arc;

use tower_wechat::account::TokenCenter;
use tower_wechat::identity::{Identify, Identity};
use tower_wechat::login::LoginBuilder;
use tower_wechat::simulator::Simulator;
use tower_wechat::{
    AccountTokens, CookieKeys, Login, MemoryStore, RequestHead, SessionCookie, Store, Tickets,
    TrustedHeader, UserTokens, WechatClient,
};

use crate::redis::build_redis;
use crate::settings::Settings;
use crate::variables::BoxError;
use crate::warnings::log_warnings;

/// The parts of the demo that serve requests: tokens, login, identity, tickets, token center and
/// simulator.
pub struct DemoParts {
    pub users: UserTokens,
    pub login: Login,
    pub identity: DemoIdentity,
    /// The JS-SDK tickets of the account, with the access tokens to which they belong.
    pub tickets: Tickets,
    pub center: Option<TokenCenter>,
    /// The simulator of WeChat, which stops when it is dropped. `None` if a real account is
    /// configured.
    pub simulator: Option<Arc<Simulator>>,
}

/// The source of the user's id: the header of a gateway, or the session cookie.
#[derive(Clone)]
pub enum DemoIdentity {
    Header(TrustedHeader),
    Cookie(SessionCookie),
}

impl Identify for DemoIdentity {
    fn identify<'a>(&self, head: &RequestHead<'a>) -> Identity<'a> {
        match self {
            Self::Header(header) => header.identify(head),
            Self::Cookie(cookie) => cookie.identify(head),
        }
    }
}

/// Builds the parts of the demo. Connects to Redis if it is configured, and starts the simulator if
/// no account is configured. `address` is the address that the demo listens on.
pub async fn connect(settings: &Settings, address: SocketAddr) -> Result<DemoParts, BoxError> {
    let (wechat, simulator) = settings.wechat.connect().await?;
    let app = wechat.app_id().clone();
    let (users, accounts) = match &settings.redis_url {
        None => build_tokens(settings, &wechat, &MemoryStore::new()),
        Some(url) => {
            let mut builder = build_redis(url)?.layout(settings.layouts.read);
            if let Some(copy) = settings.layouts.copy {
                builder = builder.dual_write(copy);
            }
            if let Some(keys) = &settings.sealing {
                builder = builder.sealing(keys.clone());
            }
            let store = builder.connect().await?;
            build_tokens(settings, &wechat, &store)
        }
    };
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
    // The login is built after each setting, so that an error names the variable of that setting.
    let check = |login: LoginBuilder, variable| match login.clone().build() {
        Ok(_) => Ok(login),
        Err(error) => Err(format!("{variable}: {error}")),
    };
    let login = check(Login::builder(&public_url, keys.clone()), "PUBLIC_URL")?
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
    let session = SessionCookie::builder(&app, &keys);
    let session = session.secure(public_url.starts_with("https:"));
    let (login, session) = match &settings.session_name {
        Some(name) => {
            let login = check(login.cookie_name(name), "SESSION_NAME")?;
            (login, session.name(name))
        }
        None => (login, session),
    };
    let (login, session) = (login.build()?, session.build()?);
    let identity = match &settings.trusted_header {
        Some(name) => DemoIdentity::Header(
            TrustedHeader::new(name).map_err(|error| format!("TRUSTED_USER_HEADER: {error}"))?,
        ),
        None => DemoIdentity::Cookie(session),
    };
    let tickets = Tickets::new(&accounts, page_hosts(&public_url, settings, address))
        .map_err(|error| format!("PUBLIC_URL or RETURN_ORIGINS: {error}"))?;
    let center = match &settings.center_secrets {
        Some(secrets) => {
            let secrets = secrets.split(',').map(str::trim);
            let center = TokenCenter::new(accounts, secrets)
                .map_err(|error| format!("CENTER_TOKEN: {error}"))?;
            Some(center.tickets(tickets.clone()))
        }
        None => None,
    };
    log_warnings(settings, simulator.as_ref(), &public_url, address);
    Ok(DemoParts {
        users,
        tickets,
        center,
        login,
        identity,
        simulator: simulator.map(Arc::new),
    })
}

/// Returns the users' tokens and the account's tokens, which share one store.
fn build_tokens(
    settings: &Settings,
    wechat: &WechatClient,
    store: &(impl Store + Clone),
) -> (UserTokens, AccountTokens) {
    let users = UserTokens::builder(wechat.clone(), store.clone())
        .renew_margin(settings.renew_margin)
        .cache_ttl(settings.cache_ttl)
        .build();
    let accounts = AccountTokens::builder(wechat.clone(), store.clone())
        .cache_ttl(settings.cache_ttl)
        .build();
    (users, accounts)
}

/// Returns the hosts whose pages may be signed for the JS-SDK: the hosts of the public URL and of the
/// front ends, and the address that the demo listens on.
fn page_hosts(public_url: &str, settings: &Settings, address: SocketAddr) -> Vec<String> {
    let urls = settings.return_origins.iter().map(String::as_str);
    let hosts = urls.chain([public_url]).map(|url| {
        let host = url.split_once("://").map_or(url, |(_, rest)| rest);
        host.split('/').next().unwrap_or_default().to_owned()
    });
    hosts.chain([address.to_string()]).collect()
}
