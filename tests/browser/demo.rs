//! Starts the demo as a process, with the test's simulator as its WeChat.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tower_wechat::simulator::{SimulatedUser, Simulator};

pub struct Demo {
    pub url: String,
    pub sim: Simulator,
    _child: Child,
}

impl Demo {
    /// Starts a demo. Its WeChat asks the user for consent.
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// Starts a demo with further variables. Its WeChat asks the user for consent.
    pub async fn with(variables: &[(&str, &str)]) -> Self {
        let sim = Simulator::start().await.unwrap();
        sim.settings(|settings| settings.auto_approve = false);
        sim.add_user(SimulatedUser::new("oLin000000000000000000000000").nickname("林晓雨"));
        let mut child = Command::new(program().await)
            .env("LISTEN", "127.0.0.1:0")
            .env("WECHAT_APPID", sim.app_id())
            .env("WECHAT_SECRET", sim.app_secret())
            .env("WECHAT_API_URL", sim.url())
            .env("WECHAT_OPEN_URL", sim.url())
            .env("RUST_LOG", "warn")
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.next_line().await.unwrap().expect("the demo starts");
        let url = line.strip_prefix("listening on ").unwrap().to_owned();
        Self {
            url,
            sim,
            _child: child,
        }
    }
}

/// Builds the demo if necessary, and returns the path of its program.
async fn program() -> std::path::PathBuf {
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--example", "demo"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .await
        .unwrap();
    assert!(built.success(), "the demo does not build");
    // The test program is in `deps`, and examples are in `examples` beside it.
    let test = std::env::current_exe().unwrap();
    test.ancestors()
        .nth(2)
        .unwrap()
        .join("examples")
        .join("demo")
}
