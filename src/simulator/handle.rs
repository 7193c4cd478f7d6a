//! The handle of a running simulator, with which a test controls it.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::wechat::WechatClient;

use super::{
    app::SimulatedApp, apps::AppKind, faults::Fault, issue_log::IssuedCredential,
    settings::SimulatorSettings, state::SharedState, user_pair::UserPair, users::SimulatedUser,
};

/// Time that [`Simulator::stop`] gives calls in progress: one second. The function then resets all
/// connections and waits at most one second more for the server to end.
const GRACEFUL_STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// A running simulator. Dropping this value stops the server and resets all connections.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tower_wechat::simulator::{SimulatedUser, Simulator};
///
/// let sim = Simulator::start().await?;
/// let wechat = sim.client()?;
///
/// // Alice agrees at WeChat's page, and the application exchanges her code:
/// sim.add_user(SimulatedUser::new("oAlice").nickname("Alice"));
/// let code = sim.authorize("oAlice", "snsapi_userinfo");
/// let response = wechat.exchange_code(&code).await?;
/// assert_eq!(sim.current_pair("oAlice").unwrap().access_token, response.access_token.expose());
/// assert_eq!(sim.calls_to("/sns/oauth2/access_token"), 1);
/// sim.stop().await;
/// # Ok(())
/// # }
/// ```
///
/// A test moves the clock, injects faults and counts calls:
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
/// // Alice's refresh token becomes invalid: 42007.
/// sim.change_password("oAlice");
///
/// // All calls get "system busy" until the fault is cleared.
/// sim.inject(Fault::on("*").errcode(-1));
/// sim.clear_faults();
///
/// // The calls so far, and a count from zero for the next test.
/// assert!(sim.calls().is_empty());
/// sim.reset_calls();
/// // The account's token: no process has fetched one.
/// assert_eq!(sim.account_token(), None);
/// assert!(!sim.is_account_token_valid("83_made_up"));
/// # let _ = pair;
/// # sim.stop().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Simulator {
    pub(super) first: SimulatedApp,
    pub(super) app_secret: String,
    pub(super) shared: Arc<SharedState>,
    pub(super) graceful_stop: CancellationToken,
    pub(super) server: Option<JoinHandle<()>>,
}

/// The first account has methods here, with which most tests need no [`SimulatedApp`].
impl Simulator {
    /// Returns `http://ADDRESS`, without a slash at the end: the base URL of WeChat's API and of its
    /// pages.
    pub fn url(&self) -> &str {
        self.first.url()
    }

    /// Returns the AppID of the first account.
    pub fn app_id(&self) -> &str {
        self.first.app_id()
    }

    /// Returns the AppSecret with which the first account started.
    pub fn app_secret(&self) -> &str {
        &self.app_secret
    }

    /// Returns a client of the first account, whose calls and login pages lead to this simulator.
    ///
    /// For other settings, such as timeouts, pass [`url`](Self::url) to
    /// [`api_url`](crate::client::WechatClientBuilder::api_url) and
    /// [`open_url`](crate::client::WechatClientBuilder::open_url) of a client's builder.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration): the AppID or AppSecret of
    /// [`SimulatorBuilder::app`](super::SimulatorBuilder::app) is invalid.
    pub fn client(&self) -> Result<WechatClient, Error> {
        self.first.client()
    }

    /// Adds an account (公众号) beside the first one. If the simulator has an app with this AppID,
    /// replaces its AppSecret and its kind, and keeps its codes and tokens.
    pub fn add_account(
        &self,
        app_id: impl Into<String>,
        app_secret: impl Into<String>,
    ) -> SimulatedApp {
        self.add_app(app_id.into(), app_secret.into(), AppKind::Account)
    }

    /// Adds a website app (网站应用), whose users log in by scanning a QR code on the page
    /// `connect/qrconnect`. If the simulator has an app with this AppID, replaces its AppSecret and
    /// its kind, and keeps its codes and tokens.
    pub fn add_website(
        &self,
        app_id: impl Into<String>,
        app_secret: impl Into<String>,
    ) -> SimulatedApp {
        self.add_app(app_id.into(), app_secret.into(), AppKind::Website)
    }

    fn add_app(&self, app_id: String, app_secret: String, kind: AppKind) -> SimulatedApp {
        let mut wechat = self.shared.lock();
        let index = wechat.apps.insert_or_replace(app_id, app_secret, kind);
        drop(wechat);
        SimulatedApp::new(self.url(), index, &self.shared)
    }

    /// Returns the account or website app with this AppID.
    pub fn app(&self, app_id: &str) -> Option<SimulatedApp> {
        let index = self.shared.lock().apps.find(app_id)?;
        Some(SimulatedApp::new(self.url(), index, &self.shared))
    }

    /// Adds a user, or replaces the user with the same openid. At the next request to an authorize
    /// page, this user is logged in to WeChat.
    pub fn add_user(&self, user: SimulatedUser) {
        let mut wechat = self.shared.lock();
        wechat.users.set_active(user.openid());
        wechat.users.insert_or_replace(user);
    }

    /// Issues a code for this user, as the authorize page does. Adds the user if the simulator has
    /// no user with this openid.
    pub fn authorize(&self, openid: &str, scope: &str) -> String {
        self.first.authorize(openid, scope)
    }

    /// Signs a user in without HTTP: issues an access token and a refresh token, and invalidates
    /// the user's former tokens. Adds the user if the simulator has no user with this openid.
    pub fn sign_in(&self, openid: &str, scope: &str) -> UserPair {
        self.first.sign_in(openid, scope)
    }

    /// Simulates that a user changes the WeChat password. Calls with the user's access token or
    /// refresh token of any app then get 42007, as WeChat's list of error codes says.
    pub fn change_password(&self, openid: &str) {
        self.shared.lock().change_password(openid);
    }

    /// Returns the user's current access token and refresh token, which may have expired. Returns
    /// `None` if the user has no tokens.
    pub fn current_pair(&self, openid: &str) -> Option<UserPair> {
        self.first.current_pair(openid)
    }

    /// Returns the first account's access token that `cgi-bin/token` or `cgi-bin/stable_token`
    /// returned last.
    pub fn account_token(&self) -> Option<String> {
        self.first.account_token()
    }

    /// Returns `true` if a call for the first account may use this token now.
    pub fn is_account_token_valid(&self, token: &str) -> bool {
        self.first.is_account_token_valid(token)
    }

    /// Returns all codes, tokens and tickets of all apps issued since the start: first those of
    /// users, then those of the accounts. Each group of an app is in the order of issue. Tests look
    /// for lost, mixed-up or leaked credentials.
    #[doc(hidden)]
    pub fn issued_credentials(&self) -> Vec<IssuedCredential> {
        let wechat = self.shared.lock();
        let users = wechat.apps.iter().map(|app| &app.user_tokens.issue_log);
        let accounts = wechat.apps.iter().map(|app| &app.account_tokens.issue_log);
        users
            .chain(accounts)
            .flat_map(|log| log.entries().iter().cloned())
            .collect()
    }

    /// Returns the number of calls of each path since the start or the last
    /// [`reset_calls`](Self::reset_calls), of all apps. Calls with a fault are counted too. Control
    /// routes are not counted. At most 4,096 different paths are counted.
    pub fn calls(&self) -> BTreeMap<String, u64> {
        self.shared.lock().calls.all().clone()
    }

    /// Returns the number of calls of this path since the start or the last
    /// [`reset_calls`](Self::reset_calls), of all apps.
    pub fn calls_to(&self, path: &str) -> u64 {
        self.shared.lock().calls.of_path(path)
    }

    /// Resets the numbers of calls of all apps to zero.
    pub fn reset_calls(&self) {
        self.shared.lock().reset_calls();
    }

    /// Adds a fault. At most one fault applies to a call. Faults with a number of
    /// [times](Fault::times) apply first, in the order of injection. If the path has no such fault,
    /// the newest fault of the path applies.
    pub fn inject(&self, fault: Fault) {
        self.shared.lock().faults.add(fault);
    }

    /// Removes all faults. Calls that a fault already delays or leaves without a reply are not
    /// released.
    pub fn clear_faults(&self) {
        self.shared.lock().faults.clear();
    }

    /// Moves the simulator's clock forward, by at most a century in total.
    pub fn advance(&self, by: Duration) {
        self.shared.advance(by);
    }

    /// Returns the time on the simulator's clock.
    pub fn now(&self) -> SystemTime {
        UNIX_EPOCH + self.shared.lock().now()
    }

    /// Reads or changes the settings. Credentials that were issued before keep their lifetimes. The
    /// closure must not call the simulator: the call would wait for the closure forever.
    pub fn settings<R>(&self, change: impl FnOnce(&mut SimulatorSettings) -> R) -> R {
        change(&mut self.shared.lock().settings)
    }

    /// Stops the server: accepts no more connections, gives calls in progress one second, and then
    /// resets the remaining connections. When this function returns, the port is free.
    pub async fn stop(mut self) {
        // The first cancellation ends the accept loop and, after its current call, each connection.
        self.graceful_stop.cancel();
        let Some(mut server) = self.server.take() else {
            return;
        };
        if tokio::time::timeout(GRACEFUL_STOP_TIMEOUT, &mut server)
            .await
            .is_err()
        {
            self.shared.force_stop.cancel();
            // The second cancellation wakes every connection, and each connection then fails with a
            // reset. An earlier second cancellation would interrupt replies. The time limit is for
            // a handler that never yields, which would be a defect.
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
