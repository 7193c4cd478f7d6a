//! Tests of the contract for a third-party platform, which every store fulfils in Redis and in
//! memory.

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::clock::Timestamp;
use crate::error::ErrorKind;

/// Maximum time for a message to arrive, 10 s. An idle machine needs milliseconds.
const SOON: Duration = Duration::from_secs(10);

/// Returns an AppID that no other test uses. The stores of both layouts share a server, and some
/// keys of a platform are the same in both layouts.
pub(super) fn unique_app() -> AppId {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    AppId::new(format!("wxcomponent{number}")).unwrap()
}

pub(super) fn secret(text: &str, since: i64) -> DurableSecret {
    DurableSecret {
        secret: RefreshToken::from(text),
        since: Timestamp::from_millis(since),
    }
}

/// Returns the keys of a ticket and of a refresh token that no other test uses. Names without
/// `{appid}` hold one refresh token for all accounts, so the returned one is deleted.
async fn secret_keys(store: &dyn Store) -> [DurableSecretKey; 2] {
    let refresh = DurableSecretKey::RefreshToken {
        account: unique_app(),
    };
    let stored = store.load_secret(&refresh).await.unwrap();
    let deleted = store.replace_secret(&refresh, &stored.expected, None).await;
    assert!(deleted.unwrap());
    let component = unique_app();
    [refresh, DurableSecretKey::VerifyTicket { component }]
}

#[tokio::test]
async fn a_secret_is_replaced_only_if_it_is_unchanged() {
    on_each_store(async |store| {
        for key in secret_keys(store).await {
            let load = async || store.load_secret(&key).await.unwrap();
            let replace = async |expected: &StoredSecret, value: Option<&DurableSecret>| {
                let replaced = store.replace_secret(&key, &expected.expected, value).await;
                replaced.unwrap()
            };
            let nothing = load().await;
            assert_eq!(nothing.value, None);
            let (first, second) = (secret("first@@@1", 1_000), secret("second@@@2", 2_000));
            assert!(replace(&nothing, Some(&first)).await);
            let stored = load().await;
            assert_eq!(stored.value.as_ref(), Some(&first));
            assert!(!replace(&nothing, Some(&second)).await, "{key:?}");
            assert!(!replace(&StoredSecret::default(), Some(&second)).await);
            assert_eq!(load().await.value.as_ref(), Some(&first));
            assert!(replace(&stored, Some(&second)).await);
            assert_eq!(load().await.value.as_ref(), Some(&second));
            assert!(!replace(&stored, Some(&first)).await, "an older secret");
            assert!(!replace(&stored, None).await, "an older deletion");
            assert_eq!(load().await.value.as_ref(), Some(&second));
            assert!(replace(&load().await, None).await);
            assert_eq!(load().await.value, None);
            assert!(replace(&StoredSecret::default(), Some(&first)).await);
            assert!(replace(&load().await, None).await);
        }
    })
    .await;
}

/// A caller that has lost the reply repeats the call with the same expected value.
#[tokio::test]
async fn a_repeated_write_is_no_conflict() {
    on_each_store(async |store| {
        for key in secret_keys(store).await {
            let nothing = store.load_secret(&key).await.unwrap().expected;
            let value = secret("ticket@@@1", 1_000);
            let write = async |expected: &Expected, value| {
                store.replace_secret(&key, expected, value).await.unwrap()
            };
            for _ in 0..2 {
                assert!(write(&nothing, Some(&value)).await);
            }
            // The same text with another time is another secret.
            let later = secret("ticket@@@1", 2_000);
            assert!(!write(&nothing, Some(&later)).await);
            let stored = store.load_secret(&key).await.unwrap().expected;
            for _ in 0..2 {
                assert!(write(&stored, None).await);
            }
        }
    })
    .await;
}

#[tokio::test]
async fn secrets_that_no_store_can_keep_are_refused() {
    on_each_store(async |store| {
        for key in secret_keys(store).await {
            let nothing = store.load_secret(&key).await.unwrap().expected;
            for text in [
                "",
                "a#b",
                "two words",
                "line\n",
                "\u{5f20}",
                &"x".repeat(2_049),
            ] {
                let value = secret(text, 1_000);
                let refused = store.replace_secret(&key, &nothing, Some(&value)).await;
                let error = refused.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::WechatUnavailable, "{text:?}");
                let shown = format!("{error} {error:?}");
                assert!(text.is_empty() || !shown.contains(text), "{shown}");
            }
            // Implausible times come from broken clocks. The closest plausible time is stored.
            let future = secret("ticket@@@1", i64::MAX);
            assert!(
                store
                    .replace_secret(&key, &nothing, Some(&future))
                    .await
                    .unwrap()
            );
            let stored = store.load_secret(&key).await.unwrap();
            let latest = secret("ticket@@@1", 9_999_999_999_999);
            assert_eq!(stored.value, Some(latest));
            assert!(
                store
                    .replace_secret(&key, &stored.expected, None)
                    .await
                    .unwrap()
            );
        }
    })
    .await;
}

/// Many tasks replace one secret. Each success builds on the value before it, so none is lost.
#[tokio::test]
async fn concurrent_writers_lose_no_secret() {
    const TASKS: i64 = 24;
    on_each_store(async |store| {
        for key in secret_keys(store).await {
            let key = &key;
            let tasks = (0..TASKS).map(|task| async move {
                loop {
                    let stored = store.load_secret(key).await.unwrap();
                    let since = stored.value.map_or(0, |value| value.since.as_millis());
                    let next = secret(&format!("by@@@{task}"), since + 1);
                    let replaced = store
                        .replace_secret(key, &stored.expected, Some(&next))
                        .await;
                    if replaced.unwrap() {
                        return since + 1;
                    }
                }
            });
            let mut written = futures_util::future::join_all(tasks).await;
            written.sort_unstable();
            assert_eq!(written, (1..=TASKS).collect::<Vec<_>>());
            let stored = store.load_secret(key).await.unwrap();
            assert_eq!(stored.value.unwrap().since.as_millis(), TASKS);
            assert!(
                store
                    .replace_secret(key, &stored.expected, None)
                    .await
                    .unwrap()
            );
        }
    })
    .await;
}

fn entry(state: AuthorizationState, since: i64) -> Authorization {
    Authorization {
        state,
        since: Timestamp::from_millis(since),
    }
}

#[tokio::test]
async fn an_older_entry_never_replaces_a_newer_one() {
    use AuthorizationState::{Authorized, Lost, Unauthorized};
    on_each_store(async |store| {
        let (component, account) = (unique_app(), unique_app());
        let record = async |state, since| {
            let recorded = store.record_authorization(&component, &account, entry(state, since));
            recorded.await.unwrap()
        };
        let lookup = async || store.authorization(&component, &account).await.unwrap();
        assert_eq!(lookup().await, AuthorizationLookup::default());
        assert!(record(Authorized, 2_000).await);
        assert_eq!(lookup().await.entry, Some(entry(Authorized, 2_000)));
        assert!(!record(Unauthorized, 1_999).await);
        assert_eq!(lookup().await.entry, Some(entry(Authorized, 2_000)));
        // An entry of the same time is not older.
        assert!(record(Unauthorized, 2_000).await);
        assert!(record(Unauthorized, 2_000).await);
        assert_eq!(lookup().await.entry, Some(entry(Unauthorized, 2_000)));
        assert!(record(Lost, 10_000).await);
        assert!(
            !record(Authorized, 9_000).await,
            "times are numbers, not texts"
        );
        assert_eq!(lookup().await.entry, Some(entry(Lost, 10_000)));
        let other = store.authorization(&unique_app(), &account).await.unwrap();
        assert_eq!(other, AuthorizationLookup::default(), "another platform");
    })
    .await;
}

#[tokio::test]
async fn the_time_of_the_list_only_advances() {
    on_each_store(async |store| {
        let (component, account) = (unique_app(), unique_app());
        let set = async |at| {
            let set = store.set_listed(&component, Timestamp::from_millis(at));
            set.await.unwrap();
        };
        let listed_at = async || {
            let lookup = store.authorization(&component, &account).await.unwrap();
            let list = store.authorizations(&component).await.unwrap();
            assert_eq!((lookup.entry, list.entries.len()), (None, 0));
            assert_eq!(lookup.listed_at, list.listed_at);
            lookup.listed_at.map(Timestamp::as_millis)
        };
        assert_eq!(listed_at().await, None);
        set(9_000).await;
        assert_eq!(listed_at().await, Some(9_000));
        set(10_000).await;
        set(9_500).await;
        assert_eq!(listed_at().await, Some(10_000));
    })
    .await;
}

/// The hash of this many accounts is not read in one step.
#[tokio::test]
async fn all_accounts_are_listed_once_and_in_order() {
    const ACCOUNTS: i64 = 1_200;
    on_each_store(async |store| {
        let component = unique_app();
        let account = |number: i64| AppId::new(format!("wx{number:04}")).unwrap();
        let recording = (0..ACCOUNTS).map(|number| {
            let component = &component;
            async move {
                let entry = entry(AuthorizationState::Authorized, number);
                let account = account(number);
                let recorded = store.record_authorization(component, &account, entry);
                assert!(recorded.await.unwrap());
            }
        });
        futures_util::future::join_all(recording).await;
        store
            .set_listed(&component, Timestamp::from_millis(7))
            .await
            .unwrap();
        let list = store.authorizations(&component).await.unwrap();
        let expected = (0..ACCOUNTS).map(|number| {
            (
                account(number),
                entry(AuthorizationState::Authorized, number),
            )
        });
        assert_eq!(list.entries, expected.collect::<Vec<_>>());
        assert_eq!(list.listed_at, Some(Timestamp::from_millis(7)));
    })
    .await;
}

#[tokio::test]
async fn the_newest_of_concurrent_entries_stays() {
    on_each_store(async |store| {
        let (component, account) = (unique_app(), unique_app());
        let recording = (0..50).map(|number| {
            let state = match number % 2 {
                0 => AuthorizationState::Authorized,
                _ => AuthorizationState::Unauthorized,
            };
            // The order of the times differs from the order of the tasks.
            let entry = entry(state, (number * 7) % 50);
            store.record_authorization(&component, &account, entry)
        });
        futures_util::future::join_all(recording).await;
        let lookup = store.authorization(&component, &account).await.unwrap();
        assert_eq!(lookup.entry.unwrap().since.as_millis(), 49);
    })
    .await;
}

/// Waits until a subscription to an app is active.
async fn subscribe(store: &dyn Store, app: &AppId) -> Subscription {
    let mut subscription = store.subscribe(app).unwrap();
    while !subscription.is_live {
        let event = tokio::time::timeout(SOON, subscription.next_event()).await;
        subscription.is_live = matches!(event.unwrap(), Event::Subscribed);
    }
    subscription
}

/// Returns the next change at a platform.
async fn next_change(subscription: &mut Subscription) -> PlatformChange {
    let next = async {
        loop {
            if let Event::PlatformChanged(change) = subscription.next_event().await {
                return (*change).clone();
            }
        }
    };
    tokio::time::timeout(SOON, next).await.unwrap()
}

/// Checks that `theirs` receives the changes that `ours` writes, and no other change.
async fn check_messages(ours: &dyn Store, theirs: &dyn Store) {
    for key in secret_keys(ours).await {
        let mut subscription = subscribe(theirs, key.app()).await;
        let nothing = StoredSecret::default().expected;
        let value = secret("ticket@@@1", 1_000);
        let replaced = ours.replace_secret(&key, &nothing, Some(&value)).await;
        assert!(replaced.unwrap());
        assert_eq!(
            next_change(&mut subscription).await,
            PlatformChange::Secret(key.clone())
        );
        let conflict = ours.replace_secret(&key, &nothing, None).await;
        assert!(!conflict.unwrap(), "a conflict is not published");
        let stored = theirs.load_secret(&key).await.unwrap();
        assert_eq!(stored.value, Some(value));
        assert!(
            ours.replace_secret(&key, &stored.expected, None)
                .await
                .unwrap()
        );
        assert_eq!(
            next_change(&mut subscription).await,
            PlatformChange::Secret(key.clone())
        );
        assert_eq!(theirs.load_secret(&key).await.unwrap().value, None);
    }
    let component = unique_app();
    let mut subscription = subscribe(theirs, &component).await;
    let (first, second) = (unique_app(), unique_app());
    for (account, state, since) in [
        (&first, AuthorizationState::Authorized, 5),
        (&first, AuthorizationState::Authorized, 6),
        (&first, AuthorizationState::Unauthorized, 4),
        (&second, AuthorizationState::Lost, 1),
    ] {
        let recorded = ours.record_authorization(&component, account, entry(state, since));
        recorded.await.unwrap();
    }
    for account in [first, second] {
        let component = component.clone();
        assert_eq!(
            next_change(&mut subscription).await,
            PlatformChange::Authorization { component, account },
            "only a change of the state is published"
        );
    }
}

#[tokio::test]
async fn other_processes_receive_the_changes() {
    let memory = MemoryStore::new();
    check_messages(&memory, &memory.clone()).await;
    let server = RedisServer::start();
    for layout in [Layout::Hashes, Layout::Keys] {
        let ours = connect_redis(&server, layout).await;
        let theirs = connect_redis(&server, layout).await;
        check_messages(&ours, &theirs).await;
    }
}

/// On a Cluster, all keys of a script lie in one slot.
#[cfg(feature = "cluster")]
#[tokio::test]
async fn a_cluster_keeps_the_secrets_and_accounts() {
    let cluster = support::redis_cluster::RedisCluster::start().await;
    let connect = async || {
        let builder = RedisStore::builder(&cluster.url("")).layout(Layout::Keys);
        builder.connect().await.unwrap()
    };
    let (ours, theirs) = (connect().await, connect().await);
    for _ in 0..4 {
        check_messages(&ours, &theirs).await;
    }
    let risks = ours.durability_risks().await;
    assert_eq!(
        risks.len(),
        1,
        "the nodes of the test write no files: {risks:?}"
    );
    let component = unique_app();
    for number in 0..30 {
        let entry = entry(AuthorizationState::Authorized, number);
        let account = unique_app();
        let recorded = ours.record_authorization(&component, &account, entry);
        assert!(recorded.await.unwrap());
    }
    let list = theirs.authorizations(&component).await.unwrap();
    assert_eq!(list.entries.len(), 30);
    let check = ours.check_health(&component, CredentialKind::ComponentToken);
    check.await.unwrap();
}
