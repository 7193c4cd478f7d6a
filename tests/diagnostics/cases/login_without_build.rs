//! A login whose builder is passed on as it is. A crate cannot add notes to an error about mismatched
//! types; the error names both types.
//~ expected `Login`, found `LoginBuilder`

use axum::Router;
use tower_wechat::{CookieKeys, Scope, UserTokens, WechatLayer};

pub fn app(users: UserTokens, keys: CookieKeys) -> Router {
    let login = tower_wechat::Login::builder("https://h5.example.com", keys).scope(Scope::Base);
    Router::new().layer(WechatLayer::new(users).login(login))
}
