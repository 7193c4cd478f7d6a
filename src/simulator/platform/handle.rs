//! The handle of a third-party platform, with which a test controls it.

use std::{sync::Arc, time::Duration};

use super::{
    authorizer::Authorizer,
    delivery::deliver,
    prepared_push::{PushKeys, PushReply},
    push::SimulatedPush,
    state::PlatformState,
};
use crate::simulator::{
    app::SimulatedApp, app_index::AppIndex, handle::Simulator, state::SharedState,
};
use crate::{error::Error, wechat::WechatClient};

/// A third-party platform (第三方平台) of a [`Simulator`], which accounts authorize.
///
/// The simulator plays WeChat's side: it pushes tickets and events to the application, encrypted and
/// signed as WeChat does, and answers the calls of the platform by WeChat's rules.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tower_wechat::simulator::{SimulatedPush, Simulator};
///
/// let sim = Simulator::start().await?;
/// let shop = sim.add_account("wx00000000000000aa", "secret-of-the-shop");
/// let platform = sim
///     .add_platform("wx00000000000000cc", "secret-of-the-platform")
///     .token("the token of pushes")
///     .aes_key("abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG")
///     .push_url("http://127.0.0.1:3000/wechat/platform/push");
///
/// // The owner of the shop agrees, without a page and without an event.
/// let code = platform.authorize(shop.app_id())?;
/// assert!(platform.is_authorized(shop.app_id()));
///
/// // The event goes out when the test says so. Here, no application listens.
/// let replies = platform.push(SimulatedPush::authorized(shop.app_id())).await?;
/// assert_eq!(replies[0].status, None);
/// # let _ = code;
/// # sim.stop().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct SimulatedPlatform {
    app: SimulatedApp,
}

impl Simulator {
    /// Adds a third-party platform (第三方平台). If the simulator has an app with this AppID, replaces
    /// its AppSecret and its kind.
    pub fn add_platform(
        &self,
        app_id: impl Into<String>,
        app_secret: impl Into<String>,
    ) -> SimulatedPlatform {
        let index = self
            .shared
            .lock()
            .add_platform(app_id.into(), app_secret.into());
        SimulatedPlatform {
            app: SimulatedApp::new(self.url(), index, &self.shared),
        }
    }

    /// Returns the third-party platform with this AppID.
    pub fn platform(&self, app_id: &str) -> Option<SimulatedPlatform> {
        let app = self.app(app_id)?;
        let is_platform = self.shared.lock().platforms.get(app.index).is_some();
        is_platform.then_some(SimulatedPlatform { app })
    }
}

impl SimulatedPlatform {
    /// Returns the app of the platform, with its address, AppID and AppSecret, and its numbers of
    /// calls.
    pub fn app(&self) -> &SimulatedApp {
        &self.app
    }

    /// Returns the platform's AppID (component_appid).
    pub fn app_id(&self) -> &str {
        self.app.app_id()
    }

    /// Returns a client of the platform, whose calls lead to the simulator.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration): the AppID or the AppSecret is
    /// invalid.
    pub fn client(&self) -> Result<WechatClient, Error> {
        self.app.client()
    }

    /// Sets the Token with which pushes are signed (消息校验Token). Default: `simulated-token`.
    pub fn token(self, token: impl Into<String>) -> Self {
        self.with(|platform| platform.keys.token = token.into());
        self
    }

    /// Sets the EncodingAESKey with which pushes are encrypted (消息加解密Key): 43 letters and digits.
    /// With another text, pushes fail. Default: a key that [`push_keys`](Self::push_keys) returns.
    pub fn aes_key(self, aes_key: impl Into<String>) -> Self {
        self.with(|platform| platform.keys.aes_key = aes_key.into());
        self
    }

    /// Sets the URL of tickets and authorization events (授权事件接收URL). Default: none, so that no
    /// event is pushed.
    pub fn push_url(self, url: impl Into<String>) -> Self {
        self.with(|platform| platform.push_url = Some(url.into()));
        self
    }

    /// Sets the URL of users' messages (消息与事件接收URL). `$APPID$` in the URL stands for the AppID of
    /// the account. Default: none, so that no message is pushed.
    pub fn message_url(self, url: impl Into<String>) -> Self {
        self.with(|platform| platform.message_url = Some(url.into()));
        self
    }

    /// Sets the host names of pages from which a link may lead to the authorize pages, and of the
    /// `redirect_uri` of these pages (授权发起页域名). Default: any host. The pages always need a
    /// `Referer`.
    pub fn authorize_hosts<H: Into<String>>(self, hosts: impl IntoIterator<Item = H>) -> Self {
        let hosts = hosts.into_iter().map(Into::into).collect();
        self.with(|platform| platform.authorize_hosts = Some(hosts));
        self
    }

    /// Sets the host names of a `redirect_uri` of logins on behalf of accounts (公众号开发域名). Default:
    /// those of [`SimulatorSettings::redirect_hosts`](super::super::SimulatorSettings::redirect_hosts).
    pub fn redirect_hosts<H: Into<String>>(self, hosts: impl IntoIterator<Item = H>) -> Self {
        let app = self.app.redirect_hosts(hosts);
        Self { app }
    }

    /// Sets whether the events of authorizations are lost. The pages and
    /// `POST /_sim/platform` then send none. [`push`](Self::push) still sends. Default: `false`.
    pub fn lose_events(&self, lose: bool) {
        self.with(|platform| platform.lose_events = lose);
    }

    /// Sets the real time from an authorization on a page to its event. Default: zero, and the event
    /// comes before the browser returns. With a delay, the event comes after the return.
    pub fn delay_events(&self, delay: Duration) {
        self.with(|platform| platform.event_delay = delay);
    }

    /// Sets whether the return of an authorization and its event contain two codes, which both lead to
    /// the same refresh token. Default: `false`.
    pub fn separate_codes(&self, separate: bool) {
        self.with(|platform| platform.separate_codes = separate);
    }

    /// Stops the pushes of tickets, until a call of `api_start_push_ticket`. [`push`](Self::push)
    /// still sends.
    pub fn stop_ticket_pushes(&self) {
        self.with(|platform| platform.pushes_tickets = false);
    }

    /// Replaces the Token and the EncodingAESKey of pushes. [`SimulatedPush::former_keys`] uses the
    /// keys from before.
    pub fn rotate_keys(&self, token: impl Into<String>, aes_key: impl Into<String>) {
        let keys = PushKeys {
            token: token.into(),
            aes_key: aes_key.into(),
        };
        self.with(|platform| platform.rotate_keys(keys));
    }

    /// Returns the Token and the EncodingAESKey of pushes.
    pub fn push_keys(&self) -> (String, String) {
        let keys = self.with(|platform| platform.keys.clone());
        (keys.token, keys.aes_key)
    }

    /// Authorizes the platform for this account, as its owner does on the authorize page, and returns
    /// the authorization code. Sends no event: push [`SimulatedPush::authorized`]. Adds the account if
    /// the simulator has no app with this AppID.
    ///
    /// A new authorization of an authorized account ends its access token and its refresh token.
    ///
    /// # Errors
    /// A website app or a third-party platform has this AppID.
    pub fn authorize(&self, account: &str) -> Result<String, Error> {
        let mut wechat = self.shared().lock();
        let account = wechat.account_or_new(account);
        let account = account.map_err(Error::configuration)?;
        Ok(wechat.authorize_account(self.app.index, account, None, None))
    }

    /// Authorizes the platform for this account, and exchanges the code as an earlier process of the
    /// platform has. Returns the refresh token, which `api_get_authorizer_list` returns too. Sends no
    /// event. Adds the account if the simulator has no app with this AppID.
    ///
    /// # Errors
    /// A website app or a third-party platform has this AppID.
    pub fn authorize_exchanged(&self, account: &str) -> Result<String, Error> {
        let code = self.authorize(account)?;
        let mut wechat = self.shared().lock();
        let grant = wechat.query_auth(self.app.index, &code);
        let refused = |_| Error::configuration("the code of the authorization has no lifetime");
        Ok(grant.map_err(refused)?.refresh_token)
    }

    /// Withdraws the authorization of this account. Its tokens end at once. Sends no event: push
    /// [`SimulatedPush::unauthorized`]. Returns `false` if the account was not authorized.
    pub fn revoke(&self, account: &str) -> bool {
        let mut wechat = self.shared().lock();
        match wechat.apps.find(account) {
            Some(account) => wechat.revoke_account(self.app.index, account),
            None => false,
        }
    }

    /// Sets the account that the authorize pages choose, if the link names none. Default: the first
    /// account of the simulator.
    pub fn choose_account(&self, account: &SimulatedApp) {
        self.with(|platform| platform.next_account = Some(account.index));
    }

    /// Sends a push, and returns the reply to each delivery. A delivery ends after five seconds.
    ///
    /// # Errors
    /// The platform has no URL for this push or an invalid key, or the account of the push is unknown
    /// or was never authorized.
    pub async fn push(&self, push: SimulatedPush) -> Result<Vec<PushReply>, Error> {
        push_and_wait(self.shared(), self.app.index, &push)
            .await
            .map_err(Error::configuration)
    }

    /// Returns `true` if the account is authorized.
    pub fn is_authorized(&self, account: &str) -> bool {
        let wechat = self.shared().lock();
        let account = wechat.apps.find(account);
        account.is_some_and(|account| wechat.platforms.is_authorized(self.app.index, account))
    }

    /// Returns the newest verify ticket.
    pub fn ticket(&self) -> Option<String> {
        self.with(|platform| platform.latest_ticket().map(str::to_owned))
    }

    /// Returns the component token that `api_component_token` returned last.
    pub fn component_token(&self) -> Option<String> {
        self.app.account_token()
    }

    /// Returns `true` if a call of the platform may use this component token now.
    pub fn is_component_token_valid(&self, token: &str) -> bool {
        self.shared().lock().check_component_token(Some(token)) == Ok(self.app.index)
    }

    /// Returns the refresh token of an authorized account.
    pub fn refresh_token(&self, account: &str) -> Option<String> {
        self.of_account(account, |authorizer| {
            Some(authorizer.refresh_token.clone()).filter(|_| authorizer.is_authorized)
        })
    }

    /// Returns the access token of an account that the platform was issued last.
    pub fn authorizer_token(&self, account: &str) -> Option<String> {
        self.of_account(account, |authorizer| authorizer.access_token.clone())
    }

    /// Returns the outcome of the last 200 pushes, the newest last.
    pub fn pushes(&self) -> Vec<PushReply> {
        self.with(|platform| platform.pushes.iter().cloned().collect())
    }

    /// Returns the last 200 texts that `message/custom/send` has sent to users of this account, with
    /// the user's openid, the newest last.
    pub fn sent_messages(&self, account: &str) -> Vec<(String, String)> {
        let wechat = self.shared().lock();
        let of_account = wechat.platforms.messages.iter();
        of_account
            .filter(|message| message.app_id == account)
            .map(|message| (message.openid.clone(), message.content.clone()))
            .collect()
    }

    fn of_account(
        &self,
        account: &str,
        read: impl FnOnce(&Authorizer) -> Option<String>,
    ) -> Option<String> {
        let wechat = self.shared().lock();
        let account = wechat.apps.find(account)?;
        let platform = wechat.platforms.get(self.app.index)?;
        read(platform.authorizer(account)?)
    }

    fn shared(&self) -> &Arc<SharedState> {
        &self.app.shared
    }

    fn with<R>(&self, use_state: impl FnOnce(&mut PlatformState) -> R) -> R {
        use_state(self.shared().lock().platform(self.app.index))
    }
}

/// Sends a push after its delay, and returns the reply to each delivery.
pub(in crate::simulator) async fn push_and_wait(
    shared: &SharedState,
    component: AppIndex,
    push: &SimulatedPush,
) -> Result<Vec<PushReply>, String> {
    let prepared = shared.lock().prepare_push(component, push)?;
    tokio::select! {
        () = tokio::time::sleep(push.delay) => {}
        () = shared.force_stop.cancelled() => {}
    }
    let mut replies = Vec::new();
    for _ in 0..=push.repeat {
        replies.push(deliver(shared, &prepared).await);
    }
    Ok(replies)
}
