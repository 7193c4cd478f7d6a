//! The account that the servers and the simulator share.

use tower_wechat::WechatClient;

pub const APP_ID: &str = "wx0123456789abcdef";
pub const APP_SECRET: &str = "0123456789abcdef0123456789abcdef";

/// The environment variable with the simulator's URL. The variable is not set for servers that do
/// not call WeChat.
pub const WECHAT_URL: &str = "LOAD_WECHAT_URL";

/// Returns the client of the account, which calls the simulator if [`WECHAT_URL`] names its URL.
pub fn wechat() -> WechatClient {
    let mut client = WechatClient::builder(APP_ID, APP_SECRET);
    if let Ok(url) = std::env::var(WECHAT_URL) {
        client = client.api_url(url);
    }
    client.build().expect("a client")
}
