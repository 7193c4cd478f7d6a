//! A store without `.await`, one without `?`, and one in an `Arc`.
//~ `impl Future<Output = Result<RedisStore, tower_wechat::Error>>` is not a store
//~ `Result<RedisStore, tower_wechat::Error>` is not a store
//~ `Arc<MemoryStore>` is not a store
//~ RedisStore::connect(url).await?
//~ without an `Arc`

use std::sync::Arc;

use tower_wechat::{AccountTokens, MemoryStore, RedisStore, UserTokens, WechatClient};

pub async fn without_await(wechat: WechatClient) -> UserTokens {
    let store = RedisStore::connect("redis://127.0.0.1/");
    UserTokens::new(wechat, store)
}

pub async fn without_question_mark(wechat: WechatClient) -> AccountTokens {
    let store = RedisStore::connect("redis://127.0.0.1/").await;
    AccountTokens::new(wechat, store)
}

pub fn in_arc(wechat: WechatClient) -> UserTokens {
    UserTokens::new(wechat, Arc::new(MemoryStore::new()))
}
