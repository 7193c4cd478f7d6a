//! The handle of one account or website app of a running simulator.

use std::{collections::BTreeMap, sync::Arc};

use crate::error::Error;
use crate::wechat::WechatClient;

use super::{app_index::AppIndex, state::SharedState, user_pair::UserPair};

/// An account (公众号) or a website app (网站应用) of a [`Simulator`](super::Simulator).
///
/// All apps of a simulator share its address, its clock, its settings and its users. Codes, tokens,
/// tickets, quotas and numbers of calls belong to one app. A user has another openid in each app.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tower_wechat::simulator::{SimulatedUser, Simulator};
///
/// let sim = Simulator::start().await?;
/// sim.add_user(SimulatedUser::new("oAlice").unionid("uAlice"));
/// let shop = sim.add_account("wx00000000000000aa", "secret-of-the-shop");
/// let site = sim.add_website("wx00000000000000bb", "secret-of-the-website");
///
/// let pair = shop.sign_in("oAlice", "snsapi_userinfo");
/// assert_ne!(pair.openid, "oAlice");
/// assert_eq!(pair.openid, shop.openid_of("oAlice"));
/// assert_eq!(shop.current_pair("oAlice"), Some(pair));
///
/// // A code of the website, as after a scan.
/// let code = site.authorize("oAlice", "snsapi_login");
/// let response = site.client()?.exchange_code(&code).await?;
/// assert_eq!(response.openid, Some(site.openid_of("oAlice")));
/// assert_eq!(site.calls_to("/sns/oauth2/access_token"), 1);
/// assert_eq!(shop.calls_to("/sns/oauth2/access_token"), 0);
/// # sim.stop().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct SimulatedApp {
    url: String,
    app_id: String,
    pub(super) index: AppIndex,
    pub(super) shared: Arc<SharedState>,
}

impl SimulatedApp {
    pub(super) fn new(url: &str, index: AppIndex, shared: &Arc<SharedState>) -> Self {
        Self {
            url: url.to_owned(),
            app_id: shared.lock().apps[index].app_id.clone(),
            index,
            shared: Arc::clone(shared),
        }
    }

    /// Returns the simulator's base URL, which all its apps share.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the AppID.
    pub fn app_id(&self) -> &str {
        &self.app_id
    }

    /// Returns the current AppSecret.
    pub fn app_secret(&self) -> String {
        self.shared.lock().apps[self.index].secret.clone()
    }

    /// Returns a client of this app, whose calls and login pages lead to the simulator.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration): the AppID or the AppSecret is
    /// invalid.
    pub fn client(&self) -> Result<WechatClient, Error> {
        WechatClient::builder(&self.app_id, self.app_secret())
            .api_url(&self.url)
            .open_url(&self.url)
            .build()
    }

    /// Sets the allowed host names of a `redirect_uri` of this app (网页授权域名 of an account,
    /// 授权回调域 of a website app). For this app, these names replace those of the settings.
    pub fn redirect_hosts<H: Into<String>>(self, hosts: impl IntoIterator<Item = H>) -> Self {
        let hosts = hosts.into_iter().map(Into::into).collect();
        self.shared.lock().apps[self.index].redirect_hosts = Some(hosts);
        self
    }

    /// Sets whether the account belongs to a 开放平台, so that its users have a unionid there. This
    /// setting has no effect on a website app, which always belongs to one. Default: `true`.
    pub fn returns_unionid(self, returns_unionid: bool) -> Self {
        self.shared.lock().apps[self.index].returns_unionid = returns_unionid;
        self
    }

    /// Returns the openid in this app of the user who has `openid` in the first account. Adds the
    /// user if the simulator has no such user.
    ///
    /// The openid depends on the AppID and on the user alone.
    pub fn openid_of(&self, openid: &str) -> String {
        self.shared.lock().openid_in(self.index, openid)
    }

    /// Issues a code of this app, as its authorize page does. `openid` is the user's openid in the
    /// first account or in this app. Adds the user if the simulator has no such user.
    pub fn authorize(&self, openid: &str, scope: &str) -> String {
        self.shared
            .lock()
            .issue_code(self.index, openid, scope, false, None)
    }

    /// Signs a user in without HTTP: issues an access token and a refresh token of this app, and
    /// invalidates the user's former tokens of this app. `openid` is the user's openid in the first
    /// account or in this app. Adds the user if the simulator has no such user.
    pub fn sign_in(&self, openid: &str, scope: &str) -> UserPair {
        let mut wechat = self.shared.lock();
        let now = wechat.now();
        UserPair::from_pair(&wechat.sign_in(self.index, openid, scope), now)
    }

    /// Returns the user's current access token and refresh token of this app, which may have
    /// expired. Returns `None` if the user has no tokens of this app. `openid` is the user's openid
    /// in the first account or in this app.
    pub fn current_pair(&self, openid: &str) -> Option<UserPair> {
        let mut wechat = self.shared.lock();
        let openid = wechat.known_openid_in(self.index, openid)?;
        wechat.apps[self.index]
            .user_tokens
            .pair(&openid)
            .map(|pair| UserPair::from_pair(pair, wechat.now()))
    }

    /// Returns the account's access token that `cgi-bin/token` or `cgi-bin/stable_token` returned
    /// last.
    pub fn account_token(&self) -> Option<String> {
        self.shared.lock().apps[self.index]
            .account_tokens
            .latest()
            .map(str::to_owned)
    }

    /// Returns `true` if a call for this account may use this token now.
    pub fn is_account_token_valid(&self, token: &str) -> bool {
        self.shared.lock().check_account_token(Some(token)) == Ok(self.index)
    }

    /// Returns the number of this app's calls of each path since the start or the last
    /// [`reset_calls`](super::Simulator::reset_calls). A call belongs to the app that its `appid` or
    /// its access token names.
    pub fn calls(&self) -> BTreeMap<String, u64> {
        self.shared.lock().apps[self.index].calls.all().clone()
    }

    /// Returns the number of this app's calls of this path since the start or the last
    /// [`reset_calls`](super::Simulator::reset_calls).
    pub fn calls_to(&self, path: &str) -> u64 {
        self.shared.lock().apps[self.index].calls.of_path(path)
    }
}
