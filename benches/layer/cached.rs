//! Users whose token is in memory: the layer alone, around a service that does nothing.

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

use super::fixtures::{Body, respond_empty, user_id, wechat_client};
use super::{median, token_response};

/// Calls whose requests are made together, before the clock starts: few enough for the
/// processor's caches.
const CALLS_PER_ROUND: usize = 4_000;

/// Turns of each contender.
const ROUNDS: usize = 41;

/// How much more than one two threads should answer.
const SCALING_TARGET: f64 = 1.8;

/// The number of users, and the nanoseconds that the layer may add.
pub(crate) struct CacheSize {
    pub(crate) users: usize,
    pub(crate) header_target: u32,
    pub(crate) cookie_target: u32,
}

/// What came out for one contender.
#[derive(Default)]
struct CachedMeasurements {
    nanos: Vec<f64>,
    /// Throughput of two threads by that of one, in pairs.
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

    let with_header = |at: usize| {
        let request = Request::builder().header("x-user-id", user_id(at).as_str());
        request.body(Body::new()).expect("a request")
    };
    let with_cookie = |at: usize| {
        let set = session.issue(&user_id(at));
        let cookie = set.to_str().expect("text").split(';').next();
        let request = Request::builder().header("cookie", cookie.unwrap_or_default());
        request.body(Body::new()).expect("a request")
    };

    let bare = service_fn(respond_empty::<Body>);
    let value = extension_value(&users, with_header(0));
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
        run_round(&mut figures[0], &bare, with_header, count, seed);
        run_round(&mut figures[1], &inserting, with_header, count, seed);
        run_round(&mut figures[2], &by_header, with_header, count, seed);
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
    // Its parts fill unevenly: none may overflow.
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
            while users.cached(user_id(at).as_str()).is_none() {
                users.get(&user_id(at)).await.expect("a token");
            }
        }
    });
    users
}

/// One turn of a contender, with users picked at random.
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
    // As threads of their own, one or two: each has the same beginnings.
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

/// Returns the time of the calls after `begin` has returned.
fn time_calls<S>(
    service: &S,
    mut make: impl FnMut() -> Request<Body>,
    begin: impl FnOnce(),
) -> Duration
where
    S: Service<Request<Body>, Response = Response<Full<bytes::Bytes>>, Error = Infallible> + Clone,
{
    let mut service = service.clone();
    // Requests are made before the clock starts: their cost is not the layer's.
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

/// Polls a call once: a cached user does not wait.
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

/// What the layer puts into the extensions.
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
