//! Settings of a login, and the paths that follow from them.

use std::fmt;
use std::time::Duration;

use super::authorize::AuthorizeOptions;
use super::hook::LoginHook;
use super::public_url::{PublicUrl, is_plain_path};
use super::query::encode_query_value;
use super::return_origins::ReturnOrigins;
use super::return_to::{ReturnTo, ReturnToError};
use super::scope::Scope;
use super::verification_file::VerificationFile;
use crate::clock::Clock;
use crate::credential::AppId;
use crate::error::Error;
use crate::identity::{CookieKeys, SessionCookie};
use crate::users::UserTokens;

const DEFAULT_CALLBACK_PATH: &str = "/wechat/callback";
const DEFAULT_LOGIN_PATH: &str = "/wechat/login";

/// Default time that a user may stay at WeChat's page before the login expires: ten minutes.
const DEFAULT_STATE_LIFETIME: Duration = Duration::from_secs(10 * 60);

/// Default number of automatic retries of one browser within a minute: two.
const DEFAULT_MAX_RETRIES: usize = 2;

/// Default time for which a callback waits for the exchange of its code: five seconds.
const DEFAULT_EXCHANGE_TIMEOUT: Duration = Duration::from_secs(5);

/// Policy for virtual users of snapshot pages (快照页).
///
/// WeChat opens a page in snapshot mode if it considers the use of `snsapi_userinfo` inappropriate.
/// The openid, the nickname and the avatar are then virtual, and differ from those of the real
/// user.
///
/// ```
/// use tower_wechat::login::SnapshotPolicy;
/// use tower_wechat::{CookieKeys, Login};
///
/// # fn main() -> Result<(), tower_wechat::Error> {
/// let login = Login::builder("https://h5.example.com", CookieKeys::random()?)
///     .snapshot_users(SnapshotPolicy::Deny)
///     .build()?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum SnapshotPolicy {
    /// Virtual users log in for two hours at most.
    /// [`WechatUser::is_snapshot`](crate::WechatUser::is_snapshot) is `true` for them. The store
    /// keeps their tokens apart from those of real users.
    #[default]
    Allow,
    /// Virtual users get a page that asks them to open the full service (使用完整服务).
    Deny,
}

/// Settings of a login. [`LoginBuilder`](super::LoginBuilder) documents each of them.
#[derive(Clone)]
pub(super) struct LoginSettings {
    pub(super) public_url: PublicUrl,
    pub(super) return_origins: ReturnOrigins,
    pub(super) cookie_keys: CookieKeys,
    pub(super) callback_path: String,
    pub(super) login_path: String,
    pub(super) scope: Scope,
    pub(super) authorize_options: AuthorizeOptions,
    pub(super) snapshot_policy: SnapshotPolicy,
    pub(super) allow_missing_state_cookie: bool,
    pub(super) bind_to_identity: bool,
    pub(super) hook: Option<LoginHook>,
    pub(super) wechat_only: bool,
    pub(super) clear_fragment: bool,
    pub(super) state_lifetime: Duration,
    pub(super) session_lifetime: Option<Duration>,
    pub(super) session_max_lifetime: Option<Duration>,
    pub(super) cookie_name: Option<String>,
    pub(super) max_retries: usize,
    pub(super) exchange_timeout: Duration,
    pub(super) verification_files: Vec<VerificationFile>,
    /// The users of the website app (网站应用) beside the account.
    pub(super) website: Option<UserTokens>,
    /// The parameter that selects the account, such as `appid=wx01`, if a layer of several accounts
    /// selects by a parameter of the query.
    pub(super) account_query: Option<String>,
}

impl LoginSettings {
    /// Returns the default settings.
    pub(super) fn new(public_url: PublicUrl, cookie_keys: CookieKeys) -> Self {
        Self {
            public_url,
            return_origins: ReturnOrigins::default(),
            cookie_keys,
            callback_path: DEFAULT_CALLBACK_PATH.to_owned(),
            login_path: DEFAULT_LOGIN_PATH.to_owned(),
            scope: Scope::default(),
            authorize_options: AuthorizeOptions::default(),
            snapshot_policy: SnapshotPolicy::default(),
            allow_missing_state_cookie: false,
            bind_to_identity: false,
            hook: None,
            wechat_only: false,
            clear_fragment: false,
            state_lifetime: DEFAULT_STATE_LIFETIME,
            session_lifetime: None,
            session_max_lifetime: None,
            cookie_name: None,
            max_retries: DEFAULT_MAX_RETRIES,
            exchange_timeout: DEFAULT_EXCHANGE_TIMEOUT,
            verification_files: Vec::new(),
            website: None,
            account_query: None,
        }
    }

    /// Returns `true` if `other` has the same values. A hook cannot be compared, and the tokens of a
    /// website's users are the same if they are of the same website.
    pub(super) fn has_same_values(&self, other: &Self) -> bool {
        // A setting that is added must be compared or left out here.
        let Self {
            public_url,
            return_origins,
            cookie_keys,
            callback_path,
            login_path,
            scope,
            authorize_options,
            snapshot_policy,
            allow_missing_state_cookie,
            bind_to_identity,
            hook,
            wechat_only,
            clear_fragment,
            state_lifetime,
            session_lifetime,
            session_max_lifetime,
            cookie_name,
            max_retries,
            exchange_timeout,
            verification_files,
            website,
            account_query,
        } = self;
        let website_app = |website: &Option<UserTokens>| -> Option<AppId> {
            website.as_ref().map(|website| website.app_id().clone())
        };
        cookie_keys.has_same_keys(&other.cookie_keys)
            && *public_url == other.public_url
            && *return_origins == other.return_origins
            && *callback_path == other.callback_path
            && *login_path == other.login_path
            && *scope == other.scope
            && *authorize_options == other.authorize_options
            && *snapshot_policy == other.snapshot_policy
            && *allow_missing_state_cookie == other.allow_missing_state_cookie
            && *bind_to_identity == other.bind_to_identity
            && hook.is_some() == other.hook.is_some()
            && *wechat_only == other.wechat_only
            && *clear_fragment == other.clear_fragment
            && *state_lifetime == other.state_lifetime
            && *session_lifetime == other.session_lifetime
            && *session_max_lifetime == other.session_max_lifetime
            && *cookie_name == other.cookie_name
            && *max_retries == other.max_retries
            && *exchange_timeout == other.exchange_timeout
            && *verification_files == other.verification_files
            && website_app(website) == website_app(&other.website)
            && *account_query == other.account_query
    }

    /// Returns the settings of the login with the website app that stands beside the account.
    ///
    /// The scope is the broadest one, because `snsapi_login` covers it. A browser outside WeChat
    /// keeps its cookies on the way to WeChat and back, so that a login without the state cookie is
    /// never accepted.
    pub(super) fn for_website(&self, app: &AppId) -> Self {
        let cookie_name = self.cookie_name.as_deref();
        Self {
            scope: Scope::UserInfo,
            authorize_options: AuthorizeOptions::default(),
            allow_missing_state_cookie: false,
            cookie_name: cookie_name.map(|name| format!("{name}_{}", app.as_str())),
            verification_files: Vec::new(),
            website: None,
            ..self.clone()
        }
    }

    /// Returns an error if an attacker's link could store another WeChat account under a user's id
    /// with these settings, if two settings choose the user id, or if the layer could not find the
    /// users of a login.
    pub(super) fn check_binding(&self) -> Result<(), Error> {
        if self.allow_missing_state_cookie && self.bind_to_identity {
            return Err(Error::configuration(
                "bind_to_identity and dangerous_allow_missing_state_cookie cannot be combined: a user \
                 who opens a link to the callback of an attacker's login would store the attacker's \
                 WeChat account under the user's own id; set only one of them",
            ));
        }
        if self.hook.is_some() && self.bind_to_identity {
            return Err(Error::configuration(
                "on_login and bind_to_identity cannot be combined, because each chooses the user id \
                 under which tokens are stored; set only one of them",
            ));
        }
        self.check_website_binding(self.website.is_some())
    }

    /// Returns an error if the login has a website and stores tokens under the user id of the
    /// layer's identity.
    pub(super) fn check_website_binding(&self, has_website: bool) -> Result<(), Error> {
        if has_website && self.bind_to_identity {
            return Err(Error::configuration(
                "website and bind_to_identity cannot be combined: the layer's identity returns users \
                 of the account, for whom a login with the website stores no tokens; set only one \
                 of them",
            ));
        }
        Ok(())
    }

    /// Returns an error if the website's store would share a record with the account.
    pub(super) fn check_website_store(&self) -> Result<(), Error> {
        match &self.website {
            Some(website) => website.token_store().check_several_accounts(),
            None => Ok(()),
        }
    }

    /// Returns an error if the public URL is the address of one of the login's own paths. If a
    /// proxy stripped the path of such a public URL, requests for that path and for the start page
    /// would look the same.
    pub(super) fn check_paths(&self) -> Result<(), Error> {
        for path in [&self.callback_path, &self.login_path] {
            let below = self.public_url.strip_path_prefix(path);
            if below.is_some_and(|below| matches!(below, "" | "/")) {
                return Err(Error::configuration(format!(
                    "the public URL must be the address below which the login's paths lie: leave \
                     {path} out of it"
                )));
            }
        }
        Ok(())
    }

    /// Returns `true` if the public URL is an https URL. Cookies are then `Secure`.
    pub(super) fn is_https(&self) -> bool {
        self.public_url.is_https()
    }

    /// Returns the session cookie of one account's users, with the lifetimes and the name that were
    /// set. `website` is the session cookie of the website beside the account.
    pub(super) fn session_cookie(
        &self,
        app: &AppId,
        clock: &Clock,
        website: Option<SessionCookie>,
    ) -> SessionCookie {
        let mut session = SessionCookie::builder(app, &self.cookie_keys)
            .secure(self.is_https())
            .clock(clock.clone())
            .website(website);
        if let Some(lifetime) = self.session_lifetime {
            session = session.lifetime(lifetime);
        }
        if let Some(max_lifetime) = self.session_max_lifetime {
            session = session.max_lifetime(max_lifetime);
        }
        session.build_named(self.cookie_name.as_deref())
    }
}

impl LoginSettings {
    /// Returns `true` if a request's path is `own`, one of the login's paths. The request's path
    /// may lack the prefix of the public URL, which a proxy may strip. A slash at the end of a path
    /// is ignored.
    #[inline]
    pub(super) fn is_own_path(&self, path: &str, own: &str) -> bool {
        let plain = |path| str::strip_suffix(path, '/').unwrap_or(path);
        let below = |path| self.public_url.strip_path_prefix(path).unwrap_or(path);
        below(plain(path)) == below(plain(own))
    }

    /// Returns `true` if a proxy may have made `path` from the callback path, by removing or adding
    /// segments at the front.
    pub(super) fn resembles_callback_path(&self, path: &str) -> bool {
        let callback = self.public_url.public_path(&self.callback_path);
        let path = path.trim_matches('/');
        !path.is_empty()
            && (ends_with_segments(callback.trim_matches('/'), path)
                || ends_with_segments(path, self.callback_path.trim_matches('/')))
    }

    /// Returns the start page of the application, which a login without a requested page leads to.
    pub(super) fn start_page(&self) -> ReturnTo {
        let start_page = ReturnTo::start_page(&self.public_url);
        let Some(account) = &self.account_query else {
            return start_page;
        };
        let page = format!("{}?{account}", start_page.as_str());
        self.parse_return_to(page.as_bytes()).unwrap_or(start_page)
    }

    /// Returns the URL to which WeChat sends users back: the callback path with the parameter that
    /// selects the account.
    pub(super) fn redirect_uri(&self) -> String {
        let callback = self.public_url.public_path(&self.callback_path);
        let url = self.public_url.absolute_url(&callback);
        match &self.account_query {
            Some(account) => format!("{url}?{account}"),
            None => url,
        }
    }

    /// Parses a page to which a login may lead.
    pub(super) fn parse_return_to(&self, page: &[u8]) -> Result<ReturnTo, ReturnToError> {
        ReturnTo::parse(page, &self.public_url, &self.return_origins)
    }

    /// Returns the URL of a login that leads back to `page`, or to the start page for `None`. The URL
    /// is a path of the application. For a page of another origin the URL is absolute, because
    /// scripts and links of that origin use it.
    pub(super) fn login_url(&self, page: Option<&ReturnTo>, scope: Option<Scope>) -> String {
        let page = page.cloned().unwrap_or_else(|| self.start_page());
        let mut login = self.public_url.public_path(&self.login_path);
        if page.is_absolute() {
            login = self.public_url.absolute_url(&login);
        }
        let account = self.account_query.as_ref();
        let account = account
            .map(|account| format!("{account}&"))
            .unwrap_or_default();
        let page = encode_query_value(page.as_str());
        let mut url = format!("{login}?{account}return_to={page}");
        if let Some(scope) = scope {
            url.push_str("&scope=");
            url.push_str(scope.as_str());
        }
        url
    }
}

impl fmt::Debug for LoginSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("public_url", &self.public_url)
            .field("return_origins", &self.return_origins)
            .field("keys", &self.cookie_keys)
            .field("callback_path", &self.callback_path)
            .field("login_path", &self.login_path)
            .field("scope", &self.scope)
            .field(
                "allow_missing_state_cookie",
                &self.allow_missing_state_cookie,
            )
            .finish_non_exhaustive()
    }
}

/// Returns `path` unchanged, or an error unless `path` is a plain path. A slash at the end is
/// allowed.
pub(super) fn parse_path(path: &str) -> Result<String, Error> {
    if !is_plain_path(path.strip_suffix('/').unwrap_or(path)) {
        return Err(Error::configuration(format!(
            "{path:?} is no path for a login; write one like {DEFAULT_CALLBACK_PATH}"
        )));
    }
    Ok(path.to_owned())
}

/// Returns `true` if a path ends with the whole segments in `segments`, in any letter case.
fn ends_with_segments(path: &str, segments: &str) -> bool {
    let front = path.len().checked_sub(segments.len());
    let Some((front, back)) = front.and_then(|at| path.split_at_checked(at)) else {
        return false;
    };
    back.eq_ignore_ascii_case(segments) && (front.is_empty() || front.ends_with('/'))
}
