//! Tests of the client's logs.

use std::io::Write;
use std::sync::{Arc, Mutex};

use serde_json::json;

use super::fixtures::{CODE, SECRET, client, unreachable_url};
use super::server::ScriptedServer;

/// A writer that keeps the log lines in memory, so that a test can search them.
#[derive(Clone, Default)]
struct LogBuffer(Arc<Mutex<Vec<u8>>>);

impl Write for LogBuffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn logs_never_contain_the_query() {
    let log = LogBuffer::default();
    let sink = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || sink.clone())
        .finish();
    // The subscriber applies to this thread, on which the test's runtime runs all its tasks.
    let _guard = tracing::subscriber::set_default(subscriber);
    let server =
        ScriptedServer::with_json(json!({ "errcode": 40029, "errmsg": "invalid code" })).await;
    client(&[&unreachable_url().await, &server.url])
        .exchange_code(CODE)
        .await
        .unwrap_err();
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(
        log.contains("endpoint=\"sns/oauth2/access_token\""),
        "{log}"
    );
    assert!(
        log.contains("errcode=40029") && log.contains("duration_ms="),
        "{log}"
    );
    assert!(!log.contains(SECRET) && !log.contains(CODE), "{log}");
}
