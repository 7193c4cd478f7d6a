//! Code that several test programs share: real servers that end with the test, and clients.

#![allow(dead_code, unreachable_pub)]

pub mod browser;
pub mod certificates;
pub mod demo_process;
pub mod forward_proxy;
pub mod harness;
pub mod http_client;
pub mod log_lines;
pub mod nginx;
pub mod old_proxy;
pub mod proxy;
pub mod redis_cluster;
pub mod redis_server;
pub mod sentinel_group;
#[cfg(feature = "platform")]
pub mod wx_java;

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Returns a port on which no process listens, and which this program has not returned before.
///
/// The port is below those of outgoing connections. Otherwise a client of another test could take
/// it before the server does.
pub fn free_port() -> u16 {
    const FIRST: u16 = 10_000;
    const PORTS: u16 = 20_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test programs that run at the same time start with different ports.
    let start = std::process::id().wrapping_mul(2_654_435_761) >> 16;
    loop {
        let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = FIRST + ((start + step) % u32::from(PORTS)) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Factor between the time on an idle machine and the maximum time on a busy one: 4.
const PATIENCE: u32 = 4;

/// Waits until a condition is true. Panics with `what` after four times `within`, which is the
/// expected time on an idle machine.
pub async fn eventually(what: &str, within: Duration, mut holds: impl AsyncFnMut() -> bool) {
    let within = within * PATIENCE;
    let give_up = Instant::now() + within;
    while !holds().await {
        assert!(Instant::now() < give_up, "not within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Returns the time until the next midnight in Beijing, when WeChat's daily quotas start again.
///
/// A test that counts the calls of a day advances its clocks by this time first. Otherwise it fails
/// if it runs shortly before that midnight.
pub fn until_midnight_in_beijing(now: SystemTime) -> Duration {
    const OFFSET: u64 = 8 * 3_600;
    const DAY: u64 = 24 * 3_600;
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Duration::from_secs(DAY - (now + OFFSET) % DAY)
}
