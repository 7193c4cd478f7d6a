//! The servers of the contenders that use this crate.

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use tower_wechat::redis::Layout;
use tower_wechat::{RedisStore, SessionCookie, TrustedHeader, UserTokens, WechatLayer, WechatUser};

use crate::account::wechat;
use crate::contender::{Contender, UserCredential};
use crate::environment;
use crate::population::{USER_HEADER, cookie_keys};

async fn me(user: WechatUser) -> String {
    user.id().to_owned()
}

pub(super) async fn app(contender: Contender, redis: &str) -> Router {
    // A cached contender reads the layout that the environment names. Each uncached contender has a
    // fixed layout.
    let uncached_layout = match contender {
        Contender::UncachedKeys | Contender::UncachedKeysCookie => Some(Layout::Keys),
        Contender::UncachedHashes => Some(Layout::Hashes),
        Contender::CachedHeader | Contender::CachedCookie => None,
        Contender::Bare
        | Contender::OwnCacheHeader
        | Contender::OwnCacheCookie
        | Contender::Naive
        | Contender::Bb8
        | Contender::Deadpool
        | Contender::Sessions
        | Contender::SignedSessions => panic!("{contender} is not a server of this crate"),
    };
    let layout = uncached_layout.unwrap_or_else(environment::layout);
    let store = RedisStore::builder(redis).layout(layout).connect().await;
    let mut users = UserTokens::builder(wechat(), store.expect("Redis"));
    if uncached_layout.is_some() {
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
