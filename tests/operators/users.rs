//! Looking at users, and sweeping the dead.

use std::collections::BTreeSet;

use redis::Commands;
use serde_json::json;

use crate::program::on;
use crate::support::http_client::fingerprint;
use crate::support::scene::{Age, Layout, Scene, now_ms};

#[tokio::test(flavor = "multi_thread")]
async fn users_are_shown_and_listed_by_their_state_and_never_a_token() {
    for layout in Layout::BOTH {
        let scene = Scene::new(layout).await;
        // Expired first: it moves WeChat's clock for those before it.
        let expired = scene.sign_in("oExpired", Age::Expired).await;
        let stale = scene.sign_in("oStale", Age::Stale).await;
        let fresh = scene.sign_in("{o}Fresh%7B 张三", Age::Fresh).await;
        let long_ago = now_ms() - 40 * 24 * 3_600_000;
        match layout {
            Layout::Hashes => {
                scene.put_access("oDead", format!("dead-access#{long_ago}"));
                scene.put_refresh("oDead", format!("dead-refresh#{long_ago}"));
                // An access token without anything to renew it with.
                scene.put_access("oAlone", format!("alone#{long_ago}"));
                scene.put_access("oGarbage", "garbage");
            }
            Layout::Keys => {
                for user in ["oDead", "oAlone"] {
                    scene.put_record(user, format!("1#dead#{long_ago}#{long_ago}##"));
                }
                scene.put_record("oGarbage", "garbage");
            }
        }
        let listed = on(&scene, &["list", "--json"], &[]).await;
        let states: BTreeSet<(String, String)> = listed
            .lines()
            .iter()
            .map(|line| {
                let text = |name: &str| line[name].as_str().unwrap().to_owned();
                (text("user"), text("state"))
            })
            .collect();
        let expected = [
            ("oExpired", "expired"),
            ("oStale", "stale"),
            ("{o}Fresh%7B 张三", "fresh"),
            ("oDead", "dead"),
            ("oAlone", "dead"),
            ("oGarbage", "unreadable"),
        ];
        let expected = expected.map(|(user, state)| (user.to_owned(), state.to_owned()));
        assert_eq!(states, BTreeSet::from(expected), "{layout:?}");

        let some = ["list", "--state", "dead", "--state", "stale", "--json"];
        assert_eq!(on(&scene, &some, &[]).await.lines().len(), 3);
        let first = on(&scene, &["list", "--limit", "2"], &[]).await;
        assert_eq!(first.stdout.lines().count(), 2);

        let ids = ["show", "--json", "{o}Fresh%7B 张三", "oNobody"];
        let shown = on(&scene, &ids, &[]).await;
        assert_eq!(shown.code, 0, "{}", shown.stderr);
        let [user, nobody] = &shown.lines()[..] else {
            panic!("{}", shown.stdout);
        };
        assert_eq!(user["token_fingerprint"], fingerprint(&fresh.access_token));
        assert_eq!(user["renewing"], json!(false));
        let left = user["expires_in_secs"].as_i64().unwrap();
        assert!((4_300..=4_500).contains(&left), "{left}");
        assert_eq!(nobody["state"], "absent");
        let text = on(&scene, &["show", "oStale"], &[]).await;
        assert!(
            text.stdout.starts_with("oStale  stale  token "),
            "{}",
            text.stdout
        );

        for ran in [listed, shown, text, first] {
            for pair in [&expired, &stale, &fresh] {
                assert!(!ran.stdout.contains(&pair.access_token));
                assert!(!ran.stdout.contains(&pair.refresh_token));
            }
            assert_eq!(ran.stderr, "");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dead_are_counted_and_then_swept() {
    let scene = Scene::new(Layout::Hashes).await;
    scene.sign_in("oFresh", Age::Fresh).await;
    let long_ago = now_ms() - 40 * 24 * 3_600_000;
    scene.put_refresh("oDead", format!("refresh#{long_ago}"));
    scene.put_access("oDead2", format!("access#{long_ago}"));
    let dry = on(&scene, &["sweep", "--dry-run", "--json"], &[]).await;
    let expected = json!({"command": "sweep", "dry_run": true, "seen": 4, "removed": 2});
    assert_eq!(dry.result(), expected);
    assert_eq!(on(&scene, &["list"], &[]).await.stdout.lines().count(), 3);
    let swept = on(&scene, &["sweep"], &[]).await;
    assert_eq!(swept.stdout, "4 fields looked at; 2 were removed\n");
    assert_eq!(on(&scene, &["list"], &[]).await.stdout.lines().count(), 1);
}

/// More users than fit into a step come out, each of them once.
#[tokio::test(flavor = "multi_thread")]
async fn all_of_many_users_are_listed() {
    for layout in Layout::BOTH {
        let scene = Scene::new(layout).await;
        let mut connection = scene.connection();
        let later = now_ms() + 3_600_000;
        let mut writes = redis::pipe();
        for at in 0..3_000 {
            let user = format!("o{at}");
            match layout {
                Layout::Hashes => writes.hset("user.wxUserAccessToken", user, format!("t#{later}")),
                Layout::Keys => writes.set(scene.key(&user), format!("1#t#{later}#{later}##")),
            };
            writes.ignore();
        }
        let _: () = writes.query(&mut connection).unwrap();
        // Somebody else's keys are none of ours.
        let _: () = connection
            .set("wechat:wxOther:user:o1", "1#t#1#1##")
            .unwrap();
        let listed = on(&scene, &["list", "--json", "--pause-ms", "0"], &[]).await;
        let users: BTreeSet<String> = listed
            .lines()
            .iter()
            .map(|line| line["user"].to_string())
            .collect();
        assert_eq!((users.len(), listed.lines().len()), (3_000, 3_000));
    }
}
