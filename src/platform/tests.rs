//! Tests of steps that cross in a way that no schedule from outside can bring about.

use std::time::Duration;

use super::authorizations::Grant;
use super::{Platform, PushKeys};
use crate::MemoryStore;
use crate::credential::{AccessToken, AppId, RefreshToken};
use crate::simulator::Simulator;
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
