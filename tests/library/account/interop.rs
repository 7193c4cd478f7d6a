//! Tests with WeChat clients in other languages, and with scripts that use only the center.
//!
//! The packages are installed once from PyPI and npm, into a folder below `target`. If a registry
//! is unreachable, the test prints so and passes, unless `TOWER_WECHAT_INTEROP=required`.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tower_wechat::account::TokenCenter;
use tower_wechat::redis::ExternalToken;
use tower_wechat::{AccountTokens, jssdk};

use super::harness::{Harness, PLAIN, STABLE, TICKET, secs};
use crate::support::redis_server::RedisServer;

pub(crate) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/programs/interop")
        .join(name)
}

pub(crate) fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Returns a folder into which `install` has installed packages, now or in an earlier run. Returns
/// `None` if they are not available.
fn installed(name: &str, install: impl Fn(&Path) -> Result<String, String>) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let done = folder.join("installed");
    if done.exists() {
        return Some(folder);
    }
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    match install(&folder) {
        Ok(_) => {
            std::fs::write(done, "").unwrap();
            Some(folder)
        }
        Err(why) => {
            let required = std::env::var("TOWER_WECHAT_INTEROP").is_ok_and(|it| it == "required");
            assert!(!required, "{name} cannot be installed: {why}");
            eprintln!("SKIPPED: {name} cannot be installed: {why}");
            None
        }
    }
}

/// Returns the folder of a Python environment with wechatpy, if it is available.
pub(crate) fn installed_wechatpy(version: &str) -> Option<PathBuf> {
    installed(&format!("wechatpy-{version}"), |folder| {
        run(Command::new("python3").args(["-m", "venv"]).arg(folder))?;
        let wechatpy = format!("wechatpy=={version}");
        let pip = folder.join("bin/pip");
        run(Command::new(pip).args(["install", "--quiet", &wechatpy, "redis", "cryptography"]))
    })
}

async fn wechatpy(version: &str) {
    let Some(packages) = installed_wechatpy(version) else {
        return;
    };
    let harness = Harness::start().await;
    let server = RedisServer::start();
    let mut python = Command::new(packages.join("bin/python"));
    python.arg(script("wechatpy_client.py"));
    python.args([
        harness.sim.url(),
        harness.sim.app_id(),
        harness.sim.app_secret(),
        &server.url(),
    ]);
    let said = tokio::task::spawn_blocking(move || run(&mut python))
        .await
        .unwrap();
    let reply: Value = serde_json::from_str(&said.unwrap_or_else(|why| panic!("{why}"))).unwrap();
    let text = |name: &str| reply[name].as_str().unwrap();
    let signature = jssdk::sign(text("ticket"), "nonce", 1_414_587_457, text("page"));
    assert_eq!(signature, text("signature"));
    assert_eq!(
        (harness.sim.calls_to(PLAIN), harness.sim.calls_to(TICKET)),
        (4, 1)
    );

    // This crate then uses the token that the script has stored in Redis.
    let store = harness.redis(&server.url()).await;
    let accounts = AccountTokens::new(
        ExternalToken::wechatpy().source(harness.wechat(), store.clone()),
        store,
    );
    let token = accounts.get().await.unwrap();
    assert_eq!(token.access_token().expose(), text("token"));
    assert!((7_000..=7_200).contains(&token.expires_in().as_secs()));
    harness.call(&accounts).await.unwrap();
    assert_eq!(
        (harness.sim.calls_to(PLAIN), harness.sim.calls_to(STABLE)),
        (4, 0)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wechatpy_1_works_with_the_simulator_and_is_followed() {
    wechatpy("1.8.18").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wechatpy_2_works_with_the_simulator_and_is_followed() {
    wechatpy("2.0.0a26").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn co_wechat_api_works_with_the_simulator() {
    let packages = installed("co-wechat-api", |folder| {
        let mut npm = Command::new("npm");
        run(npm
            .args(["install", "--no-audit", "--no-fund", "co-wechat-api"])
            .current_dir(folder))
    });
    let Some(packages) = packages else { return };
    let harness = Harness::start().await;
    let mut node = Command::new("node");
    node.arg(script("co_wechat_api.js"))
        .env("NODE_PATH", packages.join("node_modules"));
    node.args([
        harness.sim.url(),
        harness.sim.app_id(),
        harness.sim.app_secret(),
    ]);
    let said = tokio::task::spawn_blocking(move || run(&mut node))
        .await
        .unwrap();
    let reply: Value = serde_json::from_str(&said.unwrap_or_else(|why| panic!("{why}"))).unwrap();
    let text = |name: &str| reply[name].as_str().unwrap();
    let at = reply["timestamp"].as_u64().unwrap();
    let signature = jssdk::sign(text("ticket"), text("nonce"), at, text("page"));
    assert_eq!(signature, text("signature"));
    assert_eq!(text("appId"), harness.sim.app_id());
    assert!(harness.sim.is_account_token_valid(text("token")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_on_the_center_works_through_a_rollover() {
    let harness = Harness::start().await;
    let accounts = harness.accounts();
    let center = TokenCenter::new(accounts.clone(), ["a-bearer-secret"]).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/center", listener.local_addr().unwrap());
    let app = axum::Router::new().nest_service("/center", center);
    tokio::spawn(async move { axum::serve(listener, app).await });
    let mut python = Command::new("python3")
        .arg(script("center_client.py"))
        .args([url.as_str(), "a-bearer-secret", harness.sim.url()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is needed: `apt-get install python3` brings it");
    let mut stdin = python.stdin.take().unwrap();
    let mut stdout = BufReader::new(python.stdout.take().unwrap());
    let mut call = |how: &str| {
        writeln!(stdin, "{how}").unwrap();
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let reply: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(reply["errcode"], 0);
        reply["rejected"].as_i64().unwrap()
    };
    // The script requests the token for each call, one call a minute. WeChat rejects none during
    // three rollovers.
    for _ in 0..3 * 120 {
        assert_eq!(call("fresh"), 0);
        harness.advance(secs(60));
    }
    // The script keeps its token past the expiry. WeChat rejects that token once, and a report
    // replaces it.
    harness.advance(secs(7_200));
    assert_eq!(call("kept"), 42001);
    assert_eq!(call("kept"), 0);
    // Another service revokes the token. WeChat rejects the script's token once, and a report
    // replaces it.
    harness.wechat().stable_account_token(true).await.unwrap();
    assert_eq!(call("fresh"), 40001);
    assert_eq!(call("kept"), 0);
    drop(stdin);
    python.wait().unwrap();
}
