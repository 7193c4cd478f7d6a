//! Tests of a move to the other layout while services run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use redis::Commands;
use tokio::sync::RwLock;

use super::program::on;
use crate::support::demo_process::DemoProcess;
use crate::support::eventually;
use crate::support::harness::{Age, Harness, Layout, now_ms, variables};
use crate::support::http_client::HttpClient;

const HASHES: [&str; 2] = ["user.wxUserAccessToken", "user.wxUserRefreshToken"];

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_there_and_back_is_unchanged() {
    let harness = Harness::new(Layout::Hashes).await;
    let mut redis = harness.connection();
    for (user, age) in [
        ("oA", Age::Fresh),
        ("{b}%", Age::Stale),
        ("张三", Age::Fresh),
    ] {
        harness.sign_in(user, age).await;
    }
    let later = now_ms() + 300_000;
    // A value for a short lifetime has a third part, and a refresh value may contain details.
    harness.put_access("oShort", format!("short#{later}#{}", later + 300_000));
    harness.put_refresh(
        "oShort",
        format!("refresh#{}#scope=snsapi_base#openid=oOther", later * 2),
    );
    let _: () = redis
        .set("sys.wxAccessToken", format!("account#{later}"))
        .unwrap();
    let hash = |redis: &mut redis::Connection, name: &str| {
        let values: std::collections::BTreeMap<String, String> = redis.hgetall(name).unwrap();
        values
    };
    let before = HASHES.map(|name| hash(&mut redis, name));

    let dry = on(
        &harness,
        &["migrate", "--to", "keys", "--dry-run", "--json"],
        &[],
    )
    .await;
    assert_eq!(dry.result()["written"], 5);
    assert!(!redis.exists::<_, bool>(harness.key("oA")).unwrap());
    let copied = on(&harness, &["migrate", "--to", "keys", "--json"], &[])
        .await
        .result();
    assert_eq!(
        (&copied["written"], &copied["unreadable"]),
        (&5.into(), &0.into())
    );
    let again = on(&harness, &["migrate", "--to", "keys", "--json"], &[])
        .await
        .result();
    assert_eq!(again["written"], 0, "{again}");
    assert!(redis.ttl::<_, i64>(harness.key("oA")).unwrap() > 24 * 3_600);

    let _: () = redis
        .del(&[HASHES[0], HASHES[1], "sys.wxAccessToken"])
        .unwrap();
    let back = on(&harness, &["migrate", "--to", "hashes", "--json"], &[])
        .await
        .result();
    assert_eq!(back["written"], 5, "{back}");
    assert_eq!(HASHES.map(|name| hash(&mut redis, name)), before);
    let account: String = redis.get("sys.wxAccessToken").unwrap();
    assert_eq!(account, format!("account#{later}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_never_replaces_a_newer_pair() {
    let harness = Harness::new(Layout::Hashes).await;
    harness.sign_in("oA", Age::Stale).await;
    let later = now_ms() + 3_600_000;
    let newer = format!("1#newer#{later}#{later}#refresh#{later}");
    harness.put_record("oA", &newer);
    let ran = on(&harness, &["migrate", "--to", "keys", "--json"], &[])
        .await
        .result();
    assert_eq!((&ran["written"], &ran["newer"]), (&0.into(), &1.into()));
    let record: String = harness.connection().get(harness.key("oA")).unwrap();
    assert_eq!(record, newer);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_under_renewal_is_copied_afterwards() {
    let harness = Harness::new(Layout::Hashes).await;
    harness.sign_in("oA", Age::Stale).await;
    let lease = format!("wechat:{}:lease:user:oA", harness.wechat.app_id());
    let mut redis = harness.connection();
    let _: () = redis.pset_ex(&lease, "holder", 1_500).unwrap();
    let ran = on(&harness, &["migrate", "--to", "keys", "--json"], &[])
        .await
        .result();
    assert_eq!((&ran["written"], &ran["left"]), (&1.into(), &0.into()));
    assert!(
        !redis.exists::<_, bool>(&lease).unwrap(),
        "it was waited for"
    );
}

/// Several processes that serve requests while a test replaces one after another.
struct Fleet {
    harness: Harness,
    demos: Vec<DemoProcess>,
    urls: Arc<RwLock<Vec<HttpClient>>>,
}

impl Fleet {
    async fn start_one(&self, layouts: &str) -> DemoProcess {
        let mut environment = self.harness.environment();
        environment.extend(variables(&[("REDIS_LAYOUT", layouts)]));
        DemoProcess::start(&environment).await
    }

    /// Waits until WeChat has received one refresh call for each user since the start of the wait.
    async fn renewals_of_all(&self, users: usize) {
        let before = self.harness.refreshes();
        let renewed = async || self.harness.refreshes() >= before + users as u64;
        eventually("renewals of all", Duration::from_secs(60), renewed).await;
    }

    /// Replaces one process after another. The new process gets requests before the old one gets
    /// SIGTERM.
    async fn roll(&mut self, layouts: &str) {
        for at in 0..self.demos.len() {
            let new = self.start_one(layouts).await;
            self.urls.write().await[at] = new.http().clone();
            let old = std::mem::replace(&mut self.demos[at], new);
            old.signal("TERM");
            let (status, log) = old.ended(Duration::from_secs(60)).await;
            assert_eq!(status.code(), Some(0), "{log}");
        }
    }
}

/// Follows the documented procedure. Tokens expire after 3 s, so that each user's token is renewed
/// many times during the move. Each renewal revokes the refresh token before it, so a renewal from
/// an old copy would end a login.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moving_between_layouts_loses_no_login() {
    let harness = Harness::new(Layout::Hashes).await;
    harness.wechat.settings(|settings| {
        settings.user_token_lifetime = Duration::from_secs(3);
        settings.rotate_refresh_token = true;
    });
    let users: Vec<String> = (0..24).map(|at| format!("o{at}")).collect();
    for user in &users {
        harness.sign_in(user, Age::Stale).await;
    }
    let mut fleet = Fleet {
        harness,
        demos: Vec::new(),
        urls: Arc::default(),
    };
    for _ in 0..2 {
        let demo = fleet.start_one("hashes").await;
        fleet.urls.write().await.push(demo.http().clone());
        fleet.demos.push(demo);
    }

    let (over, served) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let mut load = tokio::task::JoinSet::new();
    for chunk in users.chunks(6) {
        let (chunk, urls) = (chunk.to_vec(), Arc::clone(&fleet.urls));
        let (over, served) = (Arc::clone(&over), Arc::clone(&served));
        load.spawn(async move {
            let mut turn = 0;
            while !over.load(Ordering::Relaxed) {
                for user in &chunk {
                    turn += 1;
                    // A process is replaced only when its requests have ended, because `roll` waits
                    // for this guard.
                    let urls = urls.read().await;
                    let answer = urls[turn % urls.len()].me(user).await;
                    assert_eq!(answer.status, 200, "{user}: {answer:?}");
                    served.fetch_add(1, Ordering::Relaxed);
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
    }

    for (old, new) in [("hashes", "keys"), ("keys", "hashes")] {
        fleet.roll(&format!("{old}+{new}")).await;
        fleet.renewals_of_all(users.len()).await;
        let migrate = ["migrate", "--to", new, "--json"];
        let copied = on(&fleet.harness, &migrate, &[]).await.result();
        assert_eq!(copied["left"], 0, "{copied}");
        fleet.renewals_of_all(users.len()).await;
        let again = on(&fleet.harness, &migrate, &[]).await.result();
        assert_eq!(again["written"], 0, "both are written together: {again}");
        fleet.roll(&format!("{new}+{old}")).await;
        fleet.renewals_of_all(users.len()).await;
        fleet.roll(new).await;
        fleet.renewals_of_all(users.len()).await;
    }
    over.store(true, Ordering::Relaxed);
    while let Some(ended) = load.join_next().await {
        ended.unwrap();
    }
    for demo in fleet.demos.drain(..) {
        demo.signal("TERM");
        assert_eq!(demo.ended(Duration::from_secs(60)).await.0.code(), Some(0));
    }
    // After the move back, the hashes have the newest pair of each user.
    for user in &users {
        fleet.harness.assert_newest_pair_is_stored(user);
    }
    println!(
        "{} requests, {} renewals, no login lost",
        served.load(Ordering::Relaxed),
        fleet.harness.refreshes()
    );
}
