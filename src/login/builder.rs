//! The builder of a login.

use std::fmt;
use std::time::Duration;

use http::HeaderValue;

use super::authorize::AuthorizeOptions;
use super::handler::LoginHandler;
use super::public_url::PublicUrl;
use super::return_to::ReturnTo;
use super::scope::Scope;
use super::settings::*;
use super::verification_file::VerificationFile;
use crate::error::Error;
use crate::identity::{CookieKeys, SessionCookie};
use crate::users::UserTokens;

/// Signs users in with WeChat, on the layer's own paths.
///
/// Give it to [`WechatLayer::login`](crate::WechatLayer::login). From then on the layer
///
/// - sends page loads without a user to WeChat's authorize page, and tells everything else the
///   `login_url`, in its 401;
/// - answers `/wechat/callback`, where WeChat sends users back: checks that this browser began the
///   login, exchanges the code once however many copies of the request come, stores the user's
///   tokens, sets the session cookie and sends the browser on to the page it was going to;
/// - answers `/wechat/login?return_to=PATH`, which begins a login from a link or a script;
/// - serves the [files](Self::verification_file) by which WeChat checks your domain.
///
/// Mount the layer around the whole router, so that it sees these paths. The host of the public
/// URL must be the account's 网页授权域名. Several accounts on one host need a
/// [`callback_path`](Self::callback_path), a [`login_path`](Self::login_path) and a
/// [`session_name`](Self::cookie_name) each.
///
/// # Back to the page
///
/// A login leads back to the very page that was asked for, query included, up to 2,048 bytes of its
/// address. A longer one loses its query; `return_to` of a link becomes the start page where it is
/// longer, or no path of the application's own. The log says so, once a minute at most.
///
/// Until then the page is kept in the browser, in a handful of cookies that stay below 4 KiB in all
/// however many tabs log in. Where many do, the oldest give way: their users are signed in all the
/// same, and land on the start page.
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
/// # Strict and lenient
///
/// A login is bound to the browser that began it by a short-lived cookie. By default a callback
/// without it is refused before its code is spent: nobody can be signed in as somebody else by a
/// link that was sent to them, and whoever fetches the callback ahead of the user (WeChat's own
/// servers do) spends nothing. Web views that lose cookies on the way to WeChat and back cannot
/// log in then. [`lenient`](Self::dangerous_allow_missing_state_cookie) lets them, for these risks: a user can be made to open a
/// callback of an attacker's login and act in the attacker's name without noticing, whoever learns
/// the callback's URL within ten minutes gets its user's session, and the user lands on the start
/// page since the cookie also remembers where they were going.
///
/// # Signing out
///
/// [`sign_out`](Self::logout_cookie) is the header that ends the session;
/// [`WechatUser::revoke`](crate::WechatUser::revoke) deletes the user's tokens too, so that their
/// sessions everywhere lead to a new login:
///
/// ```
/// use http::{HeaderMap, StatusCode, header::SET_COOKIE};
/// use tower_wechat::{Login, WechatUser};
///
/// async fn logout_everywhere(
///     user: WechatUser,
///     login: Login,
/// ) -> Result<(StatusCode, HeaderMap), tower_wechat::Error> {
///     user.revoke().await?;
///     Ok((StatusCode::NO_CONTENT, HeaderMap::from_iter([(SET_COOKIE, login.logout_cookie())])))
/// }
/// ```
///
/// # Settings
///
/// All of them have defaults that suit most applications:
///
/// ```
/// use std::time::Duration;
/// use tower_wechat::{CookieKeys, Login, Scope, SnapshotPolicy};
///
/// # fn main() -> Result<(), tower_wechat::Error> {
/// let login = Login::new("https://h5.example.com", CookieKeys::random()?)?
///     .scope(Scope::Base)
///     .snapshot_users(SnapshotPolicy::Deny)
///     // Another account of the same host has the usual ones.
///     .callback_path("/shop/wechat/callback")?
///     .login_path("/shop/wechat/login")?
///     .cookie_name("shop_session")?
///     .session_lifetime(Duration::from_secs(7 * 86_400))
///     .session_max_lifetime(Duration::from_secs(30 * 86_400))
///     .state_lifetime(Duration::from_secs(5 * 60))
///     .exchange_timeout(Duration::from_secs(3))
///     .max_retries(1)
///     // How WeChat's page and the browser behave.
///     .dangerous_allow_missing_state_cookie(false)?
///     .wechat_only(true)
///     .force_popup(false)
///     .force_snapshot(false)
///     .connect_redirect(false)
///     .clear_fragment(true)
///     .bind_to_identity(false)?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[must_use = "give it to `WechatLayer::login`"]
pub struct Login(LoginSettings);

impl Login {
    /// A login for the application at this public URL: scheme and host, and the port where there
    /// is one, as browsers see them. The keys sign its cookies.
    ///
    /// Where a proxy puts the application below a path, that path belongs to the URL:
    /// `https://example.com/h5`. Everything that browsers are told then lies below it. The proxy may
    /// strip the path before it passes a request on, or leave it; below a proxy that strips it, the
    /// application has no routes of its own that begin with that path.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`]: the URL is no `http` or `https` URL of a host in ASCII and a
    /// plain path (letters, digits and `-_.~`), or it is the address of the callback.
    ///
    /// ```
    /// use tower_wechat::{CookieKeys, Login};
    ///
    /// # fn main() -> Result<(), tower_wechat::Error> {
    /// let keys = CookieKeys::random()?;
    /// assert!(Login::new("https://h5.example.com", keys.clone()).is_ok());
    /// let error = Login::new("h5.example.com", keys).unwrap_err();
    /// assert!(error.to_string().starts_with("the public URL must begin with https:// or http://"));
    /// # Ok(()) }
    /// ```
    pub fn new(public_url: impl AsRef<str>, keys: CookieKeys) -> Result<Self, Error> {
        let login = Self(LoginSettings {
            public_url: PublicUrl::parse(public_url.as_ref())?,
            cookie_keys: keys,
            callback_path: DEFAULT_CALLBACK_PATH.to_owned(),
            login_path: DEFAULT_LOGIN_PATH.to_owned(),
            scope: Scope::default(),
            authorize_options: AuthorizeOptions::default(),
            snapshot_policy: SnapshotPolicy::default(),
            allow_missing_state_cookie: false,
            bind_to_identity: false,
            wechat_only: false,
            clear_fragment: false,
            state_lifetime: DEFAULT_STATE_LIFETIME,
            session_lifetime: None,
            session_max_lifetime: None,
            cookie_name: None,
            max_retries: DEFAULT_MAX_RETRIES,
            exchange_timeout: DEFAULT_EXCHANGE_TIMEOUT,
            verification_files: Vec::new(),
        });
        login.0.check_prefix()?;
        Ok(login)
    }

    /// What users are asked to grant. Default: [`Scope::UserInfo`].
    ///
    /// WeChat frowns on asking for the profile at the first page; ask for [`Scope::Base`] here
    /// then, and for more on the routes that need it
    /// ([`WechatLayer::require_scope`](crate::WechatLayer::require_scope)).
    pub fn scope(mut self, scope: Scope) -> Self {
        self.0.scope = scope;
        self
    }

    /// The path to which WeChat sends users back. Default: `/wechat/callback`.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`]: this is no plain path, or the path of the public URL.
    pub fn callback_path(mut self, path: &str) -> Result<Self, Error> {
        self.0.callback_path = parse_path(path)?;
        self.0.check_prefix()?;
        Ok(self)
    }

    /// The path that begins a login. Default: `/wechat/login`.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`]: this is no plain path, or the path of the public URL.
    pub fn login_path(mut self, path: &str) -> Result<Self, Error> {
        self.0.login_path = parse_path(path)?;
        self.0.check_prefix()?;
        Ok(self)
    }

    /// What becomes of the virtual users of snapshot pages (快照页). Default: they are admitted.
    pub fn snapshot_users(mut self, policy: SnapshotPolicy) -> Self {
        self.0.snapshot_policy = policy;
        self
    }

    /// Lets browsers in that have lost the cookie that binds a login to them. Read
    /// [what it risks](Self#strict-and-lenient) first. Default: no.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`]: the login [binds to the identity](Self::bind_to_identity).
    pub fn dangerous_allow_missing_state_cookie(mut self, lenient: bool) -> Result<Self, Error> {
        self.0.allow_missing_state_cookie = lenient;
        self.0.check_binding()?;
        Ok(self)
    }

    /// Stores what WeChat grants under the id of the user whom the layer's
    /// [`identity`](crate::WechatLayer::identity) names at the callback, instead of under the
    /// openid. Default: no.
    ///
    /// For services whose users are signed in by something else, a gateway's header or a session
    /// of the application's, under ids of their own: such a user grants access once, and is found
    /// by that id from then on. The openid is kept with the pair. Where the identity names nobody,
    /// the openid counts. A snapshot page's virtual user (快照页) is refused where somebody is
    /// named: nothing of it could be found again.
    ///
    /// Leave it off with a [`SessionCookie`] as the identity: the cookie of a former user would
    /// then name whoever logs in next.
    ///
    /// It does not go with [`lenient`](Self::dangerous_allow_missing_state_cookie): a browser that is signed in and opens the
    /// callback of an attacker's login would store the attacker's WeChat account under its user's
    /// id, and the attacker's account would be the user's from then on.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`]: the login is lenient.
    ///
    /// ```
    /// use tower_wechat::{
    ///     CookieKeys, Login, MemoryStore, TrustedHeader, UserTokens, WechatClient, WechatLayer,
    /// };
    ///
    /// # fn main() -> Result<(), tower_wechat::Error> {
    /// # let users = UserTokens::new(WechatClient::new("wx01", "secret")?, MemoryStore::new());
    /// let login = Login::new("https://h5.example.com", CookieKeys::random()?)?;
    /// let layer = WechatLayer::new(users)
    ///     .identity(TrustedHeader::new("x-user-id")?)
    ///     .login(login.bind_to_identity(true)?);
    /// # let _: WechatLayer<TrustedHeader> = layer;
    /// # Ok(()) }
    /// ```
    pub fn bind_to_identity(mut self, bind: bool) -> Result<Self, Error> {
        self.0.bind_to_identity = bind;
        self.0.check_binding()?;
        Ok(self)
    }

    /// Shows a page that asks to open the link in WeChat to browsers that do not say that they are
    /// WeChat's, instead of sending them to WeChat's own page that says so. Default: no.
    pub fn wechat_only(mut self, only: bool) -> Self {
        self.0.wechat_only = only;
        self
    }

    /// Sends `forcePopup=true`: WeChat asks for consent where it would not (guide to web
    /// authorization). Default: no.
    pub fn force_popup(mut self, force: bool) -> Self {
        self.0.authorize_options.force_popup = force;
        self
    }

    /// Sends `forceSnapShot=true`: WeChat opens the snapshot page (guide to web authorization).
    /// Default: no.
    pub fn force_snapshot(mut self, force: bool) -> Self {
        self.0.authorize_options.force_snapshot = force;
        self
    }

    /// Sends the undocumented `connect_redirect=1`, which some report to spare them duplicate
    /// callbacks. They do no harm here. Default: no.
    pub fn connect_redirect(mut self, send: bool) -> Self {
        self.0.authorize_options.connect_redirect = send;
        self
    }

    /// Ends the redirect to the page with an empty fragment, `#`. Browsers carry a fragment along
    /// redirects, so that pages are opened with WeChat's own `#wechat_redirect` otherwise, which
    /// routers that live behind the `#` may not like. A page whose `return_to` has a fragment gets
    /// that one in any case. Default: no.
    pub fn clear_fragment(mut self, clear: bool) -> Self {
        self.0.clear_fragment = clear;
        self
    }

    /// How long a user may stay at WeChat's page. Default: 10 minutes.
    pub fn state_lifetime(mut self, lifetime: Duration) -> Self {
        self.0.state_lifetime = lifetime;
        self
    }

    /// How long a session lasts since it was last issued; it is issued anew when half of that has
    /// passed. Default: 30 days. A snapshot page's virtual user has two hours at most.
    pub fn session_lifetime(mut self, lifetime: Duration) -> Self {
        self.0.session_lifetime = Some(lifetime);
        self
    }

    /// Sets how long a session lasts since its login, however often it is issued anew; see
    /// [`SessionCookie::max_lifetime`]. Default: 90 days.
    pub fn session_max_lifetime(mut self, max_lifetime: Duration) -> Self {
        self.0.session_max_lifetime = Some(max_lifetime);
        self
    }

    /// The name of the session cookie. Under https `__Host-` stands in front of it: browsers take
    /// such a cookie from this host only. Default: `wechat_session`.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`]: cookies cannot have that name.
    pub fn cookie_name(mut self, name: &str) -> Result<Self, Error> {
        SessionCookie::check_name(name)?;
        self.0.cookie_name = Some(name.to_owned());
        Ok(self)
    }

    /// How often a login begins anew by itself where WeChat does not take its code, within a
    /// minute and in one browser, before the user is told. Default: 2.
    pub fn max_retries(mut self, restarts: usize) -> Self {
        self.0.max_retries = restarts;
        self
    }

    /// How long a callback waits for the exchange of its code. The exchange goes on after that,
    /// and the user's next try finds its result. Default: 5 seconds.
    pub fn exchange_timeout(mut self, wait: Duration) -> Self {
        self.0.exchange_timeout = wait;
        self
    }

    /// ServiceLevel the file by which WeChat checks that a domain is yours, at the root of the public URL:
    /// `MP_verify_….txt`, which mp.weixin.qq.com gives you when you set 网页授权域名 or
    /// JS接口安全域名. Anybody can read it, signed in or not. Each name is one file more; one that is
    /// given again replaces the former. Default: none.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`]: the name is none that ends with `.txt` and has only letters,
    /// digits, `-` and `_` before that, or the content is not one word.
    ///
    /// ```
    /// use tower_wechat::{CookieKeys, Login};
    ///
    /// # fn main() -> Result<(), tower_wechat::Error> {
    /// let login = Login::new("https://h5.example.com", CookieKeys::random()?)?
    ///     // Or include_str!("../MP_verify_Ab1cD2eF3gH4iJ5k.txt").
    ///     .verification_file("MP_verify_Ab1cD2eF3gH4iJ5k.txt", "Ab1cD2eF3gH4iJ5k")?;
    /// # Ok(()) }
    /// ```
    pub fn verification_file(mut self, name: &str, content: &str) -> Result<Self, Error> {
        let file = VerificationFile::new(name, content)?;
        self.0
            .verification_files
            .retain(|known| known.path != file.path);
        self.0.verification_files.push(file);
        Ok(self)
    }

    /// The value of the `Set-Cookie` header that ends the session of whoever gets it.
    pub fn logout_cookie(&self) -> HeaderValue {
        SessionCookie::removal_cookie(self.0.cookie_name.as_deref(), self.0.is_https())
    }

    /// The path that begins a login which leads back to `return_to`, a path of the application's
    /// own; anything else leads to the start page. With a scope, the user is asked for that one.
    ///
    /// What browsers encode is encoded (letters beyond ASCII, blanks), and our own origin may stand
    /// in front. Encoded, path and query may have 2,048 bytes together.
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
        let page = ReturnTo::parse(return_to.as_bytes(), &self.0.public_url).ok();
        self.0.login_url(page.as_ref(), scope)
    }

    /// Returns a path of the application's as browsers know it: with the path of the public URL in
    /// front, unless it is there already.
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

    /// Sets the login up for the users of one account.
    pub(crate) fn into_handler(self, users: &UserTokens) -> LoginHandler {
        LoginHandler::new(self.0, users.clone())
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Login").field(&self.0).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn missing_state_cookie_excludes_identity_binding() {
        let login = || Login::new("https://a.b", CookieKeys::random().unwrap()).unwrap();
        let either = [
            login()
                .dangerous_allow_missing_state_cookie(true)
                .unwrap()
                .bind_to_identity(true),
            login()
                .bind_to_identity(true)
                .unwrap()
                .dangerous_allow_missing_state_cookie(true),
        ];
        for refused in either {
            let error = refused.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
            assert!(
                error.to_string().contains("attacker's WeChat account"),
                "{error}"
            );
        }
        let off = login()
            .dangerous_allow_missing_state_cookie(true)
            .unwrap()
            .bind_to_identity(false);
        assert!(
            off.unwrap()
                .dangerous_allow_missing_state_cookie(false)
                .unwrap()
                .bind_to_identity(true)
                .is_ok()
        );
    }

    #[test]
    fn a_public_url_is_none_of_the_logins_paths() {
        let login = |url| Login::new(url, CookieKeys::random().unwrap());
        for url in ["https://a.b/wechat/callback", "https://a.b/wechat/login/"] {
            let error = login(url).unwrap_err().to_string();
            assert!(error.contains("out of it"), "{error}");
        }
        let below = login("https://a.b/app").unwrap();
        assert!(below.clone().callback_path("/app").is_err());
        assert!(below.callback_path("/app/callback").is_ok());
        assert!(login("https://a.b/wechat").is_ok());
    }

    #[test]
    fn login_paths_must_be_plain() {
        let login = || Login::new("https://a.b", CookieKeys::random().unwrap()).unwrap();
        assert!(login().callback_path("/auth/wechat").is_ok());
        for wrong in [
            "", "/", "a", "//a", "/a?b", "/a;b", "/a b", "/%41", "/a/../b",
        ] {
            assert!(login().callback_path(wrong).is_err(), "{wrong:?}");
            assert!(login().login_path(wrong).is_err(), "{wrong:?}");
        }
    }
}
