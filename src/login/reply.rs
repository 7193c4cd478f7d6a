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
    /// `true` if the header `User-Agent` of the request has decided about the reply.
    pub(crate) varies_by_user_agent: bool,
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
    /// Returns a reply without cookies that does not depend on the `User-Agent`.
    pub(super) fn new(content: ReplyContent) -> Self {
        Self {
            content,
            set_cookies: Vec::new(),
            varies_by_user_agent: false,
        }
    }

    /// Returns a redirect to a URL, with these `Set-Cookie` values.
    pub(super) fn redirect(url: HeaderValue, set_cookies: Vec<HeaderValue>) -> Self {
        Self {
            set_cookies,
            ..Self::new(ReplyContent::Redirect(url))
        }
    }
}

/// A reply that is ready, or a future that returns the reply after calls to the store or to WeChat.
pub(crate) enum HandlerReply {
    Ready(LoginReply),
    Pending(BoxFuture<'static, LoginReply>),
}
