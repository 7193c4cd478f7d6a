//! Tests of pushes over real HTTP, with axum and with hyper.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::routing::{any_service, post};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceBuilder;

use super::super::cipher::decode_ciphertext;
use super::super::layer::{NoMessages, PushLayer};
use super::super::message::PlatformPush;
use super::super::receiver::PushReceiver;
use super::super::xml;
use super::fixtures::{COMPONENT, Push, RecordedEvents, Store, receiver, text_message};
use super::log_lines::LogLines;
use super::vectors::vector;

/// The largest body that is read: 64 KiB.
const LIMIT: usize = 64 * 1024;

async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// Serves the route `/push` without an application.
async fn serve_events() -> (SocketAddr, Arc<RecordedEvents>) {
    let (receiver, events) = receiver();
    let service = tower_layer::Layer::layer(&PushLayer::new(receiver), NoMessages);
    let router = Router::new().route("/push", any_service(service));
    (serve(router).await, events)
}

/// A connection to a server, which many requests use one after another.
struct Connection(TcpStream);

#[derive(Debug)]
struct Reply {
    status: u16,
    headers: String,
    body: String,
}

impl Connection {
    async fn open(server: SocketAddr) -> Self {
        let stream = TcpStream::connect(server).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    /// Sends a request with these header lines, and reads its reply.
    async fn send(&mut self, method: &str, path: &str, headers: &str, body: &[u8]) -> Reply {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: h5.example.com\r\n{headers}\r\n");
        let request = [head.as_bytes(), body].concat();
        // The server may answer before it has read the whole body.
        let _ = self.0.write_all(&request).await;
        self.read().await
    }

    async fn push(&mut self, push: &Push) -> Reply {
        let length = format!("Content-Length: {}\r\n", push.body.len());
        self.send("POST", &push.path, &length, push.body.as_bytes())
            .await
    }

    async fn read(&mut self) -> Reply {
        let mut text = Vec::new();
        loop {
            let mut buffer = [0; 16 * 1024];
            let length = self.0.read(&mut buffer).await.unwrap();
            assert_ne!(length, 0, "the server closed the connection");
            text.extend_from_slice(&buffer[..length]);
            let read = String::from_utf8(text.clone()).unwrap();
            let Some((head, body)) = read.split_once("\r\n\r\n") else {
                continue;
            };
            let (status, headers) = head.split_once("\r\n").unwrap();
            let headers = headers.to_ascii_lowercase();
            let length = headers
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.parse().unwrap());
            if body.len() >= length {
                return Reply {
                    status: status.split(' ').nth(1).unwrap().parse().unwrap(),
                    headers,
                    body: body.to_owned(),
                };
            }
        }
    }
}

/// Sends one request on a new connection.
async fn send(server: SocketAddr, method: &str, path: &str, headers: &str, body: &[u8]) -> Reply {
    let mut connection = Connection::open(server).await;
    connection.send(method, path, headers, body).await
}

async fn push(server: SocketAddr, push: &Push) -> Reply {
    Connection::open(server).await.push(push).await
}

fn is_success(reply: &Reply) -> bool {
    reply.status == 200
        && reply.body == "success"
        && reply.headers.contains("content-type: text/plain")
}

const TICKET: &str = "ticket ticket@@@some_verify_ticket 1413192605000ms";

#[tokio::test]
async fn a_ticket_is_stored_and_answered() {
    let (server, events) = serve_events().await;
    let ticket = Push::of(vector("C1"));
    for _ in 0..3 {
        let reply = push(server, &ticket).await;
        assert!(is_success(&reply), "{reply:?}");
        assert_eq!(events.take(), [TICKET]);
    }
    let reply = push(server, &Push::of(vector("C2"))).await;
    assert!(is_success(&reply), "{reply:?}");
    assert_eq!(
        events.take(),
        ["unauthorized wxf8b4f85f3a794e77 1413192760000ms"]
    );
    // A platform without messages answers them too.
    let reply = push(server, &Push::new(&text_message("hello"))).await;
    assert!(is_success(&reply), "{reply:?}");
    assert!(events.take().is_empty());
}

#[tokio::test]
async fn the_content_type_does_not_matter() {
    let (server, events) = serve_events().await;
    let ticket = Push::of(vector("C1"));
    for content_type in [
        "",
        "text/xml",
        "application/json",
        "multipart/form-data; boundary=x",
        "x",
    ] {
        let headers = format!(
            "Content-Length: {}\r\nContent-Type: {content_type}\r\n",
            ticket.body.len()
        );
        let reply = send(
            server,
            "POST",
            &ticket.path,
            &headers,
            ticket.body.as_bytes(),
        )
        .await;
        assert!(is_success(&reply), "{reply:?}");
        assert_eq!(events.take(), [TICKET]);
    }
}

/// Returns the body in chunks.
fn chunked(body: &str, size: usize) -> String {
    let chunks = body.as_bytes().chunks(size);
    let chunk = |chunk: &[u8]| {
        format!(
            "{:x}\r\n{}\r\n",
            chunk.len(),
            std::str::from_utf8(chunk).unwrap()
        )
    };
    chunks.map(chunk).collect::<String>() + "0\r\n\r\n"
}

#[tokio::test]
async fn chunked_bodies_are_read_up_to_the_limit() {
    let (server, events) = serve_events().await;
    let ticket = Push::of(vector("C1"));
    let chunks = "Transfer-Encoding: chunked\r\n";
    for size in [1, 7, 4_096] {
        let body = chunked(&ticket.body, size);
        let reply = send(server, "POST", &ticket.path, chunks, body.as_bytes()).await;
        assert!(is_success(&reply), "{reply:?}");
        assert_eq!(events.take(), [TICKET]);
    }
    let long = ticket.body.clone() + &" ".repeat(LIMIT);
    let body = chunked(&long, 4_096);
    let reply = send(server, "POST", &ticket.path, chunks, body.as_bytes()).await;
    assert_eq!(reply.status, 413, "{reply:?}");
    assert!(events.take().is_empty());
}

#[tokio::test]
async fn bodies_above_64_kib_are_refused_unread() {
    let (server, events) = serve_events().await;
    let ticket = Push::of(vector("C1"));
    let sized = |length: usize| ticket.body.clone() + &" ".repeat(length - ticket.body.len());
    let longest = Push {
        body: sized(LIMIT),
        ..ticket.clone()
    };
    assert!(is_success(&push(server, &longest).await));
    assert_eq!(events.take(), [TICKET]);
    let longer = Push {
        body: sized(LIMIT + 1),
        ..ticket.clone()
    };
    assert_eq!(push(server, &longer).await.status, 413);
    // The server does not wait for a body that it will not read.
    let headers = "Content-Length: 10000000000\r\n";
    let reply = send(server, "POST", &ticket.path, headers, b"").await;
    assert_eq!(reply.status, 413);
    assert!(events.take().is_empty());
}

#[tokio::test]
async fn other_methods_are_refused() {
    let (server, events) = serve_events().await;
    let ticket = Push::of(vector("C1"));
    for method in ["GET", "PUT", "DELETE", "PATCH"] {
        let headers = format!("Content-Length: {}\r\n", ticket.body.len());
        let reply = send(
            server,
            method,
            &ticket.path,
            &headers,
            ticket.body.as_bytes(),
        )
        .await;
        assert_eq!(reply.status, 405, "{reply:?}");
        assert!(reply.headers.contains("allow: post"), "{reply:?}");
    }
    // The address check of a public account, whose signature does not cover a message.
    let check = "/push?signature=f464b24fc39322e44b38aa78f5edd27bd1441696&timestamp=1714036504\
        &nonce=1514711492&echostr=5";
    let reply = send(server, "GET", check, "", b"").await;
    assert_eq!((reply.status, reply.body.contains('5')), (405, false));
    assert!(events.take().is_empty());
}

#[tokio::test]
async fn refusals_have_their_status() {
    let (server, events) = serve_events().await;
    let ticket = Push::of(vector("C1"));
    let with = |path: &str, body: &str| Push {
        path: path.to_owned(),
        body: body.to_owned(),
    };
    let twice = format!("{}&nonce=1", ticket.path);
    let foreign = ticket.body.replace(COMPONENT, "wx0000000000000000");
    let other_key = "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz";
    let truncated = &ticket.body[..ticket.body.len() / 2];
    for (refused, status) in [
        (with("/push", &ticket.body), 401),
        (
            with(&ticket.path.replace("nonce=", "nonce=1"), &ticket.body),
            401,
        ),
        (with(&twice, &ticket.body), 400),
        (with(&ticket.path, &foreign), 400),
        (with(&ticket.path, truncated), 400),
        (with(&ticket.path, ""), 400),
        (
            Push::encrypted(vector("C1").message, other_key, COMPONENT),
            400,
        ),
        (
            Push::encrypted(vector("C1").message, vector("C1").key, "wx1"),
            400,
        ),
    ] {
        let reply = push(server, &refused).await;
        assert_eq!(reply.status, status, "{refused:?}: {reply:?}");
        assert!(
            reply.headers.contains("content-type: text/plain"),
            "{reply:?}"
        );
        assert!(
            reply.body.len() < 200 && !reply.body.contains("success"),
            "{reply:?}"
        );
    }
    assert!(events.take().is_empty());
}

#[tokio::test]
async fn an_event_that_is_not_stored_is_requested_again() {
    let (server, events) = serve_events().await;
    let ticket = Push::of(vector("C1"));
    events.set_store(Store::Fails);
    let reply = push(server, &ticket).await;
    assert_eq!(reply.status, 503, "{reply:?}");
    events.set_store(Store::Works);
    assert!(is_success(&push(server, &ticket).await));
    assert_eq!(events.take(), [TICKET]);
}

#[tokio::test]
async fn ten_thousand_forged_pushes_cause_one_log_line() {
    let (lines, _guard) = LogLines::collect();
    let (receiver, events) = receiver();
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let application = post(async move || {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    let router = Router::new().route("/push", application.layer(PushLayer::new(receiver)));
    let server = serve(router).await;

    let genuine = Push::of(vector("C1"));
    let mut connection = Connection::open(server).await;
    for number in 0..10_000 {
        let mut forged = genuine.clone();
        let nonce = format!("nonce={number}");
        forged.path = forged.path.replace("nonce=1320562132", &nonce);
        let reply = connection.push(&forged).await;
        assert_eq!(reply.status, 401, "{reply:?}");
    }
    let text = lines.text();
    assert_eq!(
        text.lines()
            .filter(|line| line.contains("tower_wechat"))
            .count(),
        1,
        "{text}"
    );
    assert!(
        text.contains("a request at the route of pushes was refused"),
        "{text}"
    );
    assert!(
        !text.contains("ticket@@@") && !text.contains(&genuine.path),
        "{text}"
    );
    assert!(events.take().is_empty());
    assert_eq!(calls.load(Ordering::Relaxed), 0);
    assert!(is_success(&connection.push(&genuine).await));
    assert_eq!(events.take(), [TICKET]);
}

/// An application that answers with a body, and records what it received.
async fn serve_application(status: u16, answer: &'static str) -> (SocketAddr, Received) {
    let received = Received::default();
    let recorded = Arc::clone(&received);
    let handler = post(async move |request: axum::extract::Request| {
        let (parts, body) = request.into_parts();
        let push = parts.extensions.get::<PlatformPush>().unwrap().clone();
        let body = body.collect().await.unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        recorded.lock().unwrap().push((push, parts.headers, body));
        (http::StatusCode::from_u16(status).unwrap(), answer)
    });
    let layer = PushLayer::new(receiver().0);
    let router = Router::new().route("/push", handler.layer(layer));
    (serve(router).await, received)
}

type Received = Arc<std::sync::Mutex<Vec<(PlatformPush, HeaderMap, String)>>>;

/// Returns the decrypted reply of the application.
fn decrypted(reply: &Reply) -> String {
    let fields = xml::parse(&reply.body).unwrap_or_else(|_| panic!("{reply:?}"));
    let ciphertext = decode_ciphertext(fields.text("Encrypt").unwrap()).unwrap();
    let message = vector("C1")
        .cipher()
        .decrypt(&ciphertext, COMPONENT)
        .unwrap();
    String::from_utf8(message.to_vec()).unwrap()
}

#[tokio::test]
async fn the_application_receives_messages_decrypted() {
    let (server, received) = serve_application(200, "").await;
    let message = text_message("你好");
    let sent = Push::new(&message);
    let body = chunked(&sent.body, 100);
    let headers =
        "Transfer-Encoding: chunked\r\nContent-Type: text/plain\r\nX-Forwarded-For: 1\r\n";
    let reply = send(server, "POST", &sent.path, headers, body.as_bytes()).await;
    assert!(is_success(&reply), "{reply:?}");
    let (push, headers, body) = received.lock().unwrap().remove(0);
    assert_eq!((&*body, push.xml()), (&*message, &*message));
    assert_eq!(push.msg_type(), Some("text"));
    assert_eq!(push.text("Content"), Some("你好"));
    assert_eq!(headers["content-length"], message.len().to_string());
    assert_eq!(headers["content-type"], "application/xml; charset=utf-8");
    assert_eq!(headers["x-forwarded-for"], "1");
    assert!(!headers.contains_key("transfer-encoding"));
}

#[tokio::test]
async fn replies_are_encrypted() {
    const REPLY: &str = "\n<xml><ToUserName><![CDATA[oUser]]></ToUserName>\
        <MsgType><![CDATA[text]]></MsgType><Content><![CDATA[你好]]></Content></xml>\n";
    let (server, _) = serve_application(200, REPLY).await;
    let reply = push(server, &Push::new(&text_message("hello"))).await;
    assert_eq!(reply.status, 200);
    assert!(
        reply.headers.contains("content-type: application/xml"),
        "{reply:?}"
    );
    assert!(!reply.body.contains("oUser"), "{reply:?}");
    assert_eq!(decrypted(&reply), REPLY.trim());
    // An event of the platform takes no reply.
    let event = "<xml><InfoType>wxa_nickname_audit</InfoType></xml>";
    let reply = push(server, &Push::new(event)).await;
    assert!(is_success(&reply), "{reply:?}");
}

#[tokio::test]
async fn answers_without_a_reply_are_success() {
    for (status, answer) in [
        (200, ""),
        (204, ""),
        (200, "success"),
        (202, " success\n"),
        (404, "<xml><a/></xml>"),
        (500, ""),
        (302, ""),
        (200, "fail"),
        (200, "{}"),
        (200, "<xml><a></xml>"),
        (200, "<!DOCTYPE x><xml></xml>"),
        (200, "<html></html>"),
    ] {
        let (server, received) = serve_application(status, answer).await;
        let reply = push(server, &Push::new(&text_message("hello"))).await;
        assert!(is_success(&reply), "{status} {answer}: {reply:?}");
        assert_eq!(received.lock().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_panic_of_the_application_is_success() {
    let panics = post(async || -> &'static str { panic!("a bug") });
    let layer = PushLayer::new(receiver().0);
    let server = serve(Router::new().route("/push", panics.layer(layer))).await;
    let mut connection = Connection::open(server).await;
    for _ in 0..2 {
        let reply = connection.push(&Push::new(&text_message("hello"))).await;
        assert!(is_success(&reply), "{reply:?}");
    }
}

async fn serve_hyper(receiver: Arc<PushReceiver>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = ServiceBuilder::new()
        .layer(PushLayer::new(receiver))
        .service_fn(async |request: Request<Full<bytes::Bytes>>| {
            let push = request.extensions().get::<PlatformPush>().unwrap();
            let content = push.text("Content").unwrap().to_owned();
            let reply = format!("<xml><Content>{content}!</Content></xml>");
            Ok::<_, std::convert::Infallible>(Response::new(Full::<bytes::Bytes>::from(reply)))
        });
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = TowerToHyperService::new(service.clone());
            tokio::spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn hyper_serves_pushes_without_axum() {
    let (receiver, events) = receiver();
    let server = serve_hyper(receiver).await;
    let mut connection = Connection::open(server).await;
    assert!(is_success(&connection.push(&Push::of(vector("C1"))).await));
    assert_eq!(events.take(), [TICKET]);
    let reply = connection.push(&Push::new(&text_message("hello"))).await;
    assert_eq!(decrypted(&reply), "<xml><Content>hello!</Content></xml>");
    let forged = connection
        .send("POST", "/push", "Content-Length: 0\r\n", b"")
        .await;
    assert_eq!(forged.status, 401);
}
