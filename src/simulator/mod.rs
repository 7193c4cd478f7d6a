//! A WeChat of our own, to test an application against: no appid, no internet, no phone.
//!
//! It is an HTTP server that answers the calls and pages which this crate uses, by WeChat's real
//! rules: codes work once and die after five minutes, a new sign-in kills the old tokens, a
//! refresh before expiry keeps the access token, errors come with HTTP 200. Time can be moved,
//! lifetimes set, faults injected, and every call is counted. One origin serves the paths of
//! `api.weixin.qq.com` and those of `open.weixin.qq.com`.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! use std::time::Duration;
//! use tower_wechat::simulator::{Fault, SimulatedUser, Simulator};
//!
//! let sim = Simulator::start().await?;
//! sim.add_user(SimulatedUser::new("oAlice").nickname("Alice"));
//! let pair = sim.sign_in("oAlice", "snsapi_userinfo");
//!
//! // Point the application at `sim.url()`, then make its life hard:
//! sim.advance(Duration::from_secs(7200));
//! sim.inject(Fault::on("/sns/oauth2/refresh_token").errcode(-1).times(1));
//!
//! // And count what it did.
//! assert_eq!(sim.calls_to("/sns/oauth2/refresh_token"), 0);
//! assert_eq!(sim.current_pair("oAlice"), Some(pair));
//! sim.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! # Steering it over HTTP
//!
//! Tests in other languages run `cargo run --features simulator --example simulator` and use
//! these routes. Bodies are JSON, whatever their content type says; a field that is not known, or
//! a value that makes no sense, gets 400 with a sentence in `error`.
//!
//! | route | body, answer |
//! |---|---|
//! | `GET`, `DELETE /_sim/calls` | `{"/sns/oauth2/refresh_token": 3, …}`; `DELETE` starts anew |
//! | `POST /_sim/faults` | `path` (or `"*"`), and of `delay_ms`, `errcode`, `status`, `body`, `body_base64`, `reset`, `hang`, `lose_reply`, `times` what is wanted; see [`Fault`] |
//! | `GET`, `DELETE /_sim/faults` | the faults that are set up; `DELETE` clears them |
//! | `GET`, `POST /_sim/clock` | `{"advance_secs": 60}` → `{"now_secs": …, "advanced_secs": 60}` |
//! | `GET`, `POST /_sim/settings` | the fields of [`SimulatorSettings`], durations in seconds: `user_token_secs`, `refresh_token_secs`, `code_secs`, `account_token_secs`, `account_token_overlap_secs`, `ticket_secs`, and the others by their names |
//! | `GET`, `POST /_sim/users` | `openid`, `nickname`, `unionid`, `snapshot`, `subscribed`, none of them required: adds the user and makes them the one who answers the authorize page next |
//! | `POST /_sim/sign_in` | `{"openid", "scope"?}` → what a code exchange answers |
//! | `POST /_sim/password_change` | `{"openid"}`: the user's tokens answer 42007 from now on |
//!
//! # What it does not do
//!
//! It has one account. It does not check the host name of a page that uses the JS-SDK, does not
//! push messages, and knows no third-party platform, no WeCom and no mini program.

mod account_tokens;
mod builder;
mod clock;
mod error_reply;
mod faults;
mod http;
mod issue_log;
mod random;
mod settings;
mod state;
mod user_pair;
mod user_tokens;
mod users;
mod window_counter;

use std::{
    collections::BTreeMap,
    io,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::state::SharedState;
pub use self::{
    builder::SimulatorBuilder,
    faults::Fault,
    issue_log::{IssuedCredential, IssuedKind},
    settings::SimulatorSettings,
    user_pair::UserPair,
    users::SimulatedUser,
};

/// How long [`Simulator::stop`] lets calls in progress finish.
const GRACEFUL_STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// A running simulator. Dropping it stops its server and breaks all connections.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tower_wechat::WechatClient;
/// use tower_wechat::simulator::{SimulatedUser, Simulator};
///
/// let sim = Simulator::start().await?;
/// let wechat = WechatClient::builder(sim.app_id(), sim.app_secret())
///     .api_url(sim.url())
///     .open_url(sim.url())
///     .build()?;
///
/// // Alice agrees at WeChat's page, and the application exchanges her code:
/// sim.add_user(SimulatedUser::new("oAlice").nickname("Alice"));
/// let code = sim.authorize("oAlice", "snsapi_userinfo");
/// let grant = wechat.exchange_code(&code).await?;
/// assert_eq!(sim.current_pair("oAlice").unwrap().access_token, grant.access_token.expose());
/// assert_eq!(sim.calls_to("/sns/oauth2/access_token"), 1);
/// sim.stop().await;
/// # Ok(())
/// # }
/// ```
///
/// What a test does to it:
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// use std::time::Duration;
/// use tower_wechat::simulator::{Fault, Simulator};
///
/// let sim = Simulator::builder().start().await?;
/// sim.settings(|settings| settings.user_token_lifetime = Duration::from_secs(600));
/// let started = sim.now();
///
/// // A token expires, without waiting for it.
/// let pair = sim.sign_in("oAlice", "snsapi_base");
/// sim.advance(Duration::from_secs(600));
/// assert!(sim.current_pair("oAlice").unwrap().expires_in.is_zero());
/// assert!(sim.now() >= started + Duration::from_secs(600));
///
/// // From now on her refresh token is dead too: 42007.
/// sim.change_password("oAlice");
///
/// // WeChat is busy whatever it is asked, until that is cleared.
/// sim.inject(Fault::on("*").errcode(-1));
/// sim.clear_faults();
///
/// // What a test asks at the end, and begins the next one with.
/// assert!(sim.calls().is_empty());
/// sim.reset_calls();
/// // The account's own token: nobody has fetched one.
/// assert_eq!(sim.account_token(), None);
/// assert!(!sim.is_account_token_valid("83_made_up"));
/// # let _ = pair;
/// # sim.stop().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Simulator {
    url: String,
    app_id: String,
    app_secret: String,
    shared: Arc<SharedState>,
    graceful_stop: CancellationToken,
    server: Option<JoinHandle<()>>,
}

impl Simulator {
    /// Starts one on a free port of 127.0.0.1, in the current tokio runtime, with an account of
    /// its own and one user.
    ///
    /// # Errors
    ///
    /// No port can be listened on.
    pub async fn start() -> io::Result<Self> {
        Self::builder().start().await
    }

    /// Options first.
    pub fn builder() -> SimulatorBuilder {
        SimulatorBuilder::new()
    }

    /// `http://ADDR`, without a slash at the end: the base URL both of WeChat's API and of its
    /// pages.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The account's appid.
    pub fn app_id(&self) -> &str {
        &self.app_id
    }

    /// The account's secret.
    pub fn app_secret(&self) -> &str {
        &self.app_secret
    }

    /// Adds a user, or replaces the one with the same openid, and makes them the one who answers
    /// the authorize page next.
    pub fn add_user(&self, user: SimulatedUser) {
        let mut wechat = self.shared.lock();
        wechat.users.set_active(user.openid());
        wechat.users.insert_or_replace(user);
    }

    /// A new code of this user, as the authorize page would hand it out. A user who is not known
    /// is added.
    pub fn authorize(&self, openid: &str, scope: &str) -> String {
        self.shared.lock().issue_code(openid, scope, false)
    }

    /// Signs a user in at once: a code and its exchange, without a call over HTTP. As ever, the
    /// user's former tokens die. A user who is not known is added.
    pub fn sign_in(&self, openid: &str, scope: &str) -> UserPair {
        let mut wechat = self.shared.lock();
        let now = wechat.now();
        UserPair::from_pair(&wechat.sign_in(openid, scope), now)
    }

    /// Lets a user change their password of WeChat, which ends their tokens: both answer 42007
    /// (WeChat's list of error codes).
    pub fn change_password(&self, openid: &str) {
        self.shared.lock().user_tokens.change_password(openid);
    }

    /// The tokens that WeChat takes for the user's, if there are any. Either may have expired.
    pub fn current_pair(&self, openid: &str) -> Option<UserPair> {
        let wechat = self.shared.lock();
        wechat
            .user_tokens
            .pair(openid)
            .map(|pair| UserPair::from_pair(pair, wechat.now()))
    }

    /// The account's access token that was handed out last, by `cgi-bin/token` or by
    /// `cgi-bin/stable_token`.
    pub fn account_token(&self) -> Option<String> {
        self.shared
            .lock()
            .account_tokens
            .latest()
            .map(str::to_owned)
    }

    /// Whether a call for the account may use this token now.
    pub fn is_account_token_valid(&self, token: &str) -> bool {
        self.shared.lock().check_account_token(Some(token)).is_ok()
    }

    /// All that it has handed out since it was started, each kind in the order it was made: the
    /// books of a test that asks whether anything was lost, mixed up or told.
    #[doc(hidden)]
    pub fn issued_credentials(&self) -> Vec<IssuedCredential> {
        let wechat = self.shared.lock();
        let users = wechat.user_tokens.issue_log.entries();
        let account = wechat.account_tokens.issue_log.entries();
        users.iter().chain(account).cloned().collect()
    }

    /// How many calls there were of each path, those that met a fault included; control routes
    /// are not counted. Of paths that WeChat does not have, it counts a few thousand.
    pub fn calls(&self) -> BTreeMap<String, u64> {
        self.shared.lock().calls.clone()
    }

    /// How many calls there were of this path.
    pub fn calls_to(&self, path: &str) -> u64 {
        self.shared.lock().calls.get(path).copied().unwrap_or(0)
    }

    /// Counts from zero again.
    pub fn reset_calls(&self) {
        self.shared.lock().calls.clear();
    }

    /// Sets up a fault. Faults with a number of times come first, in the order they were set up;
    /// of the others on a path, the newest counts.
    pub fn inject(&self, fault: Fault) {
        self.shared.lock().faults.add(fault);
    }

    /// Removes all faults. A call that one of them holds up is not let go.
    pub fn clear_faults(&self) {
        self.shared.lock().faults.clear();
    }

    /// Moves the simulator's clock forward, at most by a century altogether.
    pub fn advance(&self, by: Duration) {
        self.shared.lock().clock.advance(by);
    }

    /// The time on the simulator's clock.
    pub fn now(&self) -> SystemTime {
        UNIX_EPOCH + self.shared.lock().now()
    }

    /// Reads or changes the settings. What was handed out before keeps the life that it was
    /// given. The closure must not call the simulator, which waits for it.
    pub fn settings<R>(&self, change: impl FnOnce(&mut SimulatorSettings) -> R) -> R {
        change(&mut self.shared.lock().settings)
    }

    /// Stops: takes no more connections, gives calls in progress a second to finish, and then
    /// breaks what is left. When it returns, the port is free.
    pub async fn stop(mut self) {
        self.graceful_stop.cancel();
        let Some(mut server) = self.server.take() else {
            return;
        };
        if tokio::time::timeout(GRACEFUL_STOP_TIMEOUT, &mut server)
            .await
            .is_err()
        {
            self.shared.force_stop.cancel();
            // Each connection ends when it next wakes, and the cancellation woke them all. A
            // handler that never yields would be a defect, and is not waited for.
            let _ = tokio::time::timeout(GRACEFUL_STOP_TIMEOUT, server).await;
        }
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.graceful_stop.cancel();
        self.shared.force_stop.cancel();
    }
}
