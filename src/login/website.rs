//! The setter of a login's website, for browsers outside WeChat.

use super::builder::LoginBuilder;
use super::setup::Login;
use crate::error::Error;
use crate::users::UserTokens;

impl LoginBuilder {
    /// Sets the website app (网站应用) that logs in the users of browsers outside WeChat. Default:
    /// none, all browsers are redirected to the account's page.
    ///
    /// WeChat's browser, on computers too, still logs in with the account. Browsers of computers and
    /// tablets, and WeCom's browser, are redirected to WeChat's page with a QR code
    /// (`connect/qrconnect`, scope `snsapi_login`). Other browsers of phones get the page of
    /// [`wechat_only`](Self::wechat_only), because a phone cannot scan its own screen.
    ///
    /// ```
    /// use tower_wechat::{
    ///     CookieKeys, Login, MemoryStore, UserTokens, WechatClient, WechatLayer, WechatUser,
    /// };
    ///
    /// async fn me(user: WechatUser) -> String {
    ///     // The unionid joins the two: each app has its own openid of one person.
    ///     format!("{} {:?} {:?}", user.app_id(), user.openid(), user.unionid())
    /// }
    ///
    /// # fn main() -> Result<(), tower_wechat::Error> {
    /// let store = MemoryStore::new();
    /// let account = WechatClient::new("wx0123456789abcdef", "secret")?;
    /// let website = WechatClient::new("wxfedcba9876543210", "secret-of-the-website")?;
    /// let login = Login::builder("https://h5.example.com", CookieKeys::random()?)
    ///     .website(UserTokens::new(website, store.clone()))
    ///     .build()?;
    /// let layer = WechatLayer::new(UserTokens::new(account, store)).login(login);
    /// # let _ = (layer, me);
    /// # Ok(()) }
    /// ```
    ///
    /// The host of the public URL must be the website app's 授权回调域, and the account's 网页授权域名.
    /// Both logins have the same callback.
    ///
    /// # A QR code inside a page
    ///
    /// A page of the application can show the QR code itself, with WeChat's script `wxLogin.js`.
    /// `/wechat/login?return_to=/page&format=json` begins the login and returns the parameters of
    /// `new WxLogin({...})` as JSON. In other browsers, it responds with an error: 400 in WeChat, and
    /// 403 on phones.
    ///
    /// With `self_redirect: true`, the callback arrives in a frame, at first without the login's
    /// `SameSite=Lax` cookies. The layer answers that request with a page that loads the callback
    /// again. Pages of the application's own origin may frame the callback, and no other page of the
    /// login. The [guide](crate::guide::login#a-qr-code-inside-a-page) has the script.
    ///
    /// # Its users
    ///
    /// The website app and the account share nothing: a person has two openids and two pairs of
    /// tokens, and each app has a session cookie. [`WechatUser::app_id`](crate::WechatUser::app_id) and
    /// [`LoginUser::app_id`](super::LoginUser::app_id) return the AppID of the app with which the
    /// user has logged in. The unionid of a person is the same in both apps if both belong to one
    /// Open Platform account (开放平台). This crate does not join the two users. A hook
    /// ([`on_login`](Self::on_login)) can return one user id for both.
    ///
    /// `snsapi_login` covers the profile. Its users meet every
    /// [`require_scope`](crate::WechatLayer::require_scope), and are never redirected for a scope.
    ///
    /// The latest login of a browser wins: a login with one app also removes the session cookie of
    /// the other one. If a request has both cookies nevertheless, for example after logins in two
    /// tabs, the account's user is the user of the request. A [`Logout`](crate::Logout) removes both.
    ///
    /// [`WechatUser::revoke`](crate::WechatUser::revoke) ends all sessions of that openid, and none
    /// of the same person's other openid. If the website stands beside several accounts, `revoke` for
    /// one of its users ends the sessions of that user beside all of them.
    ///
    /// The session cookie of the login identifies these users. An identity of the application's own
    /// ([`WechatLayer::identity`](crate::WechatLayer::identity)) finds them if it wraps that cookie
    /// ([`WechatLayer::session_cookie`](crate::WechatLayer::session_cookie)).
    ///
    /// # Its settings
    ///
    /// The website has the settings of the login, with these exceptions:
    ///
    /// - If [`cookie_name`](Self::cookie_name) is set, the name of its session cookie is that name,
    ///   `_` and the website's AppID. The default is `wechat_session_` with the website's and the
    ///   account's AppID: a website may stand beside several accounts, and another account does not
    ///   accept its session.
    /// - [`scope`](Self::scope), [`force_popup`](Self::force_popup),
    ///   [`force_snapshot`](Self::force_snapshot), [`connect_redirect`](Self::connect_redirect) and
    ///   [`wechat_only`](Self::wechat_only) do not apply.
    /// - [`dangerous_allow_missing_state_cookie`](Self::dangerous_allow_missing_state_cookie) does
    ///   not apply: browsers of computers keep their cookies.
    /// - WeChat has no snapshot pages there, so that [`snapshot_users`](Self::snapshot_users) does
    ///   not matter.
    ///
    /// `build` fails if [`bind_to_identity`](Self::bind_to_identity) is set too. It also fails if
    /// the website's store would share a Redis hash with the account: the names of the hashes must
    /// contain `{appid}`. A website with the AppID of the account is ignored, with an error in the
    /// log.
    pub fn website(self, users: impl Into<UserTokens>) -> Self {
        let users = users.into();
        self.set(|settings| settings.website = Some(users))
    }
}

impl Login {
    /// Checks that the login can have a website.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration): the login stores tokens under
    /// the user id of the layer's identity.
    pub(crate) fn check_website(&self) -> Result<(), Error> {
        self.0.check_website_binding(true)
    }

    /// Returns this login with the users of a website app, as [`LoginBuilder::website`] sets them.
    /// The caller has [checked](Self::check_website) the login, and the website's store.
    pub(crate) fn with_website(mut self, users: UserTokens) -> Self {
        self.0.website = Some(users);
        self
    }
}
