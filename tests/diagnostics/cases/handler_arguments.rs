//! Handlers of axum that take a reference, or the user after the body. The error is axum's; the
//! attribute that it names shows the argument.
//~ fn(&'a WechatUser)
//~ fn(String, WechatUser)
//~ the trait `Handler<_, _>` is not implemented
//~ axum::debug_handler

use axum::routing::{get, post};
use axum::Router;
use tower_wechat::WechatUser;

async fn by_reference(user: &WechatUser) -> String {
    user.id().to_owned()
}

async fn after_the_body(body: String, user: WechatUser) -> String {
    body + user.id()
}

pub fn app() -> Router {
    Router::new().route("/", get(by_reference)).route("/", post(after_the_body))
}
