//! Pages with the reason of a failed login, in Chinese and English, for phones.

use std::time::Duration;

use super::failure::LoginFailure;
use crate::error::ErrorKind;
use crate::html_page::{Button, HtmlPage, Icon};

/// A page with the reason of a failed login, and a button.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FailurePage {
    pub(crate) failure: LoginFailure,
    /// The URL to which the page's button leads: a path of the application, or a page of a listed
    /// origin.
    pub(crate) button_url: String,
    pub(crate) retry_after: Option<Duration>,
}

impl FailurePage {
    /// Returns the page for a page load that failed with an error of this kind before its account was
    /// known. Returns `None` if no page describes that error.
    ///
    /// The button loads the same address again: an empty reference is the address of the page.
    pub(crate) fn without_account(kind: ErrorKind, retry_after: Option<Duration>) -> Option<Self> {
        Some(Self {
            failure: LoginFailure::from_page_error(kind)?,
            button_url: String::new(),
            retry_after,
        })
    }

    /// Returns the page as HTML without external resources.
    pub(crate) fn html(&self) -> String {
        let PageText {
            title,
            sentence,
            button,
        } = page_text(self.failure);
        HtmlPage {
            icon: Icon::Notice,
            title,
            sentences: &[sentence],
            buttons: &[Button {
                text: button,
                url: &self.button_url,
            }],
            ..HtmlPage::default()
        }
        .html()
    }

    /// Returns the title and the reason of the failure in English, for rejections and JSON errors.
    pub(crate) fn message(&self) -> String {
        let PageText {
            title, sentence, ..
        } = page_text(self.failure);
        format!("{}. {}", title[1].trim_end_matches('.'), sentence[1])
    }
}

/// The text of a page in Chinese and English.
struct PageText {
    title: [&'static str; 2],
    sentence: [&'static str; 2],
    button: [&'static str; 2],
}

/// Text of the button that begins another login, in Chinese and English.
const SIGN_IN_AGAIN: [&str; 2] = ["重新登录", "Sign in again"];

const TRY_AGAIN: [&str; 2] = ["再试一次", "Try again"];

const GO_HOME: [&str; 2] = ["返回首页", "Go to the start page"];

/// Returns the text of a failure's page.
fn page_text(failure: LoginFailure) -> PageText {
    let (title, sentence, button) = match failure {
        LoginFailure::BadRequest => (
            ["请求无效", "This link does not work"],
            ["链接不完整或已损坏。", "It is incomplete or damaged."],
            GO_HOME,
        ),
        LoginFailure::WrongCallbackPath => (
            ["登录未完成", "The sign-in did not succeed"],
            [
                "微信返回的地址不正确，服务配置有误，我们会尽快处理。",
                "WeChat sent you back to the wrong address. The service is not set up correctly.",
            ],
            GO_HOME,
        ),
        LoginFailure::Expired => (
            ["登录已过期", "The sign-in has expired"],
            [
                "停留时间过长，请重新登录。",
                "It took too long. Please sign in again.",
            ],
            SIGN_IN_AGAIN,
        ),
        LoginFailure::UnknownLogin => (
            ["登录状态无效", "This sign-in is not valid"],
            [
                "登录不是从此浏览器发起的，或者 Cookie 已被清除。",
                "It was not started in this browser, or the browser has lost its cookies.",
            ],
            SIGN_IN_AGAIN,
        ),
        LoginFailure::AccessDenied => (
            ["您已取消授权", "You did not allow the sign-in"],
            [
                "没有您的授权，我们无法为您登录。",
                "Without your permission we cannot sign you in.",
            ],
            SIGN_IN_AGAIN,
        ),
        LoginFailure::SnapshotDenied => (
            ["请使用完整服务", "Please open the full service"],
            [
                "当前为快照页。请点击页面下方的“使用完整服务”，然后重试。",
                "This is a snapshot page. Tap “使用完整服务” at the bottom, then try again.",
            ],
            SIGN_IN_AGAIN,
        ),
        LoginFailure::Blocked => (
            ["无法登录", "You cannot sign in"],
            [
                "微信不允许此账号登录。",
                "WeChat does not let this account sign in.",
            ],
            GO_HOME,
        ),
        LoginFailure::ProfileNotGranted => (
            ["需要您的授权", "Your permission is needed"],
            [
                "此页面需要您的昵称和头像。",
                "This page needs your nickname and avatar.",
            ],
            ["去授权", "Give permission"],
        ),
        LoginFailure::NotInWechat => (
            ["请在微信中打开", "Please open this page in WeChat"],
            [
                "请复制链接，发送到微信后打开。",
                "Copy the link, send it to a chat in WeChat, and open it there.",
            ],
            TRY_AGAIN,
        ),
        LoginFailure::NoQrCode => (
            ["无需扫码", "There is no QR code"],
            [
                "在此浏览器中登录不使用二维码。",
                "This browser signs in without one. Open the link without format=json.",
            ],
            ["去登录", "Sign in"],
        ),
        LoginFailure::RateLimited => (
            ["登录过于频繁", "Too many sign-ins"],
            [
                "登录多次未能完成。请稍等一分钟再试。",
                "The sign-in failed several times. Please wait a minute.",
            ],
            TRY_AGAIN,
        ),
        LoginFailure::NotKept => (
            ["登录没有生效", "The sign-in has no effect"],
            [
                "微信登录已成功，但页面仍无法识别您：浏览器没有保存 Cookie，或服务配置有误。请稍等一分钟再试。",
                "WeChat has signed you in, but the page does not know it: the browser keeps no cookies, or the service is not set up correctly. Please wait a minute.",
            ],
            TRY_AGAIN,
        ),
        LoginFailure::CodeRejected => (
            ["登录未完成", "The sign-in did not succeed"],
            ["微信未接受此次登录。", "WeChat did not accept it."],
            SIGN_IN_AGAIN,
        ),
        LoginFailure::Misconfigured => (
            ["暂时无法登录", "Sign-in does not work right now"],
            [
                "服务配置有误，我们会尽快处理。",
                "The service is not set up correctly. We are on it.",
            ],
            TRY_AGAIN,
        ),
        LoginFailure::InvalidUserId => (
            ["暂时无法登录", "Sign-in does not work right now"],
            [
                "服务出现错误，我们会尽快处理。",
                "The service has an error. We are on it.",
            ],
            TRY_AGAIN,
        ),
        LoginFailure::HookFailed => (
            ["登录未完成", "The sign-in did not succeed"],
            [
                "服务暂时不可用，请稍后再试。",
                "The service is not available. Please try again in a moment.",
            ],
            TRY_AGAIN,
        ),
        LoginFailure::WechatUnavailable => (
            ["微信暂时没有响应", "WeChat does not answer"],
            ["请稍后再试。", "Please try again in a moment."],
            TRY_AGAIN,
        ),
        LoginFailure::StoreUnavailable => (
            ["服务暂时不可用", "The service is not available"],
            ["请稍后再试。", "Please try again in a moment."],
            TRY_AGAIN,
        ),
    };
    PageText {
        title,
        sentence,
        button,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_self_contained_and_escape_input() {
        for failure in LoginFailure::ALL {
            let failure_page = FailurePage {
                failure,
                button_url: "/a?b=\"><script>alert('x')</script>&c".into(),
                retry_after: None,
            };
            let page = failure_page.html();
            assert!(!page.contains("<script"), "{page}");
            assert!(page.contains("href=\"/a?b=&quot;&gt;&lt;script&gt;alert(&#39;x&#39;)"));
            assert!(
                !page.contains("src=") && !page.contains("http"),
                "the page needs no external resources"
            );
            assert!(failure_page.message().is_ascii() || failure == LoginFailure::SnapshotDenied);
        }
    }
}
