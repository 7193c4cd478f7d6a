//! Tests of invalidation: a change in one process reaches the others at once, although their caches
//! hold entries for an hour.

use std::time::Duration;

use crate::support::demo_process::USER_HEADER;
use crate::support::eventually;
use crate::support::harness::{Age, Harness, Layout};
use crate::support::http_client::Asked;

/// Maximum time for an invalidation to arrive, 10 s. An idle machine needs milliseconds.
const SOON: Duration = Duration::from_secs(10);

async fn logged_out_everywhere(layout: Layout) {
    let mut harness = Harness::new(layout).await;
    let hour = ("CACHE_TTL_SECS".to_owned(), "3600".to_owned());
    harness.variables.push(hour);
    let [first, second] = harness.demos().await;
    for user in ["oA", "oB", "oC"] {
        let pair = harness.sign_in(user, Age::Fresh).await;
        for demo in [&first, &second] {
            demo.me(user).await.has_token(&pair.access_token);
        }
        let out = Asked::post("/logout?everywhere=true").header(USER_HEADER, user);
        assert_eq!(first.ask(out).await.status, 204);
        eventually("the other process rejects the user", SOON, async || {
            second.me(user).await.status == 401
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn logged_out_everywhere_hashes() {
    logged_out_everywhere(Layout::Hashes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logged_out_everywhere_keys() {
    logged_out_everywhere(Layout::Keys).await;
}
