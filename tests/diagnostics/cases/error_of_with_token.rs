//! A call for `with_token` whose error cannot report that WeChat rejected the token.
//~ `MyError` does not report whether WeChat rejected a token
//~ implement `tower_wechat::client::InvalidToken`
//~ enable the feature `anyhow`

use tower_wechat::{Error, WechatUser};

pub struct MyError(pub Error);

impl From<Error> for MyError {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

pub async fn call(user: WechatUser) -> Result<(), MyError> {
    user.with_token(async |_| Ok(())).await
}
