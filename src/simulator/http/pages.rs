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
    /// The error 10005: the authorize page does not accept this scope, as if the account lacked it.
    ScopeNotAllowed,
    MissingScope,
    MissingRedirectUri,
    MissingAppId,
    MissingState,
    WrongAppId,
}

impl AuthorizeError {
    /// Returns the number that WeChat's error page shows for this reason, as in the guide to web
    /// authorization. Returns `None` for a reason without a number.
    pub(super) fn error_number(self) -> Option<u16> {
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
        }
    }

    pub(super) fn messages(self) -> (&'static str, &'static str) {
        match self {
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
            Self::WrongAppId => ("appid 参数错误", "appid is not the one of this account."),
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
    #allow{background:#07c160;color:#fff}#deny{background:#f2f2f2;color:#06ae56}";

fn html_page(title: &str, content: &str) -> Response {
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
    let how = match page_kind {
        AuthorizePage::InWechat => "获取你的昵称、头像 <small>Get your nickname and avatar</small>",
        AuthorizePage::QrCode => "扫码登录网站 <small>Log in to a website by QR code</small>",
    };
    html_page(
        "微信授权 · Authorize",
        &format!(
            "<h1>申请使用</h1><p>{how}</p><form method=\"post\"><label>以谁的身份 <small>Answer \
             as</small><select name=\"openid\">{users}</select></label><button id=\"allow\" \
             name=\"answer\" value=\"allow\">允许 Allow</button><button id=\"deny\" \
             name=\"answer\" value=\"deny\">拒绝 Deny</button></form>"
        ),
    )
}

/// Returns WeChat's error page for an invalid link to the authorize page.
pub(super) fn error_page(mistake: AuthorizeError) -> Response {
    let (chinese, english) = mistake.messages();
    let number = mistake
        .error_number()
        .map(|number| format!("，错误码:{number}"))
        .unwrap_or_default();
    html_page(
        "无法打开 · Error",
        &format!("<h1>{chinese}{number}</h1><p><small>{english}</small></p>"),
    )
}

/// Returns the page after a denial without a redirect. The real WeChat closes its window instead.
pub(super) fn denied_page() -> Response {
    html_page(
        "已取消 · Cancelled",
        "<h1>已取消</h1><p><small>You may close this page.</small></p>",
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;")
}
