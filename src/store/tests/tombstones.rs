//! What becomes of a pair that is deleted while another process may hold its successor.

use super::*;

/// A pair that WeChat has granted for another refresh token.
fn successor(kind: CredentialKind, token: &str) -> Record {
    let mut record = record(kind, token);
    let refresh = RefreshToken::from(format!("refresh-of-{token}").as_str());
    if let Some(now) = &mut record.refresh {
        now.secret = refresh;
    }
    record
}

/// Stores a pair and returns its proof, with no lease and no tombstone left from before.
async fn store_first_pair(store: &dyn Store, slot: &CredentialSlot) -> Expected {
    let first = record(slot.key.kind, "t1");
    store.overwrite(slot, &first).await.unwrap();
    store.load(slot).await.unwrap().expected
}

async fn acquire(store: &dyn Store, slot: &CredentialSlot, witness: &Expected) -> LeaseOwner {
    let owner = LeaseOwner::unique();
    let claim = store
        .acquire_lease(slot, witness, &owner, LEASE)
        .await
        .unwrap();
    assert!(matches!(claim, LeaseResult::Acquired));
    owner
}

async fn delete_pair(store: &dyn Store, slot: &CredentialSlot, witness: &Expected) {
    let owner = acquire(store, slot, witness).await;
    let commit = store.commit_deletion(slot, witness, &owner).await.unwrap();
    assert!(matches!(commit, CommitResult::Committed));
    assert!(store.load(slot).await.unwrap().record.is_empty());
}

/// Runs a check for users on every store: only they have refresh tokens.
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
        let witness = store_first_pair(store, slot).await;
        let late = LeaseOwner::unique();
        delete_pair(store, slot, &witness).await;
        let newer = successor(CredentialKind::User, "t2");
        let commit = store.commit(slot, &witness, &newer, &late).await.unwrap();
        assert!(
            matches!(commit, CommitResult::Committed),
            "{store:?}: {commit:?}"
        );
        assert_eq!(store.load(slot).await.unwrap().record, newer);
        // Once: the tombstone is gone with it.
        let now = store.load(slot).await.unwrap().expected;
        let owner = acquire(store, slot, &now).await;
        let nothing = Record::default();
        store.commit(slot, &now, &nothing, &owner).await.unwrap();
        let commit = store.commit(slot, &witness, &newer, &late).await.unwrap();
        assert!(matches!(commit, CommitResult::Conflict(now) if now.record.is_empty()));
    })
    .await;
}

#[tokio::test]
async fn the_successor_is_committed_despite_an_announced_deletion() {
    for_users_on_every_store(async |store, slot| {
        let witness = store_first_pair(store, slot).await;
        let (late, told) = (LeaseOwner::unique(), acquire(store, slot, &witness).await);
        let newer = successor(CredentialKind::User, "t2");
        let commit = store.commit(slot, &witness, &newer, &late).await.unwrap();
        assert!(
            matches!(commit, CommitResult::LeaseLost),
            "nothing is announced"
        );
        let announced = store.announce_deletion(slot, &witness, &told, LEASE).await;
        assert!(matches!(announced.unwrap(), LeaseResult::Acquired));
        let third = LeaseOwner::unique();
        let claim = store
            .acquire_lease(slot, &witness, &third, LEASE)
            .await
            .unwrap();
        assert!(
            matches!(claim, LeaseResult::Busy),
            "WeChat is not asked again"
        );
        let commit = store.commit(slot, &witness, &newer, &late).await.unwrap();
        assert!(
            matches!(commit, CommitResult::Committed),
            "{store:?}: {commit:?}"
        );
        let gone = store.commit_deletion(slot, &witness, &told).await.unwrap();
        assert!(matches!(gone, CommitResult::Conflict(now) if now.record == newer));
        // The lease of the process that was told is given back.
        let now = store.load(slot).await.unwrap().expected;
        let owner = acquire(store, slot, &now).await;
        store.release_lease(slot, &owner).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn announcing_a_deletion_compares_and_needs_the_lease() {
    for_users_on_every_store(async |store, slot| {
        let witness = store_first_pair(store, slot).await;
        let owner = acquire(store, slot, &witness).await;
        let stranger = LeaseOwner::unique();
        let announced = store.announce_deletion(slot, &witness, &stranger, LEASE);
        assert!(matches!(announced.await.unwrap(), LeaseResult::Busy));
        let login = successor(CredentialKind::User, "login");
        store.overwrite(slot, &login).await.unwrap();
        let announced = store.announce_deletion(slot, &witness, &owner, LEASE).await;
        assert!(matches!(announced.unwrap(), LeaseResult::Conflict(now) if now.record == login));
        let gone = store.commit_deletion(slot, &witness, &owner).await.unwrap();
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
            let witness = store_first_pair(store, slot).await;
            if announced {
                let owner = acquire(store, slot, &witness).await;
                let claim = store.announce_deletion(slot, &witness, &owner, LEASE);
                assert!(matches!(claim.await.unwrap(), LeaseResult::Acquired));
                store.release_lease(slot, &owner).await.unwrap();
            } else {
                delete_pair(store, slot, &witness).await;
            }
            store.overwrite(slot, &Record::default()).await.unwrap();
            let commit = store.commit(slot, &witness, &newer, &late).await.unwrap();
            assert!(
                matches!(commit, CommitResult::Conflict(now) if now.record.is_empty()),
                "{store:?}: a logout"
            );
            let witness = store_first_pair(store, slot).await;
            delete_pair(store, slot, &witness).await;
            store.overwrite(slot, &login).await.unwrap();
            let commit = store.commit(slot, &witness, &newer, &late).await.unwrap();
            assert!(matches!(commit, CommitResult::Conflict(now) if now.record == login));
            store.overwrite(slot, &Record::default()).await.unwrap();
            let commit = store.commit(slot, &witness, &newer, &late).await.unwrap();
            assert!(matches!(commit, CommitResult::Conflict(now) if now.record.is_empty()));
        }
    })
    .await;
}

/// WeChat has said after the grant that this refresh token is dead.
#[tokio::test]
async fn a_pair_with_the_dead_refresh_token_is_not_restored() {
    for_users_on_every_store(async |store, slot| {
        let witness = store_first_pair(store, slot).await;
        let late = LeaseOwner::unique();
        delete_pair(store, slot, &witness).await;
        let same = record(CredentialKind::User, "t2");
        let commit = store.commit(slot, &witness, &same, &late).await.unwrap();
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
        let witness = store.load(slot).await.unwrap().expected;
        delete_pair(store, slot, &witness).await;
        let (late, newer) = (LeaseOwner::unique(), successor(CredentialKind::User, "t2"));
        let commit = store.commit(slot, &before, &newer, &late).await.unwrap();
        assert!(matches!(commit, CommitResult::Conflict(now) if now.record.is_empty()));
    })
    .await;
}

/// A deletion that nobody was told by WeChat to make, such as an operator's, leaves no tombstone.
#[tokio::test]
async fn an_empty_commit_leaves_no_tombstone() {
    for_users_on_every_store(async |store, slot| {
        let witness = store_first_pair(store, slot).await;
        let owner = acquire(store, slot, &witness).await;
        let nothing = Record::default();
        let commit = store.commit(slot, &witness, &nothing, &owner).await;
        assert!(matches!(commit.unwrap(), CommitResult::Committed));
        let (late, newer) = (LeaseOwner::unique(), successor(CredentialKind::User, "t2"));
        let commit = store.commit(slot, &witness, &newer, &late).await.unwrap();
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
        let witness = store_first_pair(&store, &slot).await;
        delete_pair(&store, &slot, &witness).await;
        let mut connection = server.connection();
        let keys: Vec<String> = connection.keys("wechat:wx1:tombstone:*").unwrap();
        let [key] = keys.as_slice() else {
            panic!("{keys:?}");
        };
        // As long as a copy of the pair may look alive.
        let (life, day): (u64, u64) = (connection.pttl(key).unwrap(), 24 * 3_600_000);
        assert!((31 * day..=33 * day).contains(&life), "{life}");
        let value: String = connection.get(key).unwrap();
        assert!(!value.contains("refresh"), "{value}");
        let _: () = connection.del(key).unwrap();
    }
}

#[tokio::test]
async fn release_reports_whether_the_lease_was_owned() {
    on_every_store(async |store, slot| {
        store
            .overwrite(&slot, &record(slot.key.kind, "t1"))
            .await
            .unwrap();
        let witness = store.load(&slot).await.unwrap().expected;
        let (ours, theirs) = (acquire(store, &slot, &witness).await, LeaseOwner::unique());
        assert!(!store.release_lease(&slot, &theirs).await.unwrap());
        assert!(store.release_lease(&slot, &ours).await.unwrap());
        assert!(!store.release_lease(&slot, &ours).await.unwrap());
        let code = LoginCodeKey::new(&slot.key.app, &format!("{theirs:?}"));
        store.acquire_code(&code, &ours, LEASE).await.unwrap();
        assert!(!store.release_code(&code, &theirs).await.unwrap());
        assert!(store.release_code(&code, &ours).await.unwrap());
        assert!(!store.release_code(&code, &ours).await.unwrap());
        let claim = store.acquire_code(&code, &theirs, LEASE).await.unwrap();
        assert_eq!(claim, CodeLeaseResult::Acquired);
        store
            .finish_code(&code, Some(&theirs), "done", LEASE)
            .await
            .unwrap();
        assert!(!store.release_code(&code, &theirs).await.unwrap());
    })
    .await;
}
