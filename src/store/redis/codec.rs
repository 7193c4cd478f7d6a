//! Between the cells of a slot and a record.

use std::hash::{BuildHasher, RandomState};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use quick_cache::sync::Cache;
use zeroize::Zeroizing;

use super::names::{Cell, Form, Place};
use super::seal::Seal;
use crate::clock::Timestamp;
use crate::credential::refresh_life::LONGEST_LIFE;
use crate::credential::sealed_form::Binding;
use crate::credential::{Record, RecordView, Unreadable, Unstorable, hash_form, record_form};
use crate::error::{Error, ErrorKind};
use crate::store::{Kind, Slot, Stored, Witness};

/// What a cell holds.
pub(super) type Value = Option<Vec<u8>>;

/// What is to be written into a cell.
pub(super) struct New {
    pub(super) value: Option<Zeroizing<String>>,
    /// Zero for a cell that does not expire.
    pub(super) ttl: Duration,
}

/// What a sealed value of a cell is bound to.
pub(super) fn binding<'a>(slot: &'a Slot, cell: &'a Cell<'_>) -> Binding<'a> {
    Binding {
        app: slot.name.app.as_str(),
        kind: slot.name.kind.as_str(),
        user: &slot.name.id,
        key: &cell.key,
    }
}

/// What lies in the cells, as far as it can be read. One that cannot be read is a miss and a
/// warning. Where one is sealed with a key that this process lacks, all of the record is a miss:
/// what others can read is neither renewed from nor deleted by halves.
pub(super) fn view<T>(
    place: &Place<'_>,
    slot: &Slot,
    values: &[Value],
    seal: &Seal,
    look: impl FnOnce(RecordView<'_>) -> T,
) -> T {
    let id = &*slot.name.id;
    let mut others = false;
    let mut unreadable = |at: usize, value: &[u8], why: Unreadable| {
        let Some(cell) = place.cells.get(at) else {
            return;
        };
        if why == Unreadable::OtherKey {
            others = true;
            seal.tell_other_key(&cell.key, value);
        } else if why.is_of_a_serializer() {
            seal.tell_serializer(&cell.key, slot, why);
        } else {
            warn_once(&cell.key, slot, value, why);
        }
    };
    let mut opened = [None, None];
    for ((at, cell), opened) in place.cells.iter().enumerate().zip(&mut opened) {
        let Some(value) = values.get(at).and_then(Option::as_deref) else {
            continue;
        };
        match seal.open(value, &binding(slot, cell)) {
            Ok(text) => *opened = Some((value, text)),
            Err(why) => unreadable(at, value, why),
        }
    }
    let [first, second] = &opened;
    let mut record = RecordView::default();
    if let Some((value, text)) = first {
        let read = match place.form {
            Form::Record => record_form::read(text, id).map(|read| record = read),
            Form::UserPair | Form::Token => {
                hash_form::read_token(text, slot.margin).map(|token| record.token = Some(token))
            }
        };
        if let Err(why) = read {
            unreadable(0, value, why);
        }
    }
    if let Some((value, text)) = second {
        match hash_form::read_refresh(text, id) {
            Ok((refresh, details)) => (record.refresh, record.details) = (Some(refresh), details),
            Err(why) => unreadable(1, value, why),
        }
    }
    if others {
        record = RecordView::default();
    }
    look(record)
}

/// The record that the cells hold, and the proof of what lies there.
pub(super) fn decode(place: &Place<'_>, slot: &Slot, values: Vec<Value>, seal: &Seal) -> Stored {
    let record = view(place, slot, &values, seal, |view| view.to_record());
    let witness = values.into_iter().map(|value| value.map(Zeroizing::new));
    Stored {
        record,
        witness: Witness(witness.collect()),
    }
}

/// For whom a record is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    /// Services that read this place.
    Readers,
    /// Nobody yet: those that write it read the other layout.
    Copy,
}

/// What each cell gets for a record to be stored. An empty record empties the cells.
pub(super) fn encode(
    place: &Place<'_>,
    slot: &Slot,
    record: &Record,
    written_for: For,
    now: Timestamp,
    seal: &Seal,
) -> Result<Vec<New>, Error> {
    let id = &*slot.name.id;
    let token = || {
        record
            .token
            .as_ref()
            .map(|token| hash_form::write_token(token, slot.margin))
    };
    let cells: Result<Vec<_>, Unstorable> = match place.form {
        Form::UserPair => {
            let refresh = record.refresh.as_ref();
            let refresh =
                refresh.map(|refresh| hash_form::write_refresh(refresh, &record.details, id));
            [token(), refresh]
                .into_iter()
                .map(Option::transpose)
                .collect()
        }
        Form::Record => {
            let whole = (!record.is_empty()).then(|| match written_for {
                For::Readers => record_form::write(record, id),
                For::Copy => record_form::write_copy(record, id),
            });
            [whole].into_iter().map(Option::transpose).collect()
        }
        Form::Token => [token()].into_iter().map(Option::transpose).collect(),
    };
    let cells = cells.map_err(|unstorable| {
        let message = format!("WeChat gave a credential that cannot be kept: {unstorable}");
        Error::new(ErrorKind::WechatUnavailable, message)
    })?;
    // The published layout never expires its keys, and its reader does not expect it.
    let ttl = if slot.name.kind == Kind::SnapshotUser {
        life_of_token(record, now)
    } else if place.expires {
        record.key_life(now)
    } else {
        Duration::ZERO
    };
    let cells = place.cells.iter().zip(cells).map(|(cell, value)| {
        let sealed = value.map(|text| seal.seal(Zeroizing::new(text), &binding(slot, cell)));
        let value = sealed.transpose()?;
        Ok(New { value, ttl })
    });
    cells.collect()
}

/// Virtual users are kept no longer than their token lives.
fn life_of_token(record: &Record, now: Timestamp) -> Duration {
    let token = record.token.as_ref();
    let life = token.map(|token| now.until(token.lifetime.expires_at()));
    life.unwrap_or_default()
        .clamp(Duration::from_secs(1), LONGEST_LIFE)
}

/// As many lines about unreadable values are written in each [`A_WHILE`], by this process.
const MOST_LINES: u32 = 100;

const A_WHILE: Duration = Duration::from_secs(60);

/// Whether another line about an unreadable value may be written. Where all users' values are
/// unreadable, lines for each of them would fill the disk and say nothing more.
fn another_line() -> bool {
    static LINES: Mutex<Option<(Instant, u32)>> = Mutex::new(None);
    let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    let (began, written) = lines
        .filter(|(began, _)| began.elapsed() < A_WHILE)
        .unwrap_or_else(|| (Instant::now(), 0));
    *lines = Some((began, written.saturating_add(1)));
    written < MOST_LINES
}

/// Warns of a value that cannot be read, once for each value: it is read again at every request.
pub(super) fn warn_once(key: &str, slot: &Slot, value: &[u8], unreadable: Unreadable) {
    static WARNED: LazyLock<(Cache<u64, ()>, RandomState)> =
        LazyLock::new(|| (Cache::new(1_000), RandomState::new()));
    let (warned, hasher) = &*WARNED;
    let hash = hasher.hash_one((key, &slot.name.id, value));
    if warned.get(&hash).is_none() {
        warned.insert(hash, ());
        if !another_line() {
            return;
        }
        tracing::warn!(
            target: "tower_wechat::store",
            app = %slot.name.app,
            kind = slot.name.kind.as_str(),
            user = ?slot.name.id,
            key,
            "a stored value cannot be read and counts as missing: {unreadable}"
        );
    }
}
