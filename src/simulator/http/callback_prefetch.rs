//! The request that WeChat's servers send to the callback. They were seen to open the URLs that
//! their users open, from other addresses and without cookies.

use std::time::Duration;

use axum::http::Uri;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Maximum time for which the user's redirect waits for this request.
const FETCH_TIMEOUT: Duration = Duration::from_secs(3);
/// Maximum length of the response that is read, in bytes. It bounds the memory, because the
/// response is discarded.
const MAX_RESPONSE_BYTES: u64 = 64 * 1024;

/// Fetches an `http://` URL and discards the response. Other URLs are not fetched.
pub(super) async fn fetch_without_cookies(url: &str) {
    // Errors and time-outs are ignored: they must not affect the user's request.
    let _ = tokio::time::timeout(FETCH_TIMEOUT, fetch(url)).await;
}

async fn fetch(url: &str) -> Option<()> {
    let url = url.split('#').next()?;
    let uri: Uri = url.parse().ok()?;
    if uri.scheme_str() != Some("http") {
        return None;
    }
    let authority = uri.authority()?;
    let host = authority
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']');
    let target = uri.path_and_query()?;
    let mut stream = TcpStream::connect((host, authority.port_u16().unwrap_or(80)))
        .await
        .ok()?;
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: Mozilla/5.0\r\nAccept: \
         text/html\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut response = Vec::new();
    stream
        .take(MAX_RESPONSE_BYTES)
        .read_to_end(&mut response)
        .await
        .ok()?;
    Some(())
}
