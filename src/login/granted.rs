//! What a user has granted is not lowered: not by a link, nor by a login of before or elsewhere.
//!
//! A code's pair replaces the former one, at WeChat and in the store, also where it covers less. So
//! a login asks for what its user has granted before, as far as that can be known before the code is
//! spent: for a browser with a session, when it is sent to WeChat and when it comes back. Where only
//! the code tells who logs in, they are asked again at once, for what they had.

use http::HeaderMap;

use super::Scope;
use super::callback::Before;
use super::cookies::Attempt;
use super::return_to::ReturnTo;
use super::sign_in::{Reply, SignIn};
use crate::credential::UserId;
use crate::identity::{Identify, Identity, RequestHead};
use crate::users::Granted;

impl SignIn {
    /// The user whose session the browser has. A virtual user of a snapshot page has granted nothing
    /// that lasts.
    pub(super) fn session_user(&self, head: &RequestHead<'_>) -> Option<Box<str>> {
        match self.0.session.identify(head) {
            Identity::User(user) if !user.session.snapshot => Some(user.id.into()),
            Identity::User(_) | Identity::Nobody | Identity::Invalid(_) => None,
        }
    }

    /// Sends a browser to WeChat that asked for it, for a scope that is no less than what its user
    /// has granted, or may have.
    pub(super) fn begin_no_lower(
        &self,
        scope: Scope,
        return_to: ReturnTo,
        head: &RequestHead<'_>,
        named: Option<&UserId>,
    ) -> Reply {
        let user = match named {
            Some(named) => Some(named.as_str().into()),
            None => self.session_user(head),
        };
        let (Scope::Base, Some(user)) = (scope, user) else {
            return Reply::Now(self.to_wechat(scope, return_to, head.headers));
        };
        let (this, headers): (Self, HeaderMap) = (self.clone(), head.headers.clone());
        Reply::Later(Box::pin(async move {
            let scope = match this.0.users.granted(&user).await {
                Ok(Granted::Nothing) => scope,
                Ok(Granted::Known(granted)) if !Scope::UserInfo.is_in(&granted) => scope,
                // Where nobody can say, it may be more.
                Ok(Granted::Known(_) | Granted::Unknown) | Err(_) => Scope::UserInfo,
            };
            this.to_wechat(scope, return_to, &headers)
        }))
    }

    /// Returns `true` if the code of this login would lower what its user has granted. Begun anew,
    /// the code is not spent, and the user's pair stays.
    pub(super) async fn would_lower(&self, attempt: &Attempt, before: &Before) -> bool {
        // A browser without the login's cookie is not begun anew.
        let (Scope::Base, true, Some(user)) = (attempt.scope, before.knows, &before.user) else {
            return false;
        };
        let granted = self.0.users.granted(user).await;
        matches!(granted, Ok(Granted::Known(granted)) if Scope::UserInfo.is_in(&granted))
    }
}
