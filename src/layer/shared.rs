//! The settings that all clones of a layer and its services share.

use std::sync::Arc;

use super::{Policy, WechatAccount};
use crate::identity::{Identify, NoIdentity, SessionCookie};
use crate::login::{LoginHandler, Scope};
use crate::metrics::RequestCounters;
use crate::users::UserTokens;

/// The settings and handles that all clones of a layer and its services share.
#[derive(Debug)]
pub(super) struct Shared<I, R> {
    pub(super) users: UserTokens,
    pub(super) account: Option<WechatAccount>,
    pub(super) policy: Policy,
    /// `true` if CORS preflights reach the application without a user.
    pub(super) pass_preflights: bool,
    pub(super) identity: Arc<I>,
    pub(super) renderer: Arc<R>,
    pub(super) request_counter: RequestCounters,
    pub(super) login: Option<LoginHandler>,
    /// The scope that users must have granted. `None` if every user passes.
    pub(super) required_scope: Option<Scope>,
}

/// The identity of a layer to which a login is added: the identity that was set before, or else the login's
/// session cookie.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not identify the user of a request",
    label = "not an identity",
    note = "remove `.identity(..)`: the login's session cookie then identifies the user"
)]
#[allow(unnameable_types)]
pub trait IdentityOrSession {
    /// The identity that the layer has after the login was added.
    type Identity: Identify;

    #[doc(hidden)]
    fn or_session(this: Arc<Self>, session: &SessionCookie) -> Arc<Self::Identity>;
}

impl IdentityOrSession for NoIdentity {
    type Identity = SessionCookie;

    fn or_session(_: Arc<Self>, session: &SessionCookie) -> Arc<SessionCookie> {
        Arc::new(session.clone())
    }
}

#[diagnostic::do_not_recommend]
impl<I: Identify> IdentityOrSession for I {
    type Identity = I;

    fn or_session(this: Arc<Self>, _: &SessionCookie) -> Arc<I> {
        this
    }
}

impl<I, R> Shared<I, R> {
    /// Replaces the identity or the renderer, also by values of other types.
    pub(super) fn with_types<J, Q>(
        self,
        change: impl FnOnce(Arc<I>, Arc<R>) -> (Arc<J>, Arc<Q>),
    ) -> Shared<J, Q> {
        let (identity, renderer) = change(self.identity, self.renderer);
        Shared {
            users: self.users,
            account: self.account,
            policy: self.policy,
            pass_preflights: self.pass_preflights,
            identity,
            renderer,
            request_counter: self.request_counter,
            login: self.login,
            required_scope: self.required_scope,
        }
    }

    /// Returns a copy that shares the identity and the renderer, because their types need not
    /// implement `Clone`.
    pub(super) fn duplicate(&self) -> Self {
        Self {
            users: self.users.clone(),
            account: self.account.clone(),
            policy: self.policy,
            pass_preflights: self.pass_preflights,
            identity: Arc::clone(&self.identity),
            renderer: Arc::clone(&self.renderer),
            request_counter: self.request_counter.clone(),
            login: self.login.clone(),
            required_scope: self.required_scope,
        }
    }
}
