//! The reasons why a request received another page than it asked for.

use std::time::Duration;

use http::StatusCode;

use crate::error::{Error, ErrorKind};
use crate::html_page::{Bilingual, Button, HtmlPage, Icon};

/// Reason for which a request receives neither the links nor the result of an authorization.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AuthorizeFailure {
    /// A parameter of the request is invalid.
    BadRequest,
    /// WeChat returned without a code.
    NotAuthorized,
    /// The state of the return is not one of these pages.
    UnknownReturn,
    /// The state of the return has expired.
    Expired,
    /// The application says that another customer has returned.
    OtherCustomer,
    /// WeChat did not accept the code of the return.
    CodeRejected,
    /// WeChat has not pushed a verify ticket yet.
    PlatformStarting,
    WechatUnavailable,
    /// Too many pages with links were opened.
    TooManyPages,
    StoreUnavailable,
    /// WeChat rejects the platform, or its settings are wrong.
    Misconfigured(ErrorKind),
    /// The hook of the application failed.
    HookFailed,
}

/// A failure, and the time after which its error says that a retry may succeed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Failed {
    pub(super) failure: AuthorizeFailure,
    pub(super) retry_after: Option<Duration>,
}

impl From<AuthorizeFailure> for Failed {
    fn from(failure: AuthorizeFailure) -> Self {
        Self {
            failure,
            retry_after: None,
        }
    }
}

impl From<&Error> for Failed {
    fn from(error: &Error) -> Self {
        Self {
            failure: AuthorizeFailure::from_error(error),
            retry_after: error.retry_after(),
        }
    }
}

impl AuthorizeFailure {
    /// Returns the failure of a request that ended with this error.
    pub(super) fn from_error(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::PlatformStarting => Self::PlatformStarting,
            ErrorKind::StoreUnavailable => Self::StoreUnavailable,
            // The component token was rejected twice, or another process replaced it.
            ErrorKind::WechatUnavailable
            | ErrorKind::TokenRefused
            | ErrorKind::AccountsUnavailable
            | ErrorKind::AccountNotAuthorized => Self::WechatUnavailable,
            ErrorKind::WechatRefused
            | ErrorKind::LoginRequired
            | ErrorKind::LoginDenied
            | ErrorKind::InvalidState
            | ErrorKind::BadRequest => Self::CodeRejected,
            kind @ (ErrorKind::WechatConfig
            | ErrorKind::Configuration
            | ErrorKind::UnknownAccount
            | ErrorKind::Application) => Self::Misconfigured(kind),
        }
    }

    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::BadRequest
            | Self::NotAuthorized
            | Self::UnknownReturn
            | Self::Expired
            | Self::OtherCustomer
            | Self::CodeRejected => StatusCode::BAD_REQUEST,
            Self::TooManyPages => StatusCode::TOO_MANY_REQUESTS,
            Self::PlatformStarting
            | Self::WechatUnavailable
            | Self::StoreUnavailable
            | Self::HookFailed => StatusCode::SERVICE_UNAVAILABLE,
            Self::Misconfigured(kind) => kind.status(),
        }
    }

    /// Returns the code of the failure, as in the JSON of other rejections.
    pub(super) fn code(self) -> &'static str {
        let kind = match self {
            Self::BadRequest | Self::NotAuthorized | Self::CodeRejected => ErrorKind::BadRequest,
            Self::UnknownReturn | Self::Expired | Self::OtherCustomer => ErrorKind::InvalidState,
            Self::PlatformStarting => ErrorKind::PlatformStarting,
            Self::WechatUnavailable | Self::TooManyPages => ErrorKind::WechatUnavailable,
            Self::StoreUnavailable => ErrorKind::StoreUnavailable,
            Self::HookFailed => ErrorKind::Application,
            Self::Misconfigured(kind) => kind,
        };
        kind.code()
    }

    /// Returns the time after which a reload may succeed. `from_error` is the time that the error
    /// names. Returns `None` if no reload helps.
    pub(super) fn retry_after(self, from_error: Option<Duration>) -> Option<Duration> {
        let default = match self {
            Self::PlatformStarting => Duration::from_secs(10),
            Self::WechatUnavailable | Self::StoreUnavailable | Self::HookFailed => {
                Duration::from_secs(2)
            }
            Self::Misconfigured(_) => Duration::from_secs(30),
            Self::TooManyPages => Duration::from_secs(60),
            Self::BadRequest
            | Self::NotAuthorized
            | Self::UnknownReturn
            | Self::Expired
            | Self::OtherCustomer
            | Self::CodeRejected => return None,
        };
        Some(from_error.unwrap_or(default))
    }

    /// Returns the page of the failure.
    pub(super) fn html(self) -> String {
        let reload = [Button {
            text: ["再试一次", "Try again"],
            // An empty URL is that of the page, with its code.
            url: "",
        }];
        let (title, sentence) = self.text();
        HtmlPage {
            icon: Icon::Notice,
            title,
            sentences: &[sentence],
            detail: Some(self.code()),
            buttons: match self.retry_after(None) {
                Some(_) => &reload,
                None => &[],
            },
            ..HtmlPage::default()
        }
        .html()
    }

    /// Returns the title and the reason in English.
    pub(super) fn message(self) -> String {
        let (title, sentence) = self.text();
        format!("{}. {}", title[1], sentence[1])
    }

    fn text(self) -> (Bilingual<'static>, Bilingual<'static>) {
        match self {
            Self::BadRequest => (
                ["请求无效", "This link does not work"],
                ["链接不完整或已损坏。", "It is incomplete or damaged."],
            ),
            Self::NotAuthorized => (
                ["授权未完成", "The account is not authorized"],
                [
                    "微信没有返回授权码。请回到原来的页面，重新授权。",
                    "WeChat sent no code. Go back to the page from which you came, and begin again.",
                ],
            ),
            Self::UnknownReturn | Self::OtherCustomer => (
                ["授权未完成", "The account is not authorized"],
                [
                    "授权不是从本服务的页面发起的。请回到原来的页面，重新授权。",
                    "The authorization did not begin on a page of this service. Go back to the page from which you came, and begin again.",
                ],
            ),
            Self::Expired => (
                ["授权已过期", "The authorization has expired"],
                [
                    "停留时间过长。请回到原来的页面，重新授权。",
                    "It took too long. Go back to the page from which you came, and begin again.",
                ],
            ),
            Self::CodeRejected => (
                ["授权未完成", "The account is not authorized"],
                [
                    "微信未接受此次授权。请回到原来的页面，重新授权。",
                    "WeChat did not accept the authorization. Go back to the page from which you came, and begin again.",
                ],
            ),
            Self::PlatformStarting => (
                ["服务正在启动", "The service is starting"],
                [
                    "微信最迟十分钟内会通知本服务。请稍后再试。",
                    "WeChat notifies the service within ten minutes. Please try again in a moment.",
                ],
            ),
            Self::WechatUnavailable => (
                ["微信暂时没有响应", "WeChat does not answer"],
                ["请稍后再试。", "Please try again in a moment."],
            ),
            Self::TooManyPages => (
                ["访问过于频繁", "Too many people open this page"],
                ["请稍后再试。", "Please try again in a few minutes."],
            ),
            Self::StoreUnavailable | Self::HookFailed => (
                ["服务暂时不可用", "The service is not available"],
                ["请稍后再试。", "Please try again in a moment."],
            ),
            Self::Misconfigured(_) => (
                ["暂时无法授权", "The authorization does not work right now"],
                [
                    "服务配置有误，我们会尽快处理。",
                    "The service is not set up correctly. We are on it.",
                ],
            ),
        }
    }
}
