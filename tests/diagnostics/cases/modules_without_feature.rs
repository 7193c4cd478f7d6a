//! Modules and types of features that `Cargo.toml` does not name.
//@ features: axum redis
//~ gated behind the `simulator` feature
//~ gated behind the `sealing` feature
//~ gated behind the `testing` feature

use tower_wechat::{Error, WechatUser};
use tower_wechat::redis::SealingKeys;

pub async fn start() -> std::io::Result<()> {
    tower_wechat::simulator::Simulator::start().await.map(drop)
}

pub fn keys(text: &str) -> Result<SealingKeys, Error> {
    SealingKeys::from_base64(text)
}

pub fn alice() -> WechatUser {
    tower_wechat::testing::TestUser::new("oAlice").build()
}
