//! Protection of a granted scope: no link and no login in another browser reduces it.
//!
//! The tokens of a code replace the user's former tokens, at WeChat and in the store, even if the
//! new tokens cover less. A login therefore asks for the scope that its user has granted before.
//! For a browser with a session, the user is known before the code is spent. Otherwise only the
//! code reveals the user, and WeChat asks for the former scope immediately afterwards.

use http::HeaderMap;

use super::context::CallbackContext;
use super::cookies::LoginAttempt;
use super::handler::LoginHandler;
use super::reply::HandlerReply;
use super::return_to::ReturnTo;
use super::scope::Scope;
use crate::credential::UserId;
use crate::identity::{Identity, RequestHead};
use crate::users::GrantedScope;

impl LoginHandler {
    /// Returns the id of the user of the browser's session. Ignores virtual users of snapshot
    /// pages, whose grants do not last.
    pub(super) fn session_user_id(&self, head: &RequestHead<'_>) -> Option<Box<str>> {
        match self.0.session_cookie.identify_own(head) {
            Identity::User(user) if !user.session.snapshot => Some(user.id.into()),
            Identity::User(_) | Identity::Anonymous | Identity::Invalid(_) => None,
        }
    }

    /// Begins a login with at least the scope that the user has granted, or may have granted.
    pub(super) fn begin_with_granted_scope(
        &self,
        scope: Scope,
        return_to: ReturnTo,
        head: &RequestHead<'_>,
        bound_user: Option<&UserId>,
    ) -> HandlerReply {
        let user = match bound_user {
            Some(user) => Some(user.as_str().into()),
            None => self.session_user_id(head),
        };
        let (Scope::Base, Some(user)) = (scope, user) else {
            return HandlerReply::Ready(self.begin_or_reuse_attempt(
                scope,
                return_to,
                head.headers,
            ));
        };
        let (this, headers): (Self, HeaderMap) = (self.clone(), head.headers.clone());
        HandlerReply::Pending(Box::pin(async move {
            let scope = match this.0.users.granted_scope(&user).await {
                Ok(GrantedScope::NoToken) => scope,
                Ok(GrantedScope::Known(granted)) if !Scope::UserInfo.is_granted_by(&granted) => {
                    scope
                }
                // The user has granted the profile, or may have granted it.
                Ok(GrantedScope::Known(_) | GrantedScope::Unknown) | Err(_) => Scope::UserInfo,
            };
            this.begin_or_reuse_attempt(scope, return_to, &headers)
        }))
    }

    /// Returns `true` if the code of this login would reduce the scope that the session's user has
    /// granted. The caller then retries the login: the code stays unspent, and the user's tokens
    /// stay valid.
    pub(super) async fn would_reduce_scope(
        &self,
        attempt: &LoginAttempt,
        context: &CallbackContext,
    ) -> bool {
        // A login without the state cookie cannot be retried, so its code is exchanged in any case.
        let (Scope::Base, true, Some(user)) = (
            attempt.scope,
            context.has_state_cookie,
            &context.session_user_id,
        ) else {
            return false;
        };
        let granted = self.0.users.granted_scope(user).await;
        matches!(granted, Ok(GrantedScope::Known(granted)) if Scope::UserInfo.is_granted_by(&granted))
    }
}
