//! Measurement of the layer without a cache, which reads Redis at every request. The baseline is a
//! service that sends one `HGET` for each request.

use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tower::{Layer, service_fn};
use tower_wechat::redis::Layout;
use tower_wechat::{RedisStore, TrustedHeader, UserTokens, WechatLayer};

use super::fixtures::{
    BenchService, Body, CONCURRENCY, hget_service, median, respond_empty, send_requests,
    token_response, user_id, user_token, wechat_client,
};
use super::support::redis_server::RedisServer;

const USERS: usize = 10_000;

/// Number of requests to a service in one round: 12,800.
const REQUESTS_PER_ROUND: usize = 12_800;

/// Maximum time for a reply of Redis: 500 ms, which is the default of redis-rs.
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(500);

/// Number of rounds in which each service is measured: 21. The results are the medians of the
/// rounds.
const ROUNDS: usize = 21;

/// Maximum acceptable processor time of the layer for each request, divided by that of one `HGET`:
/// 1.1.
const CPU_TARGET: f64 = 1.1;

/// The measurements of one service. Each list has one figure for each round.
#[derive(Default)]
struct UncachedMeasurements {
    wall_micros: Vec<f64>,
    cpu_micros: Vec<f64>,
    commands: f64,
}

pub(crate) fn compare(runtime: &Runtime) {
    let server = RedisServer::start();
    let hashes = runtime.block_on(layer_service(&server, Layout::Hashes));
    let keys = runtime.block_on(layer_service(&server, Layout::Keys));
    let naive = runtime.block_on(hget_service(&server.url(), RESPONSE_TIMEOUT));

    let mut figures: [UncachedMeasurements; 3] = Default::default();
    for _ in 0..ROUNDS {
        run_round(&mut figures[0], runtime, &server, &naive);
        run_round(&mut figures[1], runtime, &server, &hashes);
        run_round(&mut figures[2], runtime, &server, &keys);
    }

    println!("\nuncached user, {USERS} users, {CONCURRENCY} requests at once");
    println!(
        "  {:<30} {:>8} {:>8} {:>8} {:>14} {:>9}",
        "", "µs/call", "÷ HGET", "CPU µs", "CPU ÷ HGET", "commands"
    );
    let names = [
        "one HGET",
        "the layer, layout hashes",
        "the layer, layout keys",
    ];
    // Computes a ratio for each round, and prints the median of all rounds.
    let [hget_wall, hget_cpu] = [&figures[0].wall_micros, &figures[0].cpu_micros].map(Clone::clone);
    for (figures, name) in figures.into_iter().zip(names) {
        let ratio =
            |of: &[f64], by: &[f64]| median(of.iter().zip(by).map(|(a, b)| a / b).collect());
        let wall_ratio = ratio(&figures.wall_micros, &hget_wall);
        let cpu_ratio = ratio(&figures.cpu_micros, &hget_cpu);
        println!(
            "  {name:<30} {:>8.2} {wall_ratio:>8.2} {:>8.2} {:>14} {:>9.2}",
            median(figures.wall_micros),
            median(figures.cpu_micros),
            format!("{cpu_ratio:.2} (≤ {CPU_TARGET})"),
            figures.commands,
        );
    }
}

/// Returns the layer without a cache, over a Redis store of this layout that contains all users.
async fn layer_service(server: &RedisServer, layout: Layout) -> impl BenchService {
    let store = RedisStore::builder(&server.url())
        .layout(layout)
        .connect()
        .await;
    let builder = UserTokens::builder(wechat_client(), store.expect("Redis"));
    let users: UserTokens = builder.cache_ttl(Duration::ZERO).build();
    for at in 0..USERS {
        let response = token_response(at).refresh_token(user_token(at));
        users.store(&user_id(at), &response).await.expect("stored");
    }
    let header = TrustedHeader::new("x-user-id").expect("a header");
    WechatLayer::new(users)
        .identity(header)
        .layer(service_fn(respond_empty::<Body>))
}

fn run_round(
    figures: &mut UncachedMeasurements,
    runtime: &Runtime,
    server: &RedisServer,
    service: &impl BenchService,
) {
    let reads = || server.calls("hget") + server.calls("get");
    let before = reads();
    let (cpu, began) = (cpu_time(), Instant::now());
    runtime.block_on(send_requests(service.clone(), REQUESTS_PER_ROUND, USERS));
    let (took, cpu) = (began.elapsed(), cpu_time() - cpu);
    let per_call = |time: Duration| time.as_nanos() as f64 / 1e3 / REQUESTS_PER_ROUND as f64;
    figures.wall_micros.push(per_call(took));
    figures.cpu_micros.push(per_call(cpu));
    figures.commands = (reads() - before) as f64 / REQUESTS_PER_ROUND as f64;
}

/// Returns the processor time that this process has used.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
