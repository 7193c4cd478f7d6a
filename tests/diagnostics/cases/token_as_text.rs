//! An access token where a text is expected. Only `expose` returns the text, which the crate cannot
//! make the compiler say.
//~ expected `&str`, found `&AccessToken`
//~ `AccessToken` doesn't implement `std::fmt::Display`

use tower_wechat::WechatUser;

fn call(token: &str) {
    drop(token.to_owned());
}

pub fn pass(user: WechatUser) {
    call(user.access_token());
}

pub fn format(user: WechatUser) -> String {
    format!("Bearer {}", user.access_token())
}
