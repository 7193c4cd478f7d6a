//! Tests of the contract of a store, which every store fulfils in Redis and in memory.

use super::*;

#[tokio::test]
async fn overwrite_stores_and_an_empty_record_deletes() {
    on_every_store(async |store, slot| {
        assert!(store.load(&slot).await.unwrap().record.is_empty());
        let record = record(slot.key.kind, "t1");
        store.overwrite(&slot, &record).await.unwrap();
        assert_eq!(store.load(&slot).await.unwrap().record, record);
        store.overwrite(&slot, &Record::default()).await.unwrap();
        assert!(store.load(&slot).await.unwrap().record.is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_lease_has_one_owner_that_can_reacquire_it() {
    on_every_store(async |store, slot| {
        store
            .overwrite(&slot, &record(slot.key.kind, "t1"))
            .await
            .unwrap();
        let expected = store.load(&slot).await.unwrap().expected;
        let (ours, theirs) = (LeaseOwner::unique(), LeaseOwner::unique());
        let acquire = async |owner| {
            store
                .acquire_lease(&slot, &expected, owner, LEASE)
                .await
                .unwrap()
        };
        assert!(matches!(acquire(&ours).await, LeaseResult::Acquired));
        assert!(matches!(acquire(&theirs).await, LeaseResult::Busy));
        assert!(matches!(acquire(&ours).await, LeaseResult::Acquired));
        store.release_lease(&slot, &theirs).await.unwrap();
        assert!(matches!(acquire(&theirs).await, LeaseResult::Busy));
        store.release_lease(&slot, &ours).await.unwrap();
        assert!(matches!(acquire(&theirs).await, LeaseResult::Acquired));
        store.release_lease(&slot, &theirs).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn one_owner_exchanges_a_code_and_all_read_the_outcome() {
    on_every_store(async |store, slot| {
        // The code is unique, because the stores of both layouts share a server, and the key of a
        // code is the same in both layouts.
        let code = LoginCodeKey::new(&slot.key.app, &format!("{:?}", LeaseOwner::unique()));
        let (ours, theirs) = (LeaseOwner::unique(), LeaseOwner::unique());
        let acquire = async |owner| store.acquire_code(&code, owner, LEASE).await.unwrap();
        let finish = async |owner, outcome| {
            let finished = store.finish_code(&code, owner, outcome, LEASE).await;
            finished.unwrap();
        };
        assert_eq!(acquire(&ours).await, CodeLeaseResult::Acquired);
        assert_eq!(acquire(&theirs).await, CodeLeaseResult::Busy);
        assert_eq!(acquire(&ours).await, CodeLeaseResult::Acquired);
        finish(Some(&theirs), "from another owner").await;
        assert_eq!(acquire(&theirs).await, CodeLeaseResult::Busy);
        finish(Some(&ours), "refused").await;
        let outcome = |text: &str| CodeLeaseResult::Finished(text.to_owned());
        assert_eq!(acquire(&theirs).await, outcome("refused"));
        finish(Some(&theirs), "too late").await;
        assert_eq!(acquire(&ours).await, outcome("refused"));
        finish(None, "from a login without a lease").await;
        assert_eq!(
            acquire(&ours).await,
            outcome("from a login without a lease")
        );
    })
    .await;
}

#[tokio::test]
async fn the_next_owner_resumes_a_suspended_exchange() {
    on_every_store(async |store, slot| {
        let code = LoginCodeKey::new(&slot.key.app, &format!("{:?}", LeaseOwner::unique()));
        let other = LoginCodeKey::new(&slot.key.app, &format!("{:?}", LeaseOwner::unique()));
        let (ours, theirs) = (LeaseOwner::unique(), LeaseOwner::unique());
        let acquire = async |owner, ttl| store.acquire_code(&code, owner, ttl).await.unwrap();
        let response = |text: &str| PendingResponse::new(text.to_owned().into());
        let short = Duration::from_millis(30);
        let suspend = async |owner, text| {
            let suspension = Suspension {
                outcome: "failed",
                outcome_ttl: short,
                response: &response(text),
                response_ttl: LEASE,
            };
            store.suspend_code(&code, owner, &suspension).await.unwrap()
        };
        assert_eq!(acquire(&ours, LEASE).await, CodeLeaseResult::Acquired);
        assert!(!suspend(&theirs, "from another owner").await);
        assert!(suspend(&ours, "{\"t\": \"张三\"}").await);
        let failed = CodeLeaseResult::Finished("failed".to_owned());
        assert_eq!(acquire(&theirs, short).await, failed);
        assert!(!suspend(&ours, "after the end").await);
        tokio::time::sleep(short * 2).await;
        // A crash of the owner does not lose the response.
        let resumed = CodeLeaseResult::Resumed(response("{\"t\": \"张三\"}"));
        assert_eq!(acquire(&ours, short).await, resumed);
        assert_eq!(acquire(&theirs, LEASE).await, CodeLeaseResult::Busy);
        tokio::time::sleep(short * 2).await;
        assert_eq!(acquire(&theirs, short).await, resumed);
        // An owner whose lease has expired may suspend the exchange, unless another one holds it.
        tokio::time::sleep(short * 2).await;
        assert!(suspend(&theirs, "again").await);
        tokio::time::sleep(short * 2).await;
        let resumed = CodeLeaseResult::Resumed(response("again"));
        assert_eq!(acquire(&ours, LEASE).await, resumed);
        // The end of the exchange deletes the response, and only that of its code.
        store.acquire_code(&other, &ours, LEASE).await.unwrap();
        let suspension = Suspension {
            outcome: "failed",
            outcome_ttl: short,
            response: &response("other"),
            response_ttl: LEASE,
        };
        store
            .suspend_code(&other, &ours, &suspension)
            .await
            .unwrap();
        store.finish_code(&code, None, "done", short).await.unwrap();
        tokio::time::sleep(short * 2).await;
        assert_eq!(acquire(&theirs, LEASE).await, CodeLeaseResult::Acquired);
        let result = store.acquire_code(&other, &theirs, LEASE).await.unwrap();
        assert_eq!(result, CodeLeaseResult::Resumed(response("other")));
    })
    .await;
}

#[tokio::test]
async fn a_response_of_a_suspended_exchange_expires() {
    on_every_store(async |store, slot| {
        let code = LoginCodeKey::new(&slot.key.app, &format!("{:?}", LeaseOwner::unique()));
        let (ours, short) = (LeaseOwner::unique(), Duration::from_millis(30));
        let suspension = Suspension {
            outcome: "failed",
            outcome_ttl: short,
            response: &PendingResponse::new("tokens".to_owned().into()),
            response_ttl: short,
        };
        store.suspend_code(&code, &ours, &suspension).await.unwrap();
        tokio::time::sleep(short * 2).await;
        let result = store.acquire_code(&code, &ours, LEASE).await.unwrap();
        assert_eq!(result, CodeLeaseResult::Acquired);
    })
    .await;
}

#[tokio::test]
async fn a_code_is_bound_to_the_first_login() {
    on_every_store(async |store, slot| {
        let code = LoginCodeKey::new(&slot.key.app, &format!("{:?}", LeaseOwner::unique()));
        let bind = async |login, ttl| store.bind_code(&code, login, ttl).await.unwrap();
        assert_eq!(bind(1, LEASE).await, CodeBindResult::Bound);
        assert_eq!(bind(1, LEASE).await, CodeBindResult::AlreadyBound);
        assert_eq!(bind(2, LEASE).await, CodeBindResult::BoundElsewhere);
        let short = Duration::from_millis(30);
        assert_eq!(bind(1, short).await, CodeBindResult::AlreadyBound);
        tokio::time::sleep(short * 2).await;
        assert_eq!(bind(2, LEASE).await, CodeBindResult::Bound);
        assert_eq!(bind(1, LEASE).await, CodeBindResult::BoundElsewhere);
    })
    .await;
}

#[tokio::test]
async fn a_code_lease_expires() {
    on_every_store(async |store, slot| {
        // The code is unique, because the stores of both layouts share a server, and the key of a
        // code is the same in both layouts.
        let code = LoginCodeKey::new(&slot.key.app, &format!("{:?}", LeaseOwner::unique()));
        let (expired, ours) = (LeaseOwner::unique(), LeaseOwner::unique());
        let short = Duration::from_millis(30);
        let result = store.acquire_code(&code, &expired, short).await.unwrap();
        assert_eq!(result, CodeLeaseResult::Acquired);
        tokio::time::sleep(short * 2).await;
        let result = store.acquire_code(&code, &ours, LEASE).await.unwrap();
        assert_eq!(result, CodeLeaseResult::Acquired);
    })
    .await;
}

#[tokio::test]
async fn an_expired_lease_releases_and_finishes_nothing() {
    on_every_store(async |store, slot| {
        let code = LoginCodeKey::new(&slot.key.app, &format!("{:?}", LeaseOwner::unique()));
        let (late, next) = (LeaseOwner::unique(), LeaseOwner::unique());
        let short = Duration::from_millis(30);
        let expected = store.load(&slot).await.unwrap().expected;
        store
            .acquire_lease(&slot, &expected, &late, short)
            .await
            .unwrap();
        store.acquire_code(&code, &late, short).await.unwrap();
        tokio::time::sleep(short * 2).await;
        assert!(!store.release_lease(&slot, &late).await.unwrap());
        assert!(!store.release_code(&code, &late).await.unwrap());
        let finished = store.finish_code(&code, Some(&late), "late", LEASE).await;
        finished.unwrap();
        let result = store.acquire_code(&code, &next, LEASE).await.unwrap();
        assert_eq!(result, CodeLeaseResult::Acquired);
    })
    .await;
}

#[tokio::test]
async fn acquire_returns_a_record_changed_since_the_read() {
    on_every_store(async |store, slot| {
        let before = store.load(&slot).await.unwrap().expected;
        let newer = record(slot.key.kind, "t2");
        store.overwrite(&slot, &newer).await.unwrap();
        let (ours, theirs) = (LeaseOwner::unique(), LeaseOwner::unique());
        match store
            .acquire_lease(&slot, &before, &ours, LEASE)
            .await
            .unwrap()
        {
            LeaseResult::Conflict(stored) => {
                assert_eq!(stored.record, newer);
                let result = store
                    .acquire_lease(&slot, &stored.expected, &theirs, LEASE)
                    .await
                    .unwrap();
                assert!(
                    matches!(result, LeaseResult::Acquired),
                    "the conflict took no lease"
                );
            }
            other => panic!("{other:?}"),
        }
        store.release_lease(&slot, &theirs).await.unwrap();
        store.overwrite(&slot, &Record::default()).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn commit_conflicts_if_the_record_changed() {
    on_every_store(async |store, slot| {
        let kind = slot.key.kind;
        store.overwrite(&slot, &record(kind, "t1")).await.unwrap();
        let expected = store.load(&slot).await.unwrap().expected;
        let owner = LeaseOwner::unique();
        store
            .acquire_lease(&slot, &expected, &owner, LEASE)
            .await
            .unwrap();
        let newer = record(kind, "t-login");
        store.overwrite(&slot, &newer).await.unwrap();
        match store
            .commit(&slot, &expected, &record(kind, "t2"), &owner)
            .await
            .unwrap()
        {
            CommitResult::Conflict(stored) => assert_eq!(stored.record, newer),
            other => panic!("{other:?}"),
        }
        assert_eq!(store.load(&slot).await.unwrap().record, newer);
        // The conflict has released the lease, so another owner can acquire the lease.
        let expected = store.load(&slot).await.unwrap().expected;
        let theirs = LeaseOwner::unique();
        let result = store
            .acquire_lease(&slot, &expected, &theirs, LEASE)
            .await
            .unwrap();
        assert!(matches!(result, LeaseResult::Acquired));
        let committed = record(kind, "t3");
        let commit = store
            .commit(&slot, &expected, &committed, &theirs)
            .await
            .unwrap();
        assert!(matches!(commit, CommitResult::Committed));
        assert_eq!(store.load(&slot).await.unwrap().record, committed);
        store.overwrite(&slot, &Record::default()).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn commit_fails_after_the_lease_changed_owner() {
    on_every_store(async |store, slot| {
        let kind = slot.key.kind;
        store.overwrite(&slot, &record(kind, "t1")).await.unwrap();
        let expected = store.load(&slot).await.unwrap().expected;
        let (slow, fast) = (LeaseOwner::unique(), LeaseOwner::unique());
        let short = Duration::from_millis(30);
        store
            .acquire_lease(&slot, &expected, &slow, short)
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(60)).await;
        let result = store
            .acquire_lease(&slot, &expected, &fast, LEASE)
            .await
            .unwrap();
        assert!(
            matches!(result, LeaseResult::Acquired),
            "the lease has expired"
        );
        let late = store
            .commit(&slot, &expected, &record(kind, "late"), &slow)
            .await
            .unwrap();
        assert!(matches!(late, CommitResult::LeaseLost));
        let newest = record(kind, "newest");
        let commit = store
            .commit(&slot, &expected, &newest, &fast)
            .await
            .unwrap();
        assert!(matches!(commit, CommitResult::Committed));
        let late = store
            .commit(&slot, &expected, &record(kind, "late"), &slow)
            .await
            .unwrap();
        assert!(matches!(late, CommitResult::Conflict(stored) if stored.record == newest));
        // An expired lease that no other owner has acquired still commits (nothing lost).
        let expected = store.load(&slot).await.unwrap().expected;
        store
            .acquire_lease(&slot, &expected, &slow, short)
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(60)).await;
        let late = store
            .commit(&slot, &expected, &record(kind, "late"), &slow)
            .await
            .unwrap();
        assert!(matches!(late, CommitResult::Committed));
        store.overwrite(&slot, &Record::default()).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn release_reports_whether_the_lease_was_owned() {
    on_every_store(async |store, slot| {
        store
            .overwrite(&slot, &record(slot.key.kind, "t1"))
            .await
            .unwrap();
        let expected = store.load(&slot).await.unwrap().expected;
        let (ours, theirs) = (acquire(store, &slot, &expected).await, LeaseOwner::unique());
        assert!(!store.release_lease(&slot, &theirs).await.unwrap());
        assert!(store.release_lease(&slot, &ours).await.unwrap());
        assert!(!store.release_lease(&slot, &ours).await.unwrap());
        let code = LoginCodeKey::new(&slot.key.app, &format!("{theirs:?}"));
        store.acquire_code(&code, &ours, LEASE).await.unwrap();
        assert!(!store.release_code(&code, &theirs).await.unwrap());
        assert!(store.release_code(&code, &ours).await.unwrap());
        assert!(!store.release_code(&code, &ours).await.unwrap());
        let result = store.acquire_code(&code, &theirs, LEASE).await.unwrap();
        assert_eq!(result, CodeLeaseResult::Acquired);
        store
            .finish_code(&code, Some(&theirs), "done", LEASE)
            .await
            .unwrap();
        assert!(!store.release_code(&code, &theirs).await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn a_replacement_needs_the_expected_record_and_no_lease() {
    on_every_store(async |store, slot| {
        let [first, second, third] = ["t1", "t2", "t3"].map(|token| record(slot.key.kind, token));
        let nothing = store.load(&slot).await.unwrap().expected;
        let replaced = store.replace(&slot, &nothing, &first).await.unwrap();
        assert!(matches!(replaced, ReplaceResult::Replaced), "{store:?}");
        assert_eq!(store.load(&slot).await.unwrap().record, first);

        let before = store.load(&slot).await.unwrap().expected;
        let owner = acquire(store, &slot, &before).await;
        let replaced = store.replace(&slot, &nothing, &second).await.unwrap();
        assert!(
            matches!(&replaced, ReplaceResult::Conflict(now) if now.record == first),
            "{store:?}: {replaced:?}"
        );
        assert_eq!(store.load(&slot).await.unwrap().record, first);
        // Another owner holds the lease.
        let replaced = store.replace(&slot, &before, &second).await.unwrap();
        assert!(matches!(replaced, ReplaceResult::Replaced), "{store:?}");
        let commit = store.commit(&slot, &before, &third, &owner).await.unwrap();
        assert!(
            matches!(&commit, CommitResult::Conflict(now) if now.record == second),
            "{store:?}: {commit:?}"
        );
        assert_eq!(store.load(&slot).await.unwrap().record, second);
        store.overwrite(&slot, &Record::default()).await.unwrap();
    })
    .await;
}
