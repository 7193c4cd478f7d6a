//! A login at work for one account, and the way to WeChat.

#[cfg(feature = "axum")]
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::REFERER;
use http::{HeaderMap, HeaderValue, Method, Uri};
use percent_encoding::percent_decode_str;

use super::authorize::{AuthorizationRequest, encode_query_value};
use super::callback::parse_code_and_state;
use super::cookies::{AttemptStatus, BrowserLogins, LoginAttempt, LoginCookies};
use super::exchange::{MAX_CODES_PER_LOGIN, TRANSIENT_FAILURE_LIFETIME, bind_code_to_login};
use super::failure::{FailurePage, LoginFailure, LoginReply, ReplyContent};
use super::return_to::{ReturnTo, ReturnToError};
use super::state::{StateError, StateSigner};
use super::verification_file::VerificationFile;
use super::{LoginSettings, Scope};
use crate::clock::Timestamp;
use crate::credential::UserId;
use crate::error::ErrorKind;
use crate::identity::{RequestHead, SessionCookie};
use crate::log_limiter::LogLimiter;
use crate::login::limits::codes::CodeLimiter;
use crate::login::limits::exchanges::{ExchangeLimiter, RunningExchanges};
use crate::login::limits::logins::LoginLimiter;
use crate::metrics;
use crate::navigation::{Initiator, initiator, is_navigation, is_wechat_browser};
use crate::store::{BoxFuture, LoginCodeKey};
use crate::users::{UserToken, UserTokens};

/// How many codes of one login that were refused unspent are kept from other logins.
const MAX_UNSPENT_CODES: usize = 8;

/// How often a browser may come back to one page, within a minute and without having passed the
/// callback, before that is called a loop: three visits to WeChat in all, since the first one may
/// have begun at another page.
const MAX_MISSED_CALLBACKS: u8 = 2;

/// How often a browser may begin a login for one page, within a minute and without having passed the
/// callback, whatever it says of itself: more than the tabs and reloads of any person. A cookie counts
/// up to 15.
const BEGUN_AT_MOST: u8 = 13;

/// A person takes at least this many seconds from one reload of a page to the next, on average.
const MIN_RELOAD_SECONDS: u64 = 2;

/// A [`Login`](super::Login), set up for the users of one account. Clones share everything.
#[derive(Clone)]
pub(crate) struct LoginHandler(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) settings: LoginSettings,
    pub(super) users: UserTokens,
    pub(super) session_cookie: SessionCookie,
    pub(super) state_signer: StateSigner,
    pub(super) login_cookies: LoginCookies,
    pub(super) log_limiter: Arc<LogLimiter>,
    pub(super) login_limiter: LoginLimiter,
    pub(super) code_limiter: CodeLimiter,
    /// The codes that were refused unspent.
    pub(super) unspent_codes: CodeLimiter,
    /// Bounds the exchanges of this process.
    pub(super) exchange_limiter: Arc<ExchangeLimiter>,
    pub(super) running_exchanges: Arc<RunningExchanges>,
    redirect_uri: String,
}

/// What a request to one of the login's own paths gets.
pub(crate) enum HandlerReply {
    Ready(LoginReply),
    Pending(BoxFuture<'static, LoginReply>),
}

impl LoginHandler {
    pub(super) fn new(settings: LoginSettings, users: UserTokens) -> Self {
        let app = users.app_id();
        let session = settings.session_cookie(app).clock(users.clock().clone());
        let (keys, lifetime) = (&settings.cookie_keys, settings.state_lifetime);
        let callback = settings.public_url.public_path(&settings.callback_path);
        let states = StateSigner::new(app, keys, &callback, lifetime);
        let start_page = ReturnTo::start_page(&settings.public_url);
        let secure = settings.is_https();
        let cookies = LoginCookies::new(app, keys, &callback, secure, lifetime, start_page);
        let redirect_uri = settings.public_url.absolute_url(&callback);
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
        }))
    }

    pub(crate) fn session_cookie(&self) -> &SessionCookie {
        &self.0.session_cookie
    }

    /// Whether the login answers this path itself. Every request is asked this.
    #[inline]
    pub(crate) fn handles_path(&self, path: &str) -> bool {
        self.is_callback_path(path)
            || self.is_login_path(path)
            || self.verification_file(path).is_some()
    }

    fn is_callback_path(&self, path: &str) -> bool {
        self.0
            .settings
            .is_own_path(path, &self.0.settings.callback_path)
    }

    fn is_login_path(&self, path: &str) -> bool {
        self.0
            .settings
            .is_own_path(path, &self.0.settings.login_path)
    }

    /// The paths that the login answers: as browsers know them, or as a proxy leaves them that strips
    /// the prefix; with a slash at the end or without. Verification files have none.
    #[cfg(feature = "axum")]
    pub(crate) fn route_paths(&self) -> BTreeSet<String> {
        let settings = &self.0.settings;
        let own = [&settings.callback_path, &settings.login_path];
        let known = own.into_iter().flat_map(|path| {
            let plain = path.strip_suffix('/').unwrap_or(path);
            [plain.to_owned(), settings.public_url.public_path(plain)]
        });
        let known = known.flat_map(|path| [format!("{path}/"), path]);
        let files = settings.verification_files.iter().map(|file| &*file.path);
        let files = files.flat_map(|path| [path.to_owned(), settings.public_url.public_path(path)]);
        known.chain(files).collect()
    }

    /// Returns the verification file at a path, which a proxy may have stripped of the prefix.
    #[inline]
    fn verification_file(&self, path: &str) -> Option<&VerificationFile> {
        let settings = &self.0.settings;
        let mut files = settings.verification_files.iter();
        files.find(|file| settings.public_url.strip_path_prefix(path).unwrap_or(path) == file.path)
    }

    /// Whether logins are for the user whom the layer's identity names.
    pub(crate) fn binds_to_identity(&self) -> bool {
        self.0.settings.bind_to_identity
    }

    /// Answers a request to one of the login's own paths. `named` is whom the layer's identity
    /// names, where that [counts](Self::binds).
    pub(crate) fn handle(
        &self,
        head: &RequestHead<'_>,
        bound_user: Option<UserId>,
    ) -> HandlerReply {
        if *head.method != Method::GET && *head.method != Method::HEAD {
            return HandlerReply::Ready(self.reply_with_failure(LoginFailure::BadRequest, None));
        }
        if let Some(file) = self.verification_file(head.original_uri().path()) {
            return HandlerReply::Ready(LoginReply {
                content: ReplyContent::File(file.content.clone()),
                set_cookies: Vec::new(),
            });
        }
        if self.is_callback_path(head.original_uri().path()) {
            return self.handle_callback(head, bound_user);
        }
        // A callback that was rewritten to the login's path would begin the next login.
        match self.reject_misrouted_callback(head) {
            Some(answer) => HandlerReply::Ready(answer),
            None => self.handle_login_link(head, bound_user.as_ref()),
        }
    }

    /// `/wechat/login?return_to=PATH&scope=SCOPE`. The scope only raises what is asked for: anybody
    /// can make such a link.
    fn handle_login_link(
        &self,
        head: &RequestHead<'_>,
        bound_user: Option<&UserId>,
    ) -> HandlerReply {
        let link = LoginLink::parse(head.uri.query().unwrap_or_default());
        let return_to = link.return_to.and_then(|page| self.parse_return_to(&page));
        if link.has_unencoded_rest {
            self.log_unencoded_return_to(return_to.as_ref());
        }
        let return_to = return_to.unwrap_or_else(|| self.start_page());
        let scope = self.0.settings.scope;
        let scope = link.scope.map_or(scope, |asked| scope.at_least(asked));
        self.begin_with_granted_scope(scope, return_to, head, bound_user)
    }

    fn log_unencoded_return_to(&self, page: Option<&ReturnTo>) {
        if let Some(more) = self.0.log_limiter.allow_line("unencoded") {
            let path = page.map_or("", ReturnTo::path);
            let path: String = path.chars().take(200).collect();
            tracing::warn!(
                target: "tower_wechat::login",
                app = %self.0.users.app_id(),
                ?path,
                more,
                "a link to the login did not encode its return_to, and what followed was taken for \
                 the rest of it; encode the page with encodeURIComponent, or let Login::login_url \
                 make the link"
            );
        }
    }

    /// What a request gets that nobody is signed in for, or whose user lacks a scope: a navigation
    /// is sent to WeChat. For anything else, see [`login_url`](Self::login_url). `unnamed` is whether
    /// the layer's identity names nobody.
    pub(crate) fn redirect_to_wechat(
        &self,
        head: &RequestHead<'_>,
        scope: Option<Scope>,
        unnamed: bool,
    ) -> LoginReply {
        let scope = scope.unwrap_or(self.0.settings.scope);
        match self.requested_page(head) {
            Ok(page) => self
                .not_kept(head, &page, unnamed)
                .unwrap_or_else(|| self.begin_or_reuse_attempt(scope, page, head.headers)),
            Err(answer) => answer,
        }
    }

    /// The page that a request asked for, to be led back to.
    fn requested_page(&self, head: &RequestHead<'_>) -> Result<ReturnTo, LoginReply> {
        let asked = head.original_uri();
        if self.0.settings.resembles_callback_path(asked.path()) {
            // WeChat has sent the user here, and a proxy has dropped the query too.
            return Err(self.reject_wrong_callback_path(asked.path()));
        }
        let (page, error) = ReturnTo::from_uri(asked, &self.0.settings.public_url);
        if let Some(reason) = error {
            let bytes = asked.path_and_query().map_or(0, |all| all.as_str().len());
            self.log_unusable_return_to(reason, bytes);
        }
        Ok(page)
    }

    /// Returns the answer to a page load that WeChat has sent here although this is not the
    /// callback: sent there again, it would come here again.
    pub(crate) fn reject_misrouted_callback(&self, head: &RequestHead<'_>) -> Option<LoginReply> {
        let query = head.uri.query()?;
        // Nearly every request ends here.
        memchr::memmem::find(query.as_bytes(), b"state=")?;
        let now = self.now();
        let ours = |(name, value): (String, String)| match self.0.state_signer.verify(&value, now) {
            Ok(issued) | Err(StateError::Expired(issued)) if name == "state" => Some(issued),
            Ok(_) | Err(StateError::Expired(_) | StateError::Forged) => None,
        };
        let issued = query_pairs(head.uri).find_map(ours)?;
        if !is_navigation(head) {
            return None;
        }
        self.bind_misrouted_code(head.uri, issued.login_id);
        Some(self.reject_wrong_callback_path(head.original_uri().path()))
    }

    /// Makes the code of a callback that came elsewhere useless under any other login: it is in the
    /// logs of whatever led it there.
    fn bind_misrouted_code(&self, uri: &Uri, login_id: u64) {
        let Ok((Some(code), _)) = parse_code_and_state(uri) else {
            return;
        };
        let name = LoginCodeKey::new(self.0.users.app_id(), &code);
        if self.0.unspent_codes.try_admit(login_id, &name.hash) {
            let users = self.0.users.clone();
            let keep = async move { bind_code_to_login(&users, &name, login_id).await };
            self.0.users.spawn(keep);
        }
    }

    fn reject_wrong_callback_path(&self, path: &str) -> LoginReply {
        if let Some(more) = self.0.log_limiter.allow_line("misplaced") {
            let came: String = path.chars().take(200).collect();
            tracing::error!(
                target: "tower_wechat::login",
                app = %self.0.users.app_id(),
                ?came,
                expected = self.0.settings.public_url.public_path(&self.0.settings.callback_path),
                more,
                "WeChat sent a user back to a path that is not the callback; a proxy in front \
                 strips a prefix (add it to the public URL) or rewrites the path (pass it on as it is)"
            );
        }
        metrics::count_login(LoginFailure::WrongCallbackPath.as_str());
        self.reply_with_failure(
            LoginFailure::WrongCallbackPath,
            Some(self.start_page().as_str().to_owned()),
        )
    }

    /// As [`redirect`](Self::redirect), where the browser's cookies are not at hand: the login's own
    /// path gets to see them.
    pub(crate) fn redirect_to_login(
        &self,
        head: &RequestHead<'_>,
        scope: Option<Scope>,
    ) -> LoginReply {
        let page = match self.requested_page(head) {
            Ok(page) => page,
            Err(answer) => return answer,
        };
        if let Some(answer) = self.not_kept(head, &page, false) {
            return answer;
        }
        let url = self.0.settings.login_url(Some(&page), scope);
        match HeaderValue::try_from(url) {
            Ok(url) => LoginReply {
                content: ReplyContent::Redirect(url),
                set_cookies: Vec::new(),
            },
            Err(_) => self.reply_with_failure(LoginFailure::BadRequest, None),
        }
    }

    /// What a form gets that nobody is signed in for: a login that leads back to the page with the
    /// form. Its data is not sent again.
    pub(crate) fn redirect_form_to_login(
        &self,
        head: &RequestHead<'_>,
        scope: Option<Scope>,
    ) -> LoginReply {
        match HeaderValue::try_from(self.login_url_for_script(head, scope)) {
            Ok(url) => LoginReply {
                content: ReplyContent::Redirect(url),
                set_cookies: Vec::new(),
            },
            Err(_) => self.reply_with_failure(LoginFailure::BadRequest, None),
        }
    }

    /// Where a script can send its user to log in: a path of ours that leads back to the page
    /// from which the script asked.
    pub(crate) fn login_url_for_script(
        &self,
        head: &RequestHead<'_>,
        scope: Option<Scope>,
    ) -> String {
        let referer = head.headers.get(REFERER).map(HeaderValue::as_bytes);
        let public_url = &self.0.settings.public_url;
        let page = referer.and_then(|referer| ReturnTo::from_referer(referer, public_url));
        let page = page.filter(|page| !self.is_login_page(page));
        self.0.settings.login_url(page.as_ref(), scope)
    }

    /// A path of an application's own, to which a login may lead.
    fn parse_return_to(&self, path: &[u8]) -> Option<ReturnTo> {
        match ReturnTo::parse(path, &self.0.settings.public_url) {
            Ok(page) => Some(page).filter(|page| !self.is_login_page(page)),
            Err(reason) => {
                self.log_unusable_return_to(reason, path.len());
                None
            }
        }
    }

    /// Whether a page is one of the login's own paths, however it is written.
    fn is_login_page(&self, page: &ReturnTo) -> bool {
        self.handles_path(&percent_decode_str(page.path()).decode_utf8_lossy())
    }

    fn log_unusable_return_to(&self, reason: ReturnToError, bytes: usize) {
        let kind = reason.as_str();
        if let Some(more) = self.0.log_limiter.allow_line(kind) {
            tracing::warn!(target: "tower_wechat::login", app = %self.0.users.app_id(), reason = kind, bytes, more, "a login does not lead back to the page that was asked for");
        }
    }

    fn start_page(&self) -> ReturnTo {
        ReturnTo::start_page(&self.0.settings.public_url)
    }

    /// Whether a user's token covers a scope. Where the scope is not known, the call is tried.
    pub(crate) fn lacks_scope(token: &UserToken, scope: Scope) -> bool {
        token
            .scope()
            .is_some_and(|granted| !scope.is_granted_by(granted))
    }

    /// Returns `true` if this browser has come back within the last minute from a login that asked
    /// for `scope`.
    pub(crate) fn signed_in_recently_with(&self, scope: Scope, headers: &HeaderMap) -> bool {
        self.0
            .login_cookies
            .read(headers, self.now())
            .signed_in_recently_with(scope)
    }

    /// What a user gets who lacks a scope and is not to be asked again.
    pub(crate) fn reject_declined_scope(&self, head: &RequestHead<'_>, scope: Scope) -> LoginReply {
        let (page, _) = ReturnTo::from_uri(head.original_uri(), &self.0.settings.public_url);
        let button_url = self.0.settings.login_url(Some(&page), Some(scope));
        self.reply_with_failure(LoginFailure::ProfileNotGranted, Some(button_url))
    }

    pub(super) fn begin_or_reuse_attempt(
        &self,
        scope: Scope,
        return_to: ReturnTo,
        headers: &HeaderMap,
    ) -> LoginReply {
        if self.0.settings.wechat_only && !is_wechat_browser(headers) {
            return self.reply_with_failure(
                LoginFailure::NotInWechat,
                Some(return_to.as_str().to_owned()),
            );
        }
        let mut browser = self.0.login_cookies.read(headers, self.now());
        let Some(attempt) = browser.reuse_attempt(scope, &return_to) else {
            return self.begin_attempt(scope, return_to, browser);
        };
        if attempt.repeats >= MAX_MISSED_CALLBACKS && self.seems_to_miss_callback(&attempt, headers)
        {
            return self.reject_missed_callback(&return_to);
        }
        self.redirect_for_attempt(&attempt, &browser)
    }

    /// Returns `true` if this page load seems to come from WeChat by a way that the callback is not
    /// on, and not from a person who reloads. Older web views do not say enough to tell, so that
    /// only a number that no person reaches is a loop.
    fn seems_to_miss_callback(&self, attempt: &LoginAttempt, headers: &HeaderMap) -> bool {
        if attempt.repeats >= BEGUN_AT_MOST {
            return true;
        }
        // With its query, a callback is known wherever it comes.
        let has_query = attempt.return_to.as_str().contains('?');
        match initiator(headers) {
            _ if has_query => false,
            None => false,
            Some(Initiator::OtherOrigin) => true,
            // An address that was typed, or opened by another program, counts as that through all
            // redirects. Redirects come back faster than a person reloads. The first two loads are
            // free: web views load a page twice.
            Some(Initiator::SameOriginOrNone) => {
                let reloads = u64::from(attempt.repeats).saturating_sub(1);
                attempt.age_seconds(self.now()) < MIN_RELOAD_SECONDS * reloads
            }
        }
    }

    fn reject_missed_callback(&self, return_to: &ReturnTo) -> LoginReply {
        if let Some(more) = self.0.log_limiter.allow_line("misses_callback") {
            let came: String = return_to.path().chars().take(200).collect();
            tracing::error!(
                target: "tower_wechat::login",
                app = %self.0.users.app_id(),
                ?came,
                expected = self.0.settings.public_url.public_path(&self.0.settings.callback_path),
                more,
                "a browser comes back from WeChat again and again without passing the callback; a \
                 proxy in front rewrites the path or drops the query"
            );
        }
        metrics::count_login(LoginFailure::RateLimited.as_str());
        let page = self.0.settings.login_url(Some(return_to), None);
        self.reply_with_failure(LoginFailure::RateLimited, Some(page))
    }

    pub(super) fn begin_attempt(
        &self,
        scope: Scope,
        return_to: ReturnTo,
        mut browser: BrowserLogins,
    ) -> LoginReply {
        let Some(issued) = self.0.state_signer.issue(self.now()) else {
            tracing::error!(target: "tower_wechat::login", "the system gives no random bytes for a login");
            return self.reply_with_failure(LoginFailure::StoreUnavailable, None);
        };
        let attempt = LoginAttempt {
            state: issued,
            scope,
            return_to,
            status: AttemptStatus::Open,
            repeats: 0,
        };
        browser.add_attempt(attempt.clone());
        self.redirect_for_attempt(&attempt, &browser)
    }

    /// To WeChat's page, with what this browser has to keep.
    fn redirect_for_attempt(&self, attempt: &LoginAttempt, browser: &BrowserLogins) -> LoginReply {
        let inner = &*self.0;
        let state = inner.state_signer.encode(attempt.state);
        let authorize = AuthorizationRequest {
            open_url: inner.users.wechat().open_url(),
            app_id: inner.users.app_id().as_str(),
            redirect_uri: &inner.redirect_uri,
            scope: attempt.scope,
            state: &state,
            options: inner.settings.authorize_options,
        };
        match HeaderValue::try_from(authorize.url()) {
            Ok(url) => {
                metrics::count_login_start();
                LoginReply {
                    content: ReplyContent::Redirect(url),
                    set_cookies: self.changed_cookie_headers(browser),
                }
            }
            Err(_) => self.reply_with_failure(LoginFailure::Misconfigured, None),
        }
    }

    /// On to the page.
    pub(super) fn redirect_to_page(
        &self,
        page: &ReturnTo,
        cookies: Vec<HeaderValue>,
    ) -> LoginReply {
        let clear = self.0.settings.clear_fragment && !page.as_str().contains('#');
        let page = format!("{}{}", page.as_str(), if clear { "#" } else { "" });
        // Of visible ASCII throughout, which every header takes.
        let page = HeaderValue::try_from(page).unwrap_or_else(|_| HeaderValue::from_static("/"));
        LoginReply {
            content: ReplyContent::Redirect(page),
            set_cookies: cookies,
        }
    }

    pub(super) fn reply_with_failure(
        &self,
        failure: LoginFailure,
        button_url: Option<String>,
    ) -> LoginReply {
        let onward = button_url.unwrap_or_else(|| match failure {
            LoginFailure::BadRequest => self.start_page().as_str().to_owned(),
            _ => self.0.settings.login_url(None, None),
        });
        LoginReply {
            content: ReplyContent::FailurePage(FailurePage {
                failure,
                button_url: onward,
                retry_after: failure.is_transient().then_some(TRANSIENT_FAILURE_LIFETIME),
            }),
            set_cookies: Vec::new(),
        }
    }

    /// What stands in the way of a page, for its reader.
    pub(crate) fn failure_page(
        &self,
        kind: ErrorKind,
        retry_after: Option<Duration>,
        uri: &Uri,
    ) -> Option<FailurePage> {
        let (page, _) = ReturnTo::from_uri(uri, &self.0.settings.public_url);
        Some(FailurePage {
            failure: LoginFailure::from_page_error(kind)?,
            button_url: page.as_str().to_owned(),
            retry_after,
        })
    }

    /// The cookies of a browser that have changed. Every path gets to see them: a page load has to
    /// know which logins are under way.
    pub(super) fn changed_cookie_headers(&self, browser: &BrowserLogins) -> Vec<HeaderValue> {
        let secure = self.0.settings.is_https();
        let prefix = self.0.settings.public_url.path_prefix();
        // What only this host may set has to be for all of it.
        let path = if secure || prefix.is_empty() {
            "/"
        } else {
            prefix
        };
        let secure = if secure { "; Secure" } else { "" };
        let header = |(text, life): (String, u64)| {
            let text =
                format!("{text}; Path={path}; Max-Age={life}; HttpOnly; SameSite=Lax{secure}");
            let mut header =
                HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""));
            header.set_sensitive(true);
            header
        };
        let cookies = self.0.login_cookies.write(browser);
        cookies.into_iter().map(header).collect()
    }

    pub(super) fn now(&self) -> Timestamp {
        self.0.users.clock().now()
    }
}

/// What a link to the login asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct LoginLink {
    return_to: Option<Vec<u8>>,
    scope: Option<Scope>,
    /// Whether parameters that the login does not know were taken for the rest of `return_to`.
    has_unencoded_rest: bool,
}

impl LoginLink {
    /// Reads a query. A page that does not encode its `return_to` loses all behind the first `&` to
    /// the login's own query, as in `return_to=/a?x=1&y=2`. An encoded one has neither a question
    /// mark nor an equals sign, so that what others add to a link (WeChat adds `from`) stays out.
    fn parse(query: &str) -> Self {
        let mut asked = Self::default();
        let mut is_unencoded = false;
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, text) = (decode_query_text(name), decode_query_text(value));
            let scope = || Scope::from_name(std::str::from_utf8(&text).ok()?);
            match (&*name, &mut asked.return_to) {
                (b"return_to", page) => {
                    is_unencoded = text.contains(&b'?') && value.contains(['?', '=']);
                    asked.has_unencoded_rest = false;
                    *page = Some(text);
                }
                (b"scope", _) if scope().is_some() => asked.scope = scope(),
                (_, Some(page)) if is_unencoded && !pair.is_empty() => {
                    page.push(b'&');
                    page.extend(pair.bytes());
                    asked.has_unencoded_rest = true;
                }
                _ => {}
            }
        }
        asked
    }
}

/// The pairs of a query, decoded; what is no UTF-8 is repaired.
pub(super) fn query_pairs(uri: &Uri) -> impl Iterator<Item = (String, String)> + '_ {
    let text = |text| String::from_utf8_lossy(&decode_query_text(text)).into_owned();
    uri.query().unwrap_or_default().split('&').map(move |pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (text(name), text(value))
    })
}

/// What a name or a value of a query stands for.
fn decode_query_text(text: &str) -> Vec<u8> {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).collect()
}

impl LoginSettings {
    /// Whether a request's path is one of the login's own: as browsers know it, or as a proxy leaves
    /// it that strips the prefix; with a slash at its end or without.
    #[inline]
    fn is_own_path(&self, path: &str, own: &str) -> bool {
        let plain = |path| str::strip_suffix(path, '/').unwrap_or(path);
        let below = |path| self.public_url.strip_path_prefix(path).unwrap_or(path);
        below(plain(path)) == below(plain(own))
    }

    /// Whether a path is what a proxy may make of the callback's by taking from its front, or by
    /// adding to it.
    fn resembles_callback_path(&self, path: &str) -> bool {
        let callback = self.public_url.public_path(&self.callback_path);
        let path = path.trim_matches('/');
        !path.is_empty()
            && (ends_with_segments(callback.trim_matches('/'), path)
                || ends_with_segments(path, self.callback_path.trim_matches('/')))
    }

    /// The path that begins a login which leads back to `page`.
    pub(super) fn login_url(&self, page: Option<&ReturnTo>, scope: Option<Scope>) -> String {
        let start_page = || ReturnTo::start_page(&self.public_url);
        let page = page.cloned().unwrap_or_else(start_page);
        let login = self.public_url.public_path(&self.login_path);
        let mut url = format!("{login}?return_to={}", encode_query_value(page.as_str()));
        if let Some(scope) = scope {
            url.push_str("&scope=");
            url.push_str(scope.as_str());
        }
        url
    }
}

/// Whether the last segments of a path are these.
fn ends_with_segments(path: &str, segments: &str) -> bool {
    let front = path.len().checked_sub(segments.len());
    let Some((front, back)) = front.and_then(|at| path.split_at_checked(at)) else {
        return false;
    };
    back.eq_ignore_ascii_case(segments) && (front.is_empty() || front.ends_with('/'))
}

impl fmt::Debug for LoginHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignIn")
            .field("settings", &self.0.settings)
            .finish_non_exhaustive()
    }
}
