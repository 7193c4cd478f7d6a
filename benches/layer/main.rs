//! Cost of the layer for each request: `cargo bench --all-features --bench layer`.
//!
//! All services run in turn in one process, so that other load on the machine affects all of them.
//! Compare ratios and differences, not the figures themselves.

mod cached;
#[path = "../fixtures/mod.rs"]
mod fixtures;
#[path = "../../tests/support/mod.rs"]
mod support;
mod uncached;

fn main() {
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
