//! The settings of a layer, which are the same for all its accounts.

use std::sync::Arc;

use super::Policy;
use crate::identity::{Identify, NoIdentity, SessionCookie};
use crate::login::Scope;
use crate::metrics::RequestCounters;

/// The settings of a layer, which its clones and services share.
#[derive(Debug)]
pub(super) struct LayerSettings<I, R> {
    pub(super) policy: Policy,
    /// `true` if CORS preflights reach the application without a user.
    pub(super) pass_preflights: bool,
    pub(super) identity: Arc<I>,
    pub(super) renderer: Arc<R>,
    pub(super) request_counter: RequestCounters,
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
    fn or_session(this: Arc<Self>, session: SessionCookie) -> Arc<Self::Identity>;
}

impl IdentityOrSession for NoIdentity {
    type Identity = SessionCookie;

    fn or_session(_: Arc<Self>, session: SessionCookie) -> Arc<SessionCookie> {
        Arc::new(session)
    }
}

#[diagnostic::do_not_recommend]
impl<I: Identify> IdentityOrSession for I {
    type Identity = I;

    fn or_session(this: Arc<Self>, _: SessionCookie) -> Arc<I> {
        this
    }
}

impl<I, R> LayerSettings<I, R> {
    /// Creates the default settings with this identity and this renderer.
    pub(super) fn new(identity: I, renderer: R) -> Self {
        Self {
            policy: Policy::Required,
            pass_preflights: false,
            identity: Arc::new(identity),
            renderer: Arc::new(renderer),
            request_counter: RequestCounters::new(),
            required_scope: None,
        }
    }

    /// Replaces the identity or the renderer, also by values of other types.
    pub(super) fn with_types<J, Q>(
        self,
        change: impl FnOnce(Arc<I>, Arc<R>) -> (Arc<J>, Arc<Q>),
    ) -> LayerSettings<J, Q> {
        let (identity, renderer) = change(self.identity, self.renderer);
        LayerSettings {
            policy: self.policy,
            pass_preflights: self.pass_preflights,
            identity,
            renderer,
            request_counter: self.request_counter,
            required_scope: self.required_scope,
        }
    }

    /// Returns a copy that shares the identity and the renderer, because their types need not
    /// implement `Clone`.
    pub(super) fn duplicate(&self) -> Self {
        Self {
            policy: self.policy,
            pass_preflights: self.pass_preflights,
            identity: Arc::clone(&self.identity),
            renderer: Arc::clone(&self.renderer),
            request_counter: self.request_counter.clone(),
            required_scope: self.required_scope,
        }
    }
}
