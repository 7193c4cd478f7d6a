//! A third-party platform that several "processes" serve: each has its own `Platform`, its own
//! `Accounts`, its own connection to the store, and its own HTTP server for pushes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tower::Layer;
use tower_wechat::client::InvalidToken;
use tower_wechat::clock::Clock;
use tower_wechat::credential::AppId;
use tower_wechat::layer::WechatAccount;
use tower_wechat::platform::{NoMessages, Platform, PushKeys};
use tower_wechat::redis::{RedisNames, RedisStoreBuilder};
use tower_wechat::simulator::{Fault, PushReply, SimulatedPlatform, SimulatedPush};
use tower_wechat::{
    AccountTokens, Accounts, Error, ErrorKind, MemoryStore, RedisStore, Store, WechatClient,
};

use crate::harness::{Backend, Harness, names};
use crate::support::eventually;

pub const COMPONENT_TOKEN: &str = "/cgi-bin/component/api_component_token";
pub const AUTHORIZER_TOKEN: &str = "/cgi-bin/component/api_authorizer_token";
pub const QUERY_AUTH: &str = "/cgi-bin/component/api_query_auth";
pub const AUTHORIZER_LIST: &str = "/cgi-bin/component/api_get_authorizer_list";
pub const START_PUSH: &str = "/cgi-bin/component/api_start_push_ticket";

const TOKEN: &str = "token-of-the-pushes";
const AES_KEY: &str = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG";

/// Maximum time for a change to arrive, 20 s. An idle machine needs milliseconds.
pub const SOON: Duration = Duration::from_secs(20);

/// Time after which all tokens have expired. Verify tickets are valid for longer.
pub const TOKENS_EXPIRED: Duration = Duration::from_secs(7_300);

pub struct World {
    pub harness: Harness,
    pub wechat: SimulatedPlatform,
    /// The store of all processes if the tokens are in memory. Its quotas follow the clock.
    memory: MemoryStore,
}

/// One process of the platform. Its server ends with it.
pub struct Process {
    pub platform: Platform,
    pub accounts: Accounts,
    pub push_url: String,
    server: AbortHandle,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl World {
    /// Starts WeChat with a platform that pushes nothing by itself.
    pub fn new(harness: Harness) -> Self {
        let component = format!("{}-platform", harness.simulator.app_id());
        let wechat = harness
            .simulator
            .add_platform(component, "secret-of-the-platform")
            .token(TOKEN)
            .aes_key(AES_KEY);
        harness
            .simulator
            .settings(|settings| settings.ticket_push_interval = Duration::ZERO);
        let memory = MemoryStore::with_clock(harness.clock.clone());
        Self {
            harness,
            wechat,
            memory,
        }
    }

    /// Starts WeChat, which fails each request for a push.
    pub fn without_requested_pushes(harness: Harness) -> Self {
        let world = Self::new(harness);
        world
            .harness
            .simulator
            .inject(Fault::on(START_PUSH).errcode(-1));
        world
    }

    /// Starts WeChat and some processes, one of which has received a verify ticket. The list of accounts,
    /// which a process reads at its start, is read: otherwise it may cross the first authorizations.
    pub async fn with_ticket(harness: Harness, processes: usize) -> (Self, Vec<Process>) {
        let world = Self::new(harness);
        let processes = world.processes(processes).await;
        world.push(&processes[0], SimulatedPush::ticket()).await;
        for process in &processes {
            // A call that began before the ticket may still end without one.
            eventually("the component token", SOON, async || {
                process.component_token().await.is_ok()
            })
            .await;
        }
        if let Some(process) = processes.first() {
            world.list_is_read(process).await;
        }
        (world, processes)
    }

    pub async fn processes(&self, count: usize) -> Vec<Process> {
        let mut processes = Vec::with_capacity(count);
        for _ in 0..count {
            processes.push(self.process().await);
        }
        processes
    }

    pub async fn process(&self) -> Process {
        self.process_with(self.wechat.client().unwrap(), &self.harness.clock)
            .await
    }

    /// Starts a process with another client of the platform, or another clock.
    pub async fn process_with(&self, client: WechatClient, clock: &Clock) -> Process {
        match self.harness.is_remote() {
            true => start(client, self.redis_store().await, clock).await,
            false => start(client, self.memory.clone(), clock).await,
        }
    }

    async fn redis_store(&self) -> RedisStore {
        let change = |builder: RedisStoreBuilder| match self.harness.backend() {
            Backend::ClusterHashes | Backend::SentinelHashes => builder.names(names().with_appid()),
            _ => builder.names(RedisNames::default().with_appid()),
        };
        self.harness
            .redis_store_at(&self.harness.redis_url(), change)
            .await
    }

    /// Returns the AppID of an account that no other test uses.
    pub fn account(&self, number: usize) -> AppId {
        AppId::new(format!("{}-{number}", self.harness.simulator.app_id())).unwrap()
    }

    /// Pushes to a process, which must answer `success` to each delivery.
    pub async fn push(&self, process: &Process, push: SimulatedPush) {
        for reply in self.push_any(process, push).await {
            assert!(reply.is_success(), "{reply:?}");
        }
    }

    /// Pushes to a process. No other push of WeChat reaches a process.
    pub async fn push_any(&self, process: &Process, push: SimulatedPush) -> Vec<PushReply> {
        let to = |url: &str| self.wechat.clone().push_url(url);
        let replies = to(&process.push_url).push(push).await.unwrap();
        to("http://127.0.0.1:1/");
        replies
    }

    /// The owners of these accounts authorize the platform. A process exchanges their codes.
    pub async fn authorize(&self, process: &Process, accounts: &[AppId]) {
        let mut running = JoinSet::new();
        for account in accounts {
            let code = self.wechat.authorize(account.as_str()).unwrap();
            let (platform, account) = (process.platform.clone(), account.clone());
            running.spawn(async move {
                assert_eq!(platform.authorize(&code).await.unwrap(), account);
            });
            if running.len() >= 16 {
                running.join_next().await.unwrap().unwrap();
            }
        }
        running.join_all().await;
    }

    /// Returns the number of calls of the platform to this path.
    pub fn calls(&self, path: &str) -> u64 {
        self.harness.simulator.calls_to(path)
    }

    /// Returns the account's token that WeChat has issued last.
    pub fn live_token(&self, account: &AppId) -> String {
        let live = self.wechat.authorizer_token(account.as_str());
        live.expect("the account is authorized")
    }

    pub fn is_valid(&self, account: &AppId, token: &str) -> bool {
        let app = self.harness.simulator.app(account.as_str());
        app.is_some_and(|app| app.is_account_token_valid(token))
    }

    /// Waits until all processes serve the account's live token.
    pub async fn all_serve_the_live_token(&self, processes: &[Process], account: &AppId) {
        for process in processes {
            eventually("the newest token is served", SOON, async || {
                let served = process.token(account).await;
                served.is_ok_and(|served| served == self.live_token(account))
            })
            .await;
        }
    }

    /// Returns `true` if [`let_limits_pass`](Self::let_limits_pass) has an effect. A server that tests
    /// share measures the limits by its own clock.
    pub fn can_let_limits_pass(&self) -> bool {
        self.harness.redis.is_some() || !self.harness.is_remote()
    }

    /// Lets the limit of lists and other limits by minutes pass, which Redis measures by its own clock.
    pub fn let_limits_pass(&self) {
        match &self.harness.redis {
            Some(server) => {
                let mut redis = server.connection();
                let keys: Vec<String> = redis::cmd("KEYS")
                    .arg("*:allowance:*")
                    .query(&mut redis)
                    .unwrap();
                for key in keys {
                    let () = redis::cmd("DEL").arg(key).query(&mut redis).unwrap();
                }
            }
            None => self.harness.advance(Duration::from_secs(61)),
        }
    }

    /// Checks that the private server, if there is one, has none of these texts in any value.
    #[track_caller]
    pub fn holds_no_secret(&self, secrets: &[&str]) {
        let Some(server) = &self.harness.redis else {
            return;
        };
        let mut redis = server.connection();
        let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut redis).unwrap();
        for key in keys {
            let kind: String = redis::cmd("TYPE").arg(&key).query(&mut redis).unwrap();
            let read = match kind.as_str() {
                "hash" => "HGETALL",
                _ => "GET",
            };
            let value: redis::Value = redis::cmd(read).arg(&key).query(&mut redis).unwrap();
            let value = format!("{value:?}");
            for secret in secrets {
                assert!(!value.contains(secret), "{key} still has a secret");
            }
        }
    }

    /// Waits until a list of accounts has been read and stored.
    pub async fn list_is_read(&self, process: &Process) {
        let nobody = self.account(99_999);
        eventually("the list is read", SOON, async || {
            process.account(&nobody).await.is_ok()
        })
        .await;
    }
}

async fn start(client: WechatClient, store: impl Store + Clone, clock: &Clock) -> Process {
    let keys = PushKeys::new([TOKEN], [AES_KEY]).unwrap();
    let platform = Platform::builder(client, store.clone())
        .push_keys(keys)
        .clock(clock.clone())
        .build()
        .unwrap();
    let clock = clock.clone();
    let registry = platform.accounts(move |account| {
        let (own, users) = (clock.clone(), clock.clone());
        Ok(account
            .account_tokens(move |tokens| tokens.clock(own.clone()))
            .user_tokens(move |tokens| tokens.clock(users.clone())))
    });
    let accounts = Accounts::builder(store).registry(registry).build().unwrap();
    let pushes = platform.push_layer().layer(NoMessages);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let push_url = format!("http://{}/push", listener.local_addr().unwrap());
    let router = Router::new().route_service("/push", pushes);
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    Process {
        platform,
        accounts,
        push_url,
        server: server.abort_handle(),
    }
}

impl Process {
    /// Returns the account as a request finds it. `Ok(None)` is what the layer answers with 404.
    pub async fn account(&self, account: &AppId) -> Result<Option<WechatAccount>, Error> {
        self.accounts.get(account).await
    }

    pub async fn tokens(&self, account: &AppId) -> Result<AccountTokens, Error> {
        let found = self.account(account).await?;
        Ok(found.expect("the account is known").tokens().clone())
    }

    /// Returns the account's token as a request receives it.
    pub async fn token(&self, account: &AppId) -> Result<String, Error> {
        let Some(found) = self.account(account).await? else {
            return Err(unknown_account());
        };
        let token = found.tokens().get().await?;
        Ok(token.access_token().expose().to_owned())
    }

    pub async fn component_token(&self) -> Result<String, Error> {
        self.platform
            .with_component_token(async |token| Ok(token.access_token().expose().to_owned()))
            .await
    }
}

/// The error of a call whose token WeChat rejects, or another error.
#[derive(Debug)]
pub struct Refused(pub Option<Error>);

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self(Some(error))
    }
}

impl InvalidToken for Refused {
    fn is_token_invalid(&self) -> bool {
        match &self.0 {
            Some(error) => error.is_token_invalid(),
            None => true,
        }
    }
}

fn unknown_account() -> Error {
    let nobody = AppId::new("no account!").err();
    Error::from(nobody.expect("not an AppID"))
}

/// Requests the tokens of accounts from many tasks at once, which use the processes in turn. Each
/// account is requested `times` times. Returns the outcomes in the order of the accounts.
pub async fn request_all(
    processes: &[Process],
    accounts: &[AppId],
    times: usize,
) -> Vec<(AppId, Result<String, Error>)> {
    request_while(processes, accounts, times, is_of_the_store).await
}

/// Requests tokens as [`request_all`], for as long as a busy machine needs to renew all of them.
pub async fn request_patiently(
    processes: &[Process],
    accounts: &[AppId],
    times: usize,
) -> Vec<(AppId, Result<String, Error>)> {
    let is_late =
        |error: &Error| is_of_the_store(error) || error.kind() == ErrorKind::WechatUnavailable;
    request_while(processes, accounts, times, is_late).await
}

/// Requests tokens as [`request_all`], again and again while `is_temporary` returns `true` for the error.
async fn request_while(
    processes: &[Process],
    accounts: &[AppId],
    times: usize,
    is_temporary: impl Fn(&Error) -> bool + Copy + Send + 'static,
) -> Vec<(AppId, Result<String, Error>)> {
    let next = AtomicUsize::new(0);
    let give_up = Instant::now() + SOON;
    let mut running = JoinSet::new();
    for _ in 0..times {
        for account in accounts {
            let at = next.fetch_add(1, Ordering::Relaxed) % processes.len();
            let (found, account) = (processes[at].accounts.clone(), account.clone());
            running.spawn(async move {
                let token = async || {
                    let found = found.get(&account).await?.expect("the account is known");
                    let token = found.tokens().get().await?;
                    Ok(token.access_token().expose().to_owned())
                };
                let mut outcome = token().await;
                // On a busy machine, Redis may not answer so many requests in time.
                while outcome.as_ref().is_err_and(is_temporary) && Instant::now() < give_up {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    outcome = token().await;
                }
                let token = outcome;
                (account, token)
            });
        }
    }
    running.join_all().await
}

fn is_of_the_store(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::StoreUnavailable | ErrorKind::AccountsUnavailable
    )
}

#[track_caller]
pub fn is_kind<T>(outcome: Result<T, Error>, kind: ErrorKind) -> Error {
    let error = outcome.err().expect("an error");
    assert_eq!(error.kind(), kind, "{error}");
    error
}
