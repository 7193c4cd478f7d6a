//! What the log says of logins: that they happened, and no secret. A program of its own, since a
//! log hears all threads of a program.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

#[path = "login/client.rs"]
mod client;
#[path = "login/rig.rs"]
mod rig;
#[path = "support/mod.rs"]
mod support;

use std::io;
use std::sync::{Arc, Mutex};

use tower_wechat::simulator::Fault;
use tracing_subscriber::fmt::MakeWriter;
use url::Url;

use client::Browser;
use rig::{ALICE, EXCHANGE, Rig};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// The servers run on this thread, so that its subscriber hears all of them.
#[tokio::test(flavor = "current_thread")]
async fn no_code_state_cookie_or_token_is_logged() {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter("tower_wechat=trace")
        .with_writer(lines.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let rig = Rig::new().await;
    let site = rig.site().await;
    let mut secrets = Vec::new();
    for errcode in [0, 40029, 40125, -1] {
        rig.sim.clear_faults();
        if errcode != 0 {
            rig.sim
                .inject(Fault::on(EXCHANGE).errcode(errcode).times(1));
        }
        let browser = Browser::new();
        let callback = browser
            .callback_of(&format!("{}/me?secret=in-query", site.url))
            .await;
        let url = Url::parse(&callback).unwrap();
        secrets.extend(url.query_pairs().map(|(_, value)| value.into_owned()));
        browser.visit(&callback).await;
        Browser::new().visit(&callback).await;
        Browser::new()
            .visit(&callback.replace("state=", "state=0"))
            .await;
        secrets.extend(
            browser
                .cookie_names()
                .iter()
                .filter_map(|name| browser.cookie(name)),
        );
    }
    let pair = rig.sim.current_pair(ALICE).unwrap();
    secrets.extend([pair.access_token, pair.refresh_token, "in-query".to_owned()]);
    secrets.push(rig.sim.app_secret().to_owned());

    let log = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    for secret in secrets {
        assert!(!log.contains(&secret), "{secret} in {log}");
    }
    for line in [
        "logged in",
        "refused a callback",
        "WeChat did not exchange a code",
    ] {
        assert!(log.contains(line), "{log}");
    }
}
