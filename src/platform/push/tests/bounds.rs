//! Tests of waits: WeChat gets its answer within five seconds.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full};
use tokio::time::Instant;
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_layer::Layer;
use tower_service::Service;

use super::super::layer::{NoMessages, PushLayer};
use super::fixtures::{Push, Store, receiver, text_message};
use super::log_lines::LogLines;
use super::vectors::vector;

/// Time for which WeChat waits: five seconds.
const WAIT: Duration = Duration::from_secs(5);

fn request(push: &Push) -> Request<Full<Bytes>> {
    let body = Full::from(push.body.clone());
    Request::post(push.uri()).body(body).unwrap()
}

async fn text(response: Response<Full<Bytes>>) -> (StatusCode, String) {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (parts.status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_slow_application_is_answered_in_time() {
    let slow = service_fn(async |_: Request<Full<Bytes>>| {
        tokio::time::sleep(Duration::from_secs(60)).await;
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    });
    let service = PushLayer::new(receiver().0).layer(slow);
    let started = Instant::now();
    let response = service
        .oneshot(request(&Push::new(&text_message("a"))))
        .await
        .unwrap();
    assert_eq!(text(response).await, (StatusCode::OK, "success".to_owned()));
    assert!(started.elapsed() < WAIT);
}

/// The body of an answer can be slow too.
#[tokio::test(start_paused = true)]
async fn a_slow_answer_is_cut_off_in_time() {
    let slow =
        service_fn(async |_: Request<Full<Bytes>>| Ok::<_, Infallible>(Response::new(EndlessBody)));
    let service = PushLayer::new(receiver().0).layer(slow);
    let started = Instant::now();
    let response = service
        .oneshot(request(&Push::new(&text_message("a"))))
        .await
        .unwrap();
    assert_eq!(text(response).await, (StatusCode::OK, "success".to_owned()));
    assert!(started.elapsed() < WAIT);
}

#[tokio::test(start_paused = true)]
async fn a_slow_store_is_answered_in_time() {
    let (receiver, events) = receiver();
    events.set_store(Store::NeverAnswers);
    let service = PushLayer::new(receiver).layer(NoMessages);
    let started = Instant::now();
    let response = service
        .oneshot(request(&Push::of(vector("C1"))))
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(started.elapsed() < WAIT);
}

/// A body whose end never arrives.
struct EndlessBody;

impl http_body::Body for EndlessBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_arrive_is_refused() {
    let (receiver, events) = receiver();
    let service = PushLayer::new(receiver).layer(NoMessages);
    let request = Request::post(Push::of(vector("C1")).uri())
        .body(EndlessBody)
        .unwrap();
    let started = Instant::now();
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert!(started.elapsed() < WAIT);
    assert!(events.take().is_empty());
}

/// Tickets do not wait until the application has time.
#[tokio::test(start_paused = true)]
async fn a_busy_application_delays_no_ticket() {
    let (receiver, events) = receiver();
    let busy = ServiceBuilder::new()
        .layer(PushLayer::new(receiver))
        .concurrency_limit(1)
        .service_fn(async |_: Request<Full<Bytes>>| {
            std::future::pending::<()>().await;
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
        });
    let mut service = busy.clone();
    let started = Instant::now();
    let message = tokio::spawn(service.call(request(&Push::new(&text_message("a")))));
    tokio::task::yield_now().await;
    let response = service
        .call(request(&Push::of(vector("C1"))))
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(events.take().len(), 1);
    assert_eq!(started.elapsed(), Duration::ZERO);
    // A message that finds the application busy is answered in time too.
    let waiting = service
        .call(request(&Push::new(&text_message("b"))))
        .await
        .unwrap();
    assert_eq!(text(waiting).await.1, "success");
    assert!(started.elapsed() < WAIT);
    assert_eq!(text(message.await.unwrap().unwrap()).await.1, "success");
}

#[tokio::test]
async fn log_lines_name_the_trouble_and_no_secret() {
    let (lines, _guard) = LogLines::collect();
    let (receiver, events) = receiver();
    let fails = service_fn(async |_: Request<Full<Bytes>>| {
        Err::<Response<Full<Bytes>>, _>(std::io::Error::other("the database is down"))
    });
    let service = PushLayer::new(receiver).layer(fails);
    events.set_store(Store::Fails);
    let other_key = "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz";
    let unreadable = Push::encrypted(vector("C1").message, other_key, super::fixtures::COMPONENT);
    let message = Push::new(&text_message("a user's words"));
    for push in [&Push::of(vector("C1")), &unreadable, &message] {
        for _ in 0..3 {
            let _ = service.clone().oneshot(request(push)).await.unwrap();
        }
    }
    let text = lines.text();
    for (expected, level) in [
        ("an event of the platform could not be stored", "WARN"),
        ("Redis is down", "WARN"),
        ("WeChat sent a push that this platform cannot read", "ERROR"),
        ("no push key opens the encrypted message", "ERROR"),
        ("the application did not handle a push", "WARN"),
        ("the database is down", "WARN"),
    ] {
        let found: Vec<_> = text
            .lines()
            .filter(|line| line.contains(expected))
            .collect();
        assert_eq!(found.len(), 1, "{expected}: {text}");
        assert!(found[0].contains(level), "{text}");
    }
    for secret in ["ticket@@@", "a user's words", other_key, "component_token"] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
}

#[tokio::test]
async fn old_pushes_are_accepted_with_a_debug_line() {
    let (lines, _guard) = LogLines::collect();
    let (receiver, events) = receiver();
    let mut service = PushLayer::new(receiver).layer(NoMessages);
    let push_at = |timestamp: &str| {
        let encrypt = vector("C1").encrypt;
        let body = super::fixtures::envelope(encrypt);
        Push::signed(encrypt, timestamp, "n", body)
    };
    // The clock shows 1413193205.
    for timestamp in ["1413192605", "1413193805"] {
        let _ = service.call(request(&push_at(timestamp))).await.unwrap();
    }
    assert!(!lines.text().contains("timestamp"), "{}", lines.text());
    for timestamp in ["1413192604", "1413193806", "1", "9999999999999", "soon"] {
        let response = service.call(request(&push_at(timestamp))).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{timestamp}");
    }
    assert_eq!(events.take().len(), 7);
    let text = lines.text();
    assert_eq!(text.matches("was handled").count(), 7, "{text}");
    assert_eq!(text.matches("more than ten minutes").count(), 4, "{text}");
}
