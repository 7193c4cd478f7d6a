//! What an operator does with the store: looks at users, sweeps, moves them to the other layout,
//! seals them anew. The program `tower-wechat` is made of it; no application needs it.
//!
//! All of it goes through the users in small steps while services run. What is written is compared
//! first, and a user whose token is being renewed at the moment is left to the end.

mod leftovers;
mod migrate;
mod reseal;
mod survey;
mod values;
mod walk;

use std::time::Duration;

pub use self::survey::{State, UserReport};
use super::codec::{Value, decode};
use super::names::{Cell, Place};
use super::publish::Tidings;
use super::scripts::{Call, Step};
use super::seal::Seal;
use super::{Answer, RedisStore, anything, flagged};
use crate::credential::{AppId, Record};
use crate::error::Error;
use crate::store::{Kind, LeaseOwner, Name, Slot};

/// How often a user is read again who changes under our hands.
const TRIES: usize = 5;

/// How long users whose tokens are being renewed are waited for at the end: longer than a lease.
const PATIENCE: Duration = Duration::from_secs(12);

/// The rest between two looks at them.
const REST: Duration = Duration::from_millis(250);

/// How the work is done.
#[derive(Debug, Clone)]
pub struct Work {
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
pub struct Tally {
    /// Records that were looked at.
    pub seen: u64,
    /// Those that were written (that would be, on a dry run).
    pub written: u64,
    /// Those that were as they should be already.
    pub same: u64,
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
    pub logged_out: u64,
    /// Copies that were removed (that would be, on a dry run), because what they were made from is
    /// gone, or their user has logged out.
    pub removed: u64,
    /// Copies without what they were made from, which stay because services read them already.
    pub kept: u64,
    /// Those of the written whose stored time nobody can have meant.
    pub odd_times: u64,
    /// Those that were in use all the time; another run will find them.
    pub left: u64,
}

/// Hears how far the work has come.
pub type Progress<'a> = &'a mut (dyn FnMut(&Tally) + Send);

/// What came of one record.
enum Outcome {
    Written,
    WrittenWithOddTime,
    Same,
    Newer,
    Unreadable,
    Dead,
    LoggedOut,
    Removed,
    /// Its token is being renewed, or it keeps changing.
    Busy,
}

impl Tally {
    /// Counts an outcome. Answers whether the record has to be looked at again.
    fn count(&mut self, outcome: &Outcome) -> bool {
        match outcome {
            Outcome::Written => self.written += 1,
            Outcome::WrittenWithOddTime => {
                self.written += 1;
                self.odd_times += 1;
            }
            Outcome::Dead => self.dead += 1,
            Outcome::LoggedOut => self.logged_out += 1,
            Outcome::Removed => self.removed += 1,
            Outcome::Same => self.same += 1,
            Outcome::Newer => self.newer += 1,
            Outcome::Unreadable => self.unreadable += 1,
            Outcome::Busy => return true,
        }
        false
    }

    /// How many users have a record that cannot be read. Names that are not UTF-8 are no users'.
    pub fn unreadable_users(&self) -> u64 {
        self.unreadable.saturating_sub(self.not_utf8)
    }

    /// Counts what cannot be anybody's, by its name.
    fn unnamed(&mut self, not_utf8: u64) {
        self.seen += not_utf8;
        self.unreadable += not_utf8;
        self.not_utf8 += not_utf8;
    }
}

/// What is to become of a cell.
struct Change<'a> {
    cell: &'a Cell<'a>,
    /// What it must still hold.
    expected: &'a Value,
    new: New<'a>,
}

enum New<'a> {
    /// As it is.
    Left,
    Text(Option<&'a str>, Duration),
    /// A new text that dies when the old one would have.
    TextWithOldLife(&'a str),
}

impl Work {
    fn slot(&self, kind: Kind, id: &str) -> Slot {
        let name = Name {
            app: self.app.clone(),
            kind,
            id: id.into(),
        };
        Slot {
            name,
            margin: self.margin,
        }
    }
}

impl RedisStore {
    /// Writes where everything still holds what is expected and nobody renews, and tells the
    /// account's services `news`, if there are any.
    async fn rewrite(
        &self,
        leases: &[String],
        owner: &LeaseOwner,
        changes: &[Change<'_>],
        news: Option<(&AppId, String)>,
    ) -> Result<Rewritten, Error> {
        let mut call = Call::of(Step::Commit);
        for lease in leases {
            call.lease(lease);
        }
        // Nothing is granted here, so the tombstones stay as they are.
        call.arg(owner.as_str()).arg("").arg("").arg(0);
        for Change {
            cell,
            expected,
            new,
        } in changes
        {
            let (new, life) = match new {
                New::Left => (anything(), "0".to_owned()),
                New::Text(text, life) => (flagged(text), life.as_millis().to_string()),
                New::TextWithOldLife(text) => (flagged(&Some(text)), "keep".to_owned()),
            };
            call.cell(&*cell.key)
                .arg(cell.field.unwrap_or(""))
                .arg(flagged(expected).as_slice())
                .arg(new.as_slice())
                .arg(life);
        }
        // Where the credentials stay what they are, there is no news.
        let tidings = news.map(|(app, news)| Tidings {
            channel: self.0.names.news(app),
            news,
        });
        Ok(match self.write(call, tidings).await? {
            Answer(1, _) => Rewritten::Done,
            Answer(0, _) => Rewritten::InUse,
            Answer(..) => Rewritten::Changed,
        })
    }
}

enum Rewritten {
    Done,
    /// Somebody holds the lease.
    InUse,
    Changed,
}

/// The record of a place, if every value there can be read.
fn whole(place: &Place<'_>, slot: &Slot, values: &[Value], seal: &Seal) -> Option<Record> {
    let record = decode(place, slot, values.to_vec(), seal).record;
    let there = |at: usize| values.get(at).is_some_and(Option::is_some);
    let read = match place.cells.len() {
        2 => there(0) == record.token.is_some() && there(1) == record.refresh.is_some(),
        _ => there(0) != record.is_empty(),
    };
    read.then_some(record)
}
