//! The program's output: text for people, or one JSON object on each line.

use std::io::{self, ErrorKind, Write};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tower_wechat::admin::{AccountReport, ImportReport, PlatformReport, Summary, UserReport};
use tower_wechat::redis::SweepReport;

/// Minimum time between two progress lines on stderr: one second.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// Standard output, and the first error of a write to it.
///
/// A reader that closes the pipe ends the output, which is no failure. [`Output::finish`] returns
/// every other error, such as a full disk.
pub(crate) struct Output {
    json: bool,
    state: StdoutState,
}

enum StdoutState {
    Open,
    /// The reader has closed the pipe.
    Closed,
    Failed(io::Error),
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self {
            json,
            state: StdoutState::Open,
        }
    }

    /// Writes one line to stdout. Returns `Break` if nothing more can be written.
    fn print_line(&mut self, text: &str, value: &Value) -> ControlFlow<()> {
        if !matches!(self.state, StdoutState::Open) {
            return ControlFlow::Break(());
        }
        let mut stdout = io::stdout().lock();
        let written = match self.json {
            true => writeln!(stdout, "{value}"),
            false => writeln!(stdout, "{text}"),
        };
        self.record_result(written)
    }

    fn record_result(&mut self, written: io::Result<()>) -> ControlFlow<()> {
        self.state = match written {
            Ok(()) => return ControlFlow::Continue(()),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => StdoutState::Closed,
            Err(error) => StdoutState::Failed(error),
        };
        ControlFlow::Break(())
    }

    /// Flushes stdout. Returns the error of the write or flush that failed, if there is one. A
    /// closed pipe is no error.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        if matches!(self.state, StdoutState::Open) {
            let flushed = io::stdout().lock().flush();
            let _ = self.record_result(flushed);
        }
        match self.state {
            StdoutState::Open | StdoutState::Closed => Ok(()),
            StdoutState::Failed(error) => Err(error),
        }
    }

    pub(crate) fn print_user(
        &mut self,
        report: &UserReport,
        renewing: Option<bool>,
    ) -> ControlFlow<()> {
        let mut value = json!({
            "user": report.user,
            "state": report.state.as_str(),
            "token_fingerprint": report.token_fingerprint,
            "expires_in_secs": report.expires_in_secs,
            "refresh_due_in_secs": report.refresh_due_in_secs,
            "openid": report.openid,
            "scope": report.scope,
            "sealed_with": report.sealed_with,
        });
        // Applications choose user ids. A line break in a user id is escaped, so that it cannot
        // start a new line of output.
        let mut text = format!("{}  {}", report.user.escape_debug(), report.state.as_str());
        if let Some(fingerprint) = &report.token_fingerprint {
            text.push_str(&format!("  token {fingerprint}"));
        }
        match report.expires_in_secs {
            Some(left) if left >= 0 => text.push_str(&format!("  expires in {left} s")),
            Some(past) => text.push_str(&format!("  expired {} s ago", -past)),
            None => {}
        }
        if let Some(due) = report.refresh_due_in_secs {
            text.push_str(&format!("  refresh token due in {due} s"));
        }
        if let Some(scope) = &report.scope {
            text.push_str(&format!("  {}", scope.escape_debug()));
        }
        if !report.sealed_with.is_empty() {
            text.push_str(&format!("  sealed with {}", report.sealed_with.join(", ")));
        }
        if let Some(renewing) = renewing {
            value["renewing"] = renewing.into();
            if renewing {
                text.push_str("  is being renewed");
            }
        }
        self.print_line(&text, &value)
    }

    pub(crate) fn print_sweep(&mut self, report: &SweepReport, dry_run: bool) {
        let (seen, removed) = (report.scanned, report.removed);
        let would = if dry_run {
            "would be removed"
        } else {
            "were removed"
        };
        let mut value = json!({
            "command": "sweep", "dry_run": dry_run, "seen": seen, "removed": removed,
        });
        let mut text = format!("{seen} fields looked at; {removed} {would}");
        if report.not_utf8 > 0 {
            value["not_utf8"] = report.not_utf8.into();
            let not_utf8 = report.not_utf8;
            text.push_str(&format!("; {not_utf8} have names that are not UTF-8"));
        }
        let _ = self.print_line(&text, &value);
    }

    pub(crate) fn print_summary(&mut self, command: &str, summary: &Summary, dry_run: bool) {
        let would = if dry_run {
            "would be written"
        } else {
            "written"
        };
        let mut text = format!(
            "{} records looked at: {} {would}, {} as they should be, {} newer on the other side, \
             {} unreadable, {} in use",
            summary.scanned,
            summary.written,
            summary.unchanged,
            summary.newer,
            summary.unreadable,
            summary.still_busy
        );
        let mut value = json!({
            "command": command, "dry_run": dry_run, "seen": summary.scanned,
            "written": summary.written, "same": summary.unchanged, "newer": summary.newer,
            "unreadable": summary.unreadable, "left": summary.still_busy,
        });
        let removed = match dry_run {
            true => "leftovers would be removed",
            false => "leftovers removed",
        };
        // The text names these counts only if they are not zero.
        for (name, count, words) in [
            ("dead", summary.dead, "dead and not copied"),
            (
                "logged_out",
                summary.revoked,
                "of users who logged out, not copied",
            ),
            ("removed", summary.removed, removed),
            (
                "kept",
                summary.kept_copies,
                "copies without a source, kept because services read them",
            ),
            (
                "odd_times",
                summary.implausible_times,
                "with a time that nobody can have meant",
            ),
            (
                "not_utf8",
                summary.not_utf8,
                "with names that are not UTF-8",
            ),
        ] {
            value[name] = count.into();
            if count > 0 {
                text.push_str(&format!(", {count} {words}"));
            }
        }
        let _ = self.print_line(&text, &value);
    }

    pub(crate) fn print_import(&mut self, report: &ImportReport, dry_run: bool) {
        let (accounts, secrets) = (report.accounts, &report.secrets);
        let would = if dry_run {
            "would be written"
        } else {
            "written"
        };
        let value = json!({
            "command": "import", "dry_run": dry_run, "accounts": accounts,
            "seen": secrets.scanned, "written": secrets.written, "same": secrets.unchanged,
            "newer": secrets.newer, "dead": secrets.dead, "unreadable": secrets.unreadable,
            "left": secrets.still_busy,
        });
        let text = format!(
            "{accounts} accounts, {} secrets looked at: {} {would}, {} as they should be, {} newer \
             here, {} expired and not copied, {} unreadable, {} in use",
            secrets.scanned,
            secrets.written,
            secrets.unchanged,
            secrets.newer,
            secrets.dead,
            secrets.unreadable,
            secrets.still_busy
        );
        let _ = self.print_line(&text, &value);
    }

    pub(crate) fn print_platform(&mut self, report: &PlatformReport) -> ControlFlow<()> {
        let value = json!({
            "platform": report.app_id,
            "ticket_age_secs": report.ticket_age_secs,
            "component_token": report.component_token,
            "listed_secs_ago": report.listed_secs_ago,
            "accounts": report.accounts,
        });
        let ago = |secs: Option<i64>| match secs {
            Some(secs) => format!("{secs} s ago"),
            None => "never".to_owned(),
        };
        let text = format!(
            "{}  ticket sent {}  component token {}  list of accounts stored {}  {} accounts",
            report.app_id,
            ago(report.ticket_age_secs),
            report.component_token,
            ago(report.listed_secs_ago),
            report.accounts,
        );
        self.print_line(&text, &value)
    }

    pub(crate) fn print_account(&mut self, report: &AccountReport) -> ControlFlow<()> {
        let value = json!({
            "account": report.app_id,
            "state": report.state,
            "state_secs": report.state_secs,
            "refresh_token": report.has_refresh_token,
        });
        let refresh = if report.has_refresh_token {
            "refresh token stored"
        } else {
            "no refresh token"
        };
        let text = format!(
            "{}  {} for {} s  {refresh}",
            report.app_id, report.state, report.state_secs
        );
        self.print_line(&text, &value)
    }

    /// Prints a warning on stderr about users that were not listed because their names are not
    /// UTF-8.
    pub(crate) fn warn_not_utf8(&self, count: u64) {
        if count > 0 {
            let _ = writeln!(
                io::stderr(),
                "tower-wechat: {count} users are not listed, because their names are not UTF-8; no \
                 service of this crate writes such names, but a Java service without string \
                 serializers does: let it use StringRedisTemplate"
            );
        }
    }

    pub(crate) fn start_progress(&self, estimated_total: u64) -> Progress {
        Progress {
            estimated_total,
            next_report_at: Instant::now() + PROGRESS_INTERVAL,
        }
    }
}

/// Progress lines on stderr, at most one in each [`PROGRESS_INTERVAL`].
pub(crate) struct Progress {
    estimated_total: u64,
    next_report_at: Instant,
}

impl Progress {
    pub(crate) fn report(&mut self, seen: u64, done: u64) {
        let now = Instant::now();
        if now < self.next_report_at {
            return;
        }
        self.next_report_at = now + PROGRESS_INTERVAL;
        let of_total = match self.estimated_total {
            // The number is not known before the end.
            0 => String::new(),
            total => format!(" of about {}", total.max(seen)),
        };
        let _ = writeln!(
            std::io::stderr(),
            "{seen}{of_total} looked at, {done} changed"
        );
    }
}
