//! The handler of a login for the users of one account: its parts, and the replies that several
//! files of the login use.

use std::fmt;
use std::sync::Arc;

use http::HeaderValue;

use super::authorize::{AuthorizationRequest, AuthorizePage};
use super::cookies::{AttemptStatus, BrowserLogins, LoginAttempt, LoginCookies};
use super::exchange::{MAX_CODES_PER_LOGIN, RunningExchanges, TRANSIENT_FAILURE_LIFETIME};
use super::failure::LoginFailure;
use super::limits::codes::CodeLimiter;
use super::limits::exchanges::ExchangeLimiter;
use super::limits::logins::LoginLimiter;
use super::page::FailurePage;
use super::public_url::PublicUrl;
use super::reply::{LoginReply, ReplyContent};
use super::return_to::{ReturnTo, ReturnToError};
use super::scope::Scope;
use super::settings::LoginSettings;
use super::state::StateSigner;
use super::verification_file::VerificationFile;
use crate::clock::Timestamp;
use crate::credential::AppId;
use crate::identity::SessionCookie;
use crate::identity::cookies::set_cookie_header;
use crate::log_limiter::LogLimiter;
use crate::metrics;
use crate::users::UserTokens;

/// Maximum number of unspent codes of one login that the store binds to that login: eight. Each
/// binding is a write to the store, and a client can invent any number of codes.
const MAX_UNSPENT_CODES: usize = 8;

/// Handler of a [`Login`](super::Login) for the users of one account. Clones share their limits and
/// running exchanges.
#[derive(Clone)]
pub(crate) struct LoginHandler(pub(super) Arc<Inner>);

/// The settings, limits and running exchanges that all clones of a handler share.
pub(super) struct Inner {
    pub(super) settings: LoginSettings,
    pub(super) users: UserTokens,
    pub(super) session_cookie: SessionCookie,
    pub(super) state_signer: StateSigner,
    pub(super) login_cookies: LoginCookies,
    pub(super) log_limiter: Arc<LogLimiter>,
    pub(super) login_limiter: LoginLimiter,
    pub(super) code_limiter: CodeLimiter,
    /// Limits how many unspent codes of one login the store binds to that login.
    pub(super) unspent_codes: CodeLimiter,
    /// Limits the exchanges of this handler and its clones.
    pub(super) exchange_limiter: Arc<ExchangeLimiter>,
    pub(super) running_exchanges: Arc<RunningExchanges>,
    pub(super) redirect_uri: String,
    pub(super) app_kind: AppKind,
    /// `true` if the header `User-Agent` decides which login begins, or whether one begins.
    pub(super) user_agent_decides: bool,
}

/// The kind of app whose users a handler logs in.
pub(super) enum AppKind {
    /// An Official Account (公众号), with the handler of the website app beside it.
    OfficialAccount { website: Option<LoginHandler> },
    /// A website app (网站应用), with the session cookie of the account beside which it stands.
    Website { account_session: SessionCookie },
}

impl LoginHandler {
    /// Creates the handler for the users of an Official Account, and that of the website beside it.
    pub(super) fn new(mut settings: LoginSettings, users: UserTokens) -> Self {
        let website = settings.website.take();
        let website = website.filter(|website| is_other_app(website, &users));
        let website = website.map(|website| {
            let account_session = settings.session_cookie(users.app_id(), users.clock(), None);
            let settings = settings.for_website(website.app_id());
            // One website may stand beside several accounts. Its states and sessions with one account
            // must not be valid with another one.
            let name = AppId::of_website_beside(website.app_id(), users.app_id());
            Self::of_app(
                settings,
                website,
                &name,
                AppKind::Website { account_session },
            )
        });
        let name = users.app_id().clone();
        Self::of_app(settings, users, &name, AppKind::OfficialAccount { website })
    }

    /// Creates the handler of one app, with keys that are derived for this name and this callback.
    fn of_app(settings: LoginSettings, users: UserTokens, name: &AppId, app_kind: AppKind) -> Self {
        let (website, user_agent_decides) = match &app_kind {
            AppKind::OfficialAccount { website } => {
                let decides = settings.wechat_only || website.is_some();
                (website.as_ref(), decides)
            }
            AppKind::Website { .. } => (None, true),
        };
        let website_session = website.map(|website| website.session_cookie().clone());
        let session = settings.session_cookie(name, users.clock(), website_session);
        let (keys, lifetime) = (&settings.cookie_keys, settings.state_lifetime);
        let callback = settings.public_url.public_path(&settings.callback_path);
        let states = StateSigner::new(name, keys, &callback, lifetime);
        let start_page = settings.start_page();
        let secure = settings.is_https();
        let cookies = LoginCookies::new(name, keys, &callback, secure, lifetime, start_page);
        let redirect_uri = settings.redirect_uri();
        Self(Arc::new(Inner {
            settings,
            users,
            session_cookie: session,
            state_signer: states,
            login_cookies: cookies,
            log_limiter: Arc::default(),
            login_limiter: LoginLimiter::new(),
            code_limiter: CodeLimiter::new(MAX_CODES_PER_LOGIN),
            unspent_codes: CodeLimiter::new(MAX_UNSPENT_CODES),
            exchange_limiter: ExchangeLimiter::new(),
            running_exchanges: Arc::default(),
            redirect_uri,
            app_kind,
            user_agent_decides,
        }))
    }

    /// Returns the public URL of the application.
    pub(crate) fn public_url(&self) -> &PublicUrl {
        &self.0.settings.public_url
    }

    /// Returns the users whose tokens the login stores.
    pub(crate) fn users(&self) -> &UserTokens {
        &self.0.users
    }

    /// Returns the handler of the website app (网站应用) that stands beside the account.
    pub(crate) fn website(&self) -> Option<&Self> {
        match &self.0.app_kind {
            AppKind::OfficialAccount { website } => website.as_ref(),
            AppKind::Website { .. } => None,
        }
    }

    /// Returns the session cookie that logins set. As an identity, it also reads the sessions of the
    /// website.
    pub(crate) fn session_cookie(&self) -> &SessionCookie {
        &self.0.session_cookie
    }

    /// Returns the session cookie of the other app of this login: of the website, or of the account
    /// beside which the website stands.
    pub(super) fn other_session_cookie(&self) -> Option<&SessionCookie> {
        match &self.0.app_kind {
            AppKind::OfficialAccount { website } => website.as_ref().map(Self::session_cookie),
            AppKind::Website { account_session } => Some(account_session),
        }
    }

    /// Returns `true` if tokens are stored under the user id of the layer's identity.
    pub(crate) fn binds_to_identity(&self) -> bool {
        self.0.settings.bind_to_identity
    }

    /// Returns `true` if the login answers this path. The layer calls this for every request.
    #[inline]
    pub(crate) fn handles_path(&self, path: &str) -> bool {
        self.is_callback_path(path)
            || self.is_login_path(path)
            || self.verification_file(path).is_some()
    }

    /// Returns `true` if a request's path is the callback path.
    pub(super) fn is_callback_path(&self, path: &str) -> bool {
        self.0
            .settings
            .is_own_path(path, &self.0.settings.callback_path)
    }

    /// Returns `true` if a request's path is the login path.
    fn is_login_path(&self, path: &str) -> bool {
        self.0
            .settings
            .is_own_path(path, &self.0.settings.login_path)
    }

    /// Returns the verification file at a path, with or without the prefix of the public URL.
    #[inline]
    pub(super) fn verification_file(&self, path: &str) -> Option<&VerificationFile> {
        let settings = &self.0.settings;
        let mut files = settings.verification_files.iter();
        files.find(|file| settings.public_url.strip_path_prefix(path).unwrap_or(path) == file.path)
    }

    /// Begins a login, and returns the redirect to WeChat.
    pub(super) fn begin_attempt(
        &self,
        scope: Scope,
        return_to: ReturnTo,
        mut browser: BrowserLogins,
    ) -> LoginReply {
        match self.add_attempt(scope, return_to, &mut browser) {
            Ok(attempt) => self.redirect_for_attempt(&attempt, &browser),
            Err(reply) => reply,
        }
    }

    /// Adds a new login to those of a browser. Returns a failure if the system returns no random
    /// bytes.
    pub(super) fn add_attempt(
        &self,
        scope: Scope,
        return_to: ReturnTo,
        browser: &mut BrowserLogins,
    ) -> Result<LoginAttempt, LoginReply> {
        let Some(state) = self.0.state_signer.issue(self.now()) else {
            tracing::error!(target: "tower_wechat::login", "a login could not begin because the system returned no random bytes; check its random number generator");
            // No `LoginFailure` describes a lack of random bytes. The page of `StoreUnavailable` is
            // true here too: the service is not available, and another attempt may succeed.
            return Err(self.reply_with_failure(LoginFailure::StoreUnavailable, None));
        };
        let attempt = LoginAttempt {
            state,
            scope,
            return_to,
            status: AttemptStatus::Open,
            repeats: 0,
        };
        browser.add_attempt(attempt.clone());
        Ok(attempt)
    }

    /// Returns a redirect to WeChat's page, with the browser's changed cookies.
    pub(super) fn redirect_for_attempt(
        &self,
        attempt: &LoginAttempt,
        browser: &BrowserLogins,
    ) -> LoginReply {
        let inner = &*self.0;
        let state = inner.state_signer.encode(attempt.state);
        let authorize = AuthorizationRequest {
            open_url: inner.users.wechat().open_url(),
            page: match inner.app_kind {
                AppKind::OfficialAccount { .. } => AuthorizePage::OfficialAccount {
                    scope: attempt.scope,
                    options: inner.settings.authorize_options,
                },
                AppKind::Website { .. } => AuthorizePage::Website,
            },
            app_id: inner.users.app_id().as_str(),
            redirect_uri: &inner.redirect_uri,
            state: &state,
            component_app_id: inner.users.wechat().component_app_id().map(AppId::as_str),
        };
        match HeaderValue::try_from(authorize.url()) {
            Ok(url) => {
                metrics::count_login_start();
                LoginReply::redirect(url, self.changed_cookie_headers(browser))
            }
            Err(_) => self.reply_with_failure(LoginFailure::Misconfigured, None),
        }
    }

    /// Returns a redirect to the page of a login, with these `Set-Cookie` values. If the page's origin
    /// is no longer listed, returns a redirect to the start page.
    pub(super) fn redirect_to_page(
        &self,
        page: &ReturnTo,
        cookies: Vec<HeaderValue>,
    ) -> LoginReply {
        let start_page;
        let page = match page.is_allowed(&self.0.settings.return_origins) {
            true => page,
            false => {
                let reason = ReturnToError::UnlistedOrigin;
                self.log_unusable_return_to(reason, page.as_str().as_bytes());
                start_page = self.start_page();
                &start_page
            }
        };
        let clears_fragment = self.0.settings.clear_fragment && !page.as_str().contains('#');
        let url = format!(
            "{}{}",
            page.as_str(),
            if clears_fragment { "#" } else { "" }
        );
        // A page consists of visible ASCII, so the conversion never fails.
        let url = HeaderValue::try_from(url).unwrap_or_else(|_| HeaderValue::from_static("/"));
        LoginReply::redirect(url, cookies)
    }

    /// Returns a failure page whose button leads to `button_url`. For `None`, the button leads to
    /// the start page for a malformed request, and to another login for all other failures.
    pub(super) fn reply_with_failure(
        &self,
        failure: LoginFailure,
        button_url: Option<String>,
    ) -> LoginReply {
        let button_url = button_url.unwrap_or_else(|| match failure {
            LoginFailure::BadRequest => self.start_page().as_str().to_owned(),
            _ => self.0.settings.login_url(None, None),
        });
        LoginReply::new(ReplyContent::FailurePage(FailurePage {
            failure,
            button_url,
            retry_after: failure.is_transient().then_some(TRANSIENT_FAILURE_LIFETIME),
        }))
    }

    /// Returns `Set-Cookie` values for the changed login cookies of a browser. The browser sends
    /// these cookies to every path, because any page load may have to find the logins that are
    /// open.
    pub(super) fn changed_cookie_headers(&self, browser: &BrowserLogins) -> Vec<HeaderValue> {
        let secure = self.0.settings.is_https();
        let prefix = self.0.settings.public_url.path_prefix();
        // Browsers accept `__Host-` cookies with the path `/` only.
        let path = if secure || prefix.is_empty() {
            "/"
        } else {
            prefix
        };
        let cookies = self.0.login_cookies.write(browser).into_iter();
        cookies
            .map(|(cookie, lifetime)| set_cookie_header(&cookie, path, lifetime, secure))
            .collect()
    }

    /// Returns the application's start page.
    pub(super) fn start_page(&self) -> ReturnTo {
        self.0.settings.start_page()
    }

    /// Returns the time of the application's clock.
    pub(super) fn now(&self) -> Timestamp {
        self.0.users.clock().now()
    }
}

/// Returns `true` if a website has another AppID than the account beside which it stands. Otherwise
/// logs an error, and the login works without the website.
fn is_other_app(website: &UserTokens, account: &UserTokens) -> bool {
    let is_other = website.app_id() != account.app_id();
    if !is_other {
        tracing::error!(
            target: "tower_wechat::login",
            app = %account.app_id(),
            "the website of a login has the AppID of its account and is ignored; create its \
             WechatClient with the AppID and the secret of the website app (网站应用)"
        );
    }
    is_other
}

impl fmt::Debug for LoginHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginHandler")
            .field("settings", &self.0.settings)
            .finish_non_exhaustive()
    }
}
