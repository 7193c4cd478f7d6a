//! Tests of log lines about the account: one ERROR line for each cause, and no secret.

use tower_wechat::AccountTokens;
use tower_wechat::account::{TokenCenter, TokenCenterClient};
use tower_wechat::simulator::Fault;

use super::harness::{CALL, Harness, STABLE, secs};
use crate::support::log_lines::LogLines;

/// Collects all lines that this thread logs, at all levels, until the guard is dropped.
fn collect() -> (LogLines, tracing::subscriber::DefaultGuard) {
    let lines = LogLines::default();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter("trace")
        .with_ansi(false)
        .with_writer(lines.clone())
        .finish();
    (lines, tracing::subscriber::set_default(subscriber))
}

fn loud(lines: &LogLines) -> Vec<String> {
    let text = lines.text();
    text.lines()
        .filter(|line| line.contains("ERROR"))
        .map(str::to_owned)
        .collect()
}

#[tokio::test]
async fn one_log_line_names_the_remedy() {
    let harness = Harness::start().await;
    let (lines, _guard) = collect();
    harness.settings(|settings| settings.ip_whitelist = Some(vec![]));
    let accounts = harness.accounts();
    let tickets = harness.tickets(&accounts);
    for _ in 0..6 {
        let _ = accounts.get().await;
        let _ = tickets.get().await;
        harness.advance(secs(16));
    }
    assert!(
        harness.sim.calls_to(STABLE) >= 2,
        "it is tried again after each cool-down"
    );
    let loud = loud(&lines);
    assert_eq!(loud.len(), 1, "{loud:#?}");
    assert!(
        loud[0].contains("127.0.0.1") && loud[0].contains("whitelist"),
        "{}",
        loud[0]
    );
}

#[tokio::test]
async fn no_secret_is_ever_logged() {
    let harness = Harness::start().await;
    let (lines, _guard) = collect();
    let accounts = harness.accounts();
    let tickets = harness.tickets(&accounts);
    let center = TokenCenter::new(accounts.clone(), ["the-bearer-secret"]).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = axum::Router::new().fallback_service(center.clone().tickets(tickets.clone()));
    tokio::spawn(async move { axum::serve(listener, app).await });
    let client = |bearer: &str| {
        let source = TokenCenterClient::new(harness.sim.app_id(), &url, bearer.to_owned()).unwrap();
        AccountTokens::builder(source, harness.memory())
            .clock(harness.clock.clone())
            .build()
    };
    let (fleet, unauthorized) = (client("the-bearer-secret"), client("a-wrong-secret"));

    let mut secrets = vec![harness.sim.app_secret().to_owned()];
    secrets.extend(["the-bearer-secret".to_owned(), "a-wrong-secret".to_owned()]);
    let page = "https://h5.example.com/?code=a-code";
    for fault in [
        None,
        Some(Fault::on("*").errcode(40001).times(2)),
        Some(Fault::on(CALL).errcode(40001).times(1)),
        Some(
            Fault::on("*")
                .body("<html>access_token=83_secret</html>")
                .times(1),
        ),
        Some(Fault::on("*").reset().times(1)),
        Some(Fault::on("*").status(502).times(1)),
    ] {
        if let Some(fault) = fault {
            harness.sim.inject(fault);
        }
        let _ = harness.call(&accounts).await;
        let _ = harness.call(&fleet).await;
        assert!(unauthorized.get().await.is_err());
        let _ = tickets.js_config(page).await;
        if let Ok(ticket) = tickets.get().await {
            secrets.push(ticket.ticket().expose().to_owned());
        }
        secrets.extend(harness.sim.account_token());
        harness.sim.clear_faults();
        harness.advance(secs(3_700));
    }
    let shown = format!(
        "{accounts:?} {tickets:?} {center:?} {fleet:?} {:?}",
        accounts.get().await
    );
    let text = lines.text() + &shown;
    assert!(text.lines().count() > 20, "something was logged");
    for secret in secrets {
        // Lines of the HTTP client do not contain `tower_wechat` and are not checked.
        let seen = text
            .lines()
            .find(|line| line.contains(&secret) && line.contains("tower_wechat"));
        assert!(seen.is_none(), "{secret}: {seen:?}");
    }
}

/// The name of EasyWeChat's key contains the AppSecret. Errors and log lines about that key hide
/// it.
#[tokio::test]
async fn a_key_that_holds_the_secret_is_never_logged() {
    use redis::Commands;
    use tower_wechat::redis::ExternalToken;

    let harness = Harness::start().await;
    let server = crate::support::redis_server::RedisServer::start();
    let (lines, _guard) = collect();
    let (app, secret) = (harness.sim.app_id(), harness.sim.app_secret());
    let key = format!("cache_:official_account.access_token.{app}.{secret}.0");
    let mut redis = server.connection();
    let mut shown = String::new();
    for token in [
        ExternalToken::easy_wechat_6_15(secret, false).key_prefix("cache_:"),
        ExternalToken::easy_wechat().key(key.as_str()),
    ] {
        for garbage in [
            &b"\0\0\0\x02\x17\x01a"[..],
            b"{\"access_token\":1}",
            b"\xac\xed\x00\x05t\x00\x0283",
            b"",
        ] {
            let _: () = redis.set_ex(&key, garbage, 100).unwrap();
            let store = harness.redis(&server.url()).await;
            let accounts = AccountTokens::builder(
                token.clone().source(harness.wechat(), store.clone()),
                store,
            )
            .clock(harness.clock.clone())
            .build();
            let error = accounts.get().await.unwrap_err();
            shown.push_str(&format!("{error} {error:?} {accounts:?} {token:?}\n"));
        }
    }
    // The key has another type, so that reading it fails.
    let _: () = redis.del(&key).unwrap();
    let _: () = redis.rpush(&key, "a").unwrap();
    let store = harness.redis(&server.url()).await;
    let token = ExternalToken::easy_wechat_6_15(secret, false).key_prefix("cache_:");
    let accounts = AccountTokens::new(token.source(harness.wechat(), store.clone()), store);
    let error = accounts.get().await.unwrap_err();
    shown.push_str(&format!("{error} {error:?} {accounts:?}"));

    shown.push_str(&lines.text());
    assert!(!shown.contains(secret), "{shown}");
    assert!(shown.contains("igbinary"), "{shown}");
    assert!(shown.contains("Java's own serialization"), "{shown}");
    assert!(shown.contains("official_account.access_token"), "{shown}");
}
