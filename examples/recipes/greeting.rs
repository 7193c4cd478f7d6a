//! A page that greets known users and serves anonymous ones.

use axum::{Router, response::Html, routing::get};
use tower_wechat::{Login, Policy, UserTokens, WechatLayer, WechatUser};

pub(crate) fn app(users: UserTokens, login: Login) -> Router {
    let layer = WechatLayer::new(users).login(login);
    Router::new()
        .route("/", get(home))
        .layer(layer.policy(Policy::Optional))
}

pub(crate) async fn home(user: Option<WechatUser>) -> Html<String> {
    Html(match user {
        Some(user) => format!("hello {}", user.id()),
        None => r#"hello stranger, <a href="/wechat/login?return_to=/">log in</a>"#.to_owned(),
    })
}
