//! Tests of concurrent requests, and of calls that end, are detached or are aborted.

use super::explore::{explore_networks, join_all, random_number};
use super::harness::{spawn, with_harness};
use super::tasks::abort_calls_after;
use super::wechat::TokenAge;

#[test]
fn concurrent_requests_renew_once() {
    explore_networks("concurrent requests", |network| {
        with_harness(network, TokenAge::Expired, false, async |harness| {
            let requests =
                [0, 0, 0, 1].map(|at| spawn(&harness, async move |harness| harness.get(at).await));
            join_all(requests).await;
            harness.assert_quiescent(false).await;
            assert_eq!(harness.renewals(0), 1, "one renewal");
        });
    });
}

/// In this test a detached call ends while the next call for the same credential runs.
#[test]
fn a_finished_call_removes_only_itself() {
    explore_networks("a detached call and its successor", |network| {
        with_harness(network, TokenAge::Expired, true, async |harness| {
            harness.block_store(true);
            abort_calls_after(Some(random_number(0..6)));
            harness.join_call();
            harness.detach_calls();
            abort_calls_after(None);
            let successor = harness.join_call();
            let joins = [0, 1].map(|_| {
                spawn(&harness, async move |harness| {
                    for _ in 0..4 {
                        assert_eq!(
                            harness.join_call(),
                            successor,
                            "one renewal: two calls run at once"
                        );
                        shuttle::future::yield_now().await;
                    }
                })
            });
            join_all(joins).await;
            harness.block_store(false);
            harness.assert_quiescent(false).await;
        });
    });
}

#[test]
fn aborted_calls_and_callers_leave_nothing_behind() {
    explore_networks("aborted calls", |network| {
        with_harness(network, TokenAge::Expired, true, async |harness| {
            abort_calls_after(Some(random_number(0..12)));
            let dropped = spawn(&harness, async |harness| harness.get(0).await);
            let others =
                [0, 0].map(|at| spawn(&harness, async move |harness| harness.get(at).await));
            dropped.abort();
            join_all(others).await;
            abort_calls_after(None);
            // An aborted call spawns a task that releases its lease.
            join_all([spawn(&harness, async |harness| harness.get(0).await)]).await;
            harness.assert_quiescent(false).await;
        });
    });
}
