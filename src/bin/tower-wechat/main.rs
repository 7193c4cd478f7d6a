//! An operator's look at the tokens in Redis, and the work on them that is done while services run.

mod options;
mod output;

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use clap::Parser;
use tower_wechat::operate::{Tally, Work};
use tower_wechat::{AppId, Layout, RedisNames, RedisStore, SealingKeys};

use self::options::{Command, Options};
use self::output::Output;

/// A sentence for the operator.
type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(help) => return said(&help),
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
        Err(failure) => failed(&failure),
    }
}

/// A help that was asked for, or what is wrong with the command line.
fn said(help: &clap::Error) -> ExitCode {
    match help.print() {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => failed(&not_written(&error)),
        _ => ExitCode::from(u8::try_from(help.exit_code()).unwrap_or(1)),
    }
}

/// One sentence on stderr. Where even that is full, the exit code has to do.
fn failed(failure: &dyn std::fmt::Display) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "tower-wechat: {failure}");
    ExitCode::FAILURE
}

fn not_written(error: &std::io::Error) -> String {
    format!("the output could not be written to the end: {error}")
}

async fn run(options: &Options) -> Result<(), Failure> {
    let work = options.work()?;
    let store = connect(options).await?;
    let mut output = Output::new(options.json);
    let outcome = work_on(&store, &work, options, &mut output).await;
    // The work may be done all the same, but whoever reads the output would not know.
    output.finish().map_err(|error| not_written(&error))?;
    outcome
}

async fn work_on(
    store: &RedisStore,
    work: &Work,
    options: &Options,
    output: &mut Output,
) -> Result<(), Failure> {
    match &options.command {
        Command::Show { users } => {
            for user in users {
                let (report, renewing) = store.user_report(work, user).await?;
                if output.user(&report, Some(renewing)).is_break() {
                    break;
                }
            }
            Ok(())
        }
        Command::List { state, limit } => list(store, work, output, state, *limit).await,
        Command::Sweep { .. } => {
            let about = store.about_how_many(work).await?;
            let mut progress = output.progress(about);
            let mut heard = |swept: &tower_wechat::Swept| progress.tell(swept.seen, swept.removed);
            let swept = store.sweep_with(&work.app, work.pause, work.dry_run, &mut heard);
            let swept = swept.await?;
            output.swept(&swept, work.dry_run);
            Ok(())
        }
        Command::Migrate { to, .. } => {
            let about = store.about_how_many(work).await?;
            let mut progress = output.progress(about);
            let mut heard = |tally: &Tally| progress.tell(tally.seen, tally.written);
            let tally = store.migrate(work, &mut heard).await?;
            output.tally("migrate", &tally, work.dry_run);
            complete(&tally, &format!("migrate --to {to}"))
        }
        Command::Reseal { keep_marks, .. } => {
            let about = store.about_how_many(work).await?;
            let mut progress = output.progress(about);
            let mut heard = |tally: &Tally| progress.tell(tally.seen, tally.written);
            let tally = store.reseal(work, *keep_marks, &mut heard).await?;
            output.tally("reseal", &tally, work.dry_run);
            complete(&tally, "reseal")
        }
    }
}

async fn list(
    store: &RedisStore,
    work: &Work,
    output: &mut Output,
    states: &[options::ListedState],
    limit: Option<u64>,
) -> Result<(), Failure> {
    use std::ops::ControlFlow::{Break, Continue};
    let about = store.about_how_many(work).await?;
    let mut progress = output.progress(about);
    let mut listed = 0u64;
    let mut heard = |tally: &Tally| progress.tell(tally.seen, 0);
    let mut visit = |report: tower_wechat::operate::UserReport| {
        if limit.is_some_and(|limit| listed >= limit) {
            return Break(());
        }
        let wanted = states.is_empty() || states.iter().any(|state| state.is(report.state));
        if !wanted {
            return Continue(());
        }
        listed += 1;
        output.user(&report, None)
    };
    let tally = store.survey(work, &mut visit, &mut heard).await?;
    output.not_utf8(tally.not_utf8);
    Ok(())
}

/// Whether a work that goes through all records has reached them all.
fn complete(tally: &Tally, command: &str) -> Result<(), Failure> {
    if tally.left > 0 {
        return Err(format!(
            "{} records were in use all the time; run `tower-wechat {command}` again",
            tally.left
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

async fn connect(options: &Options) -> Result<RedisStore, Failure> {
    let url = set(options.redis_url.as_deref())
        .ok_or("which Redis? Set REDIS_URL or --redis-url, such as redis://127.0.0.1/")?;
    let mut layout = options.read_layout()?;
    if let Command::Migrate { to, .. } = &options.command {
        // What a migration reads is the layout that it does not write.
        layout = match to {
            options::To::Hashes => Layout::Keys,
            options::To::Keys => Layout::Hashes,
        };
    }
    let mut builder = RedisStore::builder(url)
        .layout(layout)
        .command_timeout(std::time::Duration::from_secs(10));
    if let Some(authority) = file("REDIS_CA", options.redis_ca.as_deref())? {
        builder = builder.certificate_authority(authority);
    }
    let certificate = file("REDIS_CLIENT_CERT", options.redis_client_cert.as_deref())?;
    let key = file("REDIS_CLIENT_KEY", options.redis_client_key.as_deref())?;
    builder = match (certificate, key) {
        (Some(certificate), Some(key)) => builder.client_certificate(certificate, key),
        (None, None) => builder,
        _ => return Err("set both of REDIS_CLIENT_CERT and REDIS_CLIENT_KEY, or neither".into()),
    };
    if let Some(password) = variable("REDIS_SENTINEL_PASSWORD") {
        let user = variable("REDIS_SENTINEL_USER").unwrap_or_default();
        builder = builder.sentinel_credentials(user, password);
    }
    if let Some(names) = set(options.names.as_deref()) {
        let names: RedisNames = serde_json::from_str(names)
            .map_err(|error| format!("REDIS_NAMES is not the JSON block of names: {error}"))?;
        builder = builder.names(names);
    }
    if let Some(keys) = variable("SEALING_KEY") {
        let mut keys =
            SealingKeys::from_base64(&keys).map_err(|error| format!("SEALING_KEY: {error}"))?;
        if let Some(mode) = variable("SEALING_MODE") {
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
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// What a file holds that a setting names.
fn file(setting: &str, path: Option<&str>) -> Result<Option<Vec<u8>>, Failure> {
    match set(path) {
        Some(path) => match std::fs::read(path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) => Err(format!("{setting}={path}: {error}").into()),
        },
        None => Ok(None),
    }
}

fn set(value: Option<&str>) -> Option<&str> {
    value.filter(|value| !value.is_empty())
}

impl Options {
    fn work(&self) -> Result<Work, Failure> {
        let app = set(self.app_id.as_deref())
            .ok_or("which account? Set WECHAT_APPID or --app-id to its AppID")?;
        let app = AppId::new(app).map_err(|error| format!("WECHAT_APPID: {error}"))?;
        Ok(Work {
            app,
            margin: std::time::Duration::from_secs(self.margin_secs),
            pause: std::time::Duration::from_millis(self.pause_ms),
            dry_run: self.command.is_dry(),
        })
    }

    /// The layout that the services read: the first where two are named.
    fn read_layout(&self) -> Result<Layout, Failure> {
        let named = set(self.layout.as_deref()).unwrap_or("hashes");
        match named.split('+').next() {
            Some("hashes") => Ok(Layout::Hashes),
            Some("keys") => Ok(Layout::Keys),
            _ => Err(format!("REDIS_LAYOUT={named} is neither hashes nor keys").into()),
        }
    }
}
