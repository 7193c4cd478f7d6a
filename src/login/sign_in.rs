//! A login at work for one account, and the way to WeChat.

#[cfg(feature = "axum")]
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::REFERER;
use http::{HeaderMap, HeaderValue, Method, Uri};
use percent_encoding::percent_decode_str;

use super::answer::{Answer, Outcome, Problem, Trouble};
use super::authorize::{Authorize, query_value};
use super::callback::code_and_state;
use super::codes::Codes;
use super::cookies::{Attempt, Browser, LoginCookies, Progress};
use super::exchange::{CODES, PASSING_LIFETIME, keep_from_others};
use super::lines::Lines;
use super::navigation::{Site, came_from, is_navigation, is_wechat};
use super::return_to::{NoReturn, ReturnTo};
use super::rounds::Rounds;
use super::state::{BadState, States};
use super::turns::{Running, Turns};
use super::verification::VerificationFile;
use super::{Scope, Settings};
use crate::clock::Timestamp;
use crate::credential::UserId;
use crate::error::ErrorKind;
use crate::identity::{RequestHead, SessionCookie};
use crate::observe;
use crate::store::{BoxFuture, CodeName};
use crate::users::{UserToken, UserTokens};

/// How many codes of one login that were refused unspent are kept from other logins.
const REFUSED_CODES: usize = 8;

/// How often a browser may come back to one page, within a minute and without having passed the
/// callback, before that is called a loop: three visits to WeChat in all, since the first one may
/// have begun at another page.
const MISSED_CALLBACKS: u8 = 2;

/// How often a browser may begin a login for one page, within a minute and without having passed the
/// callback, whatever it says of itself: more than the tabs and reloads of any person. A cookie counts
/// up to 15.
const BEGUN_AT_MOST: u8 = 13;

/// A person takes at least this many seconds from one reload of a page to the next, on average.
const PERSON_RELOADS_AFTER: u64 = 2;

/// A [`Login`](super::Login), set up for the users of one account. Clones share everything.
#[derive(Clone)]
pub(crate) struct SignIn(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) settings: Settings,
    pub(super) users: UserTokens,
    pub(super) session: SessionCookie,
    pub(super) states: States,
    pub(super) cookies: LoginCookies,
    pub(super) lines: Arc<Lines>,
    pub(super) rounds: Rounds,
    pub(super) codes: Codes,
    /// The codes that were refused unspent.
    pub(super) refused: Codes,
    /// Bounds the exchanges of this process.
    pub(super) turns: Arc<Turns>,
    pub(super) running: Arc<Running>,
    redirect_uri: String,
}

/// What a request to one of the login's own paths gets.
pub(crate) enum Reply {
    Now(Answer),
    Later(BoxFuture<'static, Answer>),
}

impl SignIn {
    pub(super) fn new(settings: Settings, users: UserTokens) -> Self {
        let app = users.app_id();
        let session = settings.session(app).clock(users.clock().clone());
        let (keys, lifetime) = (&settings.keys, settings.state_lifetime);
        let callback = settings.public_url.public(&settings.callback_path);
        let states = States::new(app, keys, &callback, lifetime);
        let start_page = ReturnTo::root(&settings.public_url);
        let secure = settings.secure();
        let cookies = LoginCookies::new(app, keys, &callback, secure, lifetime, start_page);
        let redirect_uri = settings.public_url.address_of(&callback);
        Self(Arc::new(Inner {
            settings,
            users,
            session,
            states,
            cookies,
            lines: Arc::default(),
            rounds: Rounds::new(),
            codes: Codes::new(CODES),
            refused: Codes::new(REFUSED_CODES),
            turns: Turns::new(),
            running: Arc::default(),
            redirect_uri,
        }))
    }

    pub(crate) fn session(&self) -> &SessionCookie {
        &self.0.session
    }

    /// Whether the login answers this path itself. Every request is asked this.
    #[inline]
    pub(crate) fn owns(&self, path: &str) -> bool {
        self.is_callback(path) || self.is_login(path) || self.verification_file(path).is_some()
    }

    fn is_callback(&self, path: &str) -> bool {
        self.0.settings.is_at(path, &self.0.settings.callback_path)
    }

    fn is_login(&self, path: &str) -> bool {
        self.0.settings.is_at(path, &self.0.settings.login_path)
    }

    /// The paths that the login answers: as browsers know them, or as a proxy leaves them that strips
    /// the prefix; with a slash at the end or without. Verification files have none.
    #[cfg(feature = "axum")]
    pub(crate) fn paths(&self) -> BTreeSet<String> {
        let settings = &self.0.settings;
        let own = [&settings.callback_path, &settings.login_path];
        let known = own.into_iter().flat_map(|path| {
            let plain = path.strip_suffix('/').unwrap_or(path);
            [plain.to_owned(), settings.public_url.public(plain)]
        });
        let known = known.flat_map(|path| [format!("{path}/"), path]);
        let files = settings.verification.iter().map(|file| &*file.path);
        let files = files.flat_map(|path| [path.to_owned(), settings.public_url.public(path)]);
        known.chain(files).collect()
    }

    /// Returns the verification file at a path, which a proxy may have stripped of the prefix.
    #[inline]
    fn verification_file(&self, path: &str) -> Option<&VerificationFile> {
        let settings = &self.0.settings;
        let mut files = settings.verification.iter();
        files.find(|file| settings.public_url.below_prefix(path).unwrap_or(path) == file.path)
    }

    /// Whether logins are for the user whom the layer's identity names.
    pub(crate) fn binds(&self) -> bool {
        self.0.settings.bind
    }

    /// Answers a request to one of the login's own paths. `named` is whom the layer's identity
    /// names, where that [counts](Self::binds).
    pub(crate) fn answer(&self, head: &RequestHead<'_>, named: Option<UserId>) -> Reply {
        if *head.method != Method::GET && *head.method != Method::HEAD {
            return Reply::Now(self.problem(Trouble::BadRequest, None));
        }
        if let Some(file) = self.verification_file(head.asked().path()) {
            return Reply::Now(Answer {
                outcome: Outcome::File(file.content.clone()),
                cookies: Vec::new(),
            });
        }
        if self.is_callback(head.asked().path()) {
            return self.callback(head, named);
        }
        // A callback that was rewritten to the login's path would begin the next login.
        match self.astray(head) {
            Some(answer) => Reply::Now(answer),
            None => self.asked_for(head, named.as_ref()),
        }
    }

    /// `/wechat/login?return_to=PATH&scope=SCOPE`. The scope only raises what is asked for: anybody
    /// can make such a link.
    fn asked_for(&self, head: &RequestHead<'_>, named: Option<&UserId>) -> Reply {
        let asked = Asked::of(head.uri.query().unwrap_or_default());
        let return_to = asked.return_to.and_then(|page| self.page(&page));
        if asked.has_rest {
            self.is_unencoded(return_to.as_ref());
        }
        let return_to = return_to.unwrap_or_else(|| self.start_page());
        let scope = self.0.settings.scope;
        let scope = asked.scope.map_or(scope, |asked| scope.at_least(asked));
        self.begin_no_lower(scope, return_to, head, named)
    }

    fn is_unencoded(&self, page: Option<&ReturnTo>) {
        if let Some(more) = self.0.lines.may_write("unencoded") {
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
    pub(crate) fn redirect(
        &self,
        head: &RequestHead<'_>,
        scope: Option<Scope>,
        unnamed: bool,
    ) -> Answer {
        let scope = scope.unwrap_or(self.0.settings.scope);
        match self.page_asked_for(head) {
            Ok(page) => self
                .not_kept(head, &page, unnamed)
                .unwrap_or_else(|| self.to_wechat(scope, page, head.headers)),
            Err(answer) => answer,
        }
    }

    /// The page that a request asked for, to be led back to.
    fn page_asked_for(&self, head: &RequestHead<'_>) -> Result<ReturnTo, Answer> {
        let asked = head.asked();
        if self.0.settings.looks_like_callback(asked.path()) {
            // WeChat has sent the user here, and a proxy has dropped the query too.
            return Err(self.misplaced(asked.path()));
        }
        let (page, left_out) = ReturnTo::of_uri(asked, &self.0.settings.public_url);
        if let Some(reason) = left_out {
            let bytes = asked.path_and_query().map_or(0, |all| all.as_str().len());
            self.does_not_return(reason, bytes);
        }
        Ok(page)
    }

    /// Returns the answer to a page load that WeChat has sent here although this is not the
    /// callback: sent there again, it would come here again.
    pub(crate) fn astray(&self, head: &RequestHead<'_>) -> Option<Answer> {
        let query = head.uri.query()?;
        // Nearly every request ends here.
        memchr::memmem::find(query.as_bytes(), b"state=")?;
        let now = self.now();
        let ours = |(name, value): (String, String)| match self.0.states.read(&value, now) {
            Ok(issued) | Err(BadState::Expired(issued)) if name == "state" => Some(issued),
            Ok(_) | Err(BadState::Expired(_) | BadState::Forged) => None,
        };
        let issued = pairs(head.uri).find_map(ours)?;
        if !is_navigation(head) {
            return None;
        }
        self.keep_code_from_others(head.uri, issued.number);
        Some(self.misplaced(head.asked().path()))
    }

    /// Makes the code of a callback that came elsewhere useless under any other login: it is in the
    /// logs of whatever led it there.
    fn keep_code_from_others(&self, uri: &Uri, login: u64) {
        let Ok((Some(code), _)) = code_and_state(uri) else {
            return;
        };
        let name = CodeName::of(self.0.users.app_id(), &code);
        if self.0.refused.admit(login, &name.hash) {
            let users = self.0.users.clone();
            let keep = async move { keep_from_others(&users, &name, login).await };
            self.0.users.spawn(keep);
        }
    }

    fn misplaced(&self, path: &str) -> Answer {
        if let Some(more) = self.0.lines.may_write("misplaced") {
            let came: String = path.chars().take(200).collect();
            tracing::error!(
                target: "tower_wechat::login",
                app = %self.0.users.app_id(),
                ?came,
                expected = self.0.settings.public_url.public(&self.0.settings.callback_path),
                more,
                "WeChat sent a user back to a path that is not the callback; a proxy in front \
                 strips a prefix (add it to the public URL) or rewrites the path (pass it on as it is)"
            );
        }
        observe::login(Trouble::Misplaced.name());
        self.problem(
            Trouble::Misplaced,
            Some(self.start_page().as_str().to_owned()),
        )
    }

    /// As [`redirect`](Self::redirect), where the browser's cookies are not at hand: the login's own
    /// path gets to see them.
    pub(crate) fn redirect_to_login(&self, head: &RequestHead<'_>, scope: Option<Scope>) -> Answer {
        let page = match self.page_asked_for(head) {
            Ok(page) => page,
            Err(answer) => return answer,
        };
        if let Some(answer) = self.not_kept(head, &page, false) {
            return answer;
        }
        let url = self.0.settings.login_url(Some(&page), scope);
        match HeaderValue::try_from(url) {
            Ok(url) => Answer {
                outcome: Outcome::Redirect(url),
                cookies: Vec::new(),
            },
            Err(_) => self.problem(Trouble::BadRequest, None),
        }
    }

    /// What a form gets that nobody is signed in for: a login that leads back to the page with the
    /// form. Its data is not sent again.
    pub(crate) fn redirect_form(&self, head: &RequestHead<'_>, scope: Option<Scope>) -> Answer {
        match HeaderValue::try_from(self.login_url(head, scope)) {
            Ok(url) => Answer {
                outcome: Outcome::Redirect(url),
                cookies: Vec::new(),
            },
            Err(_) => self.problem(Trouble::BadRequest, None),
        }
    }

    /// Where a script can send its user to log in: a path of ours that leads back to the page
    /// from which the script asked.
    pub(crate) fn login_url(&self, head: &RequestHead<'_>, scope: Option<Scope>) -> String {
        let referer = head.headers.get(REFERER).map(HeaderValue::as_bytes);
        let ours = &self.0.settings.public_url;
        let page = referer.and_then(|referer| ReturnTo::of_referer(referer, ours));
        let page = page.filter(|page| !self.leads_to_login(page));
        self.0.settings.login_url(page.as_ref(), scope)
    }

    /// A path of an application's own, to which a login may lead.
    fn page(&self, path: &[u8]) -> Option<ReturnTo> {
        match ReturnTo::read(path, &self.0.settings.public_url) {
            Ok(page) => Some(page).filter(|page| !self.leads_to_login(page)),
            Err(reason) => {
                self.does_not_return(reason, path.len());
                None
            }
        }
    }

    /// Whether a page is one of the login's own paths, however it is written.
    fn leads_to_login(&self, page: &ReturnTo) -> bool {
        self.owns(&percent_decode_str(page.path()).decode_utf8_lossy())
    }

    fn does_not_return(&self, reason: NoReturn, bytes: usize) {
        let kind = reason.as_str();
        if let Some(more) = self.0.lines.may_write(kind) {
            tracing::warn!(target: "tower_wechat::login", app = %self.0.users.app_id(), reason = kind, bytes, more, "a login does not lead back to the page that was asked for");
        }
    }

    fn start_page(&self) -> ReturnTo {
        ReturnTo::root(&self.0.settings.public_url)
    }

    /// Whether a user's token covers a scope. Where the scope is not known, the call is tried.
    pub(crate) fn lacks(token: &UserToken, scope: Scope) -> bool {
        token.scope().is_some_and(|granted| !scope.is_in(granted))
    }

    /// Returns `true` if this browser has come back within the last minute from a login that asked
    /// for `scope`.
    pub(crate) fn was_asked_for(&self, scope: Scope, headers: &HeaderMap) -> bool {
        self.0
            .cookies
            .read(headers, self.now())
            .was_asked_for(scope)
    }

    /// What a user gets who lacks a scope and is not to be asked again.
    pub(crate) fn not_granted(&self, head: &RequestHead<'_>, scope: Scope) -> Answer {
        let (page, _) = ReturnTo::of_uri(head.asked(), &self.0.settings.public_url);
        let onward = self.0.settings.login_url(Some(&page), Some(scope));
        self.problem(Trouble::ProfileNotGranted, Some(onward))
    }

    pub(super) fn to_wechat(
        &self,
        scope: Scope,
        return_to: ReturnTo,
        headers: &HeaderMap,
    ) -> Answer {
        if self.0.settings.wechat_only && !is_wechat(headers) {
            return self.problem(Trouble::OutsideWechat, Some(return_to.as_str().to_owned()));
        }
        let mut browser = self.0.cookies.read(headers, self.now());
        let Some(attempt) = browser.begun_again(scope, &return_to) else {
            return self.begin(scope, return_to, browser);
        };
        if attempt.again >= MISSED_CALLBACKS && self.comes_back(&attempt, headers) {
            return self.misses_callback(&return_to);
        }
        self.send(&attempt, &browser)
    }

    /// Returns `true` if this page load seems to come from WeChat by a way that the callback is not
    /// on, and not from a person who reloads. Older web views do not say enough to tell, so that
    /// only a number that no person reaches is a loop.
    fn comes_back(&self, attempt: &Attempt, headers: &HeaderMap) -> bool {
        if attempt.again >= BEGUN_AT_MOST {
            return true;
        }
        // With its query, a callback is known wherever it comes.
        let has_query = attempt.return_to.as_str().contains('?');
        match came_from(headers) {
            _ if has_query => false,
            None => false,
            Some(Site::Other) => true,
            // An address that was typed, or opened by another program, counts as that through all
            // redirects. Redirects come back faster than a person reloads. The first two loads are
            // free: web views load a page twice.
            Some(Site::OursOrNone) => {
                let reloads = u64::from(attempt.again).saturating_sub(1);
                attempt.age(self.now()) < PERSON_RELOADS_AFTER * reloads
            }
        }
    }

    fn misses_callback(&self, return_to: &ReturnTo) -> Answer {
        if let Some(more) = self.0.lines.may_write("misses_callback") {
            let came: String = return_to.path().chars().take(200).collect();
            tracing::error!(
                target: "tower_wechat::login",
                app = %self.0.users.app_id(),
                ?came,
                expected = self.0.settings.public_url.public(&self.0.settings.callback_path),
                more,
                "a browser comes back from WeChat again and again without passing the callback; a \
                 proxy in front rewrites the path or drops the query"
            );
        }
        observe::login(Trouble::TooOften.name());
        let page = self.0.settings.login_url(Some(return_to), None);
        self.problem(Trouble::TooOften, Some(page))
    }

    pub(super) fn begin(&self, scope: Scope, return_to: ReturnTo, mut browser: Browser) -> Answer {
        let Some(issued) = self.0.states.begin(self.now()) else {
            tracing::error!(target: "tower_wechat::login", "the system gives no random bytes for a login");
            return self.problem(Trouble::StoreAway, None);
        };
        let attempt = Attempt {
            issued,
            scope,
            return_to,
            progress: Progress::Open,
            again: 0,
        };
        browser.begin(attempt.clone());
        self.send(&attempt, &browser)
    }

    /// To WeChat's page, with what this browser has to keep.
    fn send(&self, attempt: &Attempt, browser: &Browser) -> Answer {
        let inner = &*self.0;
        let state = inner.states.text(attempt.issued);
        let authorize = Authorize {
            open_url: inner.users.wechat().open_url(),
            app_id: inner.users.app_id().as_str(),
            redirect_uri: &inner.redirect_uri,
            scope: attempt.scope,
            state: &state,
            extras: inner.settings.extras,
        };
        match HeaderValue::try_from(authorize.url()) {
            Ok(url) => {
                observe::login_begun();
                Answer {
                    outcome: Outcome::Redirect(url),
                    cookies: self.kept(browser),
                }
            }
            Err(_) => self.problem(Trouble::Misconfigured, None),
        }
    }

    /// On to the page.
    pub(super) fn onward(&self, page: &ReturnTo, cookies: Vec<HeaderValue>) -> Answer {
        let clear = self.0.settings.clear_fragment && !page.as_str().contains('#');
        let page = format!("{}{}", page.as_str(), if clear { "#" } else { "" });
        // Of visible ASCII throughout, which every header takes.
        let page = HeaderValue::try_from(page).unwrap_or_else(|_| HeaderValue::from_static("/"));
        Answer {
            outcome: Outcome::Redirect(page),
            cookies,
        }
    }

    pub(super) fn problem(&self, what: Trouble, onward: Option<String>) -> Answer {
        let onward = onward.unwrap_or_else(|| match what {
            Trouble::BadRequest => self.start_page().as_str().to_owned(),
            _ => self.0.settings.login_url(None, None),
        });
        Answer {
            outcome: Outcome::Problem(Problem {
                what,
                onward,
                retry_after: what.passes().then_some(PASSING_LIFETIME),
            }),
            cookies: Vec::new(),
        }
    }

    /// What stands in the way of a page, for its reader.
    pub(crate) fn page_problem(
        &self,
        kind: ErrorKind,
        retry_after: Option<Duration>,
        uri: &Uri,
    ) -> Option<Problem> {
        let (page, _) = ReturnTo::of_uri(uri, &self.0.settings.public_url);
        Some(Problem {
            what: Trouble::of_page(kind)?,
            onward: page.as_str().to_owned(),
            retry_after,
        })
    }

    /// The cookies of a browser that have changed. Every path gets to see them: a page load has to
    /// know which logins are under way.
    pub(super) fn kept(&self, browser: &Browser) -> Vec<HeaderValue> {
        let secure = self.0.settings.secure();
        let prefix = self.0.settings.public_url.prefix();
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
        let cookies = self.0.cookies.write(browser);
        cookies.into_iter().map(header).collect()
    }

    pub(super) fn now(&self) -> Timestamp {
        self.0.users.clock().now()
    }
}

/// What a link to the login asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    return_to: Option<Vec<u8>>,
    scope: Option<Scope>,
    /// Whether parameters that the login does not know were taken for the rest of `return_to`.
    has_rest: bool,
}

impl Asked {
    /// Reads a query. A page that does not encode its `return_to` loses all behind the first `&` to
    /// the login's own query, as in `return_to=/a?x=1&y=2`. An encoded one has neither a question
    /// mark nor an equals sign, so that what others add to a link (WeChat adds `from`) stays out.
    fn of(query: &str) -> Self {
        let mut asked = Self::default();
        let mut is_cut = false;
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, text) = (decoded(name), decoded(value));
            let scope = || Scope::named(std::str::from_utf8(&text).ok()?);
            match (&*name, &mut asked.return_to) {
                (b"return_to", page) => {
                    is_cut = text.contains(&b'?') && value.contains(['?', '=']);
                    asked.has_rest = false;
                    *page = Some(text);
                }
                (b"scope", _) if scope().is_some() => asked.scope = scope(),
                (_, Some(page)) if is_cut && !pair.is_empty() => {
                    page.push(b'&');
                    page.extend(pair.bytes());
                    asked.has_rest = true;
                }
                _ => {}
            }
        }
        asked
    }
}

/// The pairs of a query, decoded; what is no UTF-8 is repaired.
pub(super) fn pairs(uri: &Uri) -> impl Iterator<Item = (String, String)> + '_ {
    let text = |text| String::from_utf8_lossy(&decoded(text)).into_owned();
    uri.query().unwrap_or_default().split('&').map(move |pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (text(name), text(value))
    })
}

/// What a name or a value of a query stands for.
fn decoded(text: &str) -> Vec<u8> {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).collect()
}

impl Settings {
    /// Whether a request's path is one of the login's own: as browsers know it, or as a proxy leaves
    /// it that strips the prefix; with a slash at its end or without.
    #[inline]
    fn is_at(&self, path: &str, own: &str) -> bool {
        let plain = |path| str::strip_suffix(path, '/').unwrap_or(path);
        let below = |path| self.public_url.below_prefix(path).unwrap_or(path);
        below(plain(path)) == below(plain(own))
    }

    /// Whether a path is what a proxy may make of the callback's by taking from its front, or by
    /// adding to it.
    fn looks_like_callback(&self, path: &str) -> bool {
        let callback = self.public_url.public(&self.callback_path);
        let path = path.trim_matches('/');
        !path.is_empty()
            && (ends_with_segments(callback.trim_matches('/'), path)
                || ends_with_segments(path, self.callback_path.trim_matches('/')))
    }

    /// The path that begins a login which leads back to `page`.
    pub(super) fn login_url(&self, page: Option<&ReturnTo>, scope: Option<Scope>) -> String {
        let start_page = || ReturnTo::root(&self.public_url);
        let page = page.cloned().unwrap_or_else(start_page);
        let login = self.public_url.public(&self.login_path);
        let mut url = format!("{login}?return_to={}", query_value(page.as_str()));
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

impl fmt::Debug for SignIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignIn")
            .field("settings", &self.0.settings)
            .finish_non_exhaustive()
    }
}
