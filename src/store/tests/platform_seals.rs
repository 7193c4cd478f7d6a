//! Tests of sealed secrets of a third-party platform.

use ::redis::Commands;

use super::platform::secret;
use super::platform_values::{TOKEN, name_of, raw, refresh_key, store_secret, ticket_key};
use super::*;
use crate::error::ErrorKind;

#[tokio::test]
async fn sealed_secrets_are_bound_to_their_key() {
    let (server, stores) = sealing::start_sealed_stores().await;
    for (store, layout) in stores.iter().zip([Layout::Hashes, Layout::Keys]) {
        for (key, other) in [
            (refresh_key("wx1"), refresh_key("wx2")),
            (ticket_key("wxc"), ticket_key("wxd")),
        ] {
            store_secret(store, &key, &secret(TOKEN, 5)).await;
            let name = name_of(layout, &key);
            let value = raw(&server, &name).unwrap();
            assert!(
                value.starts_with("#0#s1#") && !value.contains(TOKEN),
                "{value}"
            );
            let stored = store.load_secret(&key).await.unwrap();
            assert_eq!(stored.value, Some(secret(TOKEN, 5)));
            // A value of another account, or of another kind, does not open.
            let copy = name_of(layout, &other);
            let () = server.connection().set(&copy, &value).unwrap();
            assert_eq!(store.load_secret(&other).await.unwrap().value, None);
            let () = server.connection().del(&copy).unwrap();
        }
    }
}

#[tokio::test]
async fn secrets_with_an_unknown_seal_are_left_alone() {
    let (server, [sealed, _]) = sealing::start_sealed_stores().await;
    let key = refresh_key("wx1");
    store_secret(&sealed, &key, &secret(TOKEN, 5)).await;
    let without_keys = sealing::connect_without_registry(&server, "").await;
    let stored = without_keys.load_secret(&key).await.unwrap();
    assert_eq!(stored.value, None);
    let next = secret("next@@@1", 6);
    let refused = without_keys
        .replace_secret(&key, &stored.expected, Some(&next))
        .await;
    let error = refused.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(
        error
            .to_string()
            .contains("the stored refresh_token is sealed"),
        "{error}"
    );
    let stored = sealed.load_secret(&key).await.unwrap();
    assert_eq!(stored.value, Some(secret(TOKEN, 5)));
}

/// An operator runs `reseal` between the read and the write of a process.
#[tokio::test]
async fn a_new_seal_of_the_same_secret_is_no_conflict() {
    let (server, [sealed, _]) = sealing::start_sealed_stores().await;
    let plain = sealing::connect_without_registry(&server, "").await;
    let key = refresh_key("wx1");
    store_secret(&plain, &key, &secret(TOKEN, 5)).await;
    let before = sealed.load_secret(&key).await.unwrap();
    assert_eq!(before.value, Some(secret(TOKEN, 5)));
    store_secret(&sealed, &key, &secret(TOKEN, 5)).await;
    let next = secret("next@@@1", 6);
    let replaced = sealed.replace_secret(&key, &before.expected, Some(&next));
    assert!(replaced.await.unwrap());
    let late = secret("late@@@1", 7);
    let again = sealed.replace_secret(&key, &before.expected, Some(&late));
    assert!(!again.await.unwrap());
}
