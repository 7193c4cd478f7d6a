//! A login whose `Result` is passed on as it is.
//~ use the `?` operator to extract the `Result<Login, tower_wechat::Error>` value

use axum::Router;
use tower_wechat::{CookieKeys, Error, Login, UserTokens, WechatLayer};

pub fn app(users: UserTokens, keys: CookieKeys) -> Result<Router, Error> {
    let login = Login::new("https://h5.example.com", keys);
    Ok(Router::new().layer(WechatLayer::new(users).login(login)))
}
