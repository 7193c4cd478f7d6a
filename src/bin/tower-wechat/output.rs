//! What is printed: for people, or one JSON object a line.

use std::io::Write;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tower_wechat::Swept;
use tower_wechat::operate::{Tally, UserReport};

/// How often long work tells how far it has come.
const BETWEEN_LINES: Duration = Duration::from_secs(1);

pub(crate) struct Output {
    json: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// A line on stdout; nobody may be reading any more.
    fn line(&self, text: &str, value: &Value) -> ControlFlow<()> {
        let mut stdout = std::io::stdout().lock();
        let written = match self.json {
            true => writeln!(stdout, "{value}"),
            false => writeln!(stdout, "{text}"),
        };
        match written {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }

    pub(crate) fn user(&self, report: &UserReport, renewing: Option<bool>) -> ControlFlow<()> {
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
        // Ids are users' words: no line break of theirs makes a line of ours.
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
        self.line(&text, &value)
    }

    pub(crate) fn swept(&self, swept: &Swept, dry_run: bool) {
        let (seen, removed) = (swept.seen, swept.removed);
        let would = if dry_run {
            "would be removed"
        } else {
            "were removed"
        };
        let value = json!({
            "command": "sweep", "dry_run": dry_run, "seen": seen, "removed": removed,
        });
        let _ = self.line(
            &format!("{seen} fields looked at; {removed} {would}"),
            &value,
        );
    }

    pub(crate) fn tally(&self, command: &str, tally: &Tally, dry_run: bool) {
        let would = if dry_run {
            "would be written"
        } else {
            "written"
        };
        let text = format!(
            "{} records looked at: {} {would}, {} as they should be, {} newer on the other side, \
             {} unreadable, {} in use",
            tally.seen, tally.written, tally.same, tally.newer, tally.unreadable, tally.left
        );
        let value = json!({
            "command": command, "dry_run": dry_run, "seen": tally.seen,
            "written": tally.written, "same": tally.same, "newer": tally.newer,
            "unreadable": tally.unreadable, "left": tally.left,
        });
        let _ = self.line(&text, &value);
    }

    pub(crate) fn progress(&self, about: u64) -> Progress {
        Progress {
            about,
            due: Instant::now() + BETWEEN_LINES,
        }
    }
}

/// Lines on stderr, one a second.
pub(crate) struct Progress {
    about: u64,
    due: Instant,
}

impl Progress {
    pub(crate) fn tell(&mut self, seen: u64, done: u64) {
        let now = Instant::now();
        if now < self.due {
            return;
        }
        self.due = now + BETWEEN_LINES;
        let _ = writeln!(
            std::io::stderr(),
            "{seen} of about {} looked at, {done} changed",
            self.about.max(seen)
        );
    }
}
