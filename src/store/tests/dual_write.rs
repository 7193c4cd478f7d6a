//! Test of dual writes, with the processes of all steps of a migration between the layouts at the
//! same time.

use super::*;

/// Reads a slot and tries to acquire its lease.
async fn load_and_acquire(
    store: &RedisStore,
    slot: &CredentialSlot,
    owner: &LeaseOwner,
) -> LeaseResult {
    let expected = store.load(slot).await.unwrap().expected;
    store
        .acquire_lease(slot, &expected, owner, LEASE)
        .await
        .unwrap()
}

/// Runs the four kinds of process of a migration from hashes to keys. `before` and `after` use one
/// layout; `from_hashes` and `from_keys` read one layout and write both. While `before` or `after`
/// holds a lease, `from_hashes` and `from_keys` get none. While `from_hashes` or `from_keys` holds
/// a lease, no other process gets one. All four read what `from_hashes` and `from_keys` commit.
#[tokio::test]
async fn dual_write_updates_both_layouts_and_holds_both_leases() {
    let server = RedisServer::start();
    let (before, after) = (
        connect_redis(&server, Layout::Hashes).await,
        connect_redis(&server, Layout::Keys).await,
    );
    let from_hashes = connect_dual_write(&server, Layout::Hashes, Layout::Keys).await;
    let from_keys = connect_dual_write(&server, Layout::Keys, Layout::Hashes).await;
    for kind in CredentialKind::ALL {
        let id = if kind.belongs_to_account() { "" } else { "oA" };
        let slot = slot(kind, id);
        let first = record(kind, "t1");
        from_hashes.overwrite(&slot, &first).await.unwrap();
        for (holder, others) in [
            (&before, vec![&from_hashes, &from_keys]),
            (&after, vec![&from_hashes, &from_keys]),
            (&from_hashes, vec![&before, &after, &from_keys]),
            (&from_keys, vec![&before, &after, &from_hashes]),
        ] {
            let owner = LeaseOwner::unique();
            let result = load_and_acquire(holder, &slot, &owner).await;
            assert!(matches!(result, LeaseResult::Acquired));
            for other in others {
                let another = LeaseOwner::unique();
                let result = load_and_acquire(other, &slot, &another).await;
                assert!(matches!(result, LeaseResult::Busy), "{kind:?}: {other:?}");
            }
            holder.release_lease(&slot, &owner).await.unwrap();
        }
        for (store, token) in [(&from_hashes, "t2"), (&from_keys, "t3")] {
            let expected = store.load(&slot).await.unwrap().expected;
            let owner = LeaseOwner::unique();
            let result = store
                .acquire_lease(&slot, &expected, &owner, LEASE)
                .await
                .unwrap();
            assert!(
                matches!(result, LeaseResult::Acquired),
                "the last holder released all leases"
            );
            let newer = record(kind, token);
            let commit = store
                .commit(&slot, &expected, &newer, &owner)
                .await
                .unwrap();
            assert!(matches!(commit, CommitResult::Committed));
            for reader in [&before, &after, &from_hashes, &from_keys] {
                assert_eq!(reader.load(&slot).await.unwrap().record, newer);
            }
        }
        let expected = from_keys.load(&slot).await.unwrap().expected;
        let owner = LeaseOwner::unique();
        let nothing = Record::default();
        let commit = from_keys.commit(&slot, &expected, &nothing, &owner).await;
        assert!(matches!(commit.unwrap(), CommitResult::Committed));
        for reader in [&before, &after] {
            assert!(reader.load(&slot).await.unwrap().record.is_empty());
        }
    }
}
