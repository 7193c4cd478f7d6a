//! Runs the program `tower-wechat`, and tests its command line.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::harness::Harness;

/// Exit code and output of a run.
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// Returns the lines that the program prints with `--json`.
    pub fn lines(&self) -> Vec<Value> {
        let lines = self.stdout.lines();
        lines
            .map(|line| serde_json::from_str(line).expect(line))
            .collect()
    }

    /// Returns the only line of the output as JSON. Panics if the program failed or printed more.
    #[track_caller]
    pub fn result(&self) -> Value {
        assert_eq!(self.code, 0, "{}{}", self.stdout, self.stderr);
        let mut lines = self.lines();
        assert_eq!(lines.len(), 1, "{}", self.stdout);
        lines.remove(0)
    }
}

/// Returns a command that runs the program with these variables and no others.
pub fn command(arguments: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tower-wechat"));
    command
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied())
        .stdin(Stdio::null());
    command
}

pub async fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Ran {
    let mut command = command(arguments, variables);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = output.await.unwrap();
    Ran {
        code: output.status.code().expect("an exit code"),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs the program on the Redis of a harness, with the layout and the account of the harness.
pub async fn on(harness: &Harness, arguments: &[&str], more: &[(&str, &str)]) -> Ran {
    let url = harness.redis.url();
    let mut variables = vec![
        ("REDIS_URL", url.as_str()),
        ("REDIS_LAYOUT", harness.layout.name()),
        ("WECHAT_APPID", harness.wechat.app_id()),
    ];
    variables.extend(more);
    run(arguments, &variables).await
}

#[tokio::test]
async fn a_wrong_command_line_exits_with_2() {
    for arguments in [
        &["show"][..],
        &["migrate"],
        &["migrate", "--to", "disk"],
        &["eat"],
        &[],
    ] {
        let ran = run(arguments, &[]).await;
        assert_eq!(ran.code, 2, "{arguments:?}: {}", ran.stderr);
        assert_eq!(ran.stdout, "");
    }
    assert_eq!(run(&["--help"], &[]).await.code, 0);
    let url = "redis://:s3cret@127.0.0.1:1/";
    let (redis, app) = (("REDIS_URL", url), ("WECHAT_APPID", "wx1"));
    for (arguments, variables, says) in [
        (&["list"][..], vec![app], "Set REDIS_URL"),
        (&["list"], vec![redis], "Set WECHAT_APPID"),
        (
            &["list"],
            vec![redis, ("WECHAT_APPID", "wx 1")],
            "WECHAT_APPID: an app id has only",
        ),
        (
            &["list"],
            vec![redis, app, ("REDIS_LAYOUT", "disk")],
            "neither hashes nor keys",
        ),
        (
            &["list"],
            vec![redis, app, ("REDIS_NAMES", "{")],
            "REDIS_NAMES is not",
        ),
        (
            &["list"],
            vec![redis, app, ("SEALING_KEY", "c2hvcnQ=")],
            "needs at least 32",
        ),
        (&["reseal"], vec![redis, app], "Set SEALING_KEY"),
        (&["list"], vec![redis, app], "cannot be reached"),
    ] {
        let ran = run(arguments, &variables).await;
        let code = match says {
            "cannot be reached" => 1,
            _ => 2,
        };
        assert_eq!(
            ran.code, code,
            "{arguments:?} {variables:?}: {}",
            ran.stderr
        );
        assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
        assert!(ran.stderr.starts_with("tower-wechat: "), "{}", ran.stderr);
        assert!(ran.stderr.contains(says), "{says:?}: {}", ran.stderr);
        assert!(!ran.stderr.contains("s3cret"), "{}", ran.stderr);
    }
}
