//! The HTML pages of the simulator, in Chinese and English: the consent page, WeChat's error page,
//! and the page after a denial.

use axum::{
    http::header,
    response::{Html, IntoResponse, Response},
};

use crate::simulator::state::SimulatedWechat;

/// One of WeChat's two authorize pages: inside WeChat, or with a QR code for website login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AuthorizePage {
    InWechat,
    QrCode,
}

/// The window or frame that leads to the application's callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallbackWindow {
    /// The window that contains the page and all frames.
    Top,
    /// The window or frame of the page itself.
    Own,
}

/// The reason why WeChat shows its error page. That page is HTML with HTTP 200, and never leads
/// back to the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AuthorizeError {
    /// The parameters of the link are not in WeChat's order, which the real WeChat checks with a
    /// regular expression.
    WrongParameterOrder,
    WrongResponseType,
    StateTooLong,
    /// The error 10003: the settings do not allow the host of `redirect_uri`, or `redirect_uri` is
    /// not an http or https URL.
    WrongRedirectUri,
    /// The error 10005: the authorize page does not accept this scope for this app, as if the
    /// account lacked it. A website app's AppID at the page inside WeChat, and an account's AppID at
    /// the page with the QR code, get this error too.
    ScopeNotAllowed,
    MissingScope,
    MissingRedirectUri,
    MissingAppId,
    MissingState,
    WrongAppId,
    #[cfg(feature = "platform")]
    WrongComponentAppId,
    #[cfg(feature = "platform")]
    NotAuthorizedToComponent,
}

impl AuthorizeError {
    /// Returns the number that WeChat's error page shows for this reason, as in the guide to web
    /// authorization. Returns `None` for a reason without a number. The page with the QR code shows
    /// no numbers.
    fn error_number(self, page: AuthorizePage) -> Option<u16> {
        if page == AuthorizePage::QrCode {
            return None;
        }
        match self {
            Self::WrongRedirectUri => Some(10003),
            Self::ScopeNotAllowed => Some(10005),
            Self::MissingScope => Some(10010),
            Self::MissingRedirectUri => Some(10011),
            Self::MissingAppId => Some(10012),
            Self::MissingState => Some(10013),
            Self::WrongParameterOrder
            | Self::WrongResponseType
            | Self::StateTooLong
            | Self::WrongAppId => None,
            #[cfg(feature = "platform")]
            Self::WrongComponentAppId | Self::NotAuthorizedToComponent => None,
        }
    }

    fn messages(self, page: AuthorizePage) -> (&'static str, &'static str) {
        match self {
            Self::WrongRedirectUri if page == AuthorizePage::QrCode => (
                "redirect_uri 参数错误",
                "The host of redirect_uri is not the one in the website app's settings, or \
                 redirect_uri is no http or https URL.",
            ),
            Self::ScopeNotAllowed if page == AuthorizePage::QrCode => (
                "Scope 参数错误或没有 Scope 权限",
                "The scope must be snsapi_login, and the AppID that of a website app.",
            ),
            Self::WrongParameterOrder => (
                "链接参数顺序错误",
                "The parameters must be appid, redirect_uri, response_type, scope, state, in this \
                 order and spelling, each of them percent-encoded.",
            ),
            Self::WrongResponseType => ("response_type 参数错误", "response_type must be code."),
            Self::StateTooLong => ("state 参数过长", "state is longer than 128 bytes."),
            Self::WrongRedirectUri => (
                "redirect_uri 域名与后台配置不一致",
                "The host of redirect_uri is not the one in the account's settings, or \
                 redirect_uri is no http or https URL.",
            ),
            Self::ScopeNotAllowed => (
                "该公众号没有这个 scope 权限",
                "The account does not have this scope.",
            ),
            Self::MissingScope => ("scope 不能为空", "scope is empty."),
            Self::MissingRedirectUri => ("redirect_uri 不能为空", "redirect_uri is empty."),
            Self::MissingAppId => ("appid 不能为空", "appid is empty."),
            Self::MissingState => ("state 不能为空", "state is empty."),
            Self::WrongAppId => ("appid 参数错误", "No app has this appid."),
            #[cfg(feature = "platform")]
            Self::WrongComponentAppId => (
                "component_appid 参数错误",
                "No third-party platform has this component_appid.",
            ),
            #[cfg(feature = "platform")]
            Self::NotAuthorizedToComponent => (
                "该公众号未授权给第三方平台",
                "The account has not authorized the third-party platform.",
            ),
        }
    }
}

const STYLE: &str = "\
    *{box-sizing:border-box}\
    body{margin:0;min-height:100vh;padding:16px;display:flex;flex-direction:column;background:#ededed;\
    color:#191919;font:17px/1.5 -apple-system,'PingFang SC','Noto Sans CJK SC',sans-serif}\
    main{width:100%;max-width:420px;margin:auto;padding:32px 24px;background:#fff;\
    border-radius:12px}\
    h1{margin:0 0 4px;font-size:22px}p{margin:0 0 20px;color:#666}\
    small{display:block;color:#888;font-size:13px}\
    label{display:block;margin:0 0 24px}\
    select{width:100%;margin-top:6px;padding:12px;font:inherit;border:1px solid #ddd;\
    border-radius:8px;background:#fff}\
    button{display:block;width:100%;margin-top:12px;padding:12px;border:0;border-radius:8px;\
    font:inherit;font-weight:600}\
    #allow{background:#07c160;color:#fff}#deny{background:#f2f2f2;color:#06ae56}\
    @media(max-height:440px){body{padding:8px}main{padding:12px 16px}p,label{margin-bottom:8px}}";

pub(super) fn html_page(title: &str, content: &str) -> Response {
    let html = format!(
        "<!doctype html><html lang=\"zh-CN\"><head><meta charset=\"utf-8\"><meta \
         name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>{title}</title>\
         <style>{STYLE}</style></head><body><main>{content}</main></body></html>"
    );
    ([(header::CACHE_CONTROL, "no-store")], Html(html)).into_response()
}

/// Returns the consent page, on which the tester chooses a user and allows or denies.
pub(super) fn consent_page(page_kind: AuthorizePage, wechat: &SimulatedWechat) -> Response {
    let mut users = String::new();
    for user in wechat.users.all() {
        let chosen = if user.openid() == wechat.users.active_openid() {
            " selected"
        } else {
            ""
        };
        users.push_str(&format!(
            "<option value=\"{}\"{chosen}>{}</option>",
            escape(user.openid()),
            escape(user.name()),
        ));
    }
    let (title, how, who) = match page_kind {
        AuthorizePage::InWechat => (
            "申请使用",
            "获取你的昵称、头像 <small>Get your nickname and avatar</small>",
            "以谁的身份 <small>Answer as</small>",
        ),
        // The real page shows a QR code, and the user answers on the phone.
        AuthorizePage::QrCode => (
            "微信登录",
            "代替扫码 <small>In place of the scan of a QR code</small>",
            "谁在扫码 <small>Scanned by</small>",
        ),
    };
    html_page(
        "微信授权 · Authorize",
        &format!(
            "<h1>{title}</h1><p>{how}</p><form method=\"post\"><label>{who}<select \
             name=\"openid\">{users}</select></label><button id=\"allow\" name=\"answer\" \
             value=\"allow\">允许 Allow</button><button id=\"deny\" name=\"answer\" \
             value=\"deny\">拒绝 Deny</button></form>"
        ),
    )
}

/// Returns the page that leads to the callback by a script, as the real page with the QR code does
/// in a frame. A client without scripts follows its link.
pub(super) fn navigation_page(url: &str, window: CallbackWindow) -> Response {
    let (script_window, target) = match window {
        CallbackWindow::Top => ("window.top", "_top"),
        CallbackWindow::Own => ("window", "_self"),
    };
    // `<` could end the script. A JSON string is also a string of JavaScript.
    let script_url = serde_json::Value::from(url)
        .to_string()
        .replace('<', "\\u003c");
    html_page(
        "微信登录 · Log in",
        &format!(
            "<h1>扫码成功</h1><p><a id=\"continue\" target=\"{target}\" href=\"{}\">继续 \
             Continue</a></p><script>{script_window}.location.href={script_url}</script>",
            escape(url),
        ),
    )
}

/// Returns WeChat's error page for an invalid link to an authorize page.
pub(super) fn error_page(page: AuthorizePage, mistake: AuthorizeError) -> Response {
    let (chinese, english) = mistake.messages(page);
    let number = mistake
        .error_number(page)
        .map(|number| format!("，错误码:{number}"))
        .unwrap_or_default();
    html_page(
        "无法打开 · Error",
        &format!("<h1>{chinese}{number}</h1><p><small>{english}</small></p>"),
    )
}

/// Returns the page after a denial without a redirect. Inside WeChat, the real WeChat closes its
/// window instead. The page with the QR code offers another scan, as the real one does.
pub(super) fn denied_page(page: AuthorizePage) -> Response {
    let content = match page {
        AuthorizePage::InWechat => "<h1>已取消</h1><p><small>You may close this page.</small></p>",
        AuthorizePage::QrCode => {
            "<h1>已取消登录</h1><p><a id=\"again\" href=\"\">重新扫码 Scan again</a></p>"
        }
    };
    html_page("已取消 · Cancelled", content)
}

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;")
}
