//! What an operator does with the store: looks at users, sweeps, moves them to the other layout,
//! seals them anew. The program `tower-wechat` is made of it; no application needs it.
//!
//! All of it goes through the users in small steps while services run. What is written is compared
//! first, and a user whose token is being renewed at the moment is left to the end.

mod list;
mod migrate;
mod orphans;
mod read;
mod reseal;
mod scan;

use std::time::Duration;

pub use self::list::{TokenState, UserReport};
use super::codec::{RawValue, decode};
use super::layout::{Location, RedisKey};
use super::publish::OutgoingInvalidation;
use super::scripts::{ScriptCall, Step};
use super::seal::Sealer;
use super::{RedisStore, ScriptReply, encode_any, encode_expected};
use crate::credential::{AppId, Record};
use crate::error::Error;
use crate::store::{CredentialKey, CredentialKind, CredentialSlot, LeaseOwner};

/// How often a user is read again who changes under our hands.
const MAX_ATTEMPTS: usize = 5;

/// How long users whose tokens are being renewed are waited for at the end: longer than a lease.
const BUSY_TIMEOUT: Duration = Duration::from_secs(12);

/// The rest between two looks at them.
const BUSY_POLL_INTERVAL: Duration = Duration::from_millis(250);

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
enum RecordOutcome {
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
    fn count(&mut self, outcome: &RecordOutcome) -> bool {
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
    fn count_not_utf8(&mut self, not_utf8: u64) {
        self.scanned += not_utf8;
        self.unreadable += not_utf8;
        self.not_utf8 += not_utf8;
    }
}

/// What is to become of a cell.
struct KeyChange<'a> {
    key: &'a RedisKey<'a>,
    /// What it must still hold.
    expected: &'a RawValue,
    new: NewValue<'a>,
}

enum NewValue<'a> {
    /// As it is.
    Keep,
    Set(Option<&'a str>, Duration),
    /// A new text that dies when the old one would have.
    SetKeepingTtl(&'a str),
}

impl ScanOptions {
    fn slot(&self, kind: CredentialKind, id: &str) -> CredentialSlot {
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
    async fn apply_changes(
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
            ScriptReply(1, _) => ApplyResult::Applied,
            ScriptReply(0, _) => ApplyResult::Busy,
            ScriptReply(..) => ApplyResult::Conflict,
        })
    }
}

enum ApplyResult {
    Applied,
    /// Somebody holds the lease.
    Busy,
    Conflict,
}

/// The record of a place, if every value there can be read.
fn decode_complete(
    location: &Location<'_>,
    slot: &CredentialSlot,
    values: &[RawValue],
    seal: &Sealer,
) -> Option<Record> {
    let record = decode(location, slot, values.to_vec(), seal).record;
    let there = |at: usize| values.get(at).is_some_and(Option::is_some);
    let read = match location.keys.len() {
        2 => there(0) == record.token.is_some() && there(1) == record.refresh.is_some(),
        _ => there(0) != record.is_empty(),
    };
    read.then_some(record)
}
