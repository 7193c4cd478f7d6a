//! A login as an application sets it up.

use std::fmt;

use super::handler::LoginHandler;
use super::scope::Scope;
use super::settings::LoginSettings;
use crate::clock::Clock;
use crate::credential::AppId;
use crate::identity::SessionCookie;
use crate::users::UserTokens;

/// A login with WeChat, which the layer serves on its own paths.
///
/// [`WechatLayer::login`](crate::WechatLayer::login) takes the login. From then on the layer
///
/// - redirects page loads without a user to WeChat's authorize page, and answers all other requests
///   without a user with 401 and a `login_url`;
/// - answers `/wechat/callback`, to which WeChat sends users back. The layer checks that this
///   browser began the login, and exchanges the code once even if copies of the request arrive. The
///   layer then stores the user's tokens, sets the session cookie and redirects the browser to the
///   requested page;
/// - answers `/wechat/login?return_to=PATH`, which begins a login from a link or a script;
/// - serves the [files](super::LoginBuilder::verification_file) by which WeChat verifies your domain.
///
/// Mount the layer around the whole router, so that the layer receives these paths. The host of the
/// public URL must be the account's 网页授权域名. Several accounts on one host need
/// a public URL with a path each, such as `https://h5.example.com/shop`, or a
/// [`callback_path`](super::LoginBuilder::callback_path) and a
/// [`login_path`](super::LoginBuilder::login_path) each.
///
/// ```
/// use axum::{Router, routing::get};
/// use tower_wechat::{
///     CookieKeys, Login, MemoryStore, UserTokens, WechatClient, WechatLayer, WechatUser,
/// };
///
/// # fn main() -> Result<(), tower_wechat::Error> {
/// let wechat = WechatClient::new("wx0123456789abcdef", "secret")?;
/// let users = UserTokens::new(wechat, MemoryStore::new());
/// let login = Login::new("https://h5.example.com", CookieKeys::random()?)?;
/// let app: Router = Router::new()
///     .route("/me", get(async |user: WechatUser| user.id().to_owned()))
///     .layer(WechatLayer::new(users).login(login));
/// # Ok(()) }
/// ```
///
/// [`Login::builder`] changes the [settings](super::LoginBuilder).
///
/// # Return page
///
/// After a login, the browser returns to the page that it requested, with its query. The address of
/// that page may have 2,048 bytes. A longer address loses its query. A `return_to` that is too
/// long, or that is neither a path of the application nor a URL of a
/// [listed origin](super::LoginBuilder::return_origins), is replaced by the start page. The layer
/// logs these cases at most once a minute.
///
/// During the login, the browser keeps the page in a few cookies. These cookies stay below 4 KiB in
/// all, even if many tabs log in. If the cookies are full, the oldest logins lose their page: their
/// users are still signed in, and arrive at the start page.
///
/// # Missing state cookies
///
/// A short-lived cookie binds a login to the browser that began it. By default, the layer rejects a
/// callback without that cookie before it spends the code. An attacker therefore cannot sign other
/// people in with a link to a callback. WeChat's servers, which fetch the callback ahead of the
/// user, do not spend the code. A web view that loses cookies on the way to WeChat and back cannot
/// log in.
///
/// [`dangerous_allow_missing_state_cookie`](super::LoginBuilder::dangerous_allow_missing_state_cookie)
/// lets such web views log in, at these risks:
///
/// - A user who opens a link to the callback of an attacker's login acts in the attacker's name
///   without noticing.
/// - A person who learns the URL of a callback within ten minutes obtains the session of its user.
/// - The user arrives at the start page, because the lost cookie also contained the requested page.
///
/// # Logout
///
/// A handler that returns a [`Logout`](crate::Logout) ends the session in one browser.
/// [`WechatUser::revoke`](crate::WechatUser::revoke) also deletes the user's tokens, so that the
/// user's sessions in all browsers lead to a new login:
///
/// ```
/// use tower_wechat::{Logout, WechatUser};
///
/// async fn logout_everywhere(user: WechatUser) -> Result<Logout, tower_wechat::Error> {
///     user.revoke().await?;
///     Ok(Logout)
/// }
/// ```
#[derive(Clone)]
#[must_use = "give it to `WechatLayer::login`"]
pub struct Login(pub(super) LoginSettings);

impl Login {
    /// Returns the URL of a login that leads back to `return_to`, a path of the application. If
    /// `return_to` is anything else, the login leads to the start page. WeChat asks the user to
    /// grant `scope`, or the login's own scope for `None`.
    ///
    /// The URL is a path of the application. If `return_to` is a URL of a
    /// [listed origin](super::LoginBuilder::return_origins), the URL is absolute, so that pages of
    /// that origin can use it too.
    ///
    /// The method encodes the characters that browsers encode (letters beyond ASCII, blanks).
    /// `return_to` may start with the origin of the public URL. The encoded path, query and
    /// fragment may have 2,048 bytes together.
    ///
    /// ```
    /// use tower_wechat::{CookieKeys, Login, Scope};
    ///
    /// # fn main() -> Result<(), tower_wechat::Error> {
    /// let login = Login::new("https://h5.example.com", CookieKeys::random()?)?;
    /// assert_eq!(
    ///     login.login_url("/profile?tab=1", Some(Scope::UserInfo)),
    ///     "/wechat/login?return_to=%2Fprofile%3Ftab%3D1&scope=snsapi_userinfo",
    /// );
    /// assert_eq!(login.login_url("//evil.example", None), "/wechat/login?return_to=%2F");
    /// # Ok(()) }
    /// ```
    pub fn login_url(&self, return_to: &str, scope: Option<Scope>) -> String {
        let page = self.0.parse_return_to(return_to.as_bytes()).ok();
        self.0.login_url(page.as_ref(), scope)
    }

    /// Returns a path of the application as browsers know it: with the path of the public URL in
    /// front, unless `path` already begins with it.
    ///
    /// ```
    /// use tower_wechat::{CookieKeys, Login};
    ///
    /// # fn main() -> Result<(), tower_wechat::Error> {
    /// let login = Login::new("https://example.com/h5", CookieKeys::random()?)?;
    /// assert_eq!(login.public_path("/profile"), "/h5/profile");
    /// assert_eq!(login.public_path("/h5/profile"), "/h5/profile");
    /// # Ok(()) }
    /// ```
    pub fn public_path(&self, path: &str) -> String {
        self.0.public_url.public_path(path)
    }

    /// Returns the host of the public URL, with its port if it has one.
    pub(crate) fn public_host(&self) -> &str {
        self.0.public_url.host()
    }

    /// Returns the name of the session cookie that the application has set.
    pub(crate) fn cookie_name(&self) -> Option<&str> {
        self.0.cookie_name.as_deref()
    }

    /// Returns the session cookie of an account that this login would serve.
    pub(crate) fn session_cookie_of(&self, app: &AppId) -> SessionCookie {
        self.0.session_cookie(app, &Clock::system(), None)
    }

    /// Returns `true` if `other` has the same settings. Functions of the application do not count.
    pub(crate) fn has_same_settings(&self, other: &Self) -> bool {
        self.0.has_same_values(&other.0)
    }

    /// Sets the parameter that the callback and the links of this login have, such as `appid=wx01`.
    pub(crate) fn with_account_query(mut self, parameter: Option<String>) -> Self {
        self.0.account_query = parameter;
        self
    }

    /// Creates the handler of this login for the users of one account.
    pub(crate) fn into_handler(self, users: &UserTokens) -> LoginHandler {
        LoginHandler::new(self.0, users.clone())
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Login").field(&self.0).finish()
    }
}
