//! Pages that need only the user, and one that needs the user's profile.

use axum::{Router, routing::get};
use tower_wechat::layer::GrantedUserInfo;
use tower_wechat::{Error, Login, UserTokens, WechatLayer, WechatUser};

/// `login` has `Scope::Base`, so WeChat asks the user nothing before `/card`.
pub(crate) fn app(users: UserTokens, login: Login) -> Router {
    let layer = WechatLayer::new(users).login(login);
    Router::new()
        .route("/", get(home))
        .route("/card", get(card))
        .layer(layer)
}

async fn home(user: WechatUser) -> String {
    format!("hello {}", user.id())
}

async fn card(GrantedUserInfo(user): GrantedUserInfo) -> Result<String, Error> {
    Ok(user.profile().await?.nickname.clone())
}
