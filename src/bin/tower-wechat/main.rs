//! The operators' program: lists, sweeps, migrates, reseals and imports the WeChat tokens in Redis
//! while services run.

mod connect;
mod options;
mod output;

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use clap::Parser;
use tower_wechat::RedisStore;
use tower_wechat::admin::{self, ImportReport, ScanOptions, Summary, UserReport};
use tower_wechat::redis::SweepReport;

use self::connect::{connect_source, connect_store};
use self::options::{CliError, Command, Options, UsageError};
use self::output::Output;

/// The exit code if the command line is invalid, as that of `clap`.
const INVALID_COMMAND_LINE: u8 = 2;

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
        Err(failure) if failure.is::<UsageError>() => {
            print_failure(&failure);
            ExitCode::from(INVALID_COMMAND_LINE)
        }
        Err(failure) => print_failure(&failure),
    }
}

/// Prints the help, the version, or the error of a command line. Returns the exit code of the
/// program.
fn print_usage(help: &clap::Error) -> ExitCode {
    match help.print() {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => print_failure(&output_error(&error)),
        _ => ExitCode::from(u8::try_from(help.exit_code()).unwrap_or(1)),
    }
}

/// Prints a failure as one sentence on stderr. If stderr cannot be written, only the exit code
/// shows the failure.
fn print_failure(failure: &dyn std::fmt::Display) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "tower-wechat: {failure}");
    ExitCode::FAILURE
}

fn output_error(error: &std::io::Error) -> String {
    format!("the output could not be written to the end: {error}")
}

async fn run(options: &Options) -> Result<(), CliError> {
    let scan = options.scan_options()?;
    let store = connect_store(options, &scan).await?;
    let mut output = Output::new(options.json);
    let outcome = run_command(&store, &scan, options, &mut output).await;
    // If the output is incomplete, the program fails, although the task may have succeeded.
    output.finish().map_err(|error| output_error(&error))?;
    outcome
}

async fn run_command(
    store: &RedisStore,
    scan: &ScanOptions,
    options: &Options,
    output: &mut Output,
) -> Result<(), CliError> {
    match &options.command {
        Command::Show { users } => {
            for user in users {
                let (report, renewing) = admin::user_report(store, scan, user).await?;
                if output.print_user(&report, Some(renewing)).is_break() {
                    break;
                }
            }
            Ok(())
        }
        Command::List { state, limit } => list(store, scan, output, state, *limit).await,
        Command::Sweep { .. } => {
            let estimate = admin::estimate_users(store, scan).await?;
            let mut progress = output.start_progress(estimate);
            let mut on_progress =
                |report: &SweepReport| progress.report(report.scanned, report.removed);
            let report = admin::sweep(store, scan, &mut on_progress).await?;
            output.print_sweep(&report, scan.dry_run);
            Ok(())
        }
        Command::Migrate { to, .. } => {
            let estimate = admin::estimate_users(store, scan).await?;
            let mut progress = output.start_progress(estimate);
            let mut on_progress =
                |summary: &Summary| progress.report(summary.scanned, summary.written);
            let summary = admin::migrate(store, scan, &mut on_progress).await?;
            output.print_summary("migrate", &summary, scan.dry_run);
            check_complete(&summary, &format!("migrate --to {to}"))
        }
        Command::Reseal { keep_marks, .. } => {
            let estimate = admin::estimate_users(store, scan).await?;
            let mut progress = output.start_progress(estimate);
            let mut on_progress =
                |summary: &Summary| progress.report(summary.scanned, summary.written);
            let summary = admin::reseal(store, scan, *keep_marks, &mut on_progress).await?;
            output.print_summary("reseal", &summary, scan.dry_run);
            check_complete(&summary, "reseal")
        }
        Command::Accounts => {
            let platform = admin::platform_report(store, scan).await?;
            if platform.is_empty() {
                return Err(format!(
                    "Redis holds nothing of the platform {}: check its AppID, and the prefix in \
                     REDIS_NAMES; the first push of WeChat to a new platform comes within ten minutes",
                    platform.app_id
                )
                .into());
            }
            if output.print_platform(&platform).is_continue() {
                let mut visit = |report| output.print_account(&report);
                admin::list_accounts(store, scan, &mut visit).await?;
            }
            Ok(())
        }
        Command::Import {
            from,
            prefix,
            source_url,
            ..
        } => {
            let source = match options::non_empty(source_url.as_deref()) {
                Some(url) => &connect_source(options, url).await?,
                None => store,
            };
            let platform = from.keys(prefix.as_deref());
            let mut progress = output.start_progress(0);
            let mut on_progress =
                |summary: &Summary| progress.report(summary.scanned, summary.written);
            let report = admin::import(store, source, &platform, scan, &mut on_progress).await?;
            output.print_import(&report, scan.dry_run);
            check_import(&report)
        }
    }
}

async fn list(
    store: &RedisStore,
    scan: &ScanOptions,
    output: &mut Output,
    states: &[options::StateFilter],
    limit: Option<u64>,
) -> Result<(), CliError> {
    use std::ops::ControlFlow::{Break, Continue};
    let estimate = admin::estimate_users(store, scan).await?;
    let mut progress = output.start_progress(estimate);
    let mut listed = 0u64;
    let mut on_progress = |summary: &Summary| progress.report(summary.scanned, 0);
    let mut visit = |report: UserReport| {
        if limit.is_some_and(|limit| listed >= limit) {
            return Break(());
        }
        let state = options::StateFilter::matching(report.state);
        let wanted = states.is_empty() || state.is_some_and(|state| states.contains(&state));
        if !wanted {
            return Continue(());
        }
        listed += 1;
        output.print_user(&report, None)
    };
    let summary = admin::list_users(store, scan, &mut visit, &mut on_progress).await?;
    output.warn_not_utf8(summary.not_utf8);
    Ok(())
}

/// Returns an error if an import has left out secrets.
fn check_import(report: &ImportReport) -> Result<(), CliError> {
    let secrets = &report.secrets;
    if secrets.still_busy > 0 {
        return Err(format!(
            "secrets that services were changing all the time: {}; run the import again",
            secrets.still_busy
        )
        .into());
    }
    if secrets.unreadable > 0 {
        let reason = report.unreadable_reason.as_deref();
        return Err(format!(
            "secrets that cannot be read and were not copied: {}; {}",
            secrets.unreadable,
            reason.unwrap_or("their names are not UTF-8")
        )
        .into());
    }
    Ok(())
}

/// Returns an error if a task has left out records that were in use or could not be read.
fn check_complete(summary: &Summary, command: &str) -> Result<(), CliError> {
    if summary.still_busy > 0 {
        return Err(format!(
            "{} records were in use all the time; run `tower-wechat {command}` again",
            summary.still_busy
        )
        .into());
    }
    let unreadable = summary.unreadable_users();
    if unreadable > 0 {
        return Err(format!(
            "{unreadable} records cannot be read and were left as they are; \
             `tower-wechat list --state unreadable --state other-key` shows them"
        )
        .into());
    }
    Ok(())
}
