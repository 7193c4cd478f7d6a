//! The checks of a callback before its code is spent.

use http::Uri;

use crate::identity::{Identity, RequestHead};
use crate::login::context::CallbackContext;
use crate::login::cookies::{AttemptStatus, CodeFingerprint, LoginAttempt};
use crate::login::failure::LoginFailure;
use crate::login::handler::LoginHandler;
use crate::login::query::{names_account, parse_code_and_state};
use crate::login::reply::LoginReply;
use crate::login::state::{LoginState, StateError, StateSigner};
use crate::store::LoginCodeKey;

/// The next step of a callback, according to the checks.
pub(super) enum CallbackAction {
    /// Reply at once, without an exchange.
    Reply(LoginReply),
    /// Leave the code unspent, bind it to its login, and then reply.
    BindCodeAndReply {
        code: String,
        login_id: u64,
        reply: LoginReply,
    },
    /// Exchange the code, and reply with the outcome.
    Exchange {
        code: String,
        attempt: LoginAttempt,
        context: Box<CallbackContext>,
    },
}

impl LoginHandler {
    /// Performs all checks of a callback that are possible before its code is spent.
    ///
    /// The state is verified first: a state of this application names the login, to which a code
    /// can be bound. The cookie is verified before the code is used. A server that fetches the URL
    /// ahead of the user, without the user's cookies, therefore does not spend the code.
    pub(super) fn check_callback(
        &self,
        head: &RequestHead<'_>,
    ) -> Result<CallbackAction, (LoginFailure, Option<String>)> {
        let inner = &*self.0;
        let now = self.now();
        let (code, state) = parse_code_and_state(head.uri).map_err(|failure| (failure, None))?;
        let Some(state) = state else {
            if code.is_some() {
                return Err((LoginFailure::UnknownLogin, None));
            }
            if let Some(more) = inner.log_limiter.allow_line("callback_without_query") {
                tracing::warn!(target: "tower_wechat::login", app = %inner.users.app_id(), more, "a callback had neither code nor state; a person opened its path, or a proxy dropped its query and must pass it on");
            }
            return Err((LoginFailure::BadRequest, None));
        };
        let browser_logins = inner.login_cookies.read(head.headers, now);
        let text = state;
        let state = match inner.state_signer.verify(&text, now) {
            Ok(state) => state,
            // A login that succeeded before its state expired still answers duplicates of its
            // callback.
            Err(StateError::Expired(state)) if browser_logins.has_succeeded(state) => state,
            Err(StateError::Expired(state)) => {
                return self.reject_without_attempt(LoginFailure::Expired, state, code);
            }
            Err(error) => {
                self.log_crossed_callback(head, &text);
                return Err((error.into(), None));
            }
        };
        let known_attempt = browser_logins.find_attempt(state);
        let has_state_cookie = known_attempt.is_some();
        if !has_state_cookie && !inner.settings.allow_missing_state_cookie {
            return self.reject_without_attempt(LoginFailure::UnknownLogin, state, code);
        }
        let Some(code) = code else {
            let login_url =
                |attempt: LoginAttempt| inner.settings.login_url(Some(&attempt.return_to), None);
            return Err((LoginFailure::AccessDenied, known_attempt.map(login_url)));
        };
        if !self.is_for_own_account(head.uri) {
            return self.reject_without_attempt(LoginFailure::BadRequest, state, Some(code));
        }
        let attempt = known_attempt.unwrap_or_else(|| LoginAttempt {
            state,
            scope: inner.settings.scope,
            return_to: inner.settings.start_page(),
            status: AttemptStatus::Open,
            repeats: 0,
        });
        let context = CallbackContext {
            browser_logins,
            has_state_cookie,
            session_user_id: self.session_user_id(head),
            has_session: matches!(inner.session_cookie.identify_own(head), Identity::User(_)),
            foreign_session: inner.session_cookie.finds_foreign(head),
            other_session_removal: self
                .other_session_cookie()
                .and_then(|other| other.removal_from(head)),
            logs_in_browser: self.logs_in_browser(head.headers),
        };
        match attempt.status {
            AttemptStatus::SignedIn { fingerprint, .. } => {
                self.answer_duplicate(code, fingerprint, attempt, context)
            }
            AttemptStatus::Open | AttemptStatus::Retried { .. } => Ok(CallbackAction::Exchange {
                code,
                attempt,
                context: Box::new(context),
            }),
        }
    }

    /// Returns `true` if WeChat names the account of this login in the callback. WeChat names it only
    /// if a platform logs in users on behalf of the account, so that other callbacks are not checked.
    /// Otherwise logs the reason, at most once a minute.
    fn is_for_own_account(&self, uri: &Uri) -> bool {
        let users = &self.0.users;
        let app_id = users.app_id();
        if users.wechat().component_app_id().is_none() || names_account(uri, app_id.as_str()) {
            return true;
        }
        if let Some(more) = self.0.log_limiter.allow_line("callback_appid") {
            tracing::warn!(
                target: "tower_wechat::login",
                app = %app_id,
                more,
                "a callback was rejected because its appid is missing or is not that of the account; \
                 a proxy must pass its query on unchanged"
            );
        }
        false
    }

    /// Answers a callback of a login that has already signed its user in. Reloads, the back button,
    /// and WeChat's second request, which may have another code, cause such callbacks.
    /// `fingerprint` identifies the code that was spent.
    fn answer_duplicate(
        &self,
        code: String,
        fingerprint: CodeFingerprint,
        attempt: LoginAttempt,
        context: CallbackContext,
    ) -> Result<CallbackAction, (LoginFailure, Option<String>)> {
        let code_key = LoginCodeKey::new(self.0.users.app_id(), &code);
        let is_other_code = code_fingerprint(&code_key) != fingerprint;
        match (context.has_session, is_other_code) {
            (true, false) => Ok(CallbackAction::Reply(
                self.redirect_to_page(&attempt.return_to, Vec::new()),
            )),
            (true, true) => Ok(CallbackAction::BindCodeAndReply {
                code,
                login_id: attempt.state.login_id,
                reply: self.redirect_to_page(&attempt.return_to, Vec::new()),
            }),
            (false, true) => {
                self.reject_without_attempt(LoginFailure::UnknownLogin, attempt.state, Some(code))
            }
            // The reply that wrote this cookie also set a session. A browser without that session
            // has signed out, so that only another login with WeChat signs it in.
            (false, false) => Ok(CallbackAction::Reply(self.retry_login(attempt, context))),
        }
    }

    /// Logs a callback whose login this browser began with another account of this host. The other
    /// account's callback has the same path, or a proxy maps both paths to one.
    fn log_crossed_callback(&self, head: &RequestHead<'_>, state: &str) {
        let inner = &*self.0;
        let Some(state) = StateSigner::decode_unverified(state) else {
            return;
        };
        let is_foreign =
            |handler: &Self| handler.0.login_cookies.finds_foreign(head.headers, state);
        if is_foreign(self)
            && self.website().is_none_or(is_foreign)
            && let Some(more) = inner.log_limiter.allow_line("crossed_callback")
        {
            tracing::warn!(
                target: "tower_wechat::login",
                app = %inner.users.app_id(),
                callback_path = inner.settings.callback_path,
                more,
                "a callback was rejected because its login belongs to another account on this host; \
                 give each account a callback_path and a login_path of its own"
            );
        }
    }

    /// Rejects a callback that must not spend its code. If the callback has a code, binds the code
    /// to the login of the state.
    fn reject_without_attempt(
        &self,
        failure: LoginFailure,
        state: LoginState,
        code: Option<String>,
    ) -> Result<CallbackAction, (LoginFailure, Option<String>)> {
        let Some(code) = code else {
            return Err((failure, None));
        };
        Ok(CallbackAction::BindCodeAndReply {
            code,
            login_id: state.login_id,
            reply: self.reject_callback(failure, None),
        })
    }
}

/// Returns the fingerprint of a code, which login cookies contain in place of the code.
pub(super) fn code_fingerprint(code: &LoginCodeKey) -> CodeFingerprint {
    CodeFingerprint::from_hash(&code.hash)
}
