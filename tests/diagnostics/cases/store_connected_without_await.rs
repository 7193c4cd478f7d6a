//! A store with `?`, but without `.await`.
//~ consider `await`ing on the `Future`

use tower_wechat::{Error, RedisStore, UserTokens, WechatClient};

pub async fn users(wechat: WechatClient) -> Result<UserTokens, Error> {
    Ok(UserTokens::new(wechat, RedisStore::connect("redis://127.0.0.1/")?))
}
