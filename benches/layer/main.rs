//! What the layer adds to a request: `cargo bench --all-features --bench layer`.
//!
//! The contenders run in turns in one process, so that a noisy machine affects all of them. Ratios
//! and differences mean more than the figures themselves.

mod cached;
#[path = "../fixtures/mod.rs"]
mod fixtures;
#[path = "../../tests/support/mod.rs"]
mod support;
mod uncached;

use tower_wechat::client::UserTokenResponse;

fn main() {
    // cargo passes --bench; any other word is a filter that this program does not know.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    println!("targets stand in parentheses");
    let few = cached::CacheSize {
        users: 10_000,
        header_target: 330,
        cookie_target: 800,
    };
    let many = cached::CacheSize {
        users: 1_000_000,
        header_target: 1_000,
        cookie_target: 1_500,
    };
    for case in [few, many] {
        cached::compare(&runtime, &case);
    }
    uncached::compare(&runtime);
}

fn token_response(at: usize) -> UserTokenResponse {
    UserTokenResponse::new(format!("83_{at:0107}")).expires_in(7_200)
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
