//! A login at work for one account: the way to WeChat, and the way back.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http::header::REFERER;
use http::{HeaderValue, Method, Uri};
use percent_encoding::percent_decode_str;

use super::answer::{Answer, Outcome, Problem, Trouble};
use super::authorize::{Authorize, query_value};
use super::exchange::{Exchange, SignedIn, Verdict};
use super::navigation::is_wechat;
use super::return_to::ReturnTo;
use super::state::{Attempt, BadState, Progress, States, seconds};
use super::{Scope, Settings};
use crate::clock::Timestamp;
use crate::credential::UserId;
use crate::error::ErrorKind;
use crate::identity::{Identify, Identity, RequestHead, Session, SessionCookie};
use crate::store::{BoxFuture, CodeName};
use crate::users::{UserToken, UserTokens};

/// The longest code that is looked at. WeCom documents 512 bytes, the Official Account nothing.
const LONGEST_CODE: usize = 1_024;

/// Within which time a browser's restarts and logins are counted against loops, in seconds.
const LOOP_WINDOW: u64 = 60;

/// How often one browser can be logged in within that time. Several tabs may do so at once; more
/// is a loop of logins that do not help.
const LOGINS_IN_WINDOW: usize = 10;

/// Cookies of former logins beyond this many are cleared, oldest first.
const COOKIES_KEPT: usize = 16;

/// A [`Login`](super::Login), set up for the users of one account. Clones share everything.
#[derive(Clone)]
pub(crate) struct SignIn(Arc<Inner>);

struct Inner {
    settings: Settings,
    users: UserTokens,
    session: SessionCookie,
    states: States,
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
        let states = States::new(app, &settings.keys, settings.state_lifetime);
        let redirect_uri = format!("{}{}", settings.origin, settings.callback_path);
        Self(Arc::new(Inner {
            settings,
            users,
            session,
            states,
            redirect_uri,
        }))
    }

    pub(crate) fn session(&self) -> &SessionCookie {
        &self.0.session
    }

    /// Whether the login answers this path itself. Every request is asked this.
    #[inline]
    pub(crate) fn owns(&self, path: &str) -> bool {
        let settings = &self.0.settings;
        path == settings.callback_path || path == settings.login_path
    }

    /// Answers a request to one of the login's own paths.
    pub(crate) fn answer(&self, head: &RequestHead<'_>) -> Reply {
        if *head.method != Method::GET && *head.method != Method::HEAD {
            return Reply::Now(self.problem(Trouble::BadRequest, None));
        }
        if head.uri.path() == self.0.settings.login_path {
            return Reply::Now(self.asked_for(head));
        }
        self.callback(head)
    }

    /// `/wechat/login?return_to=PATH`.
    fn asked_for(&self, head: &RequestHead<'_>) -> Answer {
        let mut return_to = None;
        let mut scope = self.0.settings.scope;
        for (name, value) in pairs(head.uri) {
            match &*name {
                "return_to" => return_to = self.page(&value),
                "scope" => scope = Scope::named(&value).unwrap_or(scope),
                _ => {}
            }
        }
        let return_to = return_to.unwrap_or_else(ReturnTo::root);
        self.to_wechat(scope, return_to, head)
    }

    /// What a request gets that nobody is signed in for, or whose user lacks a scope: a navigation
    /// is sent to WeChat. For anything else, see [`login_url`](Self::login_url).
    pub(crate) fn redirect(&self, head: &RequestHead<'_>, scope: Option<Scope>) -> Answer {
        let scope = scope.unwrap_or(self.0.settings.scope);
        self.to_wechat(scope, ReturnTo::of_uri(head.uri), head)
    }

    /// Where a script can send its user to log in: a path of ours that leads back to the page
    /// from which the script asked.
    pub(crate) fn login_url(&self, head: &RequestHead<'_>, scope: Option<Scope>) -> String {
        let referer = head
            .headers
            .get(REFERER)
            .and_then(|referer| referer.to_str().ok());
        let page =
            referer.and_then(|referer| ReturnTo::of_referer(referer, &self.0.settings.origin));
        let page = page.filter(|page| !self.owns(page.path()));
        self.0.settings.login_url(page.as_ref(), scope)
    }

    /// A path of an application's own, to which a login may lead.
    fn page(&self, path: &str) -> Option<ReturnTo> {
        ReturnTo::new(path).filter(|page| !self.owns(page.path()))
    }

    /// Whether a user's token covers a scope. Where the scope is not known, the call is tried.
    pub(crate) fn lacks(token: &UserToken, scope: Scope) -> bool {
        token.scope().is_some_and(|granted| !scope.is_in(granted))
    }

    /// What a user gets who lacks a scope and is not to be asked again.
    pub(crate) fn not_granted(&self, head: &RequestHead<'_>, scope: Scope) -> Answer {
        let page = ReturnTo::of_uri(head.uri);
        let onward = self.0.settings.login_url(Some(&page), Some(scope));
        self.problem(Trouble::ProfileNotGranted, Some(onward))
    }

    fn to_wechat(&self, scope: Scope, return_to: ReturnTo, head: &RequestHead<'_>) -> Answer {
        if self.0.settings.wechat_only && !is_wechat(head.headers) {
            return self.problem(Trouble::OutsideWechat, Some(return_to.as_str().to_owned()));
        }
        self.begin(scope, return_to, Vec::new())
    }

    fn begin(&self, scope: Scope, return_to: ReturnTo, mut cookies: Vec<HeaderValue>) -> Answer {
        let inner = &*self.0;
        let now = self.now();
        let Some(attempt) = inner.states.begin(scope, return_to, now) else {
            tracing::error!("the system gives no random bytes for a login");
            return self.problem(Trouble::StoreAway, None);
        };
        let state = inner.states.text(attempt.issued);
        let authorize = Authorize {
            open_url: inner.users.wechat().open_url(),
            app_id: inner.users.app_id().as_str(),
            redirect_uri: &inner.redirect_uri,
            scope,
            state: &state,
            extras: inner.settings.extras,
        };
        cookies.push(self.cookie(&attempt, now));
        match HeaderValue::try_from(authorize.url()) {
            Ok(url) => Answer {
                outcome: Outcome::Redirect(url),
                cookies,
            },
            Err(_) => self.problem(Trouble::Misconfigured, None),
        }
    }

    /// WeChat sends the user back: `?code=…&state=…`, or the state alone where they said no.
    fn callback(&self, head: &RequestHead<'_>) -> Reply {
        match self.received(head) {
            Ok(Received::Answered(answer)) => Reply::Now(answer),
            Ok(Received::Code {
                code,
                attempt,
                before,
            }) => {
                let this = self.clone();
                let name = CodeName::of(self.0.users.app_id(), &code);
                let exchange = Exchange {
                    users: self.0.users.clone(),
                    snapshots: self.0.settings.snapshots,
                    code,
                    name,
                };
                Reply::Later(Box::pin(this.finish(exchange, attempt, before)))
            }
            Err((trouble, onward)) => {
                tracing::warn!(app = %self.0.users.app_id(), trouble = trouble.name(), "refused a callback");
                Reply::Now(self.problem(trouble, onward))
            }
        }
    }

    /// All that can be said of a callback before its code is spent.
    fn received(&self, head: &RequestHead<'_>) -> Result<Received, (Trouble, Option<String>)> {
        let inner = &*self.0;
        let now = self.now();
        let (code, state) = code_and_state(head.uri).map_err(|trouble| (trouble, None))?;
        let Some(state) = state else {
            let trouble = if code.is_some() {
                Trouble::Unknown
            } else {
                Trouble::BadRequest
            };
            return Err((trouble, None));
        };
        let before = inner.states.attempts(head.headers, now);
        let issued = inner
            .states
            .read(&state, now)
            .map_err(|bad| (bad.into(), None))?;
        let attempt = before
            .iter()
            .find(|attempt| attempt.issued == issued)
            .cloned();
        let attempt = match attempt {
            Some(attempt) => Some(attempt),
            // Checked before the code is spent: whoever fetches the URL ahead of the user, without
            // their cookies, must not burn it.
            None if !inner.settings.lenient => return Err((Trouble::from(BadState::Forged), None)),
            None => None,
        };
        let return_to = attempt.as_ref().map(|attempt| attempt.return_to.clone());
        let Some(code) = code else {
            return Err((
                Trouble::Denied,
                return_to.map(|page| inner.settings.login_url(Some(&page), None)),
            ));
        };
        let attempt = attempt.unwrap_or_else(|| Attempt {
            issued,
            scope: inner.settings.scope,
            return_to: ReturnTo::root(),
            progress: Progress::Open,
        });
        if let Progress::SignedIn { code: spent, .. } = &attempt.progress {
            // A reload, the back button, or WeChat's second request, perhaps with another code.
            if matches!(inner.session.identify(head), Identity::User(_)) {
                let answer = self.onward(&attempt.return_to, Vec::new());
                return Ok(Received::Answered(answer));
            }
            if mark(&CodeName::of(inner.users.app_id(), &code)) != &**spent {
                return Err((Trouble::Unknown, None));
            }
        }
        let signed_in = matches!(inner.session.identify(head), Identity::User(_));
        Ok(Received::Code {
            code,
            attempt,
            before: Before {
                attempts: before,
                signed_in,
            },
        })
    }

    /// Waits for what comes of the code.
    fn finish(
        self,
        exchange: Exchange,
        attempt: Attempt,
        before: Before,
    ) -> impl Future<Output = Answer> + Send {
        let (wait, mark) = (self.0.settings.wait, mark(&exchange.name).to_owned());
        async move {
            match exchange.verdict(wait).await {
                Verdict::SignedIn(signed_in) => self.welcome(&signed_in, attempt, &mark, &before),
                // The user is signed in by another tab or from before: the old code is no matter.
                Verdict::Spent if before.signed_in => self.onward(&attempt.return_to, Vec::new()),
                Verdict::Spent => self.restart(attempt, &before),
                Verdict::Trouble(trouble) => {
                    let page = self.0.settings.login_url(Some(&attempt.return_to), None);
                    self.problem(trouble, Some(page))
                }
            }
        }
    }

    fn welcome(
        &self,
        signed_in: &SignedIn,
        mut attempt: Attempt,
        mark: &str,
        before: &Before,
    ) -> Answer {
        let now = self.now();
        let since = |at: u64| at.saturating_add(LOOP_WINDOW) > seconds(now);
        let logins = before
            .count(|progress| matches!(progress, Progress::SignedIn { at, .. } if since(*at)));
        if logins >= LOGINS_IN_WINDOW {
            return self.too_often(&attempt.return_to);
        }
        let Ok(user) = UserId::new(signed_in.user.as_str()) else {
            return self.problem(Trouble::WechatAway, None);
        };
        let granted = signed_in.scope.as_deref();
        let session = Session {
            snapshot: signed_in.snapshot,
            asked_in_vain: granted.is_some_and(|granted| !attempt.scope.is_in(granted)),
            lately: true,
        };
        attempt.progress = Progress::SignedIn {
            at: seconds(now),
            code: mark.into(),
        };
        let mut cookies = vec![
            self.0.session.issue_for(&user, session),
            self.cookie(&attempt, now),
        ];
        cookies.extend(
            before
                .surplus()
                .map(|name| self.set_cookie(&format!("{name}="), 0)),
        );
        self.onward(&attempt.return_to, cookies)
    }

    /// Begins anew by itself, a few times a minute at most.
    fn restart(&self, mut attempt: Attempt, before: &Before) -> Answer {
        let now = self.now();
        let since = |at: u64| at.saturating_add(LOOP_WINDOW) > seconds(now);
        let restarts =
            before.count(|progress| matches!(progress, Progress::Restarted { at } if since(*at)));
        if restarts >= self.0.settings.restarts {
            return self.too_often(&attempt.return_to);
        }
        // Where the browser sends no cookie, as lenient logins allow, nothing would count.
        if !before
            .attempts
            .iter()
            .any(|one| one.issued == attempt.issued)
        {
            let page = self.0.settings.login_url(Some(&attempt.return_to), None);
            return self.problem(Trouble::NotAccepted, Some(page));
        }
        let (scope, return_to) = (attempt.scope, attempt.return_to.clone());
        attempt.progress = Progress::Restarted { at: seconds(now) };
        let cookies = vec![self.cookie(&attempt, now)];
        self.begin(scope, return_to, cookies)
    }

    fn too_often(&self, return_to: &ReturnTo) -> Answer {
        tracing::warn!(app = %self.0.users.app_id(), "a browser logs in again and again");
        let page = self.0.settings.login_url(Some(return_to), None);
        self.problem(Trouble::TooOften, Some(page))
    }

    /// On to the page.
    fn onward(&self, page: &ReturnTo, cookies: Vec<HeaderValue>) -> Answer {
        // Of visible ASCII throughout, which every header takes.
        let page = HeaderValue::from_str(page.as_str());
        let page = page.unwrap_or_else(|_| HeaderValue::from_static("/"));
        Answer {
            outcome: Outcome::Redirect(page),
            cookies,
        }
    }

    fn problem(&self, what: Trouble, onward: Option<String>) -> Answer {
        let onward = onward.unwrap_or_else(|| match what {
            Trouble::BadRequest => "/".to_owned(),
            _ => self.0.settings.login_url(None, None),
        });
        Answer {
            outcome: Outcome::Problem(Problem {
                what,
                onward,
                retry_after: what.passes().then(|| Duration::from_secs(1)),
            }),
            cookies: Vec::new(),
        }
    }

    /// What stands in the way of a page, for its reader.
    pub(crate) fn page_problem(
        kind: ErrorKind,
        retry_after: Option<Duration>,
        uri: &Uri,
    ) -> Option<Problem> {
        Some(Problem {
            what: Trouble::of_page(kind)?,
            onward: ReturnTo::of_uri(uri).as_str().to_owned(),
            retry_after,
        })
    }

    fn cookie(&self, attempt: &Attempt, now: Timestamp) -> HeaderValue {
        let (text, life) = self.0.states.cookie(attempt, now);
        self.set_cookie(&text, life)
    }

    /// Only the callback gets to see these cookies.
    fn set_cookie(&self, text: &str, life: u64) -> HeaderValue {
        let settings = &self.0.settings;
        let secure = if settings.secure() { "; Secure" } else { "" };
        let path = &settings.callback_path;
        let text = format!("{text}; Path={path}; Max-Age={life}; HttpOnly; SameSite=Lax{secure}");
        let mut header =
            HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""));
        header.set_sensitive(true);
        header
    }

    fn now(&self) -> Timestamp {
        self.0.users.clock().now()
    }
}

enum Received {
    Answered(Answer),
    Code {
        code: String,
        attempt: Attempt,
        before: Before,
    },
}

/// What the browser brings along.
struct Before {
    attempts: Vec<Attempt>,
    signed_in: bool,
}

impl Before {
    fn count(&self, which: impl Fn(&Progress) -> bool) -> usize {
        self.attempts
            .iter()
            .filter(|attempt| which(&attempt.progress))
            .count()
    }

    /// The names of the oldest cookies beyond those that are kept.
    fn surplus(&self) -> impl Iterator<Item = String> {
        let mut issued: Vec<_> = self.attempts.iter().map(|attempt| attempt.issued).collect();
        issued.sort_by_key(|issued| std::cmp::Reverse(issued.age_key()));
        issued
            .into_iter()
            .skip(COOKIES_KEPT)
            .map(|issued| issued.name())
    }
}

/// The mark under which a cookie remembers a code.
fn mark(code: &CodeName) -> &str {
    code.hash.get(..16).unwrap_or_default()
}

/// The code and the state of a callback, if they can be such.
fn code_and_state(uri: &Uri) -> Result<(Option<String>, Option<String>), Trouble> {
    let (mut code, mut state) = (None, None);
    for (name, value) in pairs(uri) {
        let known = match &*name {
            "code" => &mut code,
            "state" => &mut state,
            _ => continue,
        };
        if known.replace(value).is_some() {
            return Err(Trouble::BadRequest);
        }
    }
    let code = code.filter(|code: &String| !code.is_empty());
    let plain =
        |code: &String| code.len() <= LONGEST_CODE && code.bytes().all(|b| b.is_ascii_graphic());
    if code.as_ref().is_some_and(|code| !plain(code)) {
        return Err(Trouble::BadRequest);
    }
    Ok((code, state.filter(|state: &String| !state.is_empty())))
}

/// The pairs of a query, decoded.
fn pairs(uri: &Uri) -> impl Iterator<Item = (String, String)> + '_ {
    let decoded = |text: &str| {
        let spaced = text.replace('+', " ");
        percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
    };
    uri.query().unwrap_or_default().split('&').map(move |pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name), decoded(value))
    })
}

impl Settings {
    /// The path that begins a login which leads back to `page`.
    pub(super) fn login_url(&self, page: Option<&ReturnTo>, scope: Option<Scope>) -> String {
        let page = page.map_or("/", ReturnTo::as_str);
        let mut url = format!("{}?return_to={}", self.login_path, query_value(page));
        if let Some(scope) = scope {
            url.push_str("&scope=");
            url.push_str(scope.as_str());
        }
        url
    }
}

impl fmt::Debug for SignIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignIn")
            .field("settings", &self.0.settings)
            .finish_non_exhaustive()
    }
}
