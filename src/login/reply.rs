//! What a login answers, before it is made a response.

use http::HeaderValue;

use super::page::FailurePage;
use crate::store::BoxFuture;

/// What a request to the login, or one without a user, is answered with.
#[derive(Debug)]
pub(crate) struct LoginReply {
    pub(crate) content: ReplyContent,
    /// Values of `Set-Cookie`.
    pub(crate) set_cookies: Vec<HeaderValue>,
}

#[derive(Debug)]
pub(crate) enum ReplyContent {
    /// The browser goes on, to WeChat or to the page.
    Redirect(HeaderValue),
    /// The user reads what happened.
    FailurePage(FailurePage),
    /// WeChat reads the content of a verification file.
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

/// What a request to one of the login's own paths gets.
pub(crate) enum HandlerReply {
    Ready(LoginReply),
    Pending(BoxFuture<'static, LoginReply>),
}
