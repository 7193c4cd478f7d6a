//! Tests of injected faults, and of the simulator's shutdown.

use std::{
    error::Error,
    io,
    time::{Duration, Instant},
};

use reqwest::Method;
use tower_wechat::simulator::{Fault, Simulator};

use super::harness::Harness;

const REFRESH: &str = "/sns/oauth2/refresh_token";

impl Harness {
    /// Sends a request whose connection breaks. Returns the kind of the operating system's error.
    async fn broken(&self, path: &str) -> io::ErrorKind {
        let error = match self.try_send(Method::GET, path, None).await {
            Ok(reply) => panic!("{}: {}", reply.status, reply.text),
            Err(error) => error,
        };
        let mut source: Option<&(dyn Error + 'static)> = Some(&error);
        while let Some(error) = source {
            if let Some(error) = error.downcast_ref::<io::Error>() {
                return error.kind();
            }
            source = error.source();
        }
        panic!("{error:?}")
    }
}

#[tokio::test]
async fn a_delay_does_not_change_the_response() {
    let harness = Harness::start().await;
    let pair = harness.sim.sign_in("oAlice", "snsapi_base");
    harness.sim.inject(
        Fault::on(REFRESH)
            .delay(Duration::from_millis(200))
            .times(1),
    );
    let started = Instant::now();
    assert_eq!(
        harness.refresh(&pair.refresh_token).await.field("openid"),
        "oAlice"
    );
    assert!(started.elapsed() >= Duration::from_millis(200));
}

#[tokio::test]
async fn an_errcode_is_returned_the_given_number_of_times() {
    let harness = Harness::start().await;
    let pair = harness.sim.sign_in("oAlice", "snsapi_base");
    harness.sim.inject(Fault::on(REFRESH).errcode(-1).times(2));
    harness
        .sim
        .inject(Fault::on(REFRESH).errcode(45011).times(1));
    for _ in 0..2 {
        harness
            .refresh(&pair.refresh_token)
            .await
            .refused(-1, "system error");
    }
    harness.refresh(&pair.refresh_token).await.refused(
        45011,
        "api minute-quota reach limit, must slower, retry next minute",
    );
    harness
        .refresh(&pair.refresh_token)
        .await
        .field("access_token");
    assert_eq!(harness.sim.calls_to(REFRESH), 4);
}

#[tokio::test]
async fn a_fault_without_times_stays_until_cleared() {
    let harness = Harness::start().await;
    harness.sim.inject(Fault::on("*").errcode(40001));
    for path in [
        "/sns/auth",
        "/cgi-bin/token",
        "/connect/oauth2/authorize",
        "/nothing",
    ] {
        assert_eq!(harness.get(path).await.json()["errcode"], 40001);
    }
    // A fault for all paths does not affect the control interface.
    assert_eq!(harness.get("/_sim/calls").await.json()["/nothing"], 1);
    harness.sim.clear_faults();
    harness
        .get("/sns/auth")
        .await
        .refused(41001, "access_token missing");
}

#[tokio::test]
async fn status_and_body_are_sent_as_they_are() {
    let harness = Harness::start().await;
    harness.sim.inject(Fault::on(REFRESH).status(502).times(1));
    harness
        .sim
        .inject(Fault::on(REFRESH).body("<html>captive</html>").times(1));
    harness
        .sim
        .inject(Fault::on(REFRESH).status(503).body("").times(1));
    harness
        .sim
        .inject(Fault::on(REFRESH).body_bytes(vec![0xff, b'{']).times(1));
    harness
        .sim
        .inject(Fault::on(REFRESH).status(500).errcode(-1).times(1));
    let mut seen = Vec::new();
    for _ in 0..3 {
        let reply = harness.refresh("x").await;
        seen.push((reply.status, reply.text));
    }
    let expected = [(502, ""), (200, "<html>captive</html>"), (503, "")];
    assert_eq!(
        seen,
        expected.map(|(status, text)| (status, text.to_owned()))
    );
    let url = format!("{}{REFRESH}", harness.sim.url());
    let bytes = harness
        .client
        .get(url)
        .send()
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap();
    assert_eq!(bytes.as_ref(), [0xff, b'{']);
    let reply = harness.refresh("x").await;
    assert_eq!(
        (reply.status, &reply.json()["errcode"]),
        (500, &(-1).into())
    );
}

#[tokio::test]
async fn a_reset_closes_the_connection_without_a_byte() {
    let harness = Harness::start().await;
    let pair = harness.sim.sign_in("oAlice", "snsapi_base");
    harness.sim.inject(Fault::on(REFRESH).reset().times(1));
    let path = format!(
        "{REFRESH}?appid={}&grant_type=refresh_token&refresh_token={}",
        harness.sim.app_id(),
        pair.refresh_token
    );
    assert_eq!(harness.broken(&path).await, io::ErrorKind::ConnectionReset);
    assert_eq!(harness.sim.calls_to(REFRESH), 1);
    harness
        .refresh(&pair.refresh_token)
        .await
        .field("access_token");
}

#[tokio::test]
async fn a_lost_reply_still_processes_the_call() {
    let harness = Harness::start().await;
    harness
        .sim
        .settings(|settings| settings.rotate_refresh_token = true);
    let pair = harness.sim.sign_in("oAlice", "snsapi_base");
    harness.sim.inject(Fault::on(REFRESH).lose_reply().times(1));
    let path = format!(
        "{REFRESH}?appid={}&grant_type=refresh_token&refresh_token={}",
        harness.sim.app_id(),
        pair.refresh_token
    );
    assert_eq!(harness.broken(&path).await, io::ErrorKind::ConnectionReset);
    assert_ne!(harness.sim.current_pair("oAlice"), Some(pair));
}

#[tokio::test]
async fn a_hanging_call_ends_with_the_simulator() {
    let harness = Harness::start().await;
    harness.sim.inject(Fault::on(REFRESH).hang());
    let url = format!("{}{REFRESH}", harness.sim.url());
    let call = tokio::spawn(harness.client.get(url).send());
    while harness.sim.calls_to(REFRESH) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!call.is_finished());
    drop(harness.sim);
    assert!(call.await.unwrap().is_err());
}

#[tokio::test]
async fn stopping_frees_the_port_and_waits_a_little_for_calls() {
    let harness = Harness::start().await;
    let address = harness
        .sim
        .url()
        .strip_prefix("http://")
        .unwrap()
        .to_owned();
    // Three connections: an idle one, one with a call that ends in time, and one with a call that
    // hangs.
    harness.get("/sns/auth").await;
    harness
        .sim
        .inject(Fault::on(REFRESH).delay(Duration::from_millis(300)));
    harness.sim.inject(Fault::on("/sns/userinfo").hang());
    let calls = [REFRESH, "/sns/userinfo"].map(|path| {
        tokio::spawn(
            harness
                .client
                .get(format!("{}{path}", harness.sim.url()))
                .send(),
        )
    });
    while harness.sim.calls_to(REFRESH) + harness.sim.calls_to("/sns/userinfo") < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let started = Instant::now();
    harness.sim.stop().await;
    assert!(started.elapsed() < Duration::from_secs(5));
    let [in_time, never] = calls;
    assert_eq!(in_time.await.unwrap().unwrap().status(), 200);
    assert!(never.await.unwrap().is_err());
    let next = Simulator::builder().listen(&address).start().await.unwrap();
    let taken = Simulator::builder().listen(&address).start().await;
    assert_eq!(taken.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    next.stop().await;
    assert!(
        Simulator::builder()
            .listen("nonsense")
            .start()
            .await
            .is_err()
    );
}
