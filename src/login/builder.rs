//! The builder of a login.

use std::time::Duration;

use super::public_url::PublicUrl;
use super::return_origins::ReturnOrigins;
use super::scope::Scope;
use super::settings::{LoginSettings, SnapshotPolicy, parse_path};
use super::setup::Login;
use super::verification_file::VerificationFile;
use crate::error::Error;
use crate::identity::{CookieKeys, SessionCookie};

impl Login {
    /// Creates a login with default settings for the application at this public URL. The keys sign
    /// its cookies.
    ///
    /// # Errors
    /// Returns the errors of [`LoginBuilder::build`].
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
        Self::builder(public_url, keys).build()
    }

    /// Returns a builder of a login for the application at this public URL. The keys sign its
    /// cookies.
    ///
    /// The public URL is the scheme, the host and, if there is one, the port, as browsers know
    /// them. If a proxy serves the application below a path, the public URL includes that path:
    /// `https://example.com/h5`. All addresses that the login sends to browsers then lie below that
    /// path. The proxy may strip the path before it passes a request on, or keep it. If the proxy
    /// strips the path, the application must not have routes that begin with that path.
    pub fn builder(public_url: impl AsRef<str>, keys: CookieKeys) -> LoginBuilder {
        let public_url = PublicUrl::parse(public_url.as_ref());
        LoginBuilder(public_url.map(|public_url| LoginSettings::new(public_url, keys)))
    }
}

/// Builder of a [`Login`].
///
/// All settings have defaults that suit most applications. A setter that gets an invalid value
/// keeps the first error, and [`build`](Self::build) returns it.
///
/// ```
/// use std::time::Duration;
/// use tower_wechat::login::SnapshotPolicy;
/// use tower_wechat::{CookieKeys, Login, Scope};
///
/// # fn main() -> Result<(), tower_wechat::Error> {
/// let login = Login::builder("https://h5.example.com", CookieKeys::random()?)
///     .scope(Scope::Base)
///     .snapshot_users(SnapshotPolicy::Deny)
///     // Another account on the same host uses the default paths.
///     .callback_path("/shop/wechat/callback")
///     .login_path("/shop/wechat/login")
///     .cookie_name("shop_session")
///     .session_lifetime(Duration::from_secs(7 * 86_400))
///     .session_max_lifetime(Duration::from_secs(30 * 86_400))
///     .state_lifetime(Duration::from_secs(5 * 60))
///     .exchange_timeout(Duration::from_secs(3))
///     .max_retries(1)
///     // Behaviour of WeChat's page and of the browser.
///     .dangerous_allow_missing_state_cookie(false)
///     .wechat_only(true)
///     .force_popup(false)
///     .force_snapshot(false)
///     .connect_redirect(false)
///     .clear_fragment(true)
///     .bind_to_identity(false)
///     // Or include_str!("../MP_verify_Ab1cD2eF3gH4iJ5k.txt").
///     .verification_file("MP_verify_Ab1cD2eF3gH4iJ5k.txt", "Ab1cD2eF3gH4iJ5k")
///     .build()?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct LoginBuilder(Result<LoginSettings, Error>);

impl LoginBuilder {
    /// Sets the scope that users are asked to grant. Default: [`Scope::UserInfo`].
    ///
    /// WeChat discourages asking for the profile on the first page. In that case set
    /// [`Scope::Base`] here, and require more on the routes that need it
    /// ([`WechatLayer::require_scope`](crate::WechatLayer::require_scope)).
    pub fn scope(self, scope: Scope) -> Self {
        self.set(|settings| settings.scope = scope)
    }

    /// Sets the path to which WeChat sends users back. Default: `/wechat/callback`.
    ///
    /// `build` fails if `path` is not a plain path, or if it is also the path of the public URL.
    pub fn callback_path(self, path: &str) -> Self {
        self.try_set(|settings| {
            settings.callback_path = parse_path(path)?;
            Ok(())
        })
    }

    /// Sets the path that begins a login. Default: `/wechat/login`.
    ///
    /// `build` fails if `path` is not a plain path, or if it is also the path of the public URL.
    pub fn login_path(self, path: &str) -> Self {
        self.try_set(|settings| {
            settings.login_path = parse_path(path)?;
            Ok(())
        })
    }

    /// Sets the origins of front ends to which a login may lead, besides the application's own
    /// origin. Default: none. A second call replaces the list of the first.
    ///
    /// This is for pages at `https://www.example.com` whose scripts call this service at
    /// `https://api.example.com`. For the listed origins,
    ///
    /// - `return_to` may be an absolute URL, such as `https://www.example.com/cart#/step/2`. Any
    ///   other origin is replaced by the application's start page, with a log line;
    /// - the `login_url` of a 401 is absolute. It leads back to the page in the `Referer`, or to the
    ///   origin's start page, because browsers shorten the `Referer` for another origin. A script
    ///   may replace the URL's parameter `return_to` by `location.href`.
    ///
    /// Pages of another origin also need CORS, such as tower-http's `CorsLayer` outside of the
    /// [`WechatLayer`](crate::WechatLayer), with axum and without it. Both origins must be of one
    /// site: browsers send the session cookie with no script's request to another site
    /// ([guide](crate::guide::login#pages-and-api-on-two-origins)).
    ///
    /// An origin is the scheme, the ASCII host and, if there is one, the port, as in the header
    /// `Origin`. `build` fails for any other text, such as `*`, `null`, or a URL with a path or a
    /// slash at its end. It also fails for an `http` origin if the public URL is `https`. Upper case
    /// and default ports are removed. Duplicates and the origin of the public URL are ignored.
    ///
    /// ```
    /// use axum::{Router, routing::get};
    /// use http::HeaderValue;
    /// use tower_http::cors::CorsLayer;
    /// # use tower_wechat::{CookieKeys, MemoryStore, UserTokens, WechatClient};
    /// use tower_wechat::{Login, WechatLayer, WechatUser};
    ///
    /// const PAGES: &str = "https://www.example.com";
    ///
    /// # fn main() -> Result<(), tower_wechat::Error> {
    /// # let users = UserTokens::new(WechatClient::new("wx01", "secret")?, MemoryStore::new());
    /// let login = Login::builder("https://api.example.com", CookieKeys::random()?)
    ///     .return_origins([PAGES])
    ///     .build()?;
    /// assert_eq!(
    ///     login.login_url("https://www.example.com/cart", None),
    ///     "https://api.example.com/wechat/login?return_to=https%3A%2F%2Fwww.example.com%2Fcart",
    /// );
    /// let cors = CorsLayer::new()
    ///     .allow_origin(HeaderValue::from_static(PAGES))
    ///     .allow_credentials(true);
    /// let app: Router = Router::new()
    ///     .route("/me", get(async |user: WechatUser| user.id().to_owned()))
    ///     .layer(WechatLayer::new(users).login(login))
    ///     .layer(cors);
    /// # Ok(()) }
    /// ```
    pub fn return_origins<O: AsRef<str>>(self, origins: impl IntoIterator<Item = O>) -> Self {
        self.try_set(|settings| {
            settings.return_origins = ReturnOrigins::parse(origins, &settings.public_url)?;
            Ok(())
        })
    }

    /// Sets whether virtual users of snapshot pages (快照页) may log in. Default:
    /// [`SnapshotPolicy::Allow`].
    pub fn snapshot_users(self, policy: SnapshotPolicy) -> Self {
        self.set(|settings| settings.snapshot_policy = policy)
    }

    /// Sets whether a browser may log in after it has lost the cookie that binds the login to it.
    /// Read about [the risks](Login#missing-state-cookies) first. Default: `false`.
    ///
    /// `build` fails if [`bind_to_identity`](Self::bind_to_identity) is set too.
    pub fn dangerous_allow_missing_state_cookie(self, allow: bool) -> Self {
        self.set(|settings| settings.allow_missing_state_cookie = allow)
    }

    /// Sets whether the login stores the user's tokens under the user id that the layer's
    /// [`identity`](crate::WechatLayer::identity) returns for the callback, instead of under the
    /// openid. Default: `false`.
    ///
    /// Set this if users sign in by other means, such as a gateway's header or the application's
    /// own session, and their ids are not openids. Such a user grants access once, and the layer
    /// finds the tokens by the user's id from then on. The store keeps the openid with the tokens.
    /// If the identity returns no user, the tokens are stored under the openid. If the identity
    /// returns a user, the login rejects the virtual user of a snapshot page (快照页). Otherwise
    /// virtual tokens could replace those of a real user.
    ///
    /// Do not set this if a [`SessionCookie`] is the identity. The next user's tokens could then be
    /// stored under the id in the cookie of a previous user.
    ///
    /// `build` fails if
    /// [`dangerous_allow_missing_state_cookie`](Self::dangerous_allow_missing_state_cookie) is set
    /// too. With both, an attacker could send a signed-in user a link to the callback of the
    /// attacker's login. The login would then store the attacker's WeChat account under the user's
    /// id.
    ///
    /// ```
    /// use tower_wechat::{
    ///     CookieKeys, Login, MemoryStore, TrustedHeader, UserTokens, WechatClient, WechatLayer,
    /// };
    ///
    /// # fn main() -> Result<(), tower_wechat::Error> {
    /// # let users = UserTokens::new(WechatClient::new("wx01", "secret")?, MemoryStore::new());
    /// let login = Login::builder("https://h5.example.com", CookieKeys::random()?)
    ///     .bind_to_identity(true)
    ///     .build()?;
    /// let layer = WechatLayer::new(users)
    ///     .identity(TrustedHeader::new("x-user-id")?)
    ///     .login(login);
    /// # let _: WechatLayer<TrustedHeader> = layer;
    /// # Ok(()) }
    /// ```
    pub fn bind_to_identity(self, bind: bool) -> Self {
        self.set(|settings| settings.bind_to_identity = bind)
    }

    /// Sets whether browsers other than WeChat's get a page of the layer that asks the user to open
    /// the link in WeChat. Otherwise the layer redirects them to WeChat, which shows a similar
    /// page. With a [`website`](Self::website), only phones get this page, and the setting changes
    /// nothing. Default: `false`.
    pub fn wechat_only(self, only: bool) -> Self {
        self.set(|settings| settings.wechat_only = only)
    }

    /// Sets whether the authorize URL has `forcePopup=true`, which makes WeChat ask for consent
    /// when it would otherwise not ask (guide to web authorization). Default: `false`.
    pub fn force_popup(self, force: bool) -> Self {
        self.set(|settings| settings.authorize_options.force_popup = force)
    }

    /// Sets whether the authorize URL has `forceSnapShot=true`, which makes WeChat open the
    /// snapshot page (guide to web authorization). Default: `false`.
    pub fn force_snapshot(self, force: bool) -> Self {
        self.set(|settings| settings.authorize_options.force_snapshot = force)
    }

    /// Sets whether the authorize URL has the undocumented `connect_redirect=1`. Some developers
    /// report that WeChat then sends no duplicate callbacks. Duplicate callbacks cause no errors
    /// with this crate. Default: `false`.
    pub fn connect_redirect(self, send: bool) -> Self {
        self.set(|settings| settings.authorize_options.connect_redirect = send)
    }

    /// Sets whether the redirect to the page ends with an empty fragment, `#`. Default: `false`.
    ///
    /// Browsers keep a fragment across redirects. Without this setting, pages are opened with
    /// WeChat's `#wechat_redirect`, which routers that use the fragment may not expect. A page
    /// whose `return_to` has a fragment always gets that fragment.
    pub fn clear_fragment(self, clear: bool) -> Self {
        self.set(|settings| settings.clear_fragment = clear)
    }

    /// Sets how long a user may stay at WeChat's page before the login expires. Default: 10
    /// minutes.
    pub fn state_lifetime(self, lifetime: Duration) -> Self {
        self.set(|settings| settings.state_lifetime = lifetime)
    }

    /// Sets how long a session lasts after it was issued. The layer issues a session again when
    /// half of that time has passed. The session of a snapshot page's virtual user lasts two hours
    /// at most. Default: 30 days.
    pub fn session_lifetime(self, lifetime: Duration) -> Self {
        self.set(|settings| settings.session_lifetime = Some(lifetime))
    }

    /// Sets how long a session lasts after its login, however often the layer issues it again. All
    /// processes that share a store should set the same value. Default: 90 days.
    pub fn session_max_lifetime(self, max_lifetime: Duration) -> Self {
        self.set(|settings| settings.session_max_lifetime = Some(max_lifetime))
    }

    /// Sets the name of the session cookie. With https, the layer puts `__Host-` in front: browsers
    /// then accept the cookie from this host only. Default: `wechat_session_` and the AppID, so that
    /// the sessions of several accounts on one host do not replace each other.
    ///
    /// `build` fails if a cookie cannot have this name.
    pub fn cookie_name(self, name: &str) -> Self {
        self.try_set(|settings| {
            SessionCookie::check_name(name)?;
            settings.cookie_name = Some(name.to_owned());
            Ok(())
        })
    }

    /// Sets how often a failed login of one browser is repeated automatically within a minute,
    /// before the user gets an error page. Default: 2.
    ///
    /// A login is repeated if WeChat rejects its code, or if its code would reduce what the user
    /// has granted. A login is also repeated if its callback is reloaded after the browser has lost
    /// the session. Values above 10 count as 10, because the login cookies of a browser contain its
    /// last 10 logins.
    pub fn max_retries(self, retries: usize) -> Self {
        self.set(|settings| settings.max_retries = retries)
    }

    /// Sets how long a callback waits for the exchange of its code. A longer exchange continues in
    /// the background, and the user's next attempt returns its result. A hook
    /// ([`on_login`](Self::on_login)) may take as long, and one hour at most. Default: 5 seconds.
    pub fn exchange_timeout(self, timeout: Duration) -> Self {
        self.set(|settings| settings.exchange_timeout = timeout)
    }

    /// Adds a file by which WeChat verifies that a domain is yours. The layer serves the file at
    /// the root of the public URL. Default: no files.
    ///
    /// mp.weixin.qq.com offers the file, `MP_verify_….txt`, when you set 网页授权域名 or JS接口安全域名. All
    /// clients can read the file, even if they are not signed in. Each call adds one file; a call
    /// with the same name replaces that file.
    ///
    /// The name consists of letters, digits, `-` and `_`, and ends with `.txt`. The content is one
    /// word. `build` fails for any other name or content.
    pub fn verification_file(self, name: &str, content: &str) -> Self {
        self.try_set(|settings| {
            let file = VerificationFile::new(name, content)?;
            let files = &mut settings.verification_files;
            files.retain(|known| known.path != file.path);
            files.push(file);
            Ok(())
        })
    }

    /// Creates the login.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) with the first error of a
    /// setter, or if
    ///
    /// - the public URL is not an `http` or `https` URL of an ASCII host and a plain path (letters,
    ///   digits and `-_.~`);
    /// - the public URL is the address of the callback or of the login path;
    /// - one of the [`return_origins`](Self::return_origins) is not an origin;
    /// - [`bind_to_identity`](Self::bind_to_identity) is combined with
    ///   [`dangerous_allow_missing_state_cookie`](Self::dangerous_allow_missing_state_cookie) or
    ///   with [`on_login`](Self::on_login);
    /// - a [`website`](Self::website) is combined with [`bind_to_identity`](Self::bind_to_identity),
    ///   or shares a Redis hash with the account.
    pub fn build(self) -> Result<Login, Error> {
        let settings = self.0?;
        settings.check_paths()?;
        settings.check_binding()?;
        settings.check_website_store()?;
        Ok(Login(settings))
    }

    /// Changes the settings, unless an earlier setter has failed.
    pub(super) fn set(self, change: impl FnOnce(&mut LoginSettings)) -> Self {
        self.try_set(|settings| {
            change(settings);
            Ok(())
        })
    }

    /// Changes the settings, unless an earlier setter has failed. If `change` fails, keeps its
    /// error for [`build`](Self::build).
    fn try_set(self, change: impl FnOnce(&mut LoginSettings) -> Result<(), Error>) -> Self {
        Self(self.0.and_then(|mut settings| {
            change(&mut settings)?;
            Ok(settings)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn builder(public_url: &str) -> LoginBuilder {
        Login::builder(public_url, CookieKeys::random().unwrap())
    }

    #[test]
    fn missing_state_cookie_excludes_identity_binding() {
        let both = builder("https://a.b")
            .dangerous_allow_missing_state_cookie(true)
            .bind_to_identity(true);
        let error = both.clone().build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(
            error.to_string().contains("attacker's WeChat account"),
            "{error}"
        );
        assert!(both.clone().bind_to_identity(false).build().is_ok());
        assert!(
            both.dangerous_allow_missing_state_cookie(false)
                .build()
                .is_ok()
        );
    }

    #[test]
    fn a_hook_excludes_identity_binding() {
        let hook = async |_: crate::login::LoginUser| Ok::<_, Error>("row");
        let both = builder("https://a.b").bind_to_identity(true).on_login(hook);
        let error = both.clone().build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains("on_login"), "{error}");
        assert!(both.bind_to_identity(false).build().is_ok());
    }

    #[test]
    fn public_url_differs_from_login_paths() {
        for url in ["https://a.b/wechat/callback", "https://a.b/wechat/login/"] {
            let error = builder(url).build().unwrap_err().to_string();
            assert!(error.contains("out of it"), "{error}");
        }
        let below = builder("https://a.b/app");
        assert!(below.clone().callback_path("/app").build().is_err());
        assert!(below.callback_path("/app/callback").build().is_ok());
        assert!(builder("https://a.b/wechat").build().is_ok());
    }

    #[test]
    fn login_paths_must_be_plain() {
        let login = builder("https://a.b");
        assert!(login.clone().callback_path("/auth/wechat").build().is_ok());
        for wrong in [
            "", "/", "a", "//a", "/a?b", "/a;b", "/a b", "/%41", "/a/../b",
        ] {
            let callback = login.clone().callback_path(wrong).build();
            assert!(callback.is_err(), "{wrong:?}");
            assert!(
                login.clone().login_path(wrong).build().is_err(),
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn build_returns_the_first_error() {
        let login = builder("https://a.b").cookie_name("a b").login_path("a b");
        let error = login.login_path("/fine").build().unwrap_err();
        assert!(error.to_string().contains("name of a cookie"), "{error}");
    }
}
