//! Tests of the maximum number of concurrent renewals of a process, which bounds its calls to
//! WeChat.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use http::Uri;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;
use tower_wechat::{UserTokens, WechatClient};

use crate::harness::{Backend, Harness, id, text};
use crate::support::eventually;
use crate::support::http_client::{Asked, HttpClient};

const USERS: usize = 20;

/// Duration of a call to WeChat: 30 ms.
const CALL: Duration = Duration::from_millis(30);

/// A server between the process and WeChat that counts the calls under way.
struct Gate {
    wechat: HttpClient,
    running: AtomicUsize,
    most: AtomicUsize,
}

/// A process that renews tokens through a gate, with a maximum number of concurrent renewals.
struct World {
    harness: Harness,
    users: UserTokens,
    gate: Arc<Gate>,
    _serving: AbortOnDropHandle<()>,
}

async fn pass_on(State(gate): State<Arc<Gate>>, uri: Uri) -> String {
    let running = gate.running.fetch_add(1, Ordering::SeqCst) + 1;
    gate.most.fetch_max(running, Ordering::SeqCst);
    tokio::time::sleep(CALL).await;
    let answer = gate.wechat.ask(Asked::get(&uri.to_string())).await;
    gate.running.fetch_sub(1, Ordering::SeqCst);
    answer.text
}

impl World {
    async fn new(renewals: usize) -> Self {
        let harness = Harness::new(Backend::Keys).await;
        let gate = Arc::new(Gate {
            wechat: HttpClient::new(harness.simulator.url()),
            running: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new()
            .fallback(pass_on)
            .with_state(Arc::clone(&gate));
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let (app, secret) = (harness.simulator.app_id(), harness.simulator.app_secret());
        let client = WechatClient::builder(app, secret).api_url(url);
        let minute = Duration::from_secs(60);
        let users = UserTokens::builder(client.build().unwrap(), harness.redis_store().await)
            .clock(harness.clock.clone())
            .load_timeout(minute)
            .lease_duration(minute)
            .max_concurrent_renewals(renewals)
            .build();
        Self {
            harness,
            users,
            gate,
            _serving: AbortOnDropHandle::new(serving),
        }
    }

    /// Returns the maximum number of calls to WeChat that were under way at the same time.
    fn most(&self) -> usize {
        self.gate.most.load(Ordering::SeqCst)
    }

    /// Requests the token of each user, all at the same time.
    async fn tokens(&self, openids: &[String]) -> Vec<String> {
        let mut running = JoinSet::new();
        for openid in openids {
            let (users, openid) = (self.users.clone(), openid.clone());
            running.spawn(async move {
                let token = users.get(&id(&openid)).await.unwrap();
                (openid, text(&token))
            });
        }
        let mut tokens = running.join_all().await;
        tokens.sort();
        tokens.into_iter().map(|(_, token)| token).collect()
    }

    /// Returns the tokens of these users that are valid at WeChat.
    fn live_tokens(&self, openids: &[String]) -> Vec<String> {
        let live = openids.iter().map(|openid| self.harness.live_token(openid));
        live.collect()
    }
}

fn openids() -> Vec<String> {
    (0..USERS).map(|at| format!("o{at:02}")).collect()
}

/// Requests expired tokens of 20 users at the same time. Returns the maximum number of calls under
/// way.
async fn most_for_expired_tokens(renewals: usize) -> usize {
    let (world, openids) = (World::new(renewals).await, openids());
    let names: Vec<&str> = openids.iter().map(String::as_str).collect();
    world.harness.expired(&world.users, &names).await;
    assert_eq!(world.tokens(&openids).await, world.live_tokens(&openids));
    assert_eq!(world.harness.refreshes(), USERS as u64);
    world.most()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewals_of_expired_tokens_keep_the_limit() {
    let most = most_for_expired_tokens(4).await;
    assert!((2..=4).contains(&most), "{most}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_below_two_counts_as_two() {
    for limit in [0, 1] {
        let most = most_for_expired_tokens(limit).await;
        assert!(most <= 2, "{most}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unlimited_process_renews_all_tokens_at_once() {
    let most = most_for_expired_tokens(usize::MAX).await;
    assert!(most > 4, "{most}");
}

/// Tokens that have not expired are served at once, and at most half of the renewals are for them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn early_renewals_use_half_of_the_limit() {
    let (world, openids) = (World::new(4).await, openids());
    let names: Vec<&str> = openids.iter().map(String::as_str).collect();
    world.harness.stale(&world.users, &names).await;
    let stale = world.live_tokens(&openids);
    assert_eq!(world.tokens(&openids).await, stale);
    eventually("all are renewed", Duration::from_secs(10), async || {
        world.harness.refreshes() == USERS as u64
    })
    .await;
    assert!(world.most() <= 2, "{}", world.most());
}
