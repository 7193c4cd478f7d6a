//! What several test programs need: real servers that end with the test.

#![allow(dead_code, unreachable_pub)]

pub mod redis_server;

use std::net::TcpListener;
use std::time::{Duration, Instant};

/// A port that nobody listens on at the moment.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// Waits until something holds, and fails with `what` when it does not in time.
pub async fn eventually(what: &str, within: Duration, mut holds: impl AsyncFnMut() -> bool) {
    let give_up = Instant::now() + within;
    while !holds().await {
        assert!(Instant::now() < give_up, "not within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
