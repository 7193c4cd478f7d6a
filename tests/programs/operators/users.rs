//! Tests of `list`, `show` and `sweep`, and of their output.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use redis::Commands;
use serde_json::json;

use super::program::{command, on};
use crate::support::harness::{Age, Harness, Layout, now_ms};
use crate::support::http_client::fingerprint;

#[tokio::test(flavor = "multi_thread")]
async fn users_are_listed_by_state_without_tokens() {
    for layout in Layout::BOTH {
        let harness = Harness::new(layout).await;
        // The expired user comes first, because `sign_in` advances WeChat's clock for an expired
        // pair.
        let expired = harness.sign_in("oExpired", Age::Expired).await;
        let stale = harness.sign_in("oStale", Age::Stale).await;
        let fresh = harness.sign_in("{o}Fresh%7B 张三", Age::Fresh).await;
        let long_ago = now_ms() - 40 * 24 * 3_600_000;
        match layout {
            Layout::Hashes => {
                harness.put_access("oDead", format!("dead-access#{long_ago}"));
                harness.put_refresh("oDead", format!("dead-refresh#{long_ago}"));
                // An expired access token without a refresh token.
                harness.put_access("oAlone", format!("alone#{long_ago}"));
                harness.put_access("oGarbage", "garbage");
            }
            Layout::Keys => {
                for user in ["oDead", "oAlone"] {
                    harness.put_record(user, format!("1#dead#{long_ago}#{long_ago}##"));
                }
                harness.put_record("oGarbage", "garbage");
            }
        }
        let listed = on(&harness, &["list", "--json"], &[]).await;
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
        assert_eq!(on(&harness, &some, &[]).await.lines().len(), 3);
        let first = on(&harness, &["list", "--limit", "2"], &[]).await;
        assert_eq!(first.stdout.lines().count(), 2);

        let ids = ["show", "--json", "{o}Fresh%7B 张三", "oAbsent"];
        let shown = on(&harness, &ids, &[]).await;
        assert_eq!(shown.code, 0, "{}", shown.stderr);
        let [user, absent] = &shown.lines()[..] else {
            panic!("{}", shown.stdout);
        };
        assert_eq!(user["token_fingerprint"], fingerprint(&fresh.access_token));
        assert_eq!(user["renewing"], json!(false));
        let left = user["expires_in_secs"].as_i64().unwrap();
        assert!((4_300..=4_500).contains(&left), "{left}");
        assert_eq!(absent["state"], "absent");
        let text = on(&harness, &["show", "oStale"], &[]).await;
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
async fn expired_users_are_counted_and_then_swept() {
    let harness = Harness::new(Layout::Hashes).await;
    harness.sign_in("oFresh", Age::Fresh).await;
    let long_ago = now_ms() - 40 * 24 * 3_600_000;
    harness.put_refresh("oDead", format!("refresh#{long_ago}"));
    harness.put_access("oDead2", format!("access#{long_ago}"));
    let dry = on(&harness, &["sweep", "--dry-run", "--json"], &[]).await;
    let expected = json!({"command": "sweep", "dry_run": true, "seen": 4, "removed": 2});
    assert_eq!(dry.result(), expected);
    assert_eq!(on(&harness, &["list"], &[]).await.stdout.lines().count(), 3);
    let swept = on(&harness, &["sweep"], &[]).await;
    assert_eq!(swept.stdout, "4 fields looked at; 2 were removed\n");
    assert_eq!(on(&harness, &["list"], &[]).await.stdout.lines().count(), 1);
}

/// The program lists 3,000 users, more than it reads at once, and each of them once.
#[tokio::test(flavor = "multi_thread")]
async fn all_of_many_users_are_listed() {
    for layout in Layout::BOTH {
        let harness = Harness::new(layout).await;
        let mut connection = harness.connection();
        let later = now_ms() + 3_600_000;
        let mut writes = redis::pipe();
        for at in 0..3_000 {
            let user = format!("o{at}");
            match layout {
                Layout::Hashes => writes.hset("user.wxUserAccessToken", user, format!("t#{later}")),
                Layout::Keys => writes.set(harness.key(&user), format!("1#t#{later}#{later}##")),
            };
            writes.ignore();
        }
        let _: () = writes.query(&mut connection).unwrap();
        // The key of another account is not listed.
        let _: () = connection
            .set("wechat:wxOther:user:o1", "1#t#1#1##")
            .unwrap();
        let listed = on(&harness, &["list", "--json", "--pause-ms", "0"], &[]).await;
        let users: BTreeSet<String> = listed
            .lines()
            .iter()
            .map(|line| line["user"].to_string())
            .collect();
        assert_eq!((users.len(), listed.lines().len()), (3_000, 3_000));
    }
}

/// Runs the program with its stdout written to the file at `path`.
async fn written_to(harness: &Harness, path: &str, arguments: &[&str]) -> (i32, String) {
    let url = harness.redis.url();
    let variables = [
        ("REDIS_URL", url.as_str()),
        ("REDIS_LAYOUT", harness.layout.name()),
        ("WECHAT_APPID", harness.wechat.app_id()),
    ];
    let mut command = command(arguments, &variables);
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    command.stdout(file).stderr(Stdio::piped());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = output.await.unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    (output.status.code().expect("an exit code"), stderr)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_fails_and_a_closed_pipe_does_not() {
    let harness = Harness::new(Layout::Hashes).await;
    for user in 0..2_000 {
        harness.put_access(&format!("o{user}"), format!("a{user}#1"));
    }
    for arguments in [
        &["list"][..],
        &["list", "--json"],
        &["list", "--limit", "1"],
        &["show", "o1", "o2"],
        &["sweep", "--dry-run"],
        &["migrate", "--to", "keys", "--dry-run", "--json"],
        &["--help"],
        &["--version"],
    ] {
        let (code, says) = written_to(&harness, "/dev/full", arguments).await;
        assert_eq!(code, 1, "{arguments:?}: {says}");
        assert_eq!(says.lines().count(), 1, "{arguments:?}: {says}");
        assert!(
            says.contains("could not be written"),
            "{arguments:?}: {says}"
        );
    }
    // If stdout and stderr are both full, only the exit code reports the failure.
    let mut both = command(&["list"], &[("WECHAT_APPID", "wx1")]);
    let full = || {
        std::fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap()
    };
    both.stdout(full()).stderr(full());
    assert_eq!(both.status().unwrap().code(), Some(2));

    // The reader of a pipe closes it after the first line, which is not a failure.
    let url = harness.redis.url();
    let variables = [
        ("REDIS_URL", url.as_str()),
        ("WECHAT_APPID", harness.wechat.app_id()),
    ];
    let mut listing = command(&["list", "--pause-ms", "50"], &variables)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let ended = tokio::task::spawn_blocking(move || {
        let mut lines = BufReader::new(listing.stdout.take().unwrap()).lines();
        lines.next().expect("a user").unwrap();
        drop(lines);
        listing.wait_with_output().unwrap()
    });
    let ended = ended.await.unwrap();
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(String::from_utf8(ended.stderr).unwrap(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_not_utf8_are_counted() {
    let harness = Harness::new(Layout::Hashes).await;
    let mut redis = harness.connection();
    harness.sign_in("oA", Age::Fresh).await;
    // Names that Java has serialized in both hashes, and other bytes in one of them.
    let java = b"\xac\xed\x00\x05t\x00\x05oJava";
    for hash in ["user.wxUserAccessToken", "user.wxUserRefreshToken"] {
        let _: () = redis.hset(hash, &java[..], "tok#1").unwrap();
    }
    let _: () = redis
        .hset("user.wxUserAccessToken", &b"\xff\xfe"[..], "tok#1")
        .unwrap();
    let listed = on(&harness, &["list", "--json"], &[]).await;
    assert_eq!((listed.code, listed.lines().len()), (0, 1));
    assert!(
        listed.stderr.contains("2 users are not listed"),
        "{}",
        listed.stderr
    );
    assert!(
        listed.stderr.contains("StringRedisTemplate"),
        "{}",
        listed.stderr
    );

    let dry = on(&harness, &["sweep", "--dry-run", "--json"], &[])
        .await
        .result();
    assert_eq!(
        (&dry["seen"], &dry["not_utf8"]),
        (&5.into(), &3.into()),
        "{dry}"
    );
    let text = on(&harness, &["sweep", "--dry-run"], &[]).await.stdout;
    assert!(text.contains("3 have names that are not UTF-8"), "{text}");

    let copied = on(&harness, &["migrate", "--to", "keys", "--json"], &[])
        .await
        .result();
    assert_eq!(
        (&copied["written"], &copied["not_utf8"]),
        (&1.into(), &2.into()),
        "{copied}"
    );
    assert_eq!(copied["unreadable"], 2, "{copied}");
    let prefix = harness.key("");
    let _: () = redis
        .set([prefix.as_bytes(), b"\xff"].concat(), "tok#1")
        .unwrap();
    let key = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=";
    let sealed = on(&harness, &["reseal", "--json"], &[("SEALING_KEY", key)])
        .await
        .result();
    assert_eq!(
        (&sealed["written"], &sealed["not_utf8"]),
        (&2.into(), &3.into()),
        "{sealed}"
    );
}

/// Implausible times do not stop the program.
#[tokio::test(flavor = "multi_thread")]
async fn absurd_times_are_listed_and_not_swept() {
    let harness = Harness::new(Layout::Hashes).await;
    harness.sign_in("oA", Age::Fresh).await;
    let mut odd = Vec::new();
    for (at, time) in [i64::MIN, -1, 0, 1_000_000_000_000_000_000, i64::MAX]
        .iter()
        .enumerate()
    {
        let user = format!("oOdd{at}");
        harness.put_access(&user, format!("access{at}#{time}"));
        harness.put_refresh(&user, format!("refresh{at}#{time}"));
        odd.push(user);
    }
    let listed = on(&harness, &["list", "--json"], &[]).await;
    assert_eq!(
        (listed.code, listed.lines().len()),
        (0, 6),
        "{}",
        listed.stderr
    );
    for line in listed.lines() {
        if line["user"] != "oA" {
            assert_eq!(line["refresh_due_in_secs"], json!(null), "{line}");
        }
    }
    let swept = on(&harness, &["sweep", "--json"], &[]).await.result();
    // The program reads all fields: two for each of the six users.
    assert_eq!(swept["seen"], 12, "{swept}");
    let key = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=";
    let sealed = on(&harness, &["reseal", "--json"], &[("SEALING_KEY", key)]).await;
    assert_eq!(sealed.code, 0, "{}{}", sealed.stdout, sealed.stderr);
}

/// A key of another type among the keys of users counts as one unreadable user, and the program
/// continues.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_another_type_stops_nothing() {
    let harness = Harness::new(Layout::Keys).await;
    for user in ["oA", "oB"] {
        harness.sign_in(user, Age::Fresh).await;
    }
    let mut redis = harness.connection();
    let _: () = redis.rpush(harness.key("oList"), "a").unwrap();
    let listed = on(&harness, &["list", "--json"], &[]).await;
    assert_eq!(
        (listed.code, listed.lines().len()),
        (0, 3),
        "{}",
        listed.stderr
    );
    let odd = on(&harness, &["list", "--state", "unreadable", "--json"], &[]).await;
    assert_eq!(odd.lines()[0]["user"], "oList");
    let key = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=";
    for (arguments, variables, written) in [
        (&["migrate", "--to", "hashes", "--json"][..], &[][..], 2),
        // In this direction the program would replace the list, and writes nothing.
        (&["migrate", "--to", "keys", "--json"], &[], 0),
        (&["reseal", "--json"], &[("SEALING_KEY", key)], 4),
    ] {
        let ran = on(&harness, arguments, variables).await;
        let done = &ran.lines()[0];
        assert_eq!(done["written"], written, "{arguments:?}: {done}");
        let unreadable = u64::from(!arguments.contains(&"keys"));
        assert_eq!(done["unreadable"], unreadable, "{arguments:?}: {done}");
        assert_eq!(ran.code, i32::from(unreadable > 0), "{}", ran.stderr);
    }
    // The hashes have a pair for the user whose key is a list. The program does not replace the
    // list.
    let later = now_ms() + 3_600_000;
    harness.put_access("oList", format!("token#{later}"));
    let migrate = ["migrate", "--to", "keys", "--json"];
    let ran = on(&harness, &migrate, &[("SEALING_KEY", key)]).await;
    assert_eq!(
        (ran.code, &ran.lines()[0]["unreadable"]),
        (1, &json!(1)),
        "{}",
        ran.stderr
    );
    assert_eq!(redis.llen::<_, i64>(harness.key("oList")).unwrap(), 1);
}
