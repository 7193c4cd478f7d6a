//! Tests of logins, logouts and missed invalidations that run concurrently with reads and renewals.

use super::batched_store::Network;
use super::explore::{explore_networks, join_all};
use super::harness::{spawn, with_harness};
use super::wechat::TokenAge;

#[test]
fn a_remote_login_races_reads_and_a_renewal() {
    for race in [
        |network| remote_login_race(network, TokenAge::Fresh),
        |network| remote_login_race(network, TokenAge::Stale),
        |network| remote_login_race(network, TokenAge::Expired),
    ] {
        explore_networks("a remote login", race);
    }
}

fn remote_login_race(network: Network, age: TokenAge) {
    with_harness(network, age, false, async |harness| {
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
    explore_networks("a local login", |network| {
        with_harness(network, TokenAge::Expired, false, async |harness| {
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

/// The login of process 0 could not be stored at once, and the user has logged in again.
#[test]
fn a_late_login_replaces_no_later_one() {
    explore_networks("a late login", |network| {
        with_harness(network, TokenAge::Stale, true, async |harness| {
            let [early, late] = [(); 2].map(|()| harness.granted_login());
            harness.lose_replies(3);
            let tasks = [
                spawn(&harness, async move |harness| {
                    harness.store_login(0, &early, true).await;
                }),
                spawn(&harness, async move |harness| {
                    harness.store_login(1, &late, false).await;
                }),
                spawn(&harness, async |harness| harness.get(0).await),
            ];
            join_all(tasks).await;
            harness.assert_quiescent(false).await;
            let (written, newest) = harness.history();
            assert_eq!(
                written.last(),
                Some(&Some(newest)),
                "newest wins: {written:?}"
            );
        });
    });
}

#[test]
fn the_cache_accepts_nothing_older() {
    explore_networks("no invalidations", |network| {
        with_harness(network, TokenAge::Fresh, false, async |harness| {
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
    explore_networks("a revoked pair", |network| {
        with_harness(network, TokenAge::Stale, false, async |harness| {
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
    explore_networks("a logout", |network| {
        with_harness(network, TokenAge::Stale, false, async |harness| {
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
    explore_networks("a missed invalidation", |network| {
        with_harness(network, TokenAge::Fresh, false, async |harness| {
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
    explore_networks("invalidations and lost replies", |network| {
        with_harness(network, TokenAge::Expired, true, async |harness| {
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
