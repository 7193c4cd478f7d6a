//! Every request asks Redis: the layer with a cache that believes nothing, against a service that
//! sends one plain `HGET` over the same kind of connection.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use redis::aio::ConnectionManager;
use tokio::runtime::Runtime;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_wechat::{Layout, RedisStore, TrustedHeader, UserTokens, WechatLayer};

use super::support::redis_server::RedisServer;
use super::{Body, client, grant, median, no_op, user};

const USERS: usize = 10_000;

/// Requests under way at once, and what each of those tasks asks in one turn.
const TASKS: usize = 64;
const EACH: usize = 200;

/// Turns of each contender.
const ROUNDS: usize = 21;

/// How much more processor time than the plain `HGET` a request may take.
const CPU_TARGET: f64 = 1.1;

/// What came out for one contender.
#[derive(Default)]
struct Figures {
    wall_micros: Vec<f64>,
    cpu_micros: Vec<f64>,
    commands: f64,
}

pub(crate) fn compare(runtime: &Runtime) {
    let server = RedisServer::start();
    let hashes = runtime.block_on(layered(&server, Layout::Hashes));
    let keys = runtime.block_on(layered(&server, Layout::Keys));
    let connection = runtime.block_on(async {
        let client = redis::Client::open(server.url()).expect("a client");
        ConnectionManager::new(client).await.expect("a connection")
    });
    let naive = service_fn(move |request: Request<Body>| {
        let mut connection = connection.clone();
        async move {
            let id = request.headers()["x-user-id"].to_str().expect("an id");
            let mut command = redis::cmd("HGET");
            command.arg("user.wxUserAccessToken").arg(id);
            let token: Option<String> =
                command.query_async(&mut connection).await.expect("a value");
            assert!(token.is_some());
            no_op(request).await
        }
    });

    let mut figures: [Figures; 3] = Default::default();
    for _ in 0..ROUNDS {
        turn(&mut figures[0], runtime, &server, &naive);
        turn(&mut figures[1], runtime, &server, &hashes);
        turn(&mut figures[2], runtime, &server, &keys);
    }

    println!("\nuncached user, {USERS} users, {TASKS} requests at once");
    println!(
        "  {:<30} {:>8} {:>8} {:>8} {:>14} {:>9}",
        "", "µs/call", "÷ HGET", "CPU µs", "CPU ÷ HGET", "commands"
    );
    let names = [
        "one HGET",
        "the layer, layout hashes",
        "the layer, layout keys",
    ];
    // Ratios are those of one round, whose median counts.
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

/// The layer over a store of this layout, with a cache that believes nothing.
async fn layered(
    server: &RedisServer,
    layout: Layout,
) -> impl Service<Request<Body>, Response = Response<Full<Bytes>>, Error = Infallible, Future: Send>
+ Clone
+ Send
+ 'static {
    let store = RedisStore::builder(&server.url())
        .layout(layout)
        .connect()
        .await;
    let builder = UserTokens::builder(client(), store.expect("Redis"));
    let users: UserTokens = builder.cache_ttl(Duration::ZERO).build();
    for at in 0..USERS {
        let grant = grant(at).refresh_token(format!("83_{at:0107}"));
        users.put(&user(at), &grant).await.expect("stored");
    }
    let header = TrustedHeader::new("x-user-id").expect("a header");
    WechatLayer::new(users)
        .identity(header)
        .layer(service_fn(no_op::<Body>))
}

fn turn<S>(figures: &mut Figures, runtime: &Runtime, server: &RedisServer, service: &S)
where
    S: Service<Request<Body>, Response = Response<Full<Bytes>>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    let ran = || server.calls("hget") + server.calls("get");
    let before = ran();
    let (cpu, began) = (cpu_time(), Instant::now());
    runtime.block_on(at_once(service));
    let (took, cpu) = (began.elapsed(), cpu_time() - cpu);
    let per_call = |time: Duration| time.as_nanos() as f64 / 1e3 / (TASKS * EACH) as f64;
    figures.wall_micros.push(per_call(took));
    figures.cpu_micros.push(per_call(cpu));
    figures.commands = (ran() - before) as f64 / (TASKS * EACH) as f64;
}

async fn at_once<S>(service: &S)
where
    S: Service<Request<Body>, Response = Response<Full<Bytes>>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    let mut running = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let service = service.clone();
        running.spawn(async move {
            for turn in 0..EACH {
                let id = user((task * EACH + turn) % USERS);
                let request = Request::builder().header("x-user-id", id.as_str());
                let request = request.body(Body::new()).expect("a request");
                let response = service.clone().oneshot(request).await.expect("an answer");
                assert!(response.status().is_success());
            }
        });
    }
    running.join_all().await;
}

/// The processor time that this program has had.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
