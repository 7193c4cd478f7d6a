//! A login at work for one account, and the way to WeChat.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::REFERER;
use http::{HeaderValue, Method, Uri};
use percent_encoding::percent_decode_str;
use tokio::sync::Semaphore;

use super::answer::{Answer, Outcome, Problem, Trouble};
use super::authorize::{Authorize, query_value};
use super::codes::Codes;
use super::navigation::is_wechat;
use super::return_to::ReturnTo;
use super::rounds::Rounds;
use super::state::{Attempt, States};
use super::{Scope, Settings};
use crate::clock::Timestamp;
use crate::credential::UserId;
use crate::error::ErrorKind;
use crate::identity::{RequestHead, SessionCookie};
use crate::observe;
use crate::store::BoxFuture;
use crate::users::{UserToken, UserTokens};

/// How many exchanges of codes one process may run at once; further callbacks are told to come
/// again in a moment.
const EXCHANGES_AT_ONCE: usize = 512;

/// A [`Login`](super::Login), set up for the users of one account. Clones share everything.
#[derive(Clone)]
pub(crate) struct SignIn(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) settings: Settings,
    pub(super) users: UserTokens,
    pub(super) session: SessionCookie,
    pub(super) states: States,
    pub(super) rounds: Rounds,
    pub(super) codes: Codes,
    /// Bounds the exchanges of this process that run at once.
    pub(super) turns: Arc<Semaphore>,
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
            rounds: Rounds::new(),
            codes: Codes::new(),
            turns: Arc::new(Semaphore::new(EXCHANGES_AT_ONCE)),
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
        if head.asked().path() == self.0.settings.login_path {
            return Reply::Now(self.asked_for(head));
        }
        self.callback(head, named)
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
        self.to_wechat(scope, ReturnTo::of_uri(head.asked()), head)
    }

    /// As [`redirect`](Self::redirect), where the browser's cookies are not at hand: the login's own
    /// path gets to see them.
    pub(crate) fn redirect_to_login(&self, head: &RequestHead<'_>, scope: Option<Scope>) -> Answer {
        let page = ReturnTo::of_uri(head.asked());
        let url = self.0.settings.login_url(Some(&page), scope);
        match HeaderValue::try_from(url) {
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
        let page = ReturnTo::of_uri(head.asked());
        let onward = self.0.settings.login_url(Some(&page), Some(scope));
        self.problem(Trouble::ProfileNotGranted, Some(onward))
    }

    fn to_wechat(&self, scope: Scope, return_to: ReturnTo, head: &RequestHead<'_>) -> Answer {
        if self.0.settings.wechat_only && !is_wechat(head.headers) {
            return self.problem(Trouble::OutsideWechat, Some(return_to.as_str().to_owned()));
        }
        self.begin(scope, return_to, Vec::new())
    }

    pub(super) fn begin(
        &self,
        scope: Scope,
        return_to: ReturnTo,
        mut cookies: Vec<HeaderValue>,
    ) -> Answer {
        let inner = &*self.0;
        let now = self.now();
        let Some(attempt) = inner.states.begin(scope, return_to, now) else {
            tracing::error!(target: "tower_wechat::login", "the system gives no random bytes for a login");
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
            Ok(url) => {
                observe::login_begun();
                Answer {
                    outcome: Outcome::Redirect(url),
                    cookies,
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

    pub(super) fn cookie(&self, attempt: &Attempt, now: Timestamp) -> HeaderValue {
        let (text, life) = self.0.states.cookie(attempt, now);
        self.set_cookie(&text, life)
    }

    /// Only the callback gets to see these cookies.
    pub(super) fn set_cookie(&self, text: &str, life: u64) -> HeaderValue {
        let settings = &self.0.settings;
        let secure = if settings.secure() { "; Secure" } else { "" };
        let path = &settings.callback_path;
        let text = format!("{text}; Path={path}; Max-Age={life}; HttpOnly; SameSite=Lax{secure}");
        let mut header =
            HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""));
        header.set_sensitive(true);
        header
    }

    pub(super) fn now(&self) -> Timestamp {
        self.0.users.clock().now()
    }
}

/// The pairs of a query, decoded.
pub(super) fn pairs(uri: &Uri) -> impl Iterator<Item = (String, String)> + '_ {
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
