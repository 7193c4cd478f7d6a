//! Tests of `reseal`: it seals stored values, seals them with a new key, and opens them again.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use redis::Commands;

use super::program::on;
use crate::support::demo_process::DemoProcess;
use crate::support::harness::{Age, Harness, Layout, variables};

fn key(letter: u8) -> String {
    STANDARD.encode([letter; 32])
}

async fn demo(harness: &Harness, ring: &str) -> DemoProcess {
    let mut environment = harness.environment();
    environment.extend(variables(&[("SEALING_KEY", ring)]));
    DemoProcess::start(&environment).await
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_sealed_and_moved_to_a_new_key() {
    for layout in Layout::BOTH {
        let harness = Harness::new(layout).await;
        let (a, b) = (key(b'a'), key(b'b'));
        let both = format!("{b},{a}");
        let users: Vec<String> = (0..250).map(|at| format!("o{at}")).collect();
        let mut tokens = Vec::new();
        for user in &users {
            tokens.push(harness.sign_in(user, Age::Fresh).await.access_token);
        }
        let mut redis = harness.connection();
        if layout == Layout::Keys {
            let _: () = redis.expire(harness.key("o0"), 5_000).unwrap();
        }

        let dry = ["reseal", "--dry-run", "--json"];
        let would = on(&harness, &dry, &[("SEALING_KEY", &a)]).await.result();
        assert_eq!(
            (&would["written"], &would["same"]),
            (&250.into(), &0.into())
        );
        assert!(
            harness.stored("o0").unwrap().0 == tokens[0],
            "a dry run changes nothing"
        );

        let sealing = demo(&harness, &a).await;
        let sealed = on(&harness, &["reseal", "--json"], &[("SEALING_KEY", &a)]).await;
        assert!(
            sealed.result()["written"].as_u64() >= Some(250),
            "{}",
            sealed.stdout
        );
        let again = on(&harness, &["reseal", "--json"], &[("SEALING_KEY", &a)]).await;
        assert_eq!(again.result()["written"], 0);
        for (user, token) in users.iter().zip(&tokens).step_by(50) {
            assert_ne!(&harness.stored(user).unwrap().0, token);
            sealing.me(user).await.has_token(token);
        }

        let next = demo(&harness, &both).await;
        let moved = on(&harness, &["reseal", "--json"], &[("SEALING_KEY", &both)]).await;
        // At least the 250 users. The values that the demos have stored for the account count too.
        assert!(
            moved.result()["written"].as_u64() >= Some(250),
            "{}",
            moved.stdout
        );
        // The program has removed the old key from the registry of keys. A demo with only the new
        // key starts, and reads the tokens of all users.
        let last = demo(&harness, &b).await;
        for (user, token) in users.iter().zip(&tokens) {
            last.me(user).await.has_token(token);
        }
        next.me("o0").await.has_token(&tokens[0]);
        if layout == Layout::Keys {
            let ttl: i64 = redis.ttl(harness.key("o0")).unwrap();
            assert!(
                (4_000..=5_000).contains(&ttl),
                "lives as long as before: {ttl}"
            );
        }

        // If the key of the stored values is missing, the program fails and names the remedy.
        let wrong = on(&harness, &["reseal"], &[("SEALING_KEY", &a)]).await;
        assert_eq!(wrong.code, 1);
        assert!(
            wrong.stderr.contains("add the missing key"),
            "{}",
            wrong.stderr
        );
        drop((sealing, next, last));
        let open = [("SEALING_KEY", b.as_str()), ("SEALING_MODE", "open")];
        let opened = on(&harness, &["reseal", "--json"], &open).await;
        assert!(opened.result()["written"].as_u64() >= Some(250));
        assert_eq!(harness.stored("o7").unwrap().0, tokens[7]);
        harness.demo().await.me("o7").await.has_token(&tokens[7]);
    }
}

/// `reseal` publishes nothing: all subscribers would receive the plaintext of a sealed value.
#[tokio::test(flavor = "multi_thread")]
async fn unchanged_values_are_not_published() {
    for layout in Layout::BOTH {
        let harness = Harness::new(layout).await;
        harness.sign_in("oA", Age::Fresh).await;
        let key = key(b'a');
        let sealed = on(&harness, &["reseal", "--json"], &[("SEALING_KEY", &key)]).await;
        assert_eq!(sealed.result()["written"], 1, "{}", sealed.stdout);
        assert_eq!(harness.redis.calls("publish"), 0);
    }
}
