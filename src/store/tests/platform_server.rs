//! Tests of a third-party platform's data on servers that limit rights, lose replies or may lose
//! data.

use ::redis::Commands;

use super::platform::{secret, unique_app};
use super::platform_values::{TOKEN, name_of, raw, refresh_key, store_secret, ticket_key};
use super::support::proxy::{Proxy, Weather};
use super::*;
use crate::error::ErrorKind;

/// Returns a user of the server with exactly the commands and keys of the Redis guide.
fn with_guide_user(server: &RedisServer, commands: &[&str]) -> String {
    let mut create = ::redis::cmd("ACL");
    create.arg(&["SETUSER", "app", "on", ">word", "resetkeys", "-@all"]);
    create.arg(&["&wechat:*", "~user.wx*", "~sys.wx*", "~wechat:*"]);
    let () = create
        .arg(commands)
        .query(&mut server.connection())
        .unwrap();
    format!("redis://app:word@{}", server.address())
}

fn guide_commands() -> Vec<&'static str> {
    let guide = include_str!("../../guide/redis.md");
    let list = guide.split('`').find(|text| text.starts_with("+get "));
    list.expect("the guide lists the commands")
        .split(' ')
        .collect()
}

#[tokio::test]
async fn the_permissions_of_the_guide_are_enough() {
    let server = RedisServer::start();
    let url = with_guide_user(&server, &guide_commands());
    for layout in [Layout::Hashes, Layout::Keys] {
        let builder = RedisStore::builder(&url).layout(layout);
        let store = builder.connect().await.unwrap();
        for key in [refresh_key("wx1"), ticket_key("wxc")] {
            let name = name_of(layout, &key);
            let () = server.connection().set_ex(&name, TOKEN, 1_000).unwrap();
            let stored = store.load_secret(&key).await.unwrap();
            assert_eq!(stored.value, Some(secret(TOKEN, 0)));
            let ttl: i64 = server.connection().ttl(&name).unwrap();
            assert_eq!(ttl, -1, "{name}");
            let () = server.connection().expire(&name, 1_000).unwrap();
            store_secret(&store, &key, &secret(TOKEN, 1)).await;
            let ttl: i64 = server.connection().ttl(&name).unwrap();
            assert_eq!(ttl, -1, "{name}");
        }
        let component = unique_app();
        let entry = Authorization {
            state: AuthorizationState::Authorized,
            since: Clock::system().now(),
        };
        let account = unique_app();
        let recorded = store.record_authorization(&component, &account, entry);
        assert!(recorded.await.unwrap());
        store.set_listed(&component, entry.since).await.unwrap();
        let list = store.authorizations(&component).await.unwrap();
        assert_eq!((list.entries.len(), list.listed_at), (1, Some(entry.since)));
        let checked = store.check_health(&component, CredentialKind::ComponentToken);
        checked.await.unwrap();
        // The guide does not ask for CONFIG and INFO. An unknown setting is no risk.
        assert!(store.durability_risks().await.is_empty());
    }
}

#[tokio::test]
async fn health_reports_a_hash_of_another_type() {
    let server = RedisServer::start();
    let store = connect_redis(&server, Layout::Keys).await;
    let component = AppId::new("wxc").unwrap();
    let kind = CredentialKind::ComponentToken;
    store.check_health(&component, kind).await.unwrap();
    let hash = "wechat:wxc:platform:accounts";
    let () = server.connection().set(hash, "text").unwrap();
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let error = store.check_health(&component, kind).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StoreUnavailable);
}

#[tokio::test]
async fn the_settings_of_a_server_show_the_risks() {
    let server = RedisServer::start();
    let store = connect_redis(&server, Layout::Hashes).await;
    let set = |name: &str, value: &str| {
        let mut set = ::redis::cmd("CONFIG");
        let () = set
            .arg("SET")
            .arg(name)
            .arg(value)
            .query(&mut server.connection())
            .unwrap();
    };
    set("save", "");
    let risks = store.durability_risks().await;
    assert_eq!(risks.len(), 1, "{risks:?}");
    assert!(
        risks[0].contains("neither an append-only file nor snapshots")
            && risks[0].contains(&server.address()),
        "{risks:?}"
    );
    set("maxmemory", "100mb");
    set("maxmemory-policy", "allkeys-lru");
    assert_eq!(store.durability_risks().await.len(), 2);
    set("save", "3600 1");
    let risks = store.durability_risks().await;
    assert_eq!(risks.len(), 1, "{risks:?}");
    assert!(risks[0].contains("allkeys-lru"), "{risks:?}");
    // Without CONFIG, INFO shows the eviction policy.
    let commands = [&guide_commands()[..], &["+info"]].concat();
    let url = with_guide_user(&server, &commands);
    let restricted = RedisStore::connect(&url).await.unwrap();
    let risks = restricted.durability_risks().await;
    assert_eq!(risks.len(), 1, "{risks:?}");
    set("maxmemory-policy", "noeviction");
    assert!(restricted.durability_risks().await.is_empty());
    assert!(store.durability_risks().await.is_empty());
    assert_eq!(MemoryStore::new().durability_risks().await.len(), 1);
}

/// A frozen server delays the start of a platform only by the timeout of the search.
#[tokio::test]
async fn the_search_for_risks_ends_in_time() {
    let server = RedisServer::start();
    let store = connect_redis(&server, Layout::Hashes).await;
    server.freeze(true);
    let started = std::time::Instant::now();
    assert!(store.durability_risks().await.is_empty());
    assert!(started.elapsed() < Duration::from_secs(6));
    server.freeze(false);
}

/// The network loses every fifth reply. A writer that repeats each failed call never finds its own
/// write as a conflict.
#[tokio::test]
async fn lost_replies_cause_no_conflict() {
    let server = RedisServer::start();
    let proxy = Proxy::start(&server.address(), 7).await;
    let builder = RedisStore::builder(&format!("redis://{}", proxy.address()));
    let store = builder.connect().await.unwrap();
    proxy.weather(Weather {
        cut: 200,
        ..Weather::CALM
    });
    let key = refresh_key("wx1");
    let give_up_at = std::time::Instant::now() + Duration::from_secs(60);
    let mut failures = 0;
    for number in 1..=40 {
        let next = secret(&format!("token@@@{number}"), number);
        let mut stored = None;
        loop {
            assert!(
                std::time::Instant::now() < give_up_at,
                "{failures} failures"
            );
            let attempt = async {
                if stored.is_none() {
                    stored = Some(store.load_secret(&key).await?);
                }
                let expected = stored.as_ref().map(|stored| &stored.expected);
                let expected = expected.cloned().unwrap_or_default();
                store.replace_secret(&key, &expected, Some(&next)).await
            };
            match attempt.await {
                Ok(replaced) => {
                    assert!(replaced, "a false conflict at {number}");
                    break;
                }
                Err(_) => failures += 1,
            }
            // The circuit breaker allows the next attempt after a moment.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    assert!(failures > 0 && proxy.damage().cut > 0);
    proxy.weather(Weather::CALM);
    let value = raw(&server, "sys.wxRefreshToken").unwrap();
    assert!(value.starts_with("token@@@40#"));
}

/// A script without the right to publish writes, and so does one on a server without `PUBLISH`.
#[tokio::test]
async fn a_missing_right_to_publish_loses_no_write() {
    let server = RedisServer::start();
    let commands = guide_commands();
    let commands = commands.into_iter().filter(|name| *name != "+publish");
    let url = with_guide_user(&server, &commands.collect::<Vec<_>>());
    let store = RedisStore::connect(&url).await.unwrap();
    let key = refresh_key("wx1");
    store_secret(&store, &key, &secret(TOKEN, 1)).await;
    let stored = store.load_secret(&key).await.unwrap();
    assert_eq!(stored.value, Some(secret(TOKEN, 1)));
    let (component, account) = (unique_app(), unique_app());
    let entry = Authorization {
        state: AuthorizationState::Authorized,
        since: Clock::system().now(),
    };
    let recorded = store.record_authorization(&component, &account, entry);
    assert!(recorded.await.unwrap());
    let lookup = store.authorization(&component, &account).await.unwrap();
    assert_eq!(lookup.entry, Some(entry));
}
