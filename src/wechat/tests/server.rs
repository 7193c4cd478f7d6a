//! A server that returns scripted replies, byte for byte.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::fixtures::{TOKEN, client};
use crate::WechatClient;

/// The behaviour of the test server after it has read a request.
#[derive(Clone)]
pub(crate) enum ScriptedReply {
    Body(u16, Vec<u8>),
    /// Replies with HTTP 200 and this body under this Content-Encoding.
    Encoded(&'static str, Vec<u8>),
    /// Reads the request, then closes the connection.
    Close,
    /// Reads the request, and never replies.
    NoReply,
    /// Sends the beginning of a reply, then closes the connection.
    Truncated,
    /// Sends a body without a declared length until the client closes the connection.
    Endless,
    /// Replies with a redirect to another path of the test server.
    Redirect,
}

pub(crate) struct ScriptedServer {
    pub(crate) url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl ScriptedServer {
    pub(crate) async fn start(answer: ScriptedReply) -> Self {
        Self::start_with(move |_| answer.clone()).await
    }

    /// Starts a server that returns these replies one after the other, and the last one from then on.
    #[cfg(feature = "platform")]
    pub(crate) async fn with_sequence(replies: impl IntoIterator<Item = Value>) -> Self {
        let replies: Vec<Value> = replies.into_iter().collect();
        let reply = move |at: usize| {
            let body = replies[at.min(replies.len() - 1)].to_string();
            ScriptedReply::Body(200, body.into_bytes())
        };
        Self::start_with(reply).await
    }

    /// Starts a server that chooses its reply by the number of the connection.
    async fn start_with(reply: impl Fn(usize) -> ScriptedReply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        tokio::spawn(async move {
            for at in 0.. {
                let Ok((stream, _)) = listener.accept().await else {
                    return;
                };
                tokio::spawn(serve(stream, reply(at), Arc::clone(&seen)));
            }
        });
        Self { url, requests }
    }

    pub(crate) async fn with_json(value: Value) -> Self {
        Self::with_body(200, value.to_string()).await
    }

    pub(crate) async fn with_body(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self::start(ScriptedReply::Body(status, body.into())).await
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    pub(super) fn client(&self) -> WechatClient {
        client(&[&self.url])
    }
}

async fn serve(mut stream: TcpStream, answer: ScriptedReply, seen: Arc<Mutex<Vec<String>>>) {
    let mut request = Vec::new();
    let mut chunk = [0; 4096];
    let whole = |request: &[u8]| {
        let text = String::from_utf8_lossy(request).into_owned();
        let (head, body) = text.split_once("\r\n\r\n")?;
        let length = head
            .to_ascii_lowercase()
            .split_once("content-length: ")
            .and_then(|(_, rest)| rest.lines().next()?.trim().parse().ok())
            .unwrap_or(0);
        (body.len() >= length).then_some(text)
    };
    let text = loop {
        match stream.read(&mut chunk).await {
            Ok(read) if read > 0 => request.extend_from_slice(&chunk[..read]),
            _ => return,
        }
        if let Some(text) = whole(&request) {
            break text;
        }
    };
    seen.lock().unwrap().push(text);
    let head = |status: u16, more: &str| {
        format!(
            "HTTP/1.1 {status} X\r\nContent-Type: text/html; charset=gbk\r\nConnection: close\r\n{more}\r\n"
        )
    };
    match answer {
        ScriptedReply::Body(status, body) => {
            let head = head(status, &format!("Content-Length: {}\r\n", body.len()));
            let _ = stream.write_all(head.as_bytes()).await;
            let _ = stream.write_all(&body).await;
        }
        ScriptedReply::Encoded(encoding, body) => {
            let length = body.len();
            let more = format!("Content-Encoding: {encoding}\r\nContent-Length: {length}\r\n");
            let _ = stream.write_all(head(200, &more).as_bytes()).await;
            let _ = stream.write_all(&body).await;
        }
        ScriptedReply::Close => {}
        ScriptedReply::NoReply => tokio::time::sleep(Duration::from_secs(30)).await,
        ScriptedReply::Truncated => {
            let head = head(200, "Content-Length: 100\r\n");
            let begun = format!("{head}{{\"access_token\":\"{TOKEN}");
            let _ = stream.write_all(begun.as_bytes()).await;
        }
        ScriptedReply::Endless => {
            let _ = stream.write_all(head(200, "").as_bytes()).await;
            while stream.write_all(&[b' '; 65_536]).await.is_ok() {}
        }
        ScriptedReply::Redirect => {
            let head = head(302, "Location: /elsewhere\r\nContent-Length: 0\r\n");
            let _ = stream.write_all(head.as_bytes()).await;
        }
    }
}
