//! What the layer adds to a request: `cargo bench --all-features --bench layer`.
//!
//! The contenders run side by side in one process, in turns, so that a noisy machine disturbs all
//! of them alike; ratios and differences mean more than the figures themselves.

mod cached;
#[path = "../../tests/support/mod.rs"]
mod support;
mod uncached;

use std::convert::Infallible;
use std::hint::black_box;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{Empty, Full};
use tower_wechat::{UserGrant, UserId, WechatClient};

type Body = Empty<Bytes>;

fn main() {
    // cargo passes --bench; any other word is a filter that this program does not know.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    println!("targets stand in parentheses");
    let few = cached::Case {
        users: 10_000,
        header_target: 330,
        cookie_target: 800,
    };
    let many = cached::Case {
        users: 1_000_000,
        header_target: 1_000,
        cookie_target: 1_500,
    };
    for case in [few, many] {
        cached::compare(&runtime, &case);
    }
    uncached::compare(&runtime);
}

fn user(at: usize) -> UserId {
    UserId::new(format!("o6_bmjrPTlm6_2sgVt7hMZ{at:06}")).expect("an id")
}

fn client() -> WechatClient {
    WechatClient::new("wx0123456789abcdef", "secret").expect("a client")
}

fn grant(at: usize) -> UserGrant {
    UserGrant::new(format!("83_{at:0107}")).expires_in(7_200)
}

async fn no_op<B>(request: Request<B>) -> Result<Response<Full<Bytes>>, Infallible> {
    black_box(&request);
    Ok(Response::new(Full::new(Bytes::new())))
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
