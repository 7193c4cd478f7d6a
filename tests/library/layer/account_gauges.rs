//! Tests of the gauges with an AppID as a label, with many accounts.

use metrics_exporter_prometheus::PrometheusBuilder;
use tower_wechat::credential::AppId;
use tower_wechat::{Account, Accounts, Error, MemoryStore, WechatClient};

/// A recorder keeps each series for ever, so accounts of a registry must not have any.
#[tokio::test]
async fn accounts_of_a_registry_make_no_series() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let client = WechatClient::builder("wxlisted", "secret").api_url("http://127.0.0.1:1");
    let client = client.build().unwrap();
    let other = client.clone();
    let accounts = Accounts::builder(MemoryStore::new())
        .account(Account::new(client).page_hosts(["h5.example.com"]))
        .registry(move |app_id: AppId| {
            let client = other.for_account(app_id, "secret");
            async move {
                let account = Account::new(client?).page_hosts(["h5.example.com"]);
                Ok::<_, Error>(Some(account))
            }
        })
        .build()
        .unwrap();
    let get = async |app_id: &str| {
        let app_id = AppId::new(app_id).unwrap();
        let found = accounts.get(&app_id).await.unwrap().unwrap();
        assert_eq!(found.app_id(), &app_id);
    };
    get("wxlisted").await;
    let text = recorder.handle().render();
    for gauge in [
        r#"wechat_resting_until_timestamp_seconds{app="wxlisted",kind="user"} 0"#,
        r#"wechat_credential_expires_timestamp_seconds{app="wxlisted",kind="jsapi_ticket"} 0"#,
    ] {
        assert!(text.contains(gauge), "{gauge}: {text}");
    }
    let series = text.lines().count();
    for number in 0..100 {
        get(&format!("wxfound{number}")).await;
    }
    let text = recorder.handle().render();
    assert_eq!(text.lines().count(), series, "{text}");
}
