//! Tests of the connections that the clients of several accounts share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::fixtures::client;

/// Replies to every request of a connection with a token that names the AppID of the request.
async fn serve_all(mut stream: TcpStream) {
    let mut request = Vec::new();
    while stream.read_buf(&mut request).await.is_ok_and(|n| n > 0) {
        let text = String::from_utf8_lossy(&request).into_owned();
        if !text.ends_with("\r\n\r\n") {
            continue;
        }
        request.clear();
        let (_, rest) = text.split_once("appid=").unwrap();
        let (app_id, _) = rest.split_once('&').unwrap();
        let body = format!(r#"{{"access_token":"token-of-{app_id}","expires_in":7200}}"#);
        let reply = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(reply.as_bytes()).await.unwrap();
    }
}

#[tokio::test]
async fn calls_of_two_accounts_share_one_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&accepted);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(serve_all(stream));
        }
    });
    let first = client(&[&url]);
    let second = first.for_account("wx2", "another-secret").unwrap();
    for _ in 0..3 {
        for client in [&first, &second] {
            let reply = client.account_token().await.unwrap();
            let wanted = format!("token-of-{}", client.app_id());
            assert_eq!(reply.access_token.expose(), wanted);
        }
    }
    assert_eq!(accepted.load(Ordering::Relaxed), 1);
}
