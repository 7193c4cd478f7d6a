//! Tests of the values in Redis: the published layout, TTLs, and values that cannot be decoded or
//! stored.

use ::redis::Commands;

use super::*;
use crate::clock::Timestamp;
use crate::error::ErrorKind;

#[tokio::test]
async fn the_published_layout_is_byte_compatible() {
    let server = RedisServer::start();
    let store = connect_redis(&server, Layout::Hashes).await;
    let at = |millis| Timestamp::from_millis(millis);
    let lifetime = Lifetime::from_response(at(1_700_000_000_000), Some(7_200), MARGIN);
    let mut pair = record(CredentialKind::User, "ACCESS");
    pair.token = Some(Token {
        secret: AccessToken::from("ACCESS"),
        lifetime,
    });
    pair.refresh = Some(Refresh {
        secret: RefreshToken::from("REFRESH"),
        expected_expiry: at(1_702_591_100_000),
    });
    pair.details = UserDetails::default();
    store
        .overwrite(&slot(CredentialKind::User, "oA"), &pair)
        .await
        .unwrap();
    let account = Record {
        token: pair.token.clone(),
        ..Record::default()
    };
    store
        .overwrite(&slot(CredentialKind::AccountToken, ""), &account)
        .await
        .unwrap();
    let mut connection = server.connection();
    let value: String = connection.hget("user.wxUserAccessToken", "oA").unwrap();
    assert_eq!(value, "ACCESS#1700006300000");
    let value: String = connection.hget("user.wxUserRefreshToken", "oA").unwrap();
    assert_eq!(value, "REFRESH#1702591100000");
    let value: String = connection.get("sys.wxAccessToken").unwrap();
    assert_eq!(value, "ACCESS#1700006300000");
    let ttl: i64 = connection.ttl("sys.wxAccessToken").unwrap();
    assert_eq!(ttl, -1, "keys of the published layout have no TTL");
}

#[tokio::test]
async fn the_key_of_a_user_expires_and_is_small() {
    let server = RedisServer::start();
    let store = connect_redis(&server, Layout::Keys).await;
    store
        .overwrite(
            &slot(CredentialKind::User, "oA"),
            &record(CredentialKind::User, "t"),
        )
        .await
        .unwrap();
    let mut connection = server.connection();
    let ttl: i64 = connection.ttl("wechat:wx1:user:oA").unwrap();
    // The key lives for the remaining day of the refresh token, and for one more day in which
    // renewals still send that token.
    assert!((2 * 86_400 - 5..=2 * 86_400).contains(&ttl), "{ttl}");
    let bytes: u64 = ::redis::cmd("MEMORY")
        .arg("USAGE")
        .arg("wechat:wx1:user:oA")
        .query(&mut connection)
        .unwrap();
    assert!(bytes < 431, "{bytes}");
}

#[tokio::test]
async fn unreadable_values_are_missing_and_are_replaced() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    let (hashes, keys) = (
        connect_redis(&server, Layout::Hashes).await,
        connect_redis(&server, Layout::Keys).await,
    );
    let slot = slot(CredentialKind::User, "oA");
    for garbage in [
        &b"abc"[..],
        b"tok#",
        b"#123",
        b"tok#12x",
        b"",
        b"\xff\x00\xfe",
        b"9#a#1#2",
    ] {
        let _: () = connection
            .hset("user.wxUserAccessToken", "oA", garbage)
            .unwrap();
        let _: () = connection
            .hset("user.wxUserRefreshToken", "oA", garbage)
            .unwrap();
        let _: () = connection.set("wechat:wx1:user:oA", garbage).unwrap();
        for store in [&hashes, &keys] {
            let stored = store.load(&slot).await.unwrap();
            assert!(stored.record.is_empty(), "{garbage:?}");
            // A renewal compares with the unreadable value and replaces it.
            let owner = LeaseOwner::unique();
            let result = store
                .acquire_lease(&slot, &stored.expected, &owner, LEASE)
                .await
                .unwrap();
            assert!(matches!(result, LeaseResult::Acquired));
            let good = record(CredentialKind::User, "good");
            let commit = store
                .commit(&slot, &stored.expected, &good, &owner)
                .await
                .unwrap();
            assert!(matches!(commit, CommitResult::Committed));
            assert_eq!(store.load(&slot).await.unwrap().record, good);
        }
    }
}

#[tokio::test]
async fn a_key_of_another_type_is_a_store_error() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    let _: () = connection
        .set("user.wxUserAccessToken", "a string")
        .unwrap();
    let _: () = connection.rpush("wechat:wx1:user:oA", "a list").unwrap();
    let slot = slot(CredentialKind::User, "oA");
    for layout in [Layout::Hashes, Layout::Keys] {
        let store = connect_redis(&server, layout).await;
        let owner = LeaseOwner::unique();
        let expected = Expected(vec![None, None]);
        let errors = [
            store.load(&slot).await.unwrap_err(),
            store
                .acquire_lease(&slot, &expected, &owner, LEASE)
                .await
                .unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::StoreUnavailable);
            assert!(error.to_string().contains("another type"), "{error}");
        }
        // A hash of another type affects the credentials of all users. A key of another type
        // affects only one user, so the health check of the key layout succeeds. The account is not
        // affected.
        let app = &slot.key.app;
        store
            .check_health(app, CredentialKind::AccountToken)
            .await
            .unwrap();
        let healthy = store.check_health(app, CredentialKind::User).await.is_ok();
        assert_eq!(healthy, layout == Layout::Keys);
    }
}

#[tokio::test]
async fn tokens_that_cannot_be_stored_are_rejected() {
    let server = RedisServer::start();
    let store = connect_redis(&server, Layout::Hashes).await;
    let slot = slot(CredentialKind::User, "oA");
    for token in ["a#b", ""] {
        let error = store
            .overwrite(&slot, &record(CredentialKind::User, token))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WechatUnavailable);
    }
    assert!(store.load(&slot).await.unwrap().record.is_empty());
}
