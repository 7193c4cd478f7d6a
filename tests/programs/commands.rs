//! Runs the commands that the documentation shows, and checks their effect.
//!
//! Commands are lines in blocks of `sh`, and code in sentences that begins with one of
//! [`PROGRAMS`]. All pages, comments and messages are read. A command that this file does not list
//! fails a test.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::demo_process::DemoProcess;
use crate::support::harness::variables;
use crate::support::redis_server::RedisServer;
use tower_wechat::account::TokenCenter;
use tower_wechat::redis::SealingKeys;
use tower_wechat::{AccountTokens, CookieKeys, MemoryStore, WechatClient};

/// Programs whose commands the documentation shows. Code in a sentence that begins with one of them
/// is a command.
const PROGRAMS: [&str; 5] = ["openssl", "curl", "redis-cli", "tower-wechat", "cargo run"];

/// Commands in the documentation that no test runs: they install or publish something, or take an
/// hour.
const NOT_RUN: [&str; 5] = [
    "cargo add",
    "cargo bench",
    "cargo install",
    "tests/run",
    ".ci/run",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Collects the files below a folder that may contain documentation: pages and Rust sources.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path
            .extension()
            .is_some_and(|kind| kind == "md" || kind == "rs")
        {
            found.push(path);
        }
    }
}

/// Returns the documented commands, each with the file that shows it.
fn commands() -> BTreeSet<(String, PathBuf)> {
    let mut paths = Vec::new();
    for folder in ["src", "examples"] {
        files(&root().join(folder), &mut paths);
    }
    for page in [
        "README.md",
        "README.zh-CN.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "docs/faults.md",
        "docs/faults.zh-CN.md",
        "benches/README.md",
    ] {
        paths.push(root().join(page));
    }
    let mut found = BTreeSet::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        let shown = in_blocks(&text).into_iter().chain(in_sentences(&text));
        found.extend(shown.map(|command| (command, path.clone())));
    }
    found
}

fn in_blocks(text: &str) -> Vec<String> {
    let blocks = text.split("```sh\n").skip(1);
    let lines = blocks.flat_map(|rest| rest.split("\n```").next().unwrap_or_default().lines());
    let commands = lines.map(|line| line.split("  #").next().unwrap_or_default().trim());
    let commands = commands.filter(|command| !command.is_empty());
    commands.map(str::to_owned).collect()
}

fn in_sentences(text: &str) -> Vec<String> {
    let lines = text
        .lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2));
    let commands = lines.filter(|code| {
        let arguments = PROGRAMS
            .iter()
            .find_map(|program| code.strip_prefix(program));
        let arguments = arguments.filter(|arguments| arguments.starts_with(' '));
        // A program without arguments, or with options only, is a mention and not a command.
        let mut words = arguments.unwrap_or_default().split_whitespace();
        words.any(|word| !word.starts_with('-'))
    });
    // Code with a placeholder cannot be run, such as the text of an error message.
    let whole = commands.filter(|code| !code.contains('{') && !code.contains('…'));
    whole.map(str::to_owned).collect()
}

/// Runs the lines of `prelude` and then the command in bash, and returns the output.
async fn run(prelude: &str, command: &str) -> Output {
    let script = format!("set -euo pipefail\n{prelude}\n{command}\n");
    let run = tokio::task::spawn_blocking(move || {
        let mut shell = Command::new("bash");
        shell.args(["-c", &script]).output().unwrap()
    });
    run.await.unwrap()
}

#[track_caller]
fn stdout(output: &Output, command: &str) -> String {
    assert!(output.status.success(), "{command}: {output:?}");
    String::from_utf8(output.stdout.clone()).expect(command)
}

fn shown_by(program: &str) -> Vec<String> {
    let all = commands().into_iter().map(|(command, _)| command);
    let mut found: Vec<_> = all.filter(|command| command.starts_with(program)).collect();
    found.dedup();
    assert!(!found.is_empty(), "nothing shows a command of {program}");
    found
}

#[test]
fn every_documented_command_is_known() {
    for (command, path) in commands() {
        let known = PROGRAMS.iter().chain(&NOT_RUN);
        let known = known.filter(|start| command.starts_with(*start)).count() > 0;
        assert!(known, "{}: `{command}`", path.display());
    }
}

/// Each documented command for a new key prints one line without blanks, because operators paste
/// keys into variables and settings.
#[tokio::test]
async fn documented_keys_are_one_line_and_accepted() {
    for command in shown_by("openssl") {
        let key = stdout(&run("", &command).await, &command);
        let key = key.trim_end();
        assert!(!key.contains(char::is_whitespace), "{command}: {key:?}");
        let taken = if command.contains("-base64 64") {
            CookieKeys::from_base64(key).is_ok()
        } else if command.contains("-base64 32") {
            SealingKeys::from_base64(key).is_ok()
        } else {
            let wechat = WechatClient::new("wx0123456789abcdef", "secret").unwrap();
            let accounts = AccountTokens::new(wechat, MemoryStore::new());
            TokenCenter::new(accounts, [key]).is_ok() && key.len() >= 32
        };
        assert!(taken, "{command}: {key}");
    }
}

/// `openssl` breaks a key of 64 bytes into two lines, and such a key is accepted too.
#[tokio::test]
async fn a_key_of_several_lines_is_accepted() {
    let command = "openssl rand -base64 64";
    let key = stdout(&run("", command).await, command);
    assert_eq!(key.lines().count(), 2, "{key}");
    assert!(CookieKeys::from_base64(&key).is_ok(), "{key}");
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_commands_return_the_documented_response() {
    let secret = "a-long-random-secret";
    let demo = DemoProcess::start(&variables(&[("CENTER_TOKEN", secret)])).await;
    let gateway = DemoProcess::of("gateway", &[]).await;
    // A command with a placeholder needs a value of the reader.
    let has_placeholder = |command: &str| {
        ["HOST", "SIMULATOR"]
            .iter()
            .any(|name| command.contains(name))
    };
    let mut commands = shown_by("curl");
    commands.retain(|command| !has_placeholder(command));
    assert!(commands.len() > 1, "{commands:?}");
    for command in commands {
        let (program, answer) = match command.contains("x-user-id") {
            true => (&gateway, "user 42 is "),
            false => (&demo, "\"access_token\":"),
        };
        // The command runs unchanged. A function `curl` in the shell connects to the program of
        // this test.
        let port = program.url.rsplit_once(':').expect("a port").1;
        let prelude = format!(
            "export CENTER_TOKEN={secret}\n\
             curl() {{ command curl -sS --fail --noproxy '*' \
             --connect-to center:3000:127.0.0.1:{port} \
             --connect-to 127.0.0.1:3000:127.0.0.1:{port} \"$@\"; }}"
        );
        let said = stdout(&run(&prelude, &command).await, &command);
        assert!(said.contains(answer), "{command}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_commands_work() {
    let redis = RedisServer::start();
    let prelude = format!(
        "redis-cli() {{ command redis-cli -p {} \"$@\"; }}\n\
         redis-cli set wx:open:wechat_component_verify_ticket:wx0123456789abcdef ticket >&2\n\
         redis-cli set wechat:wx0123456789abcdef:platform:ticket ticket >&2\n\
         export REDIS_URL={} WECHAT_APPID=wx0123456789abcdef \
         SEALING_KEY=MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
        redis.port(),
        redis.url()
    );
    for command in shown_by("redis-cli") {
        stdout(&run(&prelude, &command).await, &command);
    }
    // Cargo builds the program only if its feature is enabled. Without it, the test ends here.
    let Some(program) = option_env!("CARGO_BIN_EXE_tower-wechat") else {
        return;
    };
    let prelude = format!("{prelude}\ntower-wechat() {{ {program} \"$@\"; }}");
    for command in shown_by("tower-wechat ") {
        stdout(&run(&prelude, &command).await, &command);
    }
}

/// Checks that each example exists that the documentation runs. `tests/programs/examples.rs` and
/// `tests/programs/processes` run the examples.
#[test]
fn examples_that_are_named_exist() {
    for command in shown_by("cargo run") {
        let name = command.split("--example ").nth(1).expect(&command);
        let name = name.split(' ').next().unwrap_or_default();
        let folder = root().join("examples");
        let exists = folder.join(format!("{name}.rs")).is_file()
            || folder.join(name).join("main.rs").is_file();
        assert!(exists, "{command}");
    }
}
