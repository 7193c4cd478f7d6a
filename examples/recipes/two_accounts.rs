//! Two accounts with different pages, each with its own users, login and sessions.

use axum::{Router, routing::get};
use tower_wechat::{CookieKeys, Error, Login, UserTokens, WechatLayer, WechatUser};

pub(crate) fn app(
    origin: &str,
    keys: &CookieKeys,
    shop: UserTokens,
    club: UserTokens,
) -> Result<Router, Error> {
    let shop = account(&format!("{origin}/shop"), keys, shop)?;
    let club = account(&format!("{origin}/club"), keys, club)?;
    Ok(Router::new().nest("/shop/", shop).nest("/club/", club))
}

fn account(public_url: &str, keys: &CookieKeys, users: UserTokens) -> Result<Router, Error> {
    let layer = WechatLayer::new(users).login(Login::new(public_url, keys.clone())?);
    let pages = Router::new()
        .route("/", get(home))
        .merge(layer.login_routes());
    Ok(pages.layer(layer))
}

async fn home(user: WechatUser) -> String {
    format!("hello {} of {}", user.id(), user.app_id().as_str())
}
