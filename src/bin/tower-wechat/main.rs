//! An operator's look at the tokens in Redis, and the work on them that is done while services run.

mod options;
mod output;

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use clap::Parser;
use tower_wechat::RedisStore;
use tower_wechat::admin::{ScanOptions, Summary};
use tower_wechat::credential::AppId;
use tower_wechat::redis::{Layout, RedisNames, SealingKeys};

use self::options::{Command, Options};
use self::output::Output;

/// A sentence for the operator.
type CliError = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(help) => return print_usage(&help),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(run(&options)),
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => print_failure(&failure),
    }
}

/// A help that was asked for, or what is wrong with the command line.
fn print_usage(help: &clap::Error) -> ExitCode {
    match help.print() {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => print_failure(&output_error(&error)),
        _ => ExitCode::from(u8::try_from(help.exit_code()).unwrap_or(1)),
    }
}

/// One sentence on stderr. Where even that is full, the exit code has to do.
fn print_failure(failure: &dyn std::fmt::Display) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "tower-wechat: {failure}");
    ExitCode::FAILURE
}

fn output_error(error: &std::io::Error) -> String {
    format!("the output could not be written to the end: {error}")
}

async fn run(options: &Options) -> Result<(), CliError> {
    let work = options.scan_options()?;
    let store = connect_store(options).await?;
    let mut output = Output::new(options.json);
    let outcome = run_command(&store, &work, options, &mut output).await;
    // The work may be done all the same, but whoever reads the output would not know.
    output.finish().map_err(|error| output_error(&error))?;
    outcome
}

async fn run_command(
    store: &RedisStore,
    work: &ScanOptions,
    options: &Options,
    output: &mut Output,
) -> Result<(), CliError> {
    match &options.command {
        Command::Show { users } => {
            for user in users {
                let (report, renewing) = store.user_report(work, user).await?;
                if output.print_user(&report, Some(renewing)).is_break() {
                    break;
                }
            }
            Ok(())
        }
        Command::List { state, limit } => list(store, work, output, state, *limit).await,
        Command::Sweep { .. } => {
            let about = store.estimate_users(work).await?;
            let mut progress = output.start_progress(about);
            let mut on_progress = |swept: &tower_wechat::redis::SweepReport| {
                progress.report(swept.scanned, swept.removed)
            };
            let swept =
                store.sweep_with_progress(&work.app, work.pause, work.dry_run, &mut on_progress);
            let swept = swept.await?;
            output.print_sweep(&swept, work.dry_run);
            Ok(())
        }
        Command::Migrate { to, .. } => {
            let about = store.estimate_users(work).await?;
            let mut progress = output.start_progress(about);
            let mut on_progress = |tally: &Summary| progress.report(tally.scanned, tally.written);
            let tally = store.migrate(work, &mut on_progress).await?;
            output.print_summary("migrate", &tally, work.dry_run);
            check_complete(&tally, &format!("migrate --to {to}"))
        }
        Command::Reseal { keep_marks, .. } => {
            let about = store.estimate_users(work).await?;
            let mut progress = output.start_progress(about);
            let mut on_progress = |tally: &Summary| progress.report(tally.scanned, tally.written);
            let tally = store.reseal(work, *keep_marks, &mut on_progress).await?;
            output.print_summary("reseal", &tally, work.dry_run);
            check_complete(&tally, "reseal")
        }
    }
}

async fn list(
    store: &RedisStore,
    work: &ScanOptions,
    output: &mut Output,
    states: &[options::StateFilter],
    limit: Option<u64>,
) -> Result<(), CliError> {
    use std::ops::ControlFlow::{Break, Continue};
    let about = store.estimate_users(work).await?;
    let mut progress = output.start_progress(about);
    let mut listed = 0u64;
    let mut on_progress = |tally: &Summary| progress.report(tally.scanned, 0);
    let mut visit = |report: tower_wechat::admin::UserReport| {
        if limit.is_some_and(|limit| listed >= limit) {
            return Break(());
        }
        let wanted = states.is_empty() || states.iter().any(|state| state.matches(report.state));
        if !wanted {
            return Continue(());
        }
        listed += 1;
        output.print_user(&report, None)
    };
    let tally = store.list_users(work, &mut visit, &mut on_progress).await?;
    output.warn_not_utf8(tally.not_utf8);
    Ok(())
}

/// Whether a work that goes through all records has reached them all.
fn check_complete(tally: &Summary, command: &str) -> Result<(), CliError> {
    if tally.still_busy > 0 {
        return Err(format!(
            "{} records were in use all the time; run `tower-wechat {command}` again",
            tally.still_busy
        )
        .into());
    }
    let unreadable = tally.unreadable_users();
    if unreadable > 0 {
        return Err(format!(
            "{unreadable} records cannot be read and were left as they are; \
             `tower-wechat list --state unreadable --state other-key` shows them"
        )
        .into());
    }
    Ok(())
}

async fn connect_store(options: &Options) -> Result<RedisStore, CliError> {
    let url = non_empty(options.redis_url.as_deref())
        .ok_or("which Redis? Set REDIS_URL or --redis-url, such as redis://127.0.0.1/")?;
    let mut layout = options.source_layout()?;
    if let Command::Migrate { to, .. } = &options.command {
        // What a migration reads is the layout that it does not write.
        layout = match to {
            options::TargetLayout::Hashes => Layout::Keys,
            options::TargetLayout::Keys => Layout::Hashes,
        };
    }
    let mut builder = RedisStore::builder(url)
        .layout(layout)
        .command_timeout(std::time::Duration::from_secs(10));
    if let Some(authority) = read_file("REDIS_CA", options.redis_ca.as_deref())? {
        builder = builder.certificate_authority(authority);
    }
    let certificate = read_file("REDIS_CLIENT_CERT", options.redis_client_cert.as_deref())?;
    let key = read_file("REDIS_CLIENT_KEY", options.redis_client_key.as_deref())?;
    builder = match (certificate, key) {
        (Some(certificate), Some(key)) => builder.client_certificate(certificate, key),
        (None, None) => builder,
        _ => return Err("set both of REDIS_CLIENT_CERT and REDIS_CLIENT_KEY, or neither".into()),
    };
    if let Some(password) = read_variable("REDIS_SENTINEL_PASSWORD") {
        let user = read_variable("REDIS_SENTINEL_USER").unwrap_or_default();
        builder = builder.sentinel_credentials(user, password);
    }
    if let Some(names) = non_empty(options.names.as_deref()) {
        let names: RedisNames = serde_json::from_str(names)
            .map_err(|error| format!("REDIS_NAMES is not the JSON block of names: {error}"))?;
        builder = builder.names(names);
    }
    if let Some(keys) = read_variable("SEALING_KEY") {
        let mut keys =
            SealingKeys::from_base64(&keys).map_err(|error| format!("SEALING_KEY: {error}"))?;
        if let Some(mode) = read_variable("SEALING_MODE") {
            keys = keys.mode(
                mode.parse()
                    .map_err(|error| format!("SEALING_MODE: {error}"))?,
            );
        }
        builder = builder.sealing(keys);
    } else if matches!(options.command, Command::Reseal { .. }) {
        return Err(
            "which keys? Set SEALING_KEY, the new key first and the old ones after it".into(),
        );
    }
    Ok(builder.connect().await?)
}

/// A variable that is set to something.
fn read_variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// What a file holds that a setting names.
fn read_file(setting: &str, path: Option<&str>) -> Result<Option<Vec<u8>>, CliError> {
    match non_empty(path) {
        Some(path) => match std::fs::read(path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) => Err(format!("{setting}={path}: {error}").into()),
        },
        None => Ok(None),
    }
}

fn non_empty(value: Option<&str>) -> Option<&str> {
    value.filter(|value| !value.is_empty())
}

impl Options {
    fn scan_options(&self) -> Result<ScanOptions, CliError> {
        let app = non_empty(self.app_id.as_deref())
            .ok_or("which account? Set WECHAT_APPID or --app-id to its AppID")?;
        let app = AppId::new(app).map_err(|error| format!("WECHAT_APPID: {error}"))?;
        Ok(ScanOptions {
            app,
            margin: std::time::Duration::from_secs(self.margin_secs),
            pause: std::time::Duration::from_millis(self.pause_ms),
            dry_run: self.command.is_dry_run(),
        })
    }

    /// The layout that the services read: the first where two are named.
    fn source_layout(&self) -> Result<Layout, CliError> {
        let named = non_empty(self.layout.as_deref()).unwrap_or("hashes");
        match named.split('+').next() {
            Some("hashes") => Ok(Layout::Hashes),
            Some("keys") => Ok(Layout::Keys),
            _ => Err(format!("REDIS_LAYOUT={named} is neither hashes nor keys").into()),
        }
    }
}
