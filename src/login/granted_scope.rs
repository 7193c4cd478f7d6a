//! What a user has granted is not lowered: not by a link, nor by a login of before or elsewhere.
//!
//! A code's pair replaces the former one, at WeChat and in the store, also where it covers less. So
//! a login asks for what its user has granted before, as far as that can be known before the code is
//! spent: for a browser with a session, when it is sent to WeChat and when it comes back. Where only
//! the code tells who logs in, they are asked again at once, for what they had.

use http::HeaderMap;

use super::context::CallbackContext;
use super::cookies::LoginAttempt;
use super::handler::LoginHandler;
use super::reply::HandlerReply;
use super::return_to::ReturnTo;
use super::scope::Scope;
use crate::credential::UserId;
use crate::identity::{Identify, Identity, RequestHead};
use crate::users::GrantedScope;

impl LoginHandler {
    /// The user whose session the browser has. A virtual user of a snapshot page has granted nothing
    /// that lasts.
    pub(super) fn session_user_id(&self, head: &RequestHead<'_>) -> Option<Box<str>> {
        match self.0.session_cookie.identify(head) {
            Identity::User(user) if !user.session.snapshot => Some(user.id.into()),
            Identity::User(_) | Identity::Anonymous | Identity::Invalid(_) => None,
        }
    }

    /// Sends a browser to WeChat that asked for it, for a scope that is no less than what its user
    /// has granted, or may have.
    pub(super) fn begin_with_granted_scope(
        &self,
        scope: Scope,
        return_to: ReturnTo,
        head: &RequestHead<'_>,
        bound_user: Option<&UserId>,
    ) -> HandlerReply {
        let user = match bound_user {
            Some(named) => Some(named.as_str().into()),
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
                // Where nobody can say, it may be more.
                Ok(GrantedScope::Known(_) | GrantedScope::Unknown) | Err(_) => Scope::UserInfo,
            };
            this.begin_or_reuse_attempt(scope, return_to, &headers)
        }))
    }

    /// Returns `true` if the code of this login would lower what its user has granted. Begun anew,
    /// the code is not spent, and the user's pair stays.
    pub(super) async fn would_reduce_scope(
        &self,
        attempt: &LoginAttempt,
        context: &CallbackContext,
    ) -> bool {
        // A browser without the login's cookie is not begun anew.
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
