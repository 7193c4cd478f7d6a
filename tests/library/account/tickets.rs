//! Tests of the ticket and of signatures.

use tower_wechat::simulator::Fault;
use tower_wechat::{ErrorKind, Tickets, jssdk};

use super::harness::{Harness, STABLE, TICKET, secs};

#[tokio::test]
async fn a_page_is_signed_with_the_current_ticket() {
    let harness = Harness::start().await;
    let tickets = harness.tickets(&harness.accounts());
    let url = "https://h5.example.com?from=singlemessage#/route";
    let config = tickets.js_config(url).await.unwrap();
    let ticket = tickets.get().await.unwrap();
    assert_eq!(config.app_id, harness.sim.app_id());
    let cut = "https://h5.example.com?from=singlemessage";
    let expected = jssdk::sign(
        ticket.ticket().expose(),
        &config.nonce_str,
        config.timestamp,
        cut,
    );
    assert_eq!(config.signature, expected);
    let now = u64::try_from(harness.clock.now().as_millis() / 1_000).unwrap();
    assert!(now - config.timestamp <= 1);
    assert_eq!(
        (harness.sim.calls_to(STABLE), harness.sim.calls_to(TICKET)),
        (1, 1)
    );
}

#[tokio::test]
async fn foreign_pages_are_rejected_without_a_call() {
    let harness = Harness::start().await;
    let tickets = harness.tickets(&harness.accounts());
    for url in [
        "https://evil.example/",
        "",
        "https://h5.example.com@evil.example/",
    ] {
        let error = tickets.js_config(url).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadRequest);
    }
    assert_eq!(
        (harness.sim.calls_to(STABLE), harness.sim.calls_to(TICKET)),
        (0, 0)
    );
}

#[tokio::test]
async fn a_host_that_matches_no_page_fails_the_start() {
    let harness = Harness::start().await;
    let accounts = harness.accounts();
    for host in [
        "https://h5.example.com",
        "*",
        "*.example.com",
        "h5.*.com:8443",
        "*:*",
        "a.example.com,b.example.com",
        "@h5.example.com",
        "me@h5.example.com",
        " h5.example.com",
        "h5.example.com\n",
        "h5.example\t.com",
        "h5.example.com:0",
        "h5.example.com:00",
        "h5.example.com\\",
    ] {
        let Err(error) = Tickets::new(&accounts, [host]) else {
            panic!("{host:?} was taken");
        };
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains("is no host"), "{error}");
    }
    for host in [
        "h5.example.com",
        "h5.example.com:8443",
        "localhost:*",
        "[::1]:80",
    ] {
        Tickets::new(&accounts, [host]).unwrap();
    }
}

#[tokio::test]
async fn a_ticket_is_kept_for_an_hour_at_most() {
    let harness = Harness::start().await;
    let tickets = harness.tickets(&harness.accounts());
    let ticket = tickets.get().await.unwrap();
    assert!(
        ticket.expires_in() <= secs(3_600),
        "{:?}",
        ticket.expires_in()
    );
    assert_eq!(harness.sim.calls_to(TICKET), 1);
    harness.advance(secs(3_601));
    tickets.get().await.unwrap();
    assert_eq!(harness.sim.calls_to(TICKET), 2);
}

#[tokio::test]
async fn a_ticket_call_replaces_a_rejected_token() {
    let harness = Harness::start().await;
    let accounts = harness.accounts();
    accounts.get().await.unwrap();
    harness.advance(secs(31));
    harness.wechat().stable_account_token(true).await.unwrap();
    harness.tickets(&accounts).get().await.unwrap();
    assert_eq!(harness.sim.calls_to(TICKET), 2);
}

#[tokio::test]
async fn the_old_ticket_is_served_while_wechat_is_busy() {
    let harness = Harness::start().await;
    let tickets = harness.tickets(&harness.accounts());
    let old = tickets.get().await.unwrap();
    harness.sim.inject(Fault::on(TICKET).errcode(-1));
    harness.advance(secs(3_400));
    let again = tickets.get().await.unwrap();
    assert_eq!(again.ticket(), old.ticket());
}

#[tokio::test]
async fn processes_count_reports_of_tickets_together() {
    let harness = Harness::start().await;
    let store = harness.memory();
    let process = || harness.tickets(&harness.builder(store.clone()).build());
    let processes: Vec<_> = (0..4).map(|_| process()).collect();
    let ticket = processes[0].get().await.unwrap();
    harness.sim.reset_calls();
    for _ in 0..3 {
        for process in &processes {
            let _ = process.report_invalid(ticket.ticket()).await;
        }
        harness.advance(secs(16));
    }
    assert_eq!(
        harness.sim.calls_to(TICKET),
        1,
        "WeChat is asked once a minute"
    );
    harness.advance(secs(60));
    let _ = processes[3].report_invalid(ticket.ticket()).await;
    assert_eq!(harness.sim.calls_to(TICKET), 2);

    // A ticket past its renewal point is renewed at a report, although another process has reported
    // shortly before.
    harness.advance(secs(3_540));
    let _ = processes[2].report_invalid(ticket.ticket()).await;
    let renewed = harness.sim.calls_to(TICKET);
    harness.advance(secs(3_600));
    let _ = processes[1].report_invalid(ticket.ticket()).await;
    assert_eq!(harness.sim.calls_to(TICKET), renewed + 1);
}
