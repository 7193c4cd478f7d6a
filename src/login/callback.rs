//! The way back: WeChat sends the user to the callback, with a code and the state.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;

use super::Scope;
use super::answer::{Answer, Trouble};
use super::cookies::{Attempt, Browser, CodeMark, Progress, TRAIL};
use super::exchange::{Exchange, SignedIn, Verdict, keep_from_others};
use super::return_to::ReturnTo;
use super::sign_in::{Reply, SignIn, pairs};
use super::state::{BadState, Issued, seconds};
use super::turns::CopyKey;
use crate::clock::Timestamp;
use crate::credential::UserId;
use crate::identity::{Identify, Identity, RequestHead, Session};
use crate::observe;
use crate::store::CodeName;

/// The longest code that is looked at. WeCom documents 512 bytes, the Official Account nothing.
const LONGEST_CODE: usize = 1_024;

/// How often one browser can be logged in within a minute. Several tabs may do so at once; more
/// is a loop of logins that do not help.
const LOGINS_IN_WINDOW: usize = TRAIL;

impl SignIn {
    /// WeChat sends the user back: `?code=…&state=…`, or the state alone where they said no.
    pub(super) fn callback(&self, head: &RequestHead<'_>, named: Option<UserId>) -> Reply {
        match self.received(head) {
            Ok(Received::Answered(answer)) => Reply::Now(answer),
            Ok(Received::Unspent {
                code,
                login,
                answer,
            }) => self.unspent(&code, login, answer),
            Ok(Received::Code {
                code,
                attempt,
                before,
            }) => {
                let name = CodeName::of(self.0.users.app_id(), &code);
                let login = attempt.issued.number;
                if !self.0.codes.admit(login, &name.hash) {
                    return Reply::Now(self.too_often(&attempt.return_to));
                }
                let this = self.clone();
                let exchange = Exchange {
                    users: self.0.users.clone(),
                    snapshots: self.0.settings.snapshots,
                    code,
                    name,
                    login,
                    turns: Arc::clone(&self.0.turns),
                    lines: Arc::clone(&self.0.lines),
                    named,
                };
                Reply::Later(Box::pin(this.finish(exchange, attempt, *before)))
            }
            Err((trouble, onward)) => Reply::Now(self.refused(trouble, onward)),
        }
    }

    fn refused(&self, trouble: Trouble, onward: Option<String>) -> Answer {
        // Not a warning: WeChat's servers fetch callbacks without cookies every day.
        if let Some(more) = self.0.lines.may_write(trouble.name()) {
            tracing::info!(target: "tower_wechat::login", app = %self.0.users.app_id(), trouble = trouble.name(), more, "refused a callback");
        }
        observe::login(trouble.name());
        self.problem(trouble, onward)
    }

    /// Answers a callback whose code is not spent, when no other login can spend it any more:
    /// whoever has heard of it cannot sign in with it.
    fn unspent(&self, code: &str, login: u64, answer: Answer) -> Reply {
        let name = CodeName::of(self.0.users.app_id(), code);
        if !self.0.refused.admit(login, &name.hash) {
            return Reply::Now(answer);
        }
        let users = self.0.users.clone();
        Reply::Later(Box::pin(async move {
            keep_from_others(&users, &name, login).await;
            answer
        }))
    }

    /// All that can be said of a callback before its code is spent.
    fn received(&self, head: &RequestHead<'_>) -> Result<Received, (Trouble, Option<String>)> {
        let inner = &*self.0;
        let now = self.now();
        let (code, state) = code_and_state(head.uri).map_err(|trouble| (trouble, None))?;
        let Some(state) = state else {
            if code.is_some() {
                return Err((Trouble::Unknown, None));
            }
            if let Some(more) = inner.lines.may_write("callback_without_query") {
                tracing::warn!(target: "tower_wechat::login", app = %inner.users.app_id(), more, "a callback came without code and state; a proxy in front drops the query, or a person has opened the path");
            }
            return Err((Trouble::BadRequest, None));
        };
        let browser = inner.cookies.read(head.headers, now);
        let issued = match inner.states.read(&state, now) {
            Ok(issued) => issued,
            // One that has succeeded within its time still answers its duplicates.
            Err(BadState::Expired(issued)) if browser.has_succeeded(issued) => issued,
            Err(BadState::Expired(issued)) => {
                return self.without_login(Trouble::Expired, issued, code);
            }
            Err(bad) => return Err((bad.into(), None)),
        };
        let attempt = match browser.attempt(issued) {
            Some(attempt) => Some(attempt),
            // Checked before the code is spent: whoever fetches the URL ahead of the user, without
            // their cookies, must not burn it.
            None if !inner.settings.lenient => {
                return self.without_login(Trouble::Unknown, issued, code);
            }
            None => None,
        };
        let return_to = attempt.as_ref().map(|attempt| attempt.return_to.clone());
        let Some(code) = code else {
            return Err((
                Trouble::Denied,
                return_to.map(|page| inner.settings.login_url(Some(&page), None)),
            ));
        };
        let knows = attempt.is_some();
        let attempt = attempt.unwrap_or_else(|| Attempt {
            issued,
            scope: inner.settings.scope,
            return_to: ReturnTo::root(&inner.settings.public_url),
            progress: Progress::Open,
            again: 0,
        });
        let before = Before {
            browser,
            knows,
            user: self.session_user(head),
            signed_in: matches!(inner.session.identify(head), Identity::User(_)),
            foreign_session: inner.session.finds_foreign(head),
        };
        if let Progress::SignedIn { code: spent, .. } = &attempt.progress {
            // A reload, the back button, or WeChat's second request, perhaps with another code.
            let another = mark(&CodeName::of(inner.users.app_id(), &code)) != *spent;
            if before.signed_in {
                let answer = self.onward(&attempt.return_to, Vec::new());
                let login = issued.number;
                return Ok(match another {
                    true => Received::Unspent {
                        code,
                        login,
                        answer,
                    },
                    false => Received::Answered(answer),
                });
            }
            if another {
                return self.without_login(Trouble::Unknown, issued, Some(code));
            }
            // The answer that wrote this cookie set a session too: who has lost it since has
            // signed out. Only WeChat signs them in again.
            return Ok(Received::Answered(self.restart(attempt, before)));
        }
        Ok(Received::Code {
            code,
            attempt,
            before: Box::new(before),
        })
    }

    /// Refuses a callback that no login of this browser is under way for. Its code, if it has one,
    /// is of no use under another login.
    fn without_login(
        &self,
        trouble: Trouble,
        issued: Issued,
        code: Option<String>,
    ) -> Result<Received, (Trouble, Option<String>)> {
        let Some(code) = code else {
            return Err((trouble, None));
        };
        Ok(Received::Unspent {
            code,
            login: issued.number,
            answer: self.refused(trouble, None),
        })
    }

    /// Waits for what comes of the code.
    fn finish(
        self,
        exchange: Exchange,
        attempt: Attempt,
        before: Before,
    ) -> impl Future<Output = Answer> + Send {
        let (wait, mark) = (self.0.settings.wait, mark(&exchange.name));
        async move {
            if self.would_lower(&attempt, &before).await {
                keep_from_others(&exchange.users, &exchange.name, exchange.login).await;
                let scope = Scope::UserInfo;
                return self.restart(Attempt { scope, ..attempt }, before);
            }
            match self.verdict(exchange, wait).await {
                Verdict::SignedIn(signed_in) => self.welcome(&signed_in, attempt, mark, before),
                // The user is signed in by another tab or from before: the old code is no matter.
                Verdict::Spent if before.signed_in => self.past(attempt, before),
                Verdict::Spent => self.restart(attempt, before),
                Verdict::Trouble(trouble) => {
                    let page = self.0.settings.login_url(Some(&attempt.return_to), None);
                    self.problem(trouble, Some(page))
                }
            }
        }
    }

    /// What came of the code, within `wait`. Copies of one callback wait for one exchange.
    async fn verdict(&self, exchange: Exchange, wait: Duration) -> Verdict {
        let key = CopyKey {
            code: exchange.name.clone(),
            login: exchange.login,
            named: exchange.named.clone(),
        };
        let start = |leader| exchange.start(leader, wait);
        let Some(mut told) = self.0.running.join(key, start) else {
            if let Some(more) = self.0.lines.may_write("turns") {
                tracing::warn!(target: "tower_wechat::login", app = %self.0.users.app_id(), more, "too many logins at once");
            }
            observe::login(Trouble::WechatAway.name());
            return Verdict::Trouble(Trouble::WechatAway);
        };
        let told = tokio::time::timeout(wait, told.wait_for(Option::is_some)).await;
        match told {
            Ok(Ok(verdict)) => verdict.clone().unwrap_or(Verdict::Spent),
            // It goes on, and the user's next try finds the result; or it has panicked.
            Ok(Err(_)) | Err(_) => Verdict::Trouble(Trouble::WechatAway),
        }
    }

    fn welcome(
        &self,
        signed_in: &SignedIn,
        mut attempt: Attempt,
        mark: CodeMark,
        mut before: Before,
    ) -> Answer {
        let now = self.now();
        let logins = if before.knows {
            before.browser.logins()
        } else {
            // A lenient login of a browser that may keep no cookie at all.
            self.0.rounds.another(&signed_in.user, now) - 1
        };
        if logins >= LOGINS_IN_WINDOW {
            return self.too_often(&attempt.return_to);
        }
        let Ok(user) = UserId::new(signed_in.user.as_str()) else {
            return self.problem(Trouble::WechatAway, None);
        };
        if before.foreign_session {
            self.replaces_foreign_session();
        }
        let granted = signed_in.scope.as_deref();
        let session = Session {
            snapshot: signed_in.snapshot,
            asked_in_vain: granted.is_some_and(|granted| !attempt.scope.is_in(granted)),
            lately: true,
            login: Some(now),
            epoch: signed_in.epoch.map(Timestamp::from_millis),
        };
        attempt.progress = Progress::SignedIn {
            at: seconds(now),
            code: mark,
        };
        before.browser.end(&attempt);
        let session = self.0.session.issue_session(&user, session);
        let mut answer = match (signed_in.had_more, attempt.scope) {
            // They are signed in, and asked at once for what they had granted elsewhere.
            (true, Scope::Base) if before.knows => {
                self.begin(Scope::UserInfo, attempt.return_to, before.browser)
            }
            _ => {
                let cookies = self.kept(&before.browser);
                self.onward(&attempt.return_to, cookies)
            }
        };
        answer.cookies.insert(0, session);
        answer
    }

    /// Told only of those who have logged in: anybody can send such a cookie.
    fn replaces_foreign_session(&self) {
        if let Some(more) = self.0.lines.may_write("foreign_session") {
            tracing::warn!(
                target: "tower_wechat::login",
                app = %self.0.users.app_id(),
                more,
                "a login has replaced a session that this application cannot read; if it goes on, \
                 another application of this host uses the same cookie: give both the same keys, \
                 or one of them another name for its session"
            );
        }
    }

    /// On to the page with the session from before. Counted as a restart: where the session is of
    /// no use to the page, it sends its user here again.
    fn past(&self, mut attempt: Attempt, mut before: Before) -> Answer {
        if self.has_restarted_enough(&before) {
            return self.too_often(&attempt.return_to);
        }
        let at = seconds(self.now());
        attempt.progress = Progress::Restarted { at };
        before.browser.end(&attempt);
        let cookies = self.kept(&before.browser);
        self.onward(&attempt.return_to, cookies)
    }

    /// Begins anew by itself, a few times a minute at most.
    fn restart(&self, mut attempt: Attempt, mut before: Before) -> Answer {
        if self.has_restarted_enough(&before) {
            return self.too_often(&attempt.return_to);
        }
        if !before.knows {
            // Where the browser sends no cookie, as lenient logins allow, nothing would count.
            let page = self.0.settings.login_url(Some(&attempt.return_to), None);
            return self.problem(Trouble::NotAccepted, Some(page));
        }
        let at = seconds(self.now());
        attempt.progress = Progress::Restarted { at };
        before.browser.end(&attempt);
        self.begin(attempt.scope, attempt.return_to, before.browser)
    }

    /// A browser remembers [`TRAIL`] logins, so no more can be counted.
    fn has_restarted_enough(&self, before: &Before) -> bool {
        before.browser.restarts() >= self.0.settings.restarts.min(TRAIL)
    }

    fn too_often(&self, return_to: &ReturnTo) -> Answer {
        if let Some(more) = self.0.lines.may_write("too_often") {
            tracing::warn!(target: "tower_wechat::login", app = %self.0.users.app_id(), more, "a browser logs in again and again");
        }
        observe::login(Trouble::TooOften.name());
        let page = self.0.settings.login_url(Some(return_to), None);
        self.problem(Trouble::TooOften, Some(page))
    }
}

enum Received {
    Answered(Answer),
    /// The code is not spent, and no other login shall spend it.
    Unspent {
        code: String,
        /// The number of its login.
        login: u64,
        answer: Answer,
    },
    Code {
        code: String,
        attempt: Attempt,
        before: Box<Before>,
    },
}

/// What the browser brings along.
pub(super) struct Before {
    browser: Browser,
    /// Whether it has the cookie of this login.
    pub(super) knows: bool,
    /// Whose session it has, apart from those of virtual users.
    pub(super) user: Option<Box<str>>,
    signed_in: bool,
    /// Whether it has a session under our cookie's name that is none of ours.
    foreign_session: bool,
}

/// The mark under which a cookie remembers a code.
fn mark(code: &CodeName) -> CodeMark {
    CodeMark::of(&code.hash)
}

/// The code and the state of a callback, if they can be such.
pub(crate) fn code_and_state(uri: &Uri) -> Result<(Option<String>, Option<String>), Trouble> {
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
