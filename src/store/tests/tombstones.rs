//! What becomes of a pair that is deleted while another process may hold its successor.

use super::*;

/// A pair that WeChat has granted for another refresh token.
fn successor(kind: Kind, token: &str) -> Record {
    let mut record = record(kind, token);
    let refresh = RefreshToken::from(format!("refresh-of-{token}").as_str());
    if let Some(now) = &mut record.refresh {
        now.secret = refresh;
    }
    record
}

/// Stores a pair and returns its proof, with no lease and no tombstone left from before.
async fn stored(store: &dyn Store, slot: &Slot) -> Witness {
    let first = record(slot.name.kind, "t1");
    store.put(slot, &first).await.unwrap();
    store.load(slot).await.unwrap().witness
}

async fn claimed(store: &dyn Store, slot: &Slot, witness: &Witness) -> LeaseOwner {
    let owner = LeaseOwner::unique();
    let claim = store.claim(slot, witness, &owner, LEASE).await.unwrap();
    assert!(matches!(claim, Claim::Granted));
    owner
}

async fn deleted(store: &dyn Store, slot: &Slot, witness: &Witness) {
    let owner = claimed(store, slot, witness).await;
    let commit = store.delete(slot, witness, &owner).await.unwrap();
    assert!(matches!(commit, Commit::Done));
    assert!(store.load(slot).await.unwrap().record.is_empty());
}

/// Runs a check for users on every store: only they have refresh tokens.
async fn for_users(check: impl AsyncFn(&dyn Store, &Slot)) {
    on_every_store(async |store, slot| {
        if slot.name.kind == Kind::User {
            check(store, &slot).await;
            store.put(&slot, &Record::default()).await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn r3_the_successor_of_a_deleted_pair_is_written() {
    for_users(async |store, slot| {
        let witness = stored(store, slot).await;
        let late = LeaseOwner::unique();
        deleted(store, slot, &witness).await;
        let newer = successor(Kind::User, "t2");
        let commit = store.commit(slot, &witness, &newer, &late).await.unwrap();
        assert!(matches!(commit, Commit::Done), "{store:?}: {commit:?}");
        assert_eq!(store.load(slot).await.unwrap().record, newer);
        // Once: the tombstone is gone with it.
        let now = store.load(slot).await.unwrap().witness;
        let owner = claimed(store, slot, &now).await;
        let nothing = Record::default();
        store.commit(slot, &now, &nothing, &owner).await.unwrap();
        let commit = store.commit(slot, &witness, &newer, &late).await.unwrap();
        assert!(matches!(commit, Commit::Changed(now) if now.record.is_empty()));
    })
    .await;
}

#[tokio::test]
async fn r3_the_successor_of_an_announced_pair_is_written_beside_the_holder() {
    for_users(async |store, slot| {
        let witness = stored(store, slot).await;
        let (late, told) = (LeaseOwner::unique(), claimed(store, slot, &witness).await);
        let newer = successor(Kind::User, "t2");
        let commit = store.commit(slot, &witness, &newer, &late).await.unwrap();
        assert!(matches!(commit, Commit::LeaseLost), "nothing is announced");
        let announced = store.announce_deletion(slot, &witness, &told, LEASE).await;
        assert!(matches!(announced.unwrap(), Claim::Granted));
        let third = LeaseOwner::unique();
        let claim = store.claim(slot, &witness, &third, LEASE).await.unwrap();
        assert!(matches!(claim, Claim::Held), "WeChat is not asked again");
        let commit = store.commit(slot, &witness, &newer, &late).await.unwrap();
        assert!(matches!(commit, Commit::Done), "{store:?}: {commit:?}");
        let gone = store.delete(slot, &witness, &told).await.unwrap();
        assert!(matches!(gone, Commit::Changed(now) if now.record == newer));
        // The lease of the process that was told is given back.
        let now = store.load(slot).await.unwrap().witness;
        let owner = claimed(store, slot, &now).await;
        store.release(slot, &owner).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn an_announcement_compares_and_needs_the_lease() {
    for_users(async |store, slot| {
        let witness = stored(store, slot).await;
        let owner = claimed(store, slot, &witness).await;
        let stranger = LeaseOwner::unique();
        let announced = store.announce_deletion(slot, &witness, &stranger, LEASE);
        assert!(matches!(announced.await.unwrap(), Claim::Held));
        let login = successor(Kind::User, "login");
        store.put(slot, &login).await.unwrap();
        let announced = store.announce_deletion(slot, &witness, &owner, LEASE).await;
        assert!(matches!(announced.unwrap(), Claim::Changed(now) if now.record == login));
        let gone = store.delete(slot, &witness, &owner).await.unwrap();
        assert!(matches!(gone, Commit::Changed(now) if now.record == login));
    })
    .await;
}

#[tokio::test]
async fn r2_nothing_comes_back_after_a_logout_or_over_a_login() {
    for_users(async |store, slot| {
        let (late, newer) = (LeaseOwner::unique(), successor(Kind::User, "t2"));
        let login = successor(Kind::User, "login");
        for announced in [false, true] {
            let witness = stored(store, slot).await;
            if announced {
                let owner = claimed(store, slot, &witness).await;
                let claim = store.announce_deletion(slot, &witness, &owner, LEASE);
                assert!(matches!(claim.await.unwrap(), Claim::Granted));
                store.release(slot, &owner).await.unwrap();
            } else {
                deleted(store, slot, &witness).await;
            }
            store.put(slot, &Record::default()).await.unwrap();
            let commit = store.commit(slot, &witness, &newer, &late).await.unwrap();
            assert!(
                matches!(commit, Commit::Changed(now) if now.record.is_empty()),
                "{store:?}: a logout"
            );
            let witness = stored(store, slot).await;
            deleted(store, slot, &witness).await;
            store.put(slot, &login).await.unwrap();
            let commit = store.commit(slot, &witness, &newer, &late).await.unwrap();
            assert!(matches!(commit, Commit::Changed(now) if now.record == login));
            store.put(slot, &Record::default()).await.unwrap();
            let commit = store.commit(slot, &witness, &newer, &late).await.unwrap();
            assert!(matches!(commit, Commit::Changed(now) if now.record.is_empty()));
        }
    })
    .await;
}

/// WeChat has said after the grant that this refresh token is dead.
#[tokio::test]
async fn r2_a_pair_that_keeps_the_dead_refresh_token_does_not_come_back() {
    for_users(async |store, slot| {
        let witness = stored(store, slot).await;
        let late = LeaseOwner::unique();
        deleted(store, slot, &witness).await;
        let same = record(Kind::User, "t2");
        let commit = store.commit(slot, &witness, &same, &late).await.unwrap();
        assert!(matches!(commit, Commit::Changed(now) if now.record.is_empty()));
    })
    .await;
}

#[tokio::test]
async fn a_tombstone_belongs_to_one_refresh_token() {
    for_users(async |store, slot| {
        let before = stored(store, slot).await;
        let login = successor(Kind::User, "login");
        store.put(slot, &login).await.unwrap();
        let witness = store.load(slot).await.unwrap().witness;
        deleted(store, slot, &witness).await;
        let (late, newer) = (LeaseOwner::unique(), successor(Kind::User, "t2"));
        let commit = store.commit(slot, &before, &newer, &late).await.unwrap();
        assert!(matches!(commit, Commit::Changed(now) if now.record.is_empty()));
    })
    .await;
}

/// A deletion that nobody was told by WeChat to make, such as an operator's, leaves no tombstone.
#[tokio::test]
async fn r2_a_plain_deletion_leaves_no_tombstone() {
    for_users(async |store, slot| {
        let witness = stored(store, slot).await;
        let owner = claimed(store, slot, &witness).await;
        let nothing = Record::default();
        let commit = store.commit(slot, &witness, &nothing, &owner).await;
        assert!(matches!(commit.unwrap(), Commit::Done));
        let (late, newer) = (LeaseOwner::unique(), successor(Kind::User, "t2"));
        let commit = store.commit(slot, &witness, &newer, &late).await.unwrap();
        assert!(matches!(commit, Commit::Changed(now) if now.record.is_empty()));
    })
    .await;
}

#[tokio::test]
async fn a_tombstone_expires_and_holds_no_token() {
    let server = RedisServer::start();
    for layout in [Layout::Hashes, Layout::Keys] {
        let store = redis(&server, layout).await;
        let slot = slot(Kind::User, "oA");
        let witness = stored(&store, &slot).await;
        deleted(&store, &slot, &witness).await;
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
async fn a_lease_is_known_to_have_been_ones_own() {
    on_every_store(async |store, slot| {
        store
            .put(&slot, &record(slot.name.kind, "t1"))
            .await
            .unwrap();
        let witness = store.load(&slot).await.unwrap().witness;
        let (ours, theirs) = (claimed(store, &slot, &witness).await, LeaseOwner::unique());
        assert!(!store.release(&slot, &theirs).await.unwrap());
        assert!(store.release(&slot, &ours).await.unwrap());
        assert!(!store.release(&slot, &ours).await.unwrap());
        let code = CodeName::of(&slot.name.app, &format!("{theirs:?}"));
        store.claim_code(&code, &ours, LEASE).await.unwrap();
        assert!(!store.release_code(&code, &theirs).await.unwrap());
        assert!(store.release_code(&code, &ours).await.unwrap());
        assert!(!store.release_code(&code, &ours).await.unwrap());
        let claim = store.claim_code(&code, &theirs, LEASE).await.unwrap();
        assert_eq!(claim, CodeClaim::Granted);
        store
            .settle_code(&code, Some(&theirs), "done", LEASE)
            .await
            .unwrap();
        assert!(!store.release_code(&code, &theirs).await.unwrap());
    })
    .await;
}
