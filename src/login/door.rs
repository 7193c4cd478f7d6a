//! The choice between the login with the account and that with the website beside it.
//!
//! The browser's `User-Agent` decides where a new login begins. A login ends where it began: its
//! state names the handler, even if the `User-Agent` has changed since. A login that has to begin
//! again begins where the present `User-Agent` decides.

use http::{HeaderMap, Uri};

use super::failure::LoginFailure;
use super::handler::{AppKind, LoginHandler};
use super::query::parse_code_and_state;
use super::reply::LoginReply;
use super::return_to::ReturnTo;
use super::scope::Scope;
use super::state::{LoginState, StateError};
use crate::navigation::{Browser, browser};

impl LoginHandler {
    /// Returns the handler that logs users of this browser in. Returns `None` if the page
    /// [`NotInWechat`](LoginFailure::NotInWechat) asks the user to open the link in WeChat.
    ///
    /// | browser | account alone | account with a website |
    /// |---|---|---|
    /// | WeChat's | account | account |
    /// | another one on a phone | account, or the page if only WeChat is allowed | the page |
    /// | any other | account, or the page if only WeChat is allowed | website |
    pub(super) fn handler_for_browser(&self, headers: &HeaderMap) -> Option<&Self> {
        if !self.0.user_agent_decides {
            return Some(self);
        }
        match (browser(headers), self.website()) {
            (Browser::Wechat, _) => Some(self),
            (Browser::Other, Some(website)) => Some(website),
            (Browser::Phone, Some(_)) | (Browser::Phone | Browser::Other, None) => None,
        }
    }

    /// Returns `true` if a new login of this browser begins with this handler, as
    /// [`handler_for_browser`](Self::handler_for_browser) of the account chooses.
    pub(super) fn logs_in_browser(&self, headers: &HeaderMap) -> bool {
        if !self.0.user_agent_decides {
            return true;
        }
        match (&self.0.app_kind, browser(headers)) {
            (AppKind::OfficialAccount { .. }, Browser::Wechat)
            | (AppKind::Website { .. }, Browser::Other) => true,
            (AppKind::OfficialAccount { .. }, Browser::Phone | Browser::Other)
            | (AppKind::Website { .. }, Browser::Wechat | Browser::Phone) => false,
        }
    }

    /// Returns the handler that issued a state, also an expired one, and the state's content.
    /// Returns `None` if neither the account nor the website issued it.
    pub(super) fn issuer_of(&self, state: &str) -> Option<(&Self, LoginState)> {
        let issued = |handler: &Self| match handler.0.state_signer.verify(state, handler.now()) {
            Ok(state) | Err(StateError::Expired(state)) => Some(state),
            Err(StateError::Forged) => None,
        };
        let handlers = [Some(self), self.website()].into_iter().flatten();
        handlers
            .filter_map(|handler| Some((handler, issued(handler)?)))
            .next()
    }

    /// Returns the handler that answers a callback: the one that issued its state. A callback with
    /// another state, or without one, belongs to the account, which rejects it.
    pub(super) fn handler_of_callback(&self, uri: &Uri) -> &Self {
        let state = match self.website() {
            Some(_) => parse_code_and_state(uri).ok().and_then(|(_, state)| state),
            None => None,
        };
        match state.and_then(|state| self.issuer_of(&state)) {
            Some((handler, _)) => handler,
            None => self,
        }
    }

    /// Returns the page that asks the user to open the link in WeChat.
    pub(super) fn reject_outside_wechat(&self, page: &ReturnTo) -> LoginReply {
        let button_url = Some(page.as_str().to_owned());
        self.marked_as_varying(self.reply_with_failure(LoginFailure::NotInWechat, button_url))
    }

    /// Marks the reply to a browser that begins a login, if the `User-Agent` has decided about it.
    pub(super) fn marked_as_varying(&self, reply: LoginReply) -> LoginReply {
        LoginReply {
            varies_by_user_agent: self.0.user_agent_decides,
            ..reply
        }
    }

    /// Returns the scope that a login asks for if a page wants `scope`. A website has one scope
    /// only, which covers all others.
    pub(super) fn requestable_scope(&self, scope: Scope) -> Scope {
        match self.0.app_kind {
            AppKind::OfficialAccount { .. } => scope,
            AppKind::Website { .. } => self.0.settings.scope,
        }
    }
}
