//! The pages themselves: small, made for a phone, in Chinese with English.

use axum::{
    http::header,
    response::{Html, IntoResponse, Response},
};

use super::authorize::{Mistake, Page};
use crate::simulator::world::World;

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

fn page(title: &str, content: &str) -> Response {
    let html = format!(
        "<!doctype html><html lang=\"zh-CN\"><head><meta charset=\"utf-8\"><meta \
         name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>{title}</title>\
         <style>{STYLE}</style></head><body><main>{content}</main></body></html>"
    );
    ([(header::CACHE_CONTROL, "no-store")], Html(html)).into_response()
}

/// Asks the user, who may be any of those who are known.
pub(super) fn question(page_kind: Page, world: &World) -> Response {
    let mut users = String::new();
    for user in world.users.all() {
        let chosen = if user.openid() == world.users.next() {
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
        Page::InWeChat => "获取你的昵称、头像 <small>Get your nickname and avatar</small>",
        Page::QrCode => "扫码登录网站 <small>Log in to a website by QR code</small>",
    };
    page(
        "微信授权 · Authorize",
        &format!(
            "<h1>申请使用</h1><p>{how}</p><form method=\"post\"><label>以谁的身份 <small>Answer \
             as</small><select name=\"openid\">{users}</select></label><button id=\"allow\" \
             name=\"answer\" value=\"allow\">允许 Allow</button><button id=\"deny\" \
             name=\"answer\" value=\"deny\">拒绝 Deny</button></form>"
        ),
    )
}

/// WeChat's error page.
pub(super) fn mistake(mistake: Mistake) -> Response {
    let (chinese, english) = mistake.text();
    let number = mistake
        .number()
        .map(|number| format!("，错误码:{number}"))
        .unwrap_or_default();
    page(
        "无法打开 · Error",
        &format!("<h1>{chinese}{number}</h1><p><small>{english}</small></p>"),
    )
}

/// What is left when the user denied and WeChat closed its window without a word.
pub(super) fn closed() -> Response {
    page(
        "已取消 · Cancelled",
        "<h1>已取消</h1><p><small>You may close this page.</small></p>",
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;")
}
