//! Tests of lost leases, lost replies, and the release of leases.

use super::explore::{explore_networks, join_all};
use super::harness::{spawn, with_harness};
use super::wechat::TokenAge;

#[test]
fn lost_replies_lose_no_renewed_pair() {
    explore_networks("lost replies", |network| {
        with_harness(network, TokenAge::Stale, true, async |harness| {
            harness.listen(0);
            harness.listen(1);
            harness.lose_replies(3);
            let tasks = [
                spawn(&harness, async |harness| harness.get(0).await),
                spawn(&harness, async |harness| harness.get(0).await),
                spawn(&harness, async |harness| harness.get(1).await),
            ];
            join_all(tasks).await;
            harness.assert_quiescent(true).await;
            harness.get(0).await;
            harness.get(1).await;
        });
    });
}

/// In this test two processes may renew at once, because the store loses the lease. The grant to
/// one process then revokes the refresh token with which the other process renews.
#[test]
fn a_lost_lease_loses_no_pair_and_forces_no_login() {
    explore_networks("a lost lease", |network| {
        with_harness(network, TokenAge::Expired, true, async |harness| {
            let tasks = [
                spawn(&harness, async |harness| harness.get(0).await),
                spawn(&harness, async |harness| harness.get(1).await),
                spawn(&harness, async |harness| harness.lose_lease().await),
            ];
            join_all(tasks).await;
            harness.assert_quiescent(false).await;
            let (written, granted) = harness.history();
            assert_eq!(
                written.last(),
                Some(&Some(granted)),
                "nothing lost: {written:?}"
            );
            assert!(!written.contains(&None), "{written:?}");
        });
    });
}

#[test]
fn a_logout_beside_a_lost_lease_is_final() {
    explore_networks("a logout beside a lost lease", |network| {
        with_harness(network, TokenAge::Expired, true, async |harness| {
            let tasks = [
                spawn(&harness, async |harness| harness.get(0).await),
                spawn(&harness, async |harness| harness.get(1).await),
                spawn(&harness, async |harness| {
                    harness.lose_lease().await;
                    harness.revoke(1).await;
                }),
            ];
            join_all(tasks).await;
            harness.assert_quiescent(false).await;
            let (written, _) = harness.history();
            assert_eq!(written.last(), Some(&None), "newest wins: {written:?}");
        });
    });
}

/// In this test one process renews and no other process uses the lease. The lease of a request that
/// got no reply must be released without waiting for its expiry.
#[test]
fn a_lease_request_without_reply_is_released() {
    explore_networks("a lease request without reply", |network| {
        with_harness(network, TokenAge::Expired, true, async |harness| {
            harness.lose_replies(1);
            join_all([spawn(&harness, async |harness| harness.get(0).await)]).await;
            harness.assert_quiescent(false).await;
        });
    });
}

#[test]
fn a_detached_call_keeps_its_lease() {
    explore_networks("the lease of a detached call", |network| {
        with_harness(network, TokenAge::Expired, false, async |harness| {
            harness.delay_renewals(20);
            let tasks = [
                spawn(&harness, async |harness| harness.get(0).await),
                spawn(&harness, async |harness| {
                    // A call that is detached before it holds a lease shows nothing.
                    harness.wait_for_renewal().await;
                    harness.detach_calls();
                    harness.get(0).await;
                }),
            ];
            join_all(tasks).await;
            harness.assert_quiescent(false).await;
            assert_eq!(harness.renewals(0), 1, "one renewal");
        });
    });
}
