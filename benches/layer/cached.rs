//! Measurement of the layer with all tokens in its cache, around a service that does nothing.

use std::convert::Infallible;
use std::hint::black_box;
use std::sync::Barrier;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use http::{Request, Response};
use http_body_util::Full;
use tokio::runtime::Runtime;
use tower::{Layer, Service, service_fn};
use tower_wechat::{
    CookieKeys, MemoryStore, SessionCookie, TrustedHeader, UserTokens, WechatLayer, WechatUser,
};

use super::fixtures::{
    Body, cookie_request, header_request, median, respond_empty, token_response, user_id,
    wechat_client,
};

/// Number of calls in one round: 4,000. The requests are created before the time is taken, and so
/// few requests fit into the processor's caches.
const CALLS_PER_ROUND: usize = 4_000;

/// Number of rounds in which each service is measured: 41. The results are the medians of the
/// rounds.
const ROUNDS: usize = 41;

/// Minimum acceptable throughput of two threads, divided by the throughput of one thread: 1.8.
const SCALING_TARGET: f64 = 1.8;

/// A number of cached users, with the targets: the nanoseconds that the layer may add to a request.
pub(crate) struct CacheSize {
    pub(crate) users: usize,
    pub(crate) header_target: u32,
    pub(crate) cookie_target: u32,
}

/// The measurements of one service. Each list has one figure for each round.
#[derive(Default)]
struct CachedMeasurements {
    nanos: Vec<f64>,
    /// Throughput of two threads, divided by the throughput of one thread.
    scaling: Vec<f64>,
    allocations: u64,
}

pub(crate) fn compare(runtime: &Runtime, case: &CacheSize) {
    let _entered = runtime.enter();
    let count = case.users;
    let users = cached_users(runtime, count);
    let keys = CookieKeys::random().expect("keys");
    let session = SessionCookie::new(users.app_id(), &keys);
    let header = TrustedHeader::new("x-user-id").expect("a header");

    let with_cookie = |at: usize| cookie_request(&session, at);
    let bare = service_fn(respond_empty::<Body>);
    let value = extension_value(&users, header_request(0));
    let inserting = service_fn(move |mut request: Request<Body>| {
        request.extensions_mut().insert(value.clone());
        respond_empty(request)
    });
    let by_header = WechatLayer::new(users.clone()).identity(header).layer(bare);
    let by_cookie = WechatLayer::new(users)
        .identity(session.clone())
        .layer(bare);

    let mut figures: [CachedMeasurements; 4] = Default::default();
    for round in 0..ROUNDS {
        let seed = round as u64;
        run_round(&mut figures[0], &bare, header_request, count, seed);
        run_round(&mut figures[1], &inserting, header_request, count, seed);
        run_round(&mut figures[2], &by_header, header_request, count, seed);
        run_round(&mut figures[3], &by_cookie, with_cookie, count, seed);
    }

    println!("\ncached user, {count} users, around a service that does nothing");
    println!(
        "  {:<30} {:>8} {:>14} {:>12} {:>22}",
        "", "ns/call", "added", "allocations", "two threads ÷ one"
    );
    let targets = [
        None,
        None,
        Some(case.header_target),
        Some(case.cookie_target),
    ];
    let names = [
        "the service alone",
        "an extension of the same size",
        "the layer, header identity",
        "the layer, signed cookie",
    ];
    let mut alone = None;
    for ((figures, target), name) in figures.into_iter().zip(targets).zip(names) {
        let (nanos, scaling) = (median(figures.nanos), median(figures.scaling));
        let added = nanos - *alone.get_or_insert(nanos);
        let (added, scaling) = match target {
            Some(target) => (
                format!("{added:.0} (≤ {target})"),
                format!("{scaling:.2} (≥ {SCALING_TARGET})"),
            ),
            None => (format!("{added:.0}"), format!("{scaling:.2}")),
        };
        let allocations = figures.allocations;
        println!("  {name:<30} {nanos:>8.0} {added:>14} {allocations:>12} {scaling:>22}");
    }
}

/// Returns the tokens of `count` users, all of them cached.
fn cached_users(runtime: &Runtime, count: usize) -> UserTokens {
    // The parts of the cache fill unevenly. With this reserve, no part evicts a user.
    let capacity = count + count / 4;
    let users = UserTokens::builder(wechat_client(), MemoryStore::new())
        .cache_capacity(capacity)
        .cache_ttl(Duration::from_secs(3_600))
        .build();
    runtime.block_on(async {
        for at in 0..count {
            users
                .store(&user_id(at), &token_response(at))
                .await
                .expect("stored");
        }
        // A token stored while an invalidation arrived is cached only after it is read.
        for at in 0..count {
            while users.cached(&user_id(at)).is_none() {
                users.get(&user_id(at)).await.expect("a token");
            }
        }
    });
    users
}

/// Measures a service for one round with one thread and with two threads, with users picked at
/// random.
fn run_round<S>(
    figures: &mut CachedMeasurements,
    service: &S,
    make: impl Fn(usize) -> Request<Body> + Copy + Sync,
    users: usize,
    seed: u64,
) where
    S: Service<Request<Body>, Response = Response<Full<bytes::Bytes>>, Error = Infallible>
        + Clone
        + Send
        + Sync,
{
    let pick = |part: u64| {
        let mut random = fastrand::Rng::with_seed(seed * 16 + part);
        move || make(random.usize(..users))
    };
    // A single thread is started in the same way as two threads, so that the costs of each thread
    // are the same.
    let parallel = |threads: u64| {
        let together = Barrier::new(threads as usize);
        let together = &together;
        std::thread::scope(|scope| {
            let running: Vec<_> = (0..threads)
                .map(|part| {
                    scope.spawn(move || {
                        time_calls(service, pick(part), || {
                            together.wait();
                        })
                    })
                })
                .collect();
            let took = running
                .into_iter()
                .map(|thread| thread.join().expect("a time"));
            took.collect::<Vec<Duration>>()
        })
    };
    let per_call = |took: &Duration| took.as_nanos() as f64 / CALLS_PER_ROUND as f64;
    let (one, two) = (parallel(1), parallel(2));
    let throughput = |took: &[Duration]| took.iter().map(|took| 1.0 / per_call(took)).sum::<f64>();
    figures.nanos.extend(one.iter().map(per_call));
    figures.scaling.push(throughput(&two) / throughput(&one));
    figures.allocations = count_allocations(service, make(0));
}

/// Creates the requests and runs `begin`. Returns the time that the calls then take.
fn time_calls<S>(
    service: &S,
    mut make: impl FnMut() -> Request<Body>,
    begin: impl FnOnce(),
) -> Duration
where
    S: Service<Request<Body>, Response = Response<Full<bytes::Bytes>>, Error = Infallible> + Clone,
{
    let mut service = service.clone();
    // The requests are created before the time is taken, because their cost is not the layer's.
    let ready: Vec<_> = (0..CALLS_PER_ROUND).map(|_| make()).collect();
    begin();
    let began = Instant::now();
    for request in ready {
        drop(black_box(poll_ready(&mut service, request)));
    }
    began.elapsed()
}

fn count_allocations<S>(service: &S, request: Request<Body>) -> u64
where
    S: Service<Request<Body>, Response = Response<Full<bytes::Bytes>>, Error = Infallible> + Clone,
{
    let mut service = service.clone();
    let counted =
        allocation_counter::measure(|| drop(black_box(poll_ready(&mut service, request))));
    counted.count_total
}

/// Polls a call once and returns its response. Panics if the call is pending, which does not happen
/// for a cached user.
fn poll_ready<S>(service: &mut S, request: Request<Body>) -> S::Response
where
    S: Service<Request<Body>, Error = Infallible>,
{
    let mut call = std::pin::pin!(service.call(request));
    match call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(response)) => response,
        Poll::Pending => panic!("a cached user must not wait"),
    }
}

/// Returns the value that the layer inserts into the extensions of a request.
fn extension_value(users: &UserTokens, request: Request<Body>) -> WechatUser {
    let header = TrustedHeader::new("x-user-id").expect("a header");
    let (sender, receiver) = std::sync::mpsc::channel();
    let mut service = WechatLayer::new(users.clone())
        .identity(header)
        .layer(service_fn(move |request: Request<Body>| {
            let _ = sender.send(request.extensions().get::<WechatUser>().cloned());
            respond_empty(request)
        }));
    poll_ready(&mut service, request);
    receiver.recv().ok().flatten().expect("a user")
}
