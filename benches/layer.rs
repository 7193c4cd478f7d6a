//! What the layer adds to a request: `cargo bench --bench layer`.
//!
//! The contenders run side by side in one process, in turns, so that a noisy machine disturbs all
//! of them alike; ratios and differences mean more than the figures themselves.

#[path = "../tests/support/mod.rs"]
mod support;

use std::convert::Infallible;
use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::{Empty, Full};
use redis::aio::ConnectionManager;
use tokio::runtime::Runtime;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_wechat::{
    CookieKeys, Layout, MemoryStore, RedisStore, SessionCookie, TrustedHeader, UserGrant, UserId,
    UserTokens, WechatClient, WechatLayer, WechatUser,
};

use support::redis_server::RedisServer;

const USERS: usize = 10_000;
const ROUNDS: usize = 15;
const CALLS: usize = 20_000;

type Body = Empty<Bytes>;

fn main() {
    // cargo passes --bench; any other word is a filter that this program does not know.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    cached(&runtime);
    uncached(&runtime);
}

fn user(at: usize) -> UserId {
    UserId::new(format!("o6_bmjrPTlm6_2sgVt7hMZ{at:06}")).expect("an id")
}

fn users(runtime: &Runtime) -> UserTokens {
    let wechat = WechatClient::new("wx0123456789abcdef", "secret").expect("a client");
    let users = UserTokens::new(wechat, MemoryStore::new());
    runtime.block_on(async {
        for at in 0..USERS {
            let grant = UserGrant::new(format!("83_{at:0107}")).expires_in(7_200);
            users.put(&user(at), &grant).await.expect("stored");
        }
    });
    users
}

async fn no_op<B>(request: Request<B>) -> Result<Response<Full<Bytes>>, Infallible> {
    black_box(&request);
    Ok(Response::new(Full::new(Bytes::new())))
}

/// The service alone, with a request of the same headers.
fn time<S>(service: &S, requests: &[Request<Body>], calls: usize) -> Duration
where
    S: Service<Request<Body>, Response = Response<Full<Bytes>>, Error = Infallible> + Clone,
{
    let mut service = service.clone();
    // Requests are made before the clock starts: their cost is not the layer's.
    let ready: Vec<_> = (0..calls)
        .map(|at| requests[at % requests.len()].clone())
        .collect();
    let began = Instant::now();
    for request in ready {
        let mut call = std::pin::pin!(service.call(request));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match call.as_mut().poll(&mut context) {
            std::task::Poll::Ready(response) => drop(black_box(response)),
            std::task::Poll::Pending => panic!("a cached user must not wait"),
        }
    }
    began.elapsed()
}

fn allocations<S>(service: &S, request: &Request<Body>) -> u64
where
    S: Service<Request<Body>, Response = Response<Full<Bytes>>, Error = Infallible> + Clone,
{
    let (mut service, request) = (service.clone(), request.clone());
    let counted = allocation_counter::measure(|| {
        let mut call = std::pin::pin!(service.call(request));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let _ = black_box(call.as_mut().poll(&mut context));
    });
    counted.count_total
}

fn median(mut nanos: Vec<f64>) -> f64 {
    nanos.sort_by(f64::total_cmp);
    nanos[nanos.len() / 2]
}

fn cached(runtime: &Runtime) {
    let _entered = runtime.enter();
    let users = users(runtime);
    let keys = CookieKeys::random().expect("keys");
    let session = SessionCookie::new(users.app_id(), &keys);
    let with_header: Vec<Request<Body>> = (0..USERS)
        .map(|at| {
            let value = HeaderValue::from_str(user(at).as_str()).expect("a header");
            Request::builder()
                .header("x-user-id", value)
                .body(Body::new())
                .expect("a request")
        })
        .collect();
    let with_cookie: Vec<Request<Body>> = (0..USERS)
        .map(|at| {
            let set = session.issue(&user(at));
            let cookie = set
                .to_str()
                .expect("text")
                .split(';')
                .next()
                .unwrap_or_default();
            Request::builder()
                .header("cookie", cookie)
                .body(Body::new())
                .expect("a request")
        })
        .collect();

    let bare = service_fn(no_op::<Body>);
    let inserting = AddUser(service_fn(no_op::<Body>), sample(&users, &with_header[0]));
    let header = TrustedHeader::new("x-user-id").expect("a header");
    let by_header = WechatLayer::new(users.clone()).identity(header).layer(bare);
    let by_cookie = WechatLayer::new(users).identity(session).layer(bare);

    let mut nanos = [const { Vec::new() }; 4];
    for _ in 0..ROUNDS {
        let per_call = |took: Duration| took.as_nanos() as f64 / CALLS as f64;
        nanos[0].push(per_call(time(&bare, &with_header, CALLS)));
        nanos[1].push(per_call(time(&inserting, &with_header, CALLS)));
        nanos[2].push(per_call(time(&by_header, &with_header, CALLS)));
        nanos[3].push(per_call(time(&by_cookie, &with_cookie, CALLS)));
    }
    let [bare_ns, inserting_ns, header_ns, cookie_ns] = nanos.map(median);
    println!("cached user, {USERS} users, around a service that does nothing");
    println!(
        "  {:<38} {:>9} {:>9} {:>12}",
        "", "ns/call", "added", "allocations"
    );
    let row = |name: &str, ns: f64, allocations: u64| {
        println!(
            "  {name:<38} {ns:>9.0} {:>9.0} {allocations:>12}",
            ns - bare_ns
        );
    };
    row(
        "the service alone",
        bare_ns,
        allocations(&bare, &with_header[0]),
    );
    row(
        "an extension of the same size",
        inserting_ns,
        allocations(&inserting, &with_header[0]),
    );
    row(
        "the layer, header identity",
        header_ns,
        allocations(&by_header, &with_header[0]),
    );
    row(
        "the layer, signed cookie",
        cookie_ns,
        allocations(&by_cookie, &with_cookie[0]),
    );
}

/// What any middleware pays that puts a value into the extensions.
#[derive(Clone)]
struct AddUser<S>(S, WechatUser);

impl<S: Service<Request<Body>>> Service<Request<Body>> for AddUser<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(
        &mut self,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        request.extensions_mut().insert(self.1.clone());
        self.0.call(request)
    }
}

fn sample(users: &UserTokens, request: &Request<Body>) -> WechatUser {
    let header = TrustedHeader::new("x-user-id").expect("a header");
    let (sender, receiver) = std::sync::mpsc::channel();
    let mut service = WechatLayer::new(users.clone())
        .identity(header)
        .layer(service_fn(move |request: Request<Body>| {
            let _ = sender.send(request.extensions().get::<WechatUser>().cloned());
            no_op(request)
        }));
    let mut call = std::pin::pin!(service.call(request.clone()));
    let _ = call
        .as_mut()
        .poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
    receiver.recv().ok().flatten().expect("a user")
}

/// Every request asks Redis: the layer with a cache that believes nothing, against one plain
/// `HGET` over the same kind of connection.
fn uncached(runtime: &Runtime) {
    const TASKS: usize = 64;
    const EACH: usize = 300;
    let server = RedisServer::start();
    println!("uncached user, {TASKS} requests at once");
    println!(
        "  {:<38} {:>9} {:>9} {:>12}",
        "", "µs/call", "ratio", "commands"
    );
    let header = || TrustedHeader::new("x-user-id").expect("a header");
    let hashes = runtime.block_on(stored(&server, Layout::Hashes));
    let keys = runtime.block_on(stored(&server, Layout::Keys));
    let naive = runtime.block_on(async {
        let client = redis::Client::open(server.url()).expect("a client");
        ConnectionManager::new(client).await.expect("a connection")
    });

    let mut micros = [const { Vec::new() }; 3];
    let mut commands = [0.0; 3];
    for _ in 0..ROUNDS {
        for (at, figures) in micros.iter_mut().enumerate() {
            let (hget, get) = (server.calls("hget"), server.calls("get"));
            let took = match at {
                0 => runtime.block_on(run(TASKS, EACH, |at| {
                    let mut connection = naive.clone();
                    async move {
                        let mut command = redis::cmd("HGET");
                        command
                            .arg("user.wxUserAccessToken")
                            .arg(user(at % USERS).as_str());
                        let value: Option<String> =
                            command.query_async(&mut connection).await.expect("a value");
                        assert!(value.is_some());
                    }
                })),
                layout => {
                    let users = if layout == 1 { &hashes } else { &keys };
                    let service = WechatLayer::new(users.clone())
                        .identity(header())
                        .layer(service_fn(no_op::<Body>));
                    runtime.block_on(run(TASKS, EACH, |at| {
                        let (service, id) = (service.clone(), user(at % USERS));
                        async move {
                            let request = Request::builder()
                                .header("x-user-id", id.as_str())
                                .body(Body::new())
                                .expect("a request");
                            let response = service.oneshot(request).await.expect("an answer");
                            assert!(response.status().is_success());
                        }
                    }))
                }
            };
            let calls = (TASKS * EACH) as f64;
            figures.push(took.as_nanos() as f64 / 1e3 / calls);
            let ran = server.calls("hget") - hget + server.calls("get") - get;
            commands[at] = ran as f64 / calls;
        }
    }
    let [naive, hashes, keys] = micros.map(median);
    for (name, figure, commands) in [
        ("one HGET, no layer", naive, commands[0]),
        ("the layer, layout hashes", hashes, commands[1]),
        ("the layer, layout keys", keys, commands[2]),
    ] {
        println!(
            "  {name:<38} {figure:>9.2} {:>9.2} {commands:>12.2}",
            figure / naive
        );
    }
}

async fn stored(server: &RedisServer, layout: Layout) -> UserTokens {
    let wechat = WechatClient::new("wx0123456789abcdef", "secret").expect("a client");
    let store = RedisStore::builder(&server.url())
        .layout(layout)
        .connect()
        .await;
    let builder = UserTokens::builder(wechat, store.expect("Redis"));
    let users = builder.cache_ttl(Duration::ZERO).build();
    for at in 0..USERS {
        let grant = UserGrant::new(format!("83_{at:0107}"))
            .expires_in(7_200)
            .refresh_token(format!("83_{at:0107}"));
        users.put(&user(at), &grant).await.expect("stored");
    }
    users
}

async fn run<F, Fut>(tasks: usize, each: usize, work: F) -> Duration
where
    F: Fn(usize) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let began = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for task in 0..tasks {
        let turns: Vec<Fut> = (0..each).map(|at| work(task * each + at)).collect();
        running.spawn(async move {
            for turn in turns {
                turn.await;
            }
        });
    }
    running.join_all().await;
    began.elapsed()
}
