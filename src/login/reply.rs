//! Replies of a login, which the layer turns into responses.

use http::HeaderValue;

use super::frame_page::FramePage;
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
    /// `true` if a browser loads the response in a frame, and pages of the same origin may frame it.
    pub(crate) in_frame: bool,
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
    /// A page that loads a callback in a frame again.
    FramePage(FramePage),
    /// The parameters of a QR code in a page, as JSON.
    QrCodeParameters(String),
}

impl LoginReply {
    /// Returns a reply without cookies that does not depend on the `User-Agent`.
    pub(super) fn new(content: ReplyContent) -> Self {
        Self {
            content,
            set_cookies: Vec::new(),
            varies_by_user_agent: false,
            in_frame: false,
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

impl HandlerReply {
    /// Lets pages of the same origin frame the response.
    pub(super) fn in_frame(self) -> Self {
        let framed = |reply| LoginReply {
            in_frame: true,
            ..reply
        };
        match self {
            Self::Ready(reply) => Self::Ready(framed(reply)),
            Self::Pending(reply) => Self::Pending(Box::pin(async move { framed(reply.await) })),
        }
    }
}
