//! What the tasks share: options, the summary, conditional writes, and retries of busy records.

use std::time::{Duration, Instant};

use super::super::codec::{RawValue, decode};
use super::super::locations::{Location, RedisKey, ValueFormat};
use super::super::publish::OutgoingInvalidation;
use super::super::scripts::{ScriptCall, Step};
use super::super::seal::Sealer;
use super::super::write::{ScriptReply, encode_any, encode_expected};
use super::super::{Layout, RedisStore};
use crate::credential::{AppId, Record};
use crate::error::Error;
use crate::store::{CredentialKey, CredentialKind, CredentialSlot, LeaseOwner};

/// How often a user is read again who changes under our hands.
pub(super) const MAX_ATTEMPTS: usize = 5;

/// How long users whose tokens are being renewed are waited for at the end: longer than a lease.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(12);

/// The rest between two looks at them.
pub(super) const BUSY_POLL_INTERVAL: Duration = Duration::from_millis(250);

/// How the work is done.
#[derive(Debug, Clone)]
pub struct ScanOptions {
    /// Whose users.
    pub app: AppId,
    /// The margin with which the services store times (`RENEW_MARGIN_SECS`).
    pub margin: Duration,
    /// The rest after each step of a few hundred users.
    pub pause: Duration,
    /// Look only.
    pub dry_run: bool,
}

/// What has been done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// Records that were looked at.
    pub scanned: u64,
    /// Those that were written (that would be, on a dry run).
    pub written: u64,
    /// Those that were as they should be already.
    pub unchanged: u64,
    /// Those of which the other place holds something newer.
    pub newer: u64,
    /// Those that cannot be read: garbage, sealed with a key that is not in the ring, or under a
    /// name that is not UTF-8.
    pub unreadable: u64,
    /// Those of the unreadable whose names are not UTF-8, which no user of this crate has.
    pub not_utf8: u64,
    /// Those of which nothing can be made any more; they are not copied.
    pub dead: u64,
    /// Those of users who have logged out everywhere since; they are not copied.
    pub revoked: u64,
    /// Copies that were removed (that would be, on a dry run), because what they were made from is
    /// gone, or their user has logged out.
    pub removed: u64,
    /// Copies without what they were made from, which stay because services read them already.
    pub kept_copies: u64,
    /// Those of the written whose stored time nobody can have meant.
    pub implausible_times: u64,
    /// Those that were in use all the time; another run will find them.
    pub still_busy: u64,
}

/// Hears how far the work has come.
pub type ProgressFn<'a> = &'a mut (dyn FnMut(&Summary) + Send);

/// What came of one record.
pub(super) enum RecordOutcome {
    Written,
    WrittenWithImplausibleTime,
    Unchanged,
    Newer,
    Unreadable,
    Dead,
    Revoked,
    Removed,
    /// Its token is being renewed, or it keeps changing.
    Busy,
}

impl Summary {
    /// Counts an outcome. Answers whether the record has to be looked at again.
    pub(super) fn count(&mut self, outcome: &RecordOutcome) -> bool {
        match outcome {
            RecordOutcome::Written => self.written += 1,
            RecordOutcome::WrittenWithImplausibleTime => {
                self.written += 1;
                self.implausible_times += 1;
            }
            RecordOutcome::Dead => self.dead += 1,
            RecordOutcome::Revoked => self.revoked += 1,
            RecordOutcome::Removed => self.removed += 1,
            RecordOutcome::Unchanged => self.unchanged += 1,
            RecordOutcome::Newer => self.newer += 1,
            RecordOutcome::Unreadable => self.unreadable += 1,
            RecordOutcome::Busy => return true,
        }
        false
    }

    /// How many users have a record that cannot be read. Names that are not UTF-8 are no users'.
    pub fn unreadable_users(&self) -> u64 {
        self.unreadable.saturating_sub(self.not_utf8)
    }

    /// Counts what cannot be anybody's, by its name.
    pub(super) fn count_not_utf8(&mut self, not_utf8: u64) {
        self.scanned += not_utf8;
        self.unreadable += not_utf8;
        self.not_utf8 += not_utf8;
    }
}

/// What is to become of a cell.
pub(super) struct KeyChange<'a> {
    pub(super) key: &'a RedisKey<'a>,
    /// What it must still hold.
    pub(super) expected: &'a RawValue,
    pub(super) new: NewValue<'a>,
}

pub(super) enum NewValue<'a> {
    /// As it is.
    Keep,
    Set(Option<&'a str>, Duration),
    /// A new text that dies when the old one would have.
    SetKeepingTtl(&'a str),
}

impl ScanOptions {
    pub(super) fn slot(&self, kind: CredentialKind, id: &str) -> CredentialSlot {
        let name = CredentialKey {
            app: self.app.clone(),
            kind,
            id: id.into(),
        };
        CredentialSlot {
            key: name,
            margin: self.margin,
        }
    }
}

impl RedisStore {
    /// Writes where everything still holds what is expected and nobody renews, and tells the
    /// account's services `news`, if there are any.
    pub(super) async fn apply_changes(
        &self,
        leases: &[String],
        owner: &LeaseOwner,
        changes: &[KeyChange<'_>],
        news: Option<(&AppId, String)>,
    ) -> Result<ApplyResult, Error> {
        let mut call = ScriptCall::for_step(Step::Commit);
        for lease in leases {
            call.lease_key(lease);
        }
        // Nothing is granted here, so the tombstones stay as they are.
        call.arg(owner.as_str()).arg("").arg("").arg(0);
        for KeyChange {
            key: cell,
            expected,
            new,
        } in changes
        {
            let (new, life) = match new {
                NewValue::Keep => (encode_any(), "0".to_owned()),
                NewValue::Set(text, life) => (encode_expected(text), life.as_millis().to_string()),
                NewValue::SetKeepingTtl(text) => (encode_expected(&Some(text)), "keep".to_owned()),
            };
            call.value_key(&*cell.key)
                .arg(cell.field.unwrap_or(""))
                .arg(encode_expected(expected).as_slice())
                .arg(new.as_slice())
                .arg(life);
        }
        // Where the credentials stay what they are, there is no news.
        let tidings = news.map(|(app, news)| OutgoingInvalidation {
            channel: self.0.names.invalidation_channel(app),
            message: news,
        });
        Ok(match self.run_write(call, tidings).await? {
            ScriptReply::Applied | ScriptReply::AppliedUnpublished => ApplyResult::Applied,
            ScriptReply::Busy => ApplyResult::Busy,
            ScriptReply::Conflict(_) => ApplyResult::Conflict,
        })
    }
}

/// Works on records again that were in use, until none of them is or [`BUSY_TIMEOUT`] has passed.
/// Adds those that are still in use to the summary.
pub(super) async fn retry_busy<T>(
    mut busy: Vec<T>,
    summary: &mut Summary,
    work: impl AsyncFn(&T) -> Result<RecordOutcome, Error>,
) -> Result<(), Error> {
    let deadline = Instant::now() + BUSY_TIMEOUT;
    while !busy.is_empty() && Instant::now() < deadline {
        tokio::time::sleep(BUSY_POLL_INTERVAL).await;
        let mut still_busy = Vec::new();
        for record in busy {
            let outcome = work(&record).await?;
            if summary.count(&outcome) {
                still_busy.push(record);
            }
        }
        busy = still_busy;
    }
    summary.still_busy += busy.len() as u64;
    Ok(())
}

/// Returns the kinds of credentials of which an account has one record each.
pub(super) fn account_kinds() -> impl Iterator<Item = CredentialKind> {
    let kinds = CredentialKind::ALL.into_iter();
    kinds.filter(|kind| kind.belongs_to_account())
}

/// Returns the layouts in which a kind of credential has a location. Records of snapshot users are
/// no part of the published layout: they have one location, whatever the layout of the store.
pub(super) fn layouts_of(kind: CredentialKind) -> &'static [Layout] {
    match kind {
        CredentialKind::User | CredentialKind::AccountToken | CredentialKind::JsapiTicket => {
            &[Layout::Hashes, Layout::Keys]
        }
        CredentialKind::SnapshotUser => &[Layout::Keys],
    }
}

pub(super) enum ApplyResult {
    Applied,
    /// Somebody holds the lease.
    Busy,
    Conflict,
}

/// The record of a place, if every value there can be read.
pub(super) fn decode_complete(
    location: &Location<'_>,
    slot: &CredentialSlot,
    values: &[RawValue],
    seal: &Sealer,
) -> Option<Record> {
    let record = decode(location, slot, values.to_vec(), seal).record;
    let there = |at: usize| values.get(at).is_some_and(Option::is_some);
    let read = match location.format {
        ValueFormat::UserPair => {
            there(0) == record.token.is_some() && there(1) == record.refresh.is_some()
        }
        ValueFormat::Record | ValueFormat::Token => there(0) != record.is_empty(),
    };
    read.then_some(record)
}
