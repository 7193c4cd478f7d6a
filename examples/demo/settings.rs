//! The demo's variables, and what is made of them.
//!
//! | variable | meaning (default) |
//! |---|---|
//! | `LISTEN` | address (`127.0.0.1:3000`; port 0 = any, printed) |
//! | `PUBLIC_URL` | address that browsers see: an origin, and a path where a proxy puts the demo below one, whether it strips that path or not (`http://` and the address) |
//! | `REDIS_URL` | unset: in-process store; `redis://`, `rediss://` (TLS), `redis+sentinel://h:p,h:p/master`, `redis+cluster://h:p,h:p`, `rediss+sentinel://`, `rediss+cluster://` |
//! | `REDIS_CA` | file of the authority of Redis's certificate (PEM); unset: those of the system |
//! | `REDIS_CLIENT_CERT`, `REDIS_CLIENT_KEY` | files of our own certificate and its key (PEM) |
//! | `REDIS_SENTINEL_USER`, `REDIS_SENTINEL_PASSWORD` | at the Sentinels; unset: none |
//! | `REDIS_LAYOUT` | `hashes` (default) or `keys`; `hashes+keys` reads the first and writes both |
//! | `SEALING_KEY` | base64, at least 32 bytes, several with commas; unset: values are plain |
//! | `SEALING_MODE` | `open`, `seal` (default) or `require` |
//! | `WECHAT_APPID`, `WECHAT_SECRET` | unset: the simulator is started |
//! | `WECHAT_API_URL`, `WECHAT_OPEN_URL` | base URLs of WeChat |
//! | `WECHAT_PROXY` | forward proxy for calls to WeChat: `http://user:password@host:port`, `https://`, `socks5://` or `socks5h://`; unset: none |
//! | `WECHAT_SCOPE` | `snsapi_userinfo` (default) or `snsapi_base` |
//! | `COOKIE_KEY` | base64, at least 64 bytes, several with commas; unset: random |
//! | `SESSION_NAME` | name of the session's cookie, for a second application on one host (`wechat_session`) |
//! | `VERIFICATION_FILE` | `NAME=CONTENT` of WeChat's `MP_verify_….txt`, several with commas |
//! | `TRUSTED_USER_HEADER` | name of a header that names the user |
//! | `RENEW_MARGIN_SECS`, `CACHE_TTL_SECS` | 900, 60 |
//! | `CENTER_TOKEN` | bearer secret, several with commas; set: the token center is at `/center` |
//! | `SIMULATOR_CONSENT` | `ask`: the simulator asks users before it signs them in |
//!
//! Blanks and line breaks around a value do not count.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tower_wechat::account::TokenCenter;
use tower_wechat::identity::{Identify, Identity};
use tower_wechat::login::LoginBuilder;
use tower_wechat::redis::{Layout, RedisStoreBuilder, SealingKeys};
use tower_wechat::simulator::{SimulatedUser, Simulator};
use tower_wechat::{
    AccountTokens, CookieKeys, Login, MemoryStore, RedisStore, RequestHead, Scope, SessionCookie,
    Store, Tickets, TrustedHeader, UserTokens, WechatClient,
};

use crate::variables::{
    BoxError, as_browsers_write_it, read_choice, read_key, read_named_file, read_seconds,
    read_variable,
};

pub struct Settings {
    pub listen: String,
    redis_url: Option<String>,
    layout: Layout,
    mirror: Option<Layout>,
    sealing: Option<SealingKeys>,
    account: Option<(String, String)>,
    api_url: Option<String>,
    open_url: Option<String>,
    proxy: Option<String>,
    public_url: Option<String>,
    scope: Scope,
    cookie_key: Option<String>,
    session_name: Option<String>,
    trusted_header: Option<String>,
    /// Names and contents of WeChat's verification files.
    verification: Vec<(String, String)>,
    margin: Duration,
    cache_ttl: Duration,
    center_secrets: Option<String>,
    /// Whether the simulator asks users before it signs them in.
    consent: bool,
}

/// What the demo runs with.
pub struct DemoParts {
    pub users: UserTokens,
    pub login: Login,
    pub identity: DemoIdentity,
    /// The account's own credentials.
    pub tickets: Tickets,
    pub center: Option<TokenCenter>,
    /// WeChat, where none is configured; ends with the demo.
    pub simulator: Option<Arc<Simulator>>,
}

/// Who is asking: as the gateway says, or as the cookie says.
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

/// How Redis is spoken with.
fn build_redis(url: &str) -> Result<RedisStoreBuilder, BoxError> {
    let mut redis = RedisStore::builder(url);
    if let Some(authority) = read_named_file("REDIS_CA")? {
        redis = redis.certificate_authority(authority);
    }
    redis = match (
        read_named_file("REDIS_CLIENT_CERT")?,
        read_named_file("REDIS_CLIENT_KEY")?,
    ) {
        (Some(certificate), Some(key)) => redis.client_certificate(certificate, key),
        (None, None) => redis,
        _ => return Err("set both of REDIS_CLIENT_CERT and REDIS_CLIENT_KEY, or neither".into()),
    };
    redis = match (
        read_variable("REDIS_SENTINEL_USER")?,
        read_variable("REDIS_SENTINEL_PASSWORD")?,
    ) {
        (user, Some(password)) => redis.sentinel_credentials(user.unwrap_or_default(), password),
        (None, None) => redis,
        (Some(_), None) => {
            return Err("REDIS_SENTINEL_USER is set without REDIS_SENTINEL_PASSWORD".into());
        }
    };
    Ok(redis)
}

/// The keys that values in Redis are sealed with.
fn read_sealing_keys() -> Result<Option<SealingKeys>, BoxError> {
    let keys = match read_key("SEALING_KEY")? {
        Some(keys) => {
            Some(SealingKeys::from_base64(&keys).map_err(|error| format!("SEALING_KEY: {error}"))?)
        }
        None => None,
    };
    match (keys, read_variable("SEALING_MODE")?) {
        (Some(keys), Some(mode)) => {
            let mode = mode
                .parse()
                .map_err(|error| format!("SEALING_MODE: {error}"))?;
            Ok(Some(keys.mode(mode)))
        }
        (None, Some(_)) => Err("SEALING_MODE is set without SEALING_KEY".into()),
        (keys, None) => Ok(keys),
    }
}

/// The forward proxy. Tried alone, so that what is wrong with it is told of this variable.
fn read_proxy() -> Result<Option<String>, BoxError> {
    let url = read_variable("WECHAT_PROXY")?;
    if let Some(url) = &url {
        let client = WechatClient::builder("wx0", "none").api_url("http://127.0.0.1");
        client
            .proxy(url)
            .build()
            .map_err(|error| format!("WECHAT_PROXY: {error}"))?;
    }
    Ok(url)
}

/// The verification files of `NAME=CONTENT,NAME=CONTENT`.
fn parse_verification_files(text: Option<&str>) -> Result<Vec<(String, String)>, BoxError> {
    let files = text.into_iter().flat_map(|text| text.split(','));
    let pairs = files.map(|file| match file.split_once('=') {
        Some((name, content)) => Ok((name.trim().to_owned(), content.trim().to_owned())),
        None => Err(format!(
            "VERIFICATION_FILE: {file:?} is not NAME=CONTENT, such as MP_verify_Ab1c.txt=Ab1c"
        )
        .into()),
    });
    pairs.collect()
}

impl Settings {
    pub fn from_env() -> Result<Self, BoxError> {
        let layouts = [
            ("hashes", (Layout::Hashes, None)),
            ("keys", (Layout::Keys, None)),
            ("hashes+keys", (Layout::Hashes, Some(Layout::Keys))),
            ("keys+hashes", (Layout::Keys, Some(Layout::Hashes))),
        ];
        let says = "neither hashes nor keys (nor both, with a +)";
        let (layout, mirror) =
            read_choice("REDIS_LAYOUT", &layouts, says)?.unwrap_or((Layout::Hashes, None));
        let account = match (
            read_variable("WECHAT_APPID")?,
            read_variable("WECHAT_SECRET")?,
        ) {
            (Some(app_id), Some(secret)) => Some((app_id, secret)),
            (None, None) => None,
            _ => return Err("set both of WECHAT_APPID and WECHAT_SECRET, or neither".into()),
        };
        let scopes = [
            ("snsapi_userinfo", Scope::UserInfo),
            ("snsapi_base", Scope::Base),
        ];
        let says = "neither snsapi_userinfo nor snsapi_base";
        let public_url = read_variable("PUBLIC_URL")?;
        let consent = [("ask", true)];
        Ok(Self {
            scope: read_choice("WECHAT_SCOPE", &scopes, says)?.unwrap_or(Scope::UserInfo),
            listen: read_variable("LISTEN")?.unwrap_or_else(|| "127.0.0.1:3000".to_owned()),
            redis_url: read_variable("REDIS_URL")?,
            layout,
            mirror,
            sealing: read_sealing_keys()?,
            account,
            api_url: read_variable("WECHAT_API_URL")?,
            open_url: read_variable("WECHAT_OPEN_URL")?,
            proxy: read_proxy()?,
            public_url: public_url
                .as_deref()
                .map(as_browsers_write_it)
                .transpose()?,
            cookie_key: read_key("COOKIE_KEY")?,
            session_name: read_variable("SESSION_NAME")?,
            trusted_header: read_variable("TRUSTED_USER_HEADER")?,
            verification: parse_verification_files(read_variable("VERIFICATION_FILE")?.as_deref())?,
            margin: read_seconds("RENEW_MARGIN_SECS", 900)?,
            cache_ttl: read_seconds("CACHE_TTL_SECS", 60)?,
            center_secrets: read_variable("CENTER_TOKEN")?,
            consent: read_choice("SIMULATOR_CONSENT", &consent, "not ask")?.unwrap_or(false),
        })
    }

    pub async fn connect(&self, address: SocketAddr) -> Result<DemoParts, BoxError> {
        let (wechat, simulator) = self.build_wechat_client().await?;
        let app = wechat.app_id().clone();
        let (users, accounts) = match &self.redis_url {
            None => self.build_tokens(&wechat, &MemoryStore::new()),
            Some(url) => {
                let mut builder = build_redis(url)?.layout(self.layout);
                if let Some(mirror) = self.mirror {
                    builder = builder.dual_write(mirror);
                }
                if let Some(keys) = &self.sealing {
                    builder = builder.sealing(keys.clone());
                }
                let store = builder.connect().await?;
                self.build_tokens(&wechat, &store)
            }
        };
        let keys = match &self.cookie_key {
            Some(keys) => {
                CookieKeys::from_base64(keys).map_err(|error| format!("COOKIE_KEY: {error}"))?
            }
            None => CookieKeys::random()?,
        };
        let public_url = match &self.public_url {
            Some(url) => url.clone(),
            None => format!("http://{address}"),
        };
        // Builds after each setting, so that an error names the variable.
        let check = |login: LoginBuilder, variable| match login.clone().build() {
            Ok(_) => Ok(login),
            Err(error) => Err(format!("{variable}: {error}")),
        };
        let login = check(Login::builder(&public_url, keys.clone()), "PUBLIC_URL")?
            .scope(self.scope)
            // Users that come through a gateway are known by the gateway's id.
            .bind_to_identity(self.trusted_header.is_some());
        let login = self
            .verification
            .iter()
            .try_fold(login, |login, (name, content)| {
                check(login.verification_file(name, content), "VERIFICATION_FILE")
            })?;
        let session = SessionCookie::builder(&app, &keys);
        let session = session.secure(public_url.starts_with("https:"));
        let (login, session) = match &self.session_name {
            Some(name) => {
                let login = check(login.cookie_name(name), "SESSION_NAME")?;
                (login, session.name(name))
            }
            None => (login, session),
        };
        let (login, session) = (login.build()?, session.build()?);
        let identity = match &self.trusted_header {
            Some(name) => DemoIdentity::Header(
                TrustedHeader::new(name)
                    .map_err(|error| format!("TRUSTED_USER_HEADER: {error}"))?,
            ),
            None => DemoIdentity::Cookie(session),
        };
        let tickets = Tickets::new(&accounts, page_hosts(&public_url, address))
            .map_err(|error| format!("PUBLIC_URL: {error}"))?;
        let center = match &self.center_secrets {
            Some(secrets) => {
                let secrets = secrets.split(',').map(str::trim);
                let center = TokenCenter::new(accounts, secrets)
                    .map_err(|error| format!("CENTER_TOKEN: {error}"))?;
                Some(center.tickets(tickets.clone()))
            }
            None => None,
        };
        self.log_warnings(simulator.as_ref(), &public_url, address);
        Ok(DemoParts {
            users,
            tickets,
            center,
            login,
            identity,
            simulator: simulator.map(Arc::new),
        })
    }

    /// The users' tokens and the account's, in one store.
    fn build_tokens(
        &self,
        wechat: &WechatClient,
        store: &(impl Store + Clone),
    ) -> (UserTokens, AccountTokens) {
        let users = UserTokens::builder(wechat.clone(), store.clone())
            .renew_margin(self.margin)
            .cache_ttl(self.cache_ttl)
            .build();
        let accounts = AccountTokens::builder(wechat.clone(), store.clone())
            .cache_ttl(self.cache_ttl)
            .build();
        (users, accounts)
    }

    /// The client of WeChat, and the simulator behind it where no account is configured.
    async fn build_wechat_client(&self) -> Result<(WechatClient, Option<Simulator>), BoxError> {
        let simulator = match self.account {
            Some(_) => None,
            None => Some(start_simulator(self.consent).await?),
        };
        let (app_id, secret) = match (&self.account, &simulator) {
            (Some((app_id, secret)), _) => (app_id.as_str(), secret.as_str()),
            (None, Some(simulator)) => (simulator.app_id(), simulator.app_secret()),
            (None, None) => return Err("there is no account".into()),
        };
        let of_simulator = || {
            simulator
                .as_ref()
                .map(|simulator| simulator.url().to_owned())
        };
        let mut builder = WechatClient::builder(app_id, secret);
        if let Some(url) = self.api_url.clone().or_else(of_simulator) {
            builder = builder.api_url(url);
        }
        if let Some(url) = self.open_url.clone().or_else(of_simulator) {
            builder = builder.open_url(url);
        }
        match &self.proxy {
            // The simulator is in this process.
            Some(_) if simulator.is_some() && self.api_url.is_none() => {
                tracing::warn!("WECHAT_PROXY is not used: WECHAT_APPID is not set");
            }
            Some(url) => builder = builder.proxy(url),
            None => {}
        }
        Ok((builder.build()?, simulator))
    }

    /// The paths of WeChat's verification files.
    pub fn verification_paths(&self) -> impl Iterator<Item = String> {
        self.verification.iter().map(|(name, _)| format!("/{name}"))
    }

    /// What is good to know, once nothing is wrong: a mistake is told in one sentence, alone.
    fn log_warnings(&self, simulator: Option<&Simulator>, public_url: &str, address: SocketAddr) {
        if let Some(simulator) = simulator {
            tracing::info!(
                url = simulator.url(),
                "WECHAT_APPID is not set: a simulator is WeChat, for browsers of this machine"
            );
        }
        // Nobody can open that address, and WeChat would send users back to it.
        if self.public_url.is_none() && address.ip().is_unspecified() {
            let port = address.port();
            tracing::warn!(
                "PUBLIC_URL is not set, and browsers cannot open {public_url}, where logins come \
                 back to: set it to the address that they open, such as \
                 PUBLIC_URL=https://h5.example.com or http://192.168.1.2:{port}"
            );
        }
        match (&self.redis_url, &self.account) {
            (Some(_), _) => {}
            (None, None) => tracing::info!("REDIS_URL is not set: tokens stay in memory"),
            // The pairs that WeChat has granted go with the process, and no other one has them.
            (None, Some(_)) => tracing::warn!(
                "REDIS_URL is not set: tokens stay in memory, and all users log in again when \
                 this process ends"
            ),
        }
        if self.cookie_key.is_none() {
            tracing::warn!("COOKIE_KEY is not set: sessions end when this process does");
        }
        let secrets = self.center_secrets.iter().flat_map(|all| all.split(','));
        if secrets.map(str::trim).any(|secret| secret.len() < 16) {
            tracing::warn!(
                "CENTER_TOKEN can be guessed, it is that short: `openssl rand -hex 32` makes a better one"
            );
        }
        // What WeChat says about a wrong address it says to users, not to us.
        if self.account.is_some() && self.open_url.is_none() {
            let public_url = public_url.trim_end_matches('/');
            tracing::info!(
                "WeChat sends users back to {public_url}/wechat/callback; if it shows them error \
                 10003 instead, that host is not the account's 网页授权域名 in mp.weixin.qq.com"
            );
            if !public_url.starts_with("https:") {
                tracing::warn!(
                    "PUBLIC_URL is {public_url}: where users see https it has to begin with that, or \
                     their cookies are sent in the clear and may not come back"
                );
            }
        }
    }
}

/// Whose pages are signed for the JS-SDK: those that browsers see, and those of this very address.
fn page_hosts(public_url: &str, address: SocketAddr) -> [String; 2] {
    let host = public_url
        .split_once("://")
        .map_or(public_url, |(_, rest)| rest);
    let host = host.split('/').next().unwrap_or_default();
    [host.to_owned(), address.to_string()]
}

/// A WeChat of our own, and people to sign in as; the last one is who comes first.
async fn start_simulator(asks: bool) -> std::io::Result<Simulator> {
    let simulator = Simulator::start().await?;
    simulator.settings(|settings| settings.auto_approve = !asks);
    let virtual_user = SimulatedUser::random().nickname("快照用户").snapshot(true);
    for user in [
        virtual_user,
        SimulatedUser::random().nickname("Ada Lovelace"),
        SimulatedUser::random()
            .nickname("林晓雨")
            .unionid("oUnion-linxiaoyu-demo"),
    ] {
        simulator.add_user(user);
    }
    Ok(simulator)
}
