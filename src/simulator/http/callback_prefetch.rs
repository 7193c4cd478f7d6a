//! The request that WeChat's servers send to a callback. WeChat's servers were seen to open the
//! URLs that users open, from other addresses and without cookies.

use std::time::Duration;

use axum::http::Uri;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Maximum time for which the user's redirect waits for the request to the callback: three seconds.
const FETCH_TIMEOUT: Duration = Duration::from_secs(3);
/// Maximum number of bytes of the response that are read: 64 KiB. The response is discarded, and
/// the limit bounds the memory.
const MAX_RESPONSE_BYTES: u64 = 64 * 1024;

/// Fetches an `http://` URL and discards the response. Other URLs are not fetched.
pub(super) async fn fetch_without_cookies(url: &str) {
    // Errors and time-outs are ignored, so that the user's request continues.
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
