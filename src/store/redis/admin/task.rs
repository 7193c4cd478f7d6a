//! Options, summary, conditional writes and retries, which the tasks of operators share.

use std::time::{Duration, Instant};

use super::super::codec::{RawValue, decode};
use super::super::locations::{Location, RedisKey, ValueFormat};
use super::super::publish::OutgoingInvalidation;
use super::super::scripts::{ScriptCall, ScriptReply, Step};
use super::super::seal::Sealer;
use super::super::write::{encode_any, encode_expected};
use super::super::{Layout, RedisStore};
use crate::credential::{AppId, Record};
use crate::error::Error;
use crate::store::{CredentialKey, CredentialKind, CredentialSlot, LeaseOwner};

/// Maximum number of attempts to write a record that other processes keep changing. Further
/// attempts are left to [`retry_busy`].
pub(super) const MAX_ATTEMPTS: usize = 5;

/// Maximum time to retry records whose lease is held. It is longer than the default duration of a
/// lease, which is 10 seconds.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(12);

/// Time between two retries of the records whose lease is held.
pub(super) const BUSY_POLL_INTERVAL: Duration = Duration::from_millis(250);

/// The options of a task: the account, the margin, the pause between steps, and dry runs.
#[derive(Debug, Clone)]
pub struct ScanOptions {
    /// The AppID of the account whose records the task reads or writes.
    pub app: AppId,
    /// The renewal margin with which the services store times (`RENEW_MARGIN_SECS`).
    pub margin: Duration,
    /// The pause after each step of a few hundred users.
    pub pause: Duration,
    /// `true` if the task reads and counts, but writes nothing.
    pub dry_run: bool,
}

/// The numbers of records that a task has read, written and left out so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// Records that were read.
    pub scanned: u64,
    /// Records that were written, or would have been written in a dry run.
    pub written: u64,
    /// Records that needed no change.
    pub unchanged: u64,
    /// Records that were not copied because the other layout holds a newer record.
    pub newer: u64,
    /// Records that cannot be read: invalid values, values sealed with an unknown key, and names
    /// that are not UTF-8.
    pub unreadable: u64,
    /// Unreadable records whose names are not UTF-8. This crate writes no such names.
    pub not_utf8: u64,
    /// Records that can neither be used nor renewed, and were not copied.
    pub dead: u64,
    /// Records of users who have logged out everywhere since WeChat issued the tokens. They were
    /// not copied.
    pub revoked: u64,
    /// Copies that were removed, or would have been removed in a dry run, because their source is
    /// gone or their user has logged out.
    pub removed: u64,
    /// Copies without a source that were kept, because services may already use the copies.
    pub kept_copies: u64,
    /// Written records with a stored time that is not plausible.
    pub implausible_times: u64,
    /// Records that were left out, because a process held the lease or changed the record until the
    /// retries ended. Another run of the task retries them.
    pub still_busy: u64,
}

/// A callback that receives the numbers of a task after each step.
pub type ProgressFn<'a> = &'a mut (dyn FnMut(&Summary) + Send);

/// The result of the work of a task on one record. Each result has a counter in [`Summary`], whose
/// fields describe the results.
pub(super) enum RecordOutcome {
    Written,
    WrittenWithImplausibleTime,
    Unchanged,
    Newer,
    Unreadable,
    Dead,
    Revoked,
    Removed,
    /// A process holds the lease of the record, or other processes keep changing the record.
    Busy,
}

impl Summary {
    /// Adds one to the counter of an outcome. Returns `true` if the record has to be retried.
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

    /// Returns the number of users with an unreadable record. Names that are not UTF-8 do not
    /// count, because they belong to no user.
    pub fn unreadable_users(&self) -> u64 {
        self.unreadable.saturating_sub(self.not_utf8)
    }

    /// Counts records whose names are not UTF-8 as read and as unreadable.
    pub(super) fn count_not_utf8(&mut self, not_utf8: u64) {
        self.scanned += not_utf8;
        self.unreadable += not_utf8;
        self.not_utf8 += not_utf8;
    }
}

/// The change of one key, and the value that the key must still hold.
pub(super) struct KeyChange<'a> {
    pub(super) key: &'a RedisKey<'a>,
    /// The value at the last read. The change applies only while the key holds this value.
    pub(super) expected: &'a RawValue,
    pub(super) new: NewValue<'a>,
}

/// The new value of a key or hash field.
pub(super) enum NewValue<'a> {
    /// The current value stays as it is.
    Keep,
    /// This value with this time to live. `None` deletes the key or the hash field.
    Set(Option<&'a str>, Duration),
    /// This value, with the remaining time to live of the current value.
    SetKeepingTtl(&'a str),
}

impl ScanOptions {
    /// Returns the slot of a credential of the account.
    pub(super) fn slot(&self, kind: CredentialKind, id: &str) -> CredentialSlot {
        let key = CredentialKey {
            app: self.app.clone(),
            kind,
            id: id.into(),
        };
        CredentialSlot {
            key,
            margin: self.margin,
        }
    }
}

impl RedisStore {
    /// Applies all changes in one step if every key still holds the expected value and no other
    /// process holds one of the leases. If so, publishes `invalidation` to the services of the
    /// account.
    pub(super) async fn apply_changes(
        &self,
        leases: &[String],
        owner: &LeaseOwner,
        changes: &[KeyChange<'_>],
        invalidation: Option<(&AppId, String)>,
    ) -> Result<ApplyResult, Error> {
        let mut call = ScriptCall::for_step(Step::Commit);
        for lease in leases {
            call.lease_key(lease);
        }
        // Tasks store no new tokens, so they leave tombstones as they are.
        call.arg(owner.as_str()).arg("").arg("").arg(0);
        for KeyChange { key, expected, new } in changes {
            let (new, ttl) = match new {
                NewValue::Keep => (encode_any(), "0".to_owned()),
                NewValue::Set(text, ttl) => (encode_expected(text), ttl.as_millis().to_string()),
                NewValue::SetKeepingTtl(text) => (encode_expected(&Some(text)), "keep".to_owned()),
            };
            call.value_key(&*key.key)
                .arg(key.field.unwrap_or(""))
                .arg(encode_expected(expected).as_slice())
                .arg(new.as_slice())
                .arg(ttl);
        }
        let outgoing = invalidation.map(|(app, message)| OutgoingInvalidation {
            channel: self.0.names.invalidation_channel(app),
            message,
        });
        Ok(match self.run_write(call, outgoing).await? {
            ScriptReply::Applied | ScriptReply::AppliedUnpublished => ApplyResult::Applied,
            ScriptReply::Busy => ApplyResult::Busy,
            ScriptReply::Conflict(_) => ApplyResult::Conflict,
        })
    }
}

/// Retries the busy records with `work`, until all are done or [`BUSY_TIMEOUT`] has passed. Adds
/// the number of records that are still busy to the summary.
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

/// Returns the kinds of credentials that the account itself owns. The account has one record of
/// each kind.
pub(super) fn account_kinds() -> impl Iterator<Item = CredentialKind> {
    let kinds = CredentialKind::ALL.into_iter();
    kinds.filter(|kind| kind.belongs_to_account())
}

/// Returns the layouts in which a kind of credential has a location. Records of snapshot users and
/// of platforms are not part of the published layout, and have the same location in every layout of
/// the store.
pub(super) fn layouts_of(kind: CredentialKind) -> &'static [Layout] {
    match kind {
        CredentialKind::User | CredentialKind::AccountToken | CredentialKind::JsapiTicket => {
            &[Layout::Hashes, Layout::Keys]
        }
        CredentialKind::SnapshotUser | CredentialKind::ComponentToken => &[Layout::Keys],
    }
}

/// The result of [`RedisStore::apply_changes`].
pub(super) enum ApplyResult {
    Applied,
    /// Nothing was written, because another process holds a lease.
    Busy,
    /// Nothing was written, because a key no longer holds the expected value.
    Conflict,
}

/// Decodes the record of a location. Returns `None` if one of its values cannot be read.
pub(super) fn decode_complete(
    location: &Location<'_>,
    slot: &CredentialSlot,
    values: &[RawValue],
    seal: &Sealer,
) -> Option<Record> {
    let record = decode(location, slot, values.to_vec(), seal).record;
    let is_present = |index: usize| values.get(index).is_some_and(Option::is_some);
    let is_complete = match location.format {
        ValueFormat::UserPair => {
            is_present(0) == record.token.is_some() && is_present(1) == record.refresh.is_some()
        }
        ValueFormat::Record | ValueFormat::Token => is_present(0) != record.is_empty(),
    };
    is_complete.then_some(record)
}
