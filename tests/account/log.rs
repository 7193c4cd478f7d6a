//! What an operator reads: one loud line for one cause, and never a secret.

use tower_wechat::simulator::Fault;
use tower_wechat::{AccountTokens, TokenCenter, TokenCenterSource};

use crate::rig::{CALL, Rig, STABLE, secs};
use crate::support::log_lines::LogLines;

/// Everything that is logged on this thread, down to the last detail.
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
async fn the_operator_is_told_once_and_what_to_do() {
    let rig = Rig::start().await;
    let (lines, _guard) = collect();
    rig.settings(|settings| settings.ip_whitelist = Some(vec![]));
    let accounts = rig.accounts();
    let tickets = rig.tickets(&accounts);
    for _ in 0..6 {
        let _ = accounts.get().await;
        let _ = tickets.get().await;
        rig.advance(secs(16));
    }
    assert!(
        rig.sim.calls_to(STABLE) >= 2,
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
    let rig = Rig::start().await;
    let (lines, _guard) = collect();
    let accounts = rig.accounts();
    let tickets = rig.tickets(&accounts);
    let center = TokenCenter::new(accounts.clone(), ["the-bearer-secret"]).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = axum::Router::new().fallback_service(center.clone().tickets(tickets.clone()));
    tokio::spawn(async move { axum::serve(listener, app).await });
    let client = |bearer: &str| {
        let source = TokenCenterSource::new(rig.sim.app_id(), &url, bearer.to_owned()).unwrap();
        AccountTokens::center_builder(source, rig.memory())
            .clock(rig.clock.clone())
            .build()
    };
    let (fleet, stranger) = (client("the-bearer-secret"), client("a-wrong-secret"));

    let mut secrets = vec![rig.sim.app_secret().to_owned()];
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
            rig.sim.inject(fault);
        }
        let _ = rig.call(&accounts).await;
        let _ = rig.call(&fleet).await;
        assert!(stranger.get().await.is_err());
        let _ = tickets.js_config(page).await;
        if let Ok(ticket) = tickets.get().await {
            secrets.push(ticket.ticket().expose().to_owned());
        }
        secrets.extend(rig.sim.account_token());
        rig.sim.clear_faults();
        rig.advance(secs(3_700));
    }
    let shown = format!(
        "{accounts:?} {tickets:?} {center:?} {fleet:?} {:?}",
        accounts.get().await
    );
    let text = lines.text() + &shown;
    assert!(text.lines().count() > 20, "something was logged");
    for secret in secrets {
        // The HTTP client's own trace lines are not ours to judge.
        let seen = text
            .lines()
            .find(|line| line.contains(&secret) && line.contains("tower_wechat"));
        assert!(seen.is_none(), "{secret}: {seen:?}");
    }
}
