//! Tests of logins, logouts and missed invalidations that run concurrently with reads and renewals.

use super::explore::{explore, join_all};
use super::harness::{spawn, with_harness};
use super::wechat::TokenAge;

#[test]
fn a_remote_login_races_reads_and_a_renewal() {
    for race in [
        || remote_login_race(TokenAge::Fresh),
        || remote_login_race(TokenAge::Stale),
        || remote_login_race(TokenAge::Expired),
    ] {
        explore("a remote login", race);
    }
}

fn remote_login_race(age: TokenAge) {
    with_harness(age, false, async |harness| {
        harness.listen(0);
        harness.listen(1);
        let tasks = [
            spawn(&harness, async |harness| harness.get(0).await),
            spawn(&harness, async |harness| {
                harness.get(0).await;
                harness.get(0).await;
            }),
            spawn(&harness, async |harness| harness.log_in(1).await),
            spawn(&harness, async |harness| harness.get_after_login(0).await),
        ];
        join_all(tasks).await;
        harness.assert_quiescent(true).await;
        harness.get(0).await;
        harness.get(1).await;
    });
}

#[test]
fn a_local_login_detaches_running_calls() {
    explore("a local login", || {
        with_harness(TokenAge::Expired, false, async |harness| {
            let tasks = [
                spawn(&harness, async |harness| harness.get(0).await),
                spawn(&harness, async |harness| harness.get(0).await),
                spawn(&harness, async |harness| {
                    harness.log_in(0).await;
                    harness.get(0).await;
                }),
                spawn(&harness, async |harness| harness.report(0).await),
            ];
            join_all(tasks).await;
            harness.assert_quiescent(false).await;
            harness.get(0).await;
        });
    });
}

#[test]
fn the_cache_accepts_nothing_older() {
    explore("no invalidations", || {
        with_harness(TokenAge::Fresh, false, async |harness| {
            let tasks = [
                spawn(&harness, async |harness| {
                    harness.get_without_invalidations(0).await;
                }),
                spawn(&harness, async |harness| {
                    harness.get_without_invalidations(0).await;
                    harness.get_without_invalidations(0).await;
                }),
                spawn(&harness, async |harness| harness.log_in(1).await),
                spawn(&harness, async |harness| {
                    harness.get_without_invalidations(0).await;
                    harness.get_without_invalidations(0).await;
                }),
            ];
            join_all(tasks).await;
            harness.assert_quiescent(false).await;
        });
    });
}

#[test]
fn a_revoked_pair_stays_revoked() {
    explore("a revoked pair", || {
        with_harness(TokenAge::Stale, false, async |harness| {
            harness.listen(0);
            harness.listen(1);
            let tasks = [
                spawn(&harness, async |harness| harness.get(0).await),
                spawn(&harness, async |harness| {
                    harness.get(1).await;
                    harness.get(1).await;
                }),
                spawn(&harness, async |harness| {
                    harness.revoke(1).await;
                    harness.get(1).await;
                }),
                spawn(&harness, async |harness| {
                    harness.get(0).await;
                    harness.get(0).await;
                }),
            ];
            join_all(tasks).await;
            harness.assert_quiescent(true).await;
            harness.get(0).await;
        });
    });
}

/// In this test a call may start with a snapshot from before a logout. Requests after the logout
/// must not join such a call.
#[test]
fn a_logout_races_the_first_read_of_a_call() {
    explore("a logout", || {
        with_harness(TokenAge::Stale, false, async |harness| {
            let tasks = [
                spawn(&harness, async |harness| harness.get(0).await),
                spawn(&harness, async |harness| {
                    harness.revoke(0).await;
                    harness.get(0).await;
                }),
            ];
            join_all(tasks).await;
            harness.assert_quiescent(false).await;
            harness.get(0).await;
        });
    });
}

#[test]
fn a_missed_invalidation_invalidates_earlier_reads() {
    explore("a missed invalidation", || {
        with_harness(TokenAge::Fresh, false, async |harness| {
            let tasks = [
                spawn(&harness, async |harness| {
                    harness.get_without_invalidations(0).await;
                    harness.get_without_invalidations(0).await;
                }),
                spawn(&harness, async |harness| {
                    harness.get_without_invalidations(0).await;
                }),
                spawn(&harness, async |harness| harness.log_in(1).await),
                spawn(&harness, async |harness| {
                    harness.lose_invalidations(0);
                    harness.get_without_invalidations(0).await;
                }),
            ];
            join_all(tasks).await;
            harness.assert_quiescent(false).await;
        });
    });
}

#[test]
fn lost_replies_do_not_undo_an_invalidation() {
    explore("invalidations and lost replies", || {
        with_harness(TokenAge::Expired, true, async |harness| {
            harness.listen(0);
            harness.lose_replies(6);
            let tasks = [
                spawn(&harness, async |harness| {
                    harness.get(0).await;
                    harness.get(0).await;
                }),
                spawn(&harness, async |harness| harness.log_in(1).await),
                spawn(&harness, async |harness| {
                    harness.get(0).await;
                    harness.get(0).await;
                }),
            ];
            join_all(tasks).await;
            harness.assert_quiescent(false).await;
        });
    });
}
