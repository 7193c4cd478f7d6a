//! The client, the secrets and the checks that the tests share.

use std::error::Error as _;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::credential::RefreshToken;
use crate::{AccessToken, Error, ErrorKind, WechatClient};

pub(super) const SECRET: &str = "s3cret-of-the-account";
pub(super) const CODE: &str = "c0de";
pub(super) const TOKEN: &str = "t0ken";
pub(super) const REFRESH: &str = "r3fresh";

pub(super) fn client(urls: &[&str]) -> WechatClient {
    WechatClient::builder("wx1", SECRET)
        .api_url(urls[0])
        .fallback_api_urls(urls[1..].iter().copied())
        .connect_timeout(Duration::from_millis(500))
        .timeout(Duration::from_millis(400))
        .build()
        .unwrap()
}

/// Returns a URL at which no server listens.
pub(super) async fn unreachable_url() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

pub(super) fn refresh_token() -> RefreshToken {
    RefreshToken::from(REFRESH)
}

pub(super) fn token() -> AccessToken {
    AccessToken::from(TOKEN)
}

pub(super) fn all_error_text(error: &Error) -> String {
    let mut text = format!("{error} {error:?} {error:#?}");
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(" {cause} {cause:?}"));
        source = cause.source();
    }
    text
}

#[track_caller]
pub(super) fn assert_unavailable(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::WechatUnavailable, "{error}");
    for secret in [SECRET, CODE, TOKEN, REFRESH] {
        assert!(
            !all_error_text(error).contains(secret),
            "{}",
            all_error_text(error)
        );
    }
}
