//! Tests of stored times in a move to the other layout: pairs of a Java service, expired pairs and
//! implausible times.

use redis::{Commands, Connection};

use super::moves::{DAY, HASHES, HOUR, demo, has_copy, migrate};
use crate::support::harness::{Age, Harness, Layout, now_ms};

/// Returns the number of seconds until Redis deletes the copy of a user.
fn copy_expires_in(redis: &mut Connection, harness: &Harness, user: &str) -> i64 {
    redis.ttl(harness.key(user)).unwrap()
}

/// Writes a pair as the Spring Boot service does, with the renewal point of the access token in
/// both hashes.
fn put_as_java_does(harness: &Harness, user: &str, ms: i64) {
    harness.put_access(user, format!("access-{user}#{ms}"));
    harness.put_refresh(user, format!("refresh-{user}#{ms}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn copied_java_pairs_are_kept_for_a_month() {
    let harness = Harness::new(Layout::Hashes).await;
    let mut redis = harness.connection();
    let now = now_ms();
    let just_now = now + 105 * 60_000;
    let users = [
        ("oJustNow", just_now),
        ("oDue", now - 60_000),
        ("oYesterday", now - 24 * HOUR * 1_000),
        ("oAWeekAgo", now - 7 * DAY * 1_000),
    ];
    for (user, ms) in users {
        put_as_java_does(&harness, user, ms);
    }
    // The access value and the refresh value have times that differ by 3 ms, or by the margin.
    put_as_java_does(&harness, "oTwice", just_now);
    harness.put_refresh("oTwice", format!("refresh#{}", just_now + 3));
    put_as_java_does(&harness, "oWithoutMargin", just_now);
    harness.put_refresh("oWithoutMargin", format!("refresh#{}", just_now + 900_000));
    // A user whose access token is missing.
    harness.put_refresh("oAlone", format!("refresh#{just_now}"));
    // A pair that this crate has written, with a refresh token that expires in ten days.
    harness.put_access("oOurs", format!("access#{just_now}"));
    harness.put_refresh(
        "oOurs",
        format!("refresh#{}#openid=oOurs", now + 10 * DAY * 1_000),
    );

    let copied = migrate(&harness, "keys").await;
    assert_eq!(
        (&copied["written"], &copied["odd_times"]),
        (&8.into(), &0.into()),
        "{copied}"
    );
    for (user, ms) in users {
        let lives = copy_expires_in(&mut redis, &harness, user);
        let expected = (ms - now) / 1_000 + 31 * DAY;
        assert!(
            (expected - 60..=expected).contains(&lives),
            "{user}: {lives}, {expected}"
        );
    }
    for user in ["oTwice", "oWithoutMargin", "oAlone"] {
        let lives = copy_expires_in(&mut redis, &harness, user);
        assert!(
            (31 * DAY..31 * DAY + 3 * HOUR).contains(&lives),
            "{user}: {lives}"
        );
    }
    let lives = copy_expires_in(&mut redis, &harness, "oOurs");
    assert!((11 * DAY - 60..=11 * DAY).contains(&lives), "{lives}");

    let again = migrate(&harness, "keys").await;
    assert_eq!(
        (&again["written"], &again["same"]),
        (&0.into(), &10.into()),
        "{again}"
    );

    // A copy that an earlier version wrote, with one hour left, is written again.
    let _: () = redis.expire(harness.key("oJustNow"), HOUR).unwrap();
    assert_eq!(migrate(&harness, "keys").await["written"], 1);
    assert!(copy_expires_in(&mut redis, &harness, "oJustNow") > 30 * DAY);
    assert_eq!(migrate(&harness, "keys").await["written"], 0);
}

/// An expired pair is not copied: Redis would delete the copy at once, and each run would write it
/// again.
#[tokio::test(flavor = "multi_thread")]
async fn expired_pairs_are_not_copied() {
    let harness = Harness::new(Layout::Hashes).await;
    harness.sign_in("oA", Age::Fresh).await;
    put_as_java_does(&harness, "oDead", now_ms() - 40 * DAY * 1_000);
    harness.put_access("oAlone", "token#1");
    let copied = migrate(&harness, "keys").await;
    assert_eq!(
        (&copied["written"], &copied["dead"]),
        (&1.into(), &2.into()),
        "{copied}"
    );
    assert!(!has_copy(&harness, "oDead") && !has_copy(&harness, "oAlone"));
}

/// A service that writes both layouts gives a renewed pair the same lifetime as the program does.
#[tokio::test(flavor = "multi_thread")]
async fn renewed_java_pairs_are_written_for_a_month() {
    let harness = Harness::new(Layout::Hashes).await;
    let both = demo(&harness, "hashes+keys").await;
    let pair = harness.wechat.sign_in("oJava", "snsapi_userinfo");
    harness.wechat.advance(pair.expires_in);
    let ms = now_ms() - HOUR * 1_000;
    harness.put_access("oJava", format!("{}#{ms}", pair.access_token));
    harness.put_refresh("oJava", format!("{}#{ms}", pair.refresh_token));
    assert_eq!(both.me("oJava").await.status, 200);
    assert_eq!(harness.refreshes(), 1);
    let lives = copy_expires_in(&mut harness.connection(), &harness, "oJava");
    assert!(lives > 30 * DAY, "{lives}");
    let copied = migrate(&harness, "keys").await;
    assert_eq!(
        (&copied["written"], &copied["same"]),
        (&0.into(), &3.into()),
        "{copied}"
    );
    // A process that reads the keys serves the user with the renewed pair.
    let keys = demo(&harness, "keys+hashes").await;
    keys.me("oJava")
        .await
        .has_token(&harness.wechat.current_pair("oJava").unwrap().access_token);
}

#[tokio::test(flavor = "multi_thread")]
async fn absurd_times_do_not_stop_a_move() {
    let harness = Harness::new(Layout::Hashes).await;
    let mut redis = harness.connection();
    let soon = now_ms() + HOUR * 1_000;
    let odd = [
        i64::MAX,
        i64::MAX - 1,
        1_700_000_000_000_000_000,
        10_000_000_000_000,
        -1,
        i64::MIN,
    ];
    for (at, ms) in odd.into_iter().enumerate() {
        // One user for each place of the time: in the refresh value, in the access value, and in a
        // third part.
        let (refresh, access, third) = (format!("r{at}"), format!("a{at}"), format!("t{at}"));
        harness.put_access(&refresh, format!("access#{soon}"));
        harness.put_refresh(&refresh, format!("refresh#{ms}"));
        harness.put_access(&access, format!("access#{ms}"));
        harness.put_refresh(&access, format!("refresh#{}", soon + DAY * 1_000));
        harness.put_access(&third, format!("access#{soon}#{ms}"));
        harness.put_refresh(&third, format!("refresh#{}", soon + DAY * 1_000));
    }
    for user in ["oA", "oB"] {
        harness.sign_in(user, Age::Fresh).await;
    }
    let _: () = redis
        .set("sys.wxAccessToken", format!("account#{}", i64::MAX))
        .unwrap();
    let copied = migrate(&harness, "keys").await;
    assert_eq!(copied["written"], 6 * 3 + 2, "{copied}");
    assert!(copied["odd_times"].as_u64() >= Some(12), "{copied}");
    assert_eq!(
        (&copied["unreadable"], &copied["left"]),
        (&0.into(), &0.into()),
        "{copied}"
    );
    let keys: Vec<String> = redis.keys(harness.key("*")).unwrap();
    assert_eq!(keys.len(), 20);
    for key in keys {
        let lives: i64 = redis.ttl(&key).unwrap();
        assert!((DAY..=33 * DAY).contains(&lives), "{key}: {lives}");
    }
    let again = migrate(&harness, "keys").await;
    assert_eq!(again["written"], 0, "{again}");
    // Moves the users back into empty hashes.
    let _: () = redis.del(&HASHES).unwrap();
    let back = migrate(&harness, "hashes").await;
    assert_eq!(
        (&back["written"], &back["unreadable"]),
        (&20.into(), &0.into()),
        "{back}"
    );
    assert_eq!(migrate(&harness, "hashes").await["written"], 0);
}

/// A service that writes both layouts renews users whose stored times are implausible.
#[tokio::test(flavor = "multi_thread")]
async fn absurd_times_do_not_stop_a_service() {
    let harness = Harness::new(Layout::Hashes).await;
    let both = demo(&harness, "hashes+keys").await;
    for (user, ms) in [
        ("oMax", i64::MAX),
        ("oMin", i64::MIN),
        ("oNanos", 1_700_000_000_000_000_000),
    ] {
        let pair = harness.wechat.sign_in(user, "snsapi_userinfo");
        harness.put_access(user, format!("{}#{ms}", pair.access_token));
        harness.put_refresh(user, format!("{}#{ms}", pair.refresh_token));
        let answer = both.me(user).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.has_token(&harness.wechat.current_pair(user).unwrap().access_token);
        let lives = copy_expires_in(&mut harness.connection(), &harness, user);
        assert!((DAY..=33 * DAY).contains(&lives), "{user}: {lives}");
    }
}
