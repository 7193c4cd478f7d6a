//! Tests of the stores. This file contains what the other files share.
//!
//! The tests in [`contract`] run against every store, and so do those in [`tombstones`] except one.
//! The tests in the other files run only against Redis.

#[cfg(all(feature = "metrics", feature = "sealing"))]
mod batches;
mod contract;
mod dual_write;
#[cfg(feature = "platform")]
mod platform;
#[cfg(all(feature = "platform", feature = "sealing"))]
mod platform_seals;
#[cfg(feature = "platform")]
mod platform_server;
#[cfg(feature = "cli")]
mod platform_tasks;
#[cfg(feature = "platform")]
mod platform_values;
mod published;
#[cfg(feature = "sealing")]
mod sealing;
mod start_up;
#[path = "../../../tests/support/mod.rs"]
mod support;
mod sweep;
mod tombstones;

use std::time::Duration;

use self::support::redis_server::RedisServer;
use super::*;
use crate::clock::Clock;
use crate::credential::{
    AccessToken, AppId, Lifetime, Record, Refresh, RefreshToken, Token, UserDetails,
};

const MARGIN: Duration = Duration::from_secs(900);
const LEASE: Duration = Duration::from_secs(10);

/// Returns the slot of a credential of the account `wx1`.
fn slot(kind: CredentialKind, id: &str) -> CredentialSlot {
    let key = CredentialKey {
        app: AppId::new("wx1").unwrap(),
        kind,
        id: id.into(),
    };
    CredentialSlot {
        key,
        margin: MARGIN,
    }
}

/// Returns a record with a fresh token. A user's record also has a refresh token and an openid.
fn record(kind: CredentialKind, token: &str) -> Record {
    let now = Clock::system().now();
    let lifetime = Lifetime::from_response(now, Some(7_200), MARGIN);
    let token = Some(Token {
        secret: AccessToken::from(token),
        lifetime,
    });
    if kind != CredentialKind::User {
        return Record {
            token,
            ..Record::default()
        };
    }
    let refresh = Some(Refresh {
        secret: RefreshToken::from("refresh"),
        expected_expiry: now.saturating_add(Duration::from_secs(86_400)),
    });
    let details = UserDetails {
        openid: Some("oA".into()),
        ..UserDetails::default()
    };
    Record {
        token,
        refresh,
        details,
    }
}

async fn connect_redis(server: &RedisServer, layout: Layout) -> RedisStore {
    RedisStore::builder(&server.url())
        .layout(layout)
        .connect()
        .await
        .unwrap()
}

/// Connects a store that reads `layout`, and writes to `layout` and `copy`.
async fn connect_dual_write(server: &RedisServer, layout: Layout, copy: Layout) -> RedisStore {
    let builder = RedisStore::builder(&server.url()).layout(layout);
    builder.dual_write(copy).connect().await.unwrap()
}

/// Acquires the lease of a slot that holds `expected`, and returns the owner.
async fn acquire(store: &dyn Store, slot: &CredentialSlot, expected: &Expected) -> LeaseOwner {
    let owner = LeaseOwner::unique();
    let result = store
        .acquire_lease(slot, expected, &owner, LEASE)
        .await
        .unwrap();
    assert!(matches!(result, LeaseResult::Acquired));
    owner
}

/// Runs a check against every store, for every kind of credential.
async fn on_every_store(check: impl AsyncFn(&dyn Store, CredentialSlot)) {
    on_each_store(async |store| {
        for kind in CredentialKind::ALL {
            let id = match kind.belongs_to_account() {
                true => "",
                false => "u:{1}# \u{5f20}",
            };
            check(store, slot(kind, id)).await;
        }
    })
    .await;
}

/// Runs a check against every store.
async fn on_each_store(check: impl AsyncFn(&dyn Store)) {
    let server = RedisServer::start();
    let hashes = connect_redis(&server, Layout::Hashes).await;
    let keys = connect_redis(&server, Layout::Keys).await;
    let memory = MemoryStore::new();
    let both = RedisServer::start();
    let from_hashes = connect_dual_write(&both, Layout::Hashes, Layout::Keys).await;
    let from_keys = connect_dual_write(&both, Layout::Keys, Layout::Hashes).await;
    let mut stores: Vec<&dyn Store> = vec![&memory, &hashes, &keys, &from_hashes, &from_keys];
    #[cfg(feature = "sealing")]
    let sealed = sealing::start_sealed_stores().await;
    #[cfg(feature = "sealing")]
    stores.extend(sealed.1.iter().map(|store| store as &dyn Store));
    for store in stores {
        check(store).await;
    }
}
