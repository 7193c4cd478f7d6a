//! Tests of the deletion of a pair while another process may hold the successor of the pair.

use ::redis::Commands;

use super::*;

/// Returns a record with a new refresh token, as after a renewal.
fn successor(kind: CredentialKind, token: &str) -> Record {
    let mut record = record(kind, token);
    if let Some(refresh) = &mut record.refresh {
        refresh.secret = RefreshToken::from(format!("refresh-of-{token}").as_str());
    }
    record
}

/// Stores the first pair of a user, and so removes an earlier tombstone. Returns the stored values.
async fn store_first_pair(store: &dyn Store, slot: &CredentialSlot) -> Expected {
    let first = record(slot.key.kind, "t1");
    store.overwrite(slot, &first).await.unwrap();
    store.load(slot).await.unwrap().expected
}

async fn delete_pair(store: &dyn Store, slot: &CredentialSlot, expected: &Expected) {
    let owner = acquire(store, slot, expected).await;
    let commit = store.commit_deletion(slot, expected, &owner).await.unwrap();
    assert!(matches!(commit, CommitResult::Committed));
    assert!(store.load(slot).await.unwrap().record.is_empty());
}

/// Runs a check on every store, only for users, because only users have refresh tokens.
async fn for_users_on_every_store(check: impl AsyncFn(&dyn Store, &CredentialSlot)) {
    on_every_store(async |store, slot| {
        if slot.key.kind == CredentialKind::User {
            check(store, &slot).await;
            store.overwrite(&slot, &Record::default()).await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn the_successor_of_a_deleted_pair_is_committed() {
    for_users_on_every_store(async |store, slot| {
        let expected = store_first_pair(store, slot).await;
        let late = LeaseOwner::unique();
        delete_pair(store, slot, &expected).await;
        let newer = successor(CredentialKind::User, "t2");
        let commit = store.commit(slot, &expected, &newer, &late).await.unwrap();
        assert!(
            matches!(commit, CommitResult::Committed),
            "{store:?}: {commit:?}"
        );
        assert_eq!(store.load(slot).await.unwrap().record, newer);
        // The commit has removed the tombstone, so a second such commit fails.
        let now = store.load(slot).await.unwrap().expected;
        let owner = acquire(store, slot, &now).await;
        let nothing = Record::default();
        store.commit(slot, &now, &nothing, &owner).await.unwrap();
        let commit = store.commit(slot, &expected, &newer, &late).await.unwrap();
        assert!(matches!(commit, CommitResult::Conflict(now) if now.record.is_empty()));
    })
    .await;
}

#[tokio::test]
async fn the_successor_is_committed_despite_an_announced_deletion() {
    for_users_on_every_store(async |store, slot| {
        let expected = store_first_pair(store, slot).await;
        let late = LeaseOwner::unique();
        let deleter = acquire(store, slot, &expected).await;
        let newer = successor(CredentialKind::User, "t2");
        let commit = store.commit(slot, &expected, &newer, &late).await.unwrap();
        assert!(
            matches!(commit, CommitResult::LeaseLost),
            "no deletion is announced"
        );
        let announced = store
            .announce_deletion(slot, &expected, &deleter, LEASE)
            .await;
        assert!(matches!(announced.unwrap(), LeaseResult::Acquired));
        let third = LeaseOwner::unique();
        let result = store
            .acquire_lease(slot, &expected, &third, LEASE)
            .await
            .unwrap();
        assert!(
            matches!(result, LeaseResult::Busy),
            "a third process does not renew"
        );
        let commit = store.commit(slot, &expected, &newer, &late).await.unwrap();
        assert!(
            matches!(commit, CommitResult::Committed),
            "{store:?}: {commit:?}"
        );
        let gone = store
            .commit_deletion(slot, &expected, &deleter)
            .await
            .unwrap();
        assert!(matches!(gone, CommitResult::Conflict(now) if now.record == newer));
        // The failed deletion has released the lease.
        let now = store.load(slot).await.unwrap().expected;
        let owner = acquire(store, slot, &now).await;
        store.release_lease(slot, &owner).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn an_announcement_compares_and_needs_the_lease() {
    for_users_on_every_store(async |store, slot| {
        let expected = store_first_pair(store, slot).await;
        let owner = acquire(store, slot, &expected).await;
        let another = LeaseOwner::unique();
        let announced = store.announce_deletion(slot, &expected, &another, LEASE);
        assert!(matches!(announced.await.unwrap(), LeaseResult::Busy));
        let login = successor(CredentialKind::User, "login");
        store.overwrite(slot, &login).await.unwrap();
        let announced = store
            .announce_deletion(slot, &expected, &owner, LEASE)
            .await;
        assert!(matches!(announced.unwrap(), LeaseResult::Conflict(now) if now.record == login));
        let gone = store
            .commit_deletion(slot, &expected, &owner)
            .await
            .unwrap();
        assert!(matches!(gone, CommitResult::Conflict(now) if now.record == login));
    })
    .await;
}

#[tokio::test]
async fn a_late_commit_undoes_no_logout_or_login() {
    for_users_on_every_store(async |store, slot| {
        let (late, newer) = (LeaseOwner::unique(), successor(CredentialKind::User, "t2"));
        let login = successor(CredentialKind::User, "login");
        for announced in [false, true] {
            let expected = store_first_pair(store, slot).await;
            if announced {
                let owner = acquire(store, slot, &expected).await;
                let result = store.announce_deletion(slot, &expected, &owner, LEASE);
                assert!(matches!(result.await.unwrap(), LeaseResult::Acquired));
                store.release_lease(slot, &owner).await.unwrap();
            } else {
                delete_pair(store, slot, &expected).await;
            }
            store.overwrite(slot, &Record::default()).await.unwrap();
            let commit = store.commit(slot, &expected, &newer, &late).await.unwrap();
            assert!(
                matches!(commit, CommitResult::Conflict(now) if now.record.is_empty()),
                "{store:?}: after a logout"
            );
            let expected = store_first_pair(store, slot).await;
            delete_pair(store, slot, &expected).await;
            let nothing = store.load(slot).await.unwrap().expected;
            let replaced = store.replace(slot, &nothing, &login).await.unwrap();
            assert!(matches!(replaced, ReplaceResult::Replaced));
            let commit = store.commit(slot, &expected, &newer, &late).await.unwrap();
            assert!(matches!(commit, CommitResult::Conflict(now) if now.record == login));
            store.overwrite(slot, &Record::default()).await.unwrap();
            let commit = store.commit(slot, &expected, &newer, &late).await.unwrap();
            assert!(matches!(commit, CommitResult::Conflict(now) if now.record.is_empty()));
        }
    })
    .await;
}

/// WeChat has rejected the refresh token of the deleted pair. A commit with the same refresh token
/// fails.
#[tokio::test]
async fn a_rejected_refresh_token_is_not_restored() {
    for_users_on_every_store(async |store, slot| {
        let expected = store_first_pair(store, slot).await;
        let late = LeaseOwner::unique();
        delete_pair(store, slot, &expected).await;
        let same = record(CredentialKind::User, "t2");
        let commit = store.commit(slot, &expected, &same, &late).await.unwrap();
        assert!(matches!(commit, CommitResult::Conflict(now) if now.record.is_empty()));
    })
    .await;
}

#[tokio::test]
async fn a_tombstone_covers_one_refresh_token() {
    for_users_on_every_store(async |store, slot| {
        let before = store_first_pair(store, slot).await;
        let login = successor(CredentialKind::User, "login");
        store.overwrite(slot, &login).await.unwrap();
        let expected = store.load(slot).await.unwrap().expected;
        delete_pair(store, slot, &expected).await;
        let (late, newer) = (LeaseOwner::unique(), successor(CredentialKind::User, "t2"));
        let commit = store.commit(slot, &before, &newer, &late).await.unwrap();
        assert!(matches!(commit, CommitResult::Conflict(now) if now.record.is_empty()));
    })
    .await;
}

/// A deletion without a rejection by WeChat leaves no tombstone, for example the deletion by an
/// operator.
#[tokio::test]
async fn an_empty_commit_leaves_no_tombstone() {
    for_users_on_every_store(async |store, slot| {
        let expected = store_first_pair(store, slot).await;
        let owner = acquire(store, slot, &expected).await;
        let nothing = Record::default();
        let commit = store.commit(slot, &expected, &nothing, &owner).await;
        assert!(matches!(commit.unwrap(), CommitResult::Committed));
        let (late, newer) = (LeaseOwner::unique(), successor(CredentialKind::User, "t2"));
        let commit = store.commit(slot, &expected, &newer, &late).await.unwrap();
        assert!(matches!(commit, CommitResult::Conflict(now) if now.record.is_empty()));
    })
    .await;
}

#[tokio::test]
async fn a_tombstone_expires_and_holds_no_token() {
    let server = RedisServer::start();
    for layout in [Layout::Hashes, Layout::Keys] {
        let store = connect_redis(&server, layout).await;
        let slot = slot(CredentialKind::User, "oA");
        let expected = store_first_pair(&store, &slot).await;
        delete_pair(&store, &slot, &expected).await;
        let mut connection = server.connection();
        let keys: Vec<String> = connection.keys("wechat:wx1:tombstone:*").unwrap();
        let [key] = keys.as_slice() else {
            panic!("{keys:?}");
        };
        // The TTL of the tombstone is 32 days, the longest TTL of a copy in the other layout.
        let (ttl, day): (u64, u64) = (connection.pttl(key).unwrap(), 24 * 3_600_000);
        assert!((31 * day..=33 * day).contains(&ttl), "{ttl}");
        let value: String = connection.get(key).unwrap();
        assert!(!value.contains("refresh"), "{value}");
        let _: () = connection.del(key).unwrap();
    }
}
