//! Tests of several steps and reads of the same user in one batch.

use super::*;

/// The owners of the leases of each user.
type Owners = Vec<[LeaseOwner; 2]>;

fn two_owners_each() -> Owners {
    let pair = || [LeaseOwner::unique(), LeaseOwner::unique()];
    (0..MANY).map(|_| pair()).collect()
}

/// Acquires the lease of each user for two owners at the same time. Returns the owners of each
/// user, the winner first.
async fn acquire_pairs(
    store: &RedisStore,
    users: &[CredentialSlot],
    expected: &[Expected],
) -> Owners {
    let owners = two_owners_each();
    let mut attempts = Vec::new();
    for ((user, expected), owners) in users.iter().zip(expected).zip(&owners) {
        for owner in owners {
            attempts.push(store.acquire_lease(user, expected, owner, LEASE));
        }
    }
    let mut results = join_all(attempts).await.into_iter();
    let mut winners_first = Vec::new();
    for [first, second] in owners {
        let mut next = || results.next().unwrap().unwrap();
        winners_first.push(match (next(), next()) {
            (LeaseResult::Acquired, LeaseResult::Busy) => [first, second],
            (LeaseResult::Busy, LeaseResult::Acquired) => [second, first],
            results => panic!("{results:?}"),
        });
    }
    winners_first
}

/// Commits two records of each user at the same time, of the generations `first` and `second`.
async fn commit_pairs(
    store: &RedisStore,
    users: &[CredentialSlot],
    expected: &[Expected],
    owners: &Owners,
) -> Vec<CommitResult> {
    let mut commits = Vec::new();
    for ((user, expected), owners) in users.iter().zip(expected).zip(owners) {
        for (owner, generation) in owners.iter().zip(["first", "second"]) {
            let record = record_of(user, generation);
            commits.push(async move { store.commit(user, expected, &record, owner).await });
        }
    }
    let results = join_all(commits).await.into_iter();
    results.map(Result::unwrap).collect()
}

/// Checks that one of two commits of each user has won, and that the other one got its record.
async fn assert_one_wins(store: &RedisStore, users: &[CredentialSlot], results: &[CommitResult]) {
    let read = load_all(store, users).await;
    for ((user, results), read) in users.iter().zip(results.chunks(2)).zip(read) {
        let read = read.unwrap().record;
        let (winner, loser) = match results {
            [CommitResult::Committed, CommitResult::Conflict(now)] => ("first", now),
            [CommitResult::Conflict(now), CommitResult::Committed] => ("second", now),
            results => panic!("{results:?}"),
        };
        assert_eq!(loser.record, read);
        let token = read.token.unwrap().secret;
        assert_eq!(token.expose(), token_of(user, winner));
    }
}

#[tokio::test]
async fn one_of_two_owners_gets_the_lease() {
    let server = RedisServer::start();
    for layout in BOTH {
        let (store, users) = (connect_redis(&server, layout).await, users());
        let expected = store_first(&store, &users).await;
        let batches = server.calls("mget") + server.calls("hmget");
        let owners = acquire_pairs(&store, &users, &expected).await;
        assert!(server.calls("mget") + server.calls("hmget") > batches);
        // The other owner cannot commit, also at the same time.
        let results = commit_pairs(&store, &users, &expected, &owners).await;
        for results in results.chunks(2) {
            let [CommitResult::Committed, loser] = results else {
                panic!("{results:?}");
            };
            assert!(!matches!(loser, CommitResult::Committed), "{loser:?}");
        }
        assert_all_read(&users, load_all(&store, &users).await, "first");
    }
}

/// The leases of both owners have expired. The first commit wins.
#[tokio::test]
async fn one_of_two_late_owners_commits() {
    let server = RedisServer::start();
    for layout in BOTH {
        let (store, users) = (connect_redis(&server, layout).await, users());
        let expected = store_first(&store, &users).await;
        let results = commit_pairs(&store, &users, &expected, &two_owners_each()).await;
        assert_one_wins(&store, &users, &results).await;
    }
}

/// The owner of a lease commits two records at the same time, as after a reply that was lost.
#[tokio::test]
async fn one_of_two_commits_of_an_owner_wins() {
    let server = RedisServer::start();
    for layout in BOTH {
        let (store, users) = (connect_redis(&server, layout).await, users());
        let expected = store_first(&store, &users).await;
        let owners = owners(&users);
        for result in acquire_all(&store, &users, &expected, &owners).await {
            assert!(matches!(result.unwrap(), LeaseResult::Acquired));
        }
        let batches = server.calls("mget");
        let twice = owners.iter().map(|owner| [owner.clone(), owner.clone()]);
        let results = commit_pairs(&store, &users, &expected, &twice.collect()).await;
        assert_one_wins(&store, &users, &results).await;
        assert!(server.calls("mget") > batches);
    }
}

#[tokio::test]
async fn an_owner_acquires_its_lease_twice() {
    let server = RedisServer::start();
    for layout in BOTH {
        let (store, users) = (connect_redis(&server, layout).await, users());
        let expected = store_first(&store, &users).await;
        let owners = owners(&users);
        for _ in 0..2 {
            for result in acquire_all(&store, &users, &expected, &owners).await {
                assert!(matches!(result.unwrap(), LeaseResult::Acquired));
            }
        }
    }
}

/// Every reader of one user gets its record, and reads of other users in the batch get theirs.
#[tokio::test]
async fn many_reads_of_one_user_share_a_batch() {
    let server = RedisServer::start();
    for layout in BOTH {
        let (store, mut users) = (connect_redis(&server, layout).await, users());
        store_first(&store, &users).await;
        let (first, last) = (users[0].clone(), users[MANY - 1].clone());
        for at in (10..40).step_by(3) {
            users[at] = first.clone();
            users[at + 1] = last.clone();
        }
        assert_all_read(&users, load_all(&store, &users).await, "t1");
    }
}
