//! Tests of a move to the other layout while users log out and in.

use std::time::Duration;

use redis::Commands;
use serde_json::Value;
use tower_wechat::client::UserTokenResponse;
use tower_wechat::simulator::Fault;
use tower_wechat::{RedisStore, UserId, UserTokens, WechatClient};

use super::program::on;
use crate::support::demo_process::{DemoProcess, USER_HEADER};
use crate::support::eventually;
use crate::support::harness::{Age, Harness, Layout, now_ms, variables};
use crate::support::http_client::Asked;

pub(super) const HASHES: [&str; 2] = ["user.wxUserAccessToken", "user.wxUserRefreshToken"];

pub(super) const HOUR: i64 = 3_600;
pub(super) const DAY: i64 = 24 * HOUR;

pub(super) async fn migrate(harness: &Harness, to: &str) -> Value {
    on(harness, &["migrate", "--to", to, "--json"], &[])
        .await
        .result()
}

/// Starts a service that reads the first of these layouts and writes all of them.
pub(super) async fn demo(harness: &Harness, layouts: &str) -> DemoProcess {
    let mut environment = harness.environment();
    environment.extend(variables(&[
        ("REDIS_LAYOUT", layouts),
        ("CACHE_TTL_SECS", "0"),
    ]));
    DemoProcess::start(&environment).await
}

async fn log_out_everywhere(demo: &DemoProcess, user: &str) {
    let out = Asked::post("/logout?everywhere=true").header(USER_HEADER, user);
    let answer = demo.ask(out).await;
    assert!(answer.status < 400, "{answer:?}");
}

pub(super) fn has_copy(harness: &Harness, user: &str) -> bool {
    harness.connection().exists(harness.key(user)).unwrap()
}

fn has_fields(harness: &Harness, user: &str) -> bool {
    let mut redis = harness.connection();
    HASHES.iter().any(|hash| redis.hexists(hash, user).unwrap())
}

/// The user logs out at a process that writes only the hashes. The next copy removes the pair from
/// the keys too.
#[tokio::test(flavor = "multi_thread")]
async fn a_logout_before_the_copy_is_not_undone_by_it() {
    let harness = Harness::new(Layout::Hashes).await;
    let old = demo(&harness, "hashes").await;
    let both = demo(&harness, "hashes+keys").await;
    for user in ["oLogsOut", "oStays"] {
        harness.sign_in(user, Age::Expired).await;
        assert_eq!(both.me(user).await.status, 200);
        assert!(has_copy(&harness, user), "the renewal was written twice");
    }
    log_out_everywhere(&old, "oLogsOut").await;
    assert!(
        has_copy(&harness, "oLogsOut"),
        "the old process writes the hashes only"
    );

    let dry = on(
        &harness,
        &["migrate", "--to", "keys", "--json", "--dry-run"],
        &[],
    )
    .await;
    assert_eq!(dry.result()["removed"], 1);
    assert!(has_copy(&harness, "oLogsOut"));
    let moved = migrate(&harness, "keys").await;
    assert_eq!(moved["removed"], 1, "{moved}");
    assert!(!has_copy(&harness, "oLogsOut") && has_copy(&harness, "oStays"));
    assert_eq!(migrate(&harness, "keys").await["removed"], 0);

    let arrived = demo(&harness, "keys+hashes").await;
    arrived
        .me("oLogsOut")
        .await
        .is_rejected(401, "login_required");
    assert_eq!(arrived.me("oStays").await.status, 200);
}

/// A pair expired in the keys, and the hashes still have it. The program does not copy that pair
/// again.
#[tokio::test(flavor = "multi_thread")]
async fn a_pair_expired_in_the_other_layout_is_not_copied() {
    let harness = Harness::new(Layout::Hashes).await;
    for user in ["oDead", "oStays"] {
        harness.sign_in(user, Age::Expired).await;
    }
    migrate(&harness, "keys").await;
    let arrived = demo(&harness, "keys").await;
    let dead = Fault::on("/sns/oauth2/refresh_token").errcode(42007);
    harness.wechat.inject(dead.times(1));
    arrived.me("oDead").await.is_rejected(401, "login_required");
    assert!(!has_copy(&harness, "oDead") && has_fields(&harness, "oDead"));

    let moved = migrate(&harness, "keys").await;
    assert_eq!(moved["dead"], 1, "{moved}");
    assert!(!has_copy(&harness, "oDead") && has_copy(&harness, "oStays"));
}

/// The user logs out and in again at a service that writes only the new layout. The program keeps
/// the new pair, although the pair in the old layout was logged out.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_after_a_logout_in_the_other_layout_stays() {
    for to in ["keys", "hashes"] {
        let (before, after) = match to {
            "keys" => (Layout::Hashes, tower_wechat::redis::Layout::Keys),
            _ => (Layout::Keys, tower_wechat::redis::Layout::Hashes),
        };
        let harness = Harness::new(before).await;
        for user in ["oAlice", "oBob"] {
            harness.sign_in(user, Age::Fresh).await;
        }
        migrate(&harness, to).await;

        let url = harness.redis.url();
        let store = RedisStore::builder(&url).layout(after).connect().await;
        let wechat = WechatClient::new(harness.wechat.app_id(), "secret").unwrap();
        let users = UserTokens::new(wechat, store.unwrap());
        let alice = UserId::new("oAlice").unwrap();
        users.revoke(&alice).await.unwrap();
        let pair = harness.wechat.sign_in("oAlice", "snsapi_userinfo");
        let grant = UserTokenResponse::new(pair.access_token.as_str())
            .refresh_token(pair.refresh_token.as_str())
            .expires_in(7_200);
        users.store(&alice, &grant).await.unwrap();

        let moved = migrate(&harness, to).await;
        assert_eq!(moved["removed"], 0, "to {to}: {moved}");
        let store = RedisStore::builder(&url).layout(after).connect().await;
        let wechat = users.wechat().clone();
        let elsewhere = UserTokens::new(wechat, store.unwrap());
        let token = elsewhere.get(&alice).await.unwrap();
        assert_eq!(token.access_token().expose(), pair.access_token, "to {to}");
        assert_eq!(migrate(&harness, to).await["removed"], 0);
    }
}

/// The program removes a copy whose pair was deleted at the source: by a logout, without a
/// tombstone, or with the last user of the hashes.
#[tokio::test(flavor = "multi_thread")]
async fn a_pair_deleted_at_the_source_leaves_the_copy() {
    let harness = Harness::new(Layout::Hashes).await;
    let mut redis = harness.connection();
    for user in ["oLogsOut", "oDeleted", "oStays"] {
        harness.sign_in(user, Age::Fresh).await;
    }
    assert_eq!(migrate(&harness, "keys").await["written"], 3);
    let old = demo(&harness, "hashes").await;
    log_out_everywhere(&old, "oLogsOut").await;
    for hash in HASHES {
        let _: () = redis.hdel(hash, "oDeleted").unwrap();
    }
    // The lease says that a process renews this user. The program waits until the lease has
    // expired.
    let lease = format!("wechat:{}:lease:user:oDeleted", harness.wechat.app_id());
    let _: () = redis.pset_ex(&lease, "holder", 1_500).unwrap();
    let moved = migrate(&harness, "keys").await;
    assert_eq!(
        (&moved["removed"], &moved["left"]),
        (&2.into(), &0.into()),
        "{moved}"
    );
    assert!(
        !redis.exists::<_, bool>(&lease).unwrap(),
        "it was waited for"
    );
    assert!(!has_copy(&harness, "oLogsOut") && !has_copy(&harness, "oDeleted"));
    assert!(has_copy(&harness, "oStays"));

    // With the last user's fields, Redis removes the hashes themselves.
    log_out_everywhere(&old, "oStays").await;
    assert!(!redis.exists::<_, bool>(HASHES[0]).unwrap());
    assert_eq!(migrate(&harness, "keys").await["removed"], 1);
    assert!(!has_copy(&harness, "oStays"));
}

/// When services read the keys, the hashes are outdated. The program then copies nothing from the
/// hashes, and a user who is only in the keys stays.
#[tokio::test(flavor = "multi_thread")]
async fn another_run_after_the_last_step_changes_nothing() {
    let harness = Harness::new(Layout::Hashes).await;
    let mut redis = harness.connection();
    for user in ["oLogsOut", "oRenewed", "oQuiet"] {
        harness.sign_in(user, Age::Fresh).await;
    }
    assert_eq!(migrate(&harness, "keys").await["written"], 3);
    let arrived = demo(&harness, "keys").await;
    log_out_everywhere(&arrived, "oLogsOut").await;
    // The keys have a login that the hashes do not have.
    let later = now_ms() + HOUR * 1_000;
    harness.put_record(
        "oNew",
        format!(
            "1#new#{later}#{}#refresh#{}",
            later + 1,
            later + 20 * DAY * 1_000
        ),
    );
    let again = migrate(&harness, "keys").await;
    assert_eq!(
        (&again["written"], &again["removed"]),
        (&0.into(), &0.into()),
        "{again}"
    );
    assert_eq!(again["logged_out"], 1, "{again}");
    assert!(!has_copy(&harness, "oLogsOut"), "a logout stays one");
    arrived
        .me("oLogsOut")
        .await
        .is_rejected(401, "login_required");
    for user in ["oRenewed", "oQuiet", "oNew"] {
        assert!(has_copy(&harness, user), "{user}");
    }

    // An operator removes one user from the hashes, and then the hashes themselves, as the guide
    // says.
    for hash in HASHES {
        let _: () = redis.hdel(hash, "oQuiet").unwrap();
    }
    let again = migrate(&harness, "keys").await;
    assert_eq!(
        (&again["removed"], &again["kept"]),
        (&0.into(), &1.into()),
        "{again}"
    );
    let _: () = redis.del(&HASHES).unwrap();
    let again = migrate(&harness, "keys").await;
    assert_eq!(
        (&again["written"], &again["removed"]),
        (&0.into(), &0.into()),
        "{again}"
    );
    for user in ["oRenewed", "oQuiet", "oNew"] {
        assert!(has_copy(&harness, user), "{user}");
    }
}

/// An operator deletes the hashes before a service has renewed any pair in the keys. The keys stay.
#[tokio::test(flavor = "multi_thread")]
async fn copies_stay_when_the_hashes_are_deleted() {
    let harness = Harness::new(Layout::Hashes).await;
    let users: Vec<String> = (0..50).map(|at| format!("o{at}")).collect();
    for user in &users {
        harness.sign_in(user, Age::Fresh).await;
    }
    assert_eq!(migrate(&harness, "keys").await["written"], 50);
    let _: () = harness.connection().del(&HASHES).unwrap();
    let again = migrate(&harness, "keys").await;
    assert_eq!(
        (&again["removed"], &again["kept"]),
        (&0.into(), &50.into()),
        "{again}"
    );
    assert!(users.iter().all(|user| has_copy(&harness, user)));
}

/// A user logs out at a service that writes only the keys. The move back to the hashes removes the
/// user's old pair there.
#[tokio::test(flavor = "multi_thread")]
async fn moving_back_does_not_undo_a_logout() {
    let harness = Harness::new(Layout::Hashes).await;
    for user in ["oLogsOut", "oStays"] {
        harness.sign_in(user, Age::Fresh).await;
    }
    assert_eq!(migrate(&harness, "keys").await["written"], 2);
    let arrived = demo(&harness, "keys").await;
    log_out_everywhere(&arrived, "oLogsOut").await;
    assert!(
        has_fields(&harness, "oLogsOut"),
        "the process writes the keys only"
    );
    let back = migrate(&harness, "hashes").await;
    assert_eq!(back["removed"], 1, "{back}");
    assert!(!has_fields(&harness, "oLogsOut") && has_fields(&harness, "oStays"));
    let old = demo(&harness, "hashes").await;
    old.me("oLogsOut").await.is_rejected(401, "login_required");
    assert_eq!(old.me("oStays").await.status, 200);
    // A login after the logout is copied to the hashes.
    let pair = harness.wechat.sign_in("oLogsOut", "snsapi_userinfo");
    let now = now_ms();
    harness.put_record(
        "oLogsOut",
        format!(
            "1#{}#{}#{}#{}#{}#from={}",
            pair.access_token,
            now + 105 * 60_000,
            now + 120 * 60_000,
            pair.refresh_token,
            now + 30 * DAY * 1_000,
            now / 1_000 + 1
        ),
    );
    assert_eq!(migrate(&harness, "hashes").await["written"], 1);
    eventually("the login is seen", Duration::from_secs(10), async || {
        old.me("oLogsOut").await.status == 200
    })
    .await;
}
