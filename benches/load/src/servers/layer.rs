//! This crate.

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use tower_wechat::{
    Layout, RedisStore, SessionCookie, TrustedHeader, UserTokens, WechatLayer, WechatUser,
};

use crate::contender::{Contender, UserCredential};
use crate::population::{USER_HEADER, cookie_keys, wechat};

async fn me(user: WechatUser) -> String {
    user.id().to_owned()
}

pub(super) async fn app(contender: Contender, redis: &str) -> Router {
    let layout = match contender {
        Contender::UncachedKeys | Contender::UncachedKeysCookie => Layout::Keys,
        _ => cached_layout(),
    };
    let store = RedisStore::builder(redis).layout(layout).connect().await;
    let mut users = UserTokens::builder(wechat(), store.expect("Redis"));
    if !matches!(contender, Contender::CachedHeader | Contender::CachedCookie) {
        users = users.cache_ttl(Duration::ZERO);
    }
    let layer = WechatLayer::new(users.build());
    let router = Router::new().route("/me", get(me));
    if contender.user_credential() == UserCredential::LayerCookie {
        let session = SessionCookie::new(wechat().app_id(), &cookie_keys());
        router.layer(layer.identity(session))
    } else {
        let header = TrustedHeader::new(USER_HEADER).expect("a header");
        router.layer(layer.identity(header))
    }
}

/// The published layout, unless the other is asked for.
fn cached_layout() -> Layout {
    match std::env::var(super::LAYOUT).as_deref() {
        Ok("keys") => Layout::Keys,
        _ => Layout::Hashes,
    }
}
