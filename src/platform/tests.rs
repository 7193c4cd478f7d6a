//! Tests of steps that cross in a way that no schedule from outside can bring about.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::authorizations::Grant;
use super::{Platform, PushKeys};
use crate::MemoryStore;
use crate::accounts::{account_record, account_slot};
use crate::credential::{AccessToken, AppId, Lifetime, RefreshToken};
use crate::simulator::Simulator;
use crate::store::{CredentialKind, DurableSecret};
use crate::wechat::PlatformAuthority;

const RENEWAL: &str = "/cgi-bin/component/api_authorizer_token";

/// An authorization is stored after a renewal began, and before the renewal reads the refresh token.
/// WeChat would end the token of the authorization if it issued another one.
#[tokio::test]
async fn a_renewal_that_reads_a_new_refresh_token_takes_its_access_token() {
    let simulator = Simulator::builder().start().await.unwrap();
    let wechat = simulator.add_platform("wxcomponent", "secret-of-the-platform");
    let keys = PushKeys::new(["token"], ["abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"]).unwrap();
    let platform = Platform::builder(wechat.client().unwrap(), MemoryStore::new())
        .push_keys(keys)
        .build()
        .unwrap();
    let account = AppId::new("wxaccount").unwrap();
    let state = &platform.0;
    let grant = Grant {
        account: account.clone(),
        refresh_token: Some(RefreshToken::from("new-refresh")),
        access_token: Some((AccessToken::from("new-access"), Some(7_200))),
        since: state.clock.now(),
    };
    let now = state.clock.now();
    assert!(state.authorizations.store_grant(&grant, now).await.unwrap());

    let before = AccessToken::from("old-access");
    let renewed = state.renew_authorizer_token(&account, Some(&before)).await;
    assert_eq!(renewed.unwrap().access_token.expose(), "new-access");
    assert_eq!(simulator.calls_to(RENEWAL), 0);

    // The token of the authorization itself is renewed at WeChat.
    let before = AccessToken::from("new-access");
    let failed = state.renew_authorizer_token(&account, Some(&before)).await;
    assert!(failed.is_err(), "there is no verify ticket");
    assert!(platform.shutdown(Duration::from_secs(5)).await);
}

/// A list brings a refresh token while another process stores the same one with its access token, as an
/// import does. The list has written no access token, and so it removes none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_meets_its_own_refresh_token_leaves_the_access_token() {
    let simulator = Simulator::builder().start().await.unwrap();
    let wechat = simulator.add_platform("wxcomponent", "secret-of-the-platform");
    let platform = Platform::builder(wechat.client().unwrap(), MemoryStore::new())
        .build()
        .unwrap();
    let state = &platform.0;
    let now = state.clock.now();
    for number in 0..500 {
        let account = AppId::new(format!("wxaccount{number}")).unwrap();
        let refresh = RefreshToken::from(format!("refresh-{number}"));
        let lists = JoinSet::from_iter((0..4).map(|_| {
            let state = Arc::clone(state);
            let listed = Grant {
                account: account.clone(),
                refresh_token: Some(refresh.clone()),
                access_token: None,
                since: now,
            };
            async move {
                state
                    .authorizations
                    .store_grant(&listed, now)
                    .await
                    .unwrap()
            }
        }));
        let imported = DurableSecret {
            secret: refresh,
            since: now,
        };
        let secrets = &state.authorizations.refresh_tokens;
        secrets.replace_older(&account, &imported).await.unwrap();
        let lifetime = Lifetime::from_response(now, Some(7_200), Duration::ZERO);
        let record = account_record(AccessToken::from("imported"), lifetime);
        let slot = account_slot(&account, CredentialKind::AccountToken, Duration::ZERO);
        state.store.overwrite(&slot, &record).await.unwrap();
        lists.join_all().await;
        let token = state.authorizations.access_token(&account).await.unwrap();
        assert!(token.is_some(), "{account}");
    }
}
