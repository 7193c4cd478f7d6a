//! Log messages at start-up about valid settings that may not be intended.

use std::net::SocketAddr;

use tower_wechat::simulator::Simulator;

use crate::addresses::Addresses;
use crate::settings::Settings;

/// Logs what is missing for production. All settings are valid at this point.
pub fn log_warnings(
    settings: &Settings,
    simulator: Option<&Simulator>,
    addresses: &Addresses,
    address: SocketAddr,
) {
    if let Some(simulator) = simulator {
        tracing::info!(
            url = simulator.url(),
            "WECHAT_APPID is not set: a simulator replaces WeChat, for browsers of this machine"
        );
    }
    // WeChat redirects users to the public URL after a login, and no browser can open `0.0.0.0` or
    // `[::]`.
    if settings.public_url.is_none() && address.ip().is_unspecified() {
        let (public_url, port) = (&addresses.public_url, address.port());
        tracing::warn!(
            "PUBLIC_URL is not set, and logins return to {public_url}, which browsers cannot \
             open: set it to the address that they open, such as \
             PUBLIC_URL=https://h5.example.com or http://192.168.1.2:{port}"
        );
    }
    match (&settings.redis_url, settings.accounts.simulated) {
        (Some(_), _) => {}
        (None, true) => tracing::info!("REDIS_URL is not set: tokens stay in memory"),
        (None, false) if settings.accounts.platform.is_some() => tracing::warn!(
            "REDIS_URL is not set: tokens stay in memory, and when this process ends, WeChat has to \
             push a verify ticket again before any account works"
        ),
        // Refresh tokens cannot be obtained again without a login of the user.
        (None, false) => tracing::warn!(
            "REDIS_URL is not set: tokens stay in memory, and all users log in again when \
             this process ends"
        ),
    }
    if settings.cookie_key.is_none() {
        tracing::warn!("COOKIE_KEY is not set: sessions end when this process ends");
    }
    let secrets = settings
        .center_secrets
        .iter()
        .flat_map(|all| all.split(','));
    if secrets.map(str::trim).any(|secret| secret.len() < 16) {
        tracing::warn!(
            "CENTER_TOKEN is short and can be guessed: create a longer one with `openssl rand -hex 32`"
        );
    }
    // WeChat shows the error of a wrong domain to users, and does not report it to this process.
    if !settings.accounts.simulated && settings.wechat.open_url.is_none() {
        for public_url in addresses.public_urls() {
            tracing::info!(
                "WeChat redirects users to {public_url}/wechat/callback; if it shows error 10003 \
                 instead, that host is not the account's 网页授权域名 in mp.weixin.qq.com"
            );
        }
        let public_url = &addresses.public_url;
        if settings.accounts.platform.is_some() {
            tracing::info!(
                "WeChat pushes to {public_url}/wechat/platform/push, owners authorize their accounts \
                 at {public_url}/wechat/platform/authorize, and users log in below \
                 {public_url}/APPID/: open.weixin.qq.com must have that host as 授权发起页域名 and as \
                 公众号开发域名"
            );
        }
        if !public_url.starts_with("https:") {
            tracing::warn!(
                "PUBLIC_URL is {public_url}: if browsers open https, set it to the https address, or \
                 cookies are sent unencrypted and may be lost"
            );
        }
    }
}
