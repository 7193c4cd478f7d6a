//! Tests of sealed values with several demos: changes of the keys while demos run, and wrong lists
//! of keys.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use redis::Commands;

use crate::support::demo_process::DemoProcess;
use crate::support::harness::{Age, Harness, Layout, variables};

fn key(letter: u8) -> String {
    STANDARD.encode([letter; 32])
}

/// Starts a demo that reads Redis on every request, with additional variables.
async fn demo(harness: &Harness, more: &[(&str, &str)]) -> DemoProcess {
    DemoProcess::start(&environment(harness, more)).await
}

fn environment(harness: &Harness, more: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut environment = harness.environment();
    environment.extend(variables(&[("CACHE_TTL_SECS", "0")]));
    environment.extend(variables(more));
    environment
}

/// Returns the stored values of a user: two in the hashes, or one record.
fn raw(harness: &Harness, user: &str) -> Vec<String> {
    let mut redis = harness.connection();
    match harness.layout {
        Layout::Hashes => ["user.wxUserAccessToken", "user.wxUserRefreshToken"]
            .map(|hash| redis.hget(hash, user).unwrap())
            .into(),
        Layout::Keys => vec![redis.get(harness.key(user)).unwrap()],
    }
}

fn is_sealed(harness: &Harness, user: &str) -> bool {
    let values = raw(harness, user);
    values.iter().all(|value| value.starts_with("#0#s1#"))
}

/// Demos change from plain values to sealed ones, and then to another key. At each step, a demo of
/// the step before still runs. Both serve every user, and each renewal causes one call.
#[tokio::test(flavor = "multi_thread")]
async fn sealing_keys_change_while_services_run() {
    for layout in Layout::BOTH {
        let harness = Harness::new(layout).await;
        let (a, b) = (key(b'a'), key(b'b'));
        let (a_then_b, b_then_a) = (format!("{a},{b}"), format!("{b},{a}"));
        let steps: [&[(&str, &str)]; 5] = [
            &[],
            &[("SEALING_KEY", &a), ("SEALING_MODE", "open")],
            &[("SEALING_KEY", &a)],
            &[("SEALING_KEY", &a_then_b)],
            &[("SEALING_KEY", &b_then_a)],
        ];
        let mut before = demo(&harness, steps[0]).await;
        for (at, step) in steps.iter().enumerate() {
            let after = demo(&harness, step).await;
            for (user, first, second) in [("oBefore", &before, &after), ("oAfter", &after, &before)]
            {
                let refreshes = harness.refreshes();
                let old = harness.sign_in(user, Age::Expired).await;
                // The demo that renews the pair writes it as its step requires, and the other one
                // reads it.
                let answer = first.me(user).await;
                let new = harness.wechat.current_pair(user).unwrap();
                assert_ne!(new.access_token, old.access_token);
                answer.has_token(&new.access_token);
                second.me(user).await.has_token(&new.access_token);
                assert_eq!(harness.refreshes(), refreshes + 1, "step {at}, {user}");
            }
            assert_eq!(is_sealed(&harness, "oAfter"), at >= 2, "step {at}");
            before = after;
        }
        // At the last step, the demo seals with the new key.
        let sealed = raw(&harness, "oAfter");
        let id = |text: &str| {
            let keys = tower_wechat::redis::SealingKeys::from_base64(text).unwrap();
            keys.ids().next().unwrap()
        };
        assert!(
            sealed.iter().all(|value| value.contains(&id(&b))),
            "{sealed:?}"
        );
        assert!(!before.log().contains("ERROR"), "{}", before.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_key_lists_are_reported_in_one_sentence() {
    let harness = Harness::new(Layout::Hashes).await;
    let (a, b) = (key(b'a'), key(b'b'));
    let twice = format!("{a},{a}");
    let _sealing = demo(&harness, &[("SEALING_KEY", &a)]).await;
    let cases: [(&[(&str, &str)], &str); 7] = [
        (&[("SEALING_KEY", &b)], "add the missing key"),
        (&[], "this process has no sealing keys"),
        (&[("SEALING_KEY", "c2hvcnQ=")], "it needs at least 32"),
        (&[("SEALING_KEY", "***")], "is not base64"),
        (
            &[("SEALING_KEY", &twice)],
            "sealing key 2 is sealing key 1 again",
        ),
        (
            &[("SEALING_KEY", &a), ("SEALING_MODE", "both")],
            "none of open, seal and require",
        ),
        (
            &[("SEALING_MODE", "seal")],
            "SEALING_MODE is set without SEALING_KEY",
        ),
    ];
    for (more, says) in cases {
        let ended = DemoProcess::start_in_vain(&environment(&harness, more)).await;
        let said = &ended.stderr;
        assert_eq!(ended.status.code(), Some(1), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains(says), "{said}");
        assert!(!said.contains(&a) && !said.contains(&b), "{said}");
    }
}
