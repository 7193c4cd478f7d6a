//! Runs the load and the faults in two halves, and then the audit.

use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::audit::Audit;
use crate::books::{Books, User};
use crate::chaos::{Chaos, Wires};
use crate::crowd::Crowd;
use crate::fleet::{By, Fleet};
use crate::support::demo_process::USER_HEADER;
use crate::support::harness::{Harness, Layout, variables};
use crate::support::proxy::Proxy;

/// Lifetime of a user's access token, 5 s. A process renews a token during its last 2 s,
/// [`MARGIN`].
pub const LIFE: Duration = Duration::from_secs(5);
pub const MARGIN: Duration = Duration::from_secs(2);

/// Users who send requests at random times.
pub const USERS: usize = 60;
const CALLERS: usize = 32;

/// Users who send requests only in herds: all of them at the same time, after their tokens have
/// expired. The steps of their renewals are sent to Redis in batches.
pub const HERD: usize = 60;

/// Minimum numbers of requests and of kills in a run, and the seed of its random choices.
pub struct Size {
    pub requests: u64,
    pub kills: u64,
    pub seed: u64,
}

impl Size {
    fn from_environment() -> Self {
        let number = |name: &str| {
            let value = env::var(name).ok()?;
            let number = value.parse();
            Some(number.unwrap_or_else(|_| panic!("{name}={value} is no number")))
        };
        Self {
            requests: number("FAULT_RUN_REQUESTS").unwrap_or(3_000),
            kills: number("FAULT_RUN_KILLS").unwrap_or(4),
            seed: number("FAULT_RUN_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000)),
        }
    }
}

pub async fn run(layout: Layout) {
    let size = Size::from_environment();
    println!("fault run on {layout:?}: FAULT_RUN_SEED={}", size.seed);
    let mut rng = fastrand::Rng::with_seed(size.seed);
    let (crowd, wires) = gather(layout, &mut rng).await;
    for user in 0..USERS + HERD {
        crowd.sign_in(user, &mut rng).await;
    }
    let mut chaos = Chaos::new(Arc::clone(&crowd), wires, rng.fork());
    chaos.breeze();
    let mut callers = tokio::task::JoinSet::new();
    for number in 0..CALLERS {
        callers.spawn(Arc::clone(&crowd).caller(number, rng.fork()));
    }
    callers.spawn(Arc::clone(&crowd).herds(CALLERS, rng.fork()));
    until(&mut chaos, size.requests / 10, 0).await;
    let first = crowd.usage();
    // In the first half WeChat repeats refresh tokens, as its documentation says, and no user may
    // be sent to log in. In the second half WeChat returns new ones, so that a lost response loses
    // the pair.
    until(&mut chaos, size.requests / 2, size.kills / 2).await;
    let wechat = &crowd.harness.wechat;
    wechat.settings(|settings| settings.rotate_refresh_token = true);
    crowd.rotates.store(true, Ordering::SeqCst);
    until(&mut chaos, size.requests, size.kills).await;
    chaos.settle().await;
    let last = crowd.usage();

    chaos.calm();
    crowd.enough.store(true, Ordering::SeqCst);
    while let Some(caller) = callers.join_next().await {
        caller.expect("a caller fell over");
    }
    let audit = Audit {
        crowd: &crowd,
        chaos: &chaos,
        took: crowd.started.elapsed(),
        size,
    };
    audit.close_the_books(first, last, &mut rng).await;
}

/// Causes one fault after another, until the callers have sent `requests` requests and the faults
/// include `kills` kills.
async fn until(chaos: &mut Chaos, requests: u64, kills: u64) {
    loop {
        let asked = chaos.crowd.books.requests.load(Ordering::SeqCst);
        if asked >= requests && chaos.done.number_of("killed") >= kills {
            return;
        }
        chaos.strike().await;
        let rest = chaos.rng.u64(100..500);
        tokio::time::sleep(Duration::from_millis(rest)).await;
    }
}

/// Starts Redis, WeChat, a proxy in front of each, and five processes: three that identify users by
/// a header, and two with logins and cookies.
async fn gather(layout: Layout, rng: &mut fastrand::Rng) -> (Arc<Crowd>, Wires) {
    let harness = Harness::new(layout).await;
    harness
        .wechat
        .settings(|settings| settings.user_token_lifetime = LIFE);
    let redis = format!("127.0.0.1:{}", harness.redis.port());
    let wechat = harness
        .wechat
        .url()
        .trim_start_matches("http://")
        .to_owned();
    let wires = Wires {
        redis: Proxy::start(&redis, rng.u64(..)).await,
        wechat: Proxy::start(&wechat, rng.u64(..)).await,
    };
    let key: String = (0..88).map(|_| rng.alphanumeric()).collect();
    let common = variables(&[
        ("REDIS_URL", &format!("redis://{}/", wires.redis.address())),
        ("REDIS_LAYOUT", layout.name()),
        ("WECHAT_APPID", harness.wechat.app_id()),
        ("WECHAT_SECRET", harness.wechat.app_secret()),
        (
            "WECHAT_API_URL",
            &format!("http://{}", wires.wechat.address()),
        ),
        (
            "WECHAT_OPEN_URL",
            &format!("http://{}", wires.wechat.address()),
        ),
        ("PUBLIC_URL", "http://h5.example.com"),
        ("COOKIE_KEY", &key),
        ("RENEW_MARGIN_SECS", &MARGIN.as_secs().to_string()),
        ("CACHE_TTL_SECS", "1"),
    ]);
    let mut by_header = common.clone();
    by_header.extend(variables(&[("TRUSTED_USER_HEADER", USER_HEADER)]));
    let places = [By::Header, By::Header, By::Cookie, By::Header, By::Cookie].map(|by| match by {
        By::Header => (by, by_header.clone()),
        By::Cookie => (by, common.clone()),
    });
    let users =
        (0..USERS + HERD).map(|number| User::new(format!("oUser{number:03}"), number % 3 == 0));
    let crowd = Crowd {
        fleet: Fleet::start(places.into()).await,
        harness,
        books: Books::of(users),
        shift: LIFE + Duration::from_secs(1),
        started: Instant::now(),
        enough: AtomicBool::new(false),
        rotates: AtomicBool::new(false),
    };
    (Arc::new(crowd), wires)
}
