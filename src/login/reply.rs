//! Replies of a login, which the layer turns into responses.

use http::HeaderValue;

use super::page::FailurePage;
use crate::store::BoxFuture;

/// The reply to a request to the login, or to a request without a user.
#[derive(Debug)]
pub(crate) struct LoginReply {
    pub(crate) content: ReplyContent,
    /// Values of the `Set-Cookie` headers of the response.
    pub(crate) set_cookies: Vec<HeaderValue>,
}

/// The content of a reply.
#[derive(Debug)]
pub(crate) enum ReplyContent {
    /// A redirect to WeChat or to a page of the application.
    Redirect(HeaderValue),
    /// A page with the reason of a failed login.
    FailurePage(FailurePage),
    /// The content of a verification file.
    File(String),
}

impl LoginReply {
    /// Returns a redirect to a URL, without cookies.
    pub(super) fn redirect(url: HeaderValue) -> Self {
        Self {
            content: ReplyContent::Redirect(url),
            set_cookies: Vec::new(),
        }
    }
}

/// A reply that is ready, or a future that returns the reply after calls to the store or to WeChat.
pub(crate) enum HandlerReply {
    Ready(LoginReply),
    Pending(BoxFuture<'static, LoginReply>),
}
